"""The first look at a user's texts: how many there are, how long they are, and how many repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textcl.data.rows import cell_text, open_table
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.texts import bare
from textcl.vectors.shards import is_vectors
from textcl.vectors.vectors import Vectors
from textcl.words import count_words

MOST_DOCUMENTS = 20_000
_SHORT = 12  # words
_PROBED = 200  # texts whose tokens are looked at


@dataclass(frozen=True)
class Corpus:
    """The texts that an encoder is adapted to, each once.

    Attributes:
        name: The name of the file or object, for messages.
        bodies: The texts.
        titles: Their titles, of which some may be empty; None: there are none.
        rows: The number of rows that were read.
        blank: The number of rows without a text.
        repeated: The number of rows whose text is that of an earlier row, apart from case and spaces.
        source: The directory of vectors that the texts came from; None: they came from elsewhere.
    """

    name: str
    bodies: list[str]
    titles: list[str] | None
    rows: int
    blank: int
    repeated: int
    source: Vectors | None = None

    def __len__(self) -> int:
        return len(self.bodies)

    @property
    def texts(self) -> list[str]:
        """Title and text of each document."""
        if self.titles is None:
            return self.bodies
        return [f"{title} {body}".strip() for title, body in zip(self.titles, self.bodies, strict=True)]

    def hash(self) -> str:
        """SHA-256 of titles and texts."""
        digest = hashlib.sha256()
        for title, body in zip(self.titles or [""] * len(self), self.bodies, strict=True):
            digest.update(f"{title}\x1f{body}\x1e".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def smallest_part(self, wanted: np.ndarray, count: int, seed: int = 0) -> int:
        """The number of documents of the smallest `part` that has `count` of some documents.

        Args:
            wanted: These documents, (documents,), at least `count`.
            count: How many of them there have to be.
            seed: The seed of the part.
        """
        place = np.argsort(self._order(seed))  # of each document, in the order in which a part takes them
        return int(np.sort(place[wanted])[count - 1]) + 1

    def _order(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(len(self))

    def part(self, count: int, seed: int = 0) -> Corpus:
        """A random part of the documents, in their order; all of them if there are no more than `count`."""
        if count >= len(self):
            return self
        kept = np.sort(self._order(seed)[:count])
        titles = None if self.titles is None else [self.titles[i] for i in kept]
        return replace(self, bodies=[self.bodies[i] for i in kept], titles=titles)

    def sentence(self) -> str:
        """Number and lengths of the texts in one line."""
        words = np.array([count_words(text) for text in self.texts])
        left_out = [f"{n:,} {what}" for n, what in ((self.blank, "blank"), (self.repeated, "repeated")) if n]
        rows = "row" if self.blank + self.repeated == 1 else "rows"
        without = f" ({' and '.join(left_out)} {rows} left out)" if left_out else ""
        return (
            f"{len(self):,} different texts{without}, {int(np.median(words))} words at the median, "
            f"{int(np.quantile(words, 0.95))} in the longest twentieth."
        )

    def is_short(self) -> bool:
        """Whether most texts are like titles, whose parts seldom belong together, and have no titles themselves."""
        return self.titles is None and float(np.median([count_words(text) for text in self.texts])) < _SHORT


def read_corpus(source: Any, columns: Sequence[str] = (), command: str = "textcl adapt") -> Corpus:
    """Reads texts, or titles and texts.

    Args:
        source: All that `textcl.load_texts` reads, or a directory that `textcl encode` wrote.
        columns: One column, or the columns of title and text; none: the default text column. Of a directory: the
            column of titles, which `--columns` kept, or this one and that of the texts.
        command: The command that reads them, for messages.

    Raises:
        InputError: As in `textcl.load_texts`; more than two columns are named; a column is empty; or all rows have the
            same text.
    """
    if isinstance(columns, str):
        raise InputError(
            f"columns must be a list of one or two names, such as [{columns!r}], not the text {columns!r}."
        )
    if len(columns) > 2 or len(set(columns)) < len(columns):
        raise InputError(f"Name one column, or two different ones (title, text), not {', '.join(columns)}.")
    name, cells_of_rows, vectors = _rows(source, columns, command)
    bodies: list[str] = []
    titles: list[str] = []
    seen: set[tuple[str, ...]] = set()
    rows = blank = 0
    for *title, body in cells_of_rows:
        rows += 1
        key = tuple(map(bare, (*title, body)))
        if not body:
            blank += 1
        elif key not in seen:
            seen.add(key)
            bodies.append(body)
            titles += title
    if not bodies:
        column = f"the column '{columns[-1]}' of {name}" if columns else name
        raise InputError(f"There is no text in {column}; name the column that holds the texts.")
    if len(columns) == 2 and not any(titles):
        raise InputError(f"The column '{columns[0]}' of {name} is empty; name one column only, or another.")
    if len(bodies) == 1 and rows - blank > 1:
        raise InputError(f"All {rows - blank:,} rows of {name} hold the same text, from which nothing is learnt.")
    return Corpus(name, bodies, titles or None, rows, blank, rows - blank - len(bodies), vectors)


def _rows(source: Any, columns: Sequence[str], command: str) -> tuple[str, Iterator[list[str]], Vectors | None]:
    """The name of a source, its rows as [text] or [title, text], and the directory of vectors if it is one."""
    if is_vectors(source):
        vectors = Vectors(source)
        vectors.check_whole(command)
        own = vectors.manifest["settings"]["column"] or "text"
        if len(columns) == 2 and columns[1] != own:
            raise InputError(f"{source} holds the texts of the column '{own}', not of '{columns[1]}'.")
        titles = [name for name in columns[:1] if name != own]
        sides = [["" if each is None else str(each) for each in vectors.column(name)] for name in titles]
        rows = zip(*sides, vectors.texts(), strict=True)
        return str(source), ([cell.strip() for cell in row] for row in rows), vectors
    table = open_table(source)
    wanted: Sequence[str | None] = columns or [None]
    cells = ([cell_text(cell, table.at(number)).strip() for cell in row] for number, row in table.cells(wanted))
    return table.name, cells, None


def check_known(encoder: Encoder, corpus: Corpus) -> None:
    """Raises an InputError if the encoder's vocabulary has no token of the texts."""
    unknown = encoder.tokenizer.unk_token_id
    if unknown is None:
        return
    special = {*encoder.tokenizer.all_special_ids} - {unknown}
    for start in range(0, min(len(corpus), _PROBED), 32):
        ids = encoder.tokenize(corpus.bodies[start : start + 32])["input_ids"]
        if not {*np.asarray(ids).ravel().tolist()} - special <= {unknown}:
            return
    raise InputError(
        f"The vocabulary of {encoder.name} has no word of {corpus.name}: all tokens are {encoder.tokenizer.unk_token}, "
        "so that all vectors are alike. Name a model for the language of these texts."
    )
