"""Intervals and tests against scipy, closed forms, and simulations under the null and under a known difference."""

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from benchmarks import significance as benchmark
from textcl.errors import InputError
from textcl.evaluation.significance import (
    Difference,
    over_pairs,
    over_queries,
    over_seeds,
    sign_flip_test,
    spearman,
    williams_test,
)


def test_equal_seeds_are_paired_and_the_interval_is_students():
    first, second = {42: 60.0, 43: 61.0, 44: 59.5}, {44: 60.6, 42: 60.9, 43: 62.3}
    found = over_seeds(first, second)
    theirs = stats.ttest_rel([60.9, 62.3, 60.6], [60.0, 61.0, 59.5])
    interval = theirs.confidence_interval(0.95)
    assert found.basis == "paired seeds"
    assert found.mean == pytest.approx(1.1)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.shown


def test_other_seeds_or_unequal_numbers_of_them_take_welchs_interval():
    first, second = {1: 60.0, 2: 61.0, 3: 59.5, 4: 60.2}, {5: 61.9, 6: 62.0, 7: 62.6}
    found = over_seeds(first, second)
    theirs = stats.ttest_ind(list(second.values()), list(first.values()), equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_what_was_not_trained_is_a_fixed_value():
    found = over_seeds({None: 60.0}, {1: 60.9, 2: 61.3, 3: 61.1})
    theirs = stats.ttest_1samp([60.9, 61.3, 61.1], 60.0)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low - 60, interval.high - 60))
    assert found.p_value == pytest.approx(theirs.pvalue)
    turned = over_seeds({1: 60.9, 2: 61.3, 3: 61.1}, {None: 60.0})
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_a_single_run_says_nothing_about_seeds():
    with pytest.raises(InputError, match="at least two"):
        over_seeds({42: 60.0}, {42: 61.0})
    with pytest.raises(InputError, match="at least two"):
        over_seeds({None: 60.0}, {42: 61.0})
    with pytest.raises(InputError, match="at least two"):
        over_seeds({1: 60.0, 2: 61.0}, {42: 61.0})


def test_the_sentence_says_who_is_better_or_that_nothing_is_shown():
    assert Difference(0.8, 0.5, 1.1, 0.01, "seeds").sentence("A", "B") == (
        "B is better than A by 0.80 ± 0.30 (95 %, over seeds)."
    )
    assert Difference(-0.8, -1.1, -0.5, 0.01, "pairs").sentence("A", "B") == (
        "A is better than B by 0.80 ± 0.30 (95 %, over pairs)."
    )
    assert Difference(0.2, -0.1, 0.5, 0.3, "pairs").sentence("A", "B") == (
        "No difference between A and B is shown: +0.20 ± 0.30 (95 %, over pairs)."
    )


def test_spearman_is_scipys_ties_included():
    generator = np.random.default_rng(0)
    first, second = generator.integers(6, size=(2, 200))
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert spearman(first, np.ones(200)) == 0.0


def correlated(generator, pairs, first, second, between, draws):
    """Scores of humans and two encoders with these correlations, each (draws, pairs)."""
    matrix = np.array([[1, first, second], [first, 1, between], [second, between, 1]])
    return (generator.standard_normal((draws, pairs, 3)) @ np.linalg.cholesky(matrix).T).transpose(2, 0, 1)


def test_the_bootstrap_counts_what_sorting_each_sample_finds():
    """Against a loop that draws the same rows and ranks them anew, ties included, of two tasks of unequal size."""
    generator = np.random.default_rng(8)
    tasks = [generator.integers(7, size=(3, size)).astype(float) for size in (40, 75)]
    gold, first, second = zip(*tasks, strict=True)
    found = over_pairs(gold, first, second, draws=99, seed=5)
    generator = np.random.default_rng(5)
    drawn = np.zeros(99)
    for g, a, b in tasks:
        for draw, rows in enumerate(generator.integers(len(g), size=(99, len(g)))):
            r = [stats.spearmanr(side[rows], g[rows]).statistic for side in (a, b)]
            drawn[draw] += (r[1] - r[0]) / 2
    tail = min(sum(drawn <= 0), sum(drawn >= 0))
    assert tail > 0
    assert found.p_value == pytest.approx(2 * (tail + 1) / 99)
    ordered = 100 * np.sort(drawn)
    assert found.low == pytest.approx((ordered[1] + ordered[2]) / 2)  # place 2.5 of 100, counted from 1
    assert found.high == pytest.approx((ordered[96] + ordered[97]) / 2)


