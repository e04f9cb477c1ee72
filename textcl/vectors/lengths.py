"""Texts that are longer than an encoder reads: which ones they are, and their parts with `split_long`."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.tokenising import head_of, whole_ids
from textcl.views.template import PLACE, in_prompt

OVERLAP = 4  # a part shares a quarter of its tokens with the next one
BLOCK = 1 << 18  # characters that are tokenised at a time
_EXPANSION = 18  # the most characters that Unicode's NFKC makes of one
_CUT_WORD = 128  # a word that is cut may have so many tokens more than the whole word, which is one unknown token


def are_longer(encoder: Encoder, texts: Sequence[str], prompt: str) -> np.ndarray:
    """Whether each text, with its prompt, has more tokens than the encoder's length, (texts,) bool.

    Few texts are tokenised whole: short ones cannot be too long, and of long ones the beginning has too many tokens.
    """
    length, tokenizer = encoder.max_length, encoder.tokenizer

    def counts(heads: Sequence[str]) -> list[int]:
        rows = whole_ids(tokenizer, [_filled(prompt, head) for head in heads]) if heads else []
        return [len(row) for row in rows]

    spare = length - _around(encoder, prompt) - 1  # a tokenizer may put a token before the first word
    long = [n for n, text in enumerate(texts) if len(text) * (1 if text.isascii() else _EXPANSION) > spare]
    heads = [texts[n][: 1024 + 8 * length] for n in long]
    found, unsure = np.zeros(len(texts), bool), []
    for n, head, count in zip(long, heads, counts(heads), strict=True):
        found[n] = count > length if head == texts[n] else count > length + _CUT_WORD
        if head != texts[n] and not found[n]:
            unsure.append(n)
    found[unsure] = [count > length for count in counts([head_of(tokenizer, texts[n], length) for n in unsure])]
    return found


def parts_of(encoder: Encoder, text: str, prompt: str) -> list[str]:
    """The overlapping parts of a long text. Each has at most as many tokens as the encoder reads, its prompt included.

    A part holds as many whole words as fit; a word alone that does not fit is cut between two tokens. The next part
    begins a quarter of a part before its end, at the beginning of a word. The last part is filled with what is before
    it.

    Raises:
        InputError: The tokenizer does not say where its tokens are in a text.
    """
    if not encoder.tokenizer.is_fast:
        raise InputError("--split-long needs a tokenizer that says where its tokens are (a fast tokenizer).")
    in_prompt(prompt, encoder.tokenizer, encoder.max_length)  # refuses a prompt that leaves no room
    room = max(1, encoder.max_length - _around(encoder, prompt))
    while True:
        parts = _parts(encoder.tokenizer, text, room)
        rows = whole_ids(encoder.tokenizer, [_filled(prompt, part) for part in parts])
        over = max(map(len, rows)) - encoder.max_length
        if over <= 0 or room == 1:
            return parts
        room = max(1, room - over)  # alone, a part may have a token more than in its text


def _parts(tokenizer: Any, text: str, room: int) -> list[str]:
    """The parts of a text with at most `room` tokens each, as they are counted in the whole text."""
    parts, begin, size = [], 0, BLOCK
    while True:
        block = text[begin : begin + size]
        ends = begin + len(block) >= len(text)
        spans, words = _tokens(tokenizer, block)
        start = consumed = 0
        while start + room < len(spans):
            end = _word_before(words, spans, start + room, start + max(1, room // 2))
            if not ends and end + room > len(spans):
                break  # the end of the block may cut a word
            parts.append(block[spans[start][0] if start else 0 : spans[end - 1][1]])
            start = max(_word_before(words, spans, end - room // OVERLAP, max(start + 1, end - room // 2)), start + 1)
            consumed = spans[start][0]
        if ends:
            first = _word_after(words, spans, len(spans) - room, start)
            parts.append(block[spans[first][0] if first else 0 :])
            break
        if not consumed:  # the block has few tokens
            size *= 2
        else:
            begin += consumed
    return [part.strip() for part in parts if part.strip()]


def _tokens(tokenizer: Any, text: str) -> tuple[list[tuple[int, int]], list[int | None]]:
    """The (start, end) of each token in characters, and the number of its word."""
    asked = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
    encoding = tokenizer([text], return_offsets_mapping=True, **asked).encodings[0]
    return encoding.offsets, cast("list[int | None]", encoding.word_ids)


def _word_before(words: Sequence[int | None], spans: Sequence[tuple[int, int]], token: int, lowest: int) -> int:
    """The last token up to `token`, at least `lowest`, that begins a word, else one that splits no character."""
    for pattern in (_begins_word, _begins_character):
        for place in range(token, max(lowest, 1) - 1, -1):
            if pattern(words, spans, place):
                return place
    return token


def _word_after(words: Sequence[int | None], spans: Sequence[tuple[int, int]], token: int, highest: int) -> int:
    """The first token from `token` on that begins a word, at most `highest`."""
    return next((place for place in range(max(token, 0), highest) if _begins_word(words, spans, place)), highest)


def _begins_word(words: Sequence[int | None], spans: Sequence[tuple[int, int]], token: int) -> bool:
    return token == 0 or words[token] != words[token - 1]


def _begins_character(words: Sequence[int | None], spans: Sequence[tuple[int, int]], token: int) -> bool:
    return token == 0 or spans[token][0] >= spans[token - 1][1]


def _around(encoder: Encoder, prompt: str) -> int:
    """The number of tokens around a text: special tokens and the prompt."""
    whole, bare = whole_ids(encoder.tokenizer, [_filled(prompt, "a")]), whole_ids(encoder.tokenizer, ["a"], False)
    return len(whole[0]) - len(bare[0])


def _filled(prompt: str, text: str) -> str:
    return prompt.replace(PLACE, text) if PLACE in prompt else prompt + text
