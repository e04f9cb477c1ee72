"""Geometry: slow oracles from the definitions, closed forms, gradients."""

import math

import pytest
import torch

from textcl.metrics.geometry import (
    alignment,
    effective_rank,
    mean_cosine,
    negative_cosine,
    positive_cosine,
    uniformity,
)


def random(rows, dim, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def rows_of(tensor):
    return [unit(row) for row in tensor.tolist()]


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize(
    "measure",
    [
        lambda x, y: alignment(x, y),
        lambda x, y: uniformity(x),
        lambda x, y: effective_rank(x),
        lambda x, y: mean_cosine(x),
        positive_cosine,
        negative_cosine,
    ],
    ids=["alignment", "uniformity", "effective_rank", "mean_cosine", "positive_cosine", "negative_cosine"],
)
def test_autocast_changes_nothing(measure):
    """The diagnostics and a user's own loss are computed within it."""
    first, second = random(40, 16).float(), random(40, 16, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = measure(first, second)
    assert found.dtype == torch.float32
    assert torch.equal(found, measure(first, second))


@pytest.mark.parametrize("measure", [uniformity, mean_cosine, lambda rows: alignment(rows, random(4, 3, seed=1))])
def test_a_row_of_zeros_has_a_finite_gradient(measure):
    rows = random(4, 3).index_fill(0, torch.tensor([1]), 0.0).requires_grad_()
    measure(rows).backward()
    assert rows.grad.abs().max() < 100


def test_alignment_is_the_mean_distance_to_a_power():
    first, second = random(6, 4), random(6, 4, seed=1)
    for alpha in (1.0, 2.0, 3.0):
        distances = [math.dist(x, y) ** alpha for x, y in zip(rows_of(first), rows_of(second), strict=True)]
        assert alignment(first, second, alpha).item() == pytest.approx(sum(distances) / 6, abs=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_the_log_of_the_mean_kernel_over_pairs(chunk_size, t):
    rows = rows_of(random(7, 3))
    kernel = [math.exp(-t * math.dist(rows[i], rows[j]) ** 2) for i in range(7) for j in range(i + 1, 7)]
    expected = math.log(sum(kernel) / len(kernel))
    assert uniformity(random(7, 3), t, chunk_size).item() == pytest.approx(expected, abs=1e-12)


def test_cosines_are_the_means_over_pairs():
    first, second = random(6, 4), random(6, 4, seed=1)
    a, b = rows_of(first), rows_of(second)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    assert mean_cosine(first).item() == pytest.approx(sum(dot(a[i], a[j]) for i, j in pairs) / 30, abs=1e-12)
    assert negative_cosine(first, second).item() == pytest.approx(
        sum(dot(a[i], b[j]) for i, j in pairs) / 30, abs=1e-12
    )
    assert positive_cosine(first, second).item() == pytest.approx(sum(dot(a[i], b[i]) for i in range(6)) / 6, abs=1e-12)


def test_closed_forms():
    eye = torch.eye(5, dtype=torch.float64)
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    same = torch.ones(5, 3, dtype=torch.float64)
    assert alignment(eye, -eye).item() == pytest.approx(4, abs=1e-12)
    assert alignment(eye, 3 * eye).item() == pytest.approx(0, abs=1e-12)
    assert uniformity(pair).item() == pytest.approx(-8, abs=1e-12)
    assert uniformity(eye).item() == pytest.approx(-4, abs=1e-12)
    assert uniformity(same).item() == pytest.approx(0, abs=1e-12)
    assert mean_cosine(pair).item() == pytest.approx(-1, abs=1e-12)
    assert mean_cosine(eye).item() == pytest.approx(0, abs=1e-12)
    assert mean_cosine(same).item() == pytest.approx(1, abs=1e-12)


def test_effective_rank():
    eye = torch.eye(5, dtype=torch.float64)
    assert effective_rank(eye).item() == pytest.approx(5, abs=1e-10)
    assert effective_rank(eye[[0, 0, 1, 1]]).item() == pytest.approx(2, abs=1e-10)
    assert effective_rank(torch.ones(4, 3, dtype=torch.float64)).item() == pytest.approx(1, abs=1e-6)
    # three rows along one axis, one along another: singular values sqrt(3) and 1
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    expected = math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert effective_rank(eye[[0, 0, 0, 1]]).item() == pytest.approx(expected, abs=1e-10)


def test_invariances():
    rows = random(8, 4)
    turn = torch.linalg.qr(random(4, 4, seed=2)).Q
    scale = random(8, 1, seed=3).exp()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(4))
    for measure in (uniformity, effective_rank, mean_cosine):
        expected = measure(rows).item()
        for changed in (rows @ turn, rows * scale, rows[order]):
            assert measure(changed).item() == pytest.approx(expected, abs=1e-12)


def test_gradients():
    first, second = random(5, 3).requires_grad_(), random(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(alignment, (first, second))
    assert torch.autograd.gradcheck(negative_cosine, (first, second))
    for chunk_size in (2, 100):  # 2 leaves a last tile that holds no pair
        assert torch.autograd.gradcheck(lambda x, size=chunk_size: uniformity(x, chunk_size=size), (first,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised(dtype):
    rows = random(8, 4).to(dtype)
    for measure in (uniformity, effective_rank, mean_cosine):
        assert measure(rows).dtype == torch.float32
        assert measure(rows).item() == pytest.approx(measure(rows.double()).item(), abs=1e-5)


@pytest.mark.parametrize("measure", [uniformity, mean_cosine])
def test_one_row_has_no_pair(measure):
    with pytest.raises(ValueError, match="two or more"):
        measure(random(1, 3))
