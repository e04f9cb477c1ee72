"""Texts have a type: what is taken as texts, and the sentence that says which of them is not a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from numbers import Real
from typing import Any
from unicodedata import normalize

from textcl.errors import InputError

KINDS = "a list, a tuple, a numpy array, a pandas Series, one column of a dataset or a generator"


def as_texts(source: Any, what: str = "The texts") -> list[str]:
    """The texts of a collection as a list of strings.

    Args:
        source: A list, a tuple, a one-dimensional numpy array, a pandas Series, one column of a `datasets.Dataset`, or
            a generator of strings.
        what: The name of the collection in error messages.

    Raises:
        InputError: `source` is not such a collection, or a value in it is not a valid text (the message gives its row,
            counted from 1).

    Example:
        >>> as_texts(text for text in ("a cat", "a dog"))
        ['a cat', 'a dog']
    """
    return list(each_text(source, what))


def names_in(given: str | Iterable[str]) -> list[str]:
    """Names, from a list of them or from one text with commas between them.

    Example:
        >>> names_in("STS12, STS13"), names_in(["MR"])
        (['STS12', 'STS13'], ['MR'])
    """
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def in_one_line(text: str, width: int = 100) -> str:
    """A text without line breaks, cut to `width` characters.

    Example:
        >>> in_one_line("one\\ntwo three", 9)
        'one two…'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def each_text(source: Any, what: str = "The texts") -> Iterator[str]:
    """Yields the texts that `as_texts` returns, one by one."""
    for row, value in enumerate(items(source, what), start=1):
        yield value if type(value) is str and value.isascii() else check_text(value, f"{what}, row {row}")


def check_text(value: Any, where: str) -> str:
    """`value` as a string.

    Raises:
        InputError: It is not a string, or holds half of a surrogate pair, which tokenizers and files refuse. The
            message begins with `where`.
    """
    if not isinstance(value, str):
        raise InputError(f"{where}: the value must be a text, not {described(value)}.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"{where}: the text holds half of a surrogate pair, which is not a valid character. JSON can contain "
                "such halves, and bytes that are not UTF-8 become such halves on the command line."
            ) from None
    return str(value)  # of a subclass, such as numpy's, the plain string


def bare(text: str) -> str:
    """A text by which texts are equal that differ only in upper and lower case and in spaces.

    A letter and its accent may be one character or two (Unicode's composed and decomposed forms); they are equal too.

    Example:
        >>> bare("Two  Cats ")
        'two cats'
    """
    plain = " ".join(text.split()).casefold()
    return plain if plain.isascii() else normalize("NFC", plain)


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: full width


def spreadsheet_safe(cell: str) -> str:
    """A cell of a csv file, with an apostrophe before it if a spreadsheet would run it as a formula.

    Spreadsheets run cells that begin with =, +, -, @, a tab or a line break, also the full-width forms of these signs.
    An apostrophe is put before an apostrophe too, if what follows could be a formula: different cells stay different.

    Example:
        >>> spreadsheet_safe("=1+1"), spreadsheet_safe("1+1")
        ("'=1+1", '1+1')
    """
    return f"'{cell}" if cell.lstrip("'").startswith(_FORMULA) else cell


def items(source: Any, what: str) -> Iterable[Any]:
    """The values of a collection that has no columns, one for each row.

    Raises:
        InputError: `source` is a single value, has columns, or has no order. The message says what is taken.
    """
    if isinstance(source, (str, bytes, bytearray)):
        raise InputError(f"{what} must be several texts, not a single {type(source).__name__}; put it into a list.")
    if names := names_of_columns(source):
        kind, columns = type(source).__name__, ", ".join(map(repr, names[:20]))
        has, one = ("splits", "split") if kind.endswith("DatasetDict") else ("columns", "column")
        raise InputError(
            f"{what}: a {kind} has the {has} {columns}, and one {one} is needed; pass it, such as data[{names[0]!r}]."
        )
    if isinstance(source, (Mapping, Set)) or not hasattr(source, "__iter__") or getattr(source, "ndim", 1) != 1:
        kind = "an array with several dimensions" if getattr(source, "ndim", 1) > 1 else described(source)
        raise InputError(f"{what} must be {KINDS}, not {kind}.")
    return source


def names_of_columns(source: Any) -> list[Any]:
    """The column names of a table (a dataset, a data frame, a dict of columns), or the splits of a dict of datasets."""
    if isinstance(source, Mapping):
        return list(source)
    names = getattr(source, "column_names" if hasattr(source, "column_names") else "columns", None)
    return [] if names is None or callable(names) else list(names)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, pandas' NA and NaT, numpy's NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    may_be = isinstance(value, Real) or type(value).__name__ in ("datetime64", "timedelta64")
    return may_be and bool(value != value)


def described(value: Any) -> str:
    """A value in an error message: "None", "nan" or its type, such as "an int"."""
    if is_missing(value):
        return "None" if value is None else "a missing value (nan)"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIO' else 'a'} {kind}"


def json_value(value: Any) -> Any:
    """A value without NaN and infinities, which JSON does not have: NaN is None, an infinity is text.

    Args:
        value: What `json.dumps` takes; values within lists, tuples and dictionaries are changed too.

    Example:
        >>> json_value({"ratio": float("inf"), "scores": [float("nan"), 0.5]})
        {'ratio': 'Infinity', 'scores': [None, 0.5]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: json_value(each) for key, each in value.items()}
    return [json_value(each) for each in value] if isinstance(value, (list, tuple)) else value


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    Args:
        number: The number.
        one: The noun for 1.
        many: The noun for other numbers; default: `one` with an s.

    Example:
        >>> counted(1, "text"), counted(2000, "text"), counted(0, "copy", "copies")
        ('1 text', '2,000 texts', '0 copies')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