def test_the_bootstrap_is_wrong_as_often_as_the_docs_say():
    """500 draws of 200 pairs: the standard error of a rate of 4 % is 0.9 %."""
    shows = benchmark.cases(bootstrap=100)["over pairs: 200"]
    assert benchmark.rate(shows, 0.0, 500) == pytest.approx(4.2, abs=2.7)
    assert benchmark.rate(shows, 10.0, 50) == 100


def test_williams_test_on_ranks_is_wrong_one_time_in_twenty():
    """2,000 draws: the standard error of 5 % is 0.5 %; without the correction for ranks it would be 8 %."""
    shows = partial(benchmark.williams, size=200, with_gold=0.88)
    assert benchmark.rate(shows, 0.0, 2000) == pytest.approx(5, abs=1.5)
    assert benchmark.rate(shows, 6.0, 50) == 100


def test_the_benchmark_draws_the_difference_that_it_says():
    generator = np.random.default_rng(9)
    gold, first, second = benchmark.draw_pairs(generator, 2.0, 400_000)
    assert 100 * (spearman(second, gold) - spearman(first, gold)) == pytest.approx(2.0, abs=0.1)
    assert spearman(first, second) == pytest.approx(benchmark.BETWEEN, abs=0.002)
    assert spearman(first, gold) == pytest.approx(benchmark.WITH_GOLD, abs=0.005)
    assert len(np.unique(gold)) < 50


def test_williams_test_is_wrong_one_time_in_twenty_and_finds_what_is_there():
    """3,000 draws of 500 pairs: the standard error of a rate of 5 % is 0.4 %."""
    generator = np.random.default_rng(1)

    def rate(second):
        shown = 0
        for gold, a, b in zip(*correlated(generator, 500, 0.7, second, 0.8, 3000), strict=True):
            r = np.corrcoef([gold, a, b])
            shown += williams_test(r[0, 1], r[0, 2], r[1, 2], 500) < 0.05
        return shown / 3000

    assert rate(0.7) == pytest.approx(0.05, abs=0.01)
    assert rate(0.75) > 0.7
    assert williams_test(0.7, 0.7, 1.0, 500) == 1.0


@pytest.mark.parametrize("pairs", [5, 20, 1379])
@pytest.mark.parametrize(("first", "second", "between"), [(0.4, 0.5, 0.1), (0.9, 0.7, 0.5), (0.8, 0.3, -0.2)])
def test_williams_is_the_equation(first: float, second: float, between: float, pairs: int) -> None:
    """T₂ of Steiger 1980 (Psychological Bulletin 87), eq. 7; |R| is the determinant of the three correlations."""
    matrix = np.array([[1, first, second], [first, 1, between], [second, between, 1]])
    mean = (first + second) / 2
    below = 2 * (pairs - 1) / (pairs - 3) * np.linalg.det(matrix) + mean**2 * (1 - between) ** 3
    statistic = (first - second) * np.sqrt((pairs - 1) * (1 + between) / below)
    expected = 2 * stats.t.cdf(-abs(statistic), pairs - 3)
    assert williams_test(first, second, between, pairs) == pytest.approx(expected, rel=1e-9)
    # of ranks, the variance of the difference is larger by 1 + r²/3
    of_ranks = 2 * stats.t.cdf(-abs(statistic) / np.sqrt(1 + mean**2 / 3), pairs - 3)
    assert williams_test(first, second, between, pairs, ranks=True) == pytest.approx(of_ranks, rel=1e-9)


@pytest.mark.slow  # 10,000 intervals; each is compared with scipy above
def test_intervals_over_seeds_hold_the_truth_nineteen_times_in_twenty():
    """5,000 draws of three paired seeds, and of five seeds against three of another spread."""
    generator = np.random.default_rng(2)
    paired = welch = 0
    for _ in range(5000):
        common, own, other = generator.normal(60, 0.5, 3), generator.normal(0, 0.2, 3), generator.normal(0, 0.2, 3)
        paired += not over_seeds(dict(enumerate(common + own)), dict(enumerate(common + other))).shown
        many, few = generator.normal(60, 0.2, 5), generator.normal(60, 0.5, 3)
        welch += not over_seeds(dict(enumerate(many)), dict(enumerate(few, start=10))).shown
    assert paired / 5000 == pytest.approx(0.95, abs=0.01)
    assert welch / 5000 == pytest.approx(0.95, abs=0.02)  # Welch's degrees of freedom are an approximation


