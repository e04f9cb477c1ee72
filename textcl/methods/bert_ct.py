"""BERT-CT: Semantic Re-tuning with Contrastive Tension (Carlsson et al., ICLR 2021)."""

from typing import Literal

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.collator.pairs import Negatives, PairCollator
from textcl.distributed import mean, world_size
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.contrastive_tension import contrastive_tension
from textcl.methods.method import Outputs
from textcl.methods.two_towers import Keep, TwoTowers


class BertCT(TwoTowers):
    """Two encoders learn to agree on a text, and to disagree on two different ones.

    A group is one identical pair and K others; the dot product of the towers' embeddings is the logit of "identical".
    Each micro-batch holds as many groups as fit into its rows. Defaults are those of the authors' code: K = 7, the
    mean over the pairs, no dropout while training, mean pooling; optimizer and learning rates are in the recipes. The
    tables of the paper could not be read: its number of updates and its maximal length are unverified.

    Args:
        encoder: The paper pools the mean.
        negatives: How the K others are made. "independent": both texts at random, the second one drawn among the other
            rows (the authors' code draws both from the corpus). "anchored": the identical pair's text against K rows
            (the paper's figure). "consecutive": rows two by two (sentence-transformers), 2K + 1 rows a group.
        negatives_per_positive: K.
        reduction: "mean" over the pairs of all ranks (the authors), or "sum" (sentence-transformers).
        keep: Which tower is exported: best_on_dev, first, second or average of the weights.
        dropout_in_training: Train with the model's dropout; the authors train without.

    Example:
        >>> method = BertCT(Encoder.from_pretrained("bundled"))
        >>> batch = method.collator()([{"text": f"Text {number}."} for number in range(16)])
        >>> batch["identical"].sum(), len(batch["identical"])
        (tensor(2), 16)
    """

    name = "bert-ct"
    family = "negatives"

    def __init__(
        self,
        encoder: Encoder,
        negatives: Negatives = "independent",
        negatives_per_positive: int = 7,
        reduction: Literal["mean", "sum"] = "mean",
        keep: Keep = "best_on_dev",
        dropout_in_training: bool = False,
    ) -> None:
        super().__init__(encoder, keep, dropout_in_training)
        if reduction not in ("mean", "sum"):
            raise InputError(f"BERT-CT's reduction is mean or sum, not {reduction!r}.")
        self.negatives = negatives
        self.negatives_per_positive = negatives_per_positive
        self.reduction = reduction

    def collator(self, seed: int = 42) -> PairCollator:
        return PairCollator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            negatives=self.negatives,
            negatives_per_positive=self.negatives_per_positive,
            seed=seed,
        )

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = batch["pair"].unbind(dim=1)
        total = contrastive_tension(embeddings[first], embeddings[second], batch["identical"])
        if self.reduction == "sum":
            return {"loss": total * world_size()}  # averaged over the ranks: the sum of all pairs
        return {"loss": mean(total, len(first))}
