"""The prototypes that SwAV assigns texts to."""

import torch
from torch import Tensor, nn


class Prototypes(nn.Module):
    """Prototype vectors of length 1, without bias (Caron et al. 2020, SwAV, section 3).

    `normalize` scales them to length 1 after each optimizer step, so that `forward` changes no state.

    Args:
        count: Number K of prototypes.
        dimension: Dimension of the projected embeddings.

    Example:
        >>> Prototypes(4, 8)(torch.randn(2, 8)).shape
        torch.Size([2, 4])
    """

    def __init__(self, count: int, dimension: int) -> None:
        super().__init__()
        # the name ends in "_norm" because transformers' trainer then applies no weight decay
        self.unit_norm = nn.Parameter(nn.functional.normalize(torch.randn(count, dimension), dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """The cosine of each row (rows, dim) with each prototype, (rows, prototypes), in float32 or wider."""
        with torch.autocast(embeddings.device.type, enabled=False):  # these cosines are divided by a small number later
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            return nn.functional.normalize(embeddings.to(dtype), dim=1) @ self.unit_norm.to(dtype).T

    @torch.no_grad()
    def normalize(self) -> None:
        self.unit_norm.copy_(nn.functional.normalize(self.unit_norm, dim=1))
