"""Fitting the mean of bits and the PCA on the first vectors of a corpus, which are encoded once and then stored."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.vectors.compress import Compression
from textcl.vectors.corpus import Corpus, Survey
from textcl.vectors.shards import check_finite

FITTED = 10_000  # rows of the corpus whose vectors mean and PCA are fitted on


def check_enough(found: Survey, dimensions: int, name: str) -> None:
    """Raises an InputError if a corpus has too few rows for a PCA with so many dimensions."""
    if min(found.texts, FITTED) <= dimensions:
        raise InputError(
            f"--pca needs more texts than dimensions: {name} has {found.texts:,} texts for {dimensions:,} dimensions, "
            f"and the first {FITTED:,} count. Give more texts or fewer --dimensions, or leave out --pca."
        )


def first_vectors(
    encoder: Encoder, source: Corpus, shard_rows: int, arguments: Mapping[str, Any]
) -> dict[int, np.ndarray]:
    """The vectors of the first rows of a corpus, by the number of their shard."""
    found: dict[int, np.ndarray] = {}
    left = FITTED
    for number, window in enumerate(source.windows(shard_rows)):
        found[number] = encoder.encode([row.text for row in window[:left]], **arguments)
        check_finite(found[number])
        left -= len(found[number])
        if not left:
            break
    return found


def fitted(first: Mapping[int, np.ndarray], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is fitted on the first vectors for a directory with these settings, as its manifest keeps it."""
    return Compression.fit(
        np.concatenate(list(first.values())),
        settings.get("dimensions"),
        normalize=settings["normalize"],
        pca=settings.get("pca", False),
        bits=settings["dtype"] == "ubinary",
    ).to_manifest()


def shard_vectors(
    encoder: Encoder, texts: list[str], first: int, there: np.ndarray | None, arguments: Mapping[str, Any]
) -> np.ndarray:
    """The vectors of a shard, (texts, dim).

    The other texts of a batch change the last bits of a vector. So those rows of a shard that something
    is fitted on are always encoded apart from its other rows, whether they are there already or not.

    Args:
        encoder: The encoder.
        texts: The texts of the shard.
        first: How many of its rows something is fitted on; zero or less: none.
        there: The vectors of these rows, if they are at hand.
        arguments: The arguments of `encode`.
    """
    if first <= 0:
        return np.asarray(encoder.encode(texts, **arguments))
    vectors = encoder.encode(texts[:first], **arguments) if there is None else there
    return np.concatenate([vectors, encoder.encode(texts[first:], **arguments)]) if texts[first:] else vectors
