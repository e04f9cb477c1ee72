"""ConSERT: Contrastive Framework for Self-Supervised Sentence Representation Transfer (Yan et al., ACL 2021)."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from textcl.collator.batch import Batch, where_views_are
from textcl.collator.collator import Block, Collator
from textcl.data.training import whole_corpus
from textcl.distributed import mean
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.classification import classification
from textcl.methods.method import Method, Outputs
from textcl.modules.heads import Linear
from textcl.modules.info_nce import InfoNCE
from textcl.ranges import NotNegative, Positive, TwoOrMore, checked
from textcl.views.view import PLAIN

ADVERSARIAL = "adversarial"
_CONTRASTIVE = ("objective=unsupervised", "objective=joint")


class ConSERT(Method):
    """Two views of a text, made inside the encoder, are pulled together, arXiv 2105.11741.

    Unsupervised (eq. 1): NT-Xent over the 2N views. Supervised (eq. 2): a softmax classifier over (u, v, |u − v|) of
    two sentences, plus max(u, v)² as in the authors' scripts. Joint: the sum of both, with the contrastive term of both
    sentences weighted by 0.15. The schedules sup-unsup and joint-unsup are two runs: set the second run's `model` to
    the first run's export. The paper trains with mean pooling and tests with last2 (`test_pooling`).

    The authors' code adds the means over the two views, which is twice the paper's mean over 2N, and multiplies by 0.15
    in the unsupervised case as well. We follow the code; the factor matters only for gradient clipping.

    Args:
        encoder: The encoder that is trained and exported; the paper trains with mean pooling.
        first_view: The first view of a text; "feature_cutoff:0.2" in the base script. Views inside the encoder are
            shuffle, span, token_cutoff, feature_cutoff and embedding_dropout (the paper's dropout). See
            textcl.views.view for all views.
        second_view: The second view of a text; "shuffle" in the base script. "adversarial" (needs labels) moves each
            token embedding of the plain text by `noise_norm`, in the direction that increases the supervised term
            (section 3.2).
        temperature: Softmax temperature τ: lower makes hard negatives count more.
        objective: Which terms are trained: "unsupervised", "supervised" or "joint". The last two need rows with text,
            positive and label.
        contrastive_weight: Weight of the contrastive term.
        classes: Number of classes of the labels; three in natural language inference.
        noise_norm: Length of each token's adversarial perturbation.
        dropout_in_training: Train with the model's dropout; the authors' script for the unsupervised base model trains
            without it.
        mask_duplicates: Do not use rows with the same text as each other's negatives; the paper uses them.

    Raises:
        InputError: If a view does not work with this backbone, or does not suit the objective.

    Example:
        >>> method = ConSERT(Encoder.from_pretrained("bundled"), second_view="token_cutoff:0.15")
        >>> batch = method.collator()([{"text": "A cat sleeps."}, {"text": "It rains."}])
        >>> method(**batch)["loss"].shape
        torch.Size([])
    """

    name = "consert"
    family = "negatives"
    needs = "sentences, or labelled pairs"
    paper = (
        "Yan, Li, Wang, Zhang, Wu and Xu (2021). ConSERT: A Contrastive Framework for Self-Supervised Sentence "
        "Representation Transfer. ACL. arXiv 2105.11741"
    )
    without_parts = "Take --objective unsupervised."

    option_needs = {  # noqa: RUF012
        **dict.fromkeys(
            ("first_view", "second_view", "temperature", "contrastive_weight", "mask_duplicates"), _CONTRASTIVE
        ),
        "classes": ("objective=supervised", "objective=joint"),
        "noise_norm": (f"second_view={ADVERSARIAL}",),
    }

    @checked
    def __init__(
        self,
        encoder: Encoder,
        first_view: str = "feature_cutoff:0.2",
        second_view: str = "shuffle",
        temperature: Positive = 0.1,
        objective: Literal["unsupervised", "supervised", "joint"] = "unsupervised",
        contrastive_weight: NotNegative = 0.15,
        classes: TwoOrMore = 3,
        noise_norm: NotNegative = 1.0,
        dropout_in_training: bool = True,
        mask_duplicates: bool = False,
    ) -> None:
        super().__init__(encoder)
        if objective not in ("unsupervised", "supervised", "joint"):
            raise InputError(f"ConSERT's objective must be unsupervised, supervised or joint, not {objective!r}.")
        if objective == "unsupervised" and contrastive_weight == 0:
            raise InputError("Without labels ConSERT has only its contrastive term; raise contrastive_weight above 0.")
        self.adversarial = second_view == ADVERSARIAL
        if self.adversarial and objective != "joint":
            raise InputError("The adversarial view increases the supervised term, so it needs objective=joint.")
        self.views = encoder.prepare_views(first_view, "plain" if self.adversarial else second_view)
        self.objective_name = objective
        self.takes_labels = objective != "unsupervised"
        self.takes_views = not self.takes_labels
        self.contrastive_weight = contrastive_weight
        self.noise_norm = noise_norm
        self.dropout_in_training = dropout_in_training
        self.info_nce = InfoNCE(temperature, topology="nt_xent", mask_duplicates=mask_duplicates)
        supervised = objective != "unsupervised"
        self.classifier = Linear(4 * encoder.dimension, classes).to(encoder.device) if supervised else None

    def prepare_corpus(self, dataset: Any) -> Any:
        """Checks the labels, if the objective needs them."""
        if self.classifier is None:
            return dataset
        dataset, classes = whole_corpus(dataset, "ConSERT's supervised term"), self.classifier.out_features
        for column in ("positive", "label"):
            if column not in dataset.column_names:
                raise InputError(
                    f"ConSERT's supervised term needs a column {column!r}; the rows have {dataset.column_names}. Name "
                    "two text columns with --column and the labels with --label-column."
                )
        if (largest := max(dataset["label"])) >= classes:
            raise InputError(
                f"The labels go from 0 to {largest}, and ConSERT has {classes} classes; set --classes to {largest + 1}."
            )
        return dataset

    @property
    def blocks(self) -> list[Block]:
        """The blocks of a batch, in order: each is a column of the dataset and its view."""
        views: list[Block] = [("text", view) for view in self.views]
        if self.classifier is None:
            return views
        plain: list[Block] = [("text", PLAIN), ("positive", PLAIN)]
        contrasted = views + [("positive", view) for view in self.views]
        return plain + (contrasted if self.objective_name == "joint" else [])

    def collator(self, seed: int = 42) -> Collator:
        collator = super().collator(seed)
        collator.dropout_views &= self.dropout_in_training
        if self.classifier is not None:
            collator.blocks = self.blocks
            collator.needs_labels = True
        return collator

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder.embed(
            batch,
            views=[view for _, view in self.blocks],
            dropout=self.dropout_in_training,
            perturbation=self._perturbation(batch) if self.adversarial else None,
        )

    def objective(self, embeddings: Tensor, batch: Batch) -> Outputs:
        parts = embeddings.chunk(len(self.blocks))
        ids = batch["text_id"].chunk(len(self.blocks))
        loss = embeddings.new_zeros(())
        outputs: Outputs = {}
        if self.classifier is not None:
            supervised = self._supervised(parts[0], parts[1], batch["label"])
            loss, parts, ids = loss + supervised, parts[2:], ids[2:]
            outputs["supervised"] = supervised.detach()
        if self.objective_name != "supervised":
            pairs = zip(parts[::2], parts[1::2], ids[::2], strict=True)
            contrastive = sum(
                (2 * self.info_nce(first, second, text_id=id) for first, second, id in pairs), start=loss.new_zeros(())
            )
            loss = loss + self.contrastive_weight * contrastive
            outputs["contrastive"] = contrastive.detach()
        return {"loss": loss, **outputs}

    def _supervised(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        assert self.classifier is not None
        features = torch.cat([first, second, (first - second).abs(), torch.maximum(first, second) ** 2], dim=1)
        return mean(classification(self.classifier(features), labels), len(labels))

    def _perturbation(self, batch: Batch) -> Tensor:
        """The perturbation of each row's token embeddings, (rows, length, dim of the word embeddings).

        Adversarial rows get the gradient of the supervised term with respect to the output of the embedding block,
        scaled to `noise_norm`; other rows get 0.
        """
        rows, length = batch["input_ids"].shape
        perturbation = torch.zeros(rows, length, self.encoder.word_embeddings.embedding_dim, device=self.encoder.device)
        views = where_views_are(batch)
        plain = slice(0, views[1].stop)
        moved = perturbation[plain].requires_grad_()
        read: dict[str, Any] = {name: values for name, values in batch.items() if name != "label"}
        tokens = cast(Batch, {name: values[plain] for name, values in read.items()})
        with torch.enable_grad():
            first, second = self.encoder.embed(tokens, dropout=self.dropout_in_training, perturbation=moved).chunk(2)
            (gradient,) = torch.autograd.grad(self._supervised(first, second, batch["label"]), moved)
        noise = self.noise_norm * nn.functional.normalize(gradient, dim=2)
        perturbation[views[3]], perturbation[views[5]] = noise.chunk(2)
        return perturbation
