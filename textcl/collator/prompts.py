"""The prompts that texts have in training: those that `Encoder.encode` puts before them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.encoder import Encoder
from textcl.encoder.batching import prompt_length
from textcl.tokenising import special_edges
from textcl.views.template import PLACE, Template, check_in_front


@dataclass(frozen=True)
class Prompts:
    """The prompt of each column of the training rows. A prompt stands before the text or, with `{text}`, around it.

    Attributes:
        default: The prompt of unlabelled texts, and of the columns of pairs for which there is no other.
        query: The prompt of the anchors of pairs; None: the default prompt.
        document: The prompt of the positives and negatives of pairs; None: the default prompt.
        chosen: The prompts of single columns, in place of all others.
        pooled: Whether the pooling reads the prompt's tokens, see `Encoder`.
    """

    default: str = ""
    query: str | None = None
    document: str | None = None
    chosen: Mapping[str, str] = field(default_factory=dict)
    pooled: bool = True

    @classmethod
    def of(cls, encoder: Encoder, chosen: Mapping[str, str] | None = None) -> Self:
        """The prompts that an encoder has for queries, for documents and for all other texts.

        Args:
            encoder: The encoder.
            chosen: For a column the text of another prompt, or the name of one of the encoder's prompts; "": none.
        """
        known = encoder.prompts
        named = {column: known.get(prompt, prompt) for column, prompt in (chosen or {}).items()}
        return cls(encoder.prompt_text(), known.get("query"), known.get("document"), named, encoder.pool_prompt)

    def of_column(self, column: str, paired: bool) -> str:
        """The prompt of a column; `text_1` and `text_2` are views of `text`.

        Args:
            column: The name of the column.
            paired: Whether the rows are pairs or triplets.

        Raises:
            InputError: The prompt stands around the text, and its tokens should not be pooled.
        """
        column = "text" if column.startswith("text_") else column
        role = (self.query if column == "text" else self.document) if paired else None
        prompt = self.chosen.get(column, self.default if role is None else role)
        if not self.pooled:
            check_in_front(prompt)
        return prompt

    def lengths(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str | Template],
        max_length: int,
        view: Tensor,
    ) -> dict[str, Tensor]:
        """`prompt_lengths`, the tokens of each row that the pooling skips; empty if it skips none.

        Args:
            tokenizer: The tokenizer.
            prompts: The prompt or template of each view.
            max_length: Tokens after which a text is cut.
            view: The number of each row's view, (rows,).
        """
        if self.pooled:
            return {}
        found = [
            prompt_length(tokenizer, each, max_length) if isinstance(each, str) and each else 0 for each in prompts
        ]
        return {"prompt_lengths": torch.tensor(found)[view]} if any(found) else {}


def prompt_edges(
    tokenizer: PreTrainedTokenizerBase, prompt: str | Template, max_length: int | None = None
) -> tuple[int, int]:
    """The numbers of tokens before and after a text with this prompt, special tokens included.

    Args:
        tokenizer: The tokenizer.
        prompt: The prompt, or a template that was made already; empty: only special tokens.
        max_length: Tokens after which a text is cut; None: not cut.

    Raises:
        InputError: The prompt leaves no room for a text.
    """
    if isinstance(prompt, Template):
        return prompt.edges
    if PLACE in prompt or (prompt and tokenizer.is_fast):
        template = prompt if PLACE in prompt else prompt + PLACE
        return Template(template, tokenizer, max_length or sys.maxsize).edges
    before, behind = special_edges(tokenizer)
    return (prompt_length(tokenizer, prompt, sys.maxsize) if prompt else before), behind
