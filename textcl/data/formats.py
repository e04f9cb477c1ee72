"""Rows of txt, csv, tsv, jsonl and parquet files, plain or as .gz or .xz.

A line ends at a line feed and nowhere else: `str.splitlines` would also cut at \\x85 and \\u2028, which occur inside
sentences of real corpora, and pairs of files would drift apart.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import logging
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from textcl.errors import InputError, nearest

if TYPE_CHECKING:
    import os

logger = logging.getLogger("textcl")

_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}

_FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

_TEXT_COLUMNS = ("text", "sentence")


class ReadFile:
    """A file that was read once: what the readers here take in place of its path, so that it is not read again.

    Args:
        path: The file.

    Attributes:
        path: The file.
        content: Its bytes.
        sha256: Of its bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name, self.suffix = path.name, path.suffix
        self.content = path.read_bytes()
        self.sha256 = hashlib.sha256(self.content).hexdigest()

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


def as_file(source: str | os.PathLike[str] | ReadFile) -> Path | ReadFile:
    """A path, or the file that was read from it."""
    return source if isinstance(source, ReadFile) else Path(source)


def read_lines(path: str | os.PathLike[str] | ReadFile, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file, plain, .gz or .xz; a line feed ends a line.

    Raises:
        InputError: The file is missing, or a line is no valid text in `encoding` (file and line are named).
    """
    path = as_file(path)
    with open_file(path) as handle:
        for number, raw in enumerate(handle, 1):  # a binary file is cut at b"\n" alone
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {raw[error.start]:#04x} at position {error.start + 1} of the line "
                    f"is no valid UTF-8. Convert the file to UTF-8, for example with iconv."
                ) from None
            yield number, line.removesuffix("\n").removesuffix("\r")


@contextmanager
def open_file(path: Path | ReadFile) -> Iterator[BinaryIO]:
    """The bytes of `path`, decompressed if its last suffix says so."""
    if isinstance(path, Path) and not path.is_file():
        if path.is_dir():
            raise InputError(f"{path} is a directory; a file is needed.")
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean {path.with_name(similar[0])}?" if similar else ""
        raise InputError(f"There is no file {path}.{hint}")
    opener = _COMPRESSED.get(path.suffix.lower())
    try:
        raw = path.open("rb") if isinstance(path, Path) else io.BytesIO(path.content)
        with raw, opener(raw, "rb") if opener else raw as handle:
            yield cast(BinaryIO, handle)
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"{path} cannot be decompressed: {error}. It is damaged, or was only partly downloaded."
        ) from None


def column_names(path: Path | ReadFile) -> list[str]:
    """The columns of a .csv, .tsv, .jsonl (those of its first row) or .parquet, plain or compressed.

    Raises:
        InputError: The file is missing or empty, or has another suffix.
    """
    suffix = format_of(path)
    if suffix == ".parquet":
        with parquet_file(path) as file:
            return list(file.schema_arrow.names)
    if suffix == ".jsonl":
        names = next((list(row) for _, row in _json_objects(path)), [])
    else:
        _, names = next(csv_records(path, tabs=suffix == ".tsv"), (0, []))
    if not names:
        raise InputError(f"{path} is empty.")
    return names


def format_of(path: Path | ReadFile) -> str:
    """The suffix that says how the (decompressed) file is to be read."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    suffix = Path(name).suffix
    if suffix not in _FORMATS:
        raise InputError(
            f"{path} has the suffix '{suffix}'; textcl reads {', '.join(_FORMATS)}, and .gz or .xz of them."
        )
    return suffix


def read_rows(path: Path | ReadFile, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    """Yields the cells of the wanted columns, row by row; None stands for the default text column."""
    suffix = format_of(path)
    if suffix == ".parquet":
        yield from _parquet_rows(path, columns)
    elif suffix == ".jsonl":
        yield from _jsonl_rows(path, columns)
    else:
        yield from csv_rows(path, columns, tabs=suffix == ".tsv")


def csv_records(path: Path | ReadFile, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of its last line, cells) for each record that is not blank."""
    last = 0

    def source() -> Iterator[str]:
        nonlocal last
        for number, line in read_lines(path):
            last = number
            yield line + "\n"

    if tabs:
        for line in source():
            if line.strip():
                yield last, line[:-1].split("\t")
        return
    limit = csv.field_size_limit(sys.maxsize)  # the default, 131,072 characters, would refuse a long text
    try:
        for record in csv.reader(source(), strict=True):
            if record:
                yield last, record
    except csv.Error as error:
        raise InputError(f"{path}, line {last}: this is no valid csv: {error}.") from None
    finally:
        csv.field_size_limit(limit)


def csv_rows(path: Path | ReadFile, columns: Sequence[str] | None, *, tabs: bool) -> Iterator[tuple[str, ...]]:
    records = csv_records(path, tabs=tabs)
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} is empty.")
    present = header[1]
    wanted = [present.index(column) for column in pick_columns(present, columns, str(path))]
    for number, cells in records:
        if len(cells) != len(present):
            raise InputError(
                f"{path}, line {number}: this row has {len(cells)} cells where the header has {len(present)}."
            )
        yield tuple(cells[index] for index in wanted)


def _jsonl_rows(path: Path | ReadFile, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    chosen: list[str] | None = None
    for number, row in _json_objects(path):
        if chosen is None:
            chosen = pick_columns(list(row), columns, str(path))
        missing = [column for column in chosen if column not in row]
        if missing:
            raise InputError(f"{path}, line {number}: there is no '{missing[0]}'; there is {_listed(row)}.")
        yield tuple(row[column] for column in chosen)


def _json_objects(path: Path | ReadFile) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: this is no valid JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed, not a {type(row).__name__}.")
        yield number, row


def _parquet_rows(path: Path | ReadFile, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    with parquet_file(path) as file:
        chosen = pick_columns(file.schema_arrow.names, columns, str(path))
        for batch in file.iter_batches(columns=chosen):
            yield from zip(*(batch.column(column).to_pylist() for column in chosen), strict=True)


@contextmanager
def parquet_file(path: Path | ReadFile) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    with open_file(path) as handle:
        try:
            # a compressed stream cannot seek as parquet needs it, so its bytes are read at once
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(handle.read()) if _compressed(path) else handle)
        except pyarrow.ArrowInvalid as error:
            raise InputError(f"{path} is no valid parquet file: {error}") from None
        yield file


def _compressed(path: Path | ReadFile) -> bool:
    return path.suffix.lower() in _COMPRESSED


def pick_columns(present: Sequence[str], columns: Sequence[str] | None, name: str) -> list[str]:
    """The wanted columns, checked; without a wish "text", "sentence", or the only column."""
    if columns is None:
        for candidate in (*_TEXT_COLUMNS, *(present if len(present) == 1 else ())):
            if candidate in present:
                return [candidate]
        raise InputError(
            f"{name} has the columns {_listed(present)}, none of them 'text' or 'sentence': name the one to read."
        )
    for column in columns:
        if column not in present:
            raise InputError(
                f"{name} has no column '{column}'; its columns are {_listed(present)}.{nearest(column, present)}"
            )
    return list(columns)


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in islice(names, 20)) or "none"
