"""Training texts, pairs, triplets and labelled rows, from files, datasets, data frames, lists and generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from textcl.data.arrow_files import arrow_windows, batches_of, in_memory, texts_in
from textcl.data.corpus_files import CorpusFiles, files_of, paths_in, source_name
from textcl.data.formats import listed, plain_suffix
from textcl.data.kept import kept
from textcl.data.reading import COLUMNS, Found, Reading, check_size, say, say_blank, warn
from textcl.data.repeats import Repeats
from textcl.data.rows import cell_id, cell_text, cell_value, open_table
from textcl.errors import InputError, nearest
from textcl.texts import bare, described

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT = 1000  # rows; a tenth of the corpus if it has fewer than ten times as many
LARGE = 1 << 26  # bytes of files; the rows of larger ones are not kept in memory


def load_texts(source: Any, *, column: str | None = None, limit: int | None = None, at_least: int = 2) -> Dataset:
    """Reads a corpus, one text per row.

    Blank texts are dropped. Duplicates and texts over 100,000 characters are kept. A warning gives the number of each.

    Args:
        source: A path (.txt has one text per line; .csv, .tsv, .jsonl and .parquet have columns; each also as .gz,
            .xz or .zst), a list of `Path` objects, whose files are read in this order, a `datasets.Dataset` or stream,
            a pandas DataFrame or Series, a numpy array, or a list or generator of strings (the texts themselves) or of
            dicts. In a .tsv a quotation mark is an ordinary character. A transform of a dataset is applied.
        column: The column to read; default: "text", else "sentence", else the only column.
        limit: Read at most this many texts.
        at_least: The number of texts that are needed; training compares texts and needs two.

    Returns:
        A dataset with one column, "text".

    Raises:
        InputError: The source is of another kind or holds no text; a file is missing, has an unknown suffix or is not
            valid UTF-8 (the message names the line); a row lacks the column (the message names the columns that it
            has) or has something else than a text there.

    Example:
        >>> load_texts(["A first sentence.", "A second one."])["text"][1]
        'A second one.'
    """
    return _collected(source, [column], limit, at_least=at_least)


def read_texts(source: Any, *, column: str | None = None) -> Iterator[str]:
    """Yields the texts of a corpus one by one, as `load_texts` reads them, without loading the whole corpus.

    A blank text is yielded as "", so that the n-th text is always that of the n-th row.

    Raises:
        InputError: As in `load_texts`, but only when the faulty row is reached. An empty corpus yields nothing.
    """
    table = open_table(source)
    for number, (value,) in table.cells([column]):
        yield cell_text(value, table.at(number)).strip()


def read_rows(
    source: Any, *, column: str | None = None, id_column: str | None = None, columns: Sequence[str] = ()
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields (text, values beside it) of each row, one by one. The texts are those of `read_texts`.

    Args:
        source: As in `load_texts`.
        column: The column of the texts, as in `load_texts`.
        id_column: A column of ids; its value comes first.
        columns: Columns whose values come next, see `textcl.data.rows.cell_value`; None where a row lacks the column.

    Raises:
        InputError: As in `read_texts`; or an id is missing, or is neither text nor a whole number.
    """
    table = open_table(source)
    wanted: list[str | None] = [column] if id_column is None else [column, id_column]
    by_row = table.columns is None  # then a row may lack a column
    first = len(wanted)
    for number, row in table.cells(wanted if by_row else [*wanted, *columns], columns if by_row else ()):
        text, where = cell_text(row[0], table.at(number)).strip(), table.at(number)
        if first + len(columns) == 1 or not text:  # the id of a row without a text may be missing
            yield text, ()
            continue
        ids = [cell_id(row[1], f"{where}, column '{id_column}'")] if id_column is not None else []
        yield text, (*ids, *(cell_value(value, where) for value in row[first:]))


def read_with_ids(
    source: Any, *, column: str | None = None, id_column: str | None = None, limit: int | None = None
) -> tuple[list[str], list[Any]]:
    """The texts of a corpus and the id of each; rows without a text are left out, which is logged.

    Args:
        source: As in `load_texts`.
        column: The column of the texts, as in `load_texts`.
        id_column: A column of ids; None: the id is the number of the row, and blank rows count.
        limit: Read at most this many texts.

    Raises:
        InputError: As in `read_rows`; or there is no text.
    """
    name = source_name(source)
    texts: list[str] = []
    ids: list[Any] = []
    blank = 0
    for row, (text, beside) in enumerate(read_rows(source, column=column, id_column=id_column)):
        if not text:
            blank += 1
            continue
        texts.append(text)
        ids.append(beside[0] if beside else row)
        if len(texts) == limit:
            break
    if not texts:
        raise InputError(f"{name} holds no text.")
    say_blank(blank, name, own_ids=bool(id_column))
    return texts, ids


