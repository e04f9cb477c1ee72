"""The ranges of numbers: written beside their types, checked in constructors and on the command line."""

import functools
import inspect
import math
import numbers
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from textcl.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

LARGEST = 2**63 - 1  # a whole number that the libraries below can hold


@dataclass(frozen=True)
class Range:
    """The allowed values of a number. NaN, infinity and whole numbers of more than 64 bits are in no range.

    Attributes:
        at_least: The smallest allowed value.
        at_most: The largest allowed value.
        above: All allowed values are larger than this one.
        below: All allowed values are smaller than this one.
        also: A single value that is allowed too.
        whole: Only whole numbers are allowed. `ranges_of` sets it for parameters of type int.

    Example:
        >>> 0.0 in Range(above=0), float("nan") in Range(), -1 in Range(at_least=1, also=-1)
        (False, False, True)
        >>> str(Range(at_least=0, below=1))
        'a finite number of at least 0 and below 1'
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    also: float | None = None
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        kind: Any = numbers.Integral if self.whole else numbers.Real
        if not isinstance(value, kind) or _too_large(value) or not math.isfinite(value):
            return False
        if self.also is not None and value == self.also:
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "of at least": self.at_least,
            "above": self.above,
            "of at most" if self.at_least is None and self.above is None else "at most": self.at_most,
            "below": self.below,
        }
        said = " and ".join(f"{words} {bound:,}" for words, bound in bounds.items() if bound is not None)
        kind = "a whole number" if self.whole else "a finite number"
        return f"{kind} {said}".rstrip() + (f", or {self.also}" if self.also is not None else "")

    def check(self, name: str, value: object) -> None:
        """Raises an InputError that names the range if `value` is outside it."""
        if value not in self:
            raise InputError(f"{name} must be {self._said_to(value)}, not {value!r}.")

    def read(self, text: str) -> float:
        """The number that a text holds.

        Raises:
            ValueError: The text is not a number of this range; the message names the range.
        """
        try:
            value = (int if self.whole else float)(text)
        except ValueError:
            value = math.nan
        if value not in self:
            raise ValueError(f"must be {self._said_to(value)}, not {text}")
        return value

    def _said_to(self, value: object) -> "Range":
        """This range, for the message about `value`: with the bound of all whole numbers if that is what is missing."""
        return replace(self, at_most=LARGEST) if _too_large(value) and self.at_most is None else self


def _too_large(value: object) -> bool:
    return isinstance(value, numbers.Integral) and abs(int(value)) > LARGEST


Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
PositiveShare = Annotated[float, Range(above=0, at_most=1)]
Count = Annotated[int, Range(at_least=1)]
ZeroOrMore = Annotated[int, Range(at_least=0)]
TwoOrMore = Annotated[int, Range(at_least=2)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]


def ranges_of(function: Any) -> dict[str, Range]:
    """The ranges of a function's parameters, or of a class's fields, that are numbers.

    Those whose type names no range may have any finite value.
    """
    hints = get_type_hints(function, include_extras=True)
    return {name: found for name, hint in hints.items() if (found := range_of(hint))}


def range_of(hint: Any) -> Range | None:
    """The range of a type such as `Count` or `Count | None`; None if the type has no number, or words beside it."""
    if any(get_origin(each) is Literal for each in get_args(hint)):
        return None
    for each in (hint, *get_args(hint)):  # also where a number is one of several types
        number = get_args(each)[0] if hasattr(each, "__metadata__") else each
        if number in (int, float):
            marks = [mark for mark in getattr(each, "__metadata__", ()) if isinstance(mark, Range)]
            return Range(**{**vars(marks[0] if marks else Range()), "whole": number is int})
    return None


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Lets a function check the numbers among its arguments before it runs. None is not checked.

    The function gets numbers of numpy as Python's numbers, which JSON can hold.

    Raises:
        InputError: When the function is called with a number outside the range that its type names.

    Example:
        >>> @checked
        ... def soften(temperature: Positive = 1.0) -> float:
        ...     return temperature
        >>> soften(float("nan"))
        Traceback (most recent call last):
        textcl.errors.InputError: temperature must be a finite number above 0, not nan.
    """
    signature = inspect.signature(function)
    ranges = functools.cache(lambda: ranges_of(function))

    @functools.wraps(function)
    def checking(*args: P.args, **options: P.kwargs) -> T:
        given = signature.bind(*args, **options)
        for name, value in given.arguments.items():
            if value is not None and name in ranges():
                ranges()[name].check(name, value)
                given.arguments[name] = value.item() if hasattr(value, "item") else value
        return function(*given.args, **given.kwargs)

    return checking


def with_values_attached(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments of a command, with negative numbers attached to their flags.

    argparse takes -1e-5 and -inf for flags. As --learning-rate=-1e-5 it reads them as values.

    Example:
        >>> list(with_values_attached(["--learning-rate", "-1e-5", "x"]))
        ['--learning-rate=-1e-5', 'x']
    """
    waiting: str | None = None
    for argument in arguments:
        if waiting and re.fullmatch(r"-(\d|\.\d|inf|nan).*", argument, flags=re.IGNORECASE):
            yield f"{waiting}={argument}"
            waiting = None
            continue
        if waiting:
            yield waiting
        waiting = argument if re.fullmatch(r"--\w[\w-]*", argument) else None
        if not waiting:
            yield argument
    if waiting:
        yield waiting
