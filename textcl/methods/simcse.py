"""SimCSE: Simple Contrastive Learning of Sentence Embeddings (Gao, Yao and Chen, EMNLP 2021, arXiv 2104.08821)."""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from textcl.collator.batch import Batch, holds_pairs, rows_of_view, where_views_are
from textcl.collator.collator import Collator
from textcl.encoder import Encoder
from textcl.encoder.layers import pooled_dimension
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError
from textcl.methods.method import Method, Outputs
from textcl.modules.info_nce import InfoNCE
from textcl.modules.masked_language_model import MaskedLanguageModelHead
from textcl.ranges import NotNegative, Positive, PositiveShare, checked
from textcl.views.view import PLAIN


class SimCSE(Method):
    """A text passes through the encoder twice, with two dropout masks, and is its own positive.

    Unsupervised (eq. 4): ℓ_i = −log exp(cos(h_i, h_i′)/τ) / Σ_j exp(cos(h_i, h_j′)/τ); the other texts of the batch
    are the negatives. Supervised (eq. 5): rows are (premise, entailment, contradiction). Entailments are positives,
    every contradiction of the batch is a hard negative, and a row's own is weighted by α (§4, α = 1). Defaults are
    those of table A.1 and §6.3; learning rate and batch size are in the recipes.

    Args:
        encoder: The encoder that is trained and exported; the paper pools with [CLS].
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        temperature: Softmax temperature τ: lower makes hard negatives count more. If it is learned, its initial value.
        similarity: Similarity of two embeddings: "cosine", or "dot" as in table D.1.
        learn_temperature: Learn the temperature during training, as 1/τ; the paper does not.
        head: The MLP (dense layer and tanh) behind the pooling. "train_only": dropped at export, as in the unsupervised
            models (table 6); "keep": exported, as in the supervised models; "none": no MLP. `set_dimensions` needs one
            of the last two.
        hard_negative_log_weight: log α: higher makes a row's own hard negative count more.
        mask_duplicates: Do not use rows with the same text, nor pairs that share one of their texts, as each other's
            negatives. None: yes for pairs and triplets, no for single texts; the paper uses all of them.
        equal_dropout_masks: Give both views the same dropout mask: no augmentation, only repulsion. A control.
        mlm_weight: Weight λ of the masked-word term (§4 and table D.2; 0.1 there), which takes a second pass over
            masked copies of all views; 0: no such term.
        mlm_probability: Share of the tokens that are masked for the masked-word term.

    Raises:
        InputError: If the views would be equal because the model has no dropout, or `equal_dropout_masks` is combined
            with other views than plain ones.

    Example:
        >>> method = SimCSE(Encoder.from_pretrained("bundled", pooling="cls"))
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "simcse"
    family = "negatives"
    needs = "sentences, pairs or triplets"
    paper = (
        "Gao, Yao and Chen (2021). SimCSE: Simple Contrastive Learning of Sentence Embeddings. EMNLP. arXiv 2104.08821"
    )

    without_parts = "Take --head none, or --head keep, which exports the head."

    option_needs = {"mlm_probability": ("mlm_weight",)}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.05,
        similarity: Literal["cosine", "dot"] = "cosine",
        learn_temperature: bool = False,
        head: Literal["train_only", "keep", "none"] = "train_only",
        hard_negative_log_weight: float = 0.0,
        mask_duplicates: bool | None = None,
        equal_dropout_masks: bool = False,
        mlm_weight: NotNegative = 0.0,
        mlm_probability: PositiveShare = 0.15,
    ) -> None:
        super().__init__(encoder)
        if head not in ("train_only", "keep", "none"):
            raise InputError(f"SimCSE's head must be train_only, keep or none, not {head!r}.")
        if head == "keep" and encoder.head is None:
            encoder.head = DenseTanh(pooled_dimension(encoder)).to(encoder.device)
            encoder.pooling = "pooler" if encoder.pooling == "cls" else encoder.pooling
        self.views = encoder.prepare_views(first_view, second_view)
        if equal_dropout_masks and any(view != PLAIN for view in self.views):
            raise InputError("equal_dropout_masks is a control without views: leave out first_view and second_view.")
        self.takes_views = not equal_dropout_masks
        self.head = DenseTanh(encoder.dimension).to(encoder.device) if head == "train_only" else nn.Identity()
        self.info_nce = InfoNCE(
            temperature,
            learn_temperature=learn_temperature,
            similarity=similarity,
            hard_negative_log_weight=hard_negative_log_weight,
            mask_duplicates=mask_duplicates,
        )
        self.equal_dropout_masks = equal_dropout_masks
        self.mlm_weight = mlm_weight
        self.mask_probability = mlm_probability if mlm_weight else 0.0
        self.mlm_head = MaskedLanguageModelHead.from_encoder(encoder).to(encoder.device) if mlm_weight else None

    def collator(self, seed: int = 42) -> Collator:
        collator = super().collator(seed)
        collator.dropout_views |= self.equal_dropout_masks
        return collator

    def embed(self, batch: Batch) -> Tensor:
        if not self.equal_dropout_masks:
            return super().embed(batch)
        first, second = rows_of_view(batch, 0), rows_of_view(batch, 1)
        if not torch.equal(first["text_id"], second["text_id"]):
            raise InputError(
                "equal_dropout_masks is a control for unlabelled text, but these rows hold pairs or triplets. Leave it "
                "out, or train on texts."
            )
        return self.encoder.embed(first).repeat(2, 1)

    def forward(self, **batch: Unpack[Batch]) -> Outputs:
        outputs = super().forward(**batch)
        if self.mlm_head is None:
            return outputs
        contrastive, mlm = outputs["loss"], self.mlm_head.on_copies(self.encoder, batch)
        terms: Outputs = {"contrastive": contrastive.detach(), "mlm": mlm.detach()}
        return {**outputs, **terms, "loss": contrastive + self.mlm_weight * mlm}

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        projected = self.head(embeddings)
        first, second, *hard_negatives = (projected[rows] for rows in where_views_are(batch))
        loss = self.info_nce(
            first,
            second,
            hard_negatives=hard_negatives[0] if hard_negatives else None,
            text_id=batch["text_id"],
            pairs=holds_pairs(batch),
        )
        return {"loss": loss}
