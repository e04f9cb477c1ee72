"""Which documents are searched where candidates are selected: all that fit, else those to be found, hard and others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textcl.adaptation.schedule import MOST_SEARCHED
from textcl.vectors.compress import unit

HARD = 10  # nearest documents of each query that are searched
_AT_ONCE = 512  # queries whose similarities are in memory at once


def searched(queries: np.ndarray, documents: np.ndarray, own: Sequence[int] | np.ndarray, seed: int = 0) -> np.ndarray:
    """At most 3,000 documents, in their order: those to be found, hard ones, and others drawn at random.

    Args:
        queries: The vectors of the queries by the untouched encoder, (queries, dim).
        documents: The vectors of all documents by the same encoder, (documents, dim).
        own: The documents to be found.
        seed: The seed of the others.

    Returns:
        The numbers of the documents. Hard ones, the nearest to each query, fill at most half of the room that those to
        be found leave.
    """
    if len(documents) <= MOST_SEARCHED:
        return np.arange(len(documents))
    kept = dict.fromkeys(int(document) for document in own)
    hard: list[int] = []
    queries, documents = unit(queries), unit(documents)
    for begin in range(0, len(queries), _AT_ONCE):
        cosines = queries[begin : begin + _AT_ONCE] @ documents.T
        nearest = np.argpartition(-cosines, HARD, axis=1)[:, :HARD]
        hard += nearest.ravel().tolist()
    hard = [document for document in dict.fromkeys(hard) if document not in kept]
    generator = np.random.default_rng(seed)
    kept |= dict.fromkeys(some(np.array(hard, np.int64), (MOST_SEARCHED - len(kept)) // 2, seed).tolist())
    others = [i for i in generator.permutation(len(documents)).tolist() if i not in kept]
    kept |= dict.fromkeys(others[: MOST_SEARCHED - len(kept)])
    return np.array(sorted(kept), dtype=np.int64)


def some(items: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """At most `most` of some items, drawn at random, in their order."""
    return items[np.sort(np.random.default_rng(seed).permutation(len(items))[:most])]
