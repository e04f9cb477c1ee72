"""Known-item queries: a part of a document has to find the rest of it. They need no judgements and no labels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from textcl.data.rows import cell_text, open_table, say_once
from textcl.errors import InputError
from textcl.texts import counted
from textcl.vectors.near_duplicates import near_duplicate_groups
from textcl.words import count_words, join_words, split_words

LEAST_SENTENCES = 3  # in a document from which one sentence is taken
LEAST_WORDS = 5  # in such a sentence; short ones are headings and numbers
LEAST_HALF = 2  # words in half of a text

BY_TITLE = "finding a body by its title"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")
# two characters of one word, of a script that puts spaces between words; not Thai to Lao, Burmese, Khmer, or East Asian
_WORDS_APART = re.compile(
    r"(?:(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7af\uf900-\ufaff\U00020000-\U0003ffff])\w){2}"
)


@dataclass(frozen=True)
class View:
    """Queries and documents that were cut out of the same texts.

    Attributes:
        name: "title", "sentence" or "half".
        task: What a query does, as a verdict says it.
        queries: The queries.
        documents: What is searched, one entry for each text of the corpus.
        targets: The document that each query has to find, (queries,).
    """

    name: str
    task: str
    queries: list[str]
    documents: list[str]
    targets: np.ndarray

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of near-duplicates of each document, a number from 0, (documents,).

        They are found by words. With vectors another encoder would judge by other groups: one whose cosines are all
        high would put all texts into one, of which all but the right one are then left out of each ranking.
        """
        return near_duplicate_groups(None, self.documents)


def known_items(bodies: Sequence[str], titles: Sequence[str] | None = None, least: int = 1) -> list[View]:
    """The views that texts allow, the most natural first.

    - title: a title has to find its body. A title that the body repeats at its beginning is removed there.
    - sentence: one sentence has to find its document, with the title and without this sentence.
    - half: the first half of a text has to find the second among all second halves.

    Which sentence is taken depends on the text alone, so that the same texts give the same queries.

    Args:
        bodies: The texts.
        titles: Their titles, of which some may be empty; None: there are none.
        least: Views with fewer queries are left out.

    Example:
        >>> [view.name for view in known_items(["one two three four", "five six seven eight"])]
        ['half']
    """
    views = []
    if titles is not None:
        cut = [_without_title(body, title) for body, title in zip(bodies, titles, strict=True)]
        pairs = list(zip(titles, cut, strict=True))
        parts = [(title, body) if title and body else None for title, body in pairs]
        views.append(_view("title", BY_TITLE, parts, [body or title for title, body in pairs]))
    else:
        pairs = [("", body) for body in bodies]
    parts = [_sentence_and_rest(body) for _, body in pairs]
    parts = [part and (part[0], f"{title} {part[1]}".strip()) for part, (title, _) in zip(parts, pairs, strict=True)]
    whole = [f"{title} {body}".strip() for title, body in pairs]
    views.append(_view("sentence", "finding a document by one of its sentences", parts, whole))
    parts, whole = [halves(body) for _, body in pairs], [body or title for title, body in pairs]
    views.append(_view("half", "finding the second half of a text by the first", parts, whole))
    return [view for view in views if len(view.queries) >= least]


def halves(text: str) -> tuple[str, str] | None:
    """The two halves of a text, at a word, or at a character if no spaces separate words; None if it is too short."""
    if count_words(text) < 2 * LEAST_HALF:
        return None
    words = split_words(text)
    middle = (len(words) + 1) // 2
    return join_words(words[:middle]), join_words(words[middle:])


def sentences(text: str) -> list[str]:
    """The sentences of a text, cut after full stops, question marks, exclamation marks and at line ends."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def _sentence_and_rest(text: str) -> tuple[str, str] | None:
    """One sentence of a text, chosen by the text's hash, and the other sentences; None if it has too few."""
    found = sentences(text)
    long = [place for place, part in enumerate(found) if count_words(part) >= LEAST_WORDS]
    if len(found) < LEAST_SENTENCES or not long:
        return None
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    chosen = long[number % len(long)]
    return found[chosen], " ".join([*found[:chosen], *found[chosen + 1 :]])


def _without_title(body: str, title: str) -> str:
    """A body without the title at its beginning, if the title ends where a word ends."""
    if not title or not body.casefold().startswith(title.casefold()):
        return body
    lengths = accumulate(len(character.casefold()) for character in body)  # ß is ss, which is longer
    end = 1 + next(place for place, length in enumerate(lengths) if length >= len(title.casefold()))
    inside = _WORDS_APART.fullmatch(body[end - 1 : end + 1]) is not None
    return body if inside else body[end:].strip()


def _view(name: str, task: str, parts: Sequence[tuple[str, str] | None], whole: Sequence[str]) -> View:
    """A view of texts: the query and the document of each; of a text without a query what is searched in its place."""
    queries = {number: part[0] for number, part in enumerate(parts) if part is not None}
    documents = [part[1] if part else other for part, other in zip(parts, whole, strict=True)]
    return View(name, task, list(queries.values()), documents, np.array(list(queries), dtype=np.int64))


def read_pairs(path: str) -> View:
    """Rows of two texts that belong together, such as a question and its answer: the first two columns of a file.

    The first text has to find the second among the second texts of all rows. Of rows with the same first text the first
    one counts; how many others were left out is logged.

    Args:
        path: A csv, tsv, jsonl or parquet file.

    Raises:
        InputError: The file cannot be read, has no header, fewer than two columns, or no row with two texts.
    """
    table = open_table(path)
    columns = list(next(iter(table.read([])), (0, {}))[1]) if table.columns is None else table.columns
    if len(columns) < 2:
        raise InputError(f"{path} must have two columns, the texts that belong together, not {len(columns)}.")
    if not table.has_header(columns[:2]):
        raise InputError(
            f"{path}: the first line, '{', '.join(columns[:2])[:60]}', is the header, but it does not look like names "
            "of columns; write one above the pairs, such as query,document."
        )
    found: dict[str, str] = {}
    blank = others = 0
    for number, cells in table.cells(columns[:2]):
        one, two = (cell_text(cell, table.at(number)).strip() for cell in cells)
        if not (one and two):
            blank += 1
        elif found.setdefault(one, two) != two:
            others += 1
    if not found:
        raise InputError(f"{path} has no row with two texts.")
    if blank:
        say_once(f"{path}: {counted(blank, 'row with an empty cell is', 'rows with an empty cell are')} left out.")
    if others:
        say_once(
            f"{path}: {counted(others, 'row is', 'rows are')} left out because an earlier row has the first text "
            "beside another second text: each first text has to find one. If several answer it, give judged "
            "queries (--dev beir:FOLDER)."
        )
    place = {text: number for number, text in enumerate(dict.fromkeys(found.values()))}
    targets = np.array([place[text] for text in found.values()], dtype=np.int64)
    return View("pair", "finding the second text of a pair by the first", list(found), list(place), targets)
