"""Turns dataset rows into one flat batch of token tensors that holds all their views."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.collator.batch import Batch, Tensors, finished
from textcl.collator.prompts import Prompts, prompt_edges
from textcl.collator.reads import EVERYTHING, Reads, views_among
from textcl.collator.token_cache import tokenizer_digest, with_tokens
from textcl.data.reading import COLUMNS
from textcl.data.rows import cell_text, has_transform, without_format
from textcl.data.training import check_number
from textcl.encoder.batching import row_lengths
from textcl.environment import cache_directory
from textcl.errors import InputError
from textcl.texts import described
from textcl.tokenising import INPUTS, pad, padding_token, token_ids
from textcl.views.draws import MASKS, text_id, uniform
from textcl.views.template import PLACE, Template, in_prompt
from textcl.views.tokens import Draw, TokenRows
from textcl.views.view import PLAIN, View

Block = tuple[str, View]
"""A column of the dataset, and the view that is applied to its texts."""

Source = tuple[str, str | Template]
"""A column of the dataset, and the prompt or template that its texts are put into."""


class Collator:
    """Makes the flat batch that a method's `forward` takes.

    A row holds `text`, and with labels `positive`, `negative` or `label`. If `textcl.views.text.augment` added text
    views, the row also holds `text_1` and `text_2`, and each of them gives one view. Other unlabelled text gives two
    views of `text`. Without operators these are equal rows of tokens, which the encoder's dropout turns into two views.

    The batch is block-major: all rows of block 0, then all of block 1, and so on. It holds (see `Batch`):

    - `input_ids`, `attention_mask` and the tokenizer's other tensors, each (blocks · batch, length);
    - `lengths`, `view`, the number of the block, and `column`, that of its column, each (blocks · batch,);
    - `group`, equal for rows that are positives of each other, and `text_id`, a hash of the text before any view;
    - `label` (batch,) and, with `reads_teacher`, `teacher` (batch, dim of the teacher), if the rows have them;
    - with `mask_probability`, masked copies of the rows as they were before any operator: `mlm_input_ids`,
      `mlm_attention_mask` and so on, and `mlm_labels` (-100 at positions that are not predicted).

    `lengths`, `view` and `mlm_labels` decide the shapes of a step. They are numpy arrays, which stay on the CPU when a
    trainer moves the batch to a GPU; reading them does not wait for the GPU.

    Each text is tokenised as `Encoder.encode` tokenises it: with its prompt, see `Prompts`, or in the view's template.
    Operators on tokens do not change the prompt; masks for masked-word prediction may.

    All random numbers are a pure function of (seed, epoch, text, view number), so a resumed run draws the same ones.

    With `needs_labels` (an attribute) a row without a label is an error. With `reads_teacher` (an attribute) a column
    `teacher` holds a teacher encoder's embeddings; without it, a column of that name is not looked at.

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Tokens after which a text is cut.
        views: The views of a text. In pairs the first is applied to the text, the second to its positive; a hard
            negative is plain.
        blocks: The blocks of the batch; None: two views of `text`, or each labelled column once.
        dropout_views: Whether the model has the dropout that makes two views of equal tokens; if not, such views are
            an error.
        reads: The columns of the rows that the method reads; others with texts are an error.
        mask_probability: Share of the tokens that are chosen for masked-word prediction; 0: no masked copies.
        prompts: The prompt of each column; None: no prompts.
        seed: Seed of views and masks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        views: Sequence[View] = (PLAIN, PLAIN),
        blocks: Sequence[Block] | None = None,
        dropout_views: bool = True,
        reads: Reads = EVERYTHING,
        mask_probability: float = 0.0,
        prompts: Prompts | None = None,
        seed: int = 42,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.token_limit: int | None = max_length
        self.views = views
        self.blocks = blocks
        self.dropout_views = dropout_views
        self.needs_labels = False
        self.reads_teacher = False
        self.reads = reads
        self.mask_probability = mask_probability
        self.prompts = prompts or Prompts()
        self.seed = seed
        self._special = torch.tensor(tokenizer.all_special_ids)
        # all tokens, for masks; their numbers may have gaps
        self._vocabulary = torch.tensor(sorted(set(tokenizer.get_vocab().values())) if mask_probability else [])
        # Shared memory, so that dataloader workers that live longer than an epoch see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()
        if mask_probability and self.tokenizer.mask_token is None:
            raise InputError("Masked-word prediction needs a tokenizer with a mask token; this one has none.")

    @property
    def draws(self) -> bool:
        """Whether a batch differs from epoch to epoch, so that `set_epoch` must be called for each."""
        views = [view for _, view in self.blocks] if self.blocks else self.views
        return self.mask_probability > 0 or any(view.token_operators for view in views)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the next views and masks belong to."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        blocks = self._blocks(rows)
        of_blocks = self._sources(blocks)
        sources = list(dict.fromkeys(of_blocks))
        originals = [  # a text view is known by the text that it was made of
            text
            for column, _ in sources
            for text in texts_of(rows, "text" if column not in COLUMNS and "text" in rows[0] else column)
        ]
        ids = [ids for source in sources for ids in self._token_ids(rows, *source)]
        which = torch.cat([torch.arange(len(rows)) + sources.index(source) * len(rows) for source in of_blocks])
        view = torch.arange(len(blocks)).repeat_interleave(len(rows))
        group = torch.arange(len(rows)).repeat(len(blocks))
        batch = self.flat_batch(originals, ids, which, view, group)
        batch |= self.prompts.lengths(self.tokenizer, [prompt for _, prompt in of_blocks], self.max_length, view)
        numbers = [COLUMNS.index(column) if column in COLUMNS else 0 for column, _ in blocks]
        batch["column"] = torch.tensor(numbers).repeat_interleave(len(rows))
        if self.needs_labels or any("label" in row for row in rows):
            batch["label"] = torch.tensor(labels_of(rows))
        if self.reads_teacher and "teacher" in rows[0]:
            batch["teacher"] = torch.tensor([row["teacher"] for row in rows])
        if self.mask_probability:
            copied = [*INPUTS, "prompt_lengths"]
            batch |= {f"mlm_{name}": batch[name] for name in copied if name in batch}
            batch["mlm_input_ids"], batch["mlm_labels"] = self.masked(batch)
            batch["mlm_lengths"] = row_lengths(batch)
        if any(view.token_operators for _, view in blocks):
            batch = self._operated(batch, blocks, of_blocks)
        return finished(batch)

    def tokenized(self, dataset: Any, folder: Path | None = None) -> Any:
        """Adds columns with the tokens of the texts; batches are then made from these tokens.

        Tokens are made once and kept for later epochs and runs. If the rows are not a `datasets.Dataset` or have a
        transform, or the tokenizer is written in Python, the rows are returned unchanged, and texts are tokenised batch
        by batch.

        Args:
            dataset: The rows.
            folder: The folder where tokens are kept; None: in the user's cache.
        """
        folder = folder or cache_directory() / "tokens"
        if not isinstance(dataset, Dataset) or has_transform(dataset):
            return dataset
        dataset = without_format(dataset)
        if len(dataset) == 0 or self._digest is None:
            return dataset
        for column, prompt in dict.fromkeys(self._sources(self._blocks([dataset[0]]))):
            texts_of([dataset[0]], column)  # raises if the rows do not have the column
            name = self._column_of_tokens(column, prompt)
            if name not in dataset.column_names:
                texts = partial(texts_of, column=column)
                made = partial(self._tokenise, prompt=prompt)
                dataset = with_tokens(dataset, column, name, texts, made, folder)
        return dataset

    def flat_batch(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]], which: Tensor, view: Tensor, group: Tensor
    ) -> Tensors:
        """A batch whose row i has the text `texts[which[i]]` and the tokens `ids[which[i]]`."""
        of_texts = torch.tensor([text_id(text) for text in texts])
        tokens = {name: tensor[which] for name, tensor in pad(self.tokenizer, ids).items()}
        return {**tokens, "view": view, "group": group, "text_id": of_texts[which]}

    def draw(self, rows: Tensor, view: int) -> Draw:
        """The random numbers for the operators of one view, see `textcl.views.tokens.Draw`."""
        streams = count(MASKS + 1)
        return lambda numbers: uniform(self.seed, int(self._epoch), rows, view, numbers, next(streams))

    def ordinary(self, batch: Tensors) -> Tensor:
        """True at tokens that are neither padding nor special, (rows, length)."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self._special)

    def masked(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """BERT's masks: of the chosen tokens 80 % become [MASK], 10 % any token, 10 % stay (Devlin et al. 2019).

        Returns:
            The masked tokens, and the labels: the original token where it was chosen, else -100; both (rows, length).
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
        masked[replaced] = self._vocabulary[(token * len(self._vocabulary)).long()[replaced]]
        return masked, input_ids.masked_fill(~chosen, -100)

    def _sources(self, blocks: Sequence[Block]) -> list[Source]:
        """The column of each block, and the prompt or template that its texts are put into."""
        paired = not {"positive", "negative"}.isdisjoint(column for column, _ in blocks)
        return [(column, view.template or self.prompts.of_column(column, paired)) for column, view in blocks]

    def _token_ids(self, rows: Sequence[Mapping[str, Any]], column: str, prompt: str | Template) -> list[list[int]]:
        """The tokens of a column of the rows: those that `tokenized` added, or else made now."""
        if (name := self._column_of_tokens(column, prompt)) in rows[0]:
            return [row[name] for row in rows]
        return self._tokenise(texts_of(rows, column), prompt)

    def _tokenise(self, texts: Sequence[str], prompt: str | Template) -> list[list[int]]:
        limit = self.token_limit or sys.maxsize
        wrap = in_prompt(prompt, self.tokenizer, limit) if isinstance(prompt, str) else prompt
        return token_ids(self.tokenizer, [wrap(text) for text in texts], self.token_limit)

    def _column_of_tokens(self, column: str, prompt: str | Template) -> str:
        """The name of the column with tokens.

        It names everything that the tokens depend on, except the texts, so that tokens of other settings are not used.
        """
        text = prompt if isinstance(prompt, str) else prompt.template
        within = f" {'in' if PLACE in text else 'after'} {text!r}" if text else ""
        return f"{column}{within}, {self.token_limit} tokens of {self._digest}"

    @cached_property
    def _digest(self) -> str | None:
        return tokenizer_digest(self.tokenizer)

    def _blocks(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Block]:
        present = columns_of(rows)
        self.reads.check(present)
        blocks = self.blocks or self._blocks_of(present)
        read = {column for column, _ in blocks}
        if unread := [view for view in views_among(present) if view not in read]:
            raise InputError(f"This method does not read the text view {unread[0]!r} of the rows; leave it out.")
        return blocks

    def _blocks_of(self, present: set[str]) -> Sequence[Block]:
        text_views = views_among(present)
        if "positive" in present:
            columns = [column for column in COLUMNS if column in present or column == "text"]
            check_columns(columns, len(self.views))
            return list(zip(columns, [*self.views, PLAIN], strict=False))
        if text_views:
            if len(text_views) > 1:  # a column that is missing has a sentence of its own
                check_columns(text_views, len(self.views))
            return [(f"text_{number}", view) for number, view in enumerate(self.views, start=1)]
        if not self.dropout_views and all(view == PLAIN for view in self.views):
            raise InputError(
                "The two views of a text come from dropout, and this model has none: both would be equal. Set "
                "--dropout 0.1, choose other views such as --text-view crop, or train on pairs."
            )
        return [("text", view) for view in self.views]

    def _operated(self, batch: Tensors, blocks: Sequence[Block], sources: Sequence[Source]) -> Tensors:
        """Applies the token operators of the views, which may change the lengths of the rows."""
        padding = padding_token(self.tokenizer)
        parts = []
        for number, ((_, view), (_, prompt)) in enumerate(zip(blocks, sources, strict=True)):
            own = batch["view"] == number
            attention = batch["attention_mask"][own].bool()
            # operators do not change the words of a prompt or template; [UNK] in a text is one of its tokens
            before, behind = prompt_edges(self.tokenizer, prompt, self.token_limit)
            position = torch.arange(attention.shape[1])
            of_text = (position >= before) & (position < attention.sum(dim=1, keepdim=True) - behind)
            rows = TokenRows(batch["input_ids"][own], attention, of_text, padding)
            draw = self.draw(batch["text_id"][own], number)
            for operator in view.token_operators:
                rows = operator(rows, draw)
            parts.append(rows)
        length = max(rows.ids.shape[1] for rows in parts)
        operated = {
            "input_ids": torch.cat([_widened(rows.ids, length, padding) for rows in parts]),
            "attention_mask": torch.cat([_widened(rows.attention.long(), length, 0) for rows in parts]),
        }
        if "token_type_ids" in batch:  # a single text has only one type
            operated["token_type_ids"] = torch.zeros_like(operated["input_ids"])
        return {**batch, **operated}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of all columns that the rows have."""
    return {name for row in rows for name in _mapping(row)}


def texts_of(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """The texts of a column; an empty cell becomes a space, because the tokenizer needs some text.

    Raises:
        InputError: A row lacks the column, or holds something else than a text there.
    """
    for row in rows:
        if column not in _mapping(row):
            raise InputError(f"A training row needs a column {column!r}; this one has {sorted(map(str, row))}.")
    return [cell_text(row[column], f"A training row, column {column!r}") or " " for row in rows]


def _mapping(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"A training row must be a mapping of columns, such as {{'text': …}}, not {described(row)}.")
    return row


def check_columns(columns: Sequence[str], views: int) -> None:
    """Raises if there are fewer columns than the method has views."""
    if len(columns) < views:
        raise InputError(
            f"The method takes {views} views of a text, but these rows already hold {len(columns)} of "
            f"them ({', '.join(columns)}). Set short_views to 0 (--short-views 0), or train on single texts."
        )


def labels_of(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The label of each row.

    Raises:
        InputError: A row has no label, or one that is not a whole number from 0.
    """
    for row in rows:
        if "label" not in row:
            raise InputError(f"A training row needs a label; this one has {sorted(map(str, row))}.")
    return [check_number(row["label"], f"The training row {str(row.get('text'))[:60]!r}") for row in rows]


def _widened(rows: Tensor, length: int, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, length - rows.shape[1]), value=value)
