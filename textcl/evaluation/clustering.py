"""Clustering: how well k-means on the embeddings finds the classes of texts, and clusters for people who want them.

sklearn's `n_init="auto"` is a single start of k-means++; here it is always ten, of which the best is kept.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.errors import InputError
from textcl.evaluation.results import CLUSTERING_METRICS, Result, library_versions
from textcl.evaluation.sts import describe, encode_distinct
from textcl.files import atomic_write

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

    _check_number(clusters, embeddings.shape[0], "rows")
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
    within = [_distances(half, half) for half in halves]
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


class Clustering:
    """K-means on the embeddings with as many clusters as there are classes, scored by accuracy, NMI and ARI.

    The protocol of SCCL (Zhang et al. 2021, section 4): all texts of a set are clustered, no label is seen. The
    embeddings are taken as `encode` gives them, and figures are means over `seeds`.

    Args:
        sets: Some of `CLUSTERING_SETS`, or own data: `{name: (texts, labels)}`.
        data_dir: The data directory; by default `textcl.data.data_directory()`.
        seeds: Of k-means.

    Raises:
        InputError: An unknown or missing set; own data with one class only, or unequal numbers of texts and labels.

    Example:
        >>> Clustering({"mine": (texts, labels)})(encoder).results["mine"]["accuracy"]  # doctest: +SKIP
    """

    def __init__(
        self,
        sets: Sequence[str] | Mapping[str, tuple[Sequence[str], Sequence[Any]]] = CLUSTERING_SETS,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        seeds: Sequence[int] = (0, 1, 2),
    ) -> None:
        if isinstance(sets, Mapping):
            self.sets = dict(sets)
        else:
            directory = None if data_dir is None else Path(data_dir)
            self.sets = {name: load_clustering(name, directory) for name in sets}
        for name, (texts, labels) in self.sets.items():
            if len(texts) != len(labels):
                raise InputError(f"{name} has {len(texts):,} texts and {len(labels):,} labels; each text needs one.")
            if len(set(labels)) < 2:
                raise InputError(f"{name} has {len(set(labels))} classes; there must be two at least to tell apart.")
        self.seeds = tuple(seeds)
        self.name = "-".join(["clustering", *map(str.lower, self.sets)]) if len(self.sets) == 1 else "clustering"

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Scores anything with `.encode(list[str])` that returns one row a text: arrays, tensors, lists, sparse rows.

        Args:
            encoder: The encoder.
            **encode_arguments: Passed on to its `encode`.

        Raises:
            InputError: The encoder returned another number of rows than it was given texts, or NaN or infinite values.
        """
        results: dict[str, dict[str, Any]] = {}
        for name, (texts, labels) in self.sets.items():
            embeddings = _embed(encoder, texts, encode_arguments)
            found = [cluster(embeddings, len(set(labels)), seed).assignments for seed in self.seeds]
            by_seed = {
                metric: [100 * function(labels, assignments) for assignments in found]
                for metric, function in zip(CLUSTERING_METRICS, _FUNCTIONS, strict=True)
            }
            means = {metric: float(np.mean(values)) for metric, values in by_seed.items()}
            results[name] = {**means, "by_seed": by_seed}
        provenance = {
            "tasks": {
                name: {
                    "split": "all",
                    "texts": len(texts),
                    "clusters": len(set(labels)),
                    "data_sha256": _hash(texts, labels),
                }
                for name, (texts, labels) in self.sets.items()
            },
            "clustering": {
                "primary": "accuracy",
                "accuracy": "share of texts in the cluster that the Hungarian method gives to their class, in points",
                "nmi": "mutual information over the arithmetic mean of the entropies, in points",
                "ari": "adjusted Rand index, in points",
                "algorithm": f"k-means++ and Lloyd, the lowest inertia of {STARTS} starts (n_init), scikit-learn",
                "embeddings": "as encode gives them (not normalised here), float32",
                "seeds": list(self.seeds),
                "aggregation": "mean over seeds",
            },
            "encoder": describe(encoder),
            "seed": None,  # of a training run, as in the STS results
            "versions": library_versions(),
        }
        average = {
            metric: float(np.mean([entry[metric] for entry in results.values()])) for metric in CLUSTERING_METRICS
        }
        return Result(results, average, provenance)


