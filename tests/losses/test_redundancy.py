"""Barlow Twins, VICReg and SimCSE++'s dimensions: oracles from the equations, closed forms, gradients, precision."""

import itertools
import math

import numpy as np
import pytest
import torch
from oracles import slow_barlow_twins, slow_vicreg

from textcl.losses.redundancy import barlow_twins, dimension_contrast, vicreg

# zero mean, population deviation 1, no two columns correlated
WHITE = torch.tensor(list(itertools.product([1.0, -1.0], repeat=3)), dtype=torch.float64)

LOSSES = {
    "barlow": barlow_twins,
    "vicreg": lambda x, y: torch.stack(vicreg(x, y)),
    "dimensions": dimension_contrast,
}


def views(rows=7, dim=4, seed=0):
    """Two views of the same rows, neither centred nor of deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    shared, first, second = torch.randn(3, rows, dim, generator=generator, dtype=torch.float64)
    scale = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=torch.float64)[:dim]
    return (shared + 0.5 * first) * scale + 1, (shared + 0.5 * second) * scale - 2


def rotation(dim, seed=3):
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


@pytest.mark.parametrize(("rows", "dim"), [(2, 1), (7, 4), (3, 4)])
def test_barlow_twins_is_the_equation(rows, dim):
    first, second = views(rows, dim)
    got = barlow_twins(first, second, off_diagonal_weight=0.3, epsilon=0.1)
    assert got.item() == pytest.approx(slow_barlow_twins(first, second, 0.3, 0.1), abs=1e-10)


def test_barlow_twins_is_that_of_numpys_correlations():
    first, second = views()
    correlation = np.corrcoef(first.T.numpy(), second.T.numpy())[:4, 4:]
    on = ((1 - np.diag(correlation)) ** 2).sum()
    off = (correlation**2).sum() - (np.diag(correlation) ** 2).sum()
    assert barlow_twins(first, second, epsilon=0.0).item() == pytest.approx(on + 0.0051 * off, abs=1e-10)


@pytest.mark.parametrize(("rows", "dim"), [(2, 1), (7, 4), (3, 4)])
def test_vicreg_is_the_equations(rows, dim):
    first, second = views(rows, dim)
    got = [term.item() for term in vicreg(first, second, epsilon=0.01)]
    assert got == pytest.approx(slow_vicreg(first, second, 0.01), abs=1e-10)


def test_vicreg_is_that_of_numpys_covariances():
    first, second = views()
    variance = covariances = 0.0
    for view in (first, second):
        matrix = np.cov(view.T.numpy())
        variance += np.maximum(0, 1 - np.sqrt(np.diag(matrix) + 1e-4)).mean() / 2
        covariances += ((matrix**2).sum() - (np.diag(matrix) ** 2).sum()) / 4
    got = [term.item() for term in vicreg(first, second)]
    assert got == pytest.approx([((first - second) ** 2).mean().item(), variance, covariances], abs=1e-10)
    assert variance > 0.1, "a hinge that is not reached would compare nothing"


def test_dimension_contrast_of_a_small_example_computed_by_hand():
    """Means 7/3, 1 and 8/3, 5/3; variances 14/9, 2/3 and 14/9, 26/9. So c = [[0.185713, 0.167725], [−0.130929,
    0.048038]] at temperature 5, and the two rows cost ln(1 + e^−0.017988) and ln(1 + e^−0.178967)."""
    first = torch.tensor([[1.0, 2.0], [2.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 1.0], [3.0, 0.0], [4.0, 4.0]], dtype=torch.float64)
    by_hand = (math.log1p(math.exp(-0.017988)) + math.log1p(math.exp(-0.178967))) / 2
    assert by_hand == pytest.approx(0.645928, abs=1e-6)
    assert dimension_contrast(first, second).item() == pytest.approx(0.645928, abs=1e-6)
    assert dimension_contrast(first, second, temperature=10.0).item() == pytest.approx(0.669033, abs=1e-6)


def test_dimension_contrast_is_that_of_numpys_correlations():
    first, second = views()
    scores = np.corrcoef(first.T.numpy(), second.T.numpy())[:4, 4:] / 0.2
    expected = (np.log(np.exp(scores).sum(axis=1)) - np.diag(scores)).mean()
    assert dimension_contrast(first, second, 0.2, epsilon=0.0).item() == pytest.approx(expected, abs=1e-10)


# -- closed forms -----------------------------------------------------------------------------------------------------


def test_closed_forms_of_barlow_twins():
    def loss(first, second):
        return barlow_twins(first, second, off_diagonal_weight=0.3, epsilon=0.0).item()

    assert loss(WHITE, WHITE) == pytest.approx(0.0, abs=1e-10)
    assert loss(WHITE, -WHITE) == pytest.approx(4 * 3, abs=1e-10)
    same = WHITE[:, :1].expand(-1, 5)
    assert loss(same, same) == pytest.approx(0.3 * 5 * 4, abs=1e-10)


def test_closed_forms_of_dimension_contrast():
    def loss(first, second):
        return dimension_contrast(first, second, 0.5, epsilon=0.0).item()

    assert loss(WHITE, WHITE) == pytest.approx(math.log(1 + 2 * math.exp(-2)), abs=1e-10)
    assert loss(WHITE, -WHITE) == pytest.approx(math.log(1 + 2 * math.exp(2)), abs=1e-10)
    same = WHITE[:, :1].expand(-1, 5)
    assert loss(same, same) == pytest.approx(math.log(5), abs=1e-10)


def test_closed_forms_of_vicreg():
    def loss(first, second):
        return sum(w * term.item() for w, term in zip((25, 25, 1), vicreg(first, second), strict=True))

    collapsed = torch.full((6, 4), 3.0, dtype=torch.float64)
    assert loss(collapsed, collapsed) == pytest.approx(24.75, abs=1e-10)
    unit = WHITE * math.sqrt(7 / 8)  # its unbiased variance is 1
    assert loss(unit, unit) == pytest.approx(0.0, abs=1e-10)
    assert loss(2 * unit, 2 * unit) == pytest.approx(0.0, abs=1e-10), "the hinge asks for no more than 1"
    assert loss(unit / 2, unit / 2) == pytest.approx(25 * (1 - math.sqrt(0.25 + 1e-4)), abs=1e-10)


# -- gradients and invariances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [barlow_twins, vicreg, dimension_contrast])
def test_gradients_are_those_of_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, [view.requires_grad_() for view in views()])


def test_both_losses_mind_neither_the_order_of_rows_nor_that_of_views():
    first, second = views()
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    for loss in (barlow_twins, lambda x, y: torch.stack(vicreg(x, y))):
        expected = loss(first, second)
        torch.testing.assert_close(loss(second, first), expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(loss(first[order], second[order]), expected, rtol=0, atol=1e-10)
        assert (loss(first[order], second) - expected).abs().max() > 1e-3


def test_barlow_twins_ignores_scale_and_shift_of_each_dimension_and_not_a_rotation():
    first, second = views()
    scale = torch.tensor([2.0, -0.1, 30.0, 1.0], dtype=torch.float64)
    expected = barlow_twins(first, second, epsilon=0.0).item()
    moved = barlow_twins(first * scale + 5, second * scale.flip(0).abs() * scale.sign() - scale, epsilon=0.0)
    assert moved.item() == pytest.approx(expected, abs=1e-10)
    turned = barlow_twins(first @ rotation(4), second @ rotation(4), epsilon=0.0)
    assert abs(turned.item() - expected) > 1e-3


def test_vicreg_ignores_a_shift_and_not_a_scale():
    first, second = views()
    expected = torch.stack(vicreg(first, second))
    shift = torch.tensor([5.0, -3.0, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(vicreg(first + shift, second + shift)), expected, rtol=0, atol=1e-10)
    assert ((torch.stack(vicreg(first / 2, second / 2)) - expected).abs() > 1e-3).all()
    apart = torch.stack(vicreg(first + shift, second))
    torch.testing.assert_close(apart[1:], expected[1:], rtol=0, atol=1e-10)
    assert apart[0] > expected[0] + 1


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_half_types_are_computed_in_float32(loss, dtype):
    """A square of 300 overflows float16."""
    first, second = (300 * view.to(dtype) for view in views())
    got = loss(first, second)
    assert got.dtype == torch.float32
    exact = loss(first.double(), second.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_autocast_does_not_reach_inside(loss):
    first, second = (view.float() for view in views())
    expected = loss(first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (first.T @ second).dtype == torch.bfloat16
        assert torch.equal(loss(first, second), expected)
