"""SCCL: Supporting Clustering with Contrastive Learning (Zhang et al., NAACL 2021, arXiv 2103.12953)."""

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textcl import distributed
from textcl.collator.batch import Batch
from textcl.collator.collator import Collator
from textcl.data.training import whole_corpus
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.clustering import clustering_divergence, log_assignments, target_distribution
from textcl.methods.method import Method, Outputs
from textcl.metrics.clustering import adjusted_rand_index, cluster, clustering_accuracy, normalized_mutual_information
from textcl.metrics.stability import cluster_stability
from textcl.modules.heads import mlp
from textcl.modules.info_nce import InfoNCE
from textcl.ranges import NotNegative, Positive, Seed, TwoOrMore, checked
from textcl.views.view import PLAIN

logger = logging.getLogger("textcl")


class SCCL(Method):
    """NT-Xent on a head pushes texts apart; a clustering loss on the embeddings gathers them around centres.

    L = η · NT-Xent + w · KL(p ‖ q) (eq. 6). q are the Student-t assignments to the centres (eq. 3), which k-means sets
    before the first step; p are the assignments sharpened over the batch (eq. 4). Explicit mode: rows hold text views
    `text_1` and `text_2` (see `textcl.views.text.augment`), and the original text is clustered. Virtual mode: the views
    are made in the encoder, by dropout unless other views are given, and the first view is clustered.

    Defaults are those of the authors' code. The published scores come from an earlier loss with a further term, which
    the code no longer has. The paper's learning rates and most of its table are unverified.

    Args:
        encoder: The encoder that is trained and exported; the authors use mean pooling of an encoder that was trained
            with labels.
        clusters: Number of clusters; None: estimated from the corpus by `cluster_stability`, and logged.
        first_view: The first view of a text in virtual mode, such as "plain" or "token_cutoff:0.15"; two plain views
            differ by dropout. See textcl.views.view.
        second_view: The second view of a text in virtual mode.
        temperature: Softmax temperature τ: lower makes hard negatives count more.
        eta: Weight η of the contrastive term.
        clustering_weight: Weight w of the clustering term; None: 1 if rows hold text views, else 0.5.
        alpha: Degrees of freedom of the Student-t assignments; the authors use 1, but 10 for StackOverflow and
            Biomedical.
        projection_dimension: Output dimension of the contrastive, train-only head.
        head_learning_rate_factor: Factor of the learning rate of head and centres.
        kmeans_seed: Seed of the ten starts of k-means.

    Raises:
        InputError: If there are fewer than two clusters or, once the corpus is known, more clusters than texts, or
            views beside text views.

    Example:
        >>> method = SCCL(Encoder.from_pretrained("bundled"), clusters=2)
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> sorted(method.eval()(**batch))
        ['clustering', 'contrastive', 'embeddings', 'loss']
    """

    name = "sccl"
    family = "clustering"
    paper = (
        "Zhang, Nan, Wei, Li, Zhu, McKeown, Nallapati, Arnold and Xiang (2021). Supporting Clustering with Contrastive "
        "Learning. NAACL. arXiv 2103.12953"
    )

    assignments: Tensor

    @checked
    def __init__(
        self,
        encoder: Encoder,
        clusters: TwoOrMore | None = None,
        first_view: str = "plain",
        second_view: str = "plain",
        temperature: Positive = 0.5,
        eta: NotNegative = 10.0,
        clustering_weight: NotNegative | None = None,
        alpha: Positive = 1.0,
        projection_dimension: TwoOrMore = 128,
        head_learning_rate_factor: NotNegative = 100.0,
        kmeans_seed: Seed = 0,
    ) -> None:
        super().__init__(encoder)
        if eta == 0 and clustering_weight == 0:
            raise InputError("SCCL has no term to train if both eta and clustering_weight are 0; raise one of them.")
        self.views = encoder.prepare_views(first_view, second_view)
        dimension = encoder.dimension
        self.head = mlp([dimension, dimension, projection_dimension], batch_norm=False).to(encoder.device)
        self.centres = nn.Parameter(torch.zeros(clusters or 0, dimension, device=encoder.device))
        self.register_buffer("assignments", torch.zeros(0, dtype=torch.long))
        self.info_nce = InfoNCE(temperature, topology="nt_xent")
        self.eta = eta
        self.clustering_weight = clustering_weight
        self.alpha = alpha
        self.head_learning_rate_factor = head_learning_rate_factor
        self.kmeans_seed = kmeans_seed
        self.explicit = False

    @property
    def learning_rate_factors(self) -> dict[str, float]:
        return dict.fromkeys(("head", "centres"), self.head_learning_rate_factor)

    def prepare_corpus(self, dataset: Any) -> Any:
        """Looks for text views in the rows, and estimates the number of clusters if it was not given."""
        dataset = whole_corpus(dataset, "SCCL")
        self.explicit = {"text_1", "text_2"} <= set(dataset.column_names)
        if self.explicit and any(view != PLAIN for view in self.views):
            raise InputError(
                "SCCL trains on the text views of the rows and would not make the first and second view; leave "
                "--first-view and --second-view out, or the text views (--text-view)."
            )
        if len(self.centres) == 0:
            number = cluster_stability(self.clustered(list(dataset["text"]))).best
            logger.info("%d clusters are the most stable; this number is estimated, and clusters sets another.", number)
            self.centres = nn.Parameter(self.centres.new_zeros(number, self.encoder.dimension))
        distinct = len(set(dataset["text"]))
        if len(self.centres) > distinct:
            raise InputError(
                f"SCCL cannot make {len(self.centres):,} clusters from {distinct:,} distinct texts: lower clusters."
            )
        self.assignments = self.assignments.new_full((len(dataset),), -1)
        return dataset

    def on_fit_start(self, dataset: Any, batch_size: int) -> None:
        if len(self.assignments) == 0:
            raise InputError("SCCL reads the corpus before training; train on method.prepare_corpus(dataset).")
        found = cluster(self.clustered(list(dataset["text"])), len(self.centres), self.kmeans_seed)
        with torch.no_grad():
            self.centres.copy_(torch.as_tensor(found.centres))
            distributed.broadcast(self.centres)

    def collator(self, seed: int = 42) -> Collator:
        collator = super().collator(seed)
        if self.explicit:
            collator.blocks = [("text", PLAIN), ("text_1", PLAIN), ("text_2", PLAIN)]
        return collator

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder.embed(batch, views=() if self.explicit else self.views)

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        blocks = embeddings.chunk(3 if self.explicit else 2)
        first, second = self.head(torch.cat(blocks[-2:])).chunk(2)
        contrastive = self.info_nce(first, second, text_id=batch["text_id"][-2 * len(first) :])
        log_q = log_assignments(blocks[0], self.centres, self.alpha)
        mass = distributed.all_reduce(log_q.exp().sum(dim=0))
        target = target_distribution(log_q.exp(), mass)
        clustering = distributed.mean(clustering_divergence(log_q, target), len(log_q))
        weight = self.clustering_weight
        if weight is None:
            weight = 1.0 if self.explicit else 0.5
        return {
            "loss": self.eta * contrastive + weight * clustering,
            "contrastive": contrastive.detach(),
            "clustering": clustering.detach(),
        }

    def clustered(self, texts: list[str], bf16: bool = False) -> np.ndarray:
        """The embeddings that the clustering loss sees, (texts, dim): not normalised, with the pooling of training."""
        return self.encoder.encode(texts, normalize=False, bf16=bf16)

    @torch.no_grad()
    def assign(self, embeddings: Any) -> np.ndarray:
        """The cluster with the largest q for each of the embeddings (rows, dim), as (rows,)."""
        rows = torch.as_tensor(embeddings, device=self.centres.device)
        return log_assignments(rows, self.centres, self.alpha).argmax(dim=1).cpu().numpy()

    def evaluators(self, dataset: Any, bf16: bool = False) -> list[Any]:
        labels = list(dataset["label"]) if "label" in dataset.column_names else None
        return ClusterProgress(self, list(dataset["text"]), labels, bf16).figures()


