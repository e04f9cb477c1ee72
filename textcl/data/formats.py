"""Reading txt, csv, tsv, jsonl and parquet files, plain or as .gz, .xz or .zst.

Only a line feed ends a line. `str.splitlines` would also split at \\x85 and \\u2028, which occur inside sentences of
real corpora; the lines of two parallel files would then no longer match.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import lzma
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textcl.errors import InputError

if TYPE_CHECKING:
    import os


def _open_zst(raw: io.BufferedIOBase, mode: str) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode[0]), "zstd")


_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zst}

_FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

# byte order marks; that of UTF-32 begins with that of UTF-16, so it comes first
_OTHER_ENCODINGS = {"UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-16": (b"\xff\xfe", b"\xfe\xff")}

LONGEST_LINE = 1 << 28  # bytes; a longer line is not a text, and reading it could exhaust the memory
_CSV_LIMIT = threading.Lock()  # the limit of a cell is one for all readers of the csv module

LARGEST_PARQUET = 1 << 32  # bytes of a decompressed .parquet.gz (.xz, .zst), all of which are in memory


def check_file(path: Path) -> None:
    """Checks that a path is a file, which can be read several times.

    Raises:
        InputError: It does not exist (a similar name is suggested), or is a directory, a pipe or a device.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise InputError(f"{path} is a directory; a file is needed.")
    if path.exists():
        raise InputError(
            f"{path} is a pipe or a device, which can be read only once, but texts are read several times. Write them "
            "to a file first, such as texts.txt, and name that file."
        )
    if path.is_symlink():
        raise InputError(f"{path} is a link to {path.readlink()}, which does not exist.")
    siblings = [entry.name for entry in path.parent.iterdir() if entry.is_file()] if path.parent.is_dir() else []
    similar = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f" Did you mean {path.with_name(similar[0])}?" if similar else ""
    raise InputError(f"There is no file {path}.{hint}")


def read_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file, plain or as .gz, .xz or .zst.

    Raises:
        InputError: The file is missing, or a line is not valid in `encoding`, holds a NUL byte, or is longer than
            `LONGEST_LINE` (the message names file and line).
    """
    path = Path(path)
    with open_file(path) as handle:
        lines = iter(lambda: handle.readline(LONGEST_LINE + 1), b"")  # a binary file is split only at b"\n"
        for number, raw in enumerate(lines, 1):
            if number == 1:
                raw = _checked_beginning(raw, path, whole=b"\r" in raw.rstrip(b"\r\n") and not handle.peek(1))
            if b"\0" in raw:
                raise InputError(
                    f"{path}, line {number} holds a NUL byte, so the file is UTF-16 or not text. Convert UTF-16 with "
                    "iconv -f UTF-16 -t UTF-8."
                )
            if len(raw) > LONGEST_LINE:
                raise InputError(
                    f"{path}, line {number} is longer than {LONGEST_LINE:,} bytes. Put each text into a line of its "
                    "own."
                )
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {raw[error.start]:#04x} at position {error.start + 1} of the line "
                    f"is not valid UTF-8. Convert the file to UTF-8, for example with iconv."
                ) from None
            yield number, line.removesuffix("\n").removesuffix("\r")


def _checked_beginning(raw: bytes, path: Path, *, whole: bool) -> bytes:
    """The first line without a byte order mark of UTF-8; `whole`: it is the whole file and holds carriage returns."""
    for name, marks in _OTHER_ENCODINGS.items():
        if raw.startswith(marks):
            raise InputError(f"{path} is {name}. Convert it to UTF-8 with iconv -f {name} -t UTF-8.")
    if whole and b"\0" not in raw:
        raise InputError(
            f"{path} ends its lines with carriage returns alone, so it would be one text. Convert it, for example with "
            "tr '\\r' '\\n'."
        )
    return raw.removeprefix(b"\xef\xbb\xbf")


@contextmanager
def open_file(path: Path) -> Iterator[io.BufferedReader]:
    """Opens `path` to read bytes, decompressed if its last suffix is .gz, .xz or .zst."""
    check_file(path)
    opener = _COMPRESSED.get(path.suffix.lower())
    try:
        with (
            path.open("rb") as raw,
            opener(raw, "rb") if opener else raw as handle,
            io.BufferedReader(handle, 1 << 16) as buffered,
        ):
            yield buffered
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if opener is None or getattr(error, "errno", None) is not None:
            raise  # an error of the disk; the OSErrors for a damaged .gz or .zst have no number
        raise InputError(
            f"{path} cannot be decompressed: {error}. It is damaged or was downloaded only in part."
        ) from None


def plain_suffix(name: str) -> str:
    """The suffix of a file's name in lower case, without that of a compression: ".csv" for both a.csv and a.csv.gz."""
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def is_text_file(name: str) -> bool:
    """Whether a name ends as that of a file that textcl reads, such as .txt or .jsonl.zst."""
    return plain_suffix(name) in _FORMATS


