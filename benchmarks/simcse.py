"""The same SimCSE training run with textcl and with sentence-transformers."""

import os
import tempfile
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers import AutoConfig
from transformers.utils import is_flash_attn_2_available

from benchmarks.measure import EQUAL, Row, now, peak_above
from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder, SimCSE
from textcl.dropout import is_dropout_rate

TEMPERATURE = 0.05


@dataclass(frozen=True)
class Job:
    """A training run for both sides: `steps` steps of AdamW, each text encoded twice, in-batch cross-entropy.

    Attributes:
        model: The directory of the encoder.
        texts: The texts, at least `batch`; with `batch` · `steps` texts each is seen once.
        batch: The number of texts per step and device.
        steps: The number of optimizer steps.
        length: The maximal length of a text in tokens.
        bf16: Use autocast to bfloat16; weights are float32.
        cached: Use a gradient cache.
        compiled: textcl compiles the layers of the encoder.
        graphs: textcl records steps as CUDA graphs.
        warm_up: The number of steps that are not timed.
        dropout: False: there is no dropout, and the positive of a text is the next text. So the losses are not near
            zero, and must be equal on both sides.
        log: Log the loss of each step, which costs time.
    """

    model: str
    texts: list[str] = field(repr=False)
    batch: int
    steps: int
    length: int = 32
    bf16: bool = False
    cached: bool = False
    compiled: bool = False
    graphs: bool = False
    warm_up: int = 2
    dropout: bool = True
    log: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The training arguments of both trainers."""
        return {
            "per_device_train_batch_size": self.batch,
            "max_steps": self.steps,
            "learning_rate": 1e-5,
            "bf16": self.bf16,
            "logging_steps": 1 if self.log else self.steps,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }

    @property
    def positives(self) -> list[str]:
        return self.texts if self.dropout else [*self.texts[1:], self.texts[0]]


class Clock(transformers.TrainerCallback):
    """Measures the time from the end of the warm-up to the end of the last step, with collating; keeps the losses."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.marks: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (self.warm_up, state.max_steps):
            self.marks.append(now())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def step_seconds(self, job: Job) -> float:
        return (self.marks[-1] - self.marks[0]) / (job.steps - job.warm_up)


def textcl_side(job: Job) -> tuple[Clock, int]:
    """Trains with textcl; returns the clock and the peak memory above the loaded model, in bytes."""
    clock = Clock(job.warm_up)
    transformers.set_seed(0)
    method = SimCSE(
        Encoder.from_pretrained(job.model, max_length=job.length, dropout=None if job.dropout else 0.0),
        temperature=TEMPERATURE,
        head="none",
        mask_duplicates=False,  # as the peer
    )
    columns = {"text": job.texts} if job.dropout else {"text": job.texts, "positive": job.positives}
    with tempfile.TemporaryDirectory() as output:
        args = ContrastiveTrainingArguments(
            output,
            gradient_cache=job.cached,
            compile_layers=job.compiled,
            cuda_graphs=job.graphs,
            **job.arguments,
        )
        trainer = ContrastiveTrainer(method, args, Dataset.from_dict(columns), callbacks=[clock])
        trainer.remove_callback(transformers.PrinterCallback)
        return clock, peak_above(trainer.train)


def peer_side(job: Job) -> tuple[Clock, int]:
    """Trains with sentence-transformers; returns the same as `textcl_side`."""
    clock = Clock(job.warm_up)
    transformers.set_seed(0)
    encoder = load_peer(job.model, job.length, dropout=job.dropout)
    pairs = Dataset.from_dict({"anchor": job.texts, "positive": job.positives})
    kind = CachedMultipleNegativesRankingLoss if job.cached else MultipleNegativesRankingLoss
    # textcl always gathers across ranks, so the peer must too
    gather = int(os.environ.get("WORLD_SIZE", "1")) > 1
    loss = kind(encoder, scale=1 / TEMPERATURE, gather_across_devices=gather)
    with tempfile.TemporaryDirectory() as output:
        use_cpu = not torch.cuda.is_available()
        args = SentenceTransformerTrainingArguments(output, use_cpu=use_cpu, **job.arguments)
        trainer = SentenceTransformerTrainer(encoder, args, train_dataset=pairs, loss=loss, callbacks=[clock])
        trainer.remove_callback(transformers.PrinterCallback)
        return clock, peak_above(trainer.train)


SIDES = {"textcl": textcl_side, "sentence-transformers": peer_side}


def measured(side: str, job: Job) -> tuple[float, int]:
    """Seconds of a step, and bytes. Call it in a new process, because textcl's memory settings affect the peer too."""
    clock, peak = SIDES[side](job)
    return clock.step_seconds(job), peak


def has_flash_attention() -> bool:
    """Whether sentence-transformers can avoid padding, which needs a GPU and flash-attention."""
    return torch.cuda.is_available() and is_flash_attn_2_available()


def load_peer(model: str, length: int, *, dropout: bool = True, bf16: bool = False) -> SentenceTransformer:
    """The model, loaded by sentence-transformers, with a maximal length of `length` tokens."""
    config = AutoConfig.from_pretrained(model)
    rates = {} if dropout else {name: 0.0 for name, value in config.to_dict().items() if is_dropout_rate(name, value)}
    weights: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32}
    if has_flash_attention():
        weights["attn_implementation"] = "flash_attention_2"
    encoder = SentenceTransformer(model, config_kwargs=rates, model_kwargs=weights)
    encoder.max_seq_length = length
    return encoder


def without_dropout(job: Job) -> Job:
    """One batch, three times, without dropout: the losses of both sides must be equal for any order of its rows."""
    return replace(job, texts=job.texts[: job.batch], steps=3, dropout=False, log=True)


def equal_losses(name: str, job: Job) -> Row:
    """The loss after three steps without dropout, on both sides."""
    losses = [side(without_dropout(job))[0].losses for side in SIDES.values()]
    notes = f"one batch, three steps, no dropout: textcl {_listed(losses[0])}; peer {_listed(losses[1])}"
    return Row(name, losses[0][-1], losses[1][-1], "loss", 1, EQUAL, notes)


def same_by_graphs(name: str, job: Job) -> Row:
    """The last loss of a run with CUDA graphs and of a run without, both textcl, which draw the same dropout masks."""
    losses = [textcl_side(replace(job, log=True, graphs=graphs))[0].losses for graphs in (True, False)]
    equal = sum(ours == theirs for ours, theirs in zip(*losses, strict=True))
    notes = f"textcl with and without CUDA graphs; {equal} of {len(losses[0])} losses are equal bit for bit"
    return Row(name, losses[0][-1], losses[1][-1], "loss", 1, EQUAL, notes)


def trajectories(name: str, job: Job) -> Row:
    """The mean loss of a run with dropout, and all losses. The dropout masks of the two sides differ."""
    losses = [side(replace(job, log=True))[0].losses for side in SIDES.values()]
    means = [sum(each) / len(each) for each in losses]
    return Row(
        name, *means, "loss", 1, "near 1", f"step by step: textcl {_listed(losses[0])}; peer {_listed(losses[1])}"
    )


def _listed(losses: list[float]) -> str:
    return " ".join(f"{loss:.4f}" for loss in losses)
