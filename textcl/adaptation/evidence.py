"""What shows whether an encoder is better for search: queries and the documents that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from textcl.adaptation.linear_map import mapped
from textcl.adaptation.verdict import GROUPS, Comparison, compare
from textcl.evaluation.retrieval import score_ranking
from textcl.vectors.bm25 import Bm25
from textcl.vectors.compress import unit
from textcl.vectors.fusion import fuse

CUT = 10  # documents that count for a query
_AT_ONCE = 2_000_000  # scores that are in memory at once


@dataclass(frozen=True)
class Lexical:
    """How words count beside vectors.

    Attributes:
        weight: The weight of words in the sum of both, from 0 to 1, see `textcl.vectors.fusion.fuse`.
        language: The language of the texts.
    """

    weight: float
    language: str


class Evidence(Protocol):
    """What a procedure is judged by: a score for each query under each linear map.

    Attributes:
        task: What is done, as a verdict says it: "finding a body by its title".
        measure: The name of the score.
        unit: What the units are, in the plural.
        units: The unit of each query that is split and resampled, a number from 0, (queries,).
    """

    @property
    def task(self) -> str: ...
    @property
    def measure(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def units(self) -> np.ndarray: ...

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """The scores × 100 of some queries under some linear maps, (maps, rows); None: the untouched vectors."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Queries, documents, and which documents answer which query.

    Attributes:
        task: What a query does, as a verdict says it.
        queries: The vectors of the queries, (queries, dim).
        documents: The vectors of the documents, (documents, dim).
        relevant: For each query its documents and their grades.
        units: The unit of each query that is split and resampled, (queries,), such as a group of near-duplicates.
        texts: The texts of the queries and of the documents, which only hybrid search needs.
        alike: Documents with the same number are near-duplicates, (documents,); those of a relevant document are not
            ranked, because finding one of them is neither right nor wrong.
        unit: What the units are.
    """

    measure: ClassVar[str] = "nDCG@10"
    task: str
    queries: np.ndarray
    documents: np.ndarray
    relevant: Sequence[Mapping[int, float]]
    units: np.ndarray
    texts: tuple[Sequence[str], Sequence[str]] = field(default=((), ()), repr=False)
    alike: np.ndarray | None = None
    unit: str = GROUPS
    _words: dict[str, Bm25] = field(default_factory=dict, repr=False, compare=False)

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """nDCG@10 × 100 of some queries under some linear maps, (maps, rows), dense or hybrid.

        Args:
            rows: The queries.
            maps: The matrices W of linear maps, see `fit_linear_map`; None: the untouched vectors.
            lexical: How words count; None: they do not.
        """
        found = np.empty((len(maps), len(rows)))
        spaces = [(unit(under(self.queries[rows], each)), unit(under(self.documents, each))) for each in maps]
        step = max(1, _AT_ONCE // len(self.documents))
        bm25 = None if lexical is None else self._bm25(lexical.language)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            words = [] if bm25 is None else [bm25.scores(self.texts[0][row]) for row in part]
            for number, (queries, documents) in enumerate(spaces):
                scores = queries[start : start + step] @ documents.T
                if lexical is not None:
                    scores = np.stack([fuse(d, w, lexical.weight) for d, w in zip(scores, words, strict=True)])
                found[number, start : start + step] = [
                    self._ndcg(row, own) for row, own in zip(part, scores, strict=True)
                ]
        return found

    def ranks(
        self, rows: Sequence[int], weight: np.ndarray | None, lexical: Lexical | None = None
    ) -> list[dict[int, int | None]]:
        """For some queries the rank of each document that answers it, from 1; None: hybrid search leaves it out.

        Args:
            rows: The queries.
            weight: The matrix W of a linear map; None: the untouched vectors.
            lexical: How words count; None: they do not.
        """
        documents, found = unit(under(self.documents, weight)), []
        for row in rows:
            scores = (unit(under(self.queries[[row]], weight)) @ documents.T)[0]
            if lexical is not None:
                scores = fuse(scores, self._bm25(lexical.language).scores(self.texts[0][row]), lexical.weight)
            scores = self._without_alike(row, scores)
            found.append({document: _rank(document, scores) for document in self.relevant[row]})
        return found

    def answers(self, row: int) -> Mapping[int, float]:
        """The documents that answer a query, and their grades."""
        return self.relevant[row]

    def texts_of(self, row: int, document: int) -> tuple[str, str]:
        """The texts of a query and of a document."""
        return self.texts[0][row], self.texts[1][document]

    def _bm25(self, language: str) -> Bm25:
        if language not in self._words:
            self._words[language] = Bm25(self.texts[1], language)
        return self._words[language]

    def _ndcg(self, row: int, scores: np.ndarray) -> float:
        scores = self._without_alike(row, scores)
        count = min(CUT, len(scores))
        nearest = np.argpartition(-scores, count - 1)[:count]
        nearest = nearest[np.lexsort((nearest, -scores[nearest]))]
        return 100 * score_ranking(nearest.tolist(), self.relevant[row])["ndcg@10"]

    def _without_alike(self, row: int, scores: np.ndarray) -> np.ndarray:
        """The scores, with −∞ for near-duplicates of the documents that answer the query."""
        if self.alike is not None:
            for document in self.relevant[row]:
                same = np.flatnonzero(self.alike == self.alike[document])
                scores[[other for other in same if other not in self.relevant[row]]] = -np.inf
        return scores


def scores_of_all(evidence: Evidence, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
    """The scores × 100 of all queries under some linear maps, (maps, queries)."""
    return evidence.scores(np.arange(len(evidence.units)), maps, lexical)


def compare_scores(
    evidence: Evidence, before: np.ndarray, after: np.ndarray, seed: int = 0, rows: np.ndarray | None = None
) -> Comparison:
    """Compares two scores of each query, (queries,).

    Args:
        evidence: What was scored.
        before: The scores of the first encoder.
        after: The scores of the second encoder.
        seed: The seed of the bootstrap and of the test.
        rows: The queries that were scored; None: all.
    """
    units = evidence.units if rows is None else evidence.units[rows]
    return compare(before, after, units, evidence.task, evidence.measure, seed, evidence.unit)


def under(vectors: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Vectors (rows, dim) under a linear map; None: unchanged."""
    return vectors if weight is None else mapped(vectors, weight)


def _rank(document: int, scores: np.ndarray) -> int | None:
    """The rank of a document, from 1; of equal scores the first one counts as higher, and −∞ is no rank."""
    own = scores[document]
    if own == -np.inf:
        return None
    return 1 + int((scores > own).sum()) + int((scores[:document] == own).sum())
