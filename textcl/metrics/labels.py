"""One numbering of classes, by type and value, for everything that reads labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textcl.errors import InputError
from textcl.texts import check_text, described, is_missing, items

_DIGITS = 1000  # Python refuses to convert words of some more digits to numbers


def number_labels(labels: Any, what: str = "The labels") -> tuple[list[int], list[Any]]:
    """Numbers the classes from 0 on.

    Two labels are the same class if they have the same type and value: 1 and "1" are two classes. Classes are sorted by
    type, then by value; if all labels are words of digits, by number.

    Args:
        labels: The label of each row: a list, a numpy array, a tensor or a pandas Series of words or numbers.
        what: The name of the labels in error messages.

    Returns:
        The number of each row's class, and the classes in the order of their numbers.

    Raises:
        InputError: A label is missing (None, NaN or blank) or is neither a word nor a number. The message gives its
            row, counted from 1.

    Example:
        >>> number_labels(["b", "a", "b"])
        ([1, 0, 1], ['a', 'b'])
    """
    values = labels.tolist() if hasattr(labels, "tolist") else list(items(labels, what))
    if not isinstance(values, list) or any(isinstance(value, list) for value in values[:1]):
        raise InputError(f"{what} must have one dimension: one label for each row.")
    known: dict[tuple[type, Any], int] = {}
    rows = []
    for row, value in enumerate(map(plain_label, values), start=1):
        check_label(value, f"{what}, row {row}")
        rows.append(known.setdefault((type(value), value), len(known)))
    ordered = _sorted(list(known))
    place = {known[key]: number for number, key in enumerate(ordered)}
    return [place[row] for row in rows], [value for _, value in ordered]


def plain_label(value: Any) -> Any:
    """A numpy scalar as the Python value it holds; a word without the space around it."""
    value = value.item() if hasattr(value, "item") else value
    return value.strip() if isinstance(value, str) else value


def has_no_label(value: Any) -> bool:
    """Whether a row has no label: None, NaN, or a blank cell."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def check_label(value: Any, where: str) -> None:
    """Raises an `InputError` if a label is missing, or is neither a word nor a number."""
    if has_no_label(value):
        raise InputError(f"{where}: the label is missing ({value!r}). Give the row a label, or leave the row out.")
    if not isinstance(value, (str, int, float)):
        raise InputError(f"{where}: a label must be a word or a number, not {described(value)}.")
    if isinstance(value, str):
        check_text(value, where)


def _sorted(keys: Sequence[tuple[type, Any]]) -> list[tuple[type, Any]]:
    if all(kind is str and value.isdecimal() and len(value) < _DIGITS for kind, value in keys):
        return sorted(keys, key=lambda key: (int(key[1]), key[1]))
    return sorted(keys, key=lambda key: (key[0].__name__, key[1]))
