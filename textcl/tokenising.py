"""Texts as rows of tokens. No function here changes the tokenizer, so that threads and encoders can share one.

A tokenizer of transformers keeps the length at which it cuts texts as its own state: two encoders that share it would
cut at each other's length. Here it never cuts. Rows are cut afterwards, between the special tokens.
"""

from collections.abc import Sequence
from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.errors import InputError

# A text that is longer than twice this many characters is cut to a part of it before it is tokenised, see `head_of`.
CHARACTERS, CHARACTERS_PER_TOKEN = 4096, 16
MARGIN = 64  # this many more tokens than twice the length show that the cut was far enough behind the last token
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # what `pad` returns, and a backbone takes
SAMPLES = ("a", "the cat", "1 2", "été", "中文", "дом")  # texts for finding out what a tokenizer does


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None, special: bool = True
) -> list[list[int]]:
    """The tokens of texts, cut at `max_length` on the side that the tokenizer names.

    Args:
        tokenizer: The tokenizer; it is not changed.
        texts: The texts.
        max_length: Largest number of tokens of a row, special tokens included; None: rows are not cut.
        special: Whether to put special tokens around the texts.

    Raises:
        InputError: If a row is too long, and `max_length` leaves no token for a text.
    """
    if max_length is None:
        return whole_ids(tokenizer, texts, special)
    left = tokenizer.truncation_side == "left"
    rows = whole_ids(tokenizer, [head_of(tokenizer, text, max_length, left) for text in texts], special)
    if all(len(row) <= max_length for row in rows):
        return rows
    before, after = special_edges(tokenizer) if special else (0, 0)
    _check_room_for_a_token(max_length, before + after)
    return [_cut(row, max_length, before, after, left) if len(row) > max_length else row for row in rows]


def whole_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """The tokens of whole texts, not cut, with or without special tokens around them."""
    if len(texts) == 0:  # which tokenizers of transformers refuse
        return []
    # only ids: the tokenizer's other outputs take longer to return than to compute
    asked = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    ids = tokenizer(list(texts), add_special_tokens=special, padding=False, truncation=False, **asked)["input_ids"]
    return cast(list[list[int]], ids)


def _cut(row: list[int], length: int, before: int, after: int, left: bool) -> list[int]:
    if left:
        return row[:before] + row[len(row) - length + before :]
    return row[: length - after] + row[len(row) - after :]


def special_edges(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The numbers of special tokens that the tokenizer puts before and after a text."""
    plain, whole = (whole_ids(tokenizer, SAMPLES, special) for special in (False, True))
    count = len(whole[0]) - len(plain[0])
    for before in range(count + 1):
        if all(row[before : before + len(own)] == own for own, row in zip(plain, whole, strict=True)):
            return before, count - before
    return 0, count


def head_of(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int, left: bool = False) -> str:
    """A part of a long text with the same first `max_length` tokens, or last ones with `left`; a short text as it is.

    A tokenizer reads all of a text, although only its first tokens are needed; a line of 100 MB takes minutes. Here a
    part and a part of twice its length are tokenised. If both have far more tokens than are needed, and the needed
    ones are equal, the first part is enough. Otherwise both become longer. Characters that give no token of their own,
    such as thousands of spaces or of letters of one unknown word, are left out.
    """
    size = max(CHARACTERS, CHARACTERS_PER_TOKEN * max_length)
    while len(text) > 2 * size:
        short, longer = (text[-length:] if left else text[:length] for length in (size, 2 * size))
        few, more = whole_ids(tokenizer, [short, longer], special=False)
        needed = [row[-max_length:] if left else row[:max_length] for row in (few, more)]
        if len(few) >= 2 * max_length + MARGIN and needed[0] == needed[1]:
            return short
        shorter = _without_stretch(text, size, left) if few == more else text
        if len(shorter) == len(text):
            size *= 2
        text = shorter
    return text


def _without_stretch(text: str, size: int, left: bool) -> str:
    """Leaves out what follows the first 2 · size characters as long as it has only characters of their second half.

    These gave no token. The text is unchanged if they are spaces and letters mixed, because then words may begin.
    """
    stretch = text[-2 * size : -size] if left else text[size : 2 * size]
    if len({character.isspace() for character in stretch}) > 1:
        return text
    characters = "".join(set(stretch))
    if left:
        return text[: -2 * size].rstrip(characters) + text[-2 * size :]
    return text[: 2 * size] + text[2 * size :].lstrip(characters)


def check_room(tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "") -> None:
    """Raises `InputError` if `max_length` leaves no token for a text between the special tokens and behind a prompt.

    A tokenizer that cuts on the left cuts the prompt, and keeps the end of the text.
    """
    _check_room_for_a_token(max_length, sum(special_edges(tokenizer)))
    left = tokenizer.truncation_side == "left"
    if prompt and not left and len(token_ids(tokenizer, [prompt + "a"], max_length + 1)[0]) > max_length:
        raise InputError(
            f"The prompt {prompt[:60]!r} has so many tokens that max_length {max_length} leaves none for a text; raise "
            "max_length or use a shorter prompt."
        )


def _check_room_for_a_token(max_length: int, special: int) -> None:
    if max_length <= special:
        raise InputError(
            f"max_length {max_length} leaves none for a text: this tokenizer puts {special} special tokens around each "
            f"text, so max_length must be at least {special + 1}."
        )


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None) -> dict[str, Tensor]:
    """Texts as token tensors (rows, length), cut at `max_length`, padded on the right; None: not cut."""
    return pad(tokenizer, token_ids(tokenizer, texts, max_length))


def pad(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Rows of tokens, special tokens included, as token tensors (rows, length), padded on the right.

    A row without tokens is all padding.
    """
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    there = torch.arange(max([1, *lengths.tolist()])) < lengths[:, None]
    input_ids = torch.full(there.shape, padding_token(tokenizer))
    input_ids[there] = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())))
    tensors = {"input_ids": input_ids, "attention_mask": there.long()}
    if "token_type_ids" in tokenizer.model_input_names:  # a single text has only one type
        tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
    return tensors


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token for padding: the tokenizer's padding token, else its end token, else 0. The mask hides it."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return int(next((token for token in known if token is not None), 0))


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest token. It is not the number of tokens, because a vocabulary may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1
