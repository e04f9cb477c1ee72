"""BERT-CT: Semantic Re-tuning with Contrastive Tension (Carlsson et al., ICLR 2021)."""

from typing import Literal

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.collator.pairs import Negatives, PairCollator
from textcl.collator.prompts import Prompts
from textcl.collator.reads import Reads
from textcl.distributed import mean, world_size
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.contrastive_tension import contrastive_tension
from textcl.methods.method import Outputs
from textcl.methods.two_towers import Keep, TwoTowers
from textcl.ranges import Count, checked


class BertCT(TwoTowers):
    """Two encoders learn to agree on identical texts and to disagree on different ones.

    A group is one pair of identical texts and K pairs of different texts. The dot product of the two towers' embeddings
    is the logit that the texts are identical. Each micro-batch holds as many groups as its rows allow. Defaults follow
    the authors' code: K = 7, the mean over the pairs, no dropout in training, mean pooling; optimizer and learning
    rates are in the recipes. The tables of the paper could not be read, so its number of updates and its maximum length
    are unverified.

    Args:
        encoder: The encoder that both towers start from; the paper uses mean pooling.
        negatives: How the K pairs of different texts are made. "independent": both texts are random, the second one
            drawn from the other rows of the batch (the authors' code draws both from the corpus). "anchored": the text
            of the identical pair with each of K other rows (the paper's figure). "consecutive": pairs of
            consecutive rows (sentence-transformers), which takes 2K + 1 rows per group.
        negatives_per_positive: Number K of pairs of different texts in each group.
        reduction: "mean": average the loss over the pairs of all ranks (the authors); "sum": add it up
            (sentence-transformers).
        keep: Which tower is exported: "best_on_dev" (the one with the better score at the last evaluation), "first",
            "second" or "average" (the mean of their weights).
        dropout_in_training: Train with the model's dropout; the authors train without it.

    Example:
        >>> method = BertCT(Encoder.from_pretrained("bundled"))
        >>> batch = method.collator()([{"text": f"Text {number}."} for number in range(16)])
        >>> batch["identical"].sum(), len(batch["identical"])
        (tensor(2), 16)
    """

    name = "bert-ct"
    family = "negatives"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        negatives: Negatives = "independent",
        negatives_per_positive: Count = 7,
        reduction: Literal["mean", "sum"] = "mean",
        keep: Keep = "best_on_dev",
        dropout_in_training: bool = False,
    ) -> None:
        super().__init__(encoder, keep, dropout_in_training)
        if reduction not in ("mean", "sum"):
            raise InputError(f"BERT-CT's reduction must be mean or sum, not {reduction!r}.")
        self.negatives = negatives
        self.negatives_per_positive = negatives_per_positive
        self.reduction = reduction

    def collator(self, seed: int = 42) -> PairCollator:
        return PairCollator(
            self.encoder.tokenizer,
            self.encoder.max_length,
            negatives=self.negatives,
            negatives_per_positive=self.negatives_per_positive,
            reads=Reads.of(self),
            prompts=Prompts.of(self.encoder, self.train_prompts),
            seed=seed,
        )

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = batch["pair"].unbind(dim=1)
        total = contrastive_tension(embeddings[first], embeddings[second], batch["identical"])
        if self.reduction == "sum":
            return {"loss": total * world_size()}  # DDP averages over the ranks: this makes it the sum of all pairs
        return {"loss": mean(total, len(first))}
