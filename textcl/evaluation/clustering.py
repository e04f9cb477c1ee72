"""Clustering by k-means on embeddings: how well it finds the classes of labelled texts, and clusters of a user's texts.

sklearn's `n_init="auto"` means one start of k-means++; here k-means always starts ten times and keeps the best result.
"""

from __future__ import annotations

import hashlib
import logging
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.errors import InputError
from textcl.evaluation.encoding import check_own_names, encode_distinct, made_with, texts_and_labels
from textcl.evaluation.kinds import CLUSTERING
from textcl.evaluation.results import Result, averages
from textcl.metrics.clustering import (
    STARTS,
    adjusted_rand_index,
    cluster,
    clustering_accuracy,
    normalized_mutual_information,
)
from textcl.texts import names_in

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
        InputError: A set is unknown or not installed; or your own data has the name of a public set, a text that is not
            a string, a missing label (see `textcl.metrics.labels.number_labels`), only one class, or unequal numbers of
            texts and labels.

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
            check_own_names(sets)
            self.sets = dict(sets)
        else:
            directory = None if data_dir is None else Path(data_dir)
            self.sets = {name: load_clustering(name, directory) for name in names_in(sets)}
        try:
            self.seeds = tuple(map(operator.index, seeds))
        except TypeError:
            raise InputError(f"seeds must be several whole numbers, such as (0, 1, 2), not {seeds!r}.") from None
        if not self.sets or not self.seeds:
            raise InputError("Clustering needs at least one set and one seed.")
        self.classes: dict[str, int] = {}
        for name, own in self.sets.items():
            texts, labels, classes = texts_and_labels(name, own, "clustering")
            self.sets[name], self.classes[name] = (texts, labels), len(classes)
        self.name = "-".join(["clustering", *map(str.lower, self.sets)]) if len(self.sets) == 1 else "clustering"

    @property
    def data_hashes(self) -> dict[str, str]:
        """The hash of texts and labels of each set."""
        return {name: _hash(texts, labels) for name, (texts, labels) in self.sets.items()}

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
        hashes = self.data_hashes
        undefined: list[str] = []
        for name, (texts, labels) in self.sets.items():
            embeddings = _embed(encoder, texts, encode_arguments)
            found = [cluster(embeddings, self.classes[name], seed).assignments for seed in self.seeds]
            if not any(assignments.any() for assignments in found):  # all in cluster 0
                logger.warning("The encoder returns the same embedding for all texts of %s: it has collapsed.", name)
                undefined.append(name)
            by_seed = {
                metric: [100 * function(labels, assignments) for assignments in found]
                for metric, function in _METRICS.items()
            }
            means = {metric: float(np.mean(values)) for metric, values in by_seed.items()}
            results[name] = {"kind": CLUSTERING.name, **means, "by_seed": by_seed}
        provenance = {
            "tasks": {
                name: {
                    "split": "all",
                    "texts": len(texts),
                    "clusters": self.classes[name],
                    "data_sha256": hashes[name],
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
            **made_with(encoder),
        }
        return Result(results, averages(results), provenance)


_METRICS = {"accuracy": clustering_accuracy, "nmi": normalized_mutual_information, "ari": adjusted_rand_index}


def _embed(encoder: Any, texts: Sequence[str], encode_arguments: Mapping[str, Any]) -> Any:
    rows, row_of = encode_distinct(encoder, texts, **encode_arguments)
    # float32, because k-means takes twice as long in float64
    return rows.astype(np.float32)[[row_of[text] for text in texts]]


def _hash(texts: Sequence[str], labels: Sequence[Any]) -> str:
    """SHA-256 of labels and texts, in the order in which they are evaluated."""
    digest = hashlib.sha256()
    for text, label in zip(texts, labels, strict=True):
        digest.update(f"{label}\t{text}\n".encode())
    return digest.hexdigest()
