"""Readers of training text: txt, csv, tsv, jsonl and parquet, plain or as .gz or .xz, `datasets.Dataset`, lists.

A line ends at a line feed and nowhere else: `str.splitlines` would also cut at \\x85 and \\u2028, which occur inside
sentences of real corpora, and pairs of files would drift apart.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import logging
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from textcl.errors import InputError, nearest

if TYPE_CHECKING:
    import os

    from datasets import Dataset

logger = logging.getLogger("textcl")

HELD_OUT = 1000  # rows, or a tenth of a corpus with fewer than ten times as many
LONG_TEXT = 100_000  # characters; longer texts are read, and mentioned, since a tokenizer keeps only their beginning
_COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
_FORMATS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
_TEXT_COLUMNS = ("text", "sentence")


def load_texts(
    source: str | os.PathLike[str] | Dataset | Sequence[str], *, column: str | None = None, limit: int | None = None
) -> Dataset:
    """Reads a corpus, one text a row.

    Blank texts are dropped; duplicates and texts over 100,000 characters are kept. Each is counted in a warning.

    Args:
        source: A path (.txt has one text a line; .csv, .tsv, .jsonl and .parquet have columns; each also as .gz or
            .xz), a `datasets.Dataset`, or a list of strings. Fields of a .tsv are taken as they stand: a quotation
            mark in it is a character like any other.
        column: The column to read; by default "text", "sentence", or the only one there is.
        limit: Read this many texts and no more.

    Returns:
        A dataset with the one column "text".

    Raises:
        InputError: The file is missing, empty, has one text only, is no valid UTF-8 (the line is named), has an
            unknown suffix, or lacks the column (those that it has are named).

    Example:
        >>> load_texts(["A first sentence.", "A second one."])["text"][1]
        'A second one.'
    """
    name, values = _named_values(source, column)
    texts: list[str] = []
    blank = 0
    for number, value in enumerate(values, 1):
        if limit is not None and len(texts) == limit:
            break
        text = as_text(value, name, number).strip()
        if text:
            texts.append(text)
        else:
            blank += 1
    _check_size(len(texts), name)
    _warn(blank, "blank line was dropped", "blank lines were dropped", name)
    _warn(
        len(texts) - len(set(texts)),
        "text is a duplicate of an earlier one",
        "texts are duplicates of earlier ones",
        name,
    )
    _warn_long(texts, name)
    return _dataset({"text": texts})


def read_texts(source: str | os.PathLike[str] | Dataset | Sequence[str], *, column: str | None = None) -> Iterator[str]:
    """Yields the texts of a corpus one by one, as `load_texts` reads them, without holding the others.

    A blank text is yielded as "", so that counting gives the number of the row.

    Raises:
        InputError: As `load_texts`, when the place is reached; an empty corpus yields nothing.
    """
    name, values = _named_values(source, column)
    for number, value in enumerate(values, 1):
        yield as_text(value, name, number).strip()


def load_triplets(
    source: str | os.PathLike[str] | Dataset,
    *,
    columns: Sequence[str] = ("sent0", "sent1", "hard_neg"),
    limit: int | None = None,
) -> Dataset:
    """Reads (text, positive, hard negative) rows, or (text, positive) rows when two columns are named.

    An empty cell becomes a single space, as in the SimCSE training script (Gao et al. 2021, `train.py`); rows whose
    cells are all empty are dropped.

    Args:
        source: A .csv, .tsv, .jsonl or .parquet path (or .gz or .xz of one), or a `datasets.Dataset`.
        columns: Names of the text, positive and, optionally, negative columns.
        limit: Read this many rows and no more.

    Returns:
        A dataset with the columns "text", "positive" and, for three columns, "negative".

    Raises:
        InputError: As `load_texts`.

    Example:
        >>> triplets = load_triplets("nli_for_simcse.csv")  # doctest: +SKIP
        >>> pairs = load_triplets("questions.tsv", columns=("title", "body"))  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (2, 3):
        raise InputError(f"load_triplets takes two or three column names, not {columns!r}.")
    if _is_path(source):
        path = Path(cast("str | os.PathLike[str]", source))
        name = str(path)
        if _format(path) == ".txt":
            raise InputError(
                f"{name} is a text file without columns; pairs and triplets are read from .csv, .tsv, "
                ".jsonl or .parquet."
            )
        rows: Iterator[tuple[Any, ...]] = read_rows(path, columns)
    elif hasattr(source, "column_names"):
        dataset = cast("Dataset", source)
        name = "the dataset"
        _pick(dataset.column_names, columns, name)
        rows = zip(*(dataset[column] for column in columns), strict=True)
    else:
        raise InputError(f"load_triplets takes a path or a datasets.Dataset, not a {type(source).__name__}.")

    kept: list[tuple[str, ...]] = []
    blank = 0
    for number, row in enumerate(rows, 1):
        if limit is not None and len(kept) == limit:
            break
        cells = [as_text(value, name, number).strip() for value in row]
        if any(cells):
            kept.append(tuple(cell or " " for cell in cells))
        else:
            blank += 1
    _check_size(len(kept), name)
    _warn(blank, "blank row was dropped", "blank rows were dropped", name)
    _warn(
        len(kept) - len(set(kept)), "row is a duplicate of an earlier one", "rows are duplicates of earlier ones", name
    )
    _warn_long(list(chain.from_iterable(kept)), name)
    names = ("text", "positive", "negative")[: len(columns)]
    return _dataset({key: list(values) for key, values in zip(names, zip(*kept, strict=True), strict=True)})


