"""Systems that find texts: an encoder, words, or both; which text each of them puts first for a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcl.adaptation.material import query_prompt
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.evaluation.baselines import TfidfEncoder
from textcl.progress import Progress
from textcl.vectors.bm25 import Bm25
from textcl.vectors.compress import unit
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.fusion import fuse

WORDS = ("bm25", "tfidf")
HYBRID = "hybrid:"
NOTHING = -1
_AT_ONCE = 4_000_000  # scores that are in memory at once


@dataclass(frozen=True)
class System:
    """What finds texts.

    Attributes:
        name: The name that the user gave: "bm25", "tfidf", "hybrid:MODEL", or a model.
        encoder: The encoder; None: words alone.
        words: Whether words count by BM25.
    """

    name: str
    encoder: Encoder | None
    words: bool

    def identity(self) -> list[Any]:
        """What decides the results, as JSON holds it."""
        return [self.name if self.encoder is None else self.encoder.fingerprint(), self.words]

    def first(
        self,
        texts: Sequence[str],
        queries: Sequence[str],
        own: np.ndarray | None,
        place: Workplace,
        language: str = "english",
    ) -> np.ndarray:
        """The number of the text that is first for each query, (queries,); -1: no text has a word of the query.

        Args:
            texts: The texts.
            queries: The queries.
            own: The number of the text that each query is itself, which is left out of its results; None: none.
            place: Where vectors are kept.
            language: The language of the words of BM25.
        """
        bm25 = Bm25(texts, language) if self.words else None
        every, found = np.arange(len(texts)), np.empty(len(queries), np.int64)
        rows = self._cosines(texts, queries, place)
        progress = Progress(f"Searching by {self.name}", len(queries), "queries")
        for number, query in enumerate(progress.over(queries)):
            rest = every if own is None else np.delete(every, own[number])
            scores = next(rows)[rest]
            if bm25 is not None:
                words = bm25.scores(query)[rest]
                scores = words if self.encoder is None else fuse(scores, words)
            best = int(scores.argmax())
            found[number] = rest[best] if self.encoder is not None or scores[best] > 0 else NOTHING
        return found

    def _cosines(self, texts: Sequence[str], queries: Sequence[str], place: Workplace) -> Iterator[np.ndarray]:
        """The cosine of each text to one query after another, (texts,); of BM25 alone zeros."""
        if self.encoder is not None:
            asked, documents = _vectors(self.encoder, texts, queries, place)
            step = max(1, _AT_ONCE // len(texts))
            for start in range(0, len(queries), step):
                yield from asked[start : start + step] @ documents.T
        elif self.words:
            yield from (np.zeros(len(texts)) for _ in queries)
        else:
            tfidf = TfidfEncoder(texts)
            sparse = tfidf.encode(texts)
            yield from ((sparse @ row.T).toarray().ravel() for row in tfidf.encode(queries))


def load_system(name: str) -> System:
    """The system of a name.

    Args:
        name: "bm25", "tfidf", a model that `Encoder.from_pretrained` takes, or "hybrid:" and such a model.

    Raises:
        InputError: There is no such model.
    """
    if name in WORDS:
        return System(name, None, name == "bm25")
    return System(name, Encoder.from_pretrained(name.removeprefix(HYBRID)), name.startswith(HYBRID))


def _vectors(
    encoder: Encoder, texts: Sequence[str], queries: Sequence[str], place: Workplace
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of queries and texts, of length 1; a query that is one of the texts is not encoded twice."""
    prompt, asking = corpus_prompt(encoder), query_prompt(encoder)
    if prompt == asking:
        rows = unit(place.vectors(encoder, [*queries, *texts], prompt))
        return rows[: len(queries)], rows[len(queries) :]
    return unit(place.vectors(encoder, queries, asking)), unit(place.vectors(encoder, texts, prompt))
