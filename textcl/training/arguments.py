"""Training arguments: those of transformers, with defaults that suit contrastive training."""

import os
import sys
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from textcl.device import has_bf16
from textcl.errors import InputError


@dataclass
class ContrastiveTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with other defaults, and further fields.

    Defaults that differ: rows reach the collator with all their columns, the last incomplete batch is dropped (its rows
    would have fewer negatives), bfloat16 autocast where the machine has it (weights stay float32), processes that
    tokenise ahead of a GPU, unsupervised SimCSE's learning rate and batch size, two checkpoints kept, bars only on a
    terminal.

    A mean is one of its micro-batch: gradient accumulation does not add negatives.

    Example:
        >>> ContrastiveTrainingArguments("runs/simcse", learning_rate=1e-4).dataloader_drop_last
        True
    """

    bf16: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "bfloat16 autocast; by default where the machine computes in it natively."}
    )
    dataloader_num_workers: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Processes that tokenise ahead; by default up to 4 for a GPU, and none without."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Drop columns that forward does not name; the collator needs them."}
    )
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last incomplete batch."})
    learning_rate: float = field(default=3e-5, metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Rows a device takes at a time."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the corpus."})
    logging_steps: float = field(default=50, metadata={"help": "Log every so many steps."})
    eval_steps: float | None = field(default=125, metadata={"help": "Run the evaluators every so many steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, at least 2."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Look for parameters outside the graph; methods have none."}
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A loss that is not finite stops the run."})
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "No bars; by default where there is no terminal."}
    )
    learning_rate_pieces: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Learning rates from a step on, such as '500:8e-6 1000:6e-6'; before the first, learning_rate. "
            "They replace the scheduler."
        },
    )
    gradient_cache: bool = field(
        default=False,
        metadata={
            "help": "Keep embeddings alone and compute activations again in backward, so that the memory of a batch "
            "is that of a slice; the same gradients, for one more forward pass."
        },
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows and columns of a tile of the similarity matrix: memory grows with the batch, not with its "
            "square; by default tiles are used from 4,096 x 4,096 scores on."
        },
    )
    compile_layers: bool = field(
        default=False,
        metadata={
            "help": "Compile the layers of the encoder: a GPU does a step in a fifth less after the first, which takes "
            "10 to 20 seconds longer."
        },
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many evaluations without a better score; 0: never."}
    )
    target_score: float | None = field(
        default=None, metadata={"help": "Stop once the first evaluator's score reaches it."}
    )
    select_best: bool = field(
        default=True, metadata={"help": "End with the weights that scored best on the first evaluator."}
    )

    def piece_at(self, step: int) -> float:
        """The share of `learning_rate` that `learning_rate_pieces` say for a step."""
        begun = [rate for start, rate in self._pieces if start <= step]
        return begun[-1] / self.learning_rate if begun else 1.0

    def __post_init__(self) -> None:
        try:
            self._pieces = sorted(
                (int(start), float(rate)) for start, rate in (p.split(":") for p in self.learning_rate_pieces)
            )
        except ValueError as error:
            raise InputError(
                f"learning_rate_pieces are steps and rates, such as 500:8e-6, not "
                f"{' '.join(self.learning_rate_pieces)}."
            ) from error
        if self.chunk_size is not None and self.chunk_size < 1:
            raise InputError(f"chunk_size must be 1 or more, or be left out; it is {self.chunk_size}.")
        if not torch.cuda.is_available() and not torch.backends.mps.is_available():
            self.use_cpu = True  # transformers takes bfloat16 on a processor only when told to use it
        if self.bf16 is None:
            self.bf16 = not self.fp16 and has_bf16()
        if self.dataloader_num_workers is None:
            self.dataloader_num_workers = min(4, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
        if self.accelerator_config is None and torch.cuda.is_available() and self.dataloader_pin_memory:
            self.accelerator_config = {"non_blocking": True}  # a batch is copied while the GPU computes
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        if self.save_total_limit is not None:
            # The oldest goes before the newest is marked complete: with one, a kill in between would leave none.
            self.save_total_limit = max(2, self.save_total_limit)
        super().__post_init__()
