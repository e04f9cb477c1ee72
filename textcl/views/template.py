"""A text inside a template, such as 'This sentence : "{text}" means [MASK] .' (PromptBERT)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from textcl.errors import InputError

PLACE = "{text}"


@dataclass(frozen=True)
class Template:
    """Puts texts into a template, cut so that what follows them is not lost.

    Jiang et al. 2022 (PromptBERT, arXiv 2201.04337), section 3.2.

    Attributes:
        template: Holds `{text}`.
        tokenizer: The encoder's.
        max_length: Tokens of a text in its template, special tokens included.

    Raises:
        InputError: If the template does not hold `{text}`, or leaves no room for a text.
    """

    template: str
    tokenizer: Any
    max_length: int

    def __post_init__(self) -> None:
        if self.template.count(PLACE) != 1:
            raise InputError(f"A template holds {PLACE} once, where the text goes; {self.template!r} does not.")
        if sum(self.edges) >= self.max_length:
            raise InputError(
                f"The template {self.template!r} takes {sum(self.edges)} tokens, and max_length {self.max_length} "
                "leaves none for a text; raise max_length or take a shorter template."
            )

    @cached_property
    def edges(self) -> tuple[int, int]:
        """Tokens before the text and behind it, special ones included."""
        # around a text, since a space before it may belong to its first token
        offsets, place = self._offsets("a"), self.template.index(PLACE)
        of_text = [number for number, (start, end) in enumerate(offsets) if start <= place < end]
        return of_text[0], len(offsets) - 1 - of_text[-1]

    def __call__(self, text: str) -> str:
        offsets = self._offsets(text)
        if len(offsets) > self.max_length:
            last = self.max_length - self.edges[1] - 1  # the last token of the text that there is room for
            end = min(offsets[last][1], offsets[last + 1][0])  # a character of several tokens is not cut in two
            text = text[: max(0, end - self.template.index(PLACE))]
        return self.template.replace(PLACE, text)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text in its template begin and end, in characters."""
        filled = self.template.replace(PLACE, text)
        return list(self.tokenizer(filled, return_offsets_mapping=True, verbose=False)["offset_mapping"])


def in_prompt(prompt: str, tokenizer: Any, max_length: int) -> Callable[[str], str]:
    """The function that puts a text behind a prompt or, if that holds `{text}`, into it."""
    return Template(prompt, tokenizer, max_length) if PLACE in prompt else lambda text: prompt + text
