"""Blending a trained encoder with the one that training started from, weight by weight."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.ranges import Range

ALPHA = Range(at_least=0, at_most=1)


def blended(start: Encoder, trained: Encoder, alpha: float) -> Encoder:
    r"""A new encoder with the weights (1 - α) · start + α · trained, computed in float32.

    Interpolating with the start keeps more of what it knew (Wortsman et al. 2022, arXiv 2109.01903, eq. 1). Buffers
    that are not floating point are those of the start, and so are pooling, prompts and all other settings.

    Args:
        start: The encoder that training started from.
        trained: The trained encoder, of the same architecture.
        alpha: α, from 0 to 1. 0 gives the weights of the start, and 1 those of the trained encoder, bit for bit.

    Raises:
        InputError: α is outside its range, or the encoders differ in the names or shapes of their weights.

    Example:
        >>> half = blended(start, trained, 0.5)  # doctest: +SKIP
    """
    ALPHA.check("alpha", alpha)
    one, two = start.state_dict(), trained.state_dict()
    if {name: value.shape for name, value in one.items()} != {name: value.shape for name, value in two.items()}:
        raise InputError(f"{start.name} and {trained.name} cannot be blended: their weights differ in name or shape.")
    result = copy.deepcopy(start)
    with torch.no_grad():
        for name, value in result.state_dict().items():
            if value.is_floating_point():
                value.copy_(_between(one[name], two[name].to(value.device), alpha))
    return result


def _between(one: Tensor, two: Tensor, alpha: float) -> Tensor:
    """(1 - α) · one + α · two; the ends are exact, also for NaN, infinity and -0."""
    if alpha in (0, 1):
        return two if alpha else one
    return (1 - alpha) * one.float() + alpha * two.float()
