"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., NeurIPS 2020)."""

import itertools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from textcl import distributed
from textcl.collator.batch import Batch
from textcl.encoder import Encoder
from textcl.losses.swapped_prediction import sinkhorn, swapped_prediction
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import mlp
from textcl.modules.prototypes import Prototypes
from textcl.modules.queue import Queue
from textcl.ranges import Count, Positive, TwoOrMore, ZeroOrMore, checked

logger = logging.getLogger("textcl")


class SwAV(Method):
    """Each view predicts which prototypes another view of its text is assigned to, arXiv 2006.09882, algorithm 1.

    The codes are soft assignments of the first two views that give each prototype an equal share of the batch
    (Sinkhorn, eq. 3). Each view's softmax over the prototypes predicts the codes of the other views (eq. 2 and 6).
    Short views are the counterpart of multi-crop on text: they predict but are not assigned.

    Two plain views of a sentence are far more alike than two crops of an image, and the embeddings of a language model
    lie in a narrow cone. With ε = 0.05 the codes are therefore nearly uniform. Use a smaller ε, and only as many
    prototypes as batch and queue can fill.

    Args:
        encoder: The encoder that is trained and exported. The projector, a train-only head, reads its embeddings.
        first_view: The first view of a text, such as "plain" or "token_cutoff:0.15"; two plain views differ by
            dropout. See textcl.views.view.
        second_view: The second view of a text.
        short_views: Number of additional short views.
        short_view: The view that makes short views; "crop_away:0.7" keeps a span of 30 % of the text.
        prototypes: Number K of prototypes; 3000 in the paper, with batches of 4096. The default is that of the standard
            run, as those of the other sizes are.
        temperature: Softmax temperature τ of the predictions: lower makes them sharper.
        epsilon: Entropy weight ε of the codes: lower makes them sharper.
        sinkhorn_iterations: Number of Sinkhorn iterations that compute the codes.
        frozen_steps: Number of steps at the start in which the prototypes do not change; 313 in the authors' code with
            batches of 4096.
        queue_size: Number of projections of earlier batches, for each of the first two views, that are assigned
            together with the batch once the queue is full; 3840 in the paper for small batches; 0: no queue.
        queue_start: The step after which the queue fills; starting too early disturbs training. The authors' code
            starts after 15 epochs.
        projection_dimension: Output dimension of the projector.
        hidden_dimension: Hidden dimension of the projector; 2048 in the authors' code.
        equipartition: False: use the softmax as code, without equal shares. A control that collapses.

    Example:
        >>> method = SwAV(Encoder.from_pretrained("bundled"), prototypes=8, short_views=2)
        >>> batch = method.collator()([{"text": "A cat sleeps in the sun."}, {"text": "It rains on the roof."}])
        >>> method.eval()(**batch)["loss"].shape
        torch.Size([])
    """

    name = "swav"
    family = "clustering"
    paper = (
        "Caron, Misra, Mairal, Goyal, Bojanowski and Joulin (2020). Unsupervised Learning of Visual Features by "
        "Contrasting Cluster Assignments. NeurIPS. arXiv 2006.09882"
    )

    option_needs = {  # noqa: RUF012
        "short_view": ("short_views",),
        "sinkhorn_iterations": ("equipartition",),
        "queue_start": ("queue_size",),
    }

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "plain",
        second_view: str = "plain",
        short_views: ZeroOrMore = 0,
        short_view: str = "crop_away:0.7",
        prototypes: TwoOrMore = 128,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        sinkhorn_iterations: Count = 3,
        frozen_steps: ZeroOrMore = 50,
        queue_size: ZeroOrMore = 256,
        queue_start: ZeroOrMore = 50,
        projection_dimension: TwoOrMore = 128,
        hidden_dimension: Count = 512,
        equipartition: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.views = encoder.prepare_views(first_view, second_view, *[short_view] * short_views)
        self.projector = mlp([encoder.dimension, hidden_dimension, projection_dimension]).to(encoder.device)
        self.prototypes = Prototypes(prototypes, projection_dimension).to(encoder.device)
        self.first_queue = Queue(queue_size, projection_dimension).to(encoder.device)
        self.second_queue = Queue(queue_size, projection_dimension).to(encoder.device)
        self.temperature = temperature
        self.epsilon = epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.frozen_steps = frozen_steps
        self.queue_start = queue_start
        self.equipartition = equipartition

    def check_sizes(self, rows: int, batch_size: int) -> None:
        self.first_queue.check_size(rows, batch_size)
        filled, prototypes = batch_size + len(self.first_queue.rows), len(self.prototypes.unit_norm)
        if prototypes > filled:
            logger.warning(
                "SwAV has %d prototypes, more than the %d rows of batch and queue can fill: each prototype gets less "
                "than one row. Lower --prototypes, or raise --per-device-train-batch-size or --queue-size.",
                prototypes,
                filled,
            )

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        projections = nn.functional.normalize(self.projector(embeddings), dim=1)
        scores = self.prototypes(projections).chunk(len(self.views))
        codes = [self._codes(scores[0].detach(), self.first_queue), self._codes(scores[1].detach(), self.second_queue)]
        loss = embeddings.new_zeros(())
        for assigning, predicting in itertools.product(range(2), range(len(scores))):
            if predicting != assigning:
                loss = loss + swapped_prediction(codes[assigning], scores[predicting], self.temperature)
        pairs = 2 * (len(scores) - 1)
        keys = torch.stack(projections.detach().chunk(len(scores))[:2], dim=1)
        # watch the codes: when all texts choose one prototype, the projections can still differ
        return {"loss": distributed.mean(loss, len(scores[0])) / pairs, "keys": keys, "projections": codes[0]}

    def _codes(self, scores: Tensor, queue: Queue) -> Tensor:
        """The codes of this rank's rows: the share of each row that each prototype gets, (rows, prototypes)."""
        if not self.equipartition:
            return torch.softmax(scores / self.epsilon, dim=1)
        counts = distributed.row_counts(scores)
        everything = distributed.gather(scores, counts)
        if queue.is_full:
            everything = torch.cat([everything, self.prototypes(queue.read()).detach()])
        codes = sinkhorn(everything, self.epsilon, self.sinkhorn_iterations)
        return codes[sum(counts[: distributed.rank()]) :][: len(scores)]

    def before_optimizer_step(self, step: int) -> None:
        if step < self.frozen_steps:
            self.prototypes.unit_norm.grad = None

    def after_optimizer_step(self, step: int, total: int, keys: Sequence[Tensor]) -> None:
        self.prototypes.normalize()
        if step > self.queue_start:
            for of_batch in keys:
                first, second = of_batch.unbind(dim=1)
                self.first_queue.push(first)
                self.second_queue.push(second)
