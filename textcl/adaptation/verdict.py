"""The verdict: whether an encoder is better for these texts, by one test that was chosen beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, log2, sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from textcl.evaluation.significance import CONFIDENCE, sign_flip_test

LEVEL = 0.05  # of the two-sided test
POWER = 0.8
DRAWS = 2000  # of the bootstrap
MOST_LOST = 2.0  # points of a guard; the lower end of its interval must be above this loss

GROUPS = "groups of texts"  # near-duplicates are one group

Outcome = Literal["better", "no difference", "worse", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """Two encoders on the same units.

    Attributes:
        task: What was measured, such as "finding a body by its title".
        measure: The measure, such as "nDCG@10".
        before: The score of the first encoder, in points.
        after: The score of the second encoder.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of this interval.
        p_value: The two-sided p-value of the hypothesis that there is no difference.
        units: The number of units that were resampled.
        error: The standard error of the difference, see `least_error`.
        unit: What the units are, in the plural, such as "judged queries".
    """

    task: str
    measure: str
    before: float
    after: float
    low: float
    high: float
    p_value: float
    units: int
    error: float
    unit: str = GROUPS

    @property
    def difference(self) -> float:
        """The second score minus the first, in points."""
        return self.after - self.before

    def smallest(self, level: float = LEVEL) -> float | None:
        """The smallest difference that a test at this level would have shown in four of five cases; None: none would.

        The sign-flip test of n units has no p-value below 2 / 2ⁿ.
        """
        if self.units < least_units(level):
            return None
        normal = NormalDist()
        return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)) * self.error

    def record(self) -> dict[str, Any]:
        """All of it, for adapt.json."""
        return {**asdict(self), "difference": self.difference, "smallest": self.smallest()}

    def sentence(self) -> str:
        """The comparison in a few words.

        Example:
            >>> Comparison("finding a body by its title", "nDCG@10", 71.2, 73.3, 1.2, 3.0, 0.001, 1389, 0.45).sentence()
            'nDCG@10 71.2 → 73.3, +2.1 (95 % interval +1.2 to +3.0)'
        """
        return (
            f"{self.measure} {self.before:.1f} → {self.after:.1f}, {self.after - self.before:+.1f} "
            f"({CONFIDENCE:.0%} interval {self.low:+.1f} to {self.high:+.1f})".replace("95%", "95 %")
        )


def least_units(level: float = LEVEL) -> int:
    """The number of units that have to change before a sign-flip test at this level can show a difference.

    Example:
        >>> least_units(0.05), 2 / 2**5, 2 / 2**6
        (6, 0.0625, 0.03125)
    """
    return ceil(1 - log2(level))


def least_error(changes: np.ndarray) -> float:
    """The smallest standard error to believe of a mean of which nearly all units are unchanged; 0 if enough changed.

    Units of which none changed have a spread of 0, but that does not show that none ever changes. So the error is at
    least that of as many changed units as the test needs, each by the largest change that was seen, or by 100 points.

    Args:
        changes: The change of each unit in points, (units,).
    """
    changed, needed = abs(changes[changes != 0]), least_units()
    if len(changed) >= needed:
        return 0.0
    return float(changed.max(initial=0) or 100) * sqrt(needed) / len(changes)


def compare(
    before: np.ndarray,
    after: np.ndarray,
    units: np.ndarray,
    task: str,
    measure: str = "nDCG@10",
    seed: int = 0,
    unit: str = GROUPS,
) -> Comparison:
    """Compares the scores of two encoders for the same queries; what is resampled is the unit.

    The p-value is that of the sign-flip test, in which before and after of a whole unit are swapped at random. The
    interval is that of the bootstrap over units (Efron and Tibshirani 1993, chapter 13).

    Args:
        before: The first encoder's score for each query, (queries,).
        after: The second encoder's, (queries,).
        units: The unit of each query, (queries,).
        task: See `Comparison`.
        measure: See `Comparison`.
        seed: The seed of both.
        unit: See `Comparison`.
    """
    _, which = np.unique(units, return_inverse=True)
    sums, sizes = np.bincount(which, after - before), np.bincount(which).astype(float)
    generator = np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        counts = np.bincount(generator.integers(len(sums), size=len(sums)), minlength=len(sums))
        drawn[draw] = counts @ sums / (counts @ sizes)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="weibull")
    return Comparison(
        task,
        measure,
        float(before.mean()),
        float(after.mean()),
        float(low),
        float(high),
        sign_flip_test(sums, seed=seed),
        len(sums),
        max(float(drawn.std(ddof=1)), least_error(sums / sizes.mean())),
        unit,
    )


@dataclass(frozen=True)
class Verdict:
    """Whether the second encoder is better.

    Attributes:
        outcome: "better", "no difference", "worse" or "not measured".
        why: Why, where the numbers alone do not say it.
        comparison: What was measured; None: nothing was.
        looks: Which look at this evidence this was, from 1.
        level: The level of the test, after the correction for looks and models.
    """

    outcome: Outcome
    why: str = ""
    comparison: Comparison | None = None
    looks: int = 1
    level: float = LEVEL

    def record(self) -> dict[str, Any]:
        """All of it but the comparison, for adapt.json."""
        return {"outcome": self.outcome, "why": self.why, "looks": self.looks, "level": self.level}

    def sentence(self) -> str:
        """The verdict in one line."""
        found = self.comparison
        text = f"VERDICT: {self.outcome}"
        if found is None:
            return f"{text}: {self.why}"
        elsewhere = self.outcome == "worse" and self.why  # what is lost comes last
        text += f"{';' if elsewhere else ''} at {found.task}: {found.sentence()}; {found.units:,} {found.unit}, "
        smallest = found.smallest(self.level)
        text += (
            "too few to show any difference" if smallest is None else f"enough to show a difference of {smallest:.1f}"
        )
        if self.why:
            text += f"; {self.why}"
        if self.looks > 1:
            text += f"; look number {self.looks} at these texts, so p must be below {self.level:.2g}"
        return text


def judge(
    main: Comparison,
    minimum: float,
    second: Comparison | None,
    guards: Sequence[Comparison],
    *,
    looks: int = 1,
    models: int = 1,
) -> Verdict:
    """The verdict on a procedure.

    A loss that is shown on the second kind of query or on a guard makes it "worse" whatever the main comparison shows.

    Args:
        main: The one comparison that decides whether it is better.
        minimum: The smallest gain that counts, in points.
        second: A comparison on queries of another kind, which were not trained on; None: the texts allow no other.
        guards: General similarity of meaning, on pairs that have nothing to do with the user's texts.
        looks: Which look at the evidence this is.
        models: The number of encoders of which the best one is named.
    """
    level = LEVEL / (looks * models)
    verdict = partial(Verdict, comparison=main, looks=looks, level=level)
    shown = main.p_value <= level
    if shown and main.difference < 0:
        return verdict("worse")
    if second is not None and second.p_value <= LEVEL and second.difference < 0:
        return verdict("worse", f"but worse at {second.task}: {second.sentence()}")
    losses = [guard for guard in guards if guard.low <= -MOST_LOST]
    for guard in losses:
        if guard.high < 0:
            return verdict("worse", f"but it forgets {guard.task}: {guard.sentence()}")
    if not shown:
        return verdict("no difference")
    for guard in losses:
        lost = f"it may forget {MOST_LOST:g} points or more of {guard.task}"
        return verdict("no difference", f"but {lost}: {guard.sentence()}")
    if main.difference < minimum:
        return verdict("no difference", f"which is less than the {minimum:.1f} that counts")
    return verdict("better", "" if second is not None else "these texts allow no second kind of query")
