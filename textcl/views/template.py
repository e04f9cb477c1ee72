"""A text inside a template, such as 'This sentence : "{text}" means [MASK] .' (PromptBERT)."""

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
        InputError: If the template does not hold `{text}`.
    """

    template: str
    tokenizer: Any
    max_length: int

    def __post_init__(self) -> None:
        if self.template.count(PLACE) != 1:
            raise InputError(f"A template holds {PLACE} once, where the text goes; {self.template!r} does not.")

    @cached_property
    def edges(self) -> tuple[int, int]:
        """Tokens before the text and behind it, special ones included."""
        before, _, after = self.template.partition(PLACE)
        around = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        count = [len(self.tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after)]
        return around.index(0) + count[0], around[::-1].index(0) + count[1]

    def __call__(self, text: str) -> str:
        room = self.max_length - sum(self.edges)
        if len(text) > room:
            tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            text = text[: tokens["offset_mapping"][room - 1][1]] if len(tokens["input_ids"]) > room else text
        return self.template.replace(PLACE, text)
