"""The base of BERT-CT and CT with in-batch negatives: two encoders with equal first weights, one exported."""

import copy
from typing import Literal

import torch
from torch import Tensor

from textcl.collator.batch import Batch, rows_of_view
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods.method import Method

Keep = Literal["best_on_dev", "first", "second", "average"]


class TwoTowers(Method):
    """Two independent encoders that start from the same weights; the batch's `view` says which one reads a row.

    Args:
        encoder: The first tower; the second starts as its copy.
        keep: Which tower is exported. "best_on_dev": the one with the better score at the last evaluation, or the first
            if there are no evaluators. "first" and "second": that tower. "average": the mean of their weights.
        dropout_in_training: Whether to train with the model's dropout.
    """

    paper = (
        "Carlsson, Cuba Gyllensten, Gogoulou, Ylipää Hellqvist and Sahlgren (2021). Semantic Re-tuning with "
        "Contrastive Tension. ICLR. OpenReview Ov_sMNau-PF"
    )
    needs = "sentences"
    takes_views = False
    better_tower: Tensor

    def __init__(self, encoder: Encoder, keep: Keep, dropout_in_training: bool) -> None:
        super().__init__(encoder)
        if keep not in ("best_on_dev", "first", "second", "average"):
            raise InputError(f"The tower to keep must be best_on_dev, first, second or average, not {keep!r}.")
        self.second = copy.deepcopy(encoder)
        self.keep = keep
        self.dropout_in_training = dropout_in_training
        self.register_buffer("better_tower", torch.zeros((), dtype=torch.long))

    def embed(self, batch: Batch) -> Tensor:
        read = [
            tower.embed(rows_of_view(batch, number), dropout=self.dropout_in_training)
            for number, tower in enumerate((self.encoder, self.second))
        ]
        return torch.cat(read)

    @property
    def candidates(self) -> list[Encoder]:
        towers = [self.encoder, self.second] if self.keep == "best_on_dev" else [self._kept]
        return [self._at_test(tower) for tower in towers]

    def choose(self, candidate: int) -> None:
        self.better_tower.fill_(candidate)

    @property
    def exported(self) -> Encoder:
        return self._at_test(self._kept)

    @property
    def _kept(self) -> Encoder:
        if self.keep == "average":
            mean = copy.deepcopy(self.encoder)
            other = dict(self.second.named_parameters())
            with torch.no_grad():
                for name, parameter in mean.named_parameters():
                    parameter.lerp_(other[name], 0.5)
            return mean
        second = self.keep == "second" or (self.keep == "best_on_dev" and bool(self.better_tower))
        return self.second if second else self.encoder
