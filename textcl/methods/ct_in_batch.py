"""CT with in-batch negatives: the two towers of Contrastive Tension under InfoNCE, as sentence-transformers has it."""

from typing import Literal

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.collator.collator import Collator
from textcl.encoder import Encoder
from textcl.methods.method import Outputs
from textcl.methods.two_towers import Keep, TwoTowers
from textcl.modules.info_nce import InfoNCE
from textcl.views.view import PLAIN


class CTInBatch(TwoTowers):
    """Each text under one tower finds itself among the batch under the other, in both directions.

    No paper has it; the variant is that of sentence-transformers (ContrastiveTensionLossInBatchNegatives), whose
    defaults are taken over: cosine, 1/τ learned from 20 on, dropout as the model has it.

    Args:
        encoder: Becomes both towers; mean pooling is usual.
        temperature: τ, or where it starts.
        learn_temperature: Train 1/τ.
        similarity: "cosine", or "dot" as in the STS-B example of sentence-transformers (there with τ = 1).
        keep: Which tower is exported: best_on_dev, first, second or average of the weights.
        dropout_in_training: Train with the model's dropout.
        mask_duplicates: Leave rows with the same text out of each other's negatives.

    Example:
        >>> method = CTInBatch(Encoder.from_pretrained("bundled"))
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "ct-in-batch"
    family = "negatives"

    def __init__(
        self,
        encoder: Encoder,
        temperature: float = 0.05,
        learn_temperature: bool = True,
        similarity: Literal["cosine", "dot"] = "cosine",
        keep: Keep = "best_on_dev",
        dropout_in_training: bool = True,
        mask_duplicates: bool = False,
    ) -> None:
        super().__init__(encoder, keep, dropout_in_training)
        self.info_nce = InfoNCE(
            temperature,
            learn_temperature=learn_temperature,
            similarity=similarity,
            symmetric=True,
            mask_duplicates=mask_duplicates,
        )

    def collator(self, seed: int = 42) -> Collator:
        blocks = [("text", PLAIN), ("text", PLAIN)]  # the towers differ, so that no dropout is needed
        return Collator(self.encoder.tokenizer, self.encoder.max_length, blocks=blocks, seed=seed)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = embeddings.chunk(2)
        return {"loss": self.info_nce(first, second, text_id=batch["text_id"])}
