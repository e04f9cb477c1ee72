"""All communication between ranks: gather, all-reduce and mean, with gradient.

Without an initialised ``torch.distributed`` there is one rank, and every function here is the identity (``mean``
divides).

All functions follow the convention of DistributedDataParallel: every rank computes its own loss, and the average of
these losses over the ranks is optimised and logged. A gradient that reaches a rank through ``gather`` or ``all_reduce``
is therefore the sum of all ranks' gradients for that rank's tensor.
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
    """The number of rows of ``tensor`` on each rank, in rank order; the sum over earlier ranks is a rank's offset."""
    if world_size() == 1:
        return [tensor.shape[0]]
    own = torch.tensor([tensor.shape[0]], device=tensor.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(counts, own)
    return torch.cat(counts).tolist()


def gather(tensor: Tensor, counts: list[int] | None = None) -> Tensor:
    """The rows of all ranks in rank order, with gradient; ranks may hold different numbers of rows.

    Args:
        tensor: ``(rows, ...)``, of any type; only the number of rows may differ between ranks.
        counts: ``row_counts(tensor)``, if the caller has it already.

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
    """The sum of a tensor over all ranks, with gradient; the argument is not changed."""
    return tensor if world_size() == 1 else _AllReduce.apply(tensor)


def broadcast(tensor: Tensor) -> None:
    """Copies the values of rank 0 to all ranks, in place."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)


def mean(total: Tensor, count: int | float | Tensor) -> Tensor:
    """This rank's share of a global mean, from the rank's local sum and local count.

    Ranks may hold different counts. The average of the results over the ranks is the sum of all totals divided by the
    sum of all counts. After DistributedDataParallel's averaging, its gradient is that of the same mean.

    Args:
        total: local sum, with gradient.
        count: number of terms in the local sum; no gradient flows through it.

    Returns:
        ``total * ranks / (sum of the counts of all ranks)``; 0 if all counts are 0.
    """
    dtype = torch.promote_types(total.dtype, torch.float32)
    if not isinstance(count, Tensor):  # unlike a copy, filling on a GPU does not wait for it
        count = torch.full((), count, dtype=dtype, device=total.device)
    everything = all_reduce(count.detach().to(dtype))
    return total * world_size() / everything.masked_fill(everything == 0, 1)


class _Gather(torch.autograd.Function):
    """``all_gather`` in forward, its transpose in backward; pads to the largest rank: collectives need equal sizes."""

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
        # all-reduce and slice, not reduce-scatter: gloo has none for numbers of rows that differ between ranks
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = sum(ctx.counts[: rank()])
        return gradient[start : start + ctx.counts[rank()]], None


class _AllReduce(torch.autograd.Function):
    """``all_reduce`` in forward and in backward, because a sum is its own transpose."""

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
