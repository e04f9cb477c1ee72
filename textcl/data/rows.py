"""Everything that holds texts becomes rows here, and columns are looked up by name in each row.

What is taken: one or several files (txt, csv, tsv, jsonl, parquet, plain or compressed), a `datasets.Dataset` (with a
transform, or one split of a `DatasetDict`), a streaming `IterableDataset`, a pandas DataFrame or Series, a numpy array,
and lists, tuples and generators of strings or of dicts.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textcl.data.corpus_files import files_of, name_of, paths_in
from textcl.data.formats import csv_records, format_of, json_objects, listed, parquet_columns, parquet_rows, read_lines
from textcl.errors import InputError, nearest
from textcl.texts import check_text, described, is_missing, items, names_of_columns

if TYPE_CHECKING:
    from datasets import Dataset
logger = logging.getLogger("textcl")

Names = str | tuple[str, ...]
"""The name of a column, or the names that it may have; the first that is found counts."""

TEXT: tuple[str, ...] = ("text", "sentence")
"""The default text column; if there is neither and only one column, that one."""

ABSENT: Any = object()
"""The cell of an optional column that a row does not have."""

_BATCH = 1000  # rows of a dataset that are read at once
_WORD = re.compile(r"\w+(?:[-_.]\w+)*")


@dataclass(frozen=True)
class Table:
    """Rows of any source, with the names of their columns.

    Attributes:
        name: The name of the source in messages.
        unit: What the numbers of rows count: "line" or "row"; "" if each number says it.
        columns: The names of the columns, the same for all rows; None: each row names its own (a mapping), or is a
            text; empty: the rows are texts.
        read: Yields (number, row). The number is a text that also names the file if there are several files, and says
            what it counts if they differ in that. With columns, a row is the tuple of the cells of the columns that
            were asked for.
    """

    name: str
    unit: str
    columns: list[str] | None
    read: Callable[[list[str]], Iterable[tuple[Any, Any]]]

    def at(self, number: int | str) -> str:
        """The place of a row in messages."""
        return f"{self.name}, {f'{self.unit} {number}'.strip()}"

    def cells(self, wanted: Sequence[Names | None], optional: Sequence[Names] = ()) -> Iterator[tuple[Any, Any]]:
        """Yields (number, cells of the wanted columns and of the optional ones).

        Args:
            wanted: The columns that each row must have; None: the default text column.
            optional: Columns that may be missing in some rows or in all; the cell is then `ABSENT`.

        Raises:
            InputError: A column is missing; the message names those that exist.
        """
        if self.columns is None or (not self.columns and tuple(wanted) == (None,)):
            yield from self._by_row(wanted, optional)
            return
        if not self.columns:
            column = next(names for names in wanted if names is not None)
            raise InputError(
                f"{self.name} is a text file and has no columns, so column {_either(column)} cannot be read from it. "
                "Give pairs, triplets and labels as .csv, .tsv, .jsonl or .parquet."
            )
        chosen = [
            self._default(self.columns, self.name) if names is None else self._named(names, self.columns, self.name)
            for names in wanted
        ]
        there = [found for names in optional if (found := _first(names, self.columns)) is not None]
        for name in (*chosen, *there):
            if self.columns.count(name) > 1:
                raise InputError(f"{self.name} has several columns with the name '{name}'; rename all but one.")
        places = [there.index(found) if (found := _first(names, self.columns)) else None for names in optional]
        count = len(chosen)
        for number, row in self.read([*chosen, *there]):
            yield number, (*row[:count], *(ABSENT if place is None else row[count + place] for place in places))

    def names(self) -> list[str]:
        """The names of all columns, in the order in which they come; where each row names its own, all rows are read.

        Raises:
            InputError: A name is not valid text.
        """
        if self.columns is not None:
            return list(self.columns)
        found: dict[str, None] = {}
        for number, row in self.read([]):
            if isinstance(row, Mapping) and not row.keys() <= found.keys():
                found.update(
                    dict.fromkeys(check_text(name, f"{self.at(number)}, the name of a column") for name in row)
                )
        return list(found)

    def text_column(self) -> str | None:
        """The column that holds the texts if none is named; None if the rows are texts."""
        if self.columns is not None:
            return self._default(self.columns, self.name) if self.columns else None
        first = next(iter(self.read([])), None)
        return self._default(list(first[1]), self.at(first[0])) if first and isinstance(first[1], Mapping) else None

    def _by_row(self, wanted: Sequence[Names | None], optional: Sequence[Names]) -> Iterator[tuple[Any, Any]]:
        default: str | None = None
        for number, row in self.read([]):
            if not isinstance(row, Mapping):
                if wanted[0] is not None or len(wanted) > 1:
                    names = [_either(each) for each in wanted if each is not None]
                    raise InputError(
                        f"{self.at(number)}: a row with the columns {', '.join(names)} is needed, not {described(row)}."
                    )
                yield number, (row, *(ABSENT for _ in optional))
                continue
            if None in wanted:
                default = self._same_default(default, row, self.at(number))
            cells = [row[default if names is None else self._named(names, row, self.at(number))] for names in wanted]
            found = [_first(names, row) for names in optional]
            yield number, (*cells, *(ABSENT if name is None else row[name] for name in found))

    def has_header(self, names: Sequence[str]) -> bool:
        """Whether these names of columns look like names; False: the first line of the file may be a row of texts."""
        return self.unit != "line" or not self.columns or all(map(_WORD.fullmatch, names))

    def _default(self, present: Sequence[str], where: str) -> str:
        if found := _first(TEXT, present):
            return found
        if len(present) != 1:
            raise InputError(
                f"{where} has the columns {listed(present)}, but neither 'text' nor 'sentence': name the column to "
                "read."
            )
        (only,) = present
        if not self.has_header([only]):
            raise InputError(
                f"{where}: the first line, '{only[:60]}', is the header, but it does not look like the name of a "
                "column. Add a header such as 'text', save the file as .txt if it has one text per line, or name the "
                "column."
            )
        say_once(f"{self.name}: the only column, '{only}', is read.")
        return only

    def _same_default(self, before: str | None, row: Mapping[str, Any], where: str) -> str:
        """The text column of a row; it must be the same in all rows."""
        if before is None:
            return self._default(list(row), where)
        self._named(before, row, where)
        if (found := _first(TEXT, row)) not in (before, None):
            raise InputError(
                f"{where}: there is a column '{found}', but the rows before have their text in '{before}'; name the "
                "column to read."
            )
        return before

    def _named(self, names: Names, present: Iterable[str], where: str) -> str:
        if (found := _first(names, present)) is not None:
            return found
        near = nearest(names if isinstance(names, str) else names[0], map(str, present))
        raise InputError(f"{where} has no column {_either(names)}; its columns are {listed(present)}.{near}")


def open_table(source: Any, *, txt_has_tabs: bool = False) -> Table:
    """The rows of any source.

    Args:
        source: A path, a list of paths, or one of the kinds that the module names.
        txt_has_tabs: Read a .txt file as a .tsv.

    Raises:
        InputError: The source is of another kind, or is a file that cannot be opened.
    """
    if (paths := paths_in(source)) is not None:
        tables = [_file(file, txt_has_tabs) for file in files_of(paths)]
        return tables[0] if len(tables) == 1 else _joined(name_of(paths), tables)
    if hasattr(source, "with_format") and not isinstance(source, Mapping):  # of the library `datasets`
        if hasattr(source, "__len__"):
            return _dataset(source)
        return Table("the stream", "row", None, lambda _: enumerate(source, start=1))
    if hasattr(source, "iloc") and (columns := [str(name) for name in names_of_columns(source)]):

        def of_frame(chosen: list[str]) -> Iterator[tuple[int, Any]]:
            read = (source.iloc[:, columns.index(name)] for name in chosen)
            return enumerate(zip(*read, strict=True), start=1)

        return Table("the DataFrame", "row", columns, of_frame)
    name = "the list of texts" if isinstance(source, list) else f"the {type(source).__name__}"
    values = items(source, f"T{name[1:]}")
    return Table(name, "row", None, lambda _: enumerate(values, start=1))


def _file(path: Path, txt_has_tabs: bool) -> Table:
    suffix, name = format_of(path), str(path)
    if suffix == ".txt" and not txt_has_tabs:
        return Table(name, "line", [], lambda _: read_lines(path))
    if suffix == ".jsonl":
        return Table(name, "line", None, lambda _: json_objects(path))
    if suffix == ".parquet":
        return Table(name, "row", parquet_columns(path), lambda chosen: parquet_rows(path, chosen))
    tabs = suffix != ".csv"
    _, header = next(csv_records(path, tabs=tabs), (0, None))
    if header is None:
        raise InputError(f"{path} is empty.")
    (only, *more) = header
    other = next((mark for mark in (";|," if tabs else "\t;|,") if mark in only), None)
    if not more and other:
        between, shown = ("tabs", ".tsv") if tabs else ("commas", ".csv")
        mark = "a tab" if other == "\t" else f"'{other}'"
        raise InputError(
            f"{path}: the header '{only[:60]}' holds {mark}, but the cells of a {shown} are separated by {between}. "
            f"Save the file with {between} between its cells{', or as .tsv' if other == chr(9) else ''}."
        )
    return Table(name, "line", header, lambda chosen: _separated(path, header, chosen, tabs))


def _joined(name: str, tables: Sequence[Table]) -> Table:
    """The rows of several files, one file after the other; the number of a row also names its file."""
    first = tables[0]
    for table in tables[1:]:
        if _sorted(table.columns) != _sorted(first.columns):
            raise InputError(
                f"{name}: the files have different columns, {_columns(first)} in {first.name} and {_columns(table)} in "
                f"{table.name}. Read them one by one, or give them the same columns."
            )

    unit = first.unit if all(table.unit == first.unit for table in tables) else ""

    def read(chosen: list[str]) -> Iterator[tuple[str, Any]]:
        for table in tables:
            for number, row in table.read(chosen):
                yield f"{number if unit else f'{table.unit} {number}'} of {table.name}", row

    return Table(name, unit, first.columns, read)


def _sorted(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else sorted(columns)


def _columns(table: Table) -> str:
    return "those of each line" if table.columns is None else listed(table.columns)


def _separated(
    path: Path, header: Sequence[str], chosen: Sequence[str], tabs: bool
) -> Iterator[tuple[int, tuple[str, ...]]]:
    records = csv_records(path, tabs=tabs)
    next(records, None)
    places = [header.index(name) for name in chosen]
    said = opened = False
    for number, cells in records:
        before, opened = opened, tabs and _opens(cells[-1])
        if len(cells) != len(header):
            hint = " A text in quotation marks has a line break, which a .tsv cannot hold: save the file as .csv."
            raise InputError(
                f"{path}, line {number}: this row has {len(cells)} cells, but the header has {len(header)}."
                f"{hint if before or opened else ''}"
            )
        row = tuple(cells[place] for place in places)
        # with more columns, the rest of a broken text is a row with too few cells
        said = said or (tabs and say_quoted(path, number, row, opened=opened and len(header) == 1))
        yield number, row


def _opens(cell: str) -> bool:
    """Whether a cell begins with a quotation mark that is not closed, as if its text went on in the next line."""
    return cell.startswith('"') and cell.count('"') % 2 == 1


def say_quoted(path: Path, number: int, cells: Iterable[str], *, opened: bool = False) -> bool:
    """Whether a cell of a .tsv stands in quotation marks, or only begins with one (`opened`), which is logged."""
    quoted = any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
    if opened:
        say_once(
            f"{path}, line {number}: a cell begins with a quotation mark that is not closed in this line. In a .tsv "
            "each line is a row of its own; if your texts have line breaks, save the file as .csv."
        )
    elif quoted:
        say_once(
            f"{path}, line {number}: a cell stands in quotation marks. In a .tsv they are a part of the text; save the "
            "file as .csv if they are not."
        )
    return quoted or opened


def _dataset(dataset: Any) -> Table:
    dataset = without_format(dataset)

    def of_columns(chosen: list[str]) -> Iterator[tuple[int, Any]]:
        batches = dataset.select_columns(chosen).iter(_BATCH)
        return enumerate((row for batch in batches for row in zip(*(batch[name] for name in chosen), strict=True)), 1)

    def of_transform(_: list[str]) -> Iterator[tuple[int, Any]]:
        rows = ((batch, row) for batch in map(_even, dataset.iter(_BATCH)) for row in zip(*batch.values(), strict=True))
        return enumerate((dict(zip(names, row, strict=True)) for names, row in rows), 1)

    if has_transform(dataset):
        return Table("the dataset", "row", None, of_transform)
    return Table("the dataset", "row", list(dataset.column_names), of_columns)


def _even(batch: dict[str, Any]) -> dict[str, Any]:
    if len({len(column) for column in batch.values()}) > 1:
        lengths = ", ".join(f"{len(column)} of '{name}'" for name, column in batch.items())
        raise InputError(f"The transform of the dataset returns columns of different lengths: {lengths}.")
    return batch


def has_transform(dataset: Any) -> bool:
    """Whether the rows of a `datasets.Dataset` pass through a function each time that they are read."""
    return getattr(dataset, "format", {}).get("type") == "custom"


def without_format(dataset: Dataset) -> Dataset:
    """A dataset whose rows hold Python values; a transform stays, and so do the columns that a format leaves."""
    chosen = dataset.format
    if chosen["type"] == "custom":
        return dataset
    plain = dataset if chosen["type"] is None else dataset.with_format(None)
    if chosen["output_all_columns"] or chosen["columns"] == dataset.column_names:
        return plain
    return plain.with_format(None).select_columns(chosen["columns"])


def cell_text(value: Any, where: str) -> str:
    """The text of a cell; a missing one is empty.

    Raises:
        InputError: The cell holds something else, or half of a surrogate pair.
    """
    if type(value) is str and value.isascii():
        return value
    return "" if is_missing(value) else check_text(value, where)


def cell_value(value: Any, where: str) -> str | int | float | bool | date | datetime | None:
    """The value of a cell that is kept beside a text.

    Text, numbers, truth values, dates and times stay what they are. A missing value is None, a nested one (a list, an
    object) is JSON text, and everything else is text, as `str` writes it.

    Raises:
        InputError: A text holds half of a surrogate pair.
    """
    if value is ABSENT or is_missing(value):
        return None
    if hasattr(value, "to_pydatetime"):  # of pandas
        value = value.to_pydatetime(warn=False)
    elif hasattr(value, "tolist"):  # of numpy: a number, a date or an array
        value = _of_numpy(value)
    if isinstance(value, (bool, float, date)) or (isinstance(value, int) and _fits_int64(value)):
        return value
    if isinstance(value, (list, tuple, dict)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return check_text(value if isinstance(value, str) else str(value), where)


def _of_numpy(value: Any) -> Any:
    """What a number, a date, a time or an array of numpy is in Python; a time that Python cannot hold is text."""
    kind = value.dtype.kind if type(value).__module__ == "numpy" else ""
    if kind not in ("m", "M"):
        return value.tolist()
    if value.dtype.str.rstrip("]")[-2:] in ("ns", "ps", "fs", "as"):  # of which numpy makes whole numbers
        value = value.astype(f"{kind}8[us]")
    found = value.tolist()
    return str(value) if isinstance(found, int) else found


def cell_id(value: Any, where: str) -> str | int:
    """The id in a cell: text or a whole number.

    Raises:
        InputError: The id is missing or blank, or is something else.
    """
    value = None if value is ABSENT or is_missing(value) else value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError(f"{where}: the id is missing. Give each row an id, or leave out the column of ids.")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        hint = " pandas makes floats of whole numbers if a cell is empty: save the column as text or Int64."
        raise InputError(
            f"{where}: an id must be text or a whole number, not {described(value)}."
            f"{hint if isinstance(value, float) else ''}"
        )
    if isinstance(value, str):
        return check_text(value, where)
    return value if _fits_int64(value) else str(value)


def _fits_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


@cache
def say_once(message: str) -> None:
    """Logs a warning, once in a process: a corpus is often read twice."""
    logger.warning("%s", message)


def _first(names: Names, present: Iterable[str]) -> str | None:
    return next((name for name in ([names] if isinstance(names, str) else names) if name in present), None)


def _either(names: Names) -> str:
    return f"'{names}'" if isinstance(names, str) else " or ".join(f"'{name}'" for name in names)
