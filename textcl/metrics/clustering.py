"""K-means, and scores that compare clusters with known classes.

sklearn's `n_init="auto"` is a single start of k-means++. Here k-means always has ten starts, and the best is kept.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.metrics.labels import number_labels

logger = logging.getLogger("textcl")

STARTS = 10


def clustering_accuracy(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """The share of correct texts when clusters are matched to classes in the best way.

    Each class is matched to at most one cluster; the Hungarian method finds the best matching. If there are more
    clusters than classes, the texts of unmatched clusters count as wrong.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,), as numbers or names.

    Returns:
        A number from 0 to 1.

    Raises:
        InputError: If there are no texts, a label is missing, or the numbers of labels and assignments differ.

    Example:
        >>> clustering_accuracy(["a", "a", "b", "b"], [1, 1, 0, 1])
        0.75
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(*_numbers(labels, clusters))
    named = linear_sum_assignment(counts, maximize=True)
    return float(counts[named].sum() / len(labels))


def normalized_mutual_information(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """Mutual information of classes and clusters divided by the mean of their entropies, from 0 to 1.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,).

    Raises:
        InputError: If there are no texts, a label is missing, or the numbers of labels and assignments differ.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_numbers(labels, clusters), average_method="arithmetic"))


def adjusted_rand_index(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """The share of pairs of texts on which classes and clusters agree, scaled: chance is 0, full agreement is 1.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,).

    Raises:
        InputError: If there are no texts, a label is missing, or the numbers of labels and assignments differ.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_numbers(labels, clusters)))


@dataclass(frozen=True)
class Clusters:
    """The result of k-means.

    Attributes:
        assignments: The cluster of each row, (rows,); cluster 0 is the largest.
        centres: The mean of each cluster, (clusters, dim).
        inertia: The sum of squared distances of the rows to their centres.
    """

    assignments: np.ndarray
    centres: np.ndarray
    inertia: float


