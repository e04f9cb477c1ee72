"""What keeps objectives from collapse, on a toy encoder; and the trainer's warning where nothing does."""

import copy
import logging

import pytest
import torch
import transformers
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory
from torch import nn

from textcl.encoder import Encoder
from textcl.losses.redundancy import barlow_twins, vicreg
from textcl.losses.regression import cosine_regression
from textcl.losses.swapped_prediction import sinkhorn, swapped_prediction
from textcl.methods import BYOL, SwAV, VICReg
from textcl.metrics.geometry import effective_rank, mean_cosine
from textcl.modules import InfoNCE
from textcl.modules.heads import mlp
from textcl.modules.prototypes import Prototypes
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

CLUSTERS, DIMENSION, ROWS = 12, 32, 96


def points(step):
    """Rows of clustered points, and two noisy views of each."""
    centres = torch.randn(CLUSTERS, DIMENSION, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + step)
    rows = centres[torch.randint(CLUSTERS, (ROWS,), generator=generator)]
    rows = rows + 0.5 * torch.randn(ROWS, DIMENSION, generator=generator)
    return rows, *(rows + 0.3 * torch.randn(2, ROWS, DIMENSION, generator=generator))


class Toy(nn.Module):
    """A linear encoder and a projector, whose embeddings, as those of a language model, lie in a narrow cone at first.

    Attributes:
        cone: How far from the origin they lie: 2 makes a mean cosine of 0.97.
    """

    cone = 2.0

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(DIMENSION, DIMENSION)
        self.projector = mlp([DIMENSION, 64, DIMENSION])
        with torch.no_grad():
            self.projector[-1].bias.add_(self.cone)

    def forward(self, rows):
        return self.projector(self.encoder(rows))


class Simclr(Toy):
    def loss(self, first, second):
        return InfoNCE(0.5, topology="nt_xent")(self(first), self(second))


class Byol(Toy):
    def __init__(self, asymmetric=True):
        super().__init__()
        self.predictor = mlp([DIMENSION, 64, DIMENSION], last="no_bias") if asymmetric else nn.Identity()
        self.target = copy.deepcopy(nn.ModuleList([self.encoder, self.projector])).requires_grad_(False)
        self.asymmetric = asymmetric

    def loss(self, first, second):
        first, second, targets = self(first), self(second), [self.of_target(view) for view in (first, second)]
        targets = targets if self.asymmetric else (first, second)
        loss = cosine_regression(self.predictor(first), targets[1]) + cosine_regression(
            self.predictor(second), targets[0]
        )
        return loss / ROWS

    def of_target(self, rows):
        return self.target[1](self.target[0](rows))

    @torch.no_grad()
    def after_step(self):
        originals = [*self.encoder.parameters(), *self.projector.parameters()]
        for own, other in zip(self.target.parameters(), originals, strict=True):
            own.lerp_(other, 0.05)


class Simsiam(Toy):
    def __init__(self, stop_gradient=True):
        super().__init__()
        self.predictor = mlp([DIMENSION, 8, DIMENSION])
        self.stop_gradient = stop_gradient

    def loss(self, first, second):
        first, second = self(first), self(second)
        targets = (first.detach(), second.detach()) if self.stop_gradient else (first, second)
        loss = cosine_regression(self.predictor(first), targets[1]) + cosine_regression(
            self.predictor(second), targets[0]
        )
        return loss / ROWS


class Barlow(Toy):
    def loss(self, first, second):
        return barlow_twins(self(first), self(second)) / DIMENSION


class Vicreg(Toy):
    def __init__(self, variance_weight=25.0):
        super().__init__()
        self.variance_weight = variance_weight

    def loss(self, first, second):
        invariance, variance, covariance = vicreg(self(first), self(second))
        return 25 * invariance + self.variance_weight * variance + covariance


class Swav(Toy):
    cone = 3.0  # from wider ones the control may fall to two or three prototypes instead of one

    def __init__(self, equipartition=True):
        super().__init__()
        self.prototypes = Prototypes(16, DIMENSION)
        self.equipartition = equipartition

    def loss(self, first, second):
        scores = [self.prototypes(self(view)) for view in (first, second)]
        codes = [sinkhorn(s) if self.equipartition else (s.detach() / 0.05).softmax(1) for s in scores]
        return (swapped_prediction(codes[0], scores[1]) + swapped_prediction(codes[1], scores[0])) / 2 / ROWS

    def after_step(self):
        self.prototypes.normalize()


def trained(kind, **options):
    """Effective rank and mean cosine of fresh points' projections after 300 steps."""
    torch.manual_seed(0)
    toy = kind(**options)
    optimizer = torch.optim.Adam([p for p in toy.parameters() if p.requires_grad], lr=0.03)
    for step in range(300):
        _, first, second = points(step)
        toy.loss(first, second).backward()
        optimizer.step()
        optimizer.zero_grad()
        if hasattr(toy, "after_step"):
            toy.after_step()
    with torch.no_grad():
        embeddings = toy(points(-1)[0])
    return effective_rank(embeddings).item(), mean_cosine(embeddings).item()


@pytest.mark.parametrize("kind", [Simclr, Byol, Simsiam, Barlow, Vicreg, Swav])
def test_an_objective_does_not_collapse(kind):
    rank, cosine = trained(kind)
    assert rank > 0.15 * DIMENSION
    assert cosine < 0.95


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Byol, {"asymmetric": False}),
        (Simsiam, {"stop_gradient": False}),
        (Vicreg, {"variance_weight": 0.0}),
        (Swav, {"equipartition": False}),
    ],
)
def test_without_what_keeps_it_up_it_collapses(kind, options):
    rank, cosine = trained(kind, **options)
    assert rank < 0.05 * DIMENSION or cosine > 0.99


KINDS = {
    "byol": (BYOL, {"projection_dimension": 16, "hidden_dimension": 32}, {"asymmetric": False}),
    "vicreg": (VICReg, {"projection_dimension": 16}, {"variance_weight": 0.0}),
}


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_the_trainer_warns_of_a_collapse(tmp_path, caplog, name, control):
    kind, options, without = KINDS[name]
    transformers.set_seed(0)
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "bert"), device="cpu")
    method = kind(encoder, **options, **(without if control else {}))
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=16,
        learning_rate=2e-2,  # at 3e-2 the healthy encoder is near divergence itself
        max_steps=90,
        logging_steps=30,
        seed=0,
    )
    with caplog.at_level(logging.WARNING, "textcl"):
        trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": TEXTS}))
        trainer.train()
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert (max(last["projection_cosine"], 1 - last.get("deviation", 1)) > 0.95) == control
    assert ("The projections are collapsing" in caplog.text) == control
    if name == "byol":
        assert "The embeddings" not in caplog.text, "the projector hides it from them"


@pytest.mark.parametrize("equipartition", [True, False])
def test_all_texts_on_one_prototype_show_in_what_is_watched(tmp_path, equipartition):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "bert"), device="cpu")
    method = SwAV(
        encoder, projection_dimension=16, hidden_dimension=32, prototypes=2, epsilon=0.02, equipartition=equipartition
    )
    batch = method.collator()([{"text": text} for text in TEXTS[:16]])
    with torch.no_grad():
        method.projector[-1].bias.add_(2.0)  # a narrow cone, on whose axis one prototype lies
        axis = nn.functional.normalize(method.projector(method.embed(batch)).mean(dim=0), dim=0)
        method.prototypes.unit_norm.copy_(torch.stack([axis, -axis]))
        watched = method.objective(method.embed(batch), batch)["projections"]
    assert (mean_cosine(watched) > 0.99) != equipartition
