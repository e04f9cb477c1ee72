"""Rows of a dataset become one flat batch of token tensors that holds all their views."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.batching import in_windows, input_names, pad, row_lengths, token_ids
from textcl.data.catalogue import cache_directory
from textcl.errors import InputError
from textcl.token_cache import tokenizer_digest, with_tokens
from textcl.views import PLAIN, View
from textcl.views.draws import MASKS, text_id, uniform
from textcl.views.spans import Positives, sample_spans
from textcl.views.template import Template
from textcl.views.tokens import Draw, TokenRows

COLUMNS = ("text", "positive", "negative")

Block = tuple[str, View]
"""A column of the dataset, and the view under which the batch holds it."""


class Collator:
    """Makes the flat batch that a method's `forward` takes.

    A row holds `text`, and with labels `positive`, `negative` or `label`; where the text views of
    `textcl.views.text.augment` were added, it holds those as `text_1`, `text_2`, and each gives one view. Other
    unlabelled text gives two views of `text`; without operators they are equal rows of tokens, which the encoder's
    dropout turns into two views.

    The batch is block-major (all rows of block 0, then all of block 1, …) and holds `input_ids`, `attention_mask` and
    what else the tokenizer gives, each (blocks · batch, length); `lengths` of the rows, and `view`, the block's number,
    each (blocks · batch,); `group`, equal for rows that are positives of each other; `text_id`, a content hash taken
    before any view; `label` (batch,) and `teacher` (batch, its dim) where rows have them. With `mask_probability` it
    also holds masked copies of the rows as they were before any operator: `mlm_input_ids`, `mlm_attention_mask` and so
    on, and `mlm_labels` (-100 where no word is asked for). `lengths`, `view` and `mlm_labels` are numpy arrays: they
    decide the shapes of a step, and stay on the processor when a trainer moves a batch to a GPU, which nobody then
    has to wait for.

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
        self.token_limit: int | None = max_length
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

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        blocks = self._blocks(rows[0])
        columns = self._columns(blocks)
        texts = [text for column, _ in columns for text in texts_of(rows, column)]
        ids = [ids for column, template in columns for ids in self._token_ids(rows, column, template)]
        which = torch.cat(
            [torch.arange(len(rows)) + columns.index((column, view.template)) * len(rows) for column, view in blocks]
        )
        view = torch.arange(len(blocks)).repeat_interleave(len(rows))
        group = torch.arange(len(rows)).repeat(len(blocks))
        batch = self.flat_batch(texts, ids, which, view, group)
        if "label" in rows[0]:
            batch["label"] = torch.tensor([row["label"] for row in rows])
        if "teacher" in rows[0]:
            batch["teacher"] = torch.tensor([row["teacher"] for row in rows])
        if self.mask_probability:
            batch |= {f"mlm_{name}": batch[name] for name in input_names(self.tokenizer) if name in batch}
            batch["mlm_input_ids"], batch["mlm_labels"] = self.masked(batch)
        if any(view.token_operators for _, view in blocks):
            batch = self._operated(batch, [view for _, view in blocks])
        return _decided_on_host(batch)

    def tokenized(self, dataset: Any, folder: Path | None = None) -> Any:
        """The rows with the tokens of their texts beside them, from which batches are then made.

        Tokens are made once, and kept for later epochs and later runs. Rows that are no `datasets.Dataset`, or whose
        tokenizer is written in Python, are given back as they are, and tokenised batch by batch.

        Args:
            dataset: The rows.
            folder: Where tokens are kept; None: in the user's cache.
        """
        folder = folder or cache_directory() / "tokens"
        if not isinstance(dataset, Dataset) or len(dataset) == 0 or self._digest is None:
            return dataset
        for column, template in self._columns(self._blocks(dataset[0])):
            texts_of([dataset[0]], column)  # refuses rows without it
            name = self._column_of_tokens(column, template)
            if name not in dataset.column_names:
                texts = partial(texts_of, column=column)
                made = partial(self._tokenise, template=template)
                dataset = with_tokens(dataset, column, name, texts, made, folder)
        return dataset

    def flat_batch(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]], which: Tensor, view: Tensor, group: Tensor
    ) -> dict[str, Any]:
        """A batch whose row i is text `which[i]`, and its tokens are `ids[which[i]]`."""
        of_texts = torch.tensor([text_id(text) for text in texts])
        tokens = {name: tensor[which] for name, tensor in pad(self.tokenizer, ids).items()}
        return {**tokens, "view": view, "group": group, "text_id": of_texts[which]}

    def draw(self, rows: Tensor, view: int) -> Draw:
        """The numbers for the operators of one view, see `textcl.views.tokens.Draw`."""
        streams = count(MASKS + 1)
        return lambda numbers: uniform(self.seed, int(self._epoch), rows, view, numbers, next(streams))

    def ordinary(self, batch: Mapping[str, Any]) -> Tensor:
        """Where a batch holds neither padding nor special tokens, (rows, length)."""
        return batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], self._special)

    def masked(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
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

    @staticmethod
    def _columns(blocks: Sequence[Block]) -> list[tuple[str, Template | None]]:
        """What is tokenised of a row: its columns, and in which template."""
        return list(dict.fromkeys((column, view.template) for column, view in blocks))

    def _token_ids(
        self, rows: Sequence[Mapping[str, Any]], column: str, template: Template | None = None
    ) -> list[list[int]]:
        """The tokens of a column of the rows, as `tokenized` put them there, else made now."""
        if (name := self._column_of_tokens(column, template)) in rows[0]:
            return [row[name] for row in rows]
        return self._tokenise(texts_of(rows, column), template)

    def _tokenise(self, texts: Sequence[str], template: Template | None) -> list[list[int]]:
        filled = [template(text) for text in texts] if template else texts
        return token_ids(self.tokenizer, filled, self.token_limit)

    def _column_of_tokens(self, column: str, template: Template | None) -> str:
        """Its name says all that the tokens come from but the texts, so that nobody takes those of another."""
        within = f" in {template.template!r}" if template else ""
        return f"{column}{within}, {self.token_limit} tokens of {self._digest}"

    @cached_property
    def _digest(self) -> str | None:
        return tokenizer_digest(self.tokenizer)

    def _blocks(self, row: Mapping[str, Any]) -> Sequence[Block]:
        if self.blocks:
            return self.blocks
        columns = [column for column in COLUMNS if column in row]
        if len(columns) > 1:
            return [(column, PLAIN) for column in columns]
        if "text_1" in row:
            return [(f"text_{number}", view) for number, view in enumerate(self.views, start=1)]
        if not self.dropout_views and all(view == PLAIN for view in self.views):
            raise InputError(
                "The two views of a text come from dropout, and this model has none (its configuration sets every "
                "dropout rate to 0). Set dropout=0.1, choose other views, or train on pairs."
            )
        return [("text", view) for view in self.views]

    def _operated(self, batch: Mapping[str, Any], views: Sequence[View]) -> dict[str, Any]:
        """The batch after the token operators of its views; blocks may have become shorter."""
        padding = self.tokenizer.pad_token_id
        parts = []
        for number, view in enumerate(views):
            own = batch["view"] == number
            attention, ordinary = batch["attention_mask"][own].bool(), self.ordinary(batch)[own]
            if view.template:  # whose own words stay as they are
                before, behind = view.template.edges
                position = torch.arange(attention.shape[1])
                ordinary &= (position >= before) & (position < attention.sum(dim=1, keepdim=True) - behind)
            rows = TokenRows(batch["input_ids"][own], attention, ordinary, padding)
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


Negatives = Literal["independent", "anchored", "consecutive"]


class PairCollator(Collator):
    """Makes Contrastive Tension's batches: groups of one identical pair and K others.

    View 0 is what the first tower reads, view 1 what the second reads. Beside the flat batch there are `pair`
    (pairs, 2), the two rows of each, and `identical` (pairs,), whether they hold one text. Rows that fill no group are
    left out.

    Args:
        tokenizer: The encoder's.
        max_length: Tokens after which a text is cut.
        negatives: See `textcl.BertCT`.
        negatives_per_positive: K.
        seed: Of the pairs.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        negatives: Negatives,
        negatives_per_positive: int,
        seed: int = 42,
    ) -> None:
        super().__init__(tokenizer, max_length, seed=seed)
        if negatives not in get_args(Negatives):
            raise InputError(f"BERT-CT's negatives are {', '.join(get_args(Negatives))}, not {negatives!r}.")
        self.negatives = negatives
        self.negatives_per_positive = negatives_per_positive
        self.rows_of_group = 1 + negatives_per_positive * (2 if negatives == "consecutive" else 1)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        groups = len(rows) // self.rows_of_group
        if groups == 0:
            raise InputError(
                f"A group of BERT-CT with {self.negatives} negatives takes {self.rows_of_group} rows, and the batch "
                f"has {len(rows)}; raise per_device_train_batch_size."
            )
        rows = rows[: groups * self.rows_of_group]
        texts = texts_of(rows, "text")
        row = torch.arange(len(texts)).view(groups, self.rows_of_group)
        first, second = self._pairs(row, torch.tensor([text_id(text) for text in texts]))
        # each tower reads each of its texts once, however many pairs it stands in
        read_first, first = first.flatten().unique(return_inverse=True)
        read_second, second = second.flatten().unique(return_inverse=True)
        which = torch.cat([read_first, read_second])
        view = (torch.arange(len(which)) >= len(read_first)).long()
        identical = torch.zeros(groups, 1 + self.negatives_per_positive, dtype=torch.bool)
        identical[:, 0] = True
        batch = {
            **self.flat_batch(texts, self._token_ids(rows, "text"), which, view, group=which),
            "pair": torch.stack([first, len(read_first) + second], dim=1),
            "identical": identical.flatten(),
        }
        return _decided_on_host(batch)

    def _pairs(self, row: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the first and the second text of each pair, (groups, 1 + K); the first pair is the identical one.

        Args:
            row: Rows of the batch, (groups, rows of a group).
            ids: Of their texts.
        """
        anchor = row[:, :1]
        if self.negatives == "anchored":
            return anchor.expand(-1, 1 + self.negatives_per_positive), row
        if self.negatives == "consecutive":
            return torch.cat([anchor, row[:, 1::2]], dim=1), torch.cat([anchor, row[:, 2::2]], dim=1)
        total = row.numel()
        step = 1 + (self.draw(ids, view=1)(1)[:, 0] * (total - 1)).long().view_as(row)
        return row, torch.cat([anchor, (row + step)[:, 1:] % total], dim=1)


class SpanCollator(Collator):
    """Makes DeCLUTR's batches: anchors of each document, and positives of each anchor.

    View 0 holds the anchors, view v the v-th positive of each; `group` is the anchor's number. With `mask_probability`
    the anchors themselves are masked, and `mlm_labels` (rows, length) says what stood there.

    Args:
        tokenizer: The encoder's.
        max_length: Tokens of a span and its special tokens.
        anchors: A document.
        positives: An anchor.
        shortest: Bounds of a span's length, in tokens.
        longest: Likewise.
        sampling: Where positives lie, see `textcl.views.spans.sample_spans`.
        mask_probability: Share of the anchors' tokens chosen for masked-word prediction; 0: none.
        seed: Of spans and masks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        anchors: int,
        positives: int,
        shortest: int,
        longest: int,
        sampling: Positives,
        mask_probability: float = 0.0,
        seed: int = 42,
    ) -> None:
        super().__init__(tokenizer, max_length, mask_probability=mask_probability, seed=seed)
        self.token_limit = None  # spans are cut from whole documents
        self.anchors = anchors
        self.positives = positives
        self.shortest = shortest
        self.longest = longest
        self.sampling = sampling

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        documents = texts_of(rows, "text")
        ids = torch.tensor([text_id(document) for document in documents])
        count = 2 * self.anchors * (1 + self.positives)
        numbers = uniform(self.seed, int(self._epoch), ids, 0, count, stream=MASKS + 1)
        spans: list[list[list[int]]] = [[] for _ in range(1 + self.positives)]  # by view
        for tokens, draws in zip(self._token_ids(rows, "text"), numbers.tolist(), strict=True):
            self._sample(tokens, draws, spans)
        anchors = len(spans[0])
        group = torch.arange(anchors).repeat(len(spans))
        batch = {
            **pad(self.tokenizer, [span for of_view in spans for span in of_view]),
            "view": torch.arange(len(spans)).repeat_interleave(anchors),
            "group": group,
            "text_id": ids.repeat_interleave(self.anchors)[group],
        }
        if self.mask_probability:
            # each row draws masks of its own, known by its document, its view and its anchor's number in the document
            number = batch["view"] * self.anchors + group % self.anchors
            masked, labels = self.masked({**batch, "view": number})
            of_anchor = (batch["view"] == 0)[:, None]
            batch["input_ids"] = torch.where(of_anchor, masked, batch["input_ids"])
            batch["mlm_labels"] = torch.where(of_anchor, labels, -100)
        return _decided_on_host(batch)

    def document_lengths(self, dataset: Any) -> list[int]:
        """The tokens of each document, special ones left out."""
        special = sum(self._edges)
        return [
            len(tokens) - special
            for window in in_windows(len(dataset), 256)
            for tokens in self._token_ids(dataset.select(window).to_list(), "text")
        ]

    @cached_property
    def _edges(self) -> tuple[int, int]:
        """Special tokens before a text and behind it."""
        special = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        return special.index(0), special[::-1].index(0)

    def _sample(self, tokens: Sequence[int], numbers: Sequence[float], spans: list[list[list[int]]]) -> None:
        """Appends a document's spans, with special tokens around them, to those of each view."""
        start, end = self._edges[0], len(tokens) - self._edges[1]
        sampled = sample_spans(
            end - start,
            numbers,
            anchors=self.anchors,
            positives=self.positives,
            shortest=self.shortest,
            longest=self.longest,
            sampling=self.sampling,
        )
        for anchor, positives in sampled:
            for of_view, (first, last) in zip(spans, [anchor, *positives], strict=True):
                of_view.append([*tokens[:start], *tokens[start + first : start + last], *tokens[end:]])


def texts_of(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    """A column of the rows; what is missing in a cell is a blank, as the tokenizer needs some text."""
    if column not in rows[0]:
        raise InputError(f"A training row needs a column {column!r}; this one has {sorted(rows[0])}.")
    return [row[column] or " " for row in rows]


def _decided_on_host(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with what decides the shapes of a step as numpy arrays, see `textcl.batching.on_host`."""
    decisive = {"lengths": row_lengths(batch)}
    decisive |= {name: batch[name] for name in ("view", "mlm_labels") if name in batch}
    return {**batch, **{name: tensor.numpy() for name, tensor in decisive.items()}}


def _widened(rows: Tensor, length: int, value: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, length - rows.shape[1]), value=value)
