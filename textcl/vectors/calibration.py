"""The thresholds of near-duplicates, calibrated on edits that are planted in the user's own texts.

A threshold has two errors: edited copies that it misses, and other texts that it takes for copies. Both are measured on
a sample of the texts: each text beside its edited copies, and beside the text that is nearest to it among those that
do not have nearly the same words or characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from textcl.progress import Progress
from textcl.texts import bare
from textcl.vectors.near_duplicates import WORDS, overlaps, sets_of_words
from textcl.vectors.planted_edits import KINDS, edit
from textcl.vectors.vectors import unit

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
class _Pairs:
    """Pairs of texts: their cosines and overlaps of words, each (pairs,)."""

    cosines: np.ndarray
    words: np.ndarray

    def __getitem__(self, part: slice) -> _Pairs:
        return _Pairs(self.cosines[part], self.words[part])

    def scores(self, words: float) -> np.ndarray:
        """What is compared with a threshold of the cosine: infinite where the words suffice, (pairs,)."""
        return np.where(self.words >= words - 1e-9, np.inf, self.cosines)


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
    copies = {
        kind: pairs
        for kind, pairs in _copies(vectors, texts, rows, encode).items()
        if all(len(_known(part.cosines)) for part in (pairs[:half], pairs[half:]))
    }
    others = _nearest_others(vectors, texts, rows)
    chosen = _chosen({kind: pairs[:half] for kind, pairs in copies.items()}, others[:half], words)
    found, false, separates = _errors({kind: pairs[half:] for kind, pairs in copies.items()}, others[half:], *chosen)
    return Calibration(*chosen, separates, found, false, len(rows) - half)


def _copies(vectors: np.ndarray, texts: Sequence[str], rows: np.ndarray, encode: Encode) -> dict[str, _Pairs]:
    """Each text of a sample beside its copy of each kind; NaN where the edit changes nothing."""
    planted = {
        kind: [edit(texts[row], texts[other], kind) for row, other in zip(rows, np.roll(rows, 1), strict=True)]
        for kind in KINDS
    }
    of_rows, own = [texts[row] for row in rows], unit(vectors[rows])
    equal = {kind: np.array(list(map(_equal, of_rows, copies))) for kind, copies in planted.items()}
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
        found[kind] = _Pairs(cosines, np.where(np.isnan(cosines), 0, words))
    return found


def _equal(one: str, two: str) -> bool:
    return bare(one) == bare(two)


def _nearest_others(vectors: np.ndarray, texts: Sequence[str], rows: np.ndarray) -> _Pairs:
    """The largest cosine and the largest overlap of each text of a sample with texts that are no near-exact copies."""
    sets, directions = sets_of_words(list(map(bare, texts))), unit(vectors)
    sizes, columns = np.diff(sets.indptr), sets.T.tocsr()
    cosines, words = np.empty(len(rows)), np.empty(len(rows))
    step = max(1, _CELLS // len(texts))
    with Progress("Calibrating the threshold", len(rows)) as bar:
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            shared = (sets[part] @ columns).toarray()
            overlap = shared / np.maximum(1, sizes[part][:, None] + sizes[None] - shared)
            cosine = directions[part] @ directions.T
            copy = overlap >= WORDS - 1e-9
            copy[np.arange(len(part)), part] = True
            cosine[copy], overlap[copy] = -1, 0
            for place, row in enumerate(part):
                _leave_out_copies(texts, row, cosine[place], overlap[place])
            cosines[start : start + step], words[start : start + step] = cosine.max(axis=1), overlap.max(axis=1)
            bar.update(len(part))
    return _Pairs(cosines, words)


def _leave_out_copies(texts: Sequence[str], row: int, cosine: np.ndarray, overlap: np.ndarray) -> None:
    """Sets the scores of texts with nearly the characters of a text to the lowest, as long as they are the highest."""
    for scores in (cosine, overlap):
        for _ in range(_COPIES):
            best = int(scores.argmax())
            if not _nearly_equal(bare(texts[row]), bare(texts[best])):
                break
            cosine[best], overlap[best] = -1, 0


def _nearly_equal(one: str, two: str) -> bool:
    if max(len(one), len(two)) > _SHORT:  # one edit leaves nearly all words of a long text
        return False
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    return matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR


def _chosen(copies: dict[str, _Pairs], others: _Pairs, words: float | None) -> tuple[float | None, float]:
    """The thresholds of cosine and words that these pairs ask for."""
    tried = OVERLAPS if words is None else (words,)
    gaps = {}
    for each in tried:
        least = _above(others.scores(each), WRONG)
        most = min(np.quantile(_known(pairs.scores(each)), WRONG, method="lower") for pairs in copies.values())
        gaps[each] = least, min(float(most), 1.0)
    best = max(gaps, key=lambda each: gaps[each][1] - gaps[each][0])
    least, most = gaps[best]
    if least <= most:
        return max(least, np.floor(500 * (least + most)) / 1000), best
    found: dict[float, tuple[float, float]] = {}
    for each in tried:
        cosine = _above(others.scores(each), WRONG)
        if cosine < np.inf or (others.words >= each - 1e-9).mean() <= WRONG:
            recalls = [(_known(pairs.scores(each)) >= cosine).mean() for pairs in copies.values()]
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


def _errors(
    copies: dict[str, _Pairs], others: _Pairs, cosine: float | None, words: float
) -> tuple[dict[str, float], float, bool]:
    """The share of copies that are found, of each kind; the share of others that are taken; whether both separate."""
    least = np.inf if cosine is None else cosine - 1e-6
    found = {kind: float((_known(pairs.scores(words)) >= least).mean()) for kind, pairs in copies.items()}
    false = float((others.scores(words) >= least).mean())
    return found, false, false <= WRONG and min(found.values()) >= 1 - WRONG


def _known(scores: np.ndarray) -> np.ndarray:
    return scores[~np.isnan(scores)]
