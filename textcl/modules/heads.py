"""Train-only heads: layers between the encoder and the loss that the export leaves out."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from textcl import distributed
from textcl.errors import InputError

logger = logging.getLogger("textcl")

DIMENSIONS_PER_ROW = 16
"""With more dimensions per row of a batch, `check_dimensions` warns; Barlow Twins has 4 on images."""


def check_dimensions(flag: str, dimension: int, batch_size: int) -> None:
    """Warns if a batch has far fewer rows than dimensions, so that the correlations of its dimensions are noise."""
    if dimension > DIMENSIONS_PER_ROW * batch_size:
        logger.warning(
            "%s is %s, but a batch has only %s rows: the correlations between so many dimensions are mostly noise. "
            "Lower %s to %s or less, or raise --per-device-train-batch-size.",
            flag,
            f"{dimension:,}",
            f"{batch_size:,}",
            flag,
            f"{DIMENSIONS_PER_ROW * batch_size:,}",
        )


class Linear(nn.Linear):
    """`nn.Linear` that takes rows of any type; it computes in the type of its weights, or in that of autocast.

    Embeddings and the output of batch norm are float32 also if the weights are in half precision.
    """

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows.to(self.weight.dtype))


class BatchNorm(nn.Module):
    """Batch norm over the rows of all ranks, with gradient, and no running statistics.

    A train-only head always uses the statistics of the batch. It needs no running statistics, so a forward pass changes
    no state.

    Args:
        dimension: Dimension of a row.
        affine: Whether to learn a scale and a shift.
        epsilon: Added to the variances.

    Raises:
        InputError: If the batch has only one row, so that nothing varies.

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
                raise InputError("Batch norm needs at least two rows in a batch: raise per_device_train_batch_size.")
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
    """Linear layers with ReLU between them, from (rows, first dimension) to (rows, last dimension).

    Args:
        dimensions: The dimensions of the embedding, of each hidden layer and of the output.
        batch_norm: Whether there is batch norm before each ReLU. The linear layer before it then has no bias, because
            batch norm would remove it.
        last: What the last linear layer has: a bias, no bias, or no bias but batch norm without scale and shift.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(dimensions), start=2):
        if number == len(dimensions):
            layers.append(Linear(before, after, bias=last == "bias"))
            if last == "batch_norm":
                layers.append(BatchNorm(after, affine=False))
        else:
            layers.append(Linear(before, after, bias=not batch_norm))
            layers += [BatchNorm(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers)