@pytest.mark.slow  # 2,000 bootstraps
def test_the_bootstrap_over_pairs_is_wrong_one_time_in_twenty():
    """2,000 draws under the null, two tasks of 150 pairs, 400 bootstrap draws each."""
    generator = np.random.default_rng(3)
    shown = 0
    for _ in range(2000):
        tasks = [correlated(generator, 150, r, r, 0.8, 1)[:, 0] for r in (0.6, 0.75)]
        gold, first, second = zip(*tasks, strict=True)
        shown += over_pairs(gold, first, second, draws=400).shown
    assert shown / 2000 == pytest.approx(0.05, abs=0.01)


def test_the_bootstrap_finds_a_difference_and_is_paired():
    generator = np.random.default_rng(4)
    gold, first, second = correlated(generator, 800, 0.7, 0.75, 0.9, 1)[:, 0]
    found = over_pairs([gold], [first], [second], draws=500)
    assert found.shown
    assert found.mean == pytest.approx(100 * (spearman(second, gold) - spearman(first, gold)))
    assert found == over_pairs([gold], [first], [second], draws=500), "the draws are those of the seed"
    opposite = over_pairs([gold], [second], [first], draws=500)
    assert (opposite.low, opposite.high) == pytest.approx((-found.high, -found.low))
    same = over_pairs([gold], [first], [first], draws=100)
    assert (same.low, same.high, same.p_value) == (0.0, 0.0, 1.0)
    with pytest.raises(InputError, match="a score of each encoder"):
        over_pairs([gold], [first], [second[:-1]])


def test_scores_that_are_no_numbers_are_refused():
    """A NaN would be compared as a correlation of 0, or make every figure NaN."""
    scores = list(np.arange(20.0))
    for wrong in (math.nan, math.inf):
        with pytest.raises(InputError, match="cannot be compared; leave out the run"):
            over_seeds({1: wrong, 2: 60.0}, {1: 61.0, 2: 62.0})
        with pytest.raises(InputError, match="the pairs have no ranking"):
            over_pairs([scores], [[wrong, *scores[1:]]], [scores])


def test_what_cannot_be_resampled_is_refused():
    scores = list(np.arange(20.0))
    for gold, first, second, draws in (
        ([], [], [], 10),
        ([scores], [scores], [scores, scores], 10),
        ([scores], [scores], [scores], 0),
        ([scores[:1]], [scores[:1]], [scores[:1]], 10),
    ):
        with pytest.raises(InputError, match="A bootstrap over pairs needs"):
            over_pairs(gold, first, second, draws)


def test_equal_scores_are_no_difference_and_a_missing_spread_is_said(caplog):
    same = over_seeds({1: 60.1, 2: 60.2}, {1: 60.1, 2: 60.2})
    assert (same.mean, same.low, same.high, same.p_value, same.shown) == (0, 0, 0, 1, False)
    assert caplog.messages == []
    apart = over_seeds({1: 60.1, 2: 60.2}, {1: 61.1, 2: 61.2})  # 1.0 twice, apart from rounding
    assert (apart.low, apart.high) == (apart.mean, apart.mean)
    assert apart.mean == pytest.approx(1)
    assert "All seeds give the same difference, so that there is no spread" in caplog.text
    scores = list(np.arange(20.0))
    rounded = over_seeds({1: 0.3, 2: 0.3}, {1: 0.1 + 0.2, 2: 0.1 + 0.2})  # they differ by rounding alone
    assert (rounded.p_value, rounded.shown) == (1, False)
    equal = over_pairs([scores], [scores], [scores], 100)
    assert (equal.mean, equal.low, equal.high, equal.p_value) == (0, 0, 0, 1)


