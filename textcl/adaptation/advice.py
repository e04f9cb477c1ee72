"""Which retrieval to use: vectors alone or vectors and words, with the untouched or the adapted encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcl.adaptation.verdict import LEVEL, Comparison, compare


@dataclass(frozen=True)
class Advice:
    """What words and adaptation give, on the same queries.

    Attributes:
        cells: For "dense" and "hybrid" the score of the untouched and of the adapted encoder, each compared with 0, so
            that the interval is that of the score.
        words: Hybrid beside dense search, both with the untouched encoder, then both with the adapted one.
        known_items: Whether the queries were cut out of the texts.
        adapted: Whether the advice is for the adapted encoder; it is for the one that is exported.
    """

    cells: Mapping[str, tuple[Comparison, Comparison]]
    words: tuple[Comparison, Comparison]
    known_items: bool
    adapted: bool = False

    def sentence(self) -> str:
        """The line for the user."""
        shown = [
            f"{name} {untouched.after:.1f} ({_interval(untouched)}) untouched, {adapted.after:.1f} "
            f"({_interval(adapted)}) adapted"
            for name, (untouched, adapted) in self.cells.items()
        ]
        return f"RETRIEVAL: nDCG@10 {'; '.join(shown)}: {self.use()}"

    def use(self) -> str:
        """Which retrieval to use, and why."""
        found, encoder = self.words[self.adapted], "adapted" if self.adapted else "untouched"
        if found.p_value > LEVEL:
            use = "no difference between the two is shown, so dense, which is simpler, will do"
        else:
            better = "hybrid" if found.difference > 0 else "dense"
            use = f"use {better} ({found.difference:+.1f} for hybrid with the {encoder} encoder)"
        caution = ""
        if self.known_items:
            caution = "; such queries repeat words of their documents more than people do, which helps hybrid"
        return f"{use}{caution}"

    def record(self) -> dict[str, Any]:
        """The same for adapt.json."""
        cells = {name: [each.record() for each in pair] for name, pair in self.cells.items()}
        return {
            "sentence": self.sentence(),
            "use": self.use(),
            **cells,
            "hybrid_minus_dense": self.words[self.adapted].record(),
        }


def advise(
    values: Mapping[str, tuple[np.ndarray, np.ndarray]], units: np.ndarray, unit: str, *, known_items: bool
) -> Advice:
    """Compares the four.

    Args:
        values: For "dense" and "hybrid" the score of each query, untouched and adapted, each (queries,).
        units: The unit of each query, (queries,).
        unit: What the units are, see `Comparison`.
        known_items: Whether the queries were cut out of the texts.
    """
    nothing = np.zeros(len(units))

    def compared(before: np.ndarray, after: np.ndarray, task: str) -> Comparison:
        return compare(before, after, units, task, unit=unit)

    cells = {name: (compared(nothing, one, name), compared(nothing, two, name)) for name, (one, two) in values.items()}
    dense, hybrid = values["dense"], values["hybrid"]
    untouched, adapted = (compared(dense[side], hybrid[side], "hybrid search") for side in (0, 1))
    return Advice(cells, (untouched, adapted), known_items)


def _interval(found: Comparison) -> str:
    return f"{found.low:.1f} to {found.high:.1f}"
