"""Which columns of the training rows a method reads."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from textcl.errors import InputError


@dataclass(frozen=True)
class Reads:
    """Which columns of the training rows a method reads, beside `text`.

    Attributes:
        method: The method's name, for messages.
        pairs: Whether it reads `positive`.
        triplets: Whether it reads `negative`.
        views: Whether it reads text views, `text_1` and `text_2`.
        labels: Whether its loss reads the labels of pairs.

    Example:
        >>> Reads("bert-ct", pairs=False).check(["text", "label"])
    """

    method: str = "This method"
    pairs: bool = True
    triplets: bool = True
    views: bool = True
    labels: bool = True

    @classmethod
    def of(cls, method: Any) -> "Reads":
        """What a `Method` reads, by its `needs`, `takes_views` and `takes_labels`."""
        return cls(
            method.name or type(method).__name__,
            pairs="pairs" in method.needs or "triplets" in method.needs,
            triplets="triplets" in method.needs,
            views=method.takes_views,
            labels=method.takes_labels,
        )

    def check(self, columns: Collection[str]) -> None:
        """Raises an `InputError` if the rows have a column that the method would not read.

        Args:
            columns: The columns of the rows. Only those that textcl gives a meaning are looked at.
        """
        views = views_among(columns)
        if "negative" in columns and "positive" not in columns:
            raise InputError(
                "A column 'negative' needs a column 'positive': a hard negative belongs to a pair of text and positive."
            )
        if "positive" in columns and not self.pairs:
            raise InputError(
                f"{self.method} trains on single texts and would not read the column 'positive'; name one column with "
                "--column, or train another method: all but bert-ct, ct-in-batch and declutr take pairs."
            )
        if "negative" in columns and not self.triplets:
            raise InputError(
                f"{self.method} has no hard negatives, but the rows have a column 'negative'; leave that column out "
                "(--column with two columns), or train simcse, which has hard negatives."
            )
        if "positive" in columns and views:
            raise InputError(
                f"The rows hold both a positive and a view of the text, {views[0]!r}; leave one of them out."
            )
        if views and not self.views:
            raise InputError(f"{self.method} does not read text views; leave the column {views[0]!r} out.")
        if {"label", "positive"} <= set(columns) and not self.labels:
            raise InputError(
                f"{self.method} does not read labels, so it would train every pair as a positive one; leave "
                "--label-column out, or use consert with --objective supervised or joint."
            )


EVERYTHING = Reads()


def views_among(columns: Collection[str]) -> list[str]:
    """The columns that are text views, in order."""
    return sorted(name for name in columns if re.fullmatch(r"text_\d+", str(name)))
