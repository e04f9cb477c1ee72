"""A corpus as `encode_corpus` sees it: counted and hashed first, then read again in windows, one for each shard."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.corpora import read_rows
from textcl.data.corpus_files import paths_in, source_name
from textcl.data.reading import say_blank
from textcl.data.repeats import Repeats
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.progress import Progress
from textcl.texts import counted
from textcl.vectors.columns import OWN_ID, common, kind
from textcl.vectors.lengths import are_longer, parts_of
from textcl.vectors.manifest import stored_corpora
from textcl.vectors.shards import Row, Window, read_complete, read_shard, window_bytes

logger = logging.getLogger("textcl")

_TOGETHER = 1024  # texts that are tokenised together, to find the long ones

Split = Callable[[Sequence[str]], list[list[str]]]
"""Gives the parts of each text; a text that is not long is its only part."""


@dataclass(frozen=True)
class Corpus:
    """A source of texts, and what of it is kept.

    Attributes:
        source: Anything that `load_texts` takes.
        column: The column of the texts.
        limit: How many texts are read.
        id_column: The column of the user's ids.
        columns: The columns that are kept beside the texts.
        split: Cuts long texts into parts; None: texts stay whole.
    """

    source: Any
    column: str | None
    limit: int | None
    id_column: str | None = None
    columns: tuple[str, ...] = ()
    split: Split | None = None

    @property
    def name(self) -> str:
        return source_name(self.source)

    def windows(self, shard_rows: int, numbers: Iterator[int] | None = None) -> Iterator[Window]:
        """The rows of each shard. Ids are rows of the source, counted from 0 with blank texts.

        Args:
            shard_rows: The number of rows in a shard.
            numbers: Numbers the rows of the source, so that its next number is how many were read; default: a new one.
        """
        read = read_rows(self.source, column=self.column, id_column=self.id_column, columns=self.columns)
        numbered = zip(read, count() if numbers is None else numbers, strict=False)
        texts = islice(((row, *each) for each, row in numbered if each[0]), self.limit)
        rows: Iterator[Row] = (Row(row, text, None, values) for row, text, values in texts)
        if self.split is not None:
            rows = _in_parts(rows, self.split)
        while window := list(islice(rows, shard_rows)):
            yield window


def _in_parts(rows: Iterator[Row], split: Split) -> Iterator[Row]:
    while several := list(islice(rows, _TOGETHER)):
        for row, parts in zip(several, split([row.text for row in several]), strict=True):
            yield from (row._replace(text=text, part=number) for number, text in enumerate(parts))


def splitter(encoder: Encoder, prompt: str) -> Split:
    """Cuts the texts that are longer than the encoder reads into overlapping parts, see `parts_of`."""

    def split(texts: Sequence[str]) -> list[list[str]]:
        longer = are_longer(encoder, texts, prompt)
        return [parts_of(encoder, text, prompt) if long else [text] for text, long in zip(texts, longer, strict=True)]

    return split


@dataclass
class Survey:
    """What the first reading of a corpus finds.

    Attributes:
        texts: The number of rows in the shards: of texts, or of parts with `split_long`.
        documents: The number of texts.
        rows_read: The number of rows of the source that were read, blank ones included.
        sha256: SHA-256 of everything that is kept of the corpus.
        digests: SHA-256 of the ids and texts of each shard, see `window_bytes`.
        checks: SHA-256 of everything that is kept in each shard.
        kinds: For the ids and each column that is kept, the types of its values.
    """

    texts: int = 0
    documents: int = 0
    rows_read: int = 0
    sha256: str = ""
    digests: list[bytes] = field(default_factory=list)
    checks: list[bytes] = field(default_factory=list)
    kinds: list[set[str]] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        """The type of the ids and of each column, see `textcl.vectors.columns`; text if all values are missing."""
        return [common(kinds or {"string"}) for kinds in self.kinds]


def survey(corpus: Corpus, shard_rows: int, show: bool | None) -> Survey:
    """Reads a corpus to count and hash it.

    Raises:
        InputError: The corpus has no text or cannot be read.
    """
    found, whole, last = Survey(), hashlib.sha256(), -1
    found.kinds = [set() for _ in range((corpus.id_column is not None) + len(corpus.columns))]
    ids, numbers = Repeats(), count()
    with Progress("Reading the corpus", show=show) as bar:
        for window in corpus.windows(shard_rows, numbers):
            content = window_bytes(window)
            whole.update(content)
            whole.update(values_bytes(window))
            found.digests.append(hashlib.sha256(content).digest())
            found.checks.append(check_of(window))
            for row in window:
                found.documents += row.id != last
                if corpus.id_column is not None and row.id != last:
                    ids.add(str(row.own[0]))
                last = row.id
                for kinds, value in zip(found.kinds, row.own, strict=True):
                    if value is not None:
                        kinds.add(kind(value))
            found.texts += len(window)
            bar.update(len(window))
    if not found.texts:
        raise InputError(f"{corpus.name} holds no text.")
    found.rows_read = next(numbers)
    say_blank(found.rows_read - found.documents, corpus.name, own_ids=bool(corpus.id_column))
    if more := ids.count():
        _warn_of_repeated(more, ids.repeated(), corpus)
    found.sha256 = whole.hexdigest()
    return found


def warn_of_known(corpus: Corpus, found: Survey, output: Path, manifest: Mapping[str, Any]) -> None:
    """Warns if rows that are to be added to a directory seem to be there: by their ids, else by the name of the file.

    Args:
        corpus: What is to be added.
        found: What the first reading of it found.
        output: The directory.
        manifest: The manifest of the directory.
    """
    stored = stored_corpora(manifest)
    if found.sha256 in [each.sha256 for each in stored]:  # then it is not added again
        return
    shards = read_complete(output).shards
    if corpus.id_column is None:
        if paths_in(corpus.source) and corpus.name in [each.name for each in stored if each.numbers.stop <= shards]:
            logger.warning(
                "%s is in %s already, with other texts than now; texts of both are there twice.", corpus.name, output
            )
        return
    stored_ids = (read_shard(output, number, [OWN_ID])[OWN_ID] for number in range(shards))
    there = np.unique(np.concatenate(list(map(_hashes, stored_ids))))
    known, first = 0, None
    for window in replace(corpus, split=None).windows(_TOGETHER):
        ids = [row.own[0] for row in window]
        again = np.flatnonzero(np.isin(_hashes(ids), there))
        first = ids[again[0]] if first is None and len(again) else first
        known += len(again)
    if known:
        logger.warning(
            "%s of the %s of %s are in %s already, first %s; rows of these ids are there twice.",
            *(f"{known:,}", counted(found.documents, "id"), corpus.name, output, first),
        )


def _hashes(ids: Iterable[Any]) -> np.ndarray:
    return np.array([hash(str(each)) for each in ids], np.int64)


def check_of(window: Window) -> bytes:
    """SHA-256 of everything that is kept of some rows."""
    return hashlib.sha256(window_bytes(window) + values_bytes(window)).digest()


def values_bytes(window: Window) -> bytes:
    """The values beside the texts, as bytes; none if nothing is kept beside them."""
    return b"".join(json.dumps(row.own, default=str).encode() + b"\n" for row in window if row.own)


def _warn_of_repeated(more: int, repeated: set[int], corpus: Corpus) -> None:
    """Warns of ids that occur twice, and names the first such row; the corpus is read again up to that row.

    Args:
        more: How many rows have an id that an earlier row has too.
        repeated: The hashes of such ids.
        corpus: The corpus.
    """
    seen: dict[int, int] = {}  # the rows of these ids; parts of a text have the same row
    rows = ((hash(str(row.own[0])), row.id) for window in corpus.windows(_TOGETHER) for row in window)
    first = next((row for each, row in rows if each in repeated and seen.setdefault(each, row) != row), 0)
    logger.warning(
        "%s: %s rows have an id that an earlier row has too, first the row with number %s (counted from 0). "
        "Column '%s' may not be the one of the ids.",
        *(corpus.name, f"{more:,}", f"{first:,}", corpus.id_column),
    )
