"""Hybrid search: the cosines of vectors and the scores of BM25 as one ranking."""

from typing import Literal, get_args

import numpy as np

from textcl.errors import InputError, nearest
from textcl.ranges import Range

RetrievalKind = Literal["dense", "bm25", "hybrid"]
RETRIEVALS: tuple[RetrievalKind, ...] = get_args(RetrievalKind)

DEPTH = 2000  # of each side, the best texts that are fused; with 1,000, NPL is 0.4 points from scoring all texts
WEIGHT = 0.35  # of BM25: the best on Cranfield and NPL; docs/search.md has the figures


def fuse(dense: np.ndarray, bm25: np.ndarray, weight: float = WEIGHT, depth: int = DEPTH) -> np.ndarray:
    """The scores of one query's hybrid search: weighted z-scores over the best texts of both sides.

    The candidates are the union of the `depth` best texts by cosine and the `depth` best by BM25. With z the scores of
    the candidates minus their mean, divided by their standard deviation, a candidate has the score
    (1 − weight) · z(dense) + weight · z(bm25). A side whose scores are all equal counts as 0.

    Args:
        dense: The cosine of the query and each text, (texts,).
        bm25: The BM25 score of each text, (texts,), see `Bm25.scores`.
        weight: The weight of BM25, from 0 to 1.
        depth: How many texts of each side are candidates.

    Returns:
        The scores, (texts,) float64; −∞ for a text that is not a candidate.

    Example:
        >>> fuse(np.array([0.9, 0.1, 0.5]), np.array([0.0, 2.0, 1.0])).argmax().item()
        0
    """
    places = np.union1d(best(dense, depth), best_by_words(bm25, depth))
    fused = np.full(len(dense), -np.inf)
    fused[places] = weighted(dense[places], bm25[places], weight)
    return fused


def weighted(dense: np.ndarray, bm25: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """The weighted z-scores of `fuse` for candidates that are chosen already, (candidates,) float64."""
    return (1 - weight) * _z_scores(dense) + weight * _z_scores(bm25)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` highest scores, in no order; with those that are equal to the last of them."""
    if count >= len(scores):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -count)[-count])


def best_by_words(bm25: np.ndarray, count: int) -> np.ndarray:
    """As `best`, without texts of score 0: they have no word of the query, so BM25 does not order them."""
    places = np.flatnonzero(bm25 > 0)
    return places[best(bm25[places], count)]


def check_retrieval(kind: str) -> RetrievalKind:
    """The kind of retrieval.

    Raises:
        InputError: There is no such kind.
    """
    for known in RETRIEVALS:
        if kind == known:
            return known
    raise InputError(f"retrieval must be dense, bm25 or hybrid, not {kind!r}.{nearest(str(kind), RETRIEVALS)}")


def check_weight(weight: float) -> None:
    """Raises an InputError unless the weight of BM25 is from 0 to 1."""
    Range(at_least=0, at_most=1).check("bm25_weight", weight)


def _z_scores(scores: np.ndarray) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    centred = values - values.mean()
    deviation = values.std()
    # the cosines of a collapsed encoder differ by rounding
    return centred / deviation if deviation > 1e-6 * abs(values).max() else np.zeros_like(centred)
