"""What is kept of clusters, so that further texts can be put into them: a sealed JSON file beside the csv file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.metrics.clustering import Placement
from textcl.seals import read_sealed, write_sealed
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.vectors import Vectors

FORMAT = 2
_SAID = {"pooling": "pooling", "max_length": "max_length", "prompt": "prompt", "normalized": "normalisation"}


@dataclass(frozen=True)
class SavedClusters:
    """The clusters themselves, without their texts.

    Attributes:
        algorithm: "kmeans" or "hdbscan".
        centres: The mean of each cluster, (clusters, dim) float32.
        sizes: The number of texts of each cluster, (clusters,).
        distances: Percentiles 0 to 100 of the distances of the texts of each cluster to its centre, (clusters, 101).
        names: The name of each cluster.
        keywords: The keywords of each cluster, the best first.
        made_by: What made the vectors: model, pooling, maximal length, prompt; empty if it is not known.
    """

    algorithm: str
    centres: np.ndarray
    sizes: np.ndarray
    distances: np.ndarray
    names: list[str]
    keywords: list[list[str]]
    made_by: dict[str, Any]

    @property
    def reach(self) -> np.ndarray | None:
        """The distance to each centre beyond which a text is an outlier, (clusters,); None for k-means."""
        return self.distances[:, -1] if self.algorithm == "hdbscan" else None

    def typical(self, placed: Placement) -> np.ndarray:
        """For each text, the share of its cluster's texts that are at least as far from the centre, (texts,).

        The share is that of the percentiles. It is 1 for the most central text of the cluster, and 0 for a text that is
        further away than all of them, and for outliers.
        """
        found = np.zeros(len(placed.clusters))
        for number, percentiles in enumerate(self.distances):
            members = np.flatnonzero(placed.clusters == number)
            nearer = np.searchsorted(percentiles, placed.distance[members] * (1 - 1e-6))
            found[members] = 1 - nearer / len(percentiles)
        return found

    def check_same(self, other: dict[str, Any]) -> None:
        """Raises an error if other vectors were made in another way.

        Args:
            other: What `made_by` returns for them.

        Raises:
            InputError: They were made by another model or with other settings, so their distances to the centres mean
                nothing.
        """
        if not self.made_by or not other:
            return
        sizes = [each.get("dimensions") for each in (self.made_by, other)]
        if self.made_by["sha256"] != other["sha256"] and sizes != [None, None]:
            old, new = (f"{size} dimensions" if size else "all dimensions" for size in sizes)
            raise InputError(
                f"The clusters are of vectors of {self.made_by['name']} with {old}, and the new ones are of "
                f"{other['name']} with {new}, so that their numbers mean other things. Encode the new texts as the old "
                "ones (with --pca by --append, because each directory has a PCA of its own), or cluster them anew."
            )
        if self.made_by["sha256"] != other["sha256"]:
            raise InputError(
                f"The clusters are of vectors of {self.made_by['name']}, not of {other['name']} as it is now. Encode "
                "the new texts with that model, or cluster them anew."
            )
        for key, said in _SAID.items():
            if self.made_by[key] != other[key]:
                raise InputError(
                    f"The clusters are of vectors with {said} {self.made_by[key]!r}, but the new ones have "
                    f"{other[key]!r}. Encode the new texts in the same way, or cluster them anew."
                )


def made_by(source: Any, encode_arguments: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What makes the vectors of an encoder, or made those of a directory; empty for other objects.

    Args:
        source: The encoder or the directory.
        encode_arguments: What else is passed to `Encoder.encode`.
    """
    if isinstance(source, Vectors):
        found: dict[str, Any] = {"name": source.name, "sha256": source.space}
        prompt, normalized = source.prompt, source.normalized
        if (dimensions := source.compression.dimensions) is not None:
            found["dimensions"] = dimensions
    elif isinstance(source, Encoder):
        found = {"name": source.name, "sha256": source.fingerprint(settings=False)}
        asked = encode_arguments.get("normalize")
        prompt, normalized = _prompt(source, encode_arguments), source.normalize if asked is None else asked
    else:
        return {}
    settings = {"pooling": source.pooling, "max_length": source.max_length}
    return {**found, **settings, "prompt": prompt, "normalized": normalized}


def with_prompt(encoder: Any, encode_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `encode`, with the prompt with which `encode_corpus` would encode the texts."""
    if not isinstance(encoder, Encoder):
        return dict(encode_arguments)
    others = {name: value for name, value in encode_arguments.items() if name != "prompt_name"}
    return {**others, "prompt": _prompt(encoder, encode_arguments)}


def _prompt(encoder: Encoder, arguments: Mapping[str, Any]) -> str:
    return corpus_prompt(encoder, arguments.get("prompt"), arguments.get("prompt_name"))


def centres_file(path: str | os.PathLike[str]) -> Path:
    """The file with the centres that belongs to a csv file of clusters: clusters.centres.json for clusters.csv."""
    return Path(path).with_suffix(".centres.json")


def save_clusters(path: str | os.PathLike[str], clusters: SavedClusters) -> None:
    """Writes clusters to the file that belongs to a csv file, atomically and sealed."""
    value = {
        "format": FORMAT,
        "algorithm": clusters.algorithm,
        "made_by": clusters.made_by,
        "names": clusters.names,
        "keywords": clusters.keywords,
        "sizes": clusters.sizes.tolist(),
        "distances": clusters.distances.round(9).tolist(),
        # nine digits give back each float32 exactly
        "centres": [[float(f"{number:.9g}") for number in row] for row in clusters.centres.tolist()],
    }
    write_sealed(centres_file(path), value)


def read_clusters(path: str | os.PathLike[str]) -> SavedClusters:
    """The clusters that belong to a csv file.

    Raises:
        InputError: There is no such file, it is damaged, or another version of textcl wrote it.
    """
    file = centres_file(path)
    if not Path(path).is_file():
        raise InputError(f"There is no file {path}; name a csv file that textcl cluster wrote.")
    try:
        value = read_sealed(file)
    except FileNotFoundError:
        raise InputError(
            f"{path} has no file {file.name} beside it. textcl cluster writes both; keep them together, or cluster "
            "anew."
        ) from None
    if value.get("format") != FORMAT or not {"centres", "distances"} <= set(value):
        raise InputError(f"{file} was not written by this version of textcl cluster; cluster the old texts anew.")
    return SavedClusters(
        algorithm=value["algorithm"],
        centres=np.array(value["centres"], np.float32),
        sizes=np.array(value["sizes"]),
        distances=np.array(value["distances"]),
        names=value["names"],
        keywords=value["keywords"],
        made_by=value["made_by"],
    )
