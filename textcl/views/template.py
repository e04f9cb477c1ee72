"""A text inside a template, such as 'This sentence : "{text}" means [MASK] .' (PromptBERT)."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from textcl.errors import InputError
from textcl.tokenising import check_room, head_of, token_ids, whole_ids

PLACE = "{text}"


@dataclass(frozen=True)
class Template:
    """Puts texts into a template. Long texts are truncated, so that the end of the template is kept.

    Jiang et al. 2022 (PromptBERT, arXiv 2201.04337), section 3.2.

    Attributes:
        template: The template; it contains `{text}` once.
        tokenizer: The encoder's tokenizer.
        max_length: The maximal number of tokens of the filled template, special tokens included.

    Raises:
        InputError: The template does not contain `{text}` exactly once, or it leaves no room for a text.
    """

    template: str
    tokenizer: Any
    max_length: int

    def __post_init__(self) -> None:
        if self.template.count(PLACE) != 1:
            raise InputError(f"A template must contain {PLACE} exactly once; {self.template[:60]!r} does not.")
        check_room(self.tokenizer, self.max_length)
        # only so many tokens are counted, because a template may be very long
        if len(token_ids(self.tokenizer, [self._filled("a")], self.max_length + 1)[0]) > self.max_length:
            raise InputError(
                f"The template {self.template[:60]!r} has so many tokens that max_length {self.max_length} leaves none "
                "for a text; raise max_length or use a shorter template."
            )

    @cached_property
    def edges(self) -> tuple[int, int]:
        """The numbers of tokens before and after the text, special tokens included."""
        # counted around a text, because the space before a text may belong to its first token
        if not self.tokenizer.is_fast:  # a tokenizer written in Python does not say where a token lies in the text
            rows = whole_ids(self.tokenizer, [self._filled(text) for text in ("a", "b")])
            before = next((n for n, (one, other) in enumerate(zip(*rows, strict=False)) if one != other), 0)
            return before, len(rows[0]) - 1 - before
        offsets, place = self._offsets("a"), self.template.index(PLACE)
        of_text = [number for number, (start, end) in enumerate(offsets) if start <= place < end]
        return of_text[0], len(offsets) - 1 - of_text[-1]

    def __call__(self, text: str) -> str:
        text = head_of(self.tokenizer, text, self.max_length)
        if not self.tokenizer.is_fast:
            return self._filled(self._fitting(text))
        offsets = self._offsets(text)
        if len(offsets) > self.max_length:
            last = self.max_length - self.edges[1] - 1  # the last token of the text that fits
            end = min(offsets[last][1], offsets[last + 1][0])  # do not split a character that has several tokens
            text = text[: max(0, end - self.template.index(PLACE))]
        return self._filled(text)

    def _filled(self, text: str) -> str:
        return self.template.replace(PLACE, text)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """The (start, end) of each token of the filled template, in characters."""
        filled = self._filled(text)
        options = {"padding": False, "truncation": False, "verbose": False}
        return list(self.tokenizer(filled, return_offsets_mapping=True, **options)["offset_mapping"])

    def _fitting(self, text: str) -> str:
        """The longest beginning of a text with which the filled template is not too long, found by halving."""

        def tokens(length: int) -> int:
            return len(whole_ids(self.tokenizer, [self._filled(text[:length])])[0])

        return text[: max(0, bisect_right(range(len(text) + 1), self.max_length, key=tokens) - 1)]


def in_prompt(prompt: str, tokenizer: Any, max_length: int) -> Callable[[str], str]:
    """A function that puts a text after a prompt, or inside it if the prompt contains `{text}`.

    Raises:
        InputError: If the prompt leaves no token for a text.
    """
    if PLACE in prompt:
        return Template(prompt, tokenizer, max_length)
    check_room(tokenizer, max_length, prompt)
    return lambda text: prompt + text


def check_in_front(prompt: str) -> None:
    """Raises an InputError if the prompt stands around the text, for an encoder with `pool_prompt` False."""
    if PLACE in prompt:
        raise InputError(
            f"The prompt {prompt!r} stands around the text, but the encoder does not pool the tokens of its "
            f"prompts, which works only for prompts in front of the text. Give a prompt without {PLACE}."
        )
