"""SimSiam: Exploring Simple Siamese Representation Learning (Chen and He, CVPR 2021), on text."""

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.distributed import mean
from textcl.encoder import Encoder
from textcl.losses.regression import cosine_regression
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.ranges import Count, TwoOrMore, checked


class SimSiam(Method):
    """BYOL without a target: a view predicts the other view, whose gradient is stopped, arXiv 2011.10566, algorithm 1.

    L = ½ D(p₁, stopgrad(z₂)) + ½ D(p₂, stopgrad(z₁)), where D is the negative cosine (eq. 1 and 4).

    Args:
        encoder: The encoder that is trained and exported. The projector, a train-only head, reads its embeddings.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        projection_dimension: Output dimension of each of the projector's three layers and of the predictor; 2048 in the
            paper. The default is that of the standard run.
        bottleneck_dimension: Hidden dimension of the predictor, a quarter of `projection_dimension` (section 4.4); 512
            in the paper.
        stop_gradient: False: let the gradient through on both sides. A control that collapses (section 4.1).

    Example:
        >>> method = SimSiam(Encoder.from_pretrained("bundled"), second_view="token_cutoff")
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "simsiam"
    family = "asymmetry"
    needs = "sentences or pairs"
    paper = "Chen and He (2021). Exploring Simple Siamese Representation Learning. CVPR. arXiv 2011.10566"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        projection_dimension: TwoOrMore = 512,
        bottleneck_dimension: Count = 128,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view)
        output = projection_dimension
        self.projector = mlp([encoder.dimension, output, output, output], last="batch_norm").to(encoder.device)
        self.predictor = mlp([output, bottleneck_dimension, output]).to(encoder.device)
        self.stop_gradient = stop_gradient

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        first, second = (self.projector(view) for view in embeddings.chunk(2))
        first_target, second_target = (first.detach(), second.detach()) if self.stop_gradient else (first, second)
        distance = cosine_regression(self.predictor(first), second_target)
        distance = distance + cosine_regression(self.predictor(second), first_target)
        loss = mean(distance, len(first)) / 4 - 1  # −cosine = half the squared distance − 1; here for two directions
        return {"loss": loss, "projections": first.detach()}
