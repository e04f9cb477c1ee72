"""The true nearest neighbours of vectors, by cosine."""

import numpy as np
import torch

from textcl.device import halves_float32, product_by_onednn
from textcl.progress import Progress
from textcl.vectors.compress import unit

_CELLS = 2**24  # cosines that are in memory at once: 64 MiB


def nearest_rows(vectors: np.ndarray, count: int, queries: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to each query by cosine, the nearest first. All rows are compared, without an index.

    Args:
        vectors: The rows, (rows, dim).
        count: How many rows are returned for each query, at most; fewer if there are not as many.
        queries: The queries, (queries, dim); None: the rows themselves, each without itself.

    Returns:
        Rows, (queries, count) int32, and their cosines, (queries, count) float32.

    Example:
        >>> nearest_rows(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 1)[0].ravel().tolist()
        [2, 2, 0]
    """
    rows = torch.from_numpy(unit(vectors))
    asked = rows if queries is None else torch.from_numpy(unit(queries))
    count = min(count, len(rows) - (queries is None))
    found = np.empty((len(asked), count), np.int32)
    cosines = np.empty((len(asked), count), np.float32)
    size = max(1, _CELLS // max(1, len(rows)))
    with Progress("Looking for nearest texts", len(asked)) as bar:
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            block = product_by_onednn(part, rows) if halves_float32() else part @ rows.T
            if queries is None:
                own = torch.arange(len(block))
                block[own, start + own] = -torch.inf
            best = torch.topk(block, count, dim=1)
            found[start : start + size] = best.indices.numpy()
            cosines[start : start + size] = best.values.numpy()
            bar.update(len(block))
            del block, best  # else two blocks would be in memory at once
    return found, cosines
