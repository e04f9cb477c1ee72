"""Heads: what stands between the encoder and the loss in training, and is left out of the export."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from textcl import distributed
from textcl.errors import InputError


class BatchNorm(nn.Module):
    """Batch norm over the rows of all ranks, with gradient, and no running statistics.

    A head is used in training alone, where batch norm takes the statistics of the batch; so it has no state that a
    forward pass would change.

    Args:
        dimension: Of a row.
        affine: Learn a scale and a shift.
        epsilon: Added to the variances.

    Raises:
        InputError: For a batch of one row, in which nothing varies.

    Example:
        >>> BatchNorm(2)(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).round()
        tensor([[-1.,  0.],
                [ 1.,  0.]], grad_fn=<RoundBackward0>)
    """

    def __init__(self, dimension: int, affine: bool = True, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dimension)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dimension)) if affine else None
        self.epsilon = epsilon

    def forward(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            count = sum(distributed.row_counts(rows))
            if count < 2:
                raise InputError("Batch norm needs two rows at least in a batch; raise per_device_train_batch_size.")
            centred = rows - distributed.all_reduce(rows.sum(dim=0)) / count
            variance = distributed.all_reduce(centred.square().sum(dim=0)) / count
            rows = centred / (variance + self.epsilon).sqrt()
            return rows if self.weight is None or self.bias is None else rows * self.weight + self.bias


def mlp(
    dimensions: Sequence[int],
    *,
    batch_norm: bool = True,
    last: Literal["bias", "no_bias", "batch_norm"] = "bias",
) -> nn.Sequential:
    """Linear layers with ReLU between them; (rows, first dim) to (rows, last dim).

    Args:
        dimensions: Of the embedding, of each hidden layer, of the output.
        batch_norm: Before each ReLU. A linear layer before it has no bias, which it would take away again.
        last: What follows the last linear layer: its bias, nothing, or batch norm without scale and shift.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(dimensions), start=2):
        if number == len(dimensions):
            layers.append(nn.Linear(before, after, bias=last == "bias"))
            if last == "batch_norm":
                layers.append(BatchNorm(after, affine=False))
        else:
            layers.append(nn.Linear(before, after, bias=not batch_norm))
            layers += [BatchNorm(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers)