def columns_beside(
    source: Any, columns: Sequence[str], *, column: str | None = None, id_column: str | None = None
) -> list[str]:
    """The names of the columns to keep, each once; "all" stands for all columns but those of the texts and the ids.

    Raises:
        InputError: There is no such column.
    """
    columns = columns if isinstance(columns, str) else list(columns)  # also of a data frame's columns
    if not columns:
        return []
    table = open_table(source)
    there = table.names()
    if columns == "all" and there:
        text = column or table.text_column()
        return [name for name in there if name not in (text, id_column)]
    if isinstance(columns, str) and columns != "all":
        raise InputError(f"columns must be a list of names or 'all', not {columns!r}.")
    if not there:
        raise InputError(f"{table.name} has no columns, so none can be kept beside the texts.")
    for name in columns:
        if name not in there:
            raise InputError(
                f"{table.name} has no column '{name}'; its columns are {listed(there)}.{nearest(name, there)}"
            )
    return list(dict.fromkeys(columns))


def load_triplets(
    source: Any, *, columns: Sequence[str] = ("sent0", "sent1", "hard_neg"), limit: int | None = None
) -> Dataset:
    """Reads (text, positive, hard negative) rows, or (text, positive) rows when two columns are named.

    An empty cell becomes a single space, as in the SimCSE training script (Gao et al. 2021, `train.py`); a warning
    gives the number of such rows. Rows whose cells are all empty are dropped.

    Args:
        source: As in `load_texts`, with columns.
        columns: The names of the text, the positive and, optionally, the negative column.
        limit: Read at most this many rows.

    Returns:
        A dataset with the columns "text", "positive" and, for three columns, "negative".

    Raises:
        InputError: In the same cases as `load_texts`; or a column "negative" is named as text or positive.

    Example:
        >>> triplets = load_triplets("nli_for_simcse.csv")  # doctest: +SKIP
        >>> pairs = load_triplets("questions.tsv", columns=("title", "body"))  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (2, 3):
        raise InputError(f"load_triplets takes two or three column names, not {columns!r}.")
    if len(set(columns)) < len(columns):
        raise InputError(f"A text and its positive come from two columns, not from one twice: {', '.join(columns)}.")
    if "negative" in columns[:2] or "positive" in columns[2:]:
        raise InputError(f"Name the columns in the order text, positive, hard negative, not {', '.join(columns)}.")
    return _collected(source, columns, limit)


def load_labelled(
    source: Any,
    *,
    columns: Sequence[str] = ("text",),
    label_column: str = "label",
    limit: int | None = None,
    drop_unlabelled: bool = False,
) -> Dataset:
    """Reads rows of one or two texts with a label, for example sentence pairs with an entailment label.

    Rows whose texts are all blank are dropped.

    Args:
        source: As in `load_texts`, with columns. A .txt file is read as a .tsv, because SICK's files are tab-separated.
        columns: The names of the text and, optionally, the positive column.
        label_column: The column of the labels, which may be words or numbers.
        limit: Read at most this many rows.
        drop_unlabelled: Leave out rows without a label, and log how many; otherwise such a row is an error. A label is
            missing if it is blank, null or NaN, or -1 in a dataset whose labels have names (`ClassLabel`).

    Returns:
        A dataset with the columns "text", "positive" (if two columns were read) and "label". Labels are integers from
        0: see `textcl.metrics.labels.number_labels`.

    Raises:
        InputError: In the same cases as `load_texts`; or a row has no label, or one that is neither word nor number.

    Example:
        >>> columns = ("sentence_A", "sentence_B")
        >>> load_labelled("SICK_train.txt", columns=columns, label_column="entailment_judgment")  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (1, 2):
        raise InputError(f"load_labelled takes one or two text columns, not {columns!r}.")
    return _collected(source, columns, limit, label_column=label_column, drop_unlabelled=drop_unlabelled)


