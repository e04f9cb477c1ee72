"""Evidence from a user's own judgements: a retrieval collection in BEIR's layout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from textcl.adaptation.evidence import Lexical
from textcl.adaptation.linear_map import mapped
from textcl.adaptation.material import query_prompt
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.evaluation import Retrieval
from textcl.texts import counted
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.near_duplicates import near_duplicate_groups

logger = logging.getLogger("textcl")


class Judgements:
    """Queries, documents and judgements of which document answers which query.

    Args:
        folder: A folder in BEIR's layout, see `textcl.data.retrieval.read_beir`.
        encoder: The encoder.
        place: Where vectors are kept.
    """

    measure: ClassVar[str] = "nDCG@10"

    def __init__(self, folder: str, encoder: Encoder, place: Workplace) -> None:
        self._dense: Retrieval = place.once(folder, Retrieval.from_folder)
        self.collection = collection = self._dense.collection
        texts = {"query": list(collection.queries.values()), "document": list(collection.documents.values())}
        prompts = {"query": query_prompt(encoder), "document": corpus_prompt(encoder)}
        self._vectors = {
            side: dict(zip(texts[side], place.vectors(encoder, texts[side], prompts[side]), strict=True))
            for side in texts
        }
        self.task = f"finding the judged documents of {Path(folder).name}"
        self._asked = collection.answered
        # the same question under several ids, as in a query log, is no further evidence
        self.units = place.once(f"{folder} units", lambda _: self._units(folder))
        self.unit = "judged queries" if self.units.max() + 1 == len(self.units) else "different judged queries"
        self.content = collection.hash()

    def _units(self, folder: str) -> np.ndarray:
        """The group of near-duplicates, by their words, of each query that has an answer, (queries,)."""
        groups = near_duplicate_groups(None, [self.collection.queries[name] for name in self._asked])
        if near := len(groups) - int(groups.max()) - 1:
            are = counted(near, "judged query is", "judged queries are")
            logger.warning("%s: %s nearly equal to an earlier one; such queries count as one.", folder, are)
        return groups

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """nDCG@10 × 100 of some queries under some linear maps, (maps, rows), dense or hybrid."""
        retrieval = self._retrieval(lexical)
        found = [retrieval(_Mapped(self._vectors, each)).items for each in maps]
        return np.array(found)[:, rows]

    def ranks(
        self, rows: Sequence[int], weight: np.ndarray | None, lexical: Lexical | None = None
    ) -> list[dict[str, int | None]]:
        """For some queries the rank of each document that answers it, from 1; None: it is not among the first 100."""
        rankings = self._retrieval(lexical).rankings(_Mapped(self._vectors, weight))
        found = []
        for row in rows:
            rank = {document: place for place, document in enumerate(rankings[self._asked[row]], start=1)}
            found.append({document: rank.get(document) for document in self.answers(row)})
        return found

    def answers(self, row: int) -> dict[str, float]:
        """The documents that answer a query, and their grades."""
        judged = self.collection.relevance[self._asked[row]]
        return {name: grade for name, grade in judged.items() if grade > 0 and name in self.collection.documents}

    def texts_of(self, row: int, document: str) -> tuple[str, str]:
        """The texts of a query and of a document."""
        return self.collection.queries[self._asked[row]], self.collection.documents[document]

    def _retrieval(self, lexical: Lexical | None) -> Retrieval:
        if lexical is None:
            return self._dense
        hybrid = copy(self._dense)
        hybrid.retrieval, hybrid.bm25_weight, hybrid.language = "hybrid", lexical.weight, lexical.language
        return hybrid


class _Mapped:
    """Vectors that are there already, under a linear map, as an encoder that an evaluator takes."""

    prompts: ClassVar[dict[str, str]] = {"query": "", "document": ""}

    def __init__(self, vectors: dict[str, dict[str, np.ndarray]], weight: np.ndarray | None) -> None:
        self.vectors, self.weight = vectors, weight

    def encode(self, texts: Sequence[str], prompt_name: str = "document", **_: Any) -> np.ndarray:
        rows = np.stack([self.vectors[prompt_name][text] for text in texts])
        return rows if self.weight is None else mapped(rows, self.weight)
