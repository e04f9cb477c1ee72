"""Cross-fitting: every unit of the evidence is judged once, by a map that was trained and selected without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from textcl.adaptation.evidence import Evidence, Lexical, scores_of_all
from textcl.errors import InputError
from textcl.progress import Progress

FOLDS = 5
PULLS = (1.0, 0.3, 0.1)
"""The pulls to the start of the candidates, the strongest first."""

Fit = Callable[[float, np.ndarray], np.ndarray]
"""Trains a candidate: from the pull and from which units it may see, (units,) bool, to a matrix W."""


@dataclass(frozen=True)
class Judged:
    """The result of cross-fitting.

    Attributes:
        before: The score of each query with the untouched vectors, (queries,).
        after: The score of each query with the candidate that was chosen without it, (queries,).
        by_candidate: The score of each query with each candidate among which it selected, (candidates, queries).
        chosen: The number of the candidate that each fold chose.
        gains: The mean gain of each candidate on the part that selects, (folds, candidates).
        folds: The fold of each unit, (units,).
        maps: The map that each fold judged.
    """

    before: np.ndarray
    after: np.ndarray
    by_candidate: np.ndarray
    chosen: list[int]
    gains: np.ndarray
    folds: np.ndarray
    maps: list[np.ndarray]

    @property
    def choice(self) -> int:
        """The candidate that most folds chose; of several the one with the strongest pull."""
        return int(np.bincount(self.chosen, minlength=len(self.by_candidate)).argmax())


def folds_of(units: int, seed: int = 0, asked: np.ndarray | None = None) -> np.ndarray:
    """The fold of each of `units` units, at random; the folds have nearly equal numbers of units.

    Args:
        units: The number of units.
        seed: The seed of the folds.
        asked: The units that have a query; each fold gets at least one of them. None: all.

    Raises:
        InputError: There are fewer such units than folds.
    """
    asked = np.arange(units) if asked is None else np.unique(asked)
    if len(asked) < FOLDS:
        raise InputError(f"{FOLDS} folds need at least {FOLDS} units with a query, and there are {len(asked)}.")
    generator = np.random.default_rng(seed)
    while True:
        folds = generator.permutation(units) % FOLDS
        if len(np.unique(folds[asked])) == FOLDS:
            return folds


def cross_fit(evidence: Evidence, units: int, fit: Fit, lexical: Lexical | None = None, seed: int = 0) -> Judged:
    """Judges the procedure "train all candidates, select one" on units that it has not seen.

    For each of five folds the candidates are trained on three of the other four, and the fourth selects one of them,
    see `select`. The selected one is then trained on all four, and the fold judges it.

    Args:
        evidence: The evidence.
        units: The number of units.
        fit: Trains a candidate.
        lexical: How words count, for both sides.
        seed: The seed of the folds.
    """
    folds = folds_of(units, seed, evidence.units)
    asked = folds[evidence.units]
    before, after, each = np.empty(len(asked)), np.empty(len(asked)), np.empty((len(PULLS), len(asked)))
    chosen, gains, maps = [], [], []
    for fold in Progress("Judging the candidates", FOLDS, "folds").over(range(FOLDS)):
        selecting = np.flatnonzero(asked == (fold + 1) % FOLDS)
        candidates = [fit(pull, ~np.isin(folds, [fold, (fold + 1) % FOLDS])) for pull in PULLS]
        before[selecting], *found = evidence.scores(selecting, [None, *candidates], lexical)
        each[:, selecting] = found
        chosen.append(select(each[:, selecting]))
        gains.append((each[:, selecting] - before[selecting]).mean(axis=1))
        maps.append(fit(PULLS[chosen[-1]], folds != fold))
        judging = np.flatnonzero(asked == fold)
        (after[judging],) = evidence.scores(judging, maps[-1:], lexical)
    return Judged(before, after, each, chosen, np.array(gains), folds, maps)


def choose(evidence: Evidence, maps: Sequence[np.ndarray], lexical: Lexical | None = None, seed: int = 0) -> Judged:
    """Judges "select one candidate", where no candidate was trained on the evidence.

    Four folds of the units select, see `select`, and the fifth judges.

    Args:
        evidence: The evidence.
        maps: The candidates.
        lexical: How words count, for both sides.
        seed: The seed of the folds.
    """
    units = evidence.units
    before, *found = scores_of_all(evidence, [None, *maps], lexical)
    each = np.array(found)
    folds = folds_of(int(units.max()) + 1, seed, units)
    asked = folds[units]
    chosen = [select(each[:, asked != fold]) for fold in range(FOLDS)]
    after = each[np.array(chosen)[asked], np.arange(len(asked))]
    gains = [(each[:, asked != fold] - before[asked != fold]).mean(axis=1) for fold in range(FOLDS)]
    return Judged(before, after, each, chosen, np.array(gains), folds, [maps[number] for number in chosen])


def scores_by_fold(evidence: Evidence, judged: Judged, lexical: Lexical | None = None) -> np.ndarray:
    """The scores of other queries or with other words, untouched and by the map of each query's fold, (2, queries)."""
    asked = judged.folds[evidence.units]
    found = np.empty((2, len(asked)))
    for fold, each in enumerate(judged.maps):
        rows = np.flatnonzero(asked == fold)
        found[:, rows] = evidence.scores(rows, [None, each], lexical)
    return found


def select(scores: np.ndarray) -> int:
    """The candidate that is kept: of those that are as good as the best one, that with the strongest pull.

    A candidate is as good if its mean is at most one standard error of the paired difference below the best mean.

    Args:
        scores: The scores of each candidate, the strongest pull first, (candidates, queries).
    """
    means = scores.mean(axis=1)
    best = int(means.argmax())
    differences = scores[best] - scores
    errors = differences.std(axis=1, ddof=1) / np.sqrt(scores.shape[1]) if scores.shape[1] > 1 else np.zeros(len(means))
    return int(np.flatnonzero(means[best] - means <= errors)[0])
