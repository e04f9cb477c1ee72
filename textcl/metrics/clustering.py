"""K-means, how many clusters there are, and how well clusters match known classes.

sklearn's `n_init="auto"` is a single start of k-means++; here it is always ten, of which the best is kept.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcl.errors import InputError

logger = logging.getLogger("textcl")

STARTS = 10


def clustering_accuracy(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """The share of texts that are right when each cluster is named after a class, in the best way there is.

    A class names one cluster at most (the Hungarian method finds the best naming), so where there are more clusters
    than classes, the texts of those left without a name are wrong.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,); any numbers or names.

    Returns:
        A number from 0 to 1.

    Raises:
        InputError: There are no texts, or not as many labels as assignments.

    Example:
        >>> clustering_accuracy(["a", "a", "b", "b"], [1, 1, 0, 1])
        0.75
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    _check_lengths(labels, clusters)
    counts = contingency_matrix(labels, clusters)
    named = linear_sum_assignment(counts, maximize=True)
    return float(counts[named].sum() / len(labels))


def normalized_mutual_information(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """Mutual information of classes and clusters over the arithmetic mean of their entropies, from 0 to 1.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,).

    Raises:
        InputError: There are no texts, or not as many labels as assignments.
    """
    from sklearn.metrics import normalized_mutual_info_score

    _check_lengths(labels, clusters)
    return float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))


def adjusted_rand_index(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> float:
    """The share of pairs of texts that classes and clusters agree on, scaled so that chance is 0 and all of them 1.

    Args:
        labels: The class of each text, (texts,).
        clusters: The cluster of each text, (texts,).

    Raises:
        InputError: There are no texts, or not as many labels as assignments.
    """
    from sklearn.metrics import adjusted_rand_score

    _check_lengths(labels, clusters)
    return float(adjusted_rand_score(labels, clusters))


@dataclass(frozen=True)
class Clusters:
    """What k-means found.

    Attributes:
        assignments: The cluster of each row, (rows,); 0 is the largest.
        centres: The mean of each cluster, (clusters, dim).
        inertia: The sum of squared distances of the rows to their centres.
    """

    assignments: np.ndarray
    centres: np.ndarray
    inertia: float


def cluster(embeddings: Any, clusters: int, seed: int = 0) -> Clusters:
    """K-means (Lloyd 1982) from ten starts of k-means++ (Arthur and Vassilvitskii 2007); the lowest inertia is kept.

    Args:
        embeddings: (rows, dim), an array or a scipy sparse matrix; taken as they are, not normalised.
        clusters: How many.
        seed: The ten starts are drawn from it.

    Raises:
        InputError: Fewer than two clusters, or fewer rows than clusters.

    Example:
        >>> cluster(np.array([[0.0], [0.1], [0.2], [9.0]]), 2).assignments
        array([0, 0, 0, 1])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    check_number(clusters, embeddings.shape[0], "rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: said below
        means = KMeans(clusters, n_init=STARTS, random_state=seed).fit(embeddings)
    sizes = np.bincount(means.labels_, minlength=clusters)
    if not sizes.all():
        logger.warning(
            "Only %d of %d clusters hold a text: the embeddings of different texts are equal.",
            np.count_nonzero(sizes),
            clusters,
        )
    by_size = np.argsort(-sizes, kind="stable")
    place = np.argsort(by_size)
    return Clusters(place[means.labels_], means.cluster_centers_[by_size], float(means.inertia_))


def estimate_clusters(embeddings: np.ndarray, *, largest: int = 100, sample: int = 4000, seed: int = 0) -> int:
    """The number of clusters with the highest mean silhouette (Rousseeuw 1987) on texts that k-means has not seen.

    The silhouette compares a text's mean distance to its own cluster with that to the nearest other one, so that it
    need not improve with more clusters, as the inertia does. On the texts that k-means was fitted to it does at times:
    many tiny clusters fit the gaps that chance left. So the centres come from one half of a sample, and what is
    measured is how well they group the other half, both ways round. The numbers from 2 are tried in growing steps, then
    all those around the best.

    It is a suggestion: where topics have sub-topics, several numbers are right. With all-MiniLM-L6-v2 it is 22 for the
    20 classes of StackOverflow, 8 or 9 for the 8 of SearchSnippets, 3 for the 4 of AgNews.

    Args:
        embeddings: (rows, dim).
        largest: The highest number to try; never more than a quarter of the distinct rows in a half.
        sample: Rows to look at, drawn at random. The cost grows with their square.
        seed: For the sample and for k-means.

    Raises:
        InputError: There are fewer than six distinct rows.

    Example:
        >>> estimate_clusters(encoder.encode(texts))  # doctest: +SKIP
        22
    """
    from tqdm import tqdm

    generator = np.random.default_rng(seed)
    points = np.unique(embeddings[generator.permutation(len(embeddings))[:sample]], axis=0)
    if len(points) < 6:
        raise InputError(
            f"The number of clusters cannot be estimated from {len(points)} distinct embeddings; say how many."
        )
    halves = np.array_split(points[generator.permutation(len(points))], 2)
    within = [pairwise(half, half) for half in halves]
    largest = max(2, min(largest, len(halves[1]) // 4))
    scores: dict[int, float] = {}

    def best_of(numbers: Sequence[int]) -> int:
        new = [number for number in numbers if number not in scores]
        for number in tqdm(new, desc="Estimating the number of clusters", delay=2, disable=None, leave=False):
            scores[number] = _silhouette(halves, within, number, seed)
        return max(scores, key=lambda number: scores[number])

    steps = [2]
    while steps[-1] < largest:
        steps.append(min(largest, max(steps[-1] + 1, round(1.2 * steps[-1]))))
    best = steps.index(best_of(steps))
    number = best_of(range(steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)] + 1))
    logger.info(
        "%d clusters: the highest mean silhouette, %.3f, of those tried from 2 to %d.", number, scores[number], largest
    )
    return number


def pairwise(first: Any, second: Any) -> np.ndarray:
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(first, second)


def _silhouette(halves: Sequence[np.ndarray], within: Sequence[np.ndarray], clusters: int, seed: int) -> float:
    """The mean silhouette of each half, grouped by the centres of the other; `within` are the distances in each."""
    from sklearn.metrics import silhouette_samples

    means = []
    for half, other, distances in zip(halves, halves[::-1], within, strict=True):
        groups = pairwise(half, cluster(other, clusters, seed).centres).argmin(axis=1)
        np.fill_diagonal(distances, 0)  # sklearn insists, and in float32 they are not quite
        means.append(silhouette_samples(distances, groups, metric="precomputed").mean() if np.ptp(groups) else -1.0)
    return float(np.mean(means))


def check_number(clusters: int, available: int, what: str) -> None:
    if clusters < 2:
        raise InputError(f"{clusters} clusters were asked for; two is the least there can be.")
    if clusters > available:
        raise InputError(f"{clusters:,} clusters were asked for, and there are only {available:,} {what}.")


def _check_lengths(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> None:
    if not 0 < len(labels) == len(clusters):
        raise InputError(f"There are {len(labels):,} labels and {len(clusters):,} assignments; each text needs both.")
