"""Texts that an encoder cannot tell apart, because its vocabulary lacks their words: those in another script, emoji."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from textcl.texts import counted, in_one_line

if TYPE_CHECKING:
    from textcl.encoder import Encoder  # a search by words imports this file and needs no torch

logger = logging.getLogger("textcl")

UNKNOWN = 0.5  # the share of unknown tokens with which an encoder does not know the language
_TOGETHER = 4096  # texts that are tokenised at a time
_LOOKED_AT, _SAID_FROM = 200, 0.1  # how many texts are looked at, and the share of unknown ones that is worth a warning


def unknown_texts(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Whether at least half of the tokens of each text are the unknown token, or it has no token, (texts,) bool.

    Only the tokens up to the encoder's length count. All such texts have nearly the same vector.

    Example:
        >>> unknown_texts(Encoder.from_pretrained("small"), ["two cats", "สวัสดี"]).tolist()  # doctest: +SKIP
        [False, True]
    """
    from textcl.tokenising import whole_ids

    tokenizer, length = encoder.tokenizer, encoder.max_length
    unknown, found = tokenizer.unk_token_id, np.zeros(len(texts), bool)
    for start in range(0, len(texts), _TOGETHER):
        heads = [text[: 1024 + 8 * length] for text in texts[start : start + _TOGETHER]]
        for place, row in enumerate(whole_ids(tokenizer, heads, special=False), start):
            tokens = row[:length]
            found[place] = not tokens or tokens.count(unknown) >= UNKNOWN * len(tokens)
    return found


def warn_of_unknown(encoder: Encoder, texts: Iterable[str]) -> None:
    """Warns if an encoder does not know at least a tenth of the first 200 texts, see `unknown_texts`."""
    first = list(islice(texts, _LOOKED_AT))
    found = np.flatnonzero(unknown_texts(encoder, first))
    if len(found) and len(found) >= _SAID_FROM * len(first):
        logger.warning(
            "The model knows at most half of the words of %s among the first %d, such as %r, so it cannot tell such "
            "texts apart. Take a model for their language.",
            counted(len(found), "text"),
            len(first),
            in_one_line(first[found[0]], 60),
        )
