"""Whether one encoder is better than another: intervals over seeds, the bootstrap, the sign-flip and Williams' test.

There are two different questions. Over seeds: would the method win again if it were trained again? Over pairs or
queries: would the same encoder win on others of the same kind?
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from textcl.errors import InputError

logger = logging.getLogger("textcl")

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # points; smaller spreads are rounding
SAMPLES = 200  # of a bootstrap error, which has a relative error of 1 / √(2 · 200) = 5 %


@dataclass(frozen=True)
class Difference:
    """The difference of two encoders or methods, with its 95 % interval.

    Attributes:
        mean: The second score minus the first, in points.
        low: The lower end of the interval.
        high: The upper end of the interval.
        p_value: The two-sided p-value of the hypothesis that there is no difference.
        basis: What the interval is over: "paired seeds", "seeds", "pairs", "queries" or "examples".
    """

    mean: float
    low: float
    high: float
    p_value: float
    basis: str

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: zero is outside the interval, and the p-value is below 0.05.

        The bootstrap's interval is too narrow for a few queries: of equal systems it would show a difference in one
        case of five with three queries, and of twelve with twenty.
        """
        return self._excludes_zero and self.p_value < 1 - CONFIDENCE

    def sentence(self, first: str, second: str) -> str:
        """The difference in one sentence.

        Example:
            >>> Difference(0.8, 0.5, 1.1, 0.001, "seeds").sentence("A", "B")
            'B is better than A by 0.80 ± 0.30 (95 %, over seeds).'
        """
        interval = f"± {(self.high - self.low) / 2:.2f} (95 %, over {self.basis})"
        if self.shown:
            better, worse = (second, first) if self.mean > 0 else (first, second)
            return f"{better} is better than {worse} by {abs(self.mean):.2f} {interval}."
        but = f", but {said_p(self.p_value)}" if self._excludes_zero else ""
        return f"No difference between {first} and {second} is shown: {self.mean:+.2f} {interval}{but}."

    @property
    def _excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


NORMAL = 1.96  # standard errors from the middle of a normal 95 % interval to its ends