def load_labelled(
    source: str | os.PathLike[str],
    *,
    columns: Sequence[str] = ("text",),
    label_column: str = "label",
    limit: int | None = None,
) -> Dataset:
    """Reads rows of one or two texts and a label, such as sentence pairs with an entailment judgement.

    Rows whose texts are all blank are dropped.

    Args:
        source: A .csv, .tsv, .jsonl or .parquet path (or .gz or .xz of one); a .txt is read as a .tsv, which is what
            SICK's files are.
        columns: Names of the text and, optionally, positive columns.
        label_column: The labels' column: any names, or numbers.
        limit: Read this many rows and no more.

    Returns:
        A dataset with the columns "text", perhaps "positive", and "label": numbers from 0, in the order of the sorted
        names.

    Raises:
        InputError: As `load_texts`.

    Example:
        >>> columns = ("sentence_A", "sentence_B")
        >>> load_labelled("SICK_train.txt", columns=columns, label_column="entailment_judgment")  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (1, 2):
        raise InputError(f"load_labelled takes one or two columns of texts, not {columns!r}.")
    path = Path(source)
    wanted = [*columns, label_column]
    rows = _csv_rows(path, wanted, tabs=True) if _format(path) == ".txt" else read_rows(path, wanted)
    kept: list[tuple[list[str], str]] = []
    for number, row in enumerate(rows, 1):
        if limit is not None and len(kept) == limit:
            break
        texts = [as_text(value, str(path), number).strip() for value in row[:-1]]
        if any(texts):
            kept.append(([text or " " for text in texts], str(row[-1]).strip()))
    _check_size(len(kept), str(path))
    found = {label for _, label in kept}
    names = sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
    logger.info("%s: %d labels, %s.", path, len(names), ", ".join(names[:5]) + (", …" if len(names) > 5 else ""))
    number_of = {name: number for number, name in enumerate(names)}
    of_column = {
        key: [texts[index] for texts, _ in kept] for index, key in enumerate(("text", "positive")[: len(columns)])
    }
    return _dataset({**of_column, "label": [number_of[label] for _, label in kept]})


def hold_out(dataset: Dataset, rows: int | None = None) -> tuple[Dataset, list[str]]:
    """Splits off the last rows of a corpus, so that a criterion without labels sees texts that were not trained on.

    Args:
        dataset: Rows with "text", as the readers here give them.
        rows: How many; default: 1,000, at most a tenth.

    Returns:
        The rows to train on, and the texts of the others: each once, and only those that no row trained on holds.

    Raises:
        InputError: If there are not so many rows, or all of those texts are trained on.

    Example:
        >>> train, held_out = hold_out(load_texts([f"Text number {n}." for n in range(100)]))  # doctest: +SKIP
        >>> len(train), len(held_out)  # doctest: +SKIP
        (90, 10)
    """
    count = min(HELD_OUT, len(dataset) // 10) if rows is None else rows
    if not 0 < count < len(dataset):
        raise InputError(f"{count:,} rows cannot be held out of the {len(dataset):,} that there are.")
    kept = dataset.select(range(len(dataset) - count))
    seen = {text for column in set(kept.column_names) & {"text", "positive", "negative"} for text in kept[column]}
    texts = [text for text in dict.fromkeys(dataset[-count:]["text"]) if text not in seen]
    if not texts:
        raise InputError(f"All texts of the last {count:,} rows are trained on as well, so that none is held out.")
    return kept, texts


def read_lines(path: str | os.PathLike[str], encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end) of a text file, plain, .gz or .xz; a line feed ends a line.

    Raises:
        InputError: The file is missing, or a line is no valid text in `encoding` (file and line are named).
    """
    return _lines(Path(path), encoding)


def _named_values(
    source: str | os.PathLike[str] | Dataset | Sequence[str], column: str | None
) -> tuple[str, Iterator[Any]]:
    """What errors call a corpus, and the cells of its text column."""
    if _is_path(source):
        path = Path(cast("str | os.PathLike[str]", source))
        name = str(path)
        if _format(path) == ".txt":
            if column is not None:
                raise InputError(
                    f"{name} is a text file and has no columns, so column '{column}' cannot be read from it."
                )
            return name, (line for _, line in _lines(path))
        return name, (row[0] for row in read_rows(path, None if column is None else [column]))
    if isinstance(source, Sequence):
        return "the list of texts", iter(source)
    dataset = cast("Dataset", source)
    (chosen,) = _pick(dataset.column_names, None if column is None else [column], "the dataset")
    return "the dataset", iter(dataset[chosen])


