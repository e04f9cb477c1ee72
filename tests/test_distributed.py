"""gather, all_reduce and mean: in one process, and between two real ones that hold different data."""

import pytest
import torch

from textcl import distributed


def rows_of_rank(rank, rows=(3, 5)):
    """Different rows, and a different number of them, on each rank."""
    return torch.randn(rows[rank], 2, 4, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def both(rows=(3, 5)):
    return torch.cat([rows_of_rank(0, rows), rows_of_rank(1, rows)])


def weights(rank, rows=8):
    """What each rank multiplies the gathered rows with; not the same on both."""
    return torch.randn(rows, 2, 4, generator=torch.Generator().manual_seed(10 + rank), dtype=torch.float64)


def test_one_process():
    rows = rows_of_rank(0).requires_grad_()
    assert distributed.world_size() == 1
    assert distributed.rank() == 0
    assert distributed.row_counts(rows) == [3]
    assert distributed.gather(rows) is rows
    assert distributed.all_reduce(rows) is rows


def test_mean_in_one_process():
    total = torch.tensor(6.0, requires_grad=True)
    mean = distributed.mean(total, 4)
    mean.backward()
    assert mean.item() == 1.5
    assert total.grad.item() == 0.25
    assert distributed.mean(total, torch.tensor(4)).item() == 1.5
    count = torch.tensor(4.0, requires_grad=True)
    assert torch.autograd.grad(distributed.mean(total, count), count, allow_unused=True) == (None,)
    assert distributed.mean(torch.tensor(0.0), 0).item() == 0.0


def gather_on(rank, rows):
    own = rows_of_rank(rank, rows).requires_grad_()
    gathered = distributed.gather(own)
    (gathered * weights(rank, sum(rows))).sum().backward()
    return distributed.rank(), distributed.world_size(), distributed.row_counts(own), gathered.detach(), own.grad


@pytest.mark.parametrize("rows", [(4, 4), (3, 5), (5, 3), (0, 2)])
def test_gather_is_in_rank_order_and_backward_sums_over_ranks(two_processes, rows):
    results = two_processes(gather_on, rows)
    expected_gradient = weights(0, sum(rows)) + weights(1, sum(rows))
    assert [result[0] for result in results] == [0, 1]
    for rank, (_, world_size, counts, gathered, gradient) in enumerate(results):
        start = sum(rows[:rank])
        assert world_size == 2
        assert counts == list(rows)
        torch.testing.assert_close(gathered, both(rows), rtol=0, atol=0)
        torch.testing.assert_close(gradient, expected_gradient[start : start + rows[rank]], rtol=0, atol=1e-12)


def gather_whole_numbers_on(rank):
    return distributed.gather(torch.arange(2 + rank) + 10 * rank), distributed.gather(torch.tensor([rank == 1]))


def test_gather_whole_numbers(two_processes):
    for numbers, truths in two_processes(gather_whole_numbers_on):
        assert numbers.tolist() == [0, 1, 10, 11, 12]
        assert truths.tolist() == [False, True]


def all_reduce_on(rank):
    own = torch.tensor([1.0 + rank, 5.0], dtype=torch.float64, requires_grad=True)
    total = distributed.all_reduce(own)
    (total * torch.tensor([1.0 + 10 * rank, 2.0])).sum().backward()
    return own.detach(), total.detach(), own.grad


def test_all_reduce_and_its_gradient(two_processes):
    for rank, (own, total, gradient) in enumerate(two_processes(all_reduce_on)):
        assert own.tolist() == [1.0 + rank, 5.0]  # left as it was
        assert total.tolist() == [3.0, 10.0]
        assert gradient.tolist() == [12.0, 4.0]


def mean_on(rank, counts):
    parameter = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    values = torch.arange(counts[rank], dtype=torch.float64) + 100 * rank
    mean = distributed.mean((parameter * values).sum(), counts[rank])
    mean.backward()
    return mean.item(), parameter.grad.item()


@pytest.mark.parametrize("counts", [(3, 5), (4, 4), (0, 5), (0, 0)])
def test_the_average_of_means_is_the_global_mean(two_processes, counts):
    values = torch.cat([torch.arange(counts[0]), torch.arange(counts[1]) + 100]).double()
    expected = values.sum().item() / max(sum(counts), 1)
    means, gradients = zip(*two_processes(mean_on, counts), strict=True)
    assert sum(means) / 2 == pytest.approx(2 * expected, abs=1e-12)
    assert sum(gradients) / 2 == pytest.approx(expected, abs=1e-12)


def fail_on(rank):
    if rank == 1:
        raise ZeroDivisionError("on purpose")
    return rank


def test_a_failure_on_one_rank_is_seen_and_survived(two_processes):
    with pytest.raises(RuntimeError, match=r"(?s)rank 1.*fail_on.*on purpose"):
        two_processes(fail_on)
    assert [numbers.tolist() for numbers, _ in two_processes(gather_whole_numbers_on)] == [[0, 1, 10, 11, 12]] * 2
