"""BYOL: Bootstrap Your Own Latent (Grill et al., NeurIPS 2020), on text."""

from collections.abc import Sequence

from torch import Tensor, nn

from textcl.collator.batch import Batch
from textcl.distributed import mean
from textcl.encoder import Encoder
from textcl.losses.regression import cosine_regression
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.target import Target, cosine_momentum
from textcl.ranges import Share, TwoOrMore, checked


class BYOL(Method):
    """One view predicts the target's projection of the other view, without negatives, arXiv 2006.07733.

    The target is a slowly moving copy of encoder and projector.

    L = ‖q̄(z) − z̄′‖² + the same with the views exchanged (eq. 2), where z is the projection, q the predictor, z′ the
    target's projection without gradient, and a bar means scaled to length 1. The asymmetry of the two sides prevents
    collapse.

    Args:
        encoder: The encoder that is trained by gradient and exported.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        momentum: Initial momentum τ of the target: higher makes it follow the encoder more slowly. The paper uses 0.996
            for a thousand epochs and 0.99 for up to three hundred. It rises towards 1 along a cosine (section 3.3).
        projection_dimension: Output dimension of projector and predictor.
        hidden_dimension: Hidden dimension of projector and predictor; 4096 in the paper. The default is that of the
            standard run.
        target_dropout: Whether the target uses dropout, which makes its two plain views differ.
        asymmetric: False: remove predictor and target, and pull both views together with gradient on both sides. A
            control that collapses.

    Example:
        >>> method = BYOL(Encoder.from_pretrained("bundled"), second_view="token_cutoff")
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method.eval()(**batch)["loss"].shape
        torch.Size([])
    """

    name = "byol"
    family = "asymmetry"
    needs = "sentences or pairs"
    paper = (
        "Grill et al. (2020). Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning. NeurIPS. arXiv "
        "2006.07733"
    )

    option_needs = {"momentum": ("asymmetric",), "target_dropout": ("asymmetric",)}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        momentum: Share = 0.99,
        projection_dimension: TwoOrMore = 256,
        hidden_dimension: TwoOrMore = 1024,
        target_dropout: bool = True,
        asymmetric: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        hidden, output = hidden_dimension, projection_dimension
        self.projector = mlp([encoder.dimension, hidden, output], last="no_bias").to(encoder.device)
        self.predictor: nn.Module = nn.Identity()
        self.target: Target | None = None
        if asymmetric:
            self.predictor = mlp([output, hidden, output], last="no_bias").to(encoder.device)
            self.target = Target(encoder, self.projector, dropout=target_dropout)
        self.momentum = momentum

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = (self.projector(view) for view in embeddings.chunk(2))
        first_target, second_target = first, second
        if self.target is not None:
            of_target = self.target.embed(batch, self.views)
            first_target, second_target = (self.target.projector(view) for view in of_target.chunk(2))
        loss = cosine_regression(self.predictor(first), second_target)
        loss = loss + cosine_regression(self.predictor(second), first_target)
        return {"loss": mean(loss, len(first)), "projections": first.detach()}

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        if self.target is not None:
            # the authors update after the optimizer too, and count steps from 0: the first update has the momentum τ
            self.target.update(self.encoder, self.projector, cosine_momentum(self.momentum, step - 1, total))
