"""Training arguments: those of transformers, with defaults that suit contrastive training."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from textcl.device import bf16_if_there, has_bf16
from textcl.encoder import Encoder
from textcl.encoder.graphs import Graphs
from textcl.errors import InputError
from textcl.methods import Method
from textcl.modules import InfoNCE
from textcl.ranges import Range
from textcl.texts import described
from textcl.training.checks import RANGES, check_mappings, check_meaning, dashed

_STEP = Range(at_least=0, whole=True)


@dataclass
class ContrastiveTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with other defaults, and further fields.

    Defaults that differ: rows reach the collator with all their columns; the last incomplete batch is dropped, because
    its rows would have fewer negatives; bfloat16 autocast if the hardware supports it (weights stay float32);
    processes that tokenise ahead of a GPU; the learning rate and batch size of unsupervised SimCSE; two checkpoints
    are kept; the progress is one line.

    A mean is over one micro-batch: gradient accumulation does not add negatives.

    Example:
        >>> ContrastiveTrainingArguments("runs/simcse", learning_rate=1e-4).dataloader_drop_last
        True
    """

    bf16: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "bfloat16 autocast, where the hardware has bfloat16 (default: on)."}
    )
    dataloader_num_workers: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Processes that tokenise ahead (default: up to 4 with a GPU, otherwise 0)."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns that forward does not name. The collator needs them."}
    )
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last incomplete batch."})
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Rows in a batch on each device."})
    seed: int = field(
        default=42, metadata={"help": "Random seed of new weights, the order of rows, dropout and views."}
    )
    max_steps: int = field(default=-1, metadata={"help": "Optimizer steps in all; -1: --num-train-epochs decides."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the corpus."})
    logging_steps: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Steps between two entries of the log (default: a twentieth of the run)."}
    )
    eval_steps: float | None = field(default=125, metadata={"help": "Steps between two evaluations."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints are kept, at least 2."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters outside the graph. Methods have none."}
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Hide losses that are not finite from the log. If false, such a loss stops the run."},
    )
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "Show no progress, neither a line on a terminal nor one every 15 seconds."}
    )
    learning_rate_pieces: list[str] = field(
        default_factory=list,
        metadata={
            "help": "STEP:RATE ..., the learning rate from a step on, such as 500:8e-6 1000:6e-6. Before the first "
            "step named, it is --learning-rate. The pieces replace the scheduler."
        },
    )
    gradient_cache: bool = field(
        default=False,
        metadata={
            "help": "Save memory: recompute activations in backward, slice by slice. A batch then needs the memory of "
            "one slice. Gradients are the same, for one more forward pass."
        },
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Compute the similarity matrix in tiles of this many rows and columns. Memory then grows linearly "
            "with the batch size (default: tiles from 4,096 x 4,096 scores on)."
        },
    )
    compile_layers: bool = field(
        default=False,
        metadata={
            "help": "Compile the layers of the encoder. A step needs about 20 % less GPU time, which helps only if the "
            "GPU is the bottleneck; the first step takes 10 to 20 seconds longer."
        },
    )
    cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "Record the steps of short texts on a GPU as CUDA graphs and repeat them, which saves launching "
            "each operation. Not run on a GPU yet. For one process; on a CPU it changes nothing."
        },
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after this many evaluations without a better score; 0: never."}
    )
    target_score: float | None = field(
        default=None, metadata={"help": "Stop when the first evaluator reaches this score."}
    )
    select_best: bool = field(
        default=True,
        metadata={"help": "Keep the weights with the best score of the first evaluator, not the last ones."},
    )

    def piece_at(self, step: int) -> float:
        """The learning rate of a step by `learning_rate_pieces`, divided by `learning_rate`."""
        begun = [rate for start, rate in self._pieces if start <= step]
        return begun[-1] / self.learning_rate if begun else 1.0

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            if (value := getattr(self, name)) is not None:
                allowed.check(name, value)
        check_meaning(self)
        check_mappings(self)
        try:
            pieces = [piece.split(":") for piece in self.learning_rate_pieces]
            self._pieces = sorted((_STEP.read(start), RANGES["learning_rate"].read(rate)) for start, rate in pieces)
        except ValueError as error:
            raise InputError(
                f"learning_rate_pieces are steps of at least 0 and finite rates above 0, such as 500:8e-6, not "
                f"{' '.join(self.learning_rate_pieces)}."
            ) from error
        if not torch.cuda.is_available() and not torch.backends.mps.is_available():
            self.use_cpu = True  # transformers takes bfloat16 on a CPU only when told to use it
        if self.bf16 is None:
            self.bf16 = not self.fp16 and has_bf16()
        self.bf16 = bf16_if_there(self.bf16)  # torch would emulate it without a word, forty times slower
        if self.dataloader_num_workers is None:
            self.dataloader_num_workers = min(4, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
        if self.accelerator_config is None and torch.cuda.is_available() and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # a batch is copied while the GPU computes
        # `ProgressCallback` sets the steps, once their number is known
        self.logs_by_length = self.logging_steps is None
        if self.logging_steps is None:
            self.logging_steps = 50
        self.shows_no_progress = bool(self.disable_tqdm)
        self.disable_tqdm = True  # `ProgressCallback` takes the place of transformers' bars
        if self.save_total_limit is not None:
            # The oldest is removed before the newest is marked complete: with one, a kill in between would leave none.
            self.save_total_limit = max(2, self.save_total_limit)
        try:
            super().__post_init__()
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            # flags that cannot be combined, unknown settings of accelerate, missing packages
            raise InputError(dashed(str(error))) from error


def prepare_method(method: Method, args: ContrastiveTrainingArguments) -> None:
    """Changes how a method computes, in place, as the arguments say; what it computes stays the same."""
    if args.gradient_cache:
        method.gradient_cache_enable()
    if args.compile_layers:
        method.compile_layers()
    for module in method.modules():
        if isinstance(module, Encoder) and args.cuda_graphs and args.device.type == "cuda":
            module.slicing.graphs = Graphs()
        if isinstance(module, InfoNCE) and args.chunk_size is not None:
            module.chunk_size = args.chunk_size


def check_kinds(method: Any, args: Any, evaluators: Any) -> None:
    """Raises `InputError` if an argument of the trainer is of another kind."""
    if not isinstance(method, Method):
        raise InputError(f"model must be a method, such as textcl.SimCSE(encoder), not {described(method)}.")
    if not isinstance(args, ContrastiveTrainingArguments):
        raise InputError(f"args must be ContrastiveTrainingArguments, not {described(args)}.")
    if not isinstance(evaluators, (list, tuple)):
        raise InputError(f"evaluators must be a list of evaluators, not {described(evaluators)}.")
    for each in evaluators:
        if not callable(each) or not isinstance(getattr(each, "name", None), str):
            raise InputError(f"An evaluator must be callable and have a name, and {described(each)} is not one.")


UNREAD = {
    "eval_dataset": "scores come from evaluators, see textcl.evaluation",
    "compute_metrics": "scores come from evaluators, see textcl.evaluation",
    "preprocess_logits_for_metrics": "scores come from evaluators, see textcl.evaluation",
    "compute_loss_func": "the loss is the method's `objective`",
    "model_init": "model is the method",
}
"""Options of transformers' trainer that `ContrastiveTrainer` would not read, and why."""


def check_options(options: dict[str, Any]) -> None:
    """Takes the options that would change nothing out of `options`; raises `InputError` if one of them has a value."""
    for name, reason in UNREAD.items():
        if options.pop(name, None) is not None:
            raise InputError(f"There is no {name}: {reason}.")
