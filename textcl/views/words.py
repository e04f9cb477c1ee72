"""Views that change the words of a text: synonyms, deletion, swap, crop.

Where no spaces separate words, as in Chinese, each character is a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from textcl.errors import InputError
from textcl.texts import as_texts
from textcl.views import wordnet
from textcl.views.draws import text_id, uniform
from textcl.words import pieces_of

STREAM = 1  # the stream of the draws; masked-word prediction uses stream 0

_WINDOW = 256  # texts whose random numbers are in memory at once


def synonyms(texts: Sequence[str], *, rate: float = 0.15, seed: int = 42, view: int = 0) -> list[str]:
    """Replaces words with WordNet synonyms, as in EDA (Wei and Zou 2019). Stop words are not replaced.

    Args:
        texts: English texts.
        rate: The probability that a word that has a synonym is replaced.
        seed: The seed of the draws.
        view: The number of the view.

    Raises:
        InputError: WordNet is not on this machine; the message says how to import it.

    Example:
        >>> synonyms(["A huge dog slept."], rate=1.0)  # doctest: +SKIP
        ['A brobdingnagian bounder kip.']
    """
    texts = as_texts(texts)
    result = []
    for pieces, draws in drawn(texts, rate, seed, view):
        for word in np.flatnonzero(draws < rate):
            original = pieces[2 * word + 1]
            if found := wordnet.substitutes(original):
                # given draw < rate, draw / rate is uniform on [0, 1)
                synonym = found[int(draws[word] / rate * len(found))]
                pieces[2 * word + 1] = wordnet.in_case_of(original, synonym)
        result.append("".join(pieces))
    return result


def deletion(texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0) -> list[str]:
    """Deletes each word with probability `rate`; if all words would be deleted, one is kept.

    Example:
        >>> deletion(["A huge dog slept, and it snored."], rate=0.3)
        ['A huge dog slept, it.']
    """
    texts = as_texts(texts)
    result = []
    for text, (pieces, draws) in zip(texts, drawn(texts, rate, seed, view), strict=True):
        gone = draws < rate
        if not gone.any():
            result.append(text)
            continue
        if gone.all():
            gone[np.argmax(draws)] = False
        kept, between = [], pieces[0]
        for word, following, is_gone in zip(pieces[1::2], pieces[2::2], gone, strict=True):
            if is_gone:  # delete the space on one side of the word too
                between = between.rstrip() + following if between[-1:].isspace() else between + following.lstrip()
            else:
                kept += [between, word]
                between = following
        result.append("".join([*kept, between]))
    return result


def swap(texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0) -> list[str]:
    """Exchanges adjacent words; about a share `rate` of the words is moved, none twice.

    Example:
        >>> swap(["A huge dog slept, and it snored."], rate=0.5)
        ['A huge dog slept, it and snored.']
    """
    begins = rate / (2 - rate)  # a swap moves two words, and the second cannot begin another swap
    texts = as_texts(texts)
    result = []
    for pieces, draws in drawn(texts, rate, seed, view):
        word = 0
        while word + 1 < len(draws):
            if draws[word] < begins:
                first = 2 * word + 1
                pieces[first], pieces[first + 2] = pieces[first + 2], pieces[first]
                word += 1
            word += 1
        result.append("".join(pieces))
    return result


def crop(texts: Sequence[str], *, rate: float = 0.3, seed: int = 42, view: int = 0) -> list[str]:
    """Keeps a contiguous span of the words; `rate` is the share of the words that is cut away.

    Example:
        >>> crop(["A huge dog slept, and it snored."], rate=0.5)
        ['huge dog slept, and']
    """
    texts = as_texts(texts)
    result = []
    for pieces, draws in drawn(texts, rate, seed, view):
        words = len(draws)
        kept = max(1, round(words * (1 - rate)))
        start = int(draws[0] * (words - kept + 1)) if words else 0
        end = start + kept
        # the text before the first word and after the last word belongs to that word
        result.append("".join(pieces[2 * start + (start > 0) : 2 * end + (end >= words)]))
    return result


# draws
def drawn(texts: Sequence[str], rate: float, seed: int, view: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields for each text its pieces (words at odd indices) and one random number from [0, 1) for each word."""
    check_rate(rate)
    for start in range(0, len(texts), _WINDOW):
        window = texts[start : start + _WINDOW]
        pieces = [pieces_of(text) for text in window]
        longest = max(len(row) // 2 for row in pieces)
        draws = uniform(seed, 0, torch.tensor([text_id(text) for text in window]), view, longest, STREAM).numpy()
        for row, numbers in zip(pieces, draws, strict=True):
            yield row, numbers[: len(row) // 2]


def check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise InputError(f"A rate must be a share from 0 to 1, not {rate}.")
