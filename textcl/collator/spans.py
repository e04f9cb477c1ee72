"""DeCLUTR's batches: anchors of each document, and positives of each anchor."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from textcl.collator.batch import Batch, finished
from textcl.collator.collator import Collator, columns_of, texts_of
from textcl.collator.prompts import Prompts, prompt_edges
from textcl.collator.reads import EVERYTHING, Reads
from textcl.encoder.batching import in_windows
from textcl.errors import InputError
from textcl.tokenising import pad
from textcl.views.draws import MASKS, text_id, uniform
from textcl.views.spans import Positives, sample_spans


class SpanCollator(Collator):
    """Makes DeCLUTR's batches: anchors of each document, and positives of each anchor.

    View 0 holds the anchors, view v the v-th positive of each; `group` is the anchor's number. With `mask_probability`
    the anchors themselves are masked, and `mlm_labels` (rows, length) holds the original tokens. Each span has the
    prompt of the documents.

    Args:
        tokenizer: The encoder's tokenizer.
        max_length: Largest number of tokens of a span, special tokens included.
        anchors: Number of anchors per document.
        positives: Number of positives per anchor.
        shortest: Smallest length of a span in tokens, without special tokens.
        longest: Largest length of a span in tokens, without special tokens.
        sampling: Where positives lie, see `textcl.views.spans.sample_spans`.
        mask_probability: Share of the anchors' tokens that are chosen for masked-word prediction; 0: none.
        reads: The columns of the rows that the method reads; others with texts are an error.
        prompts: The prompt of the documents; None: no prompt.
        seed: Seed of spans and masks.

    Raises:
        InputError: A span of `longest` tokens with its prompt is longer than `max_length`; or, later, a document is too
            short for its anchors.
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
        reads: Reads = EVERYTHING,
        prompts: Prompts | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__(
            tokenizer, max_length, reads=reads, mask_probability=mask_probability, prompts=prompts, seed=seed
        )
        self.token_limit = None  # spans are cut from whole documents
        self.prompt = self.prompts.of_column("text", paired=False)
        if sum(self._edges) + longest > max_length:
            raise InputError(
                f"The prompt {self.prompt!r} leaves {max_length - sum(self._edges)} tokens for a span, but spans have "
                f"up to {longest}: lower longest_span, or use a shorter prompt."
            )
        self.anchors = anchors
        self.positives = positives
        self.shortest = shortest
        self.longest = longest
        self.sampling = sampling

    @property
    def draws(self) -> bool:
        return True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        self.reads.check(columns_of(rows))
        documents = texts_of(rows, "text")
        ids = torch.tensor([text_id(document) for document in documents])
        count = 2 * self.anchors * (1 + self.positives)
        numbers = uniform(self.seed, int(self._epoch), ids, 0, count, stream=MASKS + 1)
        spans: list[list[list[int]]] = [[] for _ in range(1 + self.positives)]  # by view
        for tokens, draws in zip(self._token_ids(rows, "text", self.prompt), numbers.tolist(), strict=True):
            self._sample(tokens, draws, spans)
        anchors = len(spans[0])
        group = torch.arange(anchors).repeat(len(spans))
        of_document, number = ids.repeat_interleave(self.anchors)[group], group % self.anchors
        batch = {
            **pad(self.tokenizer, [span for of_view in spans for span in of_view]),
            "view": torch.arange(len(spans)).repeat_interleave(anchors),
            "group": group,
            "text_id": of_document + number,  # the anchors of a document are different texts
        }
        batch |= self.prompts.lengths(self.tokenizer, [self.prompt] * len(spans), self.max_length, batch["view"])
        if self.mask_probability:
            # masks are drawn for each row, from its document, its view and its anchor's number in the document
            streams = {"text_id": of_document, "view": batch["view"] * self.anchors + number}
            masked, labels = self.masked({**batch, **streams})
            of_anchor = (batch["view"] == 0)[:, None]
            batch["input_ids"] = torch.where(of_anchor, masked, batch["input_ids"])
            batch["mlm_labels"] = torch.where(of_anchor, labels, -100)
        return finished(batch)

    def document_lengths(self, dataset: Any) -> list[int]:
        """The number of tokens of each document, without special tokens and prompt."""
        special = sum(self._edges)
        return [
            len(tokens) - special
            for window in in_windows(len(dataset), 256)
            for tokens in self._token_ids(dataset.select(window).to_list(), "text", self.prompt)
        ]

    @cached_property
    def _edges(self) -> tuple[int, int]:
        """The numbers of tokens before and after a text, of its prompt and special ones."""
        return prompt_edges(self.tokenizer, self.prompt)

    def _sample(self, tokens: Sequence[int], numbers: Sequence[float], spans: list[list[list[int]]]) -> None:
        """Samples a document's spans and appends them, with prompt and special tokens, to the spans of each view."""
        start, end = self._edges[0], len(tokens) - self._edges[1]
        if end - start < (least := 2 * self.anchors * self.longest):
            raise InputError(
                f"A document has {end - start:,} tokens, and {self.anchors} anchors of up to {self.longest} need "
                f"{least:,}; train on method.prepare_corpus(dataset), which leaves such documents out."
            )
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
