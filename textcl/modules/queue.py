"""A first-in-first-out queue of rows, which is saved in checkpoints."""

import logging

import torch
from torch import Tensor, nn

from textcl.distributed import gather

logger = logging.getLogger("textcl")


class Queue(nn.Module):
    """The last `size` rows that were pushed (He et al. 2020, MoCo, arXiv 1911.05722, section 3.2).

    MoCo fills its queue with random rows at first. This queue starts empty and counts its rows, so that no random row
    is a negative.

    Args:
        size: The largest number of rows.
        dimension: Dimension of a row.

    Example:
        >>> queue = Queue(size=3, dimension=2)
        >>> queue.push(torch.ones(2, 2))
        >>> queue.read().shape
        torch.Size([2, 2])
    """

    rows: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, dimension))
        self.pushed = 0  # saved with the rows, but not a buffer: reading a buffer waits for the GPU

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.pushed)

    def set_extra_state(self, state: Tensor) -> None:
        self.pushed = int(state)

    def read(self) -> Tensor:
        """A copy of the rows in the queue, (at most size, dim), in no particular order."""
        return self.rows[: self.pushed].clone()

    def check_size(self, rows: int, batch_size: int) -> None:
        """Warns if the corpus has so few rows that the queue would hold the texts of the batch itself."""
        size = len(self.rows)
        if size and size + batch_size > rows:
            logger.warning(
                "--queue-size is %s, but the corpus has only %s rows: the queue would also hold the texts of the batch "
                "itself. Lower --queue-size to %s, or train on more texts.",
                f"{size:,}",
                f"{rows:,}",
                f"{max(rows - batch_size, 0):,}",
            )

    @property
    def is_full(self) -> bool:
        return self.pushed >= len(self.rows)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Adds the rows (any number, dim) of all ranks and drops the oldest, so that all ranks hold the same rows."""
        rows = gather(rows)
        rows = rows[-len(self.rows) :] if len(self.rows) else rows[:0]
        places = (self.pushed + torch.arange(len(rows), device=self.rows.device)) % max(len(self.rows), 1)
        self.rows[places] = rows.to(self.rows.dtype)
        self.pushed += len(rows)
