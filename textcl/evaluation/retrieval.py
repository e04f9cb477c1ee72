"""Retrieval: how well the cosine finds a user's own documents for a user's own queries."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from textcl.data.retrieval import Collection, read_beir, read_collection
from textcl.evaluation.encoding import describe, encode_distinct
from textcl.evaluation.kinds import RETRIEVAL
from textcl.evaluation.results import Result
from textcl.version import library_versions

logger = logging.getLogger("textcl")

DEPTH = 100  # documents that are kept for a query
CUT = 10
_QUERIES = 1024  # whose cosines with a chunk of documents are held at once
_DECIMALS = 12  # of a cosine: beyond them is rounding noise, which would break the ties of equal texts


class Retrieval:
    """nDCG@10, MRR@10 and recall at 10 and 100 of the documents that are nearest to each query, by cosine.

    - nDCG@10 (Järvelin and Kekäläinen 2002): the sum of grade / log2(rank + 1) over the ten nearest, over what the
      best order would have. The gain is the grade itself, as trec_eval and BEIR have it, not 2^grade - 1.
    - MRR@10: one over the rank of the first relevant document, 0 where none is among ten.
    - recall@10, recall@100: the share of a query's relevant documents that are among the ten or hundred nearest.

    All are means over the queries to which some document is relevant (a grade above 0), × 100. The others are counted
    and left out. Documents at the same cosine stand in the order of their ids.

    Documents are encoded by length, a chunk at a time, and only the nearest hundred of each query are kept. An encoder
    with prompts of the names "query" and "document" has them put before the texts.

    Args:
        queries: `{id: text}`.
        documents: `{id: text}`.
        relevance: `{query id: {document id: grade}}`.
        chunk_size: Documents that are encoded at a time, and whose embeddings are held.

    Raises:
        InputError: Something is empty, a judgement names an unknown id, or no document is relevant to any query.

    Example:
        >>> Retrieval.from_files("queries.csv", "documents.csv", "relevance.csv")(encoder).primary  # doctest: +SKIP
    """

    name = "retrieval"

    def __init__(
        self,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        relevance: Mapping[str, Mapping[str, float]],
        *,
        chunk_size: int = 8192,
    ) -> None:
        self.collection = Collection(queries, documents, relevance)
        self.chunk_size = chunk_size
        self.split: str | None = None
        if without := len(queries) - len(self.collection.answered):
            logger.warning("%s of %s queries have no relevant document and are left out.", without, len(queries))

    @classmethod
    def from_files(
        cls,
        queries: str | os.PathLike[str],
        documents: str | os.PathLike[str],
        relevance: str | os.PathLike[str],
        **options: Any,
    ) -> Self:
        """Reads three files, see `textcl.data.retrieval.read_collection`."""
        found = read_collection(queries, documents, relevance)
        return cls(found.queries, found.documents, found.relevance, **options)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], split: str = "test", **options: Any) -> Self:
        """Reads a folder in BEIR's layout, see `textcl.data.retrieval.read_beir`."""
        found = read_beir(folder, split)
        retrieval = cls(found.queries, found.documents, found.relevance, **options)
        retrieval.split = split
        return retrieval

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Scores anything with `.encode(list[str])` that returns one row a text: arrays, tensors, lists, sparse rows.

        A collapsed encoder, to which all documents are equally near, counts as 0, with a warning and a line under
        `provenance["undefined"]`: the order of ids would be scored otherwise.

        Raises:
            InputError: The encoder returned another number of rows than it was given texts, or NaN or infinite values.
        """
        answered = self.collection.answered
        prompts = {side: _prompt(encoder, side, encode_arguments) for side in ("query", "document")}
        texts = [self.collection.queries[query] for query in answered]
        rows, row_of = encode_distinct(encoder, texts, **encode_arguments, **prompts["query"])
        nearest, flat = self._nearest(encoder, _unit(rows)[[row_of[text] for text in texts]],
                                      {**encode_arguments, **prompts["document"]})  # fmt: skip
        by_query = [
            score_ranking(found, self.collection.relevance[query])
            for query, found in zip(answered, nearest, strict=True)
        ]
        collapsed = flat and len(self.collection.documents) > 1
        if collapsed:
            logger.warning("All cosines of queries and documents are equal: nothing is ranked, which counts as 0.")
        scores = {
            metric: 0.0 if collapsed else 100 * float(np.mean([entry[metric] for entry in by_query]))
            for metric in RETRIEVAL.rows
        }
        provenance = {
            "tasks": {
                self.name: {
                    "split": self.split,
                    "queries": len(answered),
                    "queries_without_relevant": len(self.collection.queries) - len(answered),
                    "documents": len(self.collection.documents),
                    "judgements": sum(map(len, self.collection.relevance.values())),
                    "data_sha256": self.collection.hash(),
                }
            },
            "retrieval": {
                "primary": "ndcg@10",
                "ndcg@10": "gain grade, discount log2(rank + 1), over the best order; in points",
                "mrr@10": "one over the rank of the first relevant document among ten, in points",
                "recall": "share of the relevant documents (grade above 0) that are found, in points",
                "similarity": "cosine",
                "ties": "in the order of ids",
                "prompts": {side: prompt.get("prompt_name") for side, prompt in prompts.items()},
                "aggregation": "mean over queries with a relevant document",
            },
            "undefined": [self.name] if collapsed else [],
            "encoder": describe(encoder),
            "seed": None,  # of a training run, as in the STS results
            "versions": library_versions(),
        }
        return Result({self.name: {"kind": RETRIEVAL.name, **scores}}, scores, provenance)

    def _nearest(self, encoder: Any, queries: Any, encode_arguments: Mapping[str, Any]) -> tuple[list[list[str]], bool]:
        """The ids of the nearest documents of each query, the nearest first; and whether all cosines are equal."""
        from tqdm import tqdm

        documents = self.collection.documents
        in_order = sorted(documents)
        place_of = {name: place for place, name in enumerate(in_order)}
        by_length = sorted(documents, key=lambda name: (-len(documents[name]), documents[name]))
        count = queries.shape[0]
        scores, places = np.empty((count, 0)), np.empty((count, 0), dtype=int)
        least, most = math.inf, -math.inf
        with tqdm(total=len(documents), desc="Ranking documents", unit=" texts", delay=2, disable=None) as bar:
            for start in range(0, len(by_length), self.chunk_size):
                names = by_length[start : start + self.chunk_size]
                rows, row_of = encode_distinct(encoder, (documents[name] for name in names), **encode_arguments)
                chunk = _unit(rows)[[row_of[documents[name]] for name in names]]
                here = np.array([place_of[name] for name in names])
                kept = []
                for first in range(0, count, _QUERIES):
                    block = slice(first, first + _QUERIES)
                    cosines = _cosines(queries[block], chunk)
                    least, most = min(least, cosines.min()), max(most, cosines.max())
                    kept.append(
                        _best(
                            np.concatenate([scores[block], cosines], axis=1),
                            np.concatenate([places[block], np.broadcast_to(here, cosines.shape)], axis=1),
                        )
                    )
                scores, places = (np.concatenate(parts) for parts in zip(*kept, strict=True))
                bar.update(len(names))
        return [[in_order[place] for place in row] for row in places], bool(least == most)


def score_ranking(ranking: Sequence[str], grades: Mapping[str, float]) -> dict[str, float]:
    """The four metrics of one query.

    Args:
        ranking: Document ids, the nearest first.
        grades: Of the judged documents; above 0 is relevant, and one at least is.

    Returns:
        Numbers from 0 to 1 by the metrics of `RETRIEVAL`.

    Example:
        >>> score_ranking(["a", "b"], {"b": 1})["mrr@10"]
        0.5
    """
    gains = [max(grades.get(document, 0.0), 0.0) for document in ranking]
    relevant = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    first = next((rank for rank, gain in enumerate(gains[:CUT], start=1) if gain > 0), math.inf)
    return {
        "ndcg@10": _discounted(gains[:CUT]) / _discounted(relevant[:CUT]),
        "mrr@10": 1 / first,
        "recall@10": sum(gain > 0 for gain in gains[:CUT]) / len(relevant),
        "recall@100": sum(gain > 0 for gain in gains[:DEPTH]) / len(relevant),
    }


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _prompt(encoder: Any, side: str, encode_arguments: Mapping[str, Any]) -> dict[str, str]:
    """The encoder's own prompt for queries or for documents, unless the caller names one."""
    known = getattr(encoder, "prompts", None) or {}
    return {"prompt_name": side} if side in known and not {"prompt", "prompt_name"} & set(encode_arguments) else {}


def _unit(rows: Any) -> Any:
    """Rows of length 1, dense or sparse; zero rows stay."""
    from sklearn.preprocessing import normalize

    return normalize(rows)


def _cosines(queries: Any, documents: Any) -> np.ndarray:
    product = queries @ documents.T
    return np.asarray(product.toarray() if hasattr(product, "toarray") else product).round(_DECIMALS)


def _best(scores: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest scores of each row with their places, in order; of equal scores the lower place comes first."""
    count = min(DEPTH, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count]
    kept = np.empty((len(scores), count), dtype=int)
    for row, bound in enumerate(least):
        candidates = np.flatnonzero(scores[row] >= bound)
        order = np.lexsort((places[row, candidates], -scores[row, candidates]))
        kept[row] = candidates[order[:count]]
    return np.take_along_axis(scores, kept, axis=1), np.take_along_axis(places, kept, axis=1)
