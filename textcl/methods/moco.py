"""MoCo: Momentum Contrast (He et al., CVPR 2020), with the changes of version 2 (Chen, Fan et al. 2020), on text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from textcl.collator.batch import Batch, rows_of_view
from textcl.encoder import Encoder
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.modules.queue import Queue
from textcl.modules.target import Target


class MoCo(Method):
    """A query finds its key among a queue of keys of earlier batches, arXiv 1911.05722, algorithm 1; 2003.04297.

    Keys are made of the other view by a slowly moving copy of encoder and projector, θ_k ← m θ_k + (1 − m) θ_q (eq. 2),
    and carry no gradient. Keys of other rows of the batch are no negatives. The copy moves, and keys enter the queue,
    after the optimizer step. The queue holds as many keys as were made, where the authors fill it with random ones, so
    that the first step has no negative and teaches nothing. Shuffled batch norm has no place here: neither the encoder
    nor version 2's projector, linear, ReLU and linear, has batch norm.

    Args:
        encoder: The one that is trained by gradient, and exported.
        first_view: Of the query, see `textcl.views`. Two plain views differ by dropout.
        second_view: Of the key.
        temperature: τ, 0.2 in version 2 (table 1 there).
        momentum: m (table in section 4.1).
        queue_size: Keys remembered. The paper's 65,536 want a corpus many times larger, else the queue holds the very
            texts that are in the batch.
        in_batch_negatives: Make the keys of other rows negatives as well, as ESimCSE and MoCoSE do on text.
        projection_dimension: What the projector gives.
        target_dropout: Whether keys are made with dropout.

    Example:
        >>> method = MoCo(Encoder.from_pretrained("bundled"), queue_size=256)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["keys"].shape
        torch.Size([2, 128])
    """

    name = "moco"
    family = "negatives"
    needs = "sentences or pairs"
    paper = (
        "He, Fan, Wu, Xie and Girshick (2020). Momentum Contrast for Unsupervised Visual Representation Learning. "
        "CVPR. arXiv 1911.05722"
    )

    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 65536,
        in_batch_negatives: bool = False,
        projection_dimension: int = 128,
        target_dropout: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        dimension = encoder.dimension
        self.projector = mlp([dimension, dimension, projection_dimension], batch_norm=False).to(encoder.device)
        self.target = Target(encoder, self.projector, dropout=target_dropout)
        self.queue = Queue(queue_size, projection_dimension).to(encoder.device)
        self.info_nce = InfoNCE(temperature, keys_are_negatives=in_batch_negatives)
        self.momentum = momentum

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder.embed(rows_of_view(batch, 0), views=self.views)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        queries = self.projector(embeddings)
        of_target = self.target.embed(rows_of_view(batch, 1), self.views)
        keys = self.target.projector(of_target)
        loss = self.info_nce(queries, keys, extra_negatives=self.queue.read())
        return {"loss": loss, "keys": keys, "embeddings": torch.cat([embeddings.detach(), of_target])}

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        self.target.update(self.encoder, self.projector, self.momentum)
        for of_batch in keys:
            self.queue.push(of_batch)