@dataclass(frozen=True)
class ClusteredTexts:
    """Texts with their clusters.

    Attributes:
        texts: The texts.
        clusters: The cluster of each, (texts,); 0 is the largest.
        confidence: How much nearer its own centre is than the next one, (d₂ − d₁) / d₂, (texts,): 0 on the border
            between two clusters, 1 on the centre.
        rank: Its place among the texts of its cluster, by distance to the centre, (texts,); 1 is the nearest.
        estimated: Whether the number of clusters was.
    """

    texts: list[str]
    clusters: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    estimated: bool

    def groups(self, nearest: int = 5) -> Iterator[tuple[int, list[str]]]:
        """Yields, for each cluster, its size and the distinct texts nearest to its centre."""
        for number in range(int(self.clusters.max()) + 1):
            members = np.flatnonzero(self.clusters == number)
            ordered = members[np.argsort(self.rank[members])]
            yield len(members), list(dict.fromkeys(self.texts[row] for row in ordered))[:nearest]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a csv with the columns text, cluster, confidence and rank, in the order of the texts, atomically."""
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
            # every text is quoted: a carriage return alone would otherwise not be
            writer = csv.writer(handle, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow(["text", "cluster", "confidence", "rank"])
            columns = (self.clusters.tolist(), self.confidence.round(4).tolist(), self.rank.tolist())
            writer.writerows(zip(self.texts, *columns, strict=True))


def cluster_texts(
    encoder: Any, texts: Sequence[str], clusters: int | None = None, *, seed: int = 0, **encode_arguments: Any
) -> ClusteredTexts:
    """Clusters texts by k-means on their embeddings, as `encode` gives them.

    The confidence of a text is its simplified silhouette (Hruschka et al. 2004), not the Student-t assignment that
    SCCL trains with (Zhang et al. 2021, equation 3). Both order texts about equally well by whether their cluster is
    the right one, but on unit vectors the latter cannot say so: with 20 clusters it stays under 0.1 on the very centre.

    Args:
        encoder: Anything with `.encode(list[str])`.
        texts: The texts; duplicates are fine, and count as often as they occur.
        clusters: How many; None for `estimate_clusters`.
        seed: Of k-means, and of the sample where the number is estimated.
        **encode_arguments: Passed on to `encode`.

    Raises:
        InputError: Fewer than two clusters, more clusters than distinct texts, too few texts to estimate from.

    Example:
        >>> cluster_texts(encoder, texts, 20).save("clusters.csv")  # doctest: +SKIP
    """
    if clusters is not None:  # before the long part
        _check_number(clusters, len(set(texts)), "distinct texts")
    embeddings = _embed(encoder, texts, encode_arguments)
    number = estimate_clusters(embeddings, seed=seed) if clusters is None else clusters
    found = cluster(embeddings, number, seed)
    distances = _distances(embeddings, found.centres).astype(np.float64)
    own = distances[np.arange(len(texts)), found.assignments]
    next_one = np.partition(distances, 1, axis=1)[:, 1]
    confidence = np.divide(next_one - own, next_one, out=np.zeros_like(own), where=next_one > 0).clip(0, 1)
    rank = np.empty(len(texts), dtype=int)
    for members in (np.flatnonzero(found.assignments == k) for k in range(number)):
        rank[members[np.argsort(own[members], kind="stable")]] = np.arange(1, len(members) + 1)
    return ClusteredTexts(list(texts), found.assignments, confidence, rank, clusters is None)


_FUNCTIONS = (clustering_accuracy, normalized_mutual_information, adjusted_rand_index)  # as CLUSTERING_METRICS


def _embed(encoder: Any, texts: Sequence[str], encode_arguments: Mapping[str, Any]) -> Any:
    rows, row_of = encode_distinct(encoder, texts, **encode_arguments)
    return rows.astype(np.float32)[[row_of[text] for text in texts]]  # k-means takes twice as long in float64


def _distances(first: Any, second: Any) -> np.ndarray:
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(first, second)


def _silhouette(halves: Sequence[np.ndarray], within: Sequence[np.ndarray], clusters: int, seed: int) -> float:
    """The mean silhouette of each half, grouped by the centres of the other; `within` are the distances in each."""
    from sklearn.metrics import silhouette_samples

    means = []
    for half, other, distances in zip(halves, halves[::-1], within, strict=True):
        groups = _distances(half, cluster(other, clusters, seed).centres).argmin(axis=1)
        np.fill_diagonal(distances, 0)  # sklearn insists, and in float32 they are not quite
        means.append(silhouette_samples(distances, groups, metric="precomputed").mean() if np.ptp(groups) else -1.0)
    return float(np.mean(means))


def _check_number(clusters: int, available: int, what: str) -> None:
    if clusters < 2:
        raise InputError(f"{clusters} clusters were asked for; two is the least there can be.")
    if clusters > available:
        raise InputError(f"{clusters:,} clusters were asked for, and there are only {available:,} {what}.")


def _check_lengths(labels: Sequence[Any] | np.ndarray, clusters: Sequence[Any] | np.ndarray) -> None:
    if not 0 < len(labels) == len(clusters):
        raise InputError(f"There are {len(labels):,} labels and {len(clusters):,} assignments; each text needs both.")


def _hash(texts: Sequence[str], labels: Sequence[Any]) -> str:
    """SHA-256 over labels and texts as they are scored."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{label}\t{text}\n".encode())
    return digest.hexdigest()
