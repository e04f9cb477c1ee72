"""Random numbers as a pure function of (seed, epoch, row, view, stream).

A collator must not draw from a running generator, because a resumed run or a run with another number of dataloader
workers would then see other views. Here the numbers of a row do not depend on the other rows in the batch.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

MASKS = 0
"""The stream of masked-word prediction. The operators of a view use streams 1, 2, …"""

_GOLDEN = 0x9E3779B97F4A7C15


def text_id(text: str) -> int:
    """A 64-bit hash of a text. It identifies the text in a batch, across ranks and from run to run."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def uniform(seed: int, epoch: int, rows: Tensor, view: Tensor | int, count: int, stream: int = 0) -> Tensor:
    """Uniform random numbers from [0, 1). A larger `count` appends numbers to a row and keeps the earlier ones.

    Args:
        seed: The seed of the run.
        epoch: The epoch; a text gets other numbers in each epoch.
        rows: Integers that identify the rows, (rows,).
        view: The number of the view, one for all rows or (rows,).
        count: How many numbers each row gets.
        stream: Different uses within one view take different streams.

    Returns:
        The numbers, (rows, count), float64.

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
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): every input bit affects every output bit."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