def format_of(path: Path) -> str:
    """The suffix that gives the format of the (decompressed) file, such as ".csv".

    Raises:
        InputError: The suffix is unknown, or the path is a pipe or a device.
    """
    suffix = plain_suffix(path.name)
    if suffix not in _FORMATS:
        if path.exists() and not path.is_dir():
            check_file(path)  # a pipe often has no suffix, and that is not why it cannot be read
        raise InputError(
            f"{path} has {f'the suffix {suffix!r}' if suffix else 'no suffix'}; textcl reads {', '.join(_FORMATS)}, "
            "each also as .gz, .xz or .zst."
        )
    return suffix


def csv_records(path: Path, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells) for each record. The line number is that of its last line.

    A line without cells is left out if it comes before the header, or if the header has several columns. If there is
    one column, such a line is a row with an empty cell, so that the rows are counted as in other formats.
    """
    columns = 0
    for number, cells in _records(path, tabs):
        empty = len(cells) < 2 and not "".join(cells).strip()
        if empty and columns != 1:
            continue
        columns = columns or len(cells)
        yield number, cells or [""]


def _records(path: Path, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, cells) for each record; csv gives no cell for an empty line, and tabs give an empty one."""
    last = 0

    def source() -> Iterator[str]:
        nonlocal last
        for number, line in read_lines(path):
            last = number
            yield line + "\n"

    if tabs:
        for line in source():
            yield last, line[:-1].split("\t")
        return
    records = csv.reader(source(), strict=True)
    while True:
        with _CSV_LIMIT:
            limit = csv.field_size_limit(LONGEST_LINE)  # the default, 131,072 characters, would refuse a long text
            try:
                record = next(records, None)
            except csv.Error as error:
                raise InputError(f"{path}, line {last}: this is not valid csv: {error}.") from None
            finally:
                csv.field_size_limit(limit)
        if record is None:
            return
        yield last, record


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) for each line of a .jsonl file that is not blank."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # RecursionError: a value that is nested too deeply
            what = {"[": "one JSON array", "{": "JSON over several lines"}.get(line.strip())
            hint = f" The file is {what}; a .jsonl has one object in each line." if what else ""
            reason = getattr(error, "msg", str(error))
            raise InputError(f"{path}, line {number}: this is not valid JSON: {reason}.{hint}") from None
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {number}: the line must be a JSON object, not a {type(row).__name__}; a .jsonl has one "
                "object in each line."
            )
        yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return row


def parquet_columns(path: Path) -> list[str]:
    """The names of the columns of a .parquet file."""
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yields (row number from 1, cells of the columns) of a .parquet file."""
    import pyarrow

    number = 0
    with _parquet(path) as file:
        batches = file.iter_batches(columns=list(columns))
        while True:
            try:
                batch = next(batches, None)
                cells = [] if batch is None else [batch.column(column).to_pylist() for column in columns]
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InputError(f"{path} cannot be read behind row {number:,}: {error}. It is damaged.") from None
            if batch is None:
                return
            for row in zip(*cells, strict=True):
                number += 1
                yield number, row


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    with open_file(path) as handle:
        if handle.peek(4)[:4] != b"PAR1":
            raise InputError(f"{path} is not a valid parquet file: it does not begin with PAR1.")
        source: Any = handle
        if path.suffix.lower() in _COMPRESSED:
            # parquet needs to seek, which a compressed stream cannot do well, so all its bytes are read first
            content = handle.read(LARGEST_PARQUET + 1)
            if len(content) > LARGEST_PARQUET:
                raise InputError(f"{path} holds more than {LARGEST_PARQUET:,} bytes; decompress it first.")
            source = pyarrow.BufferReader(content)
        try:
            file = pyarrow.parquet.ParquetFile(source)
            _ = file.schema_arrow.names  # raises UnicodeDecodeError if a name is not UTF-8
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a valid parquet file: {error}") from None
        yield file


def listed(names: Any) -> str:
    """The first twenty names in quotation marks, for messages."""
    return ", ".join(f"'{name}'" for name in islice(names, 20)) or "none"
