"""The thresholds of near-duplicates, calibrated on edits that are planted in the user's own texts.

A threshold has two errors: edited copies that it misses, and other texts that it takes for copies. Both are measured on
a sample of the texts: each text beside its edited copies, and beside the text that is nearest to it among those that
do not have nearly the same words or characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from textcl.progress import Progress
from textcl.texts import bare
from textcl.vectors.compress import unit
from textcl.vectors.near_duplicates import WORDS, overlaps, sets_of_words
from textcl.vectors.planted_edits import KINDS, edit

LEAST = 100  # distinct texts that are needed
SAMPLE = 1000  # texts whose copies are planted: half of them to choose the thresholds, half to measure the errors
OVERLAPS = (WORDS, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)  # thresholds of words that are tried
WRONG = 0.01  # the most copies that may be missed, and the most other texts that may be taken
LOWEST = 0.5  # the lowest threshold of the cosine, for texts that are so different that any threshold separates
NEAR = 0.9  # the share of characters in common with which a text counts as a copy and not as another text
_SHORT = 500  # characters up to which texts are compared by character
_COPIES = 100  # of each text at most so many copies are left out
_CELLS = 2**22  # pairs of texts that are compared at once

Encode = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and how often they are wrong on texts that did not choose them.

    Attributes:
        cosine: The threshold of the cosine; None: so many other texts are as near as copies that it cannot be used.
        words: The threshold of the overlap of words.
        separates: Whether at most 1 % of the copies of each kind are missed, and at most 1 % of the other texts taken.
        found: The share of copies that are recognised, for each kind of edit that changes some of the texts.
        false: The share of texts whose nearest other text is taken for a copy.
        texts: The number of texts on which the errors were measured.
    """

    cosine: float | None
    words: float
    separates: bool
    found: dict[str, float]
    false: float
    texts: int

    def record(self) -> dict[str, Any]:
        """The calibration as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts.

    Attributes:
        cosines: Their cosines, (pairs,); infinite for texts that are equal, NaN for pairs that are not counted.
        words: The overlap of their words, (pairs,).
    """

    cosines: np.ndarray
    words: np.ndarray

    def __getitem__(self, part: slice | np.ndarray) -> Pairs:
        return Pairs(self.cosines[part], self.words[part])

    def scores(self, words: float) -> np.ndarray:
        """What is compared with a threshold of the cosine: infinite where the words suffice, (pairs,)."""
        return np.where(self.words >= words - 1e-9, np.inf, self.cosines)

    def near(self, cosine: float | None, words: float) -> np.ndarray:
        """Whether the thresholds take each pair for near-equal, (pairs,) bool; a cosine of None does not count."""
        near: np.ndarray = self.scores(words) >= (np.inf if cosine is None else cosine - 1e-6)
        return near


