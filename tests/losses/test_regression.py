"""The objective of BYOL and SimSiam: its equation, closed forms, gradients, invariances."""

import pytest
import torch
from oracles import slow_cosine_regression

from textcl.losses.regression import cosine_regression


def random(rows=5, dim=3, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_equation():
    predictions, targets = random(seed=1), random(seed=2)
    expected = slow_cosine_regression(predictions, targets)
    assert cosine_regression(predictions, targets).item() == pytest.approx(expected, abs=1e-10)


def test_a_row_gives_0_where_they_agree_2_where_orthogonal_and_4_where_opposite():
    rows = torch.eye(3, dtype=torch.float64)
    for targets, expected in ((7 * rows, 0), (rows.roll(1, 0), 2), (-rows / 3, 4)):
        assert cosine_regression(rows, targets).item() == pytest.approx(3 * expected, abs=1e-10)


def test_a_row_of_zeros_is_orthogonal_to_all_and_its_gradient_is_finite():
    rows = random().index_fill(0, torch.tensor([1]), 0.0).requires_grad_()
    loss = cosine_regression(rows, random(seed=1))
    loss.backward()
    assert cosine_regression(rows[1:2], random(rows=1)).item() == 2
    assert rows.grad.abs().max() < 100


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(cosine_regression, [random(seed=seed).requires_grad_() for seed in (1, 2)])


def test_a_target_whose_gradient_is_stopped_gets_none_and_the_prediction_the_same():
    predictions, targets = random(seed=1).requires_grad_(), random(seed=2).requires_grad_()
    (alone,) = torch.autograd.grad(cosine_regression(predictions, targets.detach()), predictions)
    cosine_regression(predictions, targets).backward()
    torch.testing.assert_close(predictions.grad, alone, rtol=0, atol=1e-12)
    assert targets.grad.abs().min() > 0
    assert not cosine_regression(predictions.detach(), targets.detach()).requires_grad


def test_it_ignores_lengths_so_its_gradient_has_no_radial_part():
    predictions, targets = random(seed=1).requires_grad_(), random(seed=2).requires_grad_()
    scale = random(5, 1, seed=3).exp()
    loss = cosine_regression(predictions, targets)
    assert cosine_regression(predictions * scale, targets / scale).item() == pytest.approx(loss.item(), abs=1e-10)
    for leaf, gradient in zip((predictions, targets), torch.autograd.grad(loss, (predictions, targets)), strict=True):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close((gradient * leaf).sum(1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_of_two_types_the_wider_one_is_taken():
    predictions, targets = random(seed=1), random(seed=2)
    exact = cosine_regression(predictions.float().double(), targets)
    assert torch.equal(cosine_regression(predictions.float(), targets), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32_and_autocast_does_not_reach_inside(dtype):
    predictions, targets = random(seed=1).to(dtype), random(seed=2).to(dtype)
    got = cosine_regression(predictions, targets)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(slow_cosine_regression(predictions, targets), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_regression(predictions, targets), got)
