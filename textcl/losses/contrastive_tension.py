"""Contrastive Tension: classifies whether two encoders saw the same text."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_tension(first: Tensor, second: Tensor, identical: Tensor) -> Tensor:
    r"""Binary cross-entropy with the dot product as logit, summed over the pairs.

    .. math:: \ell = -\log \sigma(f(s) \cdot g(s)) \text{ for an identical pair}, \quad
        -\log(1 - \sigma(f(s) \cdot g(s'))) \text{ for another}

    Carlsson et al. 2021 (Semantic Re-tuning with Contrastive Tension, ICLR), section 3. Vectors are not
    normalised, and logits are not scaled. Half precision is computed in float32.

    Args:
        first: ``(pairs, dim)``, from the first tower.
        second: ``(pairs, dim)``, from the second tower.
        identical: ``(pairs,)`` bool, whether both towers saw the same text.

    Returns:
        Scalar, the sum over the pairs.

    Example:
        >>> contrastive_tension(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([True, False])) / 2      # ln 2
        tensor(0.6931)
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        logits = (first.to(dtype) * second.to(dtype)).sum(dim=1)
        return F.softplus(torch.where(identical, -logits, logits)).sum()
