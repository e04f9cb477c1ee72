"""The documents nearest to each query, without all embeddings in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcl.evaluation.encoding import encode_distinct
from textcl.progress import Progress

_QUERIES = 1024  # queries whose cosines with a chunk of documents are in memory at once
_DECIMALS = 12  # cosines are rounded to this many decimals; rounding noise would break ties of equal texts


@dataclass
class Nearest:
    """The documents nearest to each query.

    Attributes:
        places: The places of the nearest documents, the nearest first, (queries, depth). If there are fewer, a document
            that is left out may be among them.
        scores: Their cosines, (queries, depth); −∞ for the document that is left out.
        spread: The largest cosine of each query minus its smallest, (queries,).
        of_wanted: For each query the cosines of the documents that were asked for.
    """

    places: np.ndarray
    scores: np.ndarray
    spread: np.ndarray
    of_wanted: list[np.ndarray]


def rank_by_cosine(
    encoder: Any,
    queries: Any,
    documents: Mapping[str, str],
    places: Mapping[str, int],
    left_out: np.ndarray,
    *,
    depth: int,
    wanted: Sequence[np.ndarray] | None,
    chunk_size: int,
    **encode_arguments: Any,
) -> Nearest:
    """Encodes documents chunk by chunk, longest first, and keeps the `depth` nearest to each query.

    Args:
        encoder: An object with `encode`.
        queries: The embeddings of the queries, of length 1, dense or sparse, (queries, dim).
        documents: `{id: text}`.
        places: The place of each document; of equal cosines the lower place comes first.
        left_out: For each query the place of a document that is not ranked; −1: none.
        depth: How many documents are kept for each query.
        wanted: For each query the places of documents whose cosines are returned too.
        chunk_size: The number of documents whose embeddings are in memory at a time.
        **encode_arguments: Passed on to `encode`.
    """
    by_length = sorted(documents, key=lambda name: (-len(documents[name]), documents[name]))
    count = queries.shape[0]
    best, kept_places = np.empty((count, 0)), np.empty((count, 0), dtype=int)
    least, most = np.full(count, np.inf), np.full(count, -np.inf)
    of_wanted = [np.zeros(len(each)) for each in wanted or ()]
    with Progress("Ranking documents", len(documents)) as bar:
        for start in range(0, len(by_length), chunk_size):
            names = by_length[start : start + chunk_size]
            rows, row_of = encode_distinct(encoder, (documents[name] for name in names), **encode_arguments)
            chunk = unit(rows)[[row_of[documents[name]] for name in names]]
            here = np.array([places[name] for name in names])
            column = np.full(len(documents), -1)  # of each document of this chunk
            column[here] = np.arange(len(here))
            kept = []
            for first in range(0, count, _QUERIES):
                block = slice(first, first + _QUERIES)
                cosines = _cosines(queries[block], chunk)
                if wanted is not None:
                    for values, asked, row in zip(of_wanted[block], wanted[block], cosines, strict=True):
                        found = column[asked] >= 0
                        values[found] = row[column[asked[found]]]
                ranked = here != left_out[block, None]
                least[block] = np.minimum(least[block], cosines.min(axis=1, initial=np.inf, where=ranked))
                most[block] = np.maximum(most[block], cosines.max(axis=1, initial=-np.inf, where=ranked))
                kept.append(
                    _best(
                        np.concatenate([best[block], np.where(ranked, cosines, -np.inf)], axis=1),
                        np.concatenate([kept_places[block], np.broadcast_to(here, cosines.shape)], axis=1),
                        depth,
                    )
                )
            best, kept_places = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            bar.update(len(names))
    return Nearest(kept_places, best, most - least, of_wanted)


def unit(rows: Any) -> Any:
    """The rows scaled to length 1, dense or sparse; zero rows stay zero."""
    from sklearn.preprocessing import normalize

    return normalize(rows)


def _cosines(queries: Any, documents: Any) -> np.ndarray:
    product = queries @ documents.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product).round(_DECIMALS)


def _best(scores: np.ndarray, places: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest scores of each row and their places, sorted; for equal scores the lower place comes first."""
    count = min(depth, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count]
    kept = np.empty((len(scores), count), dtype=int)
    for row, bound in enumerate(least):
        candidates = np.flatnonzero(scores[row] >= bound)
        order = np.lexsort((places[row, candidates], -scores[row, candidates]))
        kept[row] = candidates[order[:count]]
    return np.take_along_axis(scores, kept, axis=1), np.take_along_axis(places, kept, axis=1)
