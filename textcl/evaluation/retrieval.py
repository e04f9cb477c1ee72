"""Retrieval: how well embeddings, words or both find the relevant documents for queries, on a user's own data."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self, TypeVar

import numpy as np

from textcl.data.retrieval import Collection, read_beir, read_collection
from textcl.errors import InputError
from textcl.evaluation.compressed import Compressed
from textcl.evaluation.encoding import ROUNDING, encode_distinct, made_with
from textcl.evaluation.kinds import RETRIEVAL
from textcl.evaluation.ranking import rank_by_cosine, unit
from textcl.evaluation.results import Result
from textcl.evaluation.significance import bootstrap_error, mean_of_samples, resamples
from textcl.vectors.bits import RESCORED
from textcl.vectors.bm25 import Bm25, check_language
from textcl.vectors.fusion import DEPTH as FUSED
from textcl.vectors.fusion import WEIGHT, RetrievalKind, best_by_words, check_retrieval, check_weight, weighted

logger = logging.getLogger("textcl")

Id = TypeVar("Id", str, int)

DEPTH = 100  # nearest documents that are kept for each query
CUT = 10
BY_QUERY = "by_query"  # under this name a task's result keeps the nDCG@10 of each query
_DECIMALS = 9  # fused scores are rounded to this many decimals; rounding noise would break ties of equal texts
_SIMILARITIES = {"dense": "cosine", "bm25": "BM25", "hybrid": "weighted z-scores of cosine and BM25"}


class Retrieval:
    """nDCG@10, MRR@10, recall@10 and recall@100 of the documents that are found for each query.

    - nDCG@10 (Järvelin and Kekäläinen 2002): the sum of grade / log2(rank + 1) over the ten nearest documents, divided
      by that of the best possible order. The gain is the grade itself, as in trec_eval and BEIR, not 2^grade - 1.
    - MRR@10: 1 / rank of the first relevant document; 0 if none is among the ten nearest.
    - recall@10, recall@100: the share of a query's relevant documents that are among the ten or hundred nearest.

    All are means × 100 over the queries with at least one relevant document (a grade above 0). Queries without one are
    counted and left out. Documents with equal cosines are ranked by their ids; a query to which all documents are
    equally near counts as 0. A relevant document that is not among the documents cannot be found, and is reported.

    Documents are sorted by length and encoded chunk by chunk; only the hundred nearest to each query are kept. If the
    encoder has prompts named "query" and "document", they are used.

    Args:
        queries: `{id: text}`.
        documents: `{id: text}`.
        relevance: `{query id: {document id: grade}}`.
        titles: `{id: title}` of documents whose text begins with a title.
        identical_ids: Whether a document that has the id of a query is ranked for this query. "keep": it is ranked.
            "drop": it is left out, as in BEIR. None: it is left out if it has the query's text too, apart from case,
            spaces and title.
            Some sets, such as ArguAna and Quora, have their queries among the documents; others number both from 1.
            What is left out is reported.
        chunk_size: The number of documents that are encoded, and whose embeddings are in memory, at a time.
        retrieval: What ranks the documents. "dense": the cosine of embeddings. "bm25": words, see
            `textcl.vectors.bm25.Bm25`; the encoder is not used, and a document without a word of the query is not
            ranked. "hybrid": both, see `textcl.vectors.fusion.fuse`.
        bm25_weight: The weight of BM25 in "hybrid", from 0 to 1.
        language: The language of the words for "bm25" and "hybrid".

    Raises:
        InputError: An argument is empty or outside its range, a judgement names an unknown query, no document is
            relevant to any query, or none of the judged documents is among the documents.

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
        titles: Mapping[str, str] | None = None,
        identical_ids: Literal["drop", "keep"] | None = "keep",
        chunk_size: int = 8192,
        retrieval: RetrievalKind = "dense",
        bm25_weight: float = WEIGHT,
        language: str = "english",
    ) -> None:
        if identical_ids not in ("drop", "keep", None):
            raise InputError(f"identical_ids must be 'drop', 'keep' or None, not {identical_ids!r}.")
        if chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, not {chunk_size}.")
        self.collection = Collection(queries, documents, relevance, {} if titles is None else titles)
        self.identical_ids, self.chunk_size = identical_ids, chunk_size
        self.retrieval, self.bm25_weight, self.language = check_retrieval(retrieval), bm25_weight, language
        check_weight(bm25_weight)
        check_language(language)
        self.split: str | None = None
        if without := len(queries) - len(self.collection.answered):
            logger.warning("%s of %s queries have no relevant document and are left out.", without, len(queries))
        if missing := self.collection.missing:
            logger.warning(
                "Relevant documents that are not among the documents: %s (the first is '%s'). They count as relevant "
                "and cannot be found.",
                len(missing),
                missing[0],
            )
        self.left_out = self._choose_left_out()

    def _choose_left_out(self) -> frozenset[str]:
        """The queries whose ranking does not have the document with their id; says what is left out and what is not."""
        own, count = self.collection.own_documents(), len(self.collection.answered)
        same = [query for query, is_same in own.items() if is_same]
        left_out = frozenset({"drop": list(own), "keep": [], None: same}[self.identical_ids])
        if left_out:
            judged = sum(self.collection.relevance[query].get(query, 0) > 0 for query in left_out)
            logger.warning(
                "%s of %s queries have a document with the same id%s. It is left out of this query's ranking, as BEIR "
                "does%s; textcl eval --identical-ids keep ranks it.",
                len(left_out),
                count,
                "" if self.identical_ids else " and text",
                f" (in {judged} cases although it is judged relevant)" if judged else "",
            )
        if self.identical_ids is None and len(same) < len(own):
            logger.warning(
                "%s of %s queries have the id of a document with another text. Nothing is left out for them; "
                "textcl eval --identical-ids drop leaves these documents out.",
                len(own) - len(same),
                count,
            )
        if self.identical_ids == "keep" and same:
            logger.warning(
                "%s of %s queries have a document with the same id and text, so that each can find itself; "
                "textcl eval --identical-ids drop leaves these documents out.",
                len(same),
                count,
            )
        return left_out

    @classmethod
    def from_files(
        cls,
        queries: str | os.PathLike[str],
        documents: str | os.PathLike[str],
        relevance: str | os.PathLike[str],
        **options: Any,
    ) -> Self:
        """Reads three files, see `textcl.data.retrieval.read_collection`; `options` as in the constructor."""
        found = read_collection(queries, documents, relevance)
        return cls(found.queries, found.documents, found.relevance, titles=found.titles, **options)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], split: str = "test", **options: Any) -> Self:
        """Reads a folder in BEIR's layout, see `textcl.data.retrieval.read_beir`; `options` as in the constructor.

        By default a document that has the id and the text of a query is left out of this query's ranking.
        """
        found = read_beir(folder, split)
        options = {"identical_ids": None, **options}
        retrieval = cls(found.queries, found.documents, found.relevance, titles=found.titles, **options)
        retrieval.split = split
        return retrieval

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates any object with `.encode(list[str])` that returns one row per text, dense or sparse.

        A query to which all documents are equally near, as with a collapsed encoder, counts as 0, with a warning and an
        entry under `provenance["undefined"]`; otherwise the order of the ids would be evaluated.

        Raises:
            InputError: The encoder did not return one row per text, or returned NaN or infinite values.
        """
        answered = self.collection.answered
        prompts = {side: _prompt(encoder, side, encode_arguments) for side in ("query", "document")}
        rankings, flat = self._rank(encoder, encode_arguments)
        judged = [self.collection.relevance[query] for query in answered]
        # a query without an order of documents has the scores of an empty ranking, which are 0
        by_query = [
            score_ranking([] if is_flat else [self._in_order[place] for place in found], grades)
            for found, grades, is_flat in zip(rankings, judged, flat, strict=True)
        ]
        undefined = int(flat.sum())
        if undefined:
            logger.warning(
                "All documents are equally near to %s of %s queries, so they have no order: these queries count as 0.",
                undefined,
                len(answered),
            )
        scores = {metric: 100 * float(np.mean([entry[metric] for entry in by_query])) for metric in RETRIEVAL.rows}
        provenance = {
            "tasks": {
                self.name: {
                    "split": self.split,
                    "retrieval": self.retrieval,
                    "queries": len(answered),
                    "queries_without_relevant": len(self.collection.queries) - len(answered),
                    "documents": len(self.collection.documents),
                    "judgements": sum(map(len, self.collection.relevance.values())),
                    "relevant_documents_missing": len(self.collection.missing),
                    "identical_ids_left_out": len(self.left_out),
                    "data_sha256": self.collection.hash(),
                }
            },
            "retrieval": {
                "primary": "ndcg@10",
                "ndcg@10": "gain grade, discount log2(rank + 1), over the best order; in points",
                "mrr@10": "one over the rank of the first relevant document among ten, in points",
                "recall": "share of the relevant documents (grade above 0) that are found, in points",
                "similarity": _SIMILARITIES[self.retrieval],
                **self._settings_of_words(),
                "ties": "in the order of ids; a query to which all documents are equally near counts as 0",
                "identical_ids": self.identical_ids or "drop if the texts are equal too",
                "prompts": {side: prompt.get("prompt_name") for side, prompt in prompts.items()},
                "aggregation": "mean over queries with a relevant document",
            },
            "undefined": [f"{self.name} {undefined} of {len(answered)} queries"] if undefined else [],
            **made_with(encoder),
        }
        items = np.array([100 * entry["ndcg@10"] for entry in by_query])
        names = (query.item() if isinstance(query, np.generic) else query for query in answered)  # as JSON takes them
        queries = dict(zip(names, items.round(4).tolist(), strict=True))
        entry = {"kind": RETRIEVAL.name, **scores, BY_QUERY: queries}
        return Result({self.name: entry}, scores, provenance, items)

    def _settings_of_words(self) -> dict[str, Any]:
        """The settings of BM25 and of the fusion, as far as they are used."""
        settings: dict[str, Any] = {}
        if self.retrieval != "dense":
            settings["language"] = self.language
        if self.retrieval == "hybrid":
            settings |= {"bm25_weight": self.bm25_weight, "candidates": FUSED}
        return settings

    def rankings(self, encoder: Any, **encode_arguments: Any) -> dict[str, list[str]]:
        """For each query with a relevant document the ids of the hundred best documents, the best first.

        A query to which all documents are equally near has no order, so its list is empty.

        Args:
            encoder: Any object with `.encode(list[str])`, as for an evaluation.
            encode_arguments: Arguments of its `encode`.
        """
        rankings, flat = self._rank(encoder, encode_arguments)
        found = zip(self.collection.answered, rankings, flat, strict=True)
        return {
            query: [] if is_flat else [self._in_order[place] for place in places] for query, places, is_flat in found
        }

    def error_of_difference(self, before: np.ndarray, after: np.ndarray) -> float:
        """The standard error of the difference of two results' nDCG@10, by the paired bootstrap over queries.

        Args:
            before: The nDCG@10 of each query in the first result (`Result.items`), (queries,).
            after: The nDCG@10 of each query in the second result, (queries,).
        """
        counts = resamples(len(before))
        return bootstrap_error(mean_of_samples(before, counts), mean_of_samples(after, counts))

    def _rank(self, encoder: Any, encode_arguments: Mapping[str, Any]) -> tuple[list[np.ndarray], np.ndarray]:
        """For each query the places of the best documents, and whether they have no order."""
        documents, answered = self.collection.documents, self.collection.answered
        own = np.array([self._places[q] if q in self.left_out else -1 for q in answered])
        words = [self._words_found(query, place) for query, place in zip(answered, own.tolist(), strict=True)]
        without_words = np.array([not len(found) for found in words])
        if self.retrieval == "bm25":
            return words, without_words
        queries = self._encoded_queries(encoder, encode_arguments)
        hybrid = self.retrieval == "hybrid"
        found = rank_by_cosine(
            encoder,
            queries,
            documents,
            self._places,
            own,
            depth=FUSED if hybrid else DEPTH,
            wanted=words if hybrid else None,
            chunk_size=self.chunk_size,
            **{**encode_arguments, **_prompt(encoder, "document", encode_arguments)},
        )
        flat = (found.spread <= ROUNDING) & (len(documents) - (own >= 0) > 1)
        if isinstance(encoder, Compressed) and encoder.rescores:
            self._rescore(found.places, encoder, encode_arguments)
        if not hybrid:
            return [row[row != left_out] for row, left_out in zip(found.places, own, strict=True)], flat
        rankings = []
        for row, query in enumerate(answered):
            dense = np.zeros(len(documents))
            dense[words[row]] = found.of_wanted[row]
            near = found.places[row] != own[row]
            dense[found.places[row, near]] = found.scores[row, near]
            candidates = np.union1d(found.places[row, near], words[row])
            bm25 = self._words.scores(self.collection.queries[query])
            fused = weighted(dense[candidates], bm25[candidates], self.bm25_weight).round(_DECIMALS)
            rankings.append(candidates[np.lexsort((candidates, -fused))][:DEPTH])
        return rankings, flat & without_words

    def _rescore(self, places: np.ndarray, encoder: Compressed, encode_arguments: Mapping[str, Any]) -> None:
        """Orders the nearest of each query by their int8 vectors, four times as many as count in nDCG@10, in place.

        This is what a search for ten texts does with vectors that are stored as bits.
        """
        names, texts = self._in_order, self.collection.documents
        queries = self._encoded_queries(encoder.exact, encode_arguments)
        arguments = {**encode_arguments, **_prompt(encoder, "document", encode_arguments)}
        for row, query in zip(places, queries, strict=True):
            first = row[: RESCORED * CUT].copy()
            rows = unit(encoder.numbers.encode([texts[names[place]] for place in first], **arguments))
            row[: len(first)] = first[np.lexsort((first, -(rows @ query).round(_DECIMALS)))]

    def _encoded_queries(self, encoder: Any, encode_arguments: Mapping[str, Any]) -> Any:
        texts = [self.collection.queries[query] for query in self.collection.answered]
        arguments = {**encode_arguments, **_prompt(encoder, "query", encode_arguments)}
        rows, row_of = encode_distinct(encoder, texts, **arguments)
        return unit(rows)[[row_of[text] for text in texts]]

    def _words_found(self, query: str, left_out: int) -> np.ndarray:
        """The places of the best documents by BM25, the best first; empty if none has a word of the query."""
        if self.retrieval == "dense":
            return np.zeros(0, int)
        scores = self._words.scores(self.collection.queries[query])
        if left_out >= 0:
            scores[left_out] = 0
        places = best_by_words(scores, DEPTH if self.retrieval == "bm25" else FUSED)
        return places[np.lexsort((places, -scores[places]))]

    @cached_property
    def _in_order(self) -> list[str]:
        return sorted(self.collection.documents)

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of each document in the order of ids."""
        return {name: place for place, name in enumerate(self._in_order)}

    @cached_property
    def _words(self) -> Bm25:
        return Bm25((self.collection.documents[name] for name in self._in_order), self.language)


def score_ranking(ranking: Sequence[Id], grades: Mapping[Id, float]) -> dict[str, float]:
    """The four metrics of one query.

    Args:
        ranking: Document ids, the nearest first.
        grades: The grades of the judged documents; above 0 means relevant. At least one document must be relevant.

    Returns:
        The metrics of `RETRIEVAL`, from 0 to 1.

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
    """The encoder's prompt for `side` as an argument of `encode`; empty if it has none or the caller gave a prompt."""
    known = getattr(encoder, "prompts", None) or {}
    return {"prompt_name": side} if side in known and not {"prompt", "prompt_name"} & set(encode_arguments) else {}
