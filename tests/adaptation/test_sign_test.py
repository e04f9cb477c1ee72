"""The sign test and its power: sums of binomial coefficients, simulated judgings, and a true tie."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from textcl.adaptation.sign_test import Preference, power, power_sentence, shown_share, sign_test, what_is_shown


def by_hand(answers: int, share: float) -> float:
    """Sums the probabilities of the counts that are significant for the better side."""
    total = 0.0
    for count in range(answers // 2 + 1, answers + 1):
        p_value = 2 * sum(comb(answers, k) for k in range(count, answers + 1)) / 2**answers
        if p_value <= 0.05:
            total += comb(answers, count) * share**count * (1 - share) ** (answers - count)
    return total


@pytest.mark.parametrize("answers", [1, 5, 6, 7, 20, 31, 50, 100])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.9])
def test_the_power_is_the_sum_by_hand(answers: int, share: float):
    assert power(answers, share) == pytest.approx(by_hand(answers, share), abs=1e-12)


def test_the_power_is_how_often_simulated_judgings_show_the_better_system():
    counts = np.random.default_rng(0).binomial(50, 0.7, size=4000)
    significant = {count: binomtest(count, 50).pvalue <= 0.05 for count in {*counts.tolist()}}
    found = np.mean([significant[count] and count > 25 for count in counts.tolist()])
    assert found == pytest.approx(power(50, 0.7), abs=3 * (0.25 / 4000) ** 0.5)


def test_the_figures_of_the_three_lengths():
    """50 show a true 70 : 30 in 78 % and 71 : 29 in 83 % of judgings; 200 show 60 : 40 in 79 % and 61 : 39 in 86 %."""
    assert [round(power(*each), 3) for each in ((50, 0.7), (50, 0.71), (200, 0.6), (200, 0.61))] == [
        *(0.782, 0.826, 0.787, 0.861)
    ]
    assert [shown_share(answers) for answers in (50, 100, 200)] == [71, 65, 61]
    for answers in (6, 40, 50, 160):
        share = shown_share(answers)
        assert share is not None
        assert power(answers, share / 100) >= 0.8 > power(answers, (share - 1) / 100)


@pytest.mark.parametrize("answers", range(0, 201, 7))
def test_a_true_tie_is_taken_for_a_win_of_one_side_in_at_most_2_5_of_100(answers: int):
    assert power(answers, 0.5) <= 0.025


def test_what_costs_power_is_said():
    assert what_is_shown(5) == "5 decided answers are too few to show a preference"
    sentence = power_sentence(200)
    assert "200 decided answers show a true 61 : 39 with a probability of 86 %" in sentence
    assert "'equal' and 'neither' leave the test and cost power: 160 decided answers show a true 62 : 38" in sentence


def found(before: int, after: int, equal: int = 0, neither: int = 0) -> Preference:
    return sign_test(("old", "new"), before, after, equal, neither, differ=400, looked=1000)


def test_the_p_value_is_that_of_the_binomial_and_both_sides_are_alike():
    one, other = found(13, 31), found(31, 13)
    assert one.p_value == pytest.approx(2 * sum(comb(44, k) for k in range(31, 45)) / 2**44)
    assert one.p_value == other.p_value
    assert (one.better, other.better) == ("new", "old")
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))
    assert one.low > 0.5


def test_equal_and_neither_leave_the_test_and_are_printed():
    alone, among = found(13, 31), found(13, 31, equal=4, neither=2)
    assert (alone.p_value, alone.low) == (among.p_value, among.low)
    lines = "\n".join(among.lines())
    assert "31 for new, 13 for old, 4 equal, 2 neither" in lines
    assert "400 of 1,000 queries (40 %)" in lines
    assert "31 of 44 decided answers (70 %" in lines
    assert lines.endswith("VERDICT: new is better.")
    assert among.record()["decided"] == 44


def test_the_level_is_five_per_cent():
    assert found(18, 32).better is None  # p = 0.065
    assert found(17, 33).better == "new"  # p = 0.033
    nothing = found(0, 0, equal=50)
    assert (nothing.p_value, nothing.low, nothing.high, nothing.better) == (1.0, 0.0, 1.0, None)
    assert nothing.lines()[-1] == "VERDICT: no difference is shown."
