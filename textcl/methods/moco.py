"""MoCo: Momentum Contrast (He et al., CVPR 2020), with the changes of version 2 (Chen, Fan et al. 2020), on text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from textcl.collator.batch import Batch, holds_pairs, rows_of_view
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.modules.queue import Queue
from textcl.modules.target import Target
from textcl.ranges import Positive, Share, TwoOrMore, ZeroOrMore, checked


class MoCo(Method):
    """Each query must find its key among a queue of keys from earlier batches, arXiv 1911.05722, alg. 1; 2003.04297.

    A slowly moving copy of encoder and projector makes the keys from the other view, without gradient; its weights
    follow θ_k ← m θ_k + (1 − m) θ_q (eq. 2). Keys of other rows of the batch are not negatives. After the optimizer
    step the copy is updated, and the keys enter the queue. The queue starts empty (the authors fill it with random
    keys), so the loss of the first step is 0 without in-batch negatives. Shuffled batch norm is not needed: neither the
    encoder nor version 2's projector (linear, ReLU, linear) has batch norm.

    Args:
        encoder: The encoder that is trained by gradient and exported.
        first_view: The view that queries are made from, such as "plain" or "token_cutoff:0.15"; two plain views differ
            by dropout. See textcl.views.view.
        second_view: The view that keys are made from.
        temperature: Softmax temperature τ: lower makes hard negatives count more; 0.2 in version 2 (table 1 there).
        momentum: Momentum m of the copy: higher makes it follow the encoder more slowly (table in section 4.1).
        queue_size: Number of keys in the queue; 0 needs `in_batch_negatives`. The paper's 65,536 need a corpus many
            times larger; otherwise the queue holds the same texts as the batch. The default is that of the standard
            run.
        in_batch_negatives: Use the keys of other rows of the batch as negatives too, as ESimCSE and MoCoSE do on text.
        projection_dimension: Output dimension of the projector.
        target_dropout: Whether keys are made with dropout.
        mask_duplicates: Do not use the keys of rows with the same text, nor of pairs that share a text, as in-batch
            negatives. None: yes for pairs, no for single texts. Keys in the queue are not masked.

    Raises:
        InputError: If there is neither a queue nor in-batch negatives.

    Example:
        >>> method = MoCo(Encoder.from_pretrained("bundled"), queue_size=256)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method.eval()(**batch)["keys"].shape
        torch.Size([2, 128])
    """

    name = "moco"
    family = "negatives"
    needs = "sentences or pairs"
    paper = (
        "He, Fan, Wu, Xie and Girshick (2020). Momentum Contrast for Unsupervised Visual Representation Learning. "
        "CVPR. arXiv 1911.05722"
    )

    option_needs = {"mask_duplicates": ("in_batch_negatives",)}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.2,
        momentum: Share = 0.999,
        queue_size: ZeroOrMore = 1024,
        in_batch_negatives: bool = False,
        projection_dimension: TwoOrMore = 128,
        target_dropout: bool = True,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__(encoder)
        if queue_size == 0 and not in_batch_negatives:
            raise InputError("Without a queue MoCo has no negatives; raise queue_size, or set in_batch_negatives.")
        self.views = encoder.prepare_views(first_view, second_view)
        dimension = encoder.dimension
        self.projector = mlp([dimension, dimension, projection_dimension], batch_norm=False).to(encoder.device)
        self.target = Target(encoder, self.projector, dropout=target_dropout)
        self.queue = Queue(queue_size, projection_dimension).to(encoder.device)
        self.info_nce = InfoNCE(temperature, keys_are_negatives=in_batch_negatives, mask_duplicates=mask_duplicates)
        self.momentum = momentum

    def check_sizes(self, rows: int, batch_size: int) -> None:
        self.queue.check_size(rows, batch_size)

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder.embed(rows_of_view(batch, 0), views=self.views)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        queries = self.projector(embeddings)
        of_target = self.target.embed(rows_of_view(batch, 1), self.views)
        keys = self.target.projector(of_target)
        ids, pairs = batch["text_id"], holds_pairs(batch)
        loss = self.info_nce(queries, keys, extra_negatives=self.queue.read(), text_id=ids, pairs=pairs)
        return {"loss": loss, "keys": keys, "embeddings": torch.cat([embeddings.detach(), of_target])}

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        self.target.update(self.encoder, self.projector, self.momentum)
        for of_batch in keys:
            self.queue.push(of_batch)
