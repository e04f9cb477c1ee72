"""Training texts, pairs, triplets and labelled rows, from files, datasets, data frames, lists and generators."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from textcl.data.formats import listed
from textcl.data.rows import cell_id, cell_text, cell_value, open_table
from textcl.errors import InputError, nearest
from textcl.metrics.labels import check_label, has_no_label, number_labels, plain_label
from textcl.texts import bare, described

if TYPE_CHECKING:
    from datasets import Dataset
logger = logging.getLogger("textcl")

HELD_OUT = 1000  # rows; a tenth of the corpus if it has fewer than ten times as many

LONG_TEXT = 100_000  # characters; longer texts cause a warning, since the tokenizer keeps only their beginning


def load_texts(source: Any, *, column: str | None = None, limit: int | None = None, at_least: int = 2) -> Dataset:
    """Reads a corpus, one text per row.

    Blank texts are dropped. Duplicates and texts over 100,000 characters are kept. A warning gives the number of each.

    Args:
        source: A path (.txt has one text per line; .csv, .tsv, .jsonl and .parquet have columns; each also as .gz,
            .xz or .zst), a `datasets.Dataset` or stream, a pandas DataFrame or Series, a numpy array, or a list or
            generator of strings or of dicts. In a .tsv a quotation mark is an ordinary character. A transform of a
            dataset is applied.
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
    check_limit(limit)
    table = open_table(source)
    texts: list[str] = []
    blank = 0
    for number, (value,) in table.cells([column]):
        text = cell_text(value, table.at(number)).strip()
        if text:
            texts.append(text)
        else:
            blank += 1
        if len(texts) == limit:
            break
    _check_size(len(texts), table.name, at_least)
    _warn(blank, "blank line was dropped", "blank lines were dropped", table.name)
    _warn(
        len(texts) - len(set(texts)),
        "text is a duplicate of an earlier one",
        "texts are duplicates of earlier ones",
        table.name,
    )
    _warn_long(texts, table.name)
    return _dataset({"text": texts})


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


def columns_beside(
    source: Any, columns: Sequence[str], *, column: str | None = None, id_column: str | None = None
) -> list[str]:
    """The names of the columns to keep, each once; "all" stands for all columns but those of the texts and the ids.

    Raises:
        InputError: There is no such column.
    """
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

    An empty cell becomes a single space, as in the SimCSE training script (Gao et al. 2021, `train.py`). Rows whose
    cells are all empty are dropped.

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
    check_limit(limit)
    table = open_table(source)
    kept: list[tuple[str, ...]] = []
    blank = 0
    for number, row in table.cells(columns):
        cells = [cell_text(value, table.at(number)).strip() for value in row]
        if any(cells):
            kept.append(tuple(cell or " " for cell in cells))
        else:
            blank += 1
        if len(kept) == limit:
            break
    _check_size(len(kept), table.name)
    _warn(blank, "blank row was dropped", "blank rows were dropped", table.name)
    _warn(
        len(kept) - len(set(kept)),
        "row is a duplicate of an earlier one",
        "rows are duplicates of earlier ones",
        table.name,
    )
    _warn_long(list(chain.from_iterable(kept)), table.name)
    names = ("text", "positive", "negative")[: len(columns)]
    return _dataset({key: list(values) for key, values in zip(names, zip(*kept, strict=True), strict=True)})


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
    check_limit(limit)
    table = open_table(source, txt_has_tabs=True)
    named = hasattr(getattr(source, "features", None), "get") and hasattr(source.features.get(label_column), "int2str")
    kept: list[list[str]] = []
    labels: list[Any] = []
    dropped = 0
    for number, row in table.cells([*columns, label_column]):
        texts = [cell_text(value, table.at(number)).strip() for value in row[:-1]]
        if not any(texts):
            continue
        label = plain_label(row[-1])
        if has_no_label(label) or (named and label == -1):
            if not drop_unlabelled:
                raise InputError(
                    f"{table.at(number)}: the label is missing. Give the row a label, or leave out rows without one "
                    "(--drop-unlabelled; drop_unlabelled=True in Python)."
                )
            dropped += 1
            continue
        check_label(label, table.at(number))
        kept.append([text or " " for text in texts])
        labels.append(label)
        if len(kept) == limit:
            break
    _warn(dropped, "row without a label was dropped", "rows without a label were dropped", table.name)
    _check_size(len(kept), table.name)
    numbers, classes = number_labels(labels)
    shown = ", ".join(map(str, classes[:5])) + (", …" if len(classes) > 5 else "")
    logger.info("%s: %d labels, %s.", table.name, len(classes), shown)
    of_column = {
        key: [texts[place] for texts in kept] for place, key in enumerate(("text", "positive")[: len(columns)])
    }
    return _dataset({**of_column, "label": numbers})


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
    seen = {text for column in set(kept.column_names) & {"text", "positive", "negative"} for text in kept[column]}
    texts = [text for text in dict.fromkeys(dataset[-count:]["text"]) if text not in seen]
    if not texts:
        raise InputError(
            f"No text is held out: all texts of the last {count:,} rows also occur in the rows to train on."
        )
    return kept, texts


def without_copies(dataset: Dataset) -> Dataset:
    """The rows of a corpus that do not repeat an earlier one; the number of those left out is logged.

    A row repeats another one if all its texts are equal but for case and spaces, and its label, if there is one, is the
    same. Near-duplicates stay: they are a matter of judgement, see `textcl.near_duplicates`.

    Args:
        dataset: Rows as the readers in this file return them.

    Raises:
        InputError: Fewer than two rows are left, and training needs two.

    Example:
        >>> without_copies(load_texts(["A cat.", "a  CAT.", "A dog."]))["text"][:]  # doctest: +SKIP
        ['A cat.', 'A dog.']
    """
    names = dataset.column_names
    rows = zip(*([bare(x) if isinstance(x, str) else x for x in dataset[name]] for name in names), strict=True)
    first: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row, number)
    if len(first) < 2:
        raise InputError("All rows are equal but for case and spaces, and contrastive training needs two that differ.")
    if left_out := len(dataset) - len(first):
        one, many = "row was left out that repeats", "rows were left out that repeat"
        _warn(left_out, f"{one} an earlier one", f"{many} earlier ones", "dedup")
    return dataset.select(list(first.values())) if left_out else dataset


def check_limit(limit: int | None) -> None:
    """Raises an `InputError` if a limit of rows is below 1."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}.")


def _check_size(count: int, name: str, at_least: int = 2) -> None:
    if count == 0:
        raise InputError(f"{name} holds no text.")
    if count < at_least:
        raise InputError(f"{name} holds only one text; contrastive training compares texts and needs at least two.")


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
