"""SimCSE: Simple Contrastive Learning of Sentence Embeddings (Gao, Yao and Chen, EMNLP 2021, arXiv 2104.08821)."""

from typing import Literal

import torch
from torch import Tensor, nn

from textcl.collator.batch import Batch, rows_of_view, where_views_are
from textcl.collator.collator import Collator
from textcl.encoder import Encoder
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError
from textcl.methods.method import Method, Outputs
from textcl.modules.info_nce import InfoNCE
from textcl.modules.masked_language_model import MaskedLanguageModelHead


class SimCSE(Method):
    """A text passed twice through the encoder, under two dropout masks, is its own positive.

    Unsupervised (eq. 4): ℓ_i = −log exp(cos(h_i, h_i′)/τ) / Σ_j exp(cos(h_i, h_j′)/τ), the other texts of the batch
    being the negatives. Supervised (eq. 5): rows are (premise, entailment, contradiction); the entailments are the
    keys, the contradictions of the whole batch are hard negatives, and a row's own one counts α-fold (§4, α = 1).
    Defaults are those of table A.1 and §6.3; learning rate and batch size are in the recipes.

    Args:
        encoder: The paper pools [CLS].
        first_view: See `textcl.views`. Two plain views differ by dropout.
        second_view: Likewise.
        temperature: τ.
        similarity: "cosine", or "dot" as in table D.1.
        learn_temperature: Train 1/τ, which the paper does not.
        head: The MLP (dense and tanh) behind the pooling. "train_only" drops it at export, as the unsupervised models
            do (table 6); "keep" exports it, as the supervised ones do; "none" trains without.
        hard_negative_log_weight: log α.
        mask_duplicates: Leave rows with the same text out of each other's negatives; the paper does not.
        equal_dropout_masks: Give both views the same mask: no augmentation is left, only repulsion. A control.
        mlm_weight: λ of the masked-word term (§4 and table D.2; there 0.1), a second pass over masked copies of all
            views. 0: none.
        mlm_probability: Share of the tokens masked.

    Raises:
        InputError: If the views would be equal because the model has no dropout.

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

    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: float = 0.05,
        similarity: Literal["cosine", "dot"] = "cosine",
        learn_temperature: bool = False,
        head: Literal["train_only", "keep", "none"] = "train_only",
        hard_negative_log_weight: float = 0.0,
        mask_duplicates: bool = False,
        equal_dropout_masks: bool = False,
        mlm_weight: float = 0.0,
        mlm_probability: float = 0.15,
    ) -> None:
        super().__init__(encoder)
        if head not in ("train_only", "keep", "none"):
            raise InputError(f"SimCSE's head is train_only, keep or none, not {head!r}.")
        if head == "keep" and encoder.head is None:
            encoder.head = DenseTanh(encoder.dimension).to(encoder.device)
            encoder.pooling = "pooler" if encoder.pooling == "cls" else encoder.pooling
        self.views = encoder.prepare_views(first_view, second_view)
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
            raise InputError("equal_dropout_masks is a control for unlabelled text; these rows hold pairs or triplets.")
        return self.encoder.embed(first).repeat(2, 1)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        projected = self.head(embeddings)
        first, second, *hard_negatives = (projected[rows] for rows in where_views_are(batch))
        loss = self.info_nce(
            first,
            second,
            hard_negatives=hard_negatives[0] if hard_negatives else None,
            text_id=batch["text_id"],
        )
        if self.mlm_head is None:
            return {"loss": loss}
        mlm = self.mlm_head.on_copies(self.encoder, batch)
        return {"loss": loss + self.mlm_weight * mlm, "contrastive": loss.detach(), "mlm": mlm.detach()}
