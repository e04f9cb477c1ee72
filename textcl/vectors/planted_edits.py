"""Small edits of a user's own texts, planted to measure whether near-duplicates are recognised."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from textcl.words import join_words, split_words

KINDS = ("typo", "case", "order", "more")


def edited(texts: Sequence[str]) -> list[str]:
    """A copy of each text with one edit of `edit`; kind and place depend on the text alone."""
    copies = []
    for number, text in enumerate(texts):
        draw = _draw(text)
        kind = _kind(text, draw)
        copies.append(_edit(text, texts[(number + 1) % len(texts)], kind, draw))
    return copies


def kind_of(text: str) -> str:
    """The kind of the edit that `edited` plants in a copy of a text."""
    return _kind(text, _draw(text))


def edit(text: str, other: str, kind: str) -> str:
    """A copy of a text with one small edit; its place depends on the text alone.

    - typo: two neighbouring letters of the longest word change places.
    - case: all letters become capitals, or small if they are.
    - order: the first half of the words comes after the second.
    - more: a word of another text is added at the end; to long texts a word for each five, such as a sentence.

    Where no spaces separate words, as in Chinese, the characters are the words, and a typo exchanges two of them.

    Some texts cannot be edited so, such as a single word whose order would change; then the copy is the text.

    Args:
        text: The text.
        other: The other text.
        kind: One of `KINDS`.

    Example:
        >>> edit("two cats sleep here", "a dog", "order")
        'sleep here two cats'
    """
    return _edit(text, other, kind, _draw(text))


def _draw(text: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big"))


def _kind(text: str, draw: random.Random) -> str:
    kind = draw.choice(KINDS)
    return kind if len(split_words(text)) > 1 else "more"


def _edit(text: str, other: str, kind: str, draw: random.Random) -> str:
    words = split_words(text)
    if kind == "more":
        return join_words([*words, *split_words(other)[: max(1, len(words) // 5)]])
    if kind == "case":
        return text.lower() if text.isupper() else text.upper()
    if kind == "order":
        return join_words([*words[len(words) // 2 :], *words[: len(words) // 2]])
    if not words:
        return text
    place = max(range(len(words)), key=lambda i: (len(words[i]), draw.random()))
    word, at = words[place], draw.randrange(max(1, len(words[place]) - 1))
    if len(word) == 1:  # where no spaces separate words, or in "a b c"
        words[place : place + 2] = words[place : place + 2][::-1]
    else:
        words[place] = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    return join_words(words)
