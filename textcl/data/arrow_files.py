"""Rows as Arrow tables that are made batch by batch, in memory or in a file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

ROWS = 8192  # of a batch
CHARACTERS = 1 << 24  # a batch of long texts ends earlier


def schema_of(names: Sequence[str]) -> pyarrow.Schema:
    """The types of columns: "label" holds whole numbers, and all others hold texts."""
    import pyarrow

    return pyarrow.schema([(name, pyarrow.int64() if name == "label" else pyarrow.string()) for name in names])


def batches_of(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """Yields rows as record batches, so that only those of one batch are Python objects at a time."""
    import pyarrow

    schema = schema_of(names)

    def batch() -> pyarrow.RecordBatch:
        columns = zip(*part, strict=True)
        arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        return pyarrow.record_batch(arrays, schema=schema)

    part: list[Sequence[Any]] = []
    characters = 0
    for row in rows:
        part.append(row)
        characters += sum(len(cell) for cell in row if isinstance(cell, str))
        if len(part) == ROWS or characters >= CHARACTERS:
            yield batch()
            part, characters = [], 0
    if part:
        yield batch()


def in_memory(batches: Iterable[pyarrow.RecordBatch], names: Sequence[str]) -> Dataset:
    """A dataset that holds the batches in memory."""
    import pyarrow
    from datasets import Dataset

    return Dataset(pyarrow.Table.from_batches(list(batches), schema_of(names)))


def write_file(path: Path, batches: Iterable[pyarrow.RecordBatch], names: Sequence[str]) -> None:
    """Writes batches one by one to an Arrow file."""
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema_of(names)) as stream:
        for batch in batches:
            stream.write_batch(batch)


def from_file(path: Path, fingerprint: str) -> Dataset:
    """A dataset that maps an Arrow file into memory: its texts take no memory of the process.

    Args:
        path: A file of `write_file`.
        fingerprint: Identifies the content, also for other processes.
    """
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=fingerprint)


def arrow_windows(dataset: Dataset, names: Sequence[str]) -> Iterator[pyarrow.Table]:
    """Yields some columns of consecutive rows as Arrow tables."""
    chosen = dataset.with_format(None).select_columns(list(names)).with_format("arrow")
    for start in range(0, len(dataset), ROWS):
        yield chosen[start : start + ROWS]


def texts_in(dataset: Dataset, *names: str) -> Iterator[str]:
    """Yields the cells of some columns, window by window, without a list of all of them."""
    for table in arrow_windows(dataset, names):
        yield from chain.from_iterable(column.to_pylist() for column in table.columns)