@dataclass
class ClusterProgress:
    """Scores the clusters during training. Each score is an evaluator of its own; all are computed together.

    `unchanged`, the first score, needs no labels: the percentage of texts with the same cluster as at the previous
    evaluation. The authors' first code used it as stopping criterion. With labels there are also accuracy (Hungarian),
    normalised mutual information and adjusted Rand index, each for k-means on the embeddings (`kmeans_…`, what the
    paper reports) and for the assignments to the trained centres (`head_…`).

    Attributes:
        method: The method that assigns the clusters. It keeps the last assignments in a buffer, so that a resumed run
            compares with the same ones.
        texts: The training texts.
        labels: The class of each text, if known.
        bf16: Whether to embed the texts in bfloat16, as in training.
        scores: The scores of the last evaluation.
    """

    method: SCCL
    texts: list[str]
    labels: list[int] | None
    bf16: bool = False
    scores: dict[str, float] = field(default_factory=dict)

    def figures(self) -> list[Any]:
        names = ["unchanged"]
        if self.labels is not None:
            names += [f"{kind}_{metric}" for kind in ("kmeans", "head") for metric in ("accuracy", "nmi", "ari")]
        return [_Figure(name, self) for name in names]

    def compute(self, encoder: Any) -> dict[str, float]:
        method = self.method
        embeddings = method.clustered(self.texts, self.bf16)
        assigned = method.assign(embeddings)
        before = method.assignments.cpu().numpy()
        empty = len(method.centres) - len(np.unique(assigned))
        if empty:
            logger.warning("SCCL: %d of %d clusters hold no text.", empty, len(method.centres))
        scores = {"unchanged": 100 * float((assigned == before).mean())}
        method.assignments.copy_(torch.as_tensor(assigned))
        if self.labels is not None:
            if encoder.pooling != method.encoder.pooling:
                embeddings = encoder.encode(self.texts, bf16=self.bf16)
            if encoder.normalize:  # as a user of the export would cluster them
                embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
            by_kmeans = cluster(embeddings, len(method.centres), method.kmeans_seed).assignments
            for kind, clusters in (("kmeans", by_kmeans), ("head", assigned)):
                scores[f"{kind}_accuracy"] = 100 * clustering_accuracy(self.labels, clusters)
                scores[f"{kind}_nmi"] = 100 * normalized_mutual_information(self.labels, clusters)
                scores[f"{kind}_ari"] = 100 * adjusted_rand_index(self.labels, clusters)
        return scores


@dataclass
class _Figure:
    """One score of a `ClusterProgress` as an evaluator; the first evaluator computes all scores.

    None of them says whether training has made the encoder better, so the untouched encoder is not a candidate.
    """

    name: str
    progress: ClusterProgress
    measures_quality: bool = False

    def __call__(self, encoder: Any) -> SimpleNamespace:
        if self.name == "unchanged":
            self.progress.scores = self.progress.compute(encoder)
        return SimpleNamespace(primary=self.progress.scores[self.name])
