"""The rows that a run trains on: read from a file, or given to a trainer in Python."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from glob import glob
from pathlib import Path
from typing import Any, overload

from textcl.data.arrow_files import arrow_windows
from textcl.data.catalogue import data_directory
from textcl.data.corpora import load_labelled, load_texts, load_triplets, repeats_earlier, say_left_out
from textcl.data.corpus_files import CorpusFiles, is_pattern
from textcl.data.formats import check_file, csv_records, plain_suffix
from textcl.data.kept import kept
from textcl.data.reading import Reading
from textcl.data.rows import has_transform, open_table, without_format
from textcl.errors import InputError
from textcl.metrics.labels import plain_label
from textcl.texts import check_text, described, is_missing, names_in

logger = logging.getLogger("textcl")

BUNDLED_TEXTS = Path(__file__).parents[1] / "assets" / "wordnet" / "glosses.txt"

_TEXTS = re.compile(r"text(_\d+)?|positive|negative")  # the columns that hold texts


READING_OPTIONS = ("column", "label_column", "limit", "drop_unlabelled", "dedup")
"""The options of `training_rows`; recipes record them under the same names."""


def training_rows(
    path: Path | Sequence[Path] | CorpusFiles,
    column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    drop_unlabelled: bool = False,
    dedup: bool = False,
) -> Any:
    """Reads texts, pairs or triplets from a file, from several, or from those that a pattern matches.

    The rows are kept in a file, which the next call maps into memory.

    Pairs and triplets are read if `column` names two or three columns, or if a csv or tsv file has SimCSE's columns
    (sent0, sent1, hard_neg).

    Args:
        path: Any files that `load_texts` reads.
        column: One column name, or two or three separated by commas (text, positive, hard negative).
        label_column: A column of labels to read as well, with one text column (default "text") or two.
        limit: Read only the first `limit` rows.
        drop_unlabelled: Leave out rows without a label, and log how many.
        dedup: Leave out rows that repeat an earlier one, see `textcl.data.corpora.repeats_earlier`.

    Raises:
        InputError: As in `load_texts`; or `drop_unlabelled` is given without a label column.
    """
    path = path if isinstance(path, CorpusFiles) else CorpusFiles(path)
    columns = tuple(names_in(column)) if column else _triplet_columns(path.files[0])
    if label_column is not None:
        rows = load_labelled(
            path, columns=columns or ("text",), label_column=label_column, limit=limit, drop_unlabelled=drop_unlabelled
        )
    elif drop_unlabelled:
        raise InputError("--drop-unlabelled leaves out rows without a label; name the labels with --label-column.")
    elif len(columns) > 1:
        rows = load_triplets(path, columns=columns, limit=limit)
    else:
        rows = load_texts(path, column=columns[0] if columns else None, limit=limit)
    return _without_copies(rows) if dedup else rows


def classes_of(
    path: CorpusFiles,
    column: str | None = None,
    label_column: str = "label",
    limit: int | None = None,
    drop_unlabelled: bool = False,
) -> list[Any]:
    """The labels of the rows that `training_rows` reads, in the order of their numbers. Arguments as there."""
    columns = names_in(column) if column else _triplet_columns(path.files[0]) or ("text",)
    reading = Reading(open_table(path, txt_has_tabs=True), columns, limit, label_column, drop_unlabelled)
    next(iter(reading), None)  # all rows were read before, to number their labels
    return reading.classes


def _without_copies(rows: Any) -> Any:
    """Rows without those that repeat an earlier one, kept in a file of their own."""
    import pyarrow

    def make(found: dict[str, Any]) -> Iterator[Any]:
        repeats = repeats_earlier(rows)
        found["left_out"] = int(repeats.sum())
        before = 0
        for table in arrow_windows(rows, rows.column_names):
            chosen = table.filter(pyarrow.array(~repeats[before : before + len(table)]))
            yield from chosen.combine_chunks().to_batches()
            before += len(table)

    left, found = kept({"rows": rows._fingerprint, "dedup": True}, rows.column_names, make)
    say_left_out(found["left_out"])
    return left


def as_training_rows(source: Any) -> Any:
    """The rows that a trainer was given, checked.

    Args:
        source: A `datasets.Dataset` (with a transform: its rows are read anew in each epoch) or one of its columns; a
            pandas DataFrame; a list or generator of dicts or of texts; or any other object with `len(rows)` and
            `rows[number]`, which is not changed if it holds rows, and read into memory if it holds texts.

    Returns:
        A `datasets.Dataset`, or the object with `len` and `[]`.

    Raises:
        InputError: The source is of another kind, or a streaming data set; or a row lacks a column that other rows
            have, holds something else than texts in "text", "positive" or "negative", or something else than a number
            from 0 in "label".
    """
    import pyarrow
    from datasets import Dataset

    if isinstance(source, (str, Path)):
        raise InputError("train_dataset must be rows, not a path; read them with textcl.load_texts.")
    if isinstance(source, Dataset):
        if has_transform(source):
            return source
        dataset = without_format(source)
        strings = {name for name, kind in dataset.features.items() if getattr(kind, "dtype", "") == "string"}
        names = [name for name in dataset.column_names if _is_read(name) and (name == "label" or name not in strings)]
        if names:
            rows = open_table(dataset).read(names)
            _check((number, dict(zip(names, row, strict=True))) for number, row in rows)
        return _with_blank_rows_said(dataset)
    if any(kind.__name__ == "IterableDataset" for kind in type(source).__mro__):  # of datasets, or of torch
        raise InputError(
            "train_dataset is a streaming data set, but training draws its rows in random order. "
            'Write it to files first, such as stream.to_parquet("rows.parquet"), and train on '
            'textcl.load_texts("rows.parquet"), or with --data rows.parquet. Files of any size take little memory.'
        )
    map_style = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if map_style and not isinstance(source, (list, tuple, Mapping)) and not hasattr(source, "ndim"):
        if not len(source) or not isinstance(source[0], str):
            return source
        source = [source[number] for number in range(len(source))]
    given = list(_dicts(source))
    if not given:
        raise InputError("train_dataset holds no row.")
    names = list(dict.fromkeys(name for row in given for name in row))
    for number, row in enumerate(given, start=1):
        if missing := [name for name in names if name not in row and _is_read(name)]:
            raise InputError(f"Training rows, row {number}: there is no {missing[0]!r}, which other rows have.")
    _check(enumerate(given, start=1))
    columns = {name: [None if is_missing(row.get(name)) else row[name] for row in given] for name in names}
    try:
        return _with_blank_rows_said(Dataset.from_dict(columns))
    except pyarrow.ArrowException as error:  # a column that holds values of several types
        raise InputError(f"The training rows cannot be put into a table: {error}.") from None


def whole_corpus(rows: Any, reader: str) -> Any:
    """`rows` as a `datasets.Dataset`, if they can be read as a whole before training.

    Args:
        rows: Training rows, see `as_training_rows`.
        reader: What reads them, for the message.

    Raises:
        InputError: They are an object of another class, have a transform, which may change them in each epoch, or have
            no column "text".
    """
    from datasets import Dataset

    if not isinstance(rows, Dataset):
        rows = as_training_rows(rows)
    if not isinstance(rows, Dataset) or has_transform(rows):
        kind = "a dataset with a transform" if isinstance(rows, Dataset) else f"a {type(rows).__name__}"
        raise InputError(
            f"{reader} reads the whole corpus before training, so it needs a datasets.Dataset without a transform or a "
            f"list of rows, not {kind}."
        )
    if "text" not in rows.column_names:
        raise InputError(f"{reader} needs a column 'text'; the rows have {rows.column_names}.")
    return rows


@overload
def find_corpus(name: str) -> Path: ...
@overload
def find_corpus(name: list[str]) -> list[Path]: ...
@overload
def find_corpus(name: str | list[str]) -> Path | list[Path]: ...
def find_corpus(name: str | list[str]) -> Path | list[Path]:
    """The path of a corpus, given its path or its name in the data directory. "bundled" is the corpus in textcl.

    Of several names, which may be those of the files of one corpus, it gives a list of paths.

    A pattern such as shards/*.jsonl.zst is returned as it is, if it matches files; see `textcl.data.corpus_files`.

    Raises:
        InputError: There is no such file.
    """
    if isinstance(name, list):
        return [find_corpus(each) for each in name]
    if name == "bundled":
        return BUNDLED_TEXTS
    places = (Path(name), data_directory() / name)
    for path in places:
        if path.is_file():
            return path
        if path.exists() or path.is_symlink():
            check_file(path)  # says what it is
        if is_pattern(path) and glob(str(path), recursive=True):
            return path
    if is_pattern(Path(name)):
        raise InputError(
            f"No file matches the pattern {name}, neither in the working directory nor in {data_directory()}."
        )
    raise InputError(f"There is no file {name}, neither in the working directory nor in {data_directory()}.")


def _triplet_columns(path: Path) -> tuple[str, ...]:
    """SimCSE's columns (sent0, sent1 and, if present, hard_neg) if the file has them, else none."""
    suffix = plain_suffix(path.name)
    if suffix not in (".csv", ".tsv"):
        return ()
    _, header = next(csv_records(path, tabs=suffix == ".tsv"), (0, []))
    return tuple(name for name in ("sent0", "sent1", "hard_neg") if name in header) if "sent1" in header else ()


def _is_read(name: Any) -> bool:
    return isinstance(name, str) and (name == "label" or _TEXTS.fullmatch(name) is not None)


def _dicts(source: Any) -> Iterator[dict[str, Any]]:
    """Rows as dicts: of a table, or of texts."""
    table = open_table(source)
    if table.columns:
        for _, row in table.read(table.columns):
            yield dict(zip(table.columns, row, strict=True))
        return
    for number, row in table.read([]):
        if isinstance(row, Mapping):
            yield {str(name): value for name, value in row.items()}
        else:
            yield {"text": check_text(row, f"Training rows, row {number}")}


def _with_blank_rows_said(dataset: Any) -> Any:
    """The dataset; a warning says how many of its rows have no text, each of which is trained on as a blank text."""
    import pyarrow.compute as pc

    names = [name for name in dataset.column_names if _TEXTS.fullmatch(name)]
    blank = 0
    for table in arrow_windows(dataset, names) if names else ():
        trimmed = (pc.utf8_trim_whitespace(pc.fill_null(table[name].cast("large_string"), "")) for name in names)
        blank += pc.sum(reduce(pc.and_, (pc.equal(column, "") for column in trimmed))).as_py()
    if blank:
        logger.warning(
            "%s of %s training rows have no text, and are trained on as blank texts. Leave them out; textcl.load_texts "
            "and load_triplets do.",
            f"{blank:,}",
            f"{len(dataset):,}",
        )
    return dataset


def _check(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Checks the texts and labels of (number, row)."""
    for number, row in rows:
        for name in filter(_is_read, row):
            value, where = row[name], f"Training rows, row {number}, column '{name}'"
            if name == "label":
                check_number(value, where)
            elif not is_missing(value):
                check_text(value, where)


def check_number(label: Any, where: str) -> int:
    """The label of a training row, a whole number from 0.

    Raises:
        InputError: It is something else.
    """
    number = plain_label(label)
    if not isinstance(number, int) or number < 0:
        shown = repr(number) if isinstance(number, (str, int)) else described(number)
        raise InputError(
            f"{where}: a label must be a whole number from 0, not {shown}. textcl.load_labelled numbers labels, and "
            "can leave out rows without one."
        )
    return number
