"""Clusters of a user's texts: what they are, what they are about, and which old cluster a new text belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.encoding import encode_dense
from textcl.evaluation.saved_clusters import SavedClusters, made_by, read_clusters, save_clusters, with_prompt
from textcl.metrics.clustering import Merge, Placement, check_number, cluster, mean_silhouette, merge_clusters, place
from textcl.metrics.density import density_clusters
from textcl.metrics.stability import FoundAgain, Stability, cluster_stability, found_again
from textcl.ranges import Seed, checked
from textcl.texts import as_texts, bare
from textcl.vectors.columns import plain, result_name, write_csv
from textcl.vectors.topics import keywords_and_names
from textcl.vectors.unknown import warn_of_unknown
from textcl.vectors.vectors import Vectors

COLUMNS = ("text", "cluster", "confidence", "typical", "rank", "name", "second_cluster", "id")  # not the user's
OUTLIERS = "outliers"  # the name of what is in no cluster
Algorithm = Literal["kmeans", "hdbscan"]


@dataclass(frozen=True)
class ClusteredTexts:
    """Texts with their clusters.

    Attributes:
        texts: The texts.
        clusters: The cluster of each text, (texts,); cluster 0 is the largest, and −1 is an outlier.
        confidence: (d₂ − d₁) / d₂ for each text, (texts,), with d₁ the distance to the centre of its cluster and d₂
            that to the nearest other centre: 0 on the border between two clusters, 1 at the centre. 0 for outliers.
        typical: For each text, the share of its cluster's texts that are at least as far from the centre, (texts,). If
            new texts are put into old clusters, only the old texts count. If many new texts have a share below 0.05,
            they may fit no cluster.
        rank: The rank of each text in its cluster by distance to the centre, (texts,); 1 is the nearest.
        second: The cluster with the nearest other centre, (texts,); −1 if there is one cluster only.
        about: The centres, names and keywords of the clusters.
        silhouette: The mean silhouette, see `mean_silhouette`; None if it is not defined.
        stability: How the number of clusters was estimated; None if it was not.
        again: How far the clusters of k-means are found again in halves of the texts, see `found_again`; None for
            HDBSCAN, for old clusters and for few texts.
        columns: Further columns of the result: for each name, a value for each text. `id` is one of them.
    """

    texts: list[str]
    clusters: np.ndarray
    confidence: np.ndarray
    typical: np.ndarray
    rank: np.ndarray
    second: np.ndarray
    about: SavedClusters
    silhouette: float | None
    stability: Stability | None = None
    again: FoundAgain | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def estimated(self) -> bool:
        """Whether the number of clusters was estimated."""
        return self.stability is not None

    @property
    def agreement(self) -> float | None:
        """How well k-means on two halves of the texts agree with this number of clusters; None if it is not known."""
        if self.stability is not None:
            return self.stability.of_best
        return None if self.again is None else self.again.agreement

    @property
    def found_again(self) -> list[float | None]:
        """The overlap of each cluster with its match in k-means on half of the texts; None where it is not known."""
        if self.again is None:
            return [None] * len(self.names)
        return [None if np.isnan(each) else round(each, 4) for each in self.again.overlap.tolist()]

    @property
    def names(self) -> list[str]:
        """The name of each cluster."""
        return self.about.names

    @property
    def outliers(self) -> int:
        """The number of texts in no cluster."""
        return int((self.clusters < 0).sum())

    def groups(self, nearest: int = 3) -> Iterator[tuple[int, list[str]]]:
        """Yields, for each cluster, its size and the texts nearest to its centre, each once but for case and spaces."""
        for size, rows in self.nearest_rows(nearest):
            yield size, [self.texts[row] for row in rows]

    def nearest_rows(self, nearest: int = 3) -> Iterator[tuple[int, list[int]]]:
        """Yields, for each cluster, its size and the rows of these texts."""
        for number in range(len(self.names)):
            members = np.flatnonzero(self.clusters == number)
            first: dict[str, int] = {}
            for row in members[np.argsort(self.rank[members])].tolist():
                first.setdefault(bare(self.texts[row]), row)
            yield len(members), list(first.values())[:nearest]

    def hierarchy(self) -> list[Merge]:
        """The clusters joined step by step, the most similar ones first, see `merge_clusters`."""
        return merge_clusters(self.about.centres, self.about.sizes)

    def save(self, path: str | os.PathLike[str], *, safe: bool = True) -> None:
        """Writes a csv file, one row for each text in their order, and the centres in a file beside it.

        The columns are text, cluster, confidence, typical, rank, name, second_cluster and `columns`. The second file,
        such as clusters.centres.json beside clusters.csv, lets `assign_texts` and `assign_vectors` put further texts
        into these clusters. Both files are written atomically.

        Args:
            path: The csv file.
            safe: Put an apostrophe before cells that a spreadsheet would run as formulas, see `spreadsheet_safe`.
        """
        save_clusters(path, self.about)
        names = [*self.names, OUTLIERS]  # −1 is the last one
        second = ["" if number < 0 else number for number in self.second.tolist()]
        columns = {
            "text": self.texts,
            "cluster": self.clusters.tolist(),
            "confidence": self.confidence.round(4).tolist(),
            "typical": self.typical.round(2).tolist(),
            "rank": self.rank.tolist(),
            "name": [names[number] for number in self.clusters.tolist()],
            "second_cluster": second,
            **self.columns,
        }
        write_csv(path, columns, zip(*columns.values(), strict=True), safe=safe)


@checked
def cluster_texts(
    encoder: Any,
    texts: Sequence[str],
    clusters: int | None = None,
    *,
    algorithm: Algorithm = "kmeans",
    min_size: int | None = None,
    seed: Seed = 0,
    **encode_arguments: Any,
) -> ClusteredTexts:
    """Clusters texts by k-means or HDBSCAN on their embeddings, which are not changed after `encode`.

    The confidence of a text is its simplified silhouette (Hruschka et al. 2004), not the Student-t assignment that
    SCCL trains with (Zhang et al. 2021, equation 3). Both rank texts about equally well by whether their cluster is
    right. But on unit vectors the values of the Student-t assignment are small: with 20 clusters they are below 0.1
    even at the centre of a cluster.

    Args:
        encoder: Any object with `.encode(list[str])`.
        texts: The texts. Duplicates are allowed; for k-means they count as often as they occur.
        clusters: The number of clusters; None: for k-means it is estimated by `cluster_stability`. HDBSCAN finds it.
        algorithm: "kmeans", which puts each text into a cluster, or "hdbscan", which finds dense groups and leaves the
            other texts out as outliers, see `density_clusters`.
        min_size: For HDBSCAN, the smallest number of texts that are a cluster; None: see `smallest_size`.
        seed: The seed of k-means, and of the samples.
        **encode_arguments: Passed on to `encode`.

    Raises:
        InputError: A text is not a string, `clusters` is less than two or more than the number of distinct texts,
            there are too few texts to estimate the number of clusters, or an argument does not fit the algorithm.

    Example:
        >>> cluster_texts(encoder, texts, 20).save("clusters.csv")  # doctest: +SKIP
    """
    texts = as_texts(texts)
    _check(texts, clusters, algorithm, min_size)  # before the texts are encoded, which takes long
    if isinstance(encoder, Encoder):
        warn_of_unknown(encoder, texts)
    rows = embed(encoder, texts, **encode_arguments)
    return _clustered(texts, rows, clusters, algorithm, min_size, seed, made_by(encoder, encode_arguments), {})


@checked
def cluster_vectors(
    directory: str | os.PathLike[str],
    clusters: int | None = None,
    *,
    algorithm: Algorithm = "kmeans",
    min_size: int | None = None,
    seed: Seed = 0,
) -> ClusteredTexts:
    """Clusters the texts of a directory of vectors, as `cluster_texts` does, without encoding them.

    The column `id` of the result has the user's ids, else the row of the corpus. Further columns are those that were
    kept with the texts, by their names; a column that has the name of another one of the result is `column:NAME`.

    Args:
        directory: A directory that `encode_corpus` wrote. The other arguments are those of `cluster_texts`.

    Raises:
        InputError: As in `cluster_texts` and `textcl.Vectors`; or the rows are parts of long texts.

    Example:
        >>> cluster_vectors("vectors", 20).save("clusters.csv")  # doctest: +SKIP
    """
    vectors = Vectors(directory)
    vectors.check_whole("clustering")
    texts = vectors.texts()
    _check(texts, clusters, algorithm, min_size)
    rows, columns = vectors.vectors(), _columns(vectors)
    return _clustered(texts, rows, clusters, algorithm, min_size, seed, made_by(vectors), columns)


def assign_texts(
    encoder: Any, texts: Sequence[str], clusters: str | os.PathLike[str], **encode_arguments: Any
) -> ClusteredTexts:
    """Puts further texts into the clusters of an earlier result. Old clusters do not change.

    A text gets the cluster of the nearest centre. If HDBSCAN found the clusters, a text that is further from that
    centre than every text of the cluster is an outlier.

    Args:
        encoder: The encoder that embedded the clustered texts.
        texts: The new texts.
        clusters: The csv file that `ClusteredTexts.save` wrote; the file with the centres lies beside it.
        **encode_arguments: Passed on to `encode`.

    Raises:
        InputError: There is no text, the file with the centres is missing or damaged, or its clusters are of another
            encoder.

    Example:
        >>> assign_texts(encoder, new_texts, "clusters.csv").save("new.csv")  # doctest: +SKIP
    """
    about, texts = read_clusters(clusters), as_texts(texts)
    about.check_same(made_by(encoder, encode_arguments))
    return _assigned(texts, embed(encoder, texts, **encode_arguments), about, {})


def assign_vectors(directory: str | os.PathLike[str], clusters: str | os.PathLike[str]) -> ClusteredTexts:
    """Puts the texts of a directory of vectors into the clusters of an earlier result, as `assign_texts` does.

    Args:
        directory: A directory that `encode_corpus` wrote, with the encoder of the clustered texts.
        clusters: The csv file that `ClusteredTexts.save` wrote.

    Raises:
        InputError: As in `assign_texts` and `cluster_vectors`.

    Example:
        >>> assign_vectors("new-vectors", "clusters.csv").save("new.csv")  # doctest: +SKIP
    """
    about, vectors = read_clusters(clusters), Vectors(directory)
    vectors.check_whole("clustering")
    about.check_same(made_by(vectors))
    return _assigned(vectors.texts(), vectors.vectors(), about, _columns(vectors))


def embed(encoder: Any, texts: Sequence[str], **encode_arguments: Any) -> np.ndarray:
    """The vector of each text as `cluster_texts` uses it, (texts, dim) float32; equal texts are encoded once.

    An `Encoder` gets the prompt with which `encode_corpus` encodes texts: that named "document", if it has one.

    Args:
        encoder: Any object with `.encode(list[str])`.
        texts: The texts.
        **encode_arguments: Passed on to `encode`.
    """
    rows, row_of = encode_dense(encoder, texts, **with_prompt(encoder, encode_arguments))
    return rows[[row_of[text] for text in texts]]


def smallest_size(texts: int) -> int:
    """The size of a cluster that HDBSCAN takes by default: half a per cent of the texts, 5 at least and 100 at most."""
    return min(max(5, texts // 200), 100)


def _check(texts: Sequence[str], clusters: int | None, algorithm: str, min_size: int | None) -> None:
    if algorithm not in ("kmeans", "hdbscan"):
        raise InputError(f"algorithm must be 'kmeans' or 'hdbscan', not {algorithm!r}.")
    if algorithm == "kmeans":
        if min_size is not None:
            raise InputError("A smallest size of clusters works only with hdbscan; k-means takes a number of clusters.")
        if clusters is not None:
            check_number(clusters, len(set(texts)), "distinct texts")
    elif clusters is not None:
        raise InputError("hdbscan finds the number of clusters itself; give a smallest size of clusters instead.")
    if not texts:
        raise InputError("There is no text to cluster.")


def _clustered(
    texts: list[str],
    embeddings: np.ndarray,
    clusters: int | None,
    algorithm: Algorithm,
    min_size: int | None,
    seed: int,
    origin: dict[str, Any],
    columns: Mapping[str, Sequence[Any]],
) -> ClusteredTexts:
    stability = None
    if algorithm == "kmeans":
        if clusters is None:
            stability = cluster_stability(embeddings, seed=seed)
            clusters = stability.best
        means = cluster(embeddings, clusters, seed)
        found = means.assignments
        centres = means.centres[: int(found.max()) + 1]  # without empty clusters
    else:
        found = density_clusters(embeddings, min_size or smallest_size(len(texts)), seed=seed)
        centres = np.stack([embeddings[found == number].mean(axis=0) for number in range(int(found.max()) + 1)])
    placed = place(embeddings, centres, found)
    keywords, names = keywords_and_names(texts, found)
    about = SavedClusters(
        algorithm=algorithm,
        centres=np.asarray(centres, np.float32),
        sizes=np.bincount(found[found >= 0], minlength=len(centres)),
        distances=np.stack(
            [np.percentile(placed.distance[placed.clusters == each], np.arange(101)) for each in range(len(centres))]
        ),
        names=names,
        keywords=keywords,
        made_by=origin,
    )
    again = found_again(embeddings, placed.clusters, seed=seed) if algorithm == "kmeans" else None
    return _result(texts, embeddings, placed, about, stability, again, columns, seed)


def _assigned(
    texts: list[str], embeddings: np.ndarray, about: SavedClusters, columns: Mapping[str, Sequence[Any]]
) -> ClusteredTexts:
    if not texts:
        raise InputError("There is no text to cluster.")
    if embeddings.shape[1] != about.centres.shape[1]:
        raise InputError(
            f"The clusters are of vectors with {about.centres.shape[1]:,} numbers, but the new ones have "
            f"{embeddings.shape[1]:,}; use the same encoder."
        )
    placed = place(embeddings, about.centres, reach=about.reach)
    return _result(texts, embeddings, placed, about, None, None, columns, 0)


def _result(
    texts: list[str],
    embeddings: np.ndarray,
    placed: Placement,
    about: SavedClusters,
    stability: Stability | None,
    again: FoundAgain | None,
    columns: Mapping[str, Sequence[Any]],
    seed: int,
) -> ClusteredTexts:
    silhouette = mean_silhouette(embeddings, placed.clusters, seed=seed)
    columns = columns or {"id": range(len(texts))}
    values = (placed.clusters, placed.confidence, about.typical(placed), placed.rank, placed.second)
    return ClusteredTexts(texts, *values, about, silhouette, stability, again, columns)


def _columns(vectors: Vectors) -> dict[str, Sequence[Any]]:
    ids = vectors.own_ids() or vectors.ids().tolist()
    return {
        "id": ids,
        **{result_name(name, COLUMNS): list(map(plain, vectors.column(name))) for name in vectors.columns},
    }
