"""Random numbers that are a pure function of what they are drawn for.

A collator must not draw from a running generator: a resumed run, or one with other dataloader workers, would see other
views. Here a row's numbers depend on nothing but (seed, epoch, row, view, stream), whatever else is in the batch.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

MASKS = 0
"""The stream of masked-word prediction; a view's operators take the streams from 1 on."""

_GOLDEN = 0x9E3779B97F4A7C15


def text_id(text: str) -> int:
    """A 64-bit content hash: what a text is known by, in a batch, across ranks and from run to run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def uniform(seed: int, epoch: int, rows: Tensor, view: Tensor | int, count: int, stream: int = 0) -> Tensor:
    """Numbers from [0, 1), the first of a row the same however many are asked for.

    Args:
        seed: Of the run.
        epoch: So that a text has other views in each.
        rows: What a row is known by, whole numbers, (rows,).
        view: The view's number, one or (rows,).
        count: Numbers a row.
        stream: Two uses in one view take different ones.

    Returns:
        (rows, count), float64.

    Example:
        >>> uniform(42, 0, torch.tensor([7]), view=0, count=2)
        tensor([[0.5559, 0.8252]], dtype=torch.float64)
    """
    state = np.zeros(len(rows), dtype=np.uint64)
    for part in (seed, epoch, rows, view, stream):
        state = _scramble((state ^ np.asarray(part).astype(np.uint64)) + np.uint64(_GOLDEN))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return torch.from_numpy((_scramble(state[:, None] + steps) >> np.uint64(11)) * 2.0**-53)


def _scramble(state: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): every bit in decides every bit out."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
