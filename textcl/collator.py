"""Rows of a dataset become one flat batch of token tensors that holds all their views."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.batching import tokenize
from textcl.errors import InputError
from textcl.views import PLAIN, View
from textcl.views.draws import MASKS, uniform
from textcl.views.tokens import Draw, TokenRows

COLUMNS = ("text", "positive", "negative")

Block = tuple[str, View]
"""A column of the dataset, and the view under which the batch holds it."""


def text_id(text: str) -> int:
    """A 64-bit content hash, so that equal texts can be found in a batch and across ranks."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


class Collator:
    """Makes the flat batch that a method's `forward` takes.

    A row holds `text`, and with labels `positive`, `negative` or `label`; where the text views of
    `textcl.views.text.augment` were added, it holds those as `text_1`, `text_2`. Unlabelled text gives two views of
    `text`; without operators they are equal rows of tokens, which the encoder's dropout turns into two views.

    The batch is block-major (all rows of block 0, then all of block 1, …) and holds `input_ids`, `attention_mask` and
    what else the tokenizer gives, each (blocks · batch, length); `view`, the block's number, (blocks · batch,);
    `group`, equal for rows that are positives of each other; `text_id`, a content hash taken before any view; `label`
    (batch,) where rows have one. With `mask_probability` it also holds masked copies of the texts without operators:
    `mlm_input_ids`, `mlm_attention_mask` and `mlm_labels` (-100 where no word is asked for).

    What is random here is a pure function of (seed, epoch, text, view number), so that a resumed run draws the same.

    Args:
        tokenizer: The encoder's.
        max_length: Tokens after which a text is cut.
        views: Of unlabelled text.
        blocks: What the batch holds, where it is neither two views of `text` nor each labelled column once.
        dropout_views: Whether the model has the dropout that makes views of equal tokens; without, they are refused.
        mask_probability: Share of the tokens chosen for masked-word prediction; 0: none.
        seed: Of views and masks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        views: Sequence[View] = (PLAIN, PLAIN),
        blocks: Sequence[Block] | None = None,
        dropout_views: bool = True,
        mask_probability: float = 0.0,
        seed: int = 42,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.views = views
        self.blocks = blocks
        self.dropout_views = dropout_views
        self.mask_probability = mask_probability
        self.seed = seed
        self._special = torch.tensor(tokenizer.all_special_ids)
        # Shared memory: dataloader workers that live longer than an epoch have to see it move on.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()
        if mask_probability and self.tokenizer.mask_token is None:
            raise InputError("Masked-word prediction needs a tokenizer with a mask token; this one has none.")

    def set_epoch(self, epoch: int) -> None:
        """Makes the next views and masks those of `epoch`."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        blocks = self.blocks or self._blocks(rows[0])
        columns = list(dict.fromkeys(column for column, _ in blocks))
        if lacking := [column for column in columns if column not in rows[0]]:
            raise InputError(f"A training row needs a column {lacking[0]!r}; this one has {sorted(rows[0])}.")
        texts = [row[column] or " " for column in columns for row in rows]
        tokens = tokenize(self.tokenizer, texts, self.max_length)
        ids = torch.tensor([text_id(text) for text in texts])
        which = torch.cat([torch.arange(len(rows)) + columns.index(column) * len(rows) for column, _ in blocks])
        batch = {name: tensor[which] for name, tensor in tokens.items()}
        batch |= {
            "view": torch.arange(len(blocks)).repeat_interleave(len(rows)),
            "group": torch.arange(len(rows)).repeat(len(blocks)),
            "text_id": ids[which],
        }
        if "label" in rows[0]:
            batch["label"] = torch.tensor([row["label"] for row in rows])
        if self.mask_probability:
            batch["mlm_input_ids"], batch["mlm_labels"] = self.masked(batch)
            batch["mlm_attention_mask"] = batch["attention_mask"]
        if any(view.token_operators for _, view in blocks):
            batch = self._operated(batch, [view for _, view in blocks])
        return batch

    def draw(self, rows: Tensor, view: int) -> Draw:
        """The numbers for the operators of one view, see `textcl.views.tokens.Draw`."""
        streams = count(MASKS + 1)
        return lambda numbers: uniform(self.seed, int(self._epoch), rows, view, numbers, next(streams))

    def ordinary(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Where a batch holds neither padding nor special tokens, (rows, length)."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self._special)

    def masked(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """BERT's masks: of the chosen tokens 80 % become [MASK], 10 % any token, 10 % stay (Devlin et al. 2019).

        Returns:
            The masked tokens and what they were, -100 where they were not chosen, both (rows, length).
        """
        input_ids = batch["input_ids"]
        numbers = uniform(
            self.seed, int(self._epoch), batch["text_id"], batch["view"], 3 * input_ids.shape[1], stream=MASKS
        )
        choice, action, token = numbers.unflatten(1, (-1, 3)).unbind(dim=-1)
        chosen = (choice < self.mask_probability) & self.ordinary(batch)
        masked = input_ids.clone()
        masked[chosen & (action < 0.8)] = self.tokenizer.mask_token_id
        replaced = chosen & (action >= 0.8) & (action < 0.9)
        masked[replaced] = (token * len(self.tokenizer)).long()[replaced]
        return masked, input_ids.masked_fill(~chosen, -100)

    def _blocks(self, row: Mapping[str, Any]) -> list[Block]:
        columns = [column for column in COLUMNS if column in row]
        if len(columns) > 1:
            return [(column, PLAIN) for column in columns]
        if not self.dropout_views and all(view == PLAIN for view in self.views):
            raise InputError(
                "The two views of a text come from dropout, and this model has none (its configuration sets every "
                "dropout rate to 0). Set dropout=0.1, choose other views, or train on pairs."
            )
        return [("text", view) for view in self.views]

    def _operated(self, batch: Mapping[str, Tensor], views: Sequence[View]) -> dict[str, Tensor]:
        """The batch after the token operators of its views; blocks may have become shorter."""
        padding = self.tokenizer.pad_token_id
        parts = []
        for number, view in enumerate(views):
            own = batch["view"] == number
            rows = TokenRows(
                batch["input_ids"][own], batch["attention_mask"][own].bool(), self.ordinary(batch)[own], padding
            )
            draw = self.draw(batch["text_id"][own], number)
            for operator in view.token_operators:
                rows = operator(rows, draw)
            parts.append(rows)
        length = max(rows.ids.shape[1] for rows in parts)
        operated = {
            "input_ids": torch.cat([_widened(rows.ids, length, padding) for rows in parts]),
            "attention_mask": torch.cat([_widened(rows.attention.long(), length, 0) for rows in parts]),
        }
        if "token_type_ids" in batch:  # a single text has one type
            operated["token_type_ids"] = torch.zeros_like(operated["input_ids"])
        return {**batch, **operated}


def _widened(rows: Tensor, length: int, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, length - rows.shape[1]), value=value)
