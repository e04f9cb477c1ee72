"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction (Zbontar et al., ICML 2021), on text."""

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.distributed import gather
from textcl.encoder import Encoder
from textcl.losses.redundancy import barlow_twins
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import check_dimensions, mlp
from textcl.ranges import Count, NotNegative, Positive, checked


class BarlowTwins(Method):
    """Two views agree in each dimension of the projection, and the dimensions are uncorrelated, arXiv 2103.03230.

    L = Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij² (eq. 1), where C is the cross-correlation matrix of the two views'
    projections over the batch of all ranks.

    The loss grows with the projection dimension: at the start of training it is about as large as that dimension. The
    authors do not clip gradients, and neither do the flags and recipes (`--max-grad-norm 0`). The training arguments of
    transformers clip at 1, which would clip every step, and Adam's step sizes would follow the clipping: in Python, set
    `max_grad_norm` to 0, or set `loss_scale` to the inverse of the dimension.

    Args:
        encoder: The encoder that is trained and exported. The projector, a train-only head, reads its embeddings.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        off_diagonal_weight: Weight λ of the off-diagonal elements: higher makes the dimensions less correlated.
        projection_dimension: Output dimension D of each of the projector's three layers. If it is far larger than the
            batch of N rows, the off-diagonal elements are mostly noise, about λ·D²/N in total. The paper uses 8192
            with batches of 2048; the default is that of the standard run.
        loss_scale: Factor that the loss is multiplied by.

    Example:
        >>> method = BarlowTwins(Encoder.from_pretrained("bundled"), projection_dimension=64)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "barlow-twins"
    family = "redundancy reduction"
    needs = "sentences or pairs"
    paper = (
        "Zbontar, Jing, Misra, LeCun and Deny (2021). Barlow Twins: Self-Supervised Learning via Redundancy Reduction. "
        "ICML. arXiv 2103.03230"
    )

    argument_defaults = {"max_grad_norm": 0.0}  # noqa: RUF012

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        off_diagonal_weight: NotNegative = 0.0051,
        projection_dimension: Count = 512,
        loss_scale: Positive = 1.0,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        self.projection_dimension = output = projection_dimension
        self.projector = mlp([encoder.dimension, output, output, output], last="no_bias").to(encoder.device)
        self.off_diagonal_weight = off_diagonal_weight
        self.loss_scale = loss_scale

    def check_sizes(self, rows: int, batch_size: int) -> None:
        check_dimensions("--projection-dimension", self.projection_dimension, batch_size)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = (gather(self.projector(view)) for view in embeddings.chunk(2))
        loss = self.loss_scale * barlow_twins(first, second, self.off_diagonal_weight)
        return {"loss": loss, "projections": first.detach()}
