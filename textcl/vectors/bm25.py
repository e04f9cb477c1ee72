"""BM25: how well the words of a query agree with those of each text; computed by the package bm25s."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Self
from unicodedata import normalize

import numpy as np

from textcl.errors import InputError, nearest
from textcl.files import atomic_write
from textcl.seals import agrees, seal, write_sealed
from textcl.texts import each_text
from textcl.words import with_spaces, word_pattern

FILE, MARK = "bm25.npz", "bm25.json"  # the index in a directory of vectors, and its seal
FORMAT = 2  # counted up when the words of a text or the formula change, so that saved indexes are built again
K1, B = 1.5, 0.75
# The languages for which bm25s has stop words.
STOP_WORDS = (
    *("danish", "dutch", "english", "french", "german", "italian"),
    *("norwegian", "portuguese", "russian", "spanish", "swedish", "turkish"),
)


class Bm25:
    """The BM25 scores of all texts for a query.

    The score of a text is the sum over the query's words of idf · f / (f + k₁ (1 − b + b · length / mean length)), with
    f the number of times that the text has the word, idf = ln(1 + (n − m + ½) / (m + ½)) for a word that m of n texts
    have, k₁ = 1.5 and b = 0.75 (Robertson and Zaragoza 2009; the form of Lucene, Kamphuis et al. 2020). Words are runs
    of at least two letters, digits or underscores in lower case, without the stop words of the language, and stemmed by
    Snowball. In Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer they are the characters and the pairs of
    neighbouring ones.

    Args:
        texts: The texts.
        language: The language of the stemmer, one of `languages()`. bm25s has stop words for some of them.

    Raises:
        InputError: There is no text, a text is not valid, or Snowball has no such language.

    Example:
        >>> Bm25(["cats sleep", "dogs bark"]).scores("a sleeping cat").argmax().item()
        0
    """

    def __init__(self, texts: Iterable[str], language: str = "english") -> None:
        self.language = language
        tokens = _words(each_text(texts), language, as_numbers=True)
        if not tokens.ids:
            raise InputError("There is no text to search.")
        # in alphabetical order, so that equal texts give equal files; "" because bm25s refuses an empty vocabulary
        words = ["", *sorted(tokens.vocab)]
        places = {word: place for place, word in enumerate(words)}
        place_of = {number: places[word] for word, number in tokens.vocab.items()}
        index = _empty()
        rows = [[place_of[number] for number in row] for row in tokens.ids]
        with np.errstate(invalid="ignore"):  # the mean length is 0 if no text has a word
            index.index((rows, places), create_empty_token=False, show_progress=False)
        self._index, self._places = index, places

    def scores(self, query: str) -> np.ndarray:
        """The score of each text for a query, (texts,) float32; 0 for a text that has no word of the query.

        A word that the query repeats counts as often as it is there.
        """
        (words,) = _words([query], self.language, as_numbers=False)
        found: np.ndarray = self._index.get_scores_from_ids(
            [self._places[word] for word in words if word in self._places]
        )
        return found

    def save(self, directory: Path, made_of: dict[str, Any]) -> None:
        """Saves the index in a directory, with its seal.

        Args:
            directory: The directory.
            made_of: What identifies the texts, as JSON holds it.
        """
        numbers = {name: self._index.scores[name] for name in ("data", "indices", "indptr", "num_docs")}
        words = np.frombuffer("\n".join(self._places).encode(), np.uint8)
        with atomic_write(directory / FILE) as temporary, temporary.open("wb") as handle:
            np.savez(handle, words=words, **numbers)
        write_sealed(directory / MARK, {"made_of": self._made_of(made_of), "files": seal(directory, [FILE])})

    @classmethod
    def load(cls, directory: Path, made_of: dict[str, Any], language: str = "english") -> Self | None:
        """The index that `save` wrote; None if it is missing, damaged, or of other texts or another language."""
        self = cls.__new__(cls)
        self.language = language
        if not agrees(directory / MARK, made_of=self._made_of(made_of)):
            return None
        with np.load(directory / FILE, allow_pickle=False) as kept:
            self._index = _empty()
            self._index.scores = {name: kept[name] for name in ("data", "indices", "indptr")}
            self._index.scores["num_docs"] = int(kept["num_docs"])
            words = kept["words"].tobytes().decode().split("\n")
        self._places = {word: place for place, word in enumerate(words)}
        return self

    def _made_of(self, texts: dict[str, Any]) -> dict[str, Any]:
        return {"format": FORMAT, "language": self.language, **texts}


def languages() -> list[str]:
    """The languages of Snowball's stemmers."""
    from Stemmer import algorithms

    return [name for name in algorithms() if name not in ("porter", "dutch_porter")]  # older versions of two of them


def check_language(language: str) -> None:
    """Raises an InputError unless there is a stemmer for a language."""
    if language not in (known := languages()):
        raise InputError(
            f"There is no stemmer for {language!r}; the languages are {', '.join(known)}.{nearest(language, known)}"
        )


def _words(texts: Iterable[str], language: str, *, as_numbers: bool) -> Any:
    """The words of each text, as bm25s' `tokenize` returns them."""
    from bm25s import tokenize

    composed = [text if text.isascii() else with_spaces(normalize("NFC", text), for_search=True) for text in texts]
    return tokenize(
        composed,
        token_pattern=word_pattern(least=2, for_search=True),
        stopwords=language if language in STOP_WORDS else None,
        stemmer=_stemmer(language),
        return_ids=as_numbers,
        show_progress=False,
    )


@cache
def _stemmer(language: str) -> Any:
    from Stemmer import Stemmer

    check_language(language)
    return Stemmer(language)


def _empty() -> Any:
    from bm25s import BM25

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s makes its logger tell every step
    index = BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="scipy")
    index.nonoccurrence_array = None  # only of other formulas; set here since bm25s sets it when it builds an index
    return index