def test_williams_test_at_its_limits():
    assert williams_test(0.5, 0.5, 1.0, 10) == 1  # the same encoder twice
    assert williams_test(1.0, -1.0, -1.0, 10) == 0  # the opposite order
    for impossible in ((0.5, 0.4, -1.0), (2.0, 0.5, 0.5), (0.5, 0.6, math.nan)):
        with pytest.raises(InputError, match="cannot be the correlations of three variables"):
            williams_test(*impossible, 10)
    with pytest.raises(InputError, match="at least four pairs, not 3"):
        williams_test(0.1, 0.2, 0.3, 3)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 2, 3], 2 / 8),  # only +++ and --- are as far from 0
        ([1, 1, 1, -1], 10 / 16),  # four of four signs: 2; three of four: 8
        ([1, -1], 1.0),
        ([0, 0, 0], 1.0),
        ([5], 1.0),
        ([0, 3, 0, 4, 0], 0.5),
        ([0] * 300 + [1, 2, 3], 2 / 8),  # the sign of 0 changes nothing, however many there are
        ([0.1] * 13, 2 / 2**13),
        ([0.1] * 10 + [-0.1], 24 / 2**11),  # sums of 0.1 that are equal on paper differ by rounding
    ],
)
def test_sign_flips_are_counted_exactly(differences: list[float], p_value: float):
    assert sign_flip_test(differences) == pytest.approx(p_value, rel=1e-12)
    assert sign_flip_test([-7 * value for value in differences]) == pytest.approx(p_value, rel=1e-12)


def test_sign_flips_agree_with_scipy_and_with_the_exact_count():
    drawn = np.random.default_rng(3).normal(0.4, 1, 12)
    theirs = stats.permutation_test(
        (drawn,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    exact = sign_flip_test(drawn)
    assert exact == pytest.approx(theirs.pvalue)
    assert sign_flip_test(drawn, draws=4000) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    assert sign_flip_test(drawn, draws=4000) == sign_flip_test(drawn, draws=4000)
    assert sign_flip_test(drawn, draws=4000, seed=1) != sign_flip_test(drawn, draws=4000)


def test_drawn_sign_flips_are_never_zero_and_hold_their_level():
    assert sign_flip_test(np.ones(200), draws=99) == pytest.approx(1 / 100)
    generator = np.random.default_rng(0)
    rejected = [sign_flip_test(generator.standard_t(3, 60), draws=199, seed=i) <= 0.05 for i in range(400)]
    assert 8 <= sum(rejected) <= 34  # 20 ± 3 standard deviations
    found = [sign_flip_test(generator.normal(0.6, 1, 60), draws=199, seed=i) <= 0.05 for i in range(40)]
    assert sum(found) >= 36


def test_wrong_differences_are_refused():
    for differences in ([], [math.nan], [[1.0]], [math.inf]):
        with pytest.raises(InputError, match="needs finite differences"):
            sign_flip_test(differences)


def test_a_difference_over_queries_is_that_of_the_mean():
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 100, 300)
    second = first + generator.normal(2, 10, 300)
    found = over_queries(first, second)
    differences = second - first
    error = differences.std(ddof=1) / math.sqrt(300)
    assert found.mean == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx(
        (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error), abs=0.1
    )
    assert found.p_value == sign_flip_test(differences)
    assert found.sentence("A", "B").endswith("(95 %, over queries).")
    turned = over_queries(second, first)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=0.1)
    same = over_queries(first, first)
    assert (same.low, same.high, same.p_value) == (0, 0, 1)
    with pytest.raises(InputError, match="at least two, not 1 and 1"):
        over_queries([1.0], [2.0])


def test_the_interval_over_queries_is_that_of_a_loop():
    """Also where the draws are made in several parts."""
    differences = np.random.default_rng(1).normal(1, 10, 40_000)
    found = over_queries(np.zeros(40_000), differences, draws=39)
    generator = np.random.default_rng(0)
    drawn = np.sort([differences[generator.integers(40_000, size=40_000)].mean() for _ in range(39)])
    assert (found.low, found.high) == pytest.approx((drawn[0], drawn[-1]))  # places 1 and 39 of 40


@pytest.mark.parametrize("queries", [3, 5, 8])
def test_equal_systems_are_called_different_no_more_than_one_time_in_twenty_with_few_queries(queries: int):
    generator = np.random.default_rng(queries)
    drawn = (over_queries([0.0] * queries, generator.normal(0, 10, queries), draws=500) for _ in range(300))
    assert sum(found.shown for found in drawn) <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_an_interval_without_zero_shows_nothing_if_the_test_does_not():
    found = over_queries([50.0, 40.0, 30.0], [60.0, 45.0, 45.0])
    assert found.low > 0
    assert found.p_value == 0.25
    assert not found.shown
    assert found.sentence("A", "B") == (
        "No difference between A and B is shown: +10.00 ± 5.00 (95 %, over queries), but p = 0.2500."
    )