def shown_p(p_value: float) -> str:
    """A p-value with four decimals, or that it is smaller than these can show.

    Example:
        >>> shown_p(0.0312), shown_p(1e-6)
        ('0.0312', '< 0.0001')
    """
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def said_p(p_value: float) -> str:
    """A p-value in a sentence: "p = 0.0312", or "p < 0.0001"."""
    shown = shown_p(p_value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def over_seeds(first: Mapping[int | None, float], second: Mapping[int | None, float]) -> Difference:
    """The difference of two methods' scores over the seeds that they were trained with.

    If both sides have the same seeds, the interval is Student's for the differences of equal seeds. Otherwise it is
    Welch's (1947). A side without seeds, such as an untrained encoder, is one fixed value. If equal scores leave no
    spread, as with seeds that change nothing, a warning says so.

    Args:
        first: The first method's score for each seed; `{None: score}` for an encoder that was not trained.
        second: The second method's score for each seed, in the same form.

    Raises:
        InputError: A trained side has only one seed, neither side has two values, so that the spread is unknown, or a
            score is NaN or infinite.

    Example:
        >>> over_seeds({1: 60.0, 2: 60.5}, {1: 61.0, 2: 62.0}).mean
        1.25
    """
    from scipy import stats

    one, two = np.array(list(first.values())), np.array(list(second.values()))
    fixed = [set(side) == {None} for side in (first, second)]
    if max(len(one), len(two)) < 2 or any(
        len(x) < 2 and not is_fixed for x, is_fixed in zip((one, two), fixed, strict=True)
    ):
        raise InputError("A difference over seeds needs at least two seeds on each trained side: raise --seeds.")
    if not np.isfinite([*one, *two]).all():
        raise InputError("A score is NaN or infinite, so that it cannot be compared; leave out the run that has it.")
    mean = float(two.mean() - one.mean())
    if set(first) == set(second):
        differences = np.array([second[seed] - first[seed] for seed in first])
        error, freedom, basis = _standard_error(differences), len(differences) - 1.0, "paired seeds"
    else:
        parts = [
            0.0 if is_fixed else _standard_error(side) ** 2 for side, is_fixed in zip((one, two), fixed, strict=True)
        ]
        error, basis = sqrt(sum(parts)), "seeds"
        freedom = sum(parts) ** 2 / max(
            sum(part**2 / (len(side) - 1) for part, side in zip(parts, (one, two), strict=True) if part), 1e-300
        )
    error = error if error > _ROUNDING else 0.0
    if not error and abs(mean) > _ROUNDING:
        logger.warning(
            "All seeds give the same difference, so that there is no spread and the interval over seeds has no width. "
            "It says nothing if the seeds change nothing in these runs."
        )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error if error else 0.0
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(abs(mean) <= _ROUNDING)
    return Difference(mean, mean - half, mean + half, p_value, basis)


def over_pairs(
    gold: Sequence[Sequence[float]],
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two encoders' average Spearman correlation, by the paired bootstrap over the tasks' pairs.

    Each draw resamples the pairs of each task with replacement, the same pairs for both encoders (Efron and Tibshirani
    1993, chapter 16; on rank correlations of encoders, Deutsch, Dror and Roth 2021). The interval is the percentile
    interval; the p-value is twice the smaller tail.

    Args:
        gold: For each task the human scores of its pairs.
        first: For each task the first encoder's cosines, in the same shapes.
        second: For each task the second encoder's cosines, in the same shapes.
        draws: The number of bootstrap draws.
        seed: The seed of the draws.

    Returns:
        The difference in points (correlation × 100).

    Raises:
        InputError: There is no task, the shapes differ, a task has fewer than ten pairs, a score or cosine is NaN or
            infinite, or there is no draw.
    """
    if not 0 < len(gold) == len(first) == len(second) or draws < 1:
        raise InputError("A bootstrap over pairs needs the scores of both encoders for each task, and at least a draw.")
    tasks = [tuple(np.asarray(side, dtype=float) for side in task) for task in zip(gold, first, second, strict=True)]
    if any(len({len(side) for side in task}) > 1 or len(task[0]) < 10 for task in tasks):
        raise InputError(
            "A bootstrap over pairs needs a score of each encoder for each pair, and at least ten pairs per task."
        )
    if not all(np.isfinite(side).all() for task in tasks for side in task):
        raise InputError("A score or cosine is NaN or infinite, so that the pairs have no ranking.")
    generator = np.random.default_rng(seed)
    observed = float(np.mean([spearman(b, g) - spearman(a, g) for g, a, b in tasks]))
    drawn = np.zeros(draws)
    for g, a, b in tasks:
        ranks = [_Ranks(side) for side in (g, a, b)]
        start = 0
        for counts in draw_counts(generator, len(g), draws, 200_000):
            golden, one, two = (each.among(counts) for each in ranks)
            here = slice(start, start := start + len(counts))
            drawn[here] += _correlation(golden, two, counts) - _correlation(golden, one, counts)
    drawn /= len(tasks)
    return bootstrap_difference(observed, drawn, "pairs")


def draw_counts(generator: np.random.Generator, items: int, draws: int, cells: int) -> Iterator[np.ndarray]:
    """Yields how often each item is in each bootstrap draw, (some draws, items), at most `cells` numbers at a time."""
    at_once = max(1, cells // items)
    for start in range(0, draws, at_once):
        rows = generator.integers(items, size=(min(at_once, draws - start), items))
        rows += items * np.arange(len(rows))[:, None]
        yield np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape)


def bootstrap_difference(observed: float, drawn: np.ndarray, basis: str) -> Difference:
    """A difference in points, with the percentile interval of its bootstrap draws and twice the smaller tail as p.

    Args:
        observed: The difference, from -1 to 1.
        drawn: The difference in each draw, (draws,).
        basis: What was resampled, see `Difference`.
    """
    # only the method "weibull" leaves out 2.5 % on each side for any number of draws
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="weibull")
    tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
    p_value = min(1.0, 2 * float(tail + 1 / len(drawn)))
    return Difference(100 * observed, 100 * float(low), 100 * float(high), p_value, basis)


def over_queries(first: Sequence[float], second: Sequence[float], draws: int = 10_000, seed: int = 0) -> Difference:
    """The difference of two systems' means over the same queries: bootstrap interval and sign-flip p-value.

    The interval is the percentile interval of the paired bootstrap: each draw resamples the queries with replacement,
    the same ones for both systems (Efron and Tibshirani 1993; on retrieval, Sakai 2006). The p-value is that of
    `sign_flip_test`.

    Args:
        first: The score of each query in the first system, in points.
        second: The score of each query in the second system, in the same order.
        draws: The number of draws, of the bootstrap and of the test.
        seed: The seed of the draws.

    Raises:
        InputError: There are fewer than two queries, the lengths differ, or a score is NaN or infinite.

    Example:
        >>> over_queries([50.0, 40.0, 30.0], [60.0, 45.0, 45.0]).mean
        10.0
    """
    if not 2 <= len(first) == len(second):
        raise InputError(
            f"A bootstrap over queries needs a score of both sides for each of them, and at least two, not "
            f"{len(first)} and {len(second)}."
        )
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    p_value = sign_flip_test(differences, draws, seed)
    generator, count = np.random.default_rng(seed), len(differences)
    at_once = max(1, 1_000_000 // count)
    means = np.concatenate(
        [
            differences[generator.integers(count, size=(min(at_once, draws - start), count))].mean(axis=1)
            for start in range(0, draws, at_once)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="weibull")
    return Difference(float(differences.mean()), float(low), float(high), p_value, "queries")


def sign_flip_test(differences: Sequence[float] | np.ndarray, draws: int = 10_000, seed: int = 0) -> float:
    """The two-sided p-value of the hypothesis that paired differences are symmetric about 0.

    If two systems are equal, each difference could as well have the other sign (Fisher 1935; on retrieval, Smucker,
    Allan and Carterette 2007). The p-value is the share of sign patterns whose sum is at least as far from 0 as the
    observed sum. All patterns are counted if there are at most `draws` of them. Otherwise random ones are drawn, and
    the observed one is counted among them, so that the test keeps its level (Phipson and Smyth 2010).

    Args:
        differences: The difference of each unit, (units,). Units must be independent: of several queries about one
            document, give their mean.
        draws: The number of random sign patterns.
        seed: The seed of the patterns.

    Raises:
        InputError: There is no difference or no draw, or a difference is NaN or infinite.

    Example:
        >>> sign_flip_test([1.0, 2.0, 3.0])  # of 8 patterns, +++ and --- are as far from 0
        0.25
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or draws < 1:
        raise InputError("A sign-flip test needs finite differences, at least one, and at least one draw.")
    values = values[values != 0]  # the sign of 0 changes nothing
    # sums that are equal on paper differ by rounding
    bound = abs(values.sum()) - 1e-9 * abs(values).sum()
    if 2 ** len(values) <= draws:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float((abs(sums) >= bound).mean())
    generator, as_far = np.random.default_rng(seed), 1
    at_once = max(1, 1_000_000 // len(values))
    for start in range(0, draws, at_once):
        signs = generator.integers(2, size=(min(at_once, draws - start), len(values)), dtype=np.int8)
        # a sum with flipped signs is the sum less twice the flipped part
        as_far += int((abs(values.sum() - 2 * (signs @ values)) >= bound).sum())
    return as_far / (draws + 1)


def resamples(count: int) -> np.ndarray:
    """How often each of `count` items is in each bootstrap sample, `(SAMPLES, count)`; always the same samples."""
    generator = np.random.default_rng(0)
    return np.stack([np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(SAMPLES)])


def spearman_of_samples(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The Spearman correlation of two arrays (pairs,) in each bootstrap sample, (samples,); constants give 0.

    Args:
        first: The values of one side, (pairs,).
        second: The values of the other side, (pairs,).
        counts: How often each sample has each pair, (samples, pairs), see `resamples`.
    """
    return _correlation(_Ranks(first).among(counts), _Ranks(second).among(counts), counts)


def mean_of_samples(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of values (items,) in each bootstrap sample, (samples,); see `resamples` for `counts`."""
    return counts @ values / counts.sum(axis=1)


def bootstrap_error(before: np.ndarray, after: np.ndarray) -> float:
    """The standard error of a difference: the standard deviation of its values in the bootstrap samples.

    Args:
        before: The score of one encoder in each sample, (samples,).
        after: The score of another encoder in the same samples, (samples,).

    Example:
        >>> bootstrap_error(np.array([60.0, 61.0, 62.0]), np.array([61.0, 63.0, 65.0]))
        1.0
    """
    return float((after - before).std(ddof=1))


def williams_test(first: float, second: float, between: float, pairs: int, *, ranks: bool = False) -> float:
    """The two-sided p-value of the hypothesis that two correlations with the same variable are equal.

    Williams 1959, as recommended by Steiger 1980 (eq. 7): compares r(gold, first) with r(gold, second) and takes into
    account that the two encoders' scores correlate. The test is made for Pearson correlations. Spearman correlations
    vary more, especially high ones; without a correction the test then finds a difference that does not exist in up to
    8 % of cases.

    Args:
        first: The correlation of the first encoder's scores with the gold scores, from −1 to 1.
        second: The correlation of the second encoder's scores with the gold scores.
        between: The correlation of the two encoders' scores with each other.
        pairs: The number of pairs.
        ranks: The correlations are Spearman's: the variance of the difference is multiplied by 1 + r²/3, where r is the
            mean of the first two. `python -m benchmarks.significance` measures the effect.

    Raises:
        InputError: There are fewer than four pairs, or no three variables can have these correlations.

    Example:
        >>> round(williams_test(0.4, 0.5, 0.6, 103), 4)
        0.198
    """
    from scipy import stats

    if pairs < 4:
        raise InputError(f"Williams' test needs at least four pairs, not {pairs}.")
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    # the determinant of a matrix of correlations is not negative; the negation refuses NaN too
    if not (determinant > -1e-9 and max(abs(first), abs(second), abs(between)) <= 1 + 1e-9):
        raise InputError(f"{first}, {second} and {between} cannot be the correlations of three variables.")
    mean = (first + second) / 2
    scale = 2 * determinant * (pairs - 1) / (pairs - 3) + mean**2 * (1 - between) ** 3
    if scale <= 0:  # the two encoders' scores are the same, or opposite
        return float(first == second)
    statistic = (second - first) * sqrt((pairs - 1) * (1 + between) / scale)
    if ranks:
        statistic /= sqrt(1 + mean**2 / 3)
    return float(2 * stats.t.sf(abs(statistic), pairs - 3))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The Spearman correlation of each row of two arrays (..., pairs). Ties get their mean rank; constants give 0.

    Raises:
        InputError: A value is NaN, which has no rank.
    """
    from scipy.stats import rankdata

    if np.isnan(first).any() or np.isnan(second).any():
        raise InputError("A value is NaN, so that it has no rank and there is no correlation.")
    ranks = [rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (first, second)]
    return _correlation(*ranks)


class _Ranks:
    """Computes the ranks of values in bootstrap samples by counting, ten times faster than sorting each sample.

    Args:
        values: The values, `(pairs,)`.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.order = np.argsort(values)
        ordered = values[self.order]
        self.below, self.up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))

    def among(self, counts: np.ndarray) -> np.ndarray:
        """The rank of each value in each sample, `(draws, pairs)`. Ties get their mean rank; ranks have mean 0.

        Args:
            counts: How often each sample has each value, `(draws, pairs)`.
        """
        smaller = np.zeros((len(counts), counts.shape[1] + 1))
        np.cumsum(np.take(counts, self.order, axis=1), axis=1, out=smaller[:, 1:])
        return (np.take(smaller, self.below, axis=1) + np.take(smaller, self.up_to, axis=1) - counts.shape[1]) / 2


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """The weighted correlation of centred rows (..., pairs); 0 for constants."""
    product = (weights * first * second).sum(axis=-1)
    norm = np.sqrt((weights * first**2).sum(axis=-1) * (weights * second**2).sum(axis=-1))
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / sqrt(len(values))
