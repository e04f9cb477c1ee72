"""Evidence for finding duplicates: small edits that are planted in the user's own texts have to be recognised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textcl.adaptation.evidence import Lexical, under
from textcl.vectors.planted_edits import edited
from textcl.vectors.vectors import unit

PRECISION = 0.95
_AT_ONCE = 4_000_000  # cosines that are in memory at once


@dataclass(frozen=True)
class Edits:
    """Texts, each with an edited copy, and the nearest other texts.

    A score is whether the copy of a text is recognised: whether its cosine reaches the threshold at which 95 % of the
    pairs above it are a text and its copy, and 5 % a text and the nearest text that is no near-duplicate of it.

    Attributes:
        texts: The vectors of the texts, (texts, dim).
        copies: The vectors of their edited copies, (texts, dim).
        units: The group of near-duplicates of each text, (texts,).
    """

    task: ClassVar[str] = "recognising texts with a planted edit (typo, case, order, words added)"
    measure: ClassVar[str] = "recall at 95 % precision"
    texts: np.ndarray
    copies: np.ndarray
    units: np.ndarray

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """100 for each text whose copy is recognised, else 0, (maps, rows); the threshold is that of these rows."""
        found = []
        for each in maps:
            texts, copies = unit(under(self.texts, each)), unit(under(self.copies, each))
            own, others = (texts[rows] * copies[rows]).sum(axis=1), np.empty(len(rows))
            step = max(1, _AT_ONCE // len(texts))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                cosines = texts[part] @ texts.T
                cosines[self.units[part][:, None] == self.units[None]] = -1
                others[start : start + step] = cosines.max(axis=1)
            found.append(100.0 * (own >= threshold(own, others)))
        return np.array(found)


def threshold(same: np.ndarray, different: np.ndarray) -> float:
    """The lowest threshold at which at least 95 % of the pairs at or above it are the same; infinite if there is none.

    Args:
        same: The cosines of pairs that are the same.
        different: The cosines of pairs that are not.

    Example:
        >>> threshold(np.array([0.9, 0.8]), np.array([0.5]))
        0.8
    """
    candidates = np.sort(same)
    right = len(same) - np.searchsorted(candidates, candidates, "left")
    wrong = len(different) - np.searchsorted(np.sort(different), candidates, "left")
    enough = right >= PRECISION * (right + wrong)
    return float(candidates[enough.argmax()]) if enough.any() else float("inf")


def with_copies(texts: Sequence[str]) -> Callable[[Sequence[int]], list[dict[str, str]]]:
    """Shows some of these texts, each with its edited copy."""
    copies = edited(texts)
    return lambda rows: [{"text": texts[row], "copy": copies[row]} for row in rows]
