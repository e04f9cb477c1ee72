"""The queries and texts that an encoder changes most, so that a reader can see what a difference in points means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np

from textcl.adaptation.cross_fit import Judged
from textcl.adaptation.edits import Edits
from textcl.adaptation.evidence import CUT, Evidence, Lexical
from textcl.adaptation.labels import Labels
from textcl.texts import in_one_line

MOST = 10  # of each direction
WIDTH = 200  # characters of a text

Shown = Callable[[Sequence[int]], list[dict[str, Any]]]
"""What a reader is shown of some rows."""


class Ranked(Evidence, Protocol):
    """Evidence of queries that rank documents."""

    def ranks(
        self, rows: Sequence[int], weight: np.ndarray | None, lexical: Lexical | None = None
    ) -> list[dict[Any, int | None]]:
        """For some queries the rank of each document that answers it, from 1; None: it is too far down to be ranked."""
        ...

    def answers(self, row: int) -> Mapping[Any, float]:
        """The documents that answer a query, and their grades."""
        ...

    def texts_of(self, row: int, document: Any) -> tuple[str, str]:
        """The texts of a query and of a document."""
        ...


def count_changes(before: np.ndarray, after: np.ndarray) -> dict[str, int]:
    """How many queries or texts gained, lost and did neither.

    Args:
        before: The score of each, (queries,).
        after: The other encoder's score of each, (queries,).
    """
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return {"gained": gained, "lost": lost, "unchanged": len(before) - gained - lost}


def most_changed(before: np.ndarray, after: np.ndarray) -> list[int]:
    """The ten rows that gained most, then the ten that lost most, by the difference of the scores; ties by row.

    Rows without a difference are left out.
    """
    differences = after - before
    gained = np.argsort(-differences, kind="stable")[:MOST]
    lost = np.argsort(differences, kind="stable")[:MOST]
    return [*gained[differences[gained] > 0].tolist(), *lost[differences[lost] < 0].tolist()]


def describe_changes(before: np.ndarray, after: np.ndarray, shown: Shown) -> list[dict[str, Any]]:
    """The rows that changed most, as adapt.json holds them.

    Args:
        before: The score of each row, (rows,).
        after: The other encoder's score of each row, (rows,).
        shown: What a reader is shown of them; texts are put in one line and cut to 200 characters.
    """
    rows = most_changed(before, after)
    return [
        {"row": row, "before": float(before[row]), "after": float(after[row])}
        | {name: in_one_line(value, WIDTH) if isinstance(value, str) else value for name, value in each.items()}
        for row, each in zip(rows, shown(rows) if rows else [], strict=True)
    ]


def shown_of(first: Evidence, second: Evidence, weight: np.ndarray | None, lexical: Lexical | None) -> Shown:
    """Shows a labelled text, a text with its edited copy, or a query as `by_rank` does, with one map for all."""
    if isinstance(first, (Labels, Edits)):
        return first.shown
    return by_rank(cast(Ranked, first), cast(Ranked, second), lambda row: weight, lexical)


def by_rank(
    first: Ranked, second: Ranked, weight_of: Callable[[int], np.ndarray | None], lexical: Lexical | None
) -> Shown:
    """Shows a query, a document that answers it, and the rank of this document before and after.

    Of several such documents it is the one that changed the score most.

    Args:
        first: The evidence with the untouched vectors.
        second: The evidence with the other encoder's vectors; the same one if a linear map is what changes them.
        weight_of: The linear map under which a query was judged; None: none.
        lexical: How words count, for both sides.
    """

    def shown(rows: Sequence[int]) -> list[dict[str, Any]]:
        before = dict(zip(rows, first.ranks(rows, None, lexical), strict=True))
        after: dict[int, dict[Any, int | None]] = {}
        for weight in {id(each): each for each in map(weight_of, rows)}.values():
            own = [row for row in rows if weight_of(row) is weight]
            after |= zip(own, second.ranks(own, weight, lexical), strict=True)
        return [_one(first, row, before[row], after[row]) for row in rows]

    return shown


def by_fold(evidence: Ranked, judged: Judged, lexical: Lexical | None) -> Shown:
    """As `by_rank`, where each query was judged by the map of its fold."""
    folds = judged.folds[evidence.units]
    return by_rank(evidence, evidence, lambda row: judged.maps[folds[row]], lexical)


def _one(
    evidence: Ranked, row: int, before: Mapping[Any, int | None], after: Mapping[Any, int | None]
) -> dict[str, Any]:
    grades = evidence.answers(row)
    change = {
        document: grade * (_gain(after[document]) - _gain(before[document])) for document, grade in grades.items()
    }
    rising = sum(change.values()) >= 0
    document = (max if rising else min)(change, key=lambda each: change[each])
    query, text = evidence.texts_of(row, document)
    return {"query": query, "document": text, "rank_before": before[document], "rank_after": after[document]}


def _gain(rank: int | None) -> float:
    """What a document of grade 1 at this rank adds to nDCG@10."""
    return 1 / math.log2(rank + 1) if rank is not None and rank <= CUT else 0.0