class Others:
    """For some texts the nearest of the other texts, where near-exact copies do not count as others.

    Near-exact copies have at least 0.8 of their words or 0.9 of their characters in common. The words are compared
    once, and `pairs` then serves any vectors.

    Args:
        texts: All texts.
        rows: Those whose others are looked for.

    Attributes:
        words: The largest overlap of the words of each text with those of others, (rows,).
    """

    def __init__(self, texts: Sequence[str], rows: np.ndarray) -> None:
        self.rows, self.words = rows, np.empty(len(rows))
        self._texts = list(map(bare, texts))
        self._copies: list[np.ndarray] = []  # of each text those that share so many words, itself among them
        self._equal: dict[tuple[int, int], bool] = {}
        sets = sets_of_words(self._texts)
        sizes, columns = np.diff(sets.indptr), sets.T.tocsr()
        step = max(1, _CELLS // len(texts))
        with Progress("Comparing the words", len(rows)) as bar:
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                shared = (sets[part] @ columns).toarray()
                overlap = shared / np.maximum(1, sizes[part][:, None] + sizes[None] - shared)
                copy = overlap >= WORDS - 1e-9
                copy[np.arange(len(part)), part] = True
                overlap[copy] = 0
                self._copies += map(np.flatnonzero, copy)
                for place, row in enumerate(part):
                    self.words[start + place] = self._largest(row, overlap[place])
                bar.update(len(part))

    def pairs(self, vectors: np.ndarray, places: np.ndarray | None = None) -> Pairs:
        """The largest cosine and the largest overlap of words of each text with another text.

        Args:
            vectors: Vectors of length 1 of all texts, (texts, dim).
            places: Which of `rows`; None: all.
        """
        places = np.arange(len(self.rows)) if places is None else places
        cosines = np.empty(len(places))
        step = max(1, _CELLS // len(vectors))
        with Progress("Comparing the vectors", len(places)) as bar:
            for start in range(0, len(places), step):
                part = places[start : start + step]
                found = vectors[self.rows[part]] @ vectors.T
                for number, place in enumerate(part):
                    found[number, self._copies[place]] = -1
                    cosines[start + number] = self._largest(self.rows[place], found[number])
                bar.update(len(part))
        return Pairs(cosines, self.words[places])

    def _largest(self, row: int, scores: np.ndarray) -> float:
        """The largest score of a text that has not nearly the characters of this one."""
        for _ in range(_COPIES):
            best = int(scores.argmax())
            pair = int(row), best
            if pair not in self._equal:
                self._equal[pair] = _nearly_equal(self._texts[row], self._texts[best])
            if not self._equal[pair]:
                break
            scores[best] = -1
        return float(scores.max())


def calibrate(
    vectors: np.ndarray, texts: Sequence[str], encode: Encode, *, words: float | None = None, seed: int = 0
) -> Calibration | None:
    """Chooses thresholds of the cosine and of the overlap of words.

    If one pair of thresholds misses at most 1 % of the copies of each kind and takes at most 1 % of the other texts,
    the cosine is in the middle between both. Else no threshold separates, and the thresholds are those that find most
    copies while at most 1 % of the texts have another text that is taken for a copy: real copies are rare in most
    corpora, so that with 5 % most groups would hold no copies.

    Copies that differ in case and spaces alone are always recognised, because such texts are equal for
    `near_duplicate_groups`. Texts with at least 0.8 of their words or 0.9 of their characters in common are near-exact
    copies and do not count as other texts, whatever their cosine is.

    Args:
        vectors: The vectors of the texts, (texts, dim).
        texts: Texts that differ in more than case and spaces.
        encode: Gives the vectors of edited texts.
        words: The threshold of words; None: it is chosen.
        seed: The seed of the sample.

    Returns:
        The calibration; None if there are fewer than 100 texts.

    Example:
        >>> calibrate(vectors, texts, encoder.encode).cosine  # doctest: +SKIP
        0.912
    """
    if len(texts) < LEAST:
        return None
    rows = np.random.default_rng(seed).permutation(len(texts))[:SAMPLE]
    half = len(rows) // 2
    copies = _copies(vectors, texts, rows, encode)
    parts = [
        {kind: _counted(pairs[part]) for kind, pairs in copies.items()} for part in (slice(half), slice(half, None))
    ]
    kinds = [kind for kind in KINDS if all(len(part[kind].cosines) for part in parts)]
    choosing, measured = ({kind: part[kind] for kind in kinds} for part in parts)
    others = Others(texts, rows).pairs(unit(vectors))
    chosen = choose_thresholds(choosing, others[:half], words)
    found = {kind: float(pairs.near(*chosen).mean()) for kind, pairs in measured.items()}
    false = float(others[half:].near(*chosen).mean())
    separates = false <= WRONG and min(found.values()) >= 1 - WRONG
    return Calibration(*chosen, separates, found, false, len(rows) - half)


def _copies(vectors: np.ndarray, texts: Sequence[str], rows: np.ndarray, encode: Encode) -> dict[str, Pairs]:
    """Each text of a sample beside its copy of each kind; NaN where the edit changes nothing."""
    planted = {
        kind: [edit(texts[row], texts[other], kind) for row, other in zip(rows, np.roll(rows, 1), strict=True)]
        for kind in KINDS
    }
    of_rows, own = [texts[row] for row in rows], unit(vectors[rows])
    equal = {kind: np.array(list(map(same_text, of_rows, copies))) for kind, copies in planted.items()}
    changed = [copy for kind in KINDS for copy, same in zip(planted[kind], equal[kind], strict=True) if not same]
    encoded = unit(np.asarray(encode(changed), np.float32)) if changed else np.empty((0, vectors.shape[1]), np.float32)
    found, start = {}, 0
    for kind in KINDS:
        # only the case may change without a change of the text
        cosines = np.full(len(rows), np.inf if kind == "case" else np.nan)
        new = encoded[start : start + (~equal[kind]).sum()]
        start += len(new)
        cosines[~equal[kind]] = (own[~equal[kind]] * new).sum(axis=1)
        words = overlaps(of_rows, planted[kind])
        found[kind] = Pairs(cosines, np.where(np.isnan(cosines), 0, words))
    return found


def same_text(one: str, two: str) -> bool:
    """Whether two texts differ in case and spaces alone."""
    return bare(one) == bare(two)


def _nearly_equal(one: str, two: str) -> bool:
    if max(len(one), len(two)) > _SHORT:  # one edit leaves nearly all words of a long text
        return False
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    return matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR


def choose_thresholds(
    copies: Mapping[str, Pairs], others: Pairs, words: float | None = None
) -> tuple[float | None, float]:
    """The thresholds of cosine and words that these pairs ask for, see `calibrate`.

    Args:
        copies: For each kind of edit some texts beside their copies, at least one.
        others: Texts beside the nearest other text.
        words: The threshold of words; None: it is chosen.
    """
    tried = OVERLAPS if words is None else (words,)
    gaps = {}
    for each in tried:
        least = _above(others.scores(each), WRONG)
        most = min(np.quantile(pairs.scores(each), WRONG, method="lower") for pairs in copies.values())
        gaps[each] = least, min(float(most), 1.0)
    best = max(gaps, key=lambda each: gaps[each][1] - gaps[each][0])
    least, most = gaps[best]
    if least <= most:
        return max(least, np.floor(500 * (least + most)) / 1000), best
    found: dict[float, tuple[float, float]] = {}
    for each in tried:
        cosine = _above(others.scores(each), WRONG)
        if cosine < np.inf or (others.words >= each - 1e-9).mean() <= WRONG:
            recalls = [(pairs.scores(each) >= cosine).mean() for pairs in copies.values()]
            found[each] = float(np.mean(recalls)), cosine
    if not found:  # too many others share so many words as the user asked for
        return None, tried[0]
    best = max(found, key=lambda each: found[each][0])
    cosine = found[best][1]
    return (cosine if cosine <= 1 else None), best


def _above(scores: np.ndarray, share: float) -> float:
    """The lowest threshold, in thousandths, that at most this share of some scores reaches."""
    highest = np.sort(scores)[::-1]
    first = highest[int(share * len(scores))]  # this one must not reach it
    return max(LOWEST, float(np.floor(1000 * first + 1) / 1000)) if first < np.inf else np.inf


def _counted(pairs: Pairs) -> Pairs:
    return pairs[~np.isnan(pairs.cosines)]