def hold_out(dataset: Dataset, rows: int | None = None) -> tuple[Dataset, list[str]]:
    """Splits off the last rows of a corpus, to compute label-free scores on texts that were not trained on.

    Args:
        dataset: Rows with a "text" column, as the readers in this file return them.
        rows: How many rows to hold out; default: 1,000, but at most a tenth of the corpus.

    Returns:
        The rows to train on, and the held-out texts, without duplicates and without texts that occur in the rows to
        train on.

    Raises:
        InputError: The corpus does not have enough rows, or all held-out texts also occur in the rows to train on.

    Example:
        >>> train, held_out = hold_out(load_texts([f"Text number {n}." for n in range(100)]))  # doctest: +SKIP
        >>> len(train), len(held_out)  # doctest: +SKIP
        (90, 10)
    """
    if not hasattr(dataset, "select"):
        raise InputError(f"hold_out takes a dataset, as load_texts returns it, not {described(dataset)}.")
    count = min(HELD_OUT, len(dataset) // 10) if rows is None else rows
    if not 0 < count < len(dataset):
        raise InputError(f"{count:,} rows cannot be held out: the corpus has {len(dataset):,} rows.")
    kept = dataset.select(range(len(dataset) - count))
    texts = dict.fromkeys(dataset[-count:]["text"])
    for text in texts_in(kept, *(name for name in COLUMNS if name in kept.column_names)):
        texts.pop(text, None)
    if not texts:
        raise InputError(
            f"No text is held out: all texts of the last {count:,} rows also occur in the rows to train on."
        )
    return kept, list(texts)


def repeats_earlier(dataset: Dataset) -> np.ndarray:
    """Whether each row repeats an earlier one, (rows,). Only rows that occur twice are in memory.

    A row repeats another one if all its texts are equal but for case and spaces, and its label, if there is one, is the
    same. Near-duplicates stay: they are a matter of judgement, see `textcl.near_duplicates`.

    Args:
        dataset: Rows as the readers in this file return them.

    Raises:
        InputError: Fewer than two rows are left.
    """
    repeats = Repeats()
    for row in _bare_rows(dataset):
        repeats.add(row)
    repeated = repeats.repeated()
    found, seen = np.zeros(len(dataset), bool), set()
    for number, row in enumerate(_bare_rows(dataset) if repeated else ()):
        if hash(row) in repeated:
            found[number] = row in seen
            seen.add(row)
    if len(found) - found.sum() < 2:
        raise InputError("All rows are equal but for case and spaces, and contrastive training needs two that differ.")
    return found


def _bare_rows(dataset: Dataset) -> Iterator[tuple[Any, ...]]:
    for table in arrow_windows(dataset, dataset.column_names):
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            yield tuple([bare(cell) if isinstance(cell, str) else cell for cell in row])


def say_left_out(count: int) -> None:
    """Logs how many rows were left out because they repeat an earlier one."""
    one, many = "row was left out that repeats", "rows were left out that repeat"
    warn(count, f"{one} an earlier one", f"{many} earlier ones", "dedup")


def check_limit(limit: int | None) -> None:
    """Raises an `InputError` if a limit of rows is below 1."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}.")


def _collected(
    source: Any, columns: Sequence[str | None], limit: int | None, *, at_least: int = 2, **labels: Any
) -> Dataset:
    """Reads the rows of a source, and says what was found. Those of large files are kept in a file, see `kept`.

    Args:
        source: See `load_texts`.
        columns: The columns of the texts.
        limit: Read at most this many rows.
        at_least: The number of rows that are needed.
        **labels: The column of the labels, and whether rows without one are left out; see `Reading`.
    """
    check_limit(limit)
    if hasattr(source, "__next__") and labels:
        source = list(source)  # labels are read twice, first to number them
    named = bool(labels) and hasattr(getattr(source, "features", None), "get")
    if named and hasattr(source.features.get(labels["label_column"]), "int2str"):
        labels["unlabelled"] = -1
    reading = Reading(open_table(source, txt_has_tabs=bool(labels)), columns, limit, **labels)

    def make(found: dict[str, Any]) -> Iterator[Any]:
        yield from batches_of(reading, reading.names)
        check_size(reading.found, reading.table.name, at_least)
        if files is not None:
            files.check_unchanged()
        found |= asdict(reading.found)

    files = _to_keep(source)
    found: dict[str, Any] = {}
    if files is None:
        rows = in_memory(make(found), reading.names)
    else:
        suffixes = [plain_suffix(file.name) for file in files.files]
        made_of = {"content": files.sha256, "suffixes": suffixes, "read": list(columns), "limit": limit, **labels}
        rows, found = kept(made_of, reading.names, make)
        files.rows_read = found["read"]
        check_size(Found(**found), reading.table.name, at_least)
    say(Found(**found), reading.table.name, reading.names)
    return rows


def _to_keep(source: Any) -> CorpusFiles | None:
    """The files whose rows are kept in a file: those of a training run, and large ones."""
    if isinstance(source, CorpusFiles):
        return source
    if (paths := paths_in(source)) is None:
        return None
    return CorpusFiles(paths) if sum(file.stat().st_size for file in files_of(paths)) >= LARGE else None
