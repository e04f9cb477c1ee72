"""The slowly moving copy of encoder and projector that makes MoCo's keys and BYOL's targets."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from textcl.encoder import Encoder
from textcl.encoder.batching import Tokens
from textcl.views.view import View


class Target(nn.Module):
    """A copy that follows encoder and projector as an exponential moving average, without gradient.

    Its weights are at least float32: in half precision a difference times 1 − momentum rounds to zero, and the copy
    would never move.

    Args:
        encoder: The encoder that is copied and followed.
        projector: The projector that is copied and followed.
        dropout: Whether the copy embeds with dropout.

    Example:
        >>> encoder = Encoder.from_pretrained("bundled")
        >>> target = Target(encoder, nn.Linear(256, 128))
        >>> target.projector(target.embed(encoder.tokenize(["A cat sleeps."]))).shape
        torch.Size([1, 128])
    """

    def __init__(self, encoder: Encoder, projector: nn.Module, dropout: bool = True) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.projector = copy.deepcopy(projector)
        self.dropout = dropout
        for parameter in self.requires_grad_(False).parameters():
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))

    @torch.no_grad()
    def embed(self, tokens: Tokens, views: Sequence[View] = ()) -> Tensor:
        """Embeddings (rows, dim) of tokenised rows, see `Encoder.embed`; without the projector."""
        return self.encoder.embed(tokens, views=views, dropout=self.dropout)

    @torch.no_grad()
    def update(self, encoder: Encoder, projector: nn.Module, momentum: float) -> None:
        """θ′ ← m θ′ + (1 − m) θ, with momentum m from 0 (copy the weights) to 1 (change nothing)."""
        originals = [*encoder.parameters(), *projector.parameters()]
        copies = [*self.encoder.parameters(), *self.projector.parameters()]
        for own, other in zip(copies, originals, strict=True):
            own.lerp_(other.to(own.dtype), 1 - momentum)


def cosine_momentum(base: float, step: int, total: int) -> float:
    """m = 1 − (1 − base)(1 + cos(π step/total))/2, from `base` up to 1 (BYOL, Grill et al. 2020, section 3.3).

    Args:
        base: The momentum at step 0.
        step: The step, from 0.
        total: The step at which the momentum is 1.
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * step / total)) / 2
