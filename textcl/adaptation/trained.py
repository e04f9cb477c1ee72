"""One trained candidate: what it is trained on, which layers and at which rate; its training; its weights on disk."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, set_seed

from textcl.adaptation.rows import Rows
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import atomic_write
from textcl.methods import SimCSE
from textcl.runs.clusters import train_for_clusters
from textcl.seals import agrees, read_sealed, seal, write_sealed
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

TEMPERATURE = 0.05
WARM_UP = 0.1  # of the steps
LENGTH = 128  # tokens after which texts are cut in training
WEIGHTS, SEAL = "trained.safetensors", "trained.json"

Kind = Literal["pairs", "crops", "halves", "hard negatives", "SCCL"]
Layers = Literal["last two layers", "all layers"]


@dataclass(frozen=True)
class Candidate:
    """A way of training.

    Attributes:
        kind: The rows that are trained on, or SCCL.
        layers: The layers that are trained.
        rate: The peak learning rate.

    Example:
        >>> Candidate("crops", "last two layers", 2e-5).name
        'last two layers, crops, 2e-5'
    """

    kind: Kind
    layers: Layers
    rate: float

    @property
    def name(self) -> str:
        return f"{self.layers}, {self.kind}, {self.rate:.0e}".replace("e-0", "e-")


_ROWS: tuple[Kind, ...] = ("pairs", "crops", "halves")
_LAYERS: tuple[Layers, ...] = ("last two layers", "all layers")
CANDIDATES = (
    Candidate("SCCL", "all layers", 5e-5),
    *(Candidate(kind, "last two layers", rate) for rate in (2e-5, 1e-5) for kind in _ROWS),
    Candidate("hard negatives", "last two layers", 2e-5),
    *(Candidate(kind, "all layers", rate) for rate in (2e-5, 1e-5) for kind in _ROWS),
)
"""All candidates, in the order in which they are planned. SCCL, for clusters alone, helps them most."""


def train(
    encoder: Encoder,
    candidate: Candidate,
    rows: Rows,
    steps: int,
    run: Path,
    *,
    clusters: int | None = None,
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
) -> Encoder:
    """A trained copy of an encoder.

    InfoNCE with temperature 0.05 (see `textcl.SimCSE` on pairs and triplets, without its head), AdamW, the rate warms
    up over a tenth of the steps and falls to 0. Pooling and prompts are those of the encoder; texts are cut at 128
    tokens. SCCL: see `textcl.runs.clusters.train_for_clusters`.

    Args:
        encoder: The encoder; it is not changed.
        candidate: The way of training.
        rows: The rows of all steps, in order.
        steps: The number of steps.
        run: A folder for the log of training; what is in it is removed.
        clusters: The number of clusters for SCCL.
        seed: The seed of dropout.
        callbacks: Further callbacks of the trainer; SCCL does not take any.

    Raises:
        InputError: The loss is not finite, or the backbone has no list of layers.
    """
    shutil.rmtree(run, ignore_errors=True)
    trained = copy.deepcopy(encoder)
    short = trained.with_(max_length=min(LENGTH, encoder.max_length))  # has the same weights
    if candidate.kind == "SCCL":
        texts = rows.columns["text"]
        train_for_clusters(
            short, texts, clusters, run=run, steps=steps, batch_size=4 * rows.batch, learning_rate=candidate.rate,
            seed=seed,
        )  # fmt: skip
        return trained.eval()
    if candidate.layers == "last two layers":
        trained.requires_grad_(False)
        for block in blocks(trained)[-2:]:
            block.requires_grad_(True)
    args = ContrastiveTrainingArguments(
        str(run),
        max_steps=steps,
        per_device_train_batch_size=rows.batch,
        learning_rate=candidate.rate,
        warmup_steps=max(1, round(WARM_UP * steps)),
        train_sampling_strategy="sequential",
        save_strategy="no",
        seed=seed,
    )
    set_seed(seed)
    method = SimCSE(short, temperature=TEMPERATURE, head="none")
    ContrastiveTrainer(method, args, rows, callbacks=list(callbacks)).train()
    return trained.eval()


def blocks(encoder: Encoder) -> nn.ModuleList:
    """The layers of a backbone, the last one last.

    Raises:
        InputError: The backbone has no such list.
    """
    count = encoder.backbone.config.num_hidden_layers
    for module in encoder.backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"{encoder.name} has no list of layers, so its last two layers cannot be trained alone.")


def trained_once(
    encoder: Encoder,
    candidate: Candidate,
    rows: Callable[[], Rows],
    steps: int,
    folder: Path,
    *,
    clusters: int | None = None,
    seed: int = 0,
) -> tuple[Encoder, float]:
    """The trained copy, and the seconds that training took. After a kill it is read from its folder.

    Args:
        encoder: The encoder; it is not changed.
        candidate: See `train`, like the other arguments.
        rows: Makes the rows.
        steps: The number of steps.
        folder: The folder of this candidate, which nothing else uses.
        clusters: The number of clusters for SCCL.
        seed: The seed of dropout.
    """
    if (kept := read_trained(encoder, folder)) is not None:
        return kept
    begin = time.perf_counter()
    trained = train(encoder, candidate, rows(), steps, folder / "run", clusters=clusters, seed=seed)
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder / "run", ignore_errors=True)
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file({name: value.cpu().clone() for name, value in trained.state_dict().items()}, temporary)
    write_sealed(folder / SEAL, {"seconds": seconds, "files": seal(folder, [WEIGHTS])})
    return trained, seconds


def read_trained(encoder: Encoder, folder: Path) -> tuple[Encoder, float] | None:
    """What `trained_once` kept in a folder; None if there is nothing, or it is damaged."""
    if not agrees(folder / SEAL):
        return None
    trained = copy.deepcopy(encoder)
    trained.load_state_dict(load_file(folder / WEIGHTS))
    return trained, float(read_sealed(folder / SEAL)["seconds"])
