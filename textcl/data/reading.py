"""Reading a corpus row by row: what becomes a training row, what is left out, and what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from textcl.data.repeats import Repeats
from textcl.data.rows import Table, cell_text
from textcl.errors import InputError
from textcl.metrics.labels import check_label, has_no_label, number_labels, plain_label
from textcl.progress import Progress
from textcl.texts import counted

logger = logging.getLogger("textcl")

LONG_TEXT = 100_000  # characters; longer texts cause a warning, since the tokenizer keeps only their beginning
COLUMNS = ("text", "positive", "negative")


@dataclass
class Found:
    """What was found while a corpus was read.

    Attributes:
        read: The number of rows that were read.
        rows: The number of rows that were kept.
        blank: The number of rows without a text.
        empty: The number of rows that have a text and an empty cell beside it.
        repeated: The number of rows whose texts are equal to those of an earlier row.
        long: The number of texts of more than `LONG_TEXT` characters.
        unlabelled: The number of rows that were left out because they have no label.
        labels: The classes, for the log.
    """

    read: int = 0
    rows: int = 0
    blank: int = 0
    empty: int = 0
    repeated: int = 0
    long: int = 0
    unlabelled: int = 0
    labels: str = ""


class Reading:
    """The rows of a corpus: tuples of texts, and of a label if there is a column of labels.

    Rows without any text are left out. Each iteration reads the corpus from its beginning.

    Args:
        table: The corpus.
        columns: The columns of the texts, one to three; None: the default column.
        limit: Read at most this many rows.
        label_column: The column of the labels.
        drop_unlabelled: Leave out rows without a label; otherwise such a row is an error.
        unlabelled: A label that also means that there is none.

    Attributes:
        names: The names of the columns of a row.
        found: What the last iteration found.
        classes: The labels in the order of their numbers, once an iteration has begun; empty without labels.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[str | None],
        limit: int | None,
        label_column: str | None = None,
        drop_unlabelled: bool = False,
        unlabelled: Any = None,
    ) -> None:
        self.table, self.limit = table, limit
        self.columns, self.label_column = list(columns), label_column
        self.drop_unlabelled, self.unlabelled = drop_unlabelled, unlabelled
        self.names = [*COLUMNS[: len(columns)], *(["label"] if label_column is not None else [])]
        self.found = Found()
        self.classes: list[Any] = []

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        if self.label_column is None:
            yield from self._rows()
            return
        classes: dict[tuple[type, Any], None] = {}
        for row in self._rows():
            classes[type(row[-1]), row[-1]] = None
        numbers, self.classes = number_labels([value for _, value in classes])
        number_of = dict(zip(classes, numbers, strict=True))
        for *texts, label in self._rows():
            yield *texts, number_of[type(label), label]
        shown = ", ".join(map(str, self.classes[:5])) + (", …" if len(self.classes) > 5 else "")
        self.found.labels = f"{len(self.classes)} labels, {shown}"

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        self.found = found = Found()
        repeats = Repeats()
        wanted = self.columns if self.label_column is None else [*self.columns, self.label_column]
        count = len(self.columns)
        with Progress("Reading the corpus", unit="rows") as bar:
            for number, cells in self.table.cells(wanted):
                found.read += 1
                bar.update()
                row = tuple([cell_text(value, self.table.at(number)).strip() for value in cells[:count]])
                if not any(row):
                    found.blank += 1
                    continue
                label: tuple[Any, ...] = ()
                if self.label_column is not None:
                    label = (plain_label(cells[-1]),)
                    if not self._has_label(label[0], number):
                        continue
                found.long += sum([len(text) > LONG_TEXT for text in row])
                found.empty += not all(row)
                repeats.add(row)
                found.rows += 1
                yield (*[text or " " for text in row], *label)
                if found.rows == self.limit:
                    break
        found.repeated = repeats.count()

    def _has_label(self, label: Any, number: Any) -> bool:
        if not has_no_label(label) and (self.unlabelled is None or label != self.unlabelled):
            check_label(label, self.table.at(number))
            return True
        if not self.drop_unlabelled:
            raise InputError(
                f"{self.table.at(number)}: the label is missing. Give the row a label, or leave out rows without one "
                "(--drop-unlabelled; drop_unlabelled=True in Python)."
            )
        self.found.unlabelled += 1
        return False


def check_size(found: Found, name: str, at_least: int = 2) -> None:
    """Raises an `InputError` if a corpus has too few rows."""
    if found.rows >= at_least:
        return
    warn(found.unlabelled, "row without a label was dropped", "rows without a label were dropped", name)
    if found.rows == 0:
        raise InputError(f"{name} holds no text.")
    raise InputError(f"{name} holds only one text; contrastive training compares texts and needs at least two.")


def say(found: Found, name: str, names: Sequence[str]) -> None:
    """Logs what was found in a corpus.

    Args:
        found: The numbers.
        name: The name of the corpus.
        names: The names of the columns that were read.
    """
    empty = "an empty cell, which is read as a single space"
    warn(found.empty, f"row has {empty}", f"rows have {empty}", name)
    unit, row = ("line", "text") if len(names) == 1 else ("row", "row")
    warn(found.blank, f"blank {unit} was dropped", f"blank {unit}s were dropped", name)
    if "label" in names:
        warn(found.unlabelled, "row without a label was dropped", "rows without a label were dropped", name)
        logger.info("%s: %s.", name, found.labels)
        return
    _say_repeated_and_long(found, name, row)


def say_repeated_and_long(texts: Sequence[str], name: str) -> None:
    """Logs how many texts are equal to an earlier one, and how many are very long."""
    found = Found(repeated=len(texts) - len(set(texts)), long=sum(len(text) > LONG_TEXT for text in texts))
    _say_repeated_and_long(found, name, "text")


def _say_repeated_and_long(found: Found, name: str, row: str) -> None:
    equal, long = (
        "equal to an earlier one, letter for letter",
        f"more than {LONG_TEXT:,} characters; the tokenizer will",
    )
    warn(found.repeated, f"{row} is {equal}", f"{row}s are {equal}", name)
    warn(found.long, f"text has {long} truncate it", f"texts have {long} truncate them", name)


def say_blank(count: int, name: str, *, own_ids: bool) -> None:
    """Logs how many blank rows were left out, if any; `own_ids`: ids are the user's, and not numbers of rows."""
    if count:
        rows = counted(count, "row is blank and was", "rows are blank and were")
        logger.warning("%s: %s left out%s.", name, rows, "" if own_ids else "; ids still count them")


def warn(count: int, one: str, many: str, name: str) -> None:
    """Logs how many rows a sentence is true of, unless there are none."""
    if count:
        logger.warning("%s: %s %s.", name, f"{count:,}", one if count == 1 else many)
