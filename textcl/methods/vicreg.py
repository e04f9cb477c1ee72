"""VICReg: Variance-Invariance-Covariance Regularization (Bardes, Ponce and LeCun, ICLR 2022), on text."""

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.distributed import gather
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.redundancy import vicreg
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import check_dimensions, mlp
from textcl.ranges import Count, NotNegative, Positive, checked


class VICReg(Method):
    """Two views agree, each dimension varies over the batch, and the dimensions are uncorrelated, arXiv 2105.04906.

    L = λ · invariance + μ · variance + ν · covariance (eq. 6) of the expander's output, over the batch of all ranks.
    Only the variance term prevents collapse. For the loss under gradient clipping see `BarlowTwins`.

    Args:
        encoder: The encoder that is trained and exported. The expander, a train-only head, reads its embeddings.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        invariance_weight: Weight λ of the invariance term, which pulls the two views together.
        variance_weight: Weight μ of the variance term, which makes each dimension vary; 0 is a control that collapses.
        covariance_weight: Weight ν of the covariance term, which decorrelates the dimensions.
        projection_dimension: Output dimension of each of the expander's three layers; 8192 in the paper, with batches
            of 2048. The default is that of the standard run.
        loss_scale: Factor that the loss is multiplied by.

    Example:
        >>> method = VICReg(Encoder.from_pretrained("bundled"), projection_dimension=64)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> sorted(method(**batch))
        ['covariance', 'deviation', 'embeddings', 'invariance', 'loss', 'projections', 'variance']
    """

    name = "vicreg"
    family = "redundancy reduction"
    needs = "sentences or pairs"
    paper = (
        "Bardes, Ponce and LeCun (2022). VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised "
        "Learning. ICLR. arXiv 2105.04906"
    )

    argument_defaults = {"max_grad_norm": 0.0}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        invariance_weight: NotNegative = 25.0,
        variance_weight: NotNegative = 25.0,
        covariance_weight: NotNegative = 1.0,
        projection_dimension: Count = 512,
        loss_scale: Positive = 1.0,
    ) -> None:
        super().__init__(encoder)
        if invariance_weight == variance_weight == covariance_weight == 0:
            raise InputError("VICReg has no term to train if all three weights are 0; raise one of them.")
        self.views = encoder.prepare_views(first_view, second_view)
        self.projection_dimension = output = projection_dimension
        self.expander = mlp([encoder.dimension, output, output, output], last="no_bias").to(encoder.device)
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.loss_scale = loss_scale

    def check_sizes(self, rows: int, batch_size: int) -> None:
        check_dimensions("--projection-dimension", self.projection_dimension, batch_size)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = (gather(self.expander(view)) for view in embeddings.chunk(2))
        invariance, variance, covariance = vicreg(first, second)
        loss = self.invariance_weight * invariance
        loss = loss + self.variance_weight * variance + self.covariance_weight * covariance
        return {
            "loss": self.loss_scale * loss,
            "invariance": invariance.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
            "projections": first.detach(),
            # projections that all shrink keep their effective rank and cosines, so watch their size too
            "deviation": first.detach().float().std(dim=0).mean(),
        }
