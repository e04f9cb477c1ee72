"""MoCo v3: An Empirical Study of Training Self-Supervised Vision Transformers (Chen, Xie and He, ICCV 2021)."""

from collections.abc import Sequence

from torch import Tensor

from textcl.collator.batch import Batch, holds_pairs
from textcl.encoder import Encoder
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.modules.target import Target, cosine_momentum
from textcl.ranges import Count, Positive, Share, TwoOrMore, checked


class MoCoV3(Method):
    """Each view is a query once; a slowly moving copy makes its key from the other view, arXiv 2104.02057, algorithm 1.

    L = ctr(q1, k2) + ctr(q2, k1), with ctr = 2τ · InfoNCE; the factor keeps the size of the gradient when τ changes.
    The negatives are the other keys of the batch; there is no queue. Queries pass a predictor behind the projector.

    Args:
        encoder: The encoder that is trained by gradient and exported.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        temperature: Softmax temperature τ: lower makes hard negatives count more; 0.2 with transformers (section 4 and
            the authors' code; 1.0 with ResNets).
        momentum: Initial momentum m of the copy: higher makes it follow the encoder more slowly. It rises to 1 along a
            cosine.
        projection_dimension: Output dimension of projector and predictor.
        hidden_dimension: Hidden dimension of projector and predictor; 4096 in the authors' code. The default is that of
            the standard run.
        target_dropout: Whether keys are made with dropout.
        mask_duplicates: Do not use rows with the same text, nor pairs that share one of their texts, as each other's
            negatives. None: yes for pairs, no for single texts; the paper uses all of them.

    Example:
        >>> method = MoCoV3(Encoder.from_pretrained("bundled"))
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method.eval()(**batch)["loss"].shape
        torch.Size([])
    """

    name = "moco-v3"
    family = "negatives"
    needs = "sentences or pairs"
    paper = (
        "Chen, Xie and He (2021). An Empirical Study of Training Self-Supervised Vision Transformers. ICCV. arXiv "
        "2104.02057"
    )

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.2,
        momentum: Share = 0.99,
        projection_dimension: TwoOrMore = 256,
        hidden_dimension: Count = 1024,
        target_dropout: bool = True,
        mask_duplicates: bool | None = None,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        hidden, output = hidden_dimension, projection_dimension
        # three and two layers, as in the authors' code for transformers
        self.projector = mlp([encoder.dimension, hidden, hidden, output], last="batch_norm").to(encoder.device)
        self.predictor = mlp([output, hidden, output], last="batch_norm").to(encoder.device)
        self.target = Target(encoder, self.projector, dropout=target_dropout)
        self.info_nce = InfoNCE(temperature, mask_duplicates=mask_duplicates)
        self.temperature = temperature
        self.momentum = momentum

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = (self.predictor(self.projector(view)) for view in embeddings.chunk(2))
        of_target = self.target.embed(batch, self.views)
        first_keys, second_keys = (self.target.projector(view) for view in of_target.chunk(2))
        ids, pairs = batch["text_id"], holds_pairs(batch)
        loss = self.info_nce(first, second_keys, text_id=ids, pairs=pairs)
        loss = loss + self.info_nce(second, first_keys, text_id=ids.roll(len(first)), pairs=pairs)
        return {"loss": 2 * self.temperature * loss}

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        # The authors' step number i, from 0, begins with an update with momentum m(i). That of step 0 changes nothing,
        # because the copy is still equal; that of step i is the one after optimizer step i here.
        self.target.update(self.encoder, self.projector, cosine_momentum(self.momentum, step, total))
