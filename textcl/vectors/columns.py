"""What is kept beside the texts: the user's own ids and columns, their names and types in a shard.

A shard has columns of its own: id, text, vector, scale and part. The user's columns have the prefix `column:` and their
ids the name `own_id`, so that no name of theirs can clash with these. Each column has one type in all shards.
"""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

from textcl.errors import InputError
from textcl.files import atomic_write
from textcl.texts import spreadsheet_safe

OWN_ID = "own_id"
PREFIX = "column:"

TEXT, WHOLE, NUMBER, TRUTH, DATE = "string", "int64", "double", "bool", "date32[day]"
TIME, ZONED = "timestamp[us]", "timestamp[us, tz=UTC]"
_SAID = {TEXT: "text", WHOLE: "whole numbers", NUMBER: "numbers", TRUTH: "truth values", DATE: "dates"}


def stored_names(id_column: str | None, columns: Sequence[str]) -> list[str]:
    """The names of the user's columns in a shard, in the order of `read_rows`."""
    return [OWN_ID] * (id_column is not None) + [PREFIX + name for name in columns]


def result_name(name: str, own: Iterable[str]) -> str:
    """The name of a user's column in a result that has the columns `own`; the prefix stays where two would clash."""
    return PREFIX + name if name in own or name.startswith(PREFIX) else name


def kind(value: Any) -> str:
    """The type that holds a value of `cell_value` or `cell_id`."""
    if isinstance(value, datetime):
        return TIME if value.tzinfo is None else ZONED
    kinds = {date: DATE, bool: TRUTH, int: WHOLE, float: NUMBER, str: TEXT}  # a truth value is an int too
    return next(name for each, name in kinds.items() if isinstance(value, each))


def common(kinds: set[str]) -> str:
    """The type that holds values of all these: text, unless all have one type or are numbers."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return NUMBER if kinds == {WHOLE, NUMBER} else TEXT


def check_same(name: str, there: str, new: set[str], corpus: str) -> None:
    """Raises an error unless a column of this type can take further values of the types `new`.

    Raises:
        InputError: It cannot.
    """
    if there == TEXT or common({there, *new}) == there:
        return
    label = "ids" if name == OWN_ID else f"the column '{name.removeprefix(PREFIX)}'"
    wrong = common(new)
    raise InputError(
        f"{label[0].upper()}{label[1:]} of {corpus} cannot be added: there are {_SAID.get(there, 'times')} in the "
        f"directory, but {_SAID.get(wrong, 'times')} in {corpus}."
    )


def as_array(values: Sequence[Any], stored: str) -> Any:
    """Values as a pyarrow array of a type of this module."""
    import pyarrow

    types = [pyarrow.string(), pyarrow.int64(), pyarrow.float64(), pyarrow.bool_(), pyarrow.date32()]
    types += [pyarrow.timestamp("us"), pyarrow.timestamp("us", tz="UTC")]
    found = {str(each): each for each in types}[stored]
    if stored == TEXT:
        values = [None if value is None else _text(value) for value in values]
        found = pyarrow.large_string()  # a shard may hold more than 2 GB of text
    elif stored == NUMBER:
        values = [None if value is None else float(value) for value in values]
    return pyarrow.array(values, found)


def plain(value: Any) -> Any:
    """A value as JSON and csv hold it: dates and times as ISO 8601 text."""
    return value.isoformat() if isinstance(value, date) else value


def write_csv(
    path: str | os.PathLike[str], header: Iterable[str], rows: Iterable[Iterable[Any]], *, safe: bool
) -> None:
    """Writes a csv file, atomically; with `safe`, cells that look like formulas are changed by `spreadsheet_safe`."""

    def cell(value: Any) -> Any:
        value = plain(value)
        return spreadsheet_safe(value) if safe and isinstance(value, str) else value

    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        # quote every text, because csv would not quote a text with only a carriage return
        writer = csv.writer(handle, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(map(cell, header))
        writer.writerows(map(cell, row) for row in rows)


def _text(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value)
