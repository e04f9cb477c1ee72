"""Clusters as dense regions: HDBSCAN on a few dimensions that keep the neighbours of each row."""

from __future__ import annotations

from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.progress import Progress
from textcl.texts import counted

NEIGHBOURS = 15  # of each row in the graph
DIMENSIONS = 15
OUTLIER = -1
_BLOCK = 1024  # rows whose similarities to all others are in memory at once


def density_clusters(
    embeddings: np.ndarray, min_size: int, *, dimensions: int = DIMENSIONS, sample: int = 20_000, seed: int = 0
) -> np.ndarray:
    """Clusters of any shape and number by HDBSCAN (Campello, Moulavi and Sander 2013); other rows are outliers.

    Density means little in hundreds of dimensions. The rows are therefore reduced first: the graph that connects each
    row with its 15 most similar rows is embedded by the first eigenvectors of its normalised adjacency matrix
    (Laplacian eigenmaps, Belkin and Niyogi 2003; each row is scaled to length 1 as in Ng, Jordan and Weiss 2001). Parts
    of the graph that are not connected are clustered one by one.

    Equal rows count once, also for `min_size`. Of more than `sample` distinct rows, a random sample is clustered, and
    the others get the cluster of the most similar row of the sample.

    Args:
        embeddings: (rows, dim).
        min_size: The smallest number of rows that are a cluster.
        dimensions: The number of dimensions, 5 to 15.
        sample: The largest number of rows that are clustered.
        seed: The seed of the sample.

    Returns:
        The cluster of each row, (rows,); cluster 0 is the largest, and outliers are −1.

    Raises:
        InputError: `min_size` is less than 2 or more than the number of distinct rows, `dimensions` is outside its
            range, or all rows are outliers.
    """
    if not 5 <= dimensions <= 15:
        raise InputError(f"The number of dimensions must be a whole number from 5 to 15, not {dimensions}.")
    distinct, row_of = np.unique(embeddings, axis=0, return_inverse=True)
    if min_size < 2:
        raise InputError(f"The smallest size of a cluster must be a whole number from 2 on, not {min_size}.")
    if min_size > len(distinct):
        there = counted(len(distinct), "distinct embedding")
        raise InputError(
            f"A cluster would have at least {min_size:,} different texts, and there are fewer ({there}): give a "
            "smaller smallest size, or use k-means."
        )
    lengths = np.linalg.norm(distinct, axis=1, keepdims=True)
    units = (distinct / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    chosen = np.random.default_rng(seed).permutation(len(units))[:sample]
    smallest = max(2, round(min_size * len(chosen) / len(units)))
    found = np.full(len(units), OUTLIER)
    found[chosen] = _dense(units[chosen], smallest, dimensions)
    if len(chosen) < len(units):
        others = np.setdiff1d(np.arange(len(units)), chosen)
        found[others] = found[chosen][_most_similar(units[others], units[chosen], 1)[:, 0]]
    if (found == OUTLIER).all():
        raise InputError(
            f"No {min_size:,} texts lie close together, so all texts would be outliers. Give a smaller smallest size, "
            "or use k-means."
        )
    return _by_size(found[row_of.ravel()])


def _dense(units: np.ndarray, min_size: int, dimensions: int) -> np.ndarray:
    """The clusters of distinct rows of length 1, (rows,), numbered from 0; −1 are outliers."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    count = min(NEIGHBOURS, len(units) - 1)
    near = _most_similar(units, units, count, own=True)
    places = np.repeat(np.arange(len(units)), count), near.ravel()
    graph = csr_matrix((np.ones(near.size), places), shape=(len(units), len(units)))
    graph = graph.maximum(graph.T)
    parts, part = connected_components(graph, directed=False)
    found = np.full(len(units), OUTLIER)
    for number in range(parts):
        rows = np.flatnonzero(part == number)
        if len(rows) < min_size:
            continue
        clusters = _hdbscan(_eigenvectors(graph[rows][:, rows], dimensions), min_size)
        if parts > 1 and (clusters == OUTLIER).all():  # apart from all others, but without parts of its own
            clusters = np.zeros(len(rows), int)
        found[rows] = np.where(clusters == OUTLIER, OUTLIER, clusters + found.max() + 1)
    return found


def _eigenvectors(graph: Any, dimensions: int) -> np.ndarray:
    """The first eigenvectors of the normalised adjacency matrix, rows scaled to length 1, (rows, dimensions)."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import eigsh

    scale = diags(np.asarray(graph.sum(axis=1)).ravel() ** -0.5)
    matrix = scale @ graph @ scale
    count = min(dimensions + 1, graph.shape[0])
    if graph.shape[0] <= 500:
        vectors = np.linalg.eigh(matrix.toarray())[1][:, -count:]
    else:
        vectors = eigsh(matrix, count, which="LA", v0=np.ones(graph.shape[0]), tol=1e-6)[1]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def _hdbscan(rows: np.ndarray, min_size: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    neighbours = min(min_size, 10)  # a larger number finds fewer clusters and more outliers
    return np.asarray(HDBSCAN(min_size, min_samples=neighbours, copy=True).fit_predict(rows))


def _most_similar(rows: np.ndarray, others: np.ndarray, count: int, own: bool = False) -> np.ndarray:
    """The `count` most similar others of each row, (rows, count); `own`: without the row itself."""
    found = np.empty((len(rows), count), np.int64)
    with Progress("Comparing texts", len(rows)) as bar:
        for start in range(0, len(rows), _BLOCK):
            cosines = rows[start : start + _BLOCK] @ others.T
            if own:
                cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
            found[start : start + len(cosines)] = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
            bar.update(len(cosines))
    return found


def _by_size(found: np.ndarray) -> np.ndarray:
    """Clusters numbered by size, the largest first; outliers stay −1."""
    order = np.argsort(-np.bincount(found[found != OUTLIER]), kind="stable")
    place = np.argsort(order)
    return np.where(found == OUTLIER, OUTLIER, place[found])
