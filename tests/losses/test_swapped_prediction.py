"""SwAV's codes and loss: slow oracles in the exponential domain, closed forms, gradients, invariances, range."""

import math

import pytest
import torch
from oracles import slow_sinkhorn, slow_swapped_prediction
from torch.nn.functional import normalize

from textcl.losses.swapped_prediction import sinkhorn, swapped_prediction


def random(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(rows=9, prototypes=4, seed=0):
    return normalize(random(rows, 5, seed), dim=1) @ normalize(random(prototypes, 5, seed + 1), dim=1).T


# -- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 1), (0.05, 3), (0.2, 1000)])
def test_codes_are_those_of_the_exponential_domain(epsilon, iterations, shape):
    scores = cosines(*shape)
    expected = slow_sinkhorn(scores, epsilon, iterations)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, rtol=0, atol=1e-10)


def test_a_row_sums_to_1_exactly_and_prototypes_share_evenly_in_the_limit_only():
    few, many = sinkhorn(cosines(), iterations=3), sinkhorn(cosines(), iterations=2000)
    for codes in (few, many):
        torch.testing.assert_close(codes.sum(1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(many.sum(0), torch.full((4,), 9 / 4, dtype=torch.float64), rtol=0, atol=1e-8)
    assert (few.sum(0) - 9 / 4).abs().max() > 1e-3


def test_as_many_rows_as_prototypes_find_their_permutation():
    order = torch.tensor([3, 0, 4, 1, 2])
    codes = sinkhorn(torch.eye(5, dtype=torch.float64)[order], epsilon=0.01)
    torch.testing.assert_close(codes, torch.eye(5, dtype=torch.float64)[order], rtol=0, atol=1e-10)
    prototypes = normalize(random(5, 8), dim=1)
    rows = normalize(prototypes[order] + 0.3 * random(5, 8, seed=1), dim=1)
    assert torch.equal(sinkhorn(rows @ prototypes.T, epsilon=0.01, iterations=100).argmax(dim=1), order)


def test_a_constant_added_to_all_scores_changes_nothing_and_prototypes_may_come_in_any_order():
    scores, order = cosines(), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(sinkhorn(scores + 0.8), sinkhorn(scores), rtol=0, atol=1e-10)
    torch.testing.assert_close(sinkhorn(scores[:, order]), sinkhorn(scores)[:, order], rtol=0, atol=1e-12)


def test_codes_carry_no_gradient():
    assert not sinkhorn(cosines().requires_grad_()).requires_grad


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.float32, 0.005), (torch.float16, 0.05), (torch.bfloat16, 0.005)])
def test_codes_are_finite_where_the_exponential_is_not(dtype, epsilon):
    scores = cosines(40, 8).to(dtype)
    scores[0, 0] = 1.0
    assert (scores / epsilon).exp().isinf().any()
    codes = sinkhorn(scores, epsilon)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes.double(), sinkhorn(scores.double(), epsilon), rtol=0, atol=1e-4)
    torch.testing.assert_close(codes.sum(1), torch.ones(40), rtol=0, atol=1e-6)


# -- loss -------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_equation():
    codes, scores = sinkhorn(cosines()), cosines(seed=5)
    expected = slow_swapped_prediction(codes, scores, 0.3)
    assert swapped_prediction(codes, scores, 0.3).item() == pytest.approx(expected, abs=1e-10)


def test_collapsed_embeddings_have_even_codes_and_a_loss_of_ln_k():
    scores = cosines(1, 6).expand(12, -1)
    codes = sinkhorn(scores)
    torch.testing.assert_close(codes, torch.full((12, 6), 1 / 6, dtype=torch.float64), rtol=0, atol=1e-10)
    even = torch.zeros(12, 6, dtype=torch.float64)
    assert swapped_prediction(codes, even).item() / 12 == pytest.approx(math.log(6), abs=1e-10)
    assert swapped_prediction(codes, scores).item() / 12 > math.log(6)


def test_permuting_the_prototypes_changes_nothing():
    codes, scores, order = sinkhorn(cosines()), cosines(seed=5), torch.tensor([2, 0, 3, 1])
    expected = swapped_prediction(codes, scores).item()
    assert swapped_prediction(codes[:, order], scores[:, order]).item() == pytest.approx(expected, abs=1e-10)
    assert abs(swapped_prediction(codes, scores[:, order]).item() - expected) > 1e-3


def test_its_gradient_is_softmax_minus_code():
    codes, scores = sinkhorn(cosines()), cosines(seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: swapped_prediction(codes, s, 0.3), [scores])
    (gradient,) = torch.autograd.grad(swapped_prediction(codes, scores, 0.3), scores)
    torch.testing.assert_close(gradient, ((scores / 0.3).softmax(1) - codes) / 0.3, rtol=0, atol=1e-12)


def test_half_types_are_computed_in_float32_and_autocast_does_not_reach_inside():
    codes, scores = sinkhorn(cosines()), cosines(seed=5).half()
    got = swapped_prediction(codes.float(), scores, temperature=0.01)  # exp(100) overflows
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(slow_swapped_prediction(codes, scores.double(), 0.01), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(swapped_prediction(codes.float(), scores, temperature=0.01), got)
