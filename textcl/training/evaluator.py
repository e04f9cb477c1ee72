"""What the trainer asks of an evaluator and of its result."""

from numbers import Real
from typing import Any, Protocol, cast

from textcl.errors import InputError


class Evaluation(Protocol):
    """The result of an evaluator. `primary` is the number to select by; higher is better.

    `items` are needed for a bootstrap error only: an array with what the score was computed from.
    """

    primary: float


class Evaluator(Protocol):
    """A function that scores an object with `.encode(list[str])`, with the `name` of its score.

    It may have two further attributes. `error_of_difference(before, after)` returns the standard error of the
    difference of two results from their `items`; without it, any higher score is better. `measures_quality = False`
    says that the score follows training and says nothing of the encoder: the untouched encoder has none, and the score
    chooses no checkpoint.
    """

    name: str

    def __call__(self, encoder: Any) -> Evaluation: ...


def checked(evaluator: Evaluator, found: Any) -> Evaluation:
    """The result of an evaluator, if it has a score."""
    if not isinstance(getattr(found, "primary", None), Real):
        raise InputError(
            f"The evaluator {evaluator.name} returned {type(found).__name__}; it must return an object whose attribute "
            "`primary` is a number, such as a textcl.evaluation.Result."
        )
    return cast(Evaluation, found)
