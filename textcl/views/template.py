"""A text inside a template, such as 'This sentence : "{text}" means [MASK] .' (PromptBERT)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from textcl.errors import InputError

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
            raise InputError(f"A template must contain {PLACE} exactly once; {self.template!r} does not.")
        if sum(self.edges) >= self.max_length:
            raise InputError(
                f"The template {self.template!r} takes {sum(self.edges)} tokens, so that max_length {self.max_length} "
                "leaves none for a text; raise max_length or use a shorter template."
            )

    @cached_property
    def edges(self) -> tuple[int, int]:
        """The numbers of tokens before and after the text, special tokens included."""
        # counted around a text, because the space before a text may belong to its first token
        offsets, place = self._offsets("a"), self.template.index(PLACE)
        of_text = [number for number, (start, end) in enumerate(offsets) if start <= place < end]
        return of_text[0], len(offsets) - 1 - of_text[-1]

    def __call__(self, text: str) -> str:
        offsets = self._offsets(text)
        if len(offsets) > self.max_length:
            last = self.max_length - self.edges[1] - 1  # the last token of the text that fits
            end = min(offsets[last][1], offsets[last + 1][0])  # do not split a character that has several tokens
            text = text[: max(0, end - self.template.index(PLACE))]
        return self.template.replace(PLACE, text)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """The (start, end) of each token of the filled template, in characters."""
        filled = self.template.replace(PLACE, text)
        return list(self.tokenizer(filled, return_offsets_mapping=True, verbose=False)["offset_mapping"])


def in_prompt(prompt: str, tokenizer: Any, max_length: int) -> Callable[[str], str]:
    """A function that puts a text after a prompt, or inside it if the prompt contains `{text}`."""
    return Template(prompt, tokenizer, max_length) if PLACE in prompt else lambda text: prompt + text
