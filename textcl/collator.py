"""Rows of a dataset become one flat batch of token tensors that holds all their views."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.batching import tokenize
from textcl.errors import InputError
from textcl.views.draws import text_id

VIEW_COLUMNS = ("text", "positive", "negative")


class Collator:
    """Makes the flat batch that a method's `forward` takes.

    A row holds `text`, and with labels `positive` and `negative`; unlabelled text gives two equal rows of tokens, which
    the encoder's dropout turns into two views.

    The batch is view-major (all rows of view 0, then all of view 1, …) and holds `input_ids`, `attention_mask` and what
    else the tokenizer gives, each (views · batch, length); `view` (views · batch,); `group`, equal for rows that are
    positives of each other; `text_id`, a content hash taken before any view. With `mask_probability` it also holds
    `mlm_input_ids` and `mlm_labels` (-100 where no word is asked for).

    What is random here is a pure function of (seed, epoch, text, view number), so that a resumed run draws the same.

    Args:
        tokenizer: The encoder's.
        max_length: Tokens after which a text is cut.
        dropout_views: Whether the model has the dropout that makes views of unlabelled text; without, it is refused.
        mask_probability: Share of the tokens chosen for masked-word prediction; 0: none.
        seed: Of the masks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        dropout_views: bool = True,
        mask_probability: float = 0.0,
        seed: int = 42,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.dropout_views = dropout_views
        self.mask_probability = mask_probability
        self.seed = seed
        # Shared memory: dataloader workers that live longer than an epoch have to see it move on.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()
        if mask_probability and self.tokenizer.mask_token is None:
            raise InputError("Masked-word prediction needs a tokenizer with a mask token; this one has none.")

    def set_epoch(self, epoch: int) -> None:
        """Makes the next masks those of `epoch`."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if "text" not in rows[0]:
            raise InputError(f"A training row needs a column 'text'; this one has {sorted(rows[0])}.")
        columns = [[row[name] or " " for row in rows] for name in VIEW_COLUMNS if name in rows[0]]
        if len(columns) == 1 and not self.dropout_views:
            raise InputError(
                "The two views of a text come from dropout, and this model has none (its configuration sets every "
                "dropout rate to 0). Set dropout=0.1, or train on pairs."
            )
        batch_tensors = tokenize(self.tokenizer, [text for column in columns for text in column], self.max_length)
        if len(columns) == 1:  # unlabelled: the second view holds the same tokens
            columns = columns * 2
            batch_tensors = {name: tensor.repeat(2, 1) for name, tensor in batch_tensors.items()}
        views, batch = len(columns), len(rows)
        batch_tensors["view"] = torch.arange(views).repeat_interleave(batch)
        batch_tensors["group"] = torch.arange(batch).repeat(views)
        batch_tensors["text_id"] = torch.tensor([text_id(text) for column in columns for text in column])
        if self.mask_probability:
            batch_tensors |= self._masked(batch_tensors)
        return batch_tensors

    def _masked(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """BERT's masks: of the chosen tokens 80 % become [MASK], 10 % any token, 10 % stay (Devlin et al. 2019)."""
        input_ids = batch["input_ids"]
        special = torch.isin(input_ids, torch.tensor(self.tokenizer.all_special_ids))
        length = input_ids.shape[1]
        draws = [  # token by token, so that a row's draws do not depend on how far the batch is padded
            np.random.default_rng((self.seed, int(self._epoch), int(row) % 2**64, int(view))).random((length, 3))
            for row, view in zip(batch["text_id"], batch["view"], strict=True)
        ]
        choice, action, token = torch.from_numpy(np.stack(draws)).unbind(dim=-1)
        chosen = (choice < self.mask_probability) & ~special & batch["attention_mask"].bool()
        masked = input_ids.clone()
        masked[chosen & (action < 0.8)] = self.tokenizer.mask_token_id
        replaced = chosen & (action >= 0.8) & (action < 0.9)
        masked[replaced] = (token * len(self.tokenizer)).long()[replaced]
        return {"mlm_input_ids": masked, "mlm_labels": input_ids.masked_fill(~chosen, -100)}
