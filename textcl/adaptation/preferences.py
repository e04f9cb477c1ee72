"""Evidence from blind judging: a query, the text that was preferred, and the other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from textcl.adaptation.evidence import Lexical, under
from textcl.adaptation.judging import read_finished
from textcl.adaptation.material import query_prompt
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import content_hash
from textcl.vectors.compress import unit
from textcl.vectors.encode import corpus_prompt

LEAST = 20  # triplets


@dataclass(frozen=True)
class Triplets:
    """Queries with the text that was preferred and the other one.

    Attributes:
        systems: The names of the two systems whose first results were judged.
        queries: The queries.
        preferred: The text that was preferred for each query.
        others: The other text of each query.
    """

    systems: tuple[str, str]
    queries: list[str]
    preferred: list[str]
    others: list[str]


class Preferences:
    """The preferences of blind judging, as evidence for `adapt`: 100 for a query whose preferred text is nearer.

    They compare first results of two systems only. So they say which of these two is better, and are biased for any
    third one.

    Args:
        path: A complete file of answers.
        encoder: The encoder.
        place: Where vectors are kept.
    """

    measure: ClassVar[str] = "right choices"
    unit: ClassVar[str] = "answers"

    def __init__(self, path: str, encoder: Encoder, place: Workplace) -> None:
        found = read_triplets(path)
        texts = [*found.preferred, *found.others]
        self._queries = place.vectors(encoder, found.queries, query_prompt(encoder))
        vectors = place.vectors(encoder, texts, corpus_prompt(encoder))
        self._preferred, self._others = vectors[: len(found.queries)], vectors[len(found.queries) :]
        between = " and ".join(found.systems)
        self.task = f"choosing the text that you preferred (of the first results of {between}, so biased towards these)"
        self.units = np.arange(len(found.queries))
        self.content = content_hash({"queries": found.queries, "texts": texts})
        self._texts = list(zip(found.queries, found.preferred, strict=True))

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """100 for a query that is nearer to the preferred text than to the other one, 50 for a tie, else 0."""
        assert lexical is None  # words need a ranking; `Settings.evidence` refuses hybrid search
        found = np.empty((len(maps), len(rows)))
        for number, weight in enumerate(maps):
            queries, preferred, others = (
                unit(under(side[rows], weight)) for side in (self._queries, self._preferred, self._others)
            )
            found[number] = 50 + 50 * np.sign(np.sum(queries * (preferred - others), axis=1))
        return found

    def ranks(
        self, rows: Sequence[int], weight: np.ndarray | None, lexical: Lexical | None = None
    ) -> list[dict[Any, int | None]]:
        """The rank of the preferred text among the two, 1 or 2, of some queries."""
        (scores,) = self.scores(np.asarray(rows, dtype=np.int64), [weight], lexical)
        return [{0: 1 if score == 100 else 2} for score in scores]

    def answers(self, row: int) -> Mapping[Any, float]:
        """The preferred text."""
        return {0: 1.0}

    def texts_of(self, row: int, document: Any) -> tuple[str, str]:
        """A query and its preferred text."""
        return self._texts[row]


def read_triplets(path: str) -> Triplets:
    """The triplets of a complete file of answers; without "equal", "neither" and pairs in which a system found nothing.

    Raises:
        InputError: As in `textcl.finish_judging`; or there are fewer than 20 triplets.
    """
    pairs, answers = read_finished(path)
    rows = []
    for pair, answer in zip(pairs.pairs, answers, strict=True):
        if answer in ("left", "right") and pair.left and pair.right:
            rows.append((pair.query, *((pair.left, pair.right) if answer == "left" else (pair.right, pair.left))))
    if len(rows) < LEAST:
        raise InputError(
            f"{path} has {len(rows)} answers that prefer one text to another, and {LEAST} are needed; judge more pairs "
            "(textcl judge --answers)."
        )
    queries, preferred, others = (list(column) for column in zip(*rows, strict=True))
    return Triplets(pairs.systems, queries, preferred, others)
