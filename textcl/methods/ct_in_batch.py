"""CT with in-batch negatives: Contrastive Tension's two towers trained with InfoNCE, as in sentence-transformers."""

from typing import Literal

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.collator.collator import Collator
from textcl.collator.prompts import Prompts
from textcl.collator.reads import Reads
from textcl.encoder import Encoder
from textcl.methods.method import Outputs
from textcl.methods.two_towers import Keep, TwoTowers
from textcl.modules.info_nce import InfoNCE
from textcl.ranges import Positive, checked
from textcl.views.view import PLAIN


class CTInBatch(TwoTowers):
    """Each text's embedding by one tower must find the same text in the other tower's batch, in both directions.

    This variant has no paper. It comes from sentence-transformers (ContrastiveTensionLossInBatchNegatives), whose
    defaults are used: cosine, a learned 1/τ that starts at 20, and the model's own dropout.

    Args:
        encoder: The encoder that both towers start from; mean pooling is usual.
        temperature: Softmax temperature τ: lower makes hard negatives count more. If it is learned, its initial value.
        learn_temperature: Learn the temperature during training, as 1/τ.
        similarity: Similarity of two embeddings: "cosine", or "dot" as in the STS-B example of sentence-transformers
            (which uses τ = 1).
        keep: Which tower is exported: "best_on_dev" (the one with the better score at the last evaluation), "first",
            "second" or "average" (the mean of their weights).
        dropout_in_training: Train with the model's dropout.
        mask_duplicates: Do not use rows with the same text as each other's negatives.

    Example:
        >>> method = CTInBatch(Encoder.from_pretrained("bundled"))
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method.eval()(**batch)["loss"].shape
        torch.Size([])
    """

    name = "ct-in-batch"
    family = "negatives"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        temperature: Positive = 0.05,
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
        blocks = [("text", PLAIN), ("text", PLAIN)]  # the towers differ, so equal views need no dropout
        return Collator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            blocks=blocks,
            reads=Reads.of(self),
            prompts=Prompts.of(self.encoder, self.train_prompts),
            seed=seed,
        )

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = embeddings.chunk(2)
        return {"loss": self.info_nce(first, second, text_id=batch["text_id"])}
