"""Rows of txt, csv, tsv, jsonl and parquet files, plain or as .gz or .xz.

Only a line feed ends a line. `str.splitlines` would also split at \\x85 and \\u2028, which occur inside sentences of
real corpora; the lines of two parallel files would then no longer match.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
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

_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}

_FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

_TEXT_COLUMNS = ("text", "sentence")


class ReadFile:
    """A file that is read once and kept in memory. The readers in this file take it in place of a path.

    Args:
        path: The path of the file.

    Attributes:
        path: The path of the file.
        content: The bytes of the file.
        sha256: The SHA-256 of the bytes.
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
    """`source` itself if it is a `ReadFile`, else a `Path`."""
    return source if isinstance(source, ReadFile) else Path(source)


def read_lines(path: str | os.PathLike[str] | ReadFile, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file, plain or as .gz or .xz.

    Raises:
        InputError: The file is missing, or a line is not valid in `encoding` (the message names file and line).
    """
    path = as_file(path)
    with open_file(path) as handle:
        for number, raw in enumerate(handle, 1):  # a binary file is split only at b"\n"
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {raw[error.start]:#04x} at position {error.start + 1} of the line "
                    f"is not valid UTF-8. Convert the file to UTF-8, for example with iconv."
                ) from None
            yield number, line.removesuffix("\n").removesuffix("\r")


@contextmanager
def open_file(path: Path | ReadFile) -> Iterator[BinaryIO]:
    """Opens `path` to read bytes, decompressed if its last suffix is .gz or .xz."""
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
            f"{path} cannot be decompressed: {error}. It is damaged or was downloaded only in part."
        ) from None


def column_names(path: Path | ReadFile) -> list[str]:
    """The column names of a .csv, .tsv, .jsonl (those of its first row) or .parquet file, plain or compressed.

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
    """The suffix that gives the format of the (decompressed) file, such as ".csv"."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    suffix = Path(name).suffix
    if suffix not in _FORMATS:
        raise InputError(
            f"{path} has the suffix '{suffix}'; textcl reads {', '.join(_FORMATS)}, each also as .gz or .xz."
        )
    return suffix


def read_rows(path: Path | ReadFile, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    """Yields the cells of the wanted columns, row by row; None means the default text column."""
    suffix = format_of(path)
    if suffix == ".parquet":
        yield from _parquet_rows(path, columns)
    elif suffix == ".jsonl":
        yield from _jsonl_rows(path, columns)
    else:
        yield from csv_rows(path, columns, tabs=suffix == ".tsv")


def csv_records(path: Path | ReadFile, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells) for each record that is not blank. The line number is that of its last line."""
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
    limit = csv.field_size_limit(sys.maxsize)  # the default limit of 131,072 characters would refuse a long text
    try:
        for record in csv.reader(source(), strict=True):
            if record:
                yield last, record
    except csv.Error as error:
        raise InputError(f"{path}, line {last}: this is not valid csv: {error}.") from None
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
                f"{path}, line {number}: this row has {len(cells)} cells, but the header has {len(present)}."
            )
        yield tuple(cells[index] for index in wanted)


def _jsonl_rows(path: Path | ReadFile, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    chosen: list[str] | None = None
    for number, row in _json_objects(path):
        if chosen is None:
            chosen = pick_columns(list(row), columns, str(path))
        missing = [column for column in chosen if column not in row]
        if missing:
            raise InputError(f"{path}, line {number}: there is no field '{missing[0]}'; the fields are {_listed(row)}.")
        yield tuple(row[column] for column in chosen)


def _json_objects(path: Path | ReadFile) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: this is not valid JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: the line must be a JSON object, not a {type(row).__name__}.")
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
            # parquet needs to seek, which a compressed stream cannot do well, so all its bytes are read first
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(handle.read()) if _compressed(path) else handle)
        except pyarrow.ArrowInvalid as error:
            raise InputError(f"{path} is not a valid parquet file: {error}") from None
        yield file


def _compressed(path: Path | ReadFile) -> bool:
    return path.suffix.lower() in _COMPRESSED


def pick_columns(present: Sequence[str], columns: Sequence[str] | None, name: str) -> list[str]:
    """The wanted columns, after checking that they exist. Default: "text", else "sentence", else the only column."""
    if columns is None:
        for candidate in (*_TEXT_COLUMNS, *(present if len(present) == 1 else ())):
            if candidate in present:
                return [candidate]
        raise InputError(
            f"{name} has the columns {_listed(present)}, but neither 'text' nor 'sentence': name the column to read."
        )
    for column in columns:
        if column not in present:
            raise InputError(
                f"{name} has no column '{column}'; its columns are {_listed(present)}.{nearest(column, present)}"
            )
    return list(columns)


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in islice(names, 20)) or "none"
