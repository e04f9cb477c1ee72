"""Readers of training texts: txt, csv, tsv, jsonl and parquet, plain or as .gz or .xz, `datasets.Dataset`, lists.

Only a line feed ends a line. `str.splitlines` would also split at \\x85 and \\u2028, which occur inside sentences of
real corpora; the lines of two parallel files would then no longer match.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from textcl.data.formats import as_file, csv_rows, format_of, pick_columns, read_lines, read_rows
from textcl.errors import InputError

if TYPE_CHECKING:
    import os

    from datasets import Dataset
logger = logging.getLogger("textcl")

HELD_OUT = 1000  # rows; a tenth of the corpus if it has fewer than ten times as many

LONG_TEXT = 100_000  # characters; longer texts cause a warning, since the tokenizer keeps only their beginning


def load_texts(
    source: str | os.PathLike[str] | Dataset | Sequence[str], *, column: str | None = None, limit: int | None = None
) -> Dataset:
    """Reads a corpus, one text per row.

    Blank texts are dropped. Duplicates and texts over 100,000 characters are kept. A warning gives the number of each.

    Args:
        source: A path (.txt has one text per line; .csv, .tsv, .jsonl and .parquet have columns; each also as .gz or
            .xz), a `datasets.Dataset`, or a list of strings. In a .tsv a quotation mark is an ordinary character.
        column: The column to read; default: "text", else "sentence", else the only column.
        limit: Read at most this many texts.

    Returns:
        A dataset with one column, "text".

    Raises:
        InputError: The file is missing or empty, has only one text, is not valid UTF-8 (the message names the line),
            has an unknown suffix, or lacks the column (the message names the columns that it has).

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
    """Yields the texts of a corpus one by one, as `load_texts` reads them, without loading the whole corpus.

    A blank text is yielded as "", so that the n-th text is always that of the n-th row.

    Raises:
        InputError: As in `load_texts`, but only when the faulty row is reached. An empty corpus yields nothing.
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

    An empty cell becomes a single space, as in the SimCSE training script (Gao et al. 2021, `train.py`). Rows whose
    cells are all empty are dropped.

    Args:
        source: The path of a .csv, .tsv, .jsonl or .parquet file, also as .gz or .xz; or a `datasets.Dataset`.
        columns: The names of the text, the positive and, optionally, the negative column.
        limit: Read at most this many rows.

    Returns:
        A dataset with the columns "text", "positive" and, for three columns, "negative".

    Raises:
        InputError: In the same cases as `load_texts`.

    Example:
        >>> triplets = load_triplets("nli_for_simcse.csv")  # doctest: +SKIP
        >>> pairs = load_triplets("questions.tsv", columns=("title", "body"))  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (2, 3):
        raise InputError(f"load_triplets takes two or three column names, not {columns!r}.")
    if _is_path(source):
        path = as_file(cast("str | os.PathLike[str]", source))
        name = str(path)
        if format_of(path) == ".txt":
            raise InputError(
                f"{name} is a text file and has no columns; give pairs and triplets as .csv, .tsv, .jsonl or .parquet."
            )
        rows: Iterator[tuple[Any, ...]] = read_rows(path, columns)
    elif hasattr(source, "column_names"):
        dataset = cast("Dataset", source)
        name = "the dataset"
        pick_columns(dataset.column_names, columns, name)
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
    """Reads rows of one or two texts with a label, for example sentence pairs with an entailment label.

    Rows whose texts are all blank are dropped.

    Args:
        source: The path of a .csv, .tsv, .jsonl or .parquet file, also as .gz or .xz. A .txt file is read as a .tsv,
            because SICK's files are tab-separated.
        columns: The names of the text and, optionally, the positive column.
        label_column: The column of the labels, which may be words or numbers.
        limit: Read at most this many rows.

    Returns:
        A dataset with the columns "text", "positive" (if two columns were read) and "label". Labels are integers from
        0, in the order of the sorted label names.

    Raises:
        InputError: In the same cases as `load_texts`.

    Example:
        >>> columns = ("sentence_A", "sentence_B")
        >>> load_labelled("SICK_train.txt", columns=columns, label_column="entailment_judgment")  # doctest: +SKIP
    """
    if isinstance(columns, str) or len(columns) not in (1, 2):
        raise InputError(f"load_labelled takes one or two text columns, not {columns!r}.")
    path = as_file(source)
    wanted = [*columns, label_column]
    rows = csv_rows(path, wanted, tabs=True) if format_of(path) == ".txt" else read_rows(path, wanted)
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


def _named_values(
    source: str | os.PathLike[str] | Dataset | Sequence[str], column: str | None
) -> tuple[str, Iterator[Any]]:
    """The name of a corpus for error messages, and the cells of its text column."""
    if _is_path(source):
        path = as_file(cast("str | os.PathLike[str]", source))
        name = str(path)
        if format_of(path) == ".txt":
            if column is not None:
                raise InputError(
                    f"{name} is a text file and has no columns, so column '{column}' cannot be read from it."
                )
            return name, (line for _, line in read_lines(path))
        return name, (row[0] for row in read_rows(path, None if column is None else [column]))
    if isinstance(source, Sequence):
        return "the list of texts", iter(source)
    dataset = cast("Dataset", source)
    (chosen,) = pick_columns(dataset.column_names, None if column is None else [column], "the dataset")
    return "the dataset", iter(dataset[chosen])


def _is_path(source: Any) -> bool:
    return isinstance(source, str) or hasattr(source, "__fspath__")


def as_text(value: Any, name: str, number: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}, row {number}: the cell must be a text, not a {type(value).__name__}.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can contain half of a surrogate pair; tokenizers refuse it
            raise InputError(
                f"{name}, row {number}: the text holds half of a surrogate pair, which is not a valid character."
            ) from None
    return value


def _check_size(count: int, name: str) -> None:
    if count == 0:
        raise InputError(f"{name} holds no text.")
    if count == 1:
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
