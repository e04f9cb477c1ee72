"""Clustering by k-means on embeddings: how well it finds the classes of labelled texts, and clusters of a user's texts.

sklearn's `n_init="auto"` means one start of k-means++; here k-means always starts ten times and keeps the best result.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.errors import InputError
from textcl.evaluation.encoding import describe, encode_distinct, texts_and_labels
from textcl.evaluation.kinds import CLUSTERING
from textcl.evaluation.results import Result, averages
from textcl.files import atomic_write
from textcl.metrics.clustering import (
    STARTS,
    adjusted_rand_index,
    check_number,
    cluster,
    clustering_accuracy,
    estimate_clusters,
    normalized_mutual_information,
    pairwise,
)
from textcl.texts import as_texts
from textcl.vectors.columns import plain, result_name
from textcl.vectors.vectors import Vectors
from textcl.version import library_versions

logger = logging.getLogger("textcl")


class Clustering:
    """K-means on the embeddings, with as many clusters as classes, evaluated by accuracy, NMI and ARI.

    The protocol is that of SCCL (Zhang et al. 2021, section 4): all texts of a set are clustered, without labels. The
    embeddings are not changed after `encode`, and scores are means over `seeds`.

    Args:
        sets: Names from `CLUSTERING_SETS`, or your own data as `{name: (texts, labels)}`.
        data_dir: The data directory; default: `textcl.data.data_directory()`.
        seeds: The seeds of k-means.

    Raises:
        InputError: A set is unknown or not installed; or your own data has a text that is not a string, a missing label
            (see `textcl.metrics.labels.number_labels`), only one class, or unequal numbers of texts and labels.

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
        if not self.sets or not seeds:
            raise InputError("Clustering needs at least one set and one seed.")
        self.classes: dict[str, int] = {}
        for name, own in self.sets.items():
            texts, labels, self.classes[name] = texts_and_labels(name, own, "clustering")
            self.sets[name] = texts, labels
        self.seeds = tuple(seeds)
        self.name = "-".join(["clustering", *map(str.lower, self.sets)]) if len(self.sets) == 1 else "clustering"

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates an encoder.

        Texts that all have the same embedding (a collapsed encoder) are one cluster, with a warning and an entry under
        `provenance["undefined"]`.

        Args:
            encoder: Any object with `.encode(list[str])` that returns one row per text: an array, a tensor, a list or
                a sparse matrix.
            **encode_arguments: Passed on to `encoder.encode`.

        Raises:
            InputError: The encoder did not return one row per text, or returned NaN or infinite values.
        """
        results: dict[str, dict[str, Any]] = {}
        undefined: list[str] = []
        for name, (texts, labels) in self.sets.items():
            embeddings = _embed(encoder, texts, encode_arguments)
            found = [cluster(embeddings, self.classes[name], seed).assignments for seed in self.seeds]
            if not any(assignments.any() for assignments in found):  # all in cluster 0
                logger.warning("The encoder returns the same embedding for all texts of %s: it has collapsed.", name)
                undefined.append(name)
            by_seed = {
                metric: [100 * function(labels, assignments) for assignments in found]
                for metric, function in zip(CLUSTERING.rows, _FUNCTIONS, strict=True)
            }
            means = {metric: float(np.mean(values)) for metric, values in by_seed.items()}
            results[name] = {"kind": CLUSTERING.name, **means, "by_seed": by_seed}
        provenance = {
            "tasks": {
                name: {
                    "split": "all",
                    "texts": len(texts),
                    "clusters": self.classes[name],
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
            "undefined": undefined,
            "encoder": describe(encoder),
            "seed": None,  # the seed of a training run, as in the STS results
            "versions": library_versions(),
        }
        return Result(results, averages(results), provenance)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet runs


@dataclass(frozen=True)
class ClusteredTexts:
    """Texts with their clusters.

    Attributes:
        texts: The texts.
        clusters: The cluster of each text, (texts,); cluster 0 is the largest.
        confidence: (d₂ − d₁) / d₂ for each text, (texts,), with d₁ the distance to the centre of its cluster and d₂
            that to the next centre: 0 on the border between two clusters, 1 at the centre.
        rank: The rank of each text in its cluster by distance to the centre, (texts,); 1 is the nearest.
        estimated: Whether the number of clusters was estimated.
        columns: Further columns of the result: for each name, a value for each text.
    """

    texts: list[str]
    clusters: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    estimated: bool
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def groups(self, nearest: int = 5) -> Iterator[tuple[int, list[str]]]:
        """Yields, for each cluster, its size and the distinct texts nearest to its centre."""
        for size, rows in self.nearest_rows(nearest):
            yield size, [self.texts[row] for row in rows]

    def nearest_rows(self, nearest: int = 5) -> Iterator[tuple[int, list[int]]]:
        """Yields, for each cluster, its size and the rows of the distinct texts nearest to its centre."""
        for number in range(int(self.clusters.max()) + 1):
            members = np.flatnonzero(self.clusters == number)
            first: dict[str, int] = {}
            for row in members[np.argsort(self.rank[members])].tolist():
                first.setdefault(self.texts[row], row)
            yield len(members), list(first.values())[:nearest]

    def save(self, path: str | os.PathLike[str], *, safe: bool = False) -> None:
        """Writes a csv file with the columns text, cluster, confidence, rank and `columns`, in the order of the texts.

        The file is written atomically.

        Args:
            path: The file.
            safe: Put an apostrophe before texts (also those of `columns`) that a spreadsheet would run as formulas
                (those that begin with =, +, -, @, a tab or a carriage return).
        """
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
            # quote every text, because csv would not quote a text with only a carriage return
            writer = csv.writer(handle, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writerow([_safe(name, safe) for name in ("text", "cluster", "confidence", "rank", *self.columns)])
            columns = (self.clusters.tolist(), self.confidence.round(4).tolist(), self.rank.tolist())
            texts, *others = ([_safe(value, safe) for value in each] for each in (self.texts, *self.columns.values()))
            writer.writerows(zip(texts, *columns, *others, strict=True))


def _safe(value: Any, safe: bool) -> Any:
    return f"'{value}" if safe and isinstance(value, str) and value.startswith(_FORMULA) else value


def cluster_texts(
    encoder: Any, texts: Sequence[str], clusters: int | None = None, *, seed: int = 0, **encode_arguments: Any
) -> ClusteredTexts:
    """Clusters texts by k-means on their embeddings, which are not changed after `encode`.

    The confidence of a text is its simplified silhouette (Hruschka et al. 2004), not the Student-t assignment that
    SCCL trains with (Zhang et al. 2021, equation 3). Both rank texts about equally well by whether their cluster is
    right. But on unit vectors the values of the Student-t assignment are small: with 20 clusters they are below 0.1
    even at the centre of a cluster.

    Args:
        encoder: Any object with `.encode(list[str])`.
        texts: The texts. Duplicates are allowed and count as often as they occur.
        clusters: The number of clusters; None: it is estimated by `estimate_clusters`.
        seed: The seed of k-means, and of the sample on which the number of clusters is estimated.
        **encode_arguments: Passed on to `encode`.

    Raises:
        InputError: A text is not a string, `clusters` is less than two or more than the number of distinct texts, or
            there are too few texts to estimate the number of clusters.

    Example:
        >>> cluster_texts(encoder, texts, 20).save("clusters.csv")  # doctest: +SKIP
    """
    texts = as_texts(texts)
    if clusters is not None:  # check before the texts are encoded, which takes long
        check_number(clusters, len(set(texts)), "distinct texts")
    return _clustered(texts, _embed(encoder, texts, encode_arguments), clusters, seed)


def cluster_vectors(directory: str | os.PathLike[str], clusters: int | None = None, *, seed: int = 0) -> ClusteredTexts:
    """Clusters the texts of a directory of vectors, as `cluster_texts` does, without encoding them.

    The result has the further columns `id` (the user's id, else the row of the corpus) and those that were kept with
    the texts, by their names; a column that has the name of another one of the result is `column:NAME`.

    Args:
        directory: A directory that `encode_corpus` wrote.
        clusters: The number of clusters; None: it is estimated by `estimate_clusters`.
        seed: The seed, as in `cluster_texts`.

    Raises:
        InputError: As in `cluster_texts` and `textcl.Vectors`; or the rows are parts of long texts.

    Example:
        >>> cluster_vectors("vectors", 20).save("clusters.csv")  # doctest: +SKIP
    """
    vectors = Vectors(directory)
    vectors.check_whole("clustering")
    texts = vectors.texts()
    if clusters is not None:
        check_number(clusters, len(set(texts)), "distinct texts")
    ids = vectors.own_ids() or vectors.ids().tolist()
    columns = {result_name(name, COLUMNS): list(map(plain, vectors.column(name))) for name in vectors.columns}
    found = _clustered(texts, vectors.vectors(), clusters, seed)
    return replace(found, columns={"id": ids, **columns})


COLUMNS = ("text", "cluster", "confidence", "rank", "id")  # of a result, that are not the user's


def _clustered(texts: list[str], embeddings: np.ndarray, clusters: int | None, seed: int) -> ClusteredTexts:
    number = estimate_clusters(embeddings, seed=seed) if clusters is None else clusters
    found = cluster(embeddings, number, seed)
    distances = pairwise(embeddings, found.centres).astype(np.float64)
    own = distances[np.arange(len(texts)), found.assignments]
    next_one = np.partition(distances, 1, axis=1)[:, 1]
    confidence = np.divide(next_one - own, next_one, out=np.zeros_like(own), where=next_one > 0).clip(0, 1)
    rank = np.empty(len(texts), dtype=int)
    for members in (np.flatnonzero(found.assignments == k) for k in range(number)):
        rank[members[np.argsort(own[members], kind="stable")]] = np.arange(1, len(members) + 1)
    return ClusteredTexts(texts, found.assignments, confidence, rank, clusters is None)


_FUNCTIONS = (
    clustering_accuracy,
    normalized_mutual_information,
    adjusted_rand_index,
)  # in the order of CLUSTERING.rows


def _embed(encoder: Any, texts: Sequence[str], encode_arguments: Mapping[str, Any]) -> Any:
    rows, row_of = encode_distinct(encoder, texts, **encode_arguments)
    return rows.astype(np.float32)[
        [row_of[text] for text in texts]
    ]  # float32, because k-means takes twice as long in float64


def _hash(texts: Sequence[str], labels: Sequence[Any]) -> str:
    """SHA-256 of labels and texts, in the order in which they are evaluated."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{label}\t{text}\n".encode())
    return digest.hexdigest()
