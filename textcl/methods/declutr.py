"""DeCLUTR: Deep Contrastive Learning for Unsupervised Textual Representations (Giorgi et al., ACL 2021)."""

import logging
from typing import Any, Unpack

import torch
from torch import Tensor

from textcl.collator.batch import Batch
from textcl.collator.prompts import Prompts, prompt_edges
from textcl.collator.reads import Reads
from textcl.collator.spans import SpanCollator
from textcl.data.training import whole_corpus
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods.method import Method, Outputs
from textcl.modules.info_nce import InfoNCE
from textcl.modules.masked_language_model import MaskedLanguageModelHead
from textcl.ranges import Count, NotNegative, Positive, PositiveShare, checked
from textcl.views.spans import Positives

logger = logging.getLogger("textcl")


class DeCLUTR(Method):
    """Adjacent or overlapping spans of a document are positives, arXiv 2006.03659.

    Each of N documents gives A anchors, and each anchor has P positives, whose embeddings are averaged before they are
    normalised (section 3.1). The contrastive term is NT-Xent over the 2AN anchors and averages; the other anchors of
    the same document are hard negatives. The masked-word loss on the anchors uses the same forward pass, so anchors are
    embedded from masked text; it is added with weight 1. There is no projection head. Defaults are those of section
    4.1 and the authors' configurations.

    The paper sums over the 2AN pairs; we take the mean, as the authors' code does.

    Args:
        encoder: The encoder that is trained and exported; the paper uses mean pooling. Its `max_length` also limits the
            length of a span.
        anchors: Number A of anchors per document.
        positives: Number P of positives per anchor.
        shortest_span: Smallest length of a span in tokens, without special tokens.
        longest_span: Largest length of a span in tokens, without special tokens. A document needs 2 · A · longest_span
            tokens.
        sampling: Where positives lie. "any": next to the anchor, overlapping it or inside it; "subsuming": inside it;
            "adjacent": directly before or after it.
        min_length: Skip documents with fewer tokens, and log how many; default: skip all that are too short for the
            spans.
        scale_spans: Shrink both span lengths until the shortest document that is not skipped is long enough.
        temperature: Softmax temperature τ: lower makes hard negatives count more.
        mlm_weight: Weight of the masked-word term; 0: no such term, and anchors are embedded from unmasked text.
        mlm_probability: Share of the anchors' tokens that are masked for the masked-word term.

    Raises:
        InputError: If no span can be sampled with these lengths.

    Example:
        >>> method = DeCLUTR(Encoder.from_pretrained("bundled"), shortest_span=4, longest_span=8)
        >>> batch = method.collator()([{"text": "one more word " * 20}])
        >>> batch["view"].tolist()
        [0, 0, 1, 1, 2, 2]
    """

    name = "declutr"
    family = "negatives"
    needs = "documents"
    paper = (
        "Giorgi, Nitski, Wang and Bader (2021). DeCLUTR: Deep Contrastive Learning for Unsupervised Textual "
        "Representations. ACL. arXiv 2006.03659"
    )

    takes_views = False

    option_needs = {"mlm_probability": ("mlm_weight",)}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        anchors: Count = 2,
        positives: Count = 2,
        shortest_span: Count = 32,
        longest_span: Count = 512,
        sampling: Positives = "any",
        min_length: Count | None = None,
        scale_spans: bool = False,
        temperature: Positive = 0.05,
        mlm_weight: NotNegative = 1.0,
        mlm_probability: PositiveShare = 0.15,
    ) -> None:
        super().__init__(encoder)
        room = encoder.max_length - sum(prompt_edges(encoder.tokenizer, encoder.prompt_text()))
        longest = min(longest_span, room)
        if shortest_span > longest:
            raise InputError(
                f"Spans of {shortest_span} to {longest_span} tokens cannot be sampled: this encoder takes up to {room} "
                "tokens in a span. Choose a shortest_span of at most that number and at most longest_span."
            )
        self.anchors = anchors
        self.positives = positives
        self.shortest, self.longest = shortest_span, longest
        self.sampling = sampling
        self.min_length = min_length
        self.scale_spans = scale_spans
        self.info_nce = InfoNCE(temperature, topology="nt_xent")
        self.mlm_weight = mlm_weight
        self.mask_probability = mlm_probability if mlm_weight else 0.0
        self.mlm_head = MaskedLanguageModelHead.from_encoder(encoder).to(encoder.device) if mlm_weight else None

    def prepare_corpus(self, dataset: Any) -> Any:
        """Skips documents that are too short, and shrinks the spans if `scale_spans` is set."""
        collator = self.collator()
        dataset = collator.tokenized(whole_corpus(dataset, "DeCLUTR"))
        lengths = collator.document_lengths(dataset)
        enough, fewest = 2 * self.anchors * self.longest, 2 * self.anchors  # fewest: for spans of one token
        long_enough = [length for length in lengths if length >= fewest]
        least = self.min_length or (min(long_enough, default=fewest) if self.scale_spans else enough)
        if self.scale_spans and least < enough:
            longest = max(1, least // fewest)
            self.shortest = max(1, self.shortest * longest // self.longest)
            self.longest = longest
        least = max(least, fewest * self.longest)
        kept = [row for row, length in enumerate(lengths) if length >= least]
        if not kept:
            advice = "Set scale_spans to shrink the spans, perhaps with a min_length."
            raise InputError(
                f"All {len(lengths):,} documents are shorter than the {least:,} tokens that {self.anchors} anchors of "
                f"up to {self.longest} tokens need (the longest has {max(lengths):,}). "
                f"{'Take longer documents.' if self.scale_spans else advice}"
            )
        if self.scale_spans or len(kept) < len(lengths):
            logger.warning(
                "DeCLUTR: %s of %s documents have fewer than %s tokens and are skipped; spans have %d to %d tokens.",
                f"{len(lengths) - len(kept):,}",
                f"{len(lengths):,}",
                f"{least:,}",
                self.shortest,
                self.longest,
            )
        return dataset.select(kept)

    def collator(self, seed: int = 42) -> SpanCollator:
        return SpanCollator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            anchors=self.anchors,
            positives=self.positives,
            shortest=self.shortest,
            longest=self.longest,
            sampling=self.sampling,
            reads=Reads.of(self),
            mask_probability=self.mask_probability,
            prompts=Prompts.of(self.encoder, self.train_prompts),
            seed=seed,
        )

    def forward(self, **batch: Unpack[Batch]) -> Outputs:
        if self.mlm_head is None:
            return super().forward(**batch)
        if self.training and not self.hooked:
            self.check_hooks()
        embeddings, hidden, words = self.encoder.embed_masked(batch, batch["mlm_labels"])
        contrastive = self._objective_over_sizes(embeddings, batch)["loss"]
        mlm = self.mlm_head(hidden, words, self.encoder.word_embeddings.weight)
        return {
            "loss": contrastive + self.mlm_weight * mlm,
            "contrastive": contrastive.detach(),
            "mlm": mlm.detach(),
            "embeddings": embeddings.detach(),
        }

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        anchors, *positives = embeddings.chunk(1 + self.positives)
        return {"loss": self.info_nce(anchors, torch.stack(positives).mean(dim=0))}
