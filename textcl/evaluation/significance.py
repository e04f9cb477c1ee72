"""Whether one encoder is better than another: intervals over seeds, the bootstrap over pairs, Williams' test.

Two questions are kept apart. Over seeds: would the method win again, trained anew? Over pairs: would these two encoders
keep their order on other sentences of the same kind?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from textcl.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The difference of two encoders or methods, with its 95 % interval.

    Attributes:
        mean: How much the second is ahead of the first, in points.
        low: Lower end of the interval.
        high: Upper end.
        p_value: Two-sided, of no difference.
        basis: What varies: "paired seeds", "seeds" or "pairs".
    """

    mean: float
    low: float
    high: float
    p_value: float
    basis: str

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def sentence(self, first: str, second: str) -> str:
        """What can be said.

        Example:
            >>> Difference(0.8, 0.5, 1.1, 0.001, "seeds").sentence("A", "B")
            'B is better than A by 0.80 ± 0.30 (95 %, over seeds).'
        """
        half = (self.high - self.low) / 2
        if not self.shown:
            what, mean = f"No difference between {first} and {second} is shown:", f"{self.mean:+.2f}"
        else:
            better, worse = (second, first) if self.mean > 0 else (first, second)
            what, mean = f"{better} is better than {worse} by", f"{abs(self.mean):.2f}"
        return f"{what} {mean} ± {half:.2f} (95 %, over {self.basis})."


def over_seeds(first: Mapping[int | None, float], second: Mapping[int | None, float]) -> Difference:
    """The difference of two methods' scores over the seeds that they were trained with.

    With the same seeds on both sides, the interval is Student's for the differences seed by seed. With other seeds or
    unequal numbers of them it is Welch's (1947). A side without seeds, as an untouched encoder, is one fixed value.

    Args:
        first: Score by seed; `{None: score}` for what was not trained.
        second: Likewise.

    Raises:
        InputError: If both sides have a single value, so that nothing says how much they vary.

    Example:
        >>> over_seeds({1: 60.0, 2: 60.4}, {1: 61.0, 2: 61.5}).mean
        1.05
    """
    from scipy import stats

    one, two = np.array(list(first.values())), np.array(list(second.values()))
    fixed = [set(side) == {None} for side in (first, second)]
    if max(len(one), len(two)) < 2 or any(
        len(x) < 2 and not is_fixed for x, is_fixed in zip((one, two), fixed, strict=True)
    ):
        raise InputError("A difference over seeds needs at least two of them on each trained side: raise --seeds.")
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
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error if error else 0.0
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Difference(mean, mean - half, mean + half, p_value, basis)


def over_pairs(
    gold: Sequence[Sequence[float]],
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two encoders' average Spearman correlation, by the paired bootstrap over tasks' pairs.

    Each draw takes as many pairs of each task as there are, with replacement, the same for both encoders (Efron and
    Tibshirani 1993, chapter 16; on rank correlations of encoders, Deutsch, Dror and Roth 2021). The interval is that of
    the percentiles; the p-value is twice the smaller tail.

    Args:
        gold: Human scores of the pairs of each task.
        first: Cosines of the first encoder, the same shapes.
        second: Those of the second.
        draws: Of the bootstrap.
        seed: Of the draws.

    Returns:
        In points, that is correlation × 100.

    Raises:
        InputError: If the shapes do not agree, or a task has fewer than ten pairs.
    """
    tasks = [tuple(np.asarray(side, dtype=float) for side in task) for task in zip(gold, first, second, strict=True)]
    if any(len({len(side) for side in task}) > 1 or len(task[0]) < 10 for task in tasks):
        raise InputError("A bootstrap over pairs needs one score of each side for each pair, and ten pairs a task.")
    generator = np.random.default_rng(seed)
    observed = float(np.mean([spearman(b, g) - spearman(a, g) for g, a, b in tasks]))
    drawn = np.zeros(draws)
    for g, a, b in tasks:
        ranks = [_Ranks(side) for side in (g, a, b)]
        at_once = max(1, 200_000 // len(g))
        for start in range(0, draws, at_once):
            rows = generator.integers(len(g), size=(min(at_once, draws - start), len(g)))
            rows += len(g) * np.arange(len(rows))[:, None]
            counts = np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape)
            golden, one, two = (each.among(counts) for each in ranks)
            drawn[start : start + at_once] += _correlation(golden, two, counts) - _correlation(golden, one, counts)
    drawn /= len(tasks)
    # "weibull" alone leaves out 2.5 % a side whatever the number of draws
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="weibull")
    tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
    p_value = min(1.0, 2 * float(tail + 1 / draws))
    return Difference(100 * observed, 100 * float(low), 100 * float(high), p_value, "pairs")


def williams_test(first: float, second: float, between: float, pairs: int, *, ranks: bool = False) -> float:
    """The two-sided p-value of no difference between two correlations with the same variable.

    Williams 1959, as Steiger 1980 recommends it (eq. 7): of r(gold, first) and r(gold, second), knowing that the two
    encoders' scores correlate. It is meant for Pearson correlations. Spearman's vary more, the more the higher they
    are, so that the test as it stands finds a difference where there is none in up to 8 % of cases.

    Args:
        first: Correlation of the first encoder's scores with the gold ones, from −1 to 1.
        second: That of the second's.
        between: The correlation of the two encoders' scores.
        pairs: How many there are.
        ranks: The correlations are Spearman's: the variance of the difference is taken 1 + r²/3 times as large, r the
            mean of the first two. `python -m benchmarks.significance` measures what that comes to.

    Raises:
        InputError: With fewer than four pairs.

    Example:
        >>> round(williams_test(0.4, 0.5, 0.6, 103), 4)
        0.198
    """
    from scipy import stats

    if pairs < 4:
        raise InputError(f"Williams' test needs four pairs at least, not {pairs}.")
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    scale = 2 * determinant * (pairs - 1) / (pairs - 3) + mean**2 * (1 - between) ** 3
    if scale <= 0:
        return 1.0  # the two encoders' scores are the same
    statistic = (second - first) * sqrt((pairs - 1) * (1 + between) / scale)
    if ranks:
        statistic /= sqrt(1 + mean**2 / 3)
    return float(2 * stats.t.sf(abs(statistic), pairs - 3))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The Spearman correlations of the rows of two arrays (..., pairs); ties at their mean rank, 0 for constants."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (first, second)]
    return _correlation(*ranks)


class _Ranks:
    """The ranks of values in samples of them, found by counting where sorting each sample would take ten times longer.

    Args:
        values: `(pairs,)`.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.order = np.argsort(values)
        ordered = values[self.order]
        self.below, self.up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))

    def among(self, counts: np.ndarray) -> np.ndarray:
        """The rank of each value in samples that hold it so many times, ties at their mean rank, with mean 0.

        Args:
            counts: `(draws, pairs)`.
        """
        smaller = np.zeros((len(counts), counts.shape[1] + 1))
        np.cumsum(np.take(counts, self.order, axis=1), axis=1, out=smaller[:, 1:])
        return (np.take(smaller, self.below, axis=1) + np.take(smaller, self.up_to, axis=1) - counts.shape[1]) / 2


def _correlation(first: np.ndarray, second: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Of centred rows (..., pairs); 0 for constants."""
    product = (weights * first * second).sum(axis=-1)
    norm = np.sqrt((weights * first**2).sum(axis=-1) * (weights * second**2).sum(axis=-1))
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / sqrt(len(values))
