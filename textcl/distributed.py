"""The one place that talks to other ranks: gather, all-reduce and mean, with gradient.

Without an initialised ``torch.distributed`` there is one rank and everything here is the identity (``mean`` divides).

One convention holds throughout, the one that DistributedDataParallel expects: every rank computes a loss of its own,
and what is optimised, and logged, is the average of those losses over the ranks. A gradient that reaches a rank through
``gather`` or ``all_reduce`` is therefore the sum over what all ranks did with that rank's tensor.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """The number of processes that train together; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; 0 without ``torch.distributed``."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def row_counts(tensor: Tensor) -> list[int]:
    """How many rows each rank holds of ``tensor``, in rank order; the rows before one's own are the offset."""
    if world_size() == 1:
        return [tensor.shape[0]]
    own = torch.tensor([tensor.shape[0]], device=tensor.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(counts, own)
    return torch.cat(counts).tolist()


def gather(tensor: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows of all ranks in rank order, with gradient; ranks may hold different numbers of rows.

    Args:
        tensor: ``(rows, ...)``, of any type; the same on all ranks but for the number of rows.
        counts: ``row_counts(tensor)`` where the caller has it already.

    Returns:
        ``(rows of all ranks, ...)``. Backward gives each rank the sum of all ranks' gradients for its rows.

    Example:
        >>> gather(torch.ones(2, 3)).shape      # one process
        torch.Size([2, 3])
    """
    if world_size() == 1:
        return tensor
    return _Gather.apply(tensor, counts if counts is not None else row_counts(tensor))


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, with gradient; the argument is left as it was."""
    return tensor if world_size() == 1 else _AllReduce.apply(tensor)


def broadcast(tensor: Tensor) -> None:
    """Gives all ranks the numbers that rank 0 holds, in place."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)


def mean(total: Tensor, count: int | float | Tensor) -> Tensor:
    """The share of this rank in the global mean of something that it holds a local sum and a local count of.

    Ranks may hold different counts. The average of the results over the ranks is the sum of all totals over the sum of
    all counts, and so is, after DistributedDataParallel's averaging, its gradient.

    Args:
        total: local sum, with gradient.
        count: how many terms the sum has here; no gradient flows through it.

    Returns:
        ``total * ranks / (sum of the counts of all ranks)``; 0 where no rank counted anything.
    """
    dtype = torch.promote_types(total.dtype, torch.float32)
    if not isinstance(count, Tensor):  # to fill on a GPU is no wait, to copy there would be
        count = torch.full((), count, dtype=dtype, device=total.device)
    everything = all_reduce(count.detach().to(dtype))
    return total * world_size() / everything.masked_fill(everything == 0, 1)


class _Gather(torch.autograd.Function):
    """``all_gather`` forward, its transpose backward; padded to the largest rank, as collectives want equal sizes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: tensor.shape[0]] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # all-reduce and slice, where reduce-scatter would do: gloo has none for rows that differ between ranks
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = sum(ctx.counts[: rank()])
        return gradient[start : start + ctx.counts[rank()]], None


class _AllReduce(torch.autograd.Function):
    """A sum is its own transpose."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient
