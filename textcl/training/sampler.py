"""The order of the training rows: a permutation of their numbers, without a Python list of all of them."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

WINDOW = 1 << 14  # row numbers that are Python objects at a time


class RowOrder(Sampler[int]):
    """Yields the numbers of the rows in the random order of an epoch.

    The order is that of accelerate's `SeedableRandomSampler`, by which transformers' trainer orders rows. That sampler
    makes a list of all numbers, 36 bytes for each row; this one needs 4 bytes.

    Args:
        rows: Anything with a length.
        seed: The seed of the first epoch; each epoch has the next one.
    """

    def __init__(self, rows: Sized, seed: int) -> None:
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        kind = torch.int32 if len(self.rows) < 1 << 31 else torch.int64  # the numbers drawn are the same
        for window in torch.randperm(len(self.rows), generator=generator, dtype=kind).split(WINDOW):
            yield from window.tolist()
        self.set_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; the trainer calls it before each one."""
        self.epoch = epoch
