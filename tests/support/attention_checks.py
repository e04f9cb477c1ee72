"""What must hold of attention, whoever computes it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def same_values_and_gradients(
    found: Tensor, ours: Sequence[Tensor], expected: Tensor, theirs: Sequence[Tensor]
) -> None:
    """Asserts that two results are equal in doubles, and so their gradients by the inputs of each."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn_like(expected)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)


def dropout_leaves_the_mean(draw: Callable[[], Tensor], expected: Tensor, draws: int = 4000) -> None:
    """Asserts that results under dropout differ, and are on average what they are without."""
    found = torch.stack([draw() for _ in range(draws)])
    assert ((found.mean(dim=0) - expected).abs() < 5 * found.std(dim=0) / draws**0.5).all()
    assert found.std(dim=0).min() > 0
