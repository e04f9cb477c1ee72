"""Cross-fitting: nothing is judged by what it was trained or selected with, and the stronger pull wins a tie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from textcl.adaptation.cross_fit import FOLDS, PULLS, choose, cross_fit, folds_of, scores_by_fold, select
from textcl.adaptation.evidence import Lexical
from textcl.errors import InputError

UNITS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3])


@dataclass
class Told:
    """Evidence whose score under a map is what the map says of the query; words, where they count, add 1000."""

    units: np.ndarray
    untouched: float = 0.0
    task: ClassVar[str] = "a test"
    measure: ClassVar[str] = "points"

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        found = np.array([np.full(len(rows), self.untouched) if each is None else each[rows] for each in maps])
        return found if lexical is None else found + 1000


def seen_marks(pull: float, allowed: np.ndarray) -> np.ndarray:
    """A "map" that gives 100 to each query whose unit was trained on, and 0 to the others."""
    return 100.0 * allowed[UNITS]


def test_no_unit_is_judged_or_selects_by_a_map_that_has_seen_it():
    found = cross_fit(Told(UNITS), 10, seen_marks)
    assert not found.after.any()
    assert not found.by_candidate.any()
    assert [folds.mean() for folds in found.maps] == pytest.approx([80.0] * FOLDS, abs=15)  # trained on four of five


def test_queries_of_one_unit_are_in_one_fold_and_folds_are_of_nearly_equal_size():
    folds = folds_of(103, seed=3)
    assert set(np.bincount(folds)) == {20, 21}
    asked = folds_of(10)[UNITS]
    assert (asked[10:] == asked[:4]).all()
    assert (folds_of(103) != folds_of(103, seed=1)).any()


def test_the_candidate_that_each_fold_chose_is_the_one_that_judges_it():
    def better_if_weaker(pull: float, allowed: np.ndarray) -> np.ndarray:
        return np.full(len(UNITS), 1 / pull)

    found = cross_fit(Told(UNITS), 10, better_if_weaker)
    assert found.chosen == [len(PULLS) - 1] * FOLDS
    assert (found.after == 1 / PULLS[-1]).all()
    assert found.choice == len(PULLS) - 1
    assert (scores_by_fold(Told(UNITS), found) == [[0.0] * len(UNITS), [10.0] * len(UNITS)]).all()


def test_the_choice_is_that_of_most_folds_and_of_several_the_one_with_the_strongest_pull():
    found = cross_fit(Told(UNITS), 10, seen_marks)
    assert [replace(found, chosen=chosen).choice for chosen in ([2, 1, 1, 0, 1], [2, 2, 1, 1, 0])] == [1, 1]


def test_words_count_on_both_sides_wherever_they_count():
    words = Lexical(0.35, "english")
    found = cross_fit(Told(UNITS), 10, seen_marks, words)
    for scores in (found.before, found.after, found.by_candidate, scores_by_fold(Told(UNITS), found, words)):
        assert scores.min() >= 1000
    found = choose(Told(UNITS), [np.zeros(len(UNITS))], words)
    assert min(found.before.min(), found.after.min(), found.by_candidate.min()) == 1000


def test_the_strongest_pull_within_one_standard_error_is_selected():
    best = np.array([1.0, 3.0, 1.0, 3.0])
    assert select(np.array([best - [0, 1, 0, 1], best])) == 1  # 0.5 below, the error is 0.29
    assert select(np.array([best - [1, -0.3, 1, -0.3], best])) == 0  # 0.35 below, the error is 0.38 (0.33 with n)
    assert select(np.array([best, best])) == 0
    assert select(np.array([best + 1, best])) == 0


def test_each_fold_has_a_query_though_few_units_have_one():
    for seed in range(200):
        folds = folds_of(100, seed, np.arange(6))
        assert set(folds[:6]) == set(range(FOLDS))
        assert np.bincount(folds).tolist() == [20] * FOLDS
    assert (folds_of(100, 3, np.arange(100)) == folds_of(100, 3)).all()
    with pytest.raises(InputError, match="there are 4"):
        folds_of(100, 0, np.arange(4))


def test_few_units_with_a_query_select_and_judge_in_each_fold():
    few = np.arange(6)
    found = cross_fit(Told(few, untouched=0.25), 100, lambda pull, allowed: np.full(6, pull))
    assert set(found.folds[few]) == set(range(FOLDS))
    assert found.gains == pytest.approx(np.tile(PULLS, (FOLDS, 1)) - 0.25)


def test_where_nothing_was_trained_on_the_evidence_the_other_folds_select():
    units = np.arange(50)
    folds = folds_of(50)
    flattering = np.where(folds == 0, 50.0, 0.0)  # good at one fold only, which must not choose it for itself
    maps = [np.full(50, 1.0), flattering, np.zeros(50)]
    found = choose(Told(units, untouched=0.25), maps)
    assert found.chosen == [0, 1, 1, 1, 1]
    assert found.after.tolist() == np.where(folds == 0, 1.0, 0.0).tolist()
    assert found.gains == pytest.approx(np.array([[1, 0, 0], *[[1, 12.5, 0]] * 4]) - 0.25)  # of the folds that select
    assert scores_by_fold(Told(units), found)[1].tolist() == found.after.tolist()
