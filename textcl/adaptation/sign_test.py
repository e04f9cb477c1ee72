"""The sign test of blind judgements: which of two systems is preferred, and what a number of answers can show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom, binomtest

from textcl.adaptation.verdict import LEVEL, POWER
from textcl.evaluation.significance import CONFIDENCE


@dataclass(frozen=True)
class Preference:
    """The result of blind judging.

    Attributes:
        systems: The names of the two systems, (BEFORE, AFTER).
        before: The number of answers that preferred BEFORE.
        after: The number of answers that preferred AFTER.
        equal: The number of answers "equal"; they leave the test.
        neither: The number of answers "neither"; they leave the test.
        differ: The number of queries for which the systems had different first results; the pairs are drawn of them.
        looked: The number of queries that were looked at.
        p_value: The two-sided p-value of the exact sign test.
        low: Lower end of the exact 95 % interval (Clopper and Pearson) of the share of AFTER.
        high: Upper end of this interval.
    """

    systems: tuple[str, str]
    before: int
    after: int
    equal: int
    neither: int
    differ: int
    looked: int
    p_value: float
    low: float
    high: float

    @property
    def decided(self) -> int:
        """The number of answers in the test."""
        return self.before + self.after

    @property
    def better(self) -> str | None:
        """The name of the system that is shown to be better; None: neither is."""
        if self.p_value > LEVEL:
            return None
        return self.systems[self.after > self.before]

    def record(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        shown = shown_share(self.decided)
        return {**asdict(self), "decided": self.decided, "better": self.better, "smallest_share": shown}

    def lines(self) -> list[str]:
        """What the command prints."""
        before, after = self.systems
        share = self.after / self.decided if self.decided else 0.5
        return [
            f"ANSWERS: {self.after} for {after}, {self.before} for {before}, {self.equal} equal, {self.neither} "
            "neither.",
            f"DIFFERENT FIRST RESULTS: {self.differ:,} of {self.looked:,} queries "
            f"({_percent(self.differ / self.looked)}); only such queries were judged.",
            f"SIGN TEST: {after} was preferred in {self.after} of {self.decided} decided answers ({_percent(share)}, "
            f"{_percent(CONFIDENCE)} interval {_percent(self.low)} to {_percent(self.high)}), p = {self.p_value:.2g}; "
            f"{what_is_shown(self.decided)}.",
            f"VERDICT: {self.better} is better." if self.better else "VERDICT: no difference is shown.",
        ]


def sign_test(
    systems: tuple[str, str], before: int, after: int, equal: int = 0, neither: int = 0, *, differ: int, looked: int
) -> Preference:
    """Tests whether one of two systems is preferred more often than the other (Conover 1999, section 3.4).

    The arguments are the attributes of `Preference`.

    Example:
        >>> found = sign_test(("old", "new"), before=13, after=31, equal=6, differ=812, looked=2000)
        >>> found.better, round(found.p_value, 4)
        ('new', 0.0096)
    """
    p_value, low, high = 1.0, 0.0, 1.0
    if before + after:
        tested = binomtest(after, before + after)
        p_value = float(tested.pvalue)
        low, high = map(float, tested.proportion_ci(CONFIDENCE, method="exact"))
    return Preference(systems, before, after, equal, neither, differ, looked, p_value, low, high)


def power(answers: int, share: float) -> float:
    """The probability that the two-sided sign test at 5 % shows the better system, computed exactly.

    Args:
        answers: The number of decided answers.
        share: The true share of answers that prefer the better system, above ½.

    Example:
        >>> round(power(50, 0.7), 3)
        0.782
    """
    counts = np.arange(answers + 1)
    significant = 2 * binom.sf(counts - 1, answers, 0.5) <= LEVEL
    return float(binom.pmf(counts, answers, share)[significant].sum())


def shown_share(answers: int) -> int | None:
    """The smallest preference, in whole per cent, that this many decided answers show in four of five cases.

    Example:
        >>> shown_share(50), shown_share(200), shown_share(5)
        (71, 61, None)
    """
    return next((share for share in range(51, 100) if power(answers, share / 100) >= POWER), None)


def what_is_shown(answers: int) -> str:
    """What this many decided answers can show, in words.

    Example:
        >>> what_is_shown(50)
        '50 decided answers show a true 71 : 29 with a probability of 83 %'
    """
    share = shown_share(answers)
    if share is None:
        return f"{answers} decided answers are too few to show a preference"
    chance = _percent(power(answers, share / 100))
    return f"{answers} decided answers show a true {share} : {100 - share} with a probability of {chance}"


def power_sentence(answers: int) -> str:
    """What a user has to know about a length before the first answer."""
    fewer = answers * 4 // 5
    return (
        f"{answers} pairs; the length is fixed beforehand. The two-sided sign test at {_percent(LEVEL)}: "
        f"{what_is_shown(answers)}. The answers 'equal' and 'neither' leave the test and cost power: "
        f"{what_is_shown(fewer)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
