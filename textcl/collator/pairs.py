"""Contrastive Tension's batches: groups of one pair of identical texts and K pairs of different texts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.collator.batch import Batch, finished
from textcl.collator.collator import Collator, columns_of, texts_of
from textcl.collator.prompts import Prompts
from textcl.collator.reads import EVERYTHING, Reads
from textcl.errors import InputError
from textcl.views.draws import text_id

Negatives = Literal["independent", "anchored", "consecutive"]


class PairCollator(Collator):
    """Makes Contrastive Tension's batches: groups of one pair of identical texts and K pairs of different texts.

    View 0 holds the rows of the first tower, view 1 those of the second. The batch also holds `pair` (pairs, 2), the
    two rows of each pair, and `identical` (pairs,), whether both hold the same text. Rows that do not fill a group are
    dropped.

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Tokens after which a text is cut.
        negatives: How pairs of different texts are made, see `textcl.BertCT`.
        negatives_per_positive: Number K of pairs of different texts per group.
        reads: The columns of the rows that the method reads; others with texts are an error.
        prompts: The prompt of the texts; None: no prompt.
        seed: Seed of the pairs.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        negatives: Negatives,
        negatives_per_positive: int,
        reads: Reads = EVERYTHING,
        prompts: Prompts | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__(tokenizer, max_length, reads=reads, prompts=prompts, seed=seed)
        if negatives not in get_args(Negatives):
            raise InputError(f"BERT-CT's negatives must be one of {', '.join(get_args(Negatives))}, not {negatives!r}.")
        self.negatives = negatives
        self.negatives_per_positive = negatives_per_positive
        self.rows_of_group = 1 + negatives_per_positive * (2 if negatives == "consecutive" else 1)

    @property
    def draws(self) -> bool:
        return self.negatives == "independent"  # only these pairs are drawn again in each epoch

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        self.reads.check(columns_of(rows))
        groups = len(rows) // self.rows_of_group
        if groups == 0:
            raise InputError(
                f"A group of BERT-CT with {self.negatives} negatives takes {self.rows_of_group} rows, and the batch "
                f"has {len(rows)}: raise per_device_train_batch_size, or drop the last incomplete batch "
                "(dataloader_drop_last=True)."
            )
        rows = rows[: groups * self.rows_of_group]
        texts = texts_of(rows, "text")
        row = torch.arange(len(texts)).view(groups, self.rows_of_group)
        first, second = self._pairs(row, torch.tensor([text_id(text) for text in texts]))
        # each tower reads each of its texts once, even if several pairs contain it
        read_first, first = first.flatten().unique(return_inverse=True)
        read_second, second = second.flatten().unique(return_inverse=True)
        which = torch.cat([read_first, read_second])
        view = (torch.arange(len(which)) >= len(read_first)).long()
        prompt = self.prompts.of_column("text", paired=False)
        identical = torch.zeros(groups, 1 + self.negatives_per_positive, dtype=torch.bool)
        identical[:, 0] = True
        batch = {
            **self.flat_batch(texts, self._token_ids(rows, "text", prompt), which, view, group=which),
            **self.prompts.lengths(self.tokenizer, [prompt, prompt], self.max_length, view),
            "pair": torch.stack([first, len(read_first) + second], dim=1),
            "identical": identical.flatten(),
        }
        return finished(batch)

    def _pairs(self, row: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the first and the second text of each pair, (groups, 1 + K); the first pair is the identical one.

        Args:
            row: Row numbers of the batch, (groups, rows of a group).
            ids: The ids of their texts, (rows,).
        """
        anchor = row[:, :1]
        if self.negatives == "anchored":
            return anchor.expand(-1, 1 + self.negatives_per_positive), row
        if self.negatives == "consecutive":
            return torch.cat([anchor, row[:, 1::2]], dim=1), torch.cat([anchor, row[:, 2::2]], dim=1)
        total = row.numel()
        step = 1 + (self.draw(ids, view=1)(1)[:, 0] * (total - 1)).long().view_as(row)
        return row, torch.cat([anchor, (row + step)[:, 1:] % total], dim=1)