def _lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    with _open(path) as handle:
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
def _open(path: Path) -> Iterator[BinaryIO]:
    """The bytes of `path`, decompressed where its last suffix says so."""
    if not path.is_file():
        if path.is_dir():
            raise InputError(f"{path} is a directory; a file is needed.")
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean {path.with_name(similar[0])}?" if similar else ""
        raise InputError(f"There is no file {path}.{hint}")
    opener = _COMPRESSED.get(path.suffix.lower())
    try:
        with opener(path, "rb") if opener else path.open("rb") as handle:
            yield cast(BinaryIO, handle)
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"{path} cannot be decompressed: {error}. It is damaged, or was only partly downloaded."
        ) from None


def column_names(path: Path) -> list[str]:
    """The columns of a .csv, .tsv, .jsonl (those of its first row) or .parquet, plain or compressed.

    Raises:
        InputError: The file is missing or empty, or has another suffix.
    """
    suffix = _format(path)
    if suffix == ".parquet":
        with _parquet_file(path) as file:
            return list(file.schema_arrow.names)
    if suffix == ".jsonl":
        names = next((list(row) for _, row in _json_objects(path)), [])
    else:
        _, names = next(csv_records(path, tabs=suffix == ".tsv"), (0, []))
    if not names:
        raise InputError(f"{path} is empty.")
    return names


def _format(path: Path) -> str:
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


def read_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    """Yields the cells of the wanted columns, row by row; None stands for the default text column."""
    suffix = _format(path)
    if suffix == ".parquet":
        yield from _parquet_rows(path, columns)
    elif suffix == ".jsonl":
        yield from _jsonl_rows(path, columns)
    else:
        yield from _csv_rows(path, columns, tabs=suffix == ".tsv")


def csv_records(path: Path, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of its last line, cells) for each record that is not blank."""
    last = 0

    def source() -> Iterator[str]:
        nonlocal last
        for number, line in _lines(path):
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


def _csv_rows(path: Path, columns: Sequence[str] | None, *, tabs: bool) -> Iterator[tuple[str, ...]]:
    records = csv_records(path, tabs=tabs)
    header = next(records, None)
    if header is None:
        raise InputError(f"{path} is empty.")
    present = header[1]
    wanted = [present.index(column) for column in _pick(present, columns, str(path))]
    for number, cells in records:
        if len(cells) != len(present):
            raise InputError(
                f"{path}, line {number}: this row has {len(cells)} cells where the header has {len(present)}."
            )
        yield tuple(cells[index] for index in wanted)


def _jsonl_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    chosen: list[str] | None = None
    for number, row in _json_objects(path):
        if chosen is None:
            chosen = _pick(list(row), columns, str(path))
        missing = [column for column in chosen if column not in row]
        if missing:
            raise InputError(f"{path}, line {number}: there is no '{missing[0]}'; there is {_listed(row)}.")
        yield tuple(row[column] for column in chosen)


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: this is no valid JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed, not a {type(row).__name__}.")
        yield number, row


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    with _parquet_file(path) as file:
        chosen = _pick(file.schema_arrow.names, columns, str(path))
        for batch in file.iter_batches(columns=chosen):
            yield from zip(*(batch.column(column).to_pylist() for column in chosen), strict=True)


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    with _open(path) as handle:
        try:
            # a compressed stream cannot seek as parquet needs it, so its bytes are read at once
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(handle.read()) if _compressed(path) else handle)
        except pyarrow.ArrowInvalid as error:
            raise InputError(f"{path} is no valid parquet file: {error}") from None
        yield file


def _compressed(path: Path) -> bool:
    return path.suffix.lower() in _COMPRESSED


def _pick(present: Sequence[str], columns: Sequence[str] | None, name: str) -> list[str]:
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


def _is_path(source: Any) -> bool:
    return isinstance(source, str) or hasattr(source, "__fspath__")


def as_text(value: Any, name: str, number: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}, row {number}: a text is needed, not a {type(value).__name__}.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer takes
            raise InputError(
                f"{name}, row {number}: the text holds half of a surrogate pair, which is no character."
            ) from None
    return value


def _check_size(count: int, name: str) -> None:
    if count == 0:
        raise InputError(f"{name} holds no text.")
    if count == 1:
        raise InputError(f"{name} holds one text only; contrastive training compares texts and needs at least two.")


def _warn(count: int, one: str, many: str, name: str) -> None:
    if count:
        logger.warning("%s: %s %s.", name, f"{count:,}", one if count == 1 else many)


def _warn_long(texts: Sequence[str], name: str) -> None:
    count = sum(len(text) > LONG_TEXT for text in texts)
    one, many = (f"has more than {LONG_TEXT:,} characters", f"have more than {LONG_TEXT:,} characters")
    _warn(count, f"text {one}; the tokenizer will truncate it", f"texts {many}; the tokenizer will truncate them", name)


def _dataset(columns: dict[str, Any]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict(columns)
