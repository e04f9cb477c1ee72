"""Evidence for finding duplicates: small edits that are planted in the user's own texts have to be recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textcl.adaptation.evidence import Lexical, under
from textcl.adaptation.verdict import GROUPS
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.vectors.calibration import Others, Pairs, choose_thresholds, same_text
from textcl.vectors.compress import unit
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.near_duplicates import overlaps
from textcl.vectors.planted_edits import KINDS, edited, kind_of


class Planted:
    """Texts, each with an edited copy, and what their words say: all that does not depend on vectors.

    Args:
        texts: The texts.
        copies: Their copies; None: those of `edited`. Which edit a copy has is `kind_of` its text.

    Attributes:
        words: The overlap of the words of each text with those of its copy, (texts,).
        equal: Whether a copy differs in case and spaces alone, so that it is recognised in any case, (texts,) bool.
        kinds: The number in `KINDS` of the edit of each copy, (texts,).
        others: The texts beside their nearest other texts.
    """

    def __init__(self, texts: Sequence[str], copies: Sequence[str] | None = None) -> None:
        self.texts, self.copies = texts, edited(texts) if copies is None else copies
        self.words = overlaps(texts, self.copies)
        self.equal = np.array(list(map(same_text, texts, self.copies)))
        self.kinds = np.array([KINDS.index(kind_of(text)) for text in texts])
        self.others = Others(texts, np.arange(len(texts)))

    def part(self, kept: np.ndarray) -> Planted:
        """Some of the texts, with the copies that they have among all."""
        return Planted(*([side[row] for row in kept] for side in (self.texts, self.copies)))

    def evidence(self, encoder: Encoder, place: Workplace, units: np.ndarray) -> Edits:
        """The evidence with the vectors of an encoder.

        Args:
            encoder: The encoder.
            place: Where vectors are kept.
            units: The group of near-duplicates of each text, (texts,).
        """
        prompt = corpus_prompt(encoder)
        texts, copies = (place.vectors(encoder, each, prompt) for each in (self.texts, self.copies))
        return Edits(texts, copies, units, self)


@dataclass(frozen=True)
class Edits:
    """Vectors of texts and of their edited copies.

    A score is whether `textcl duplicates` would recognise the copy of a text, with the thresholds that it would choose
    from the asked texts, see `textcl.vectors.calibration.calibrate`: unless a threshold separates copies from other
    texts, at most 1 % of the texts have another text that is taken for a copy.

    Attributes:
        texts: The vectors of the texts, (texts, dim).
        copies: The vectors of their edited copies, (texts, dim).
        units: The group of near-duplicates of each text, (texts,).
        planted: The texts and the copies.
    """

    task: ClassVar[str] = (
        "recognising texts with a planted edit (typo, case, order, words added), as textcl duplicates does"
    )
    measure: ClassVar[str] = "recall at 1 % wrong"
    unit: ClassVar[str] = GROUPS
    texts: np.ndarray
    copies: np.ndarray
    units: np.ndarray
    planted: Planted

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """100 for each text whose copy is recognised, else 0, (maps, rows); the thresholds are those of these rows."""
        planted, kinds = self.planted, self.planted.kinds[rows]
        found = []
        for each in maps:
            texts, copies = unit(under(self.texts, each)), unit(under(self.copies, each))
            cosines = (texts[rows] * copies[rows]).sum(axis=1)
            own = Pairs(np.where(planted.equal[rows], np.inf, cosines), planted.words[rows])
            by_kind = {KINDS[kind]: own[kinds == kind] for kind in np.unique(kinds)}
            thresholds = choose_thresholds(by_kind, planted.others.pairs(texts, rows))
            found.append(100.0 * own.near(*thresholds))
        return np.array(found)

    def shown(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """Some of the texts, each with its copy, for readers."""
        return [{"text": self.planted.texts[row], "copy": self.planted.copies[row]} for row in rows]