def cluster(embeddings: Any, clusters: int, seed: int = 0) -> Clusters:
    """K-means (Lloyd 1982) with the lowest inertia of ten starts by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        embeddings: (rows, dim), an array or a scipy sparse matrix; they are not normalised here.
        clusters: Number of clusters.
        seed: Seed of the ten starts.

    Raises:
        InputError: If there are fewer than two clusters, or fewer rows than clusters.

    Example:
        >>> cluster(np.array([[0.0], [0.1], [0.2], [9.0]]), 2).assignments
        array([0, 0, 0, 1])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    check_number(clusters, embeddings.shape[0], "rows")
    if isinstance(embeddings, np.ndarray) and np.ptp(embeddings, axis=0).max() <= _rounding(embeddings):
        # a collapsed encoder's rows differ by rounding alone, which has no meaning as clusters
        embeddings = np.repeat(embeddings[:1], len(embeddings), axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: logged below
        means = KMeans(clusters, n_init=STARTS, random_state=seed).fit(embeddings)
    sizes = np.bincount(means.labels_, minlength=clusters)
    if not sizes.all():
        logger.warning(
            "Only %d of %d clusters hold a text, because different texts have equal embeddings.",
            np.count_nonzero(sizes),
            clusters,
        )
    by_size = np.argsort(-sizes, kind="stable")
    place = np.argsort(by_size)
    return Clusters(place[means.labels_], means.cluster_centers_[by_size], float(means.inertia_))


@dataclass(frozen=True)
class Placement:
    """Where rows lie among the centres of clusters.

    Attributes:
        clusters: The cluster of each row, (rows,); −1: an outlier.
        confidence: (d₂ − d₁) / d₂ of each row, (rows,), with d₁ the distance to the centre of its cluster and d₂ that
            to the nearest other centre: 0 on the border between two clusters, 1 at the centre. 0 for outliers.
        rank: The rank of each row in its cluster by distance to the centre, (rows,); 1 is the nearest.
        second: The cluster with the nearest other centre, (rows,); −1 if there is one cluster only.
        distance: The distance of each row to the centre of its cluster, of an outlier to the nearest one, (rows,).
    """

    clusters: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    second: np.ndarray
    distance: np.ndarray


def place(
    embeddings: np.ndarray, centres: np.ndarray, clusters: np.ndarray | None = None, reach: np.ndarray | None = None
) -> Placement:
    """Places rows among centres.

    Args:
        embeddings: (rows, dim).
        centres: (clusters, dim).
        clusters: The cluster of each row, (rows,), −1 for outliers; None: that of the nearest centre.
        reach: If `clusters` is None, rows that are further from the nearest centre than this are outliers,
            (clusters,); None: there are no outliers.

    Example:
        >>> place(np.array([[1.0], [9.0]]), np.array([[0.0], [10.0]])).confidence.round(2).tolist()
        [0.89, 0.89]
    """
    distances = pairwise(embeddings, centres).astype(np.float64)
    rows, count = np.arange(len(distances)), len(centres)
    nearest = distances.argmin(axis=1)
    if clusters is None:
        outside = np.zeros(len(rows), bool) if reach is None else distances[rows, nearest] > reach[nearest] * (1 + 1e-6)
        clusters = np.where(outside, -1, nearest)
    inside = clusters >= 0
    own = distances[rows, np.where(inside, clusters, nearest)]
    distances[rows[inside], clusters[inside]] = np.inf
    second = distances.argmin(axis=1) if count > 1 else np.where(inside, -1, 0)
    other = distances[rows, second]
    confidence = np.zeros(len(rows))
    if count > 1:
        np.divide(other - own, other, out=confidence, where=inside & (other > 0))
    rank = np.empty(len(rows), dtype=int)
    for number in range(-1, count):
        members = np.flatnonzero(clusters == number)
        rank[members[np.argsort(own[members], kind="stable")]] = np.arange(1, len(members) + 1)
    return Placement(clusters, confidence.clip(0, 1), rank, second, own)


def mean_silhouette(embeddings: np.ndarray, clusters: np.ndarray, *, sample: int = 4000, seed: int = 0) -> float | None:
    """The mean silhouette (Rousseeuw 1987) of a random sample of the rows, without outliers; from −1 to 1.

    The silhouette of a row is (b − a) / max(a, b), with a its mean distance to the other rows of its cluster and b that
    to the rows of the nearest other cluster.

    Args:
        embeddings: (rows, dim).
        clusters: The cluster of each row, (rows,); those of −1 do not count.
        sample: The number of rows to use.
        seed: The seed of the sample.

    Returns:
        The mean; None if fewer than two clusters have rows in the sample, or each row is a cluster of its own.
    """
    from sklearn.metrics import silhouette_score

    rows = np.flatnonzero(clusters >= 0)
    rows = np.random.default_rng(seed).permutation(rows)[:sample]
    if not 2 <= len(np.unique(clusters[rows])) < len(rows):
        return None
    return float(silhouette_score(embeddings[rows], clusters[rows]))


@dataclass(frozen=True)
class Merge:
    """One step of joining clusters into a hierarchy.

    Attributes:
        first: The number of a cluster, or of the result of an earlier merge.
        second: The number of the other one.
        merged: The number of the result; numbers continue those of the clusters.
        size: The number of rows of the result.
        height: The variance between the two, as a share of the variance between all clusters: 0 to 1. The heights of
            all merges have the sum 1.
    """

    first: int
    second: int
    merged: int
    size: int
    height: float


def merge_clusters(centres: np.ndarray, sizes: Sequence[int] | np.ndarray) -> list[Merge]:
    """Joins the two clusters whose union adds the least variance, until one is left (Ward 1963).

    Joining clusters of n₁ and n₂ rows adds n₁ n₂ / (n₁ + n₂) · ‖c₁ − c₂‖² to the sum of squared distances to the
    centres, so each number of clusters on the way has the lowest sum that one more merge allows.

    Args:
        centres: (clusters, dim).
        sizes: The number of rows of each cluster, (clusters,).

    Returns:
        One merge less than there are clusters, the first merge first.

    Example:
        >>> [(each.first, each.second) for each in merge_clusters(np.array([[0.0], [5.0], [6.0]]), [1, 1, 1])]
        [(1, 2), (0, 3)]
    """
    count = len(centres)
    weights = np.zeros(2 * count - 1)
    weights[:count] = np.maximum(np.asarray(sizes), 1e-9)  # a cluster may have got no row
    means = np.zeros((2 * count - 1, centres.shape[1]))
    means[:count] = centres
    squares = pairwise(means[:count], means[:count]) ** 2
    costs = np.full((2 * count - 1,) * 2, np.inf)
    one, other = weights[:count, None], weights[:count]
    costs[:count, :count] = squares * one * other / (one + other)
    np.fill_diagonal(costs, np.inf)
    merges = []
    alive = np.arange(2 * count - 1) < count
    for merged in range(count, 2 * count - 1):
        first, second = sorted(int(each) for each in np.unravel_index(costs.argmin(), costs.shape))
        height, weight = float(costs[first, second]), weights[first] + weights[second]
        means[merged] = (weights[first] * means[first] + weights[second] * means[second]) / weight
        weights[merged] = weight
        costs[[first, second]] = costs[:, [first, second]] = np.inf
        alive[[first, second]] = False
        others = np.flatnonzero(alive)
        gap = ((means[others] - means[merged]) ** 2).sum(axis=1)
        costs[merged, others] = costs[others, merged] = gap * weights[others] * weight / (weights[others] + weight)
        alive[merged] = True
        merges.append(Merge(first, second, merged, round(weight), height))
    total = sum(each.height for each in merges) or 1.0
    return [replace(each, height=each.height / total) for each in merges]


def pairwise(first: Any, second: Any) -> np.ndarray:
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(first, second)


def _rounding(rows: np.ndarray) -> float:
    """The largest difference of two coordinates that rounding alone explains: ten steps at the largest coordinate."""
    return 10 * np.finfo(rows.dtype).eps * float(np.abs(rows).max()) if np.issubdtype(rows.dtype, np.floating) else 0.0


def check_number(clusters: int, available: int, what: str) -> None:
    if isinstance(clusters, bool) or not isinstance(clusters, (int, np.integer)):
        raise InputError(f"The number of clusters must be a whole number, not {clusters!r}.")
    if clusters < 2:
        raise InputError(f"At least two clusters are needed, but {clusters} clusters were asked for.")
    if clusters > available:
        there = f"is only 1 {what.removesuffix('s')}" if available == 1 else f"are only {available:,} {what}"
        raise InputError(f"{clusters:,} clusters were asked for, but there {there}.")


def _numbers(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> tuple[list[int], list[int]]:
    """The classes and the clusters of the texts as numbers, one notion of equality for both, see `number_labels`."""
    if not 0 < len(labels) == len(clusters):
        raise InputError(
            f"There are {len(labels):,} labels and {len(clusters):,} assignments, but each text needs both."
        )
    return number_labels(labels)[0], number_labels(clusters, "The assignments")[0]
