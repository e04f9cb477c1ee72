"""A callback for any `transformers.Trainer` that calls the hooks of methods and marks checkpoints as complete."""

import os
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from textcl.device import SteadyMemory
from textcl.errors import InputError
from textcl.files import write_json
from textcl.methods import Method
from textcl.methods.method import Outputs
from textcl.modules import InfoNCE

COMPLETE = "complete.json"


class MethodCallback(TrainerCallback):
    """Calls the hooks of a `Method` in the training loop.

    Example:
        >>> transformers.Trainer(model=method, args=args, data_collator=method.collator(), train_dataset=texts,
        ...                      callbacks=[textcl.MethodCallback()])
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []  # the keys of all micro-batches since the last optimizer step
        self._handle: RemovableHandle | None = None
        self._learned: list[InfoNCE] = []
        self._memory = SteadyMemory()

    def _collect(self, method: Method, inputs: Any, outputs: Outputs) -> None:
        if method.training and "keys" in outputs:
            self._keys.append(outputs["keys"])

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true" or is_deepspeed_zero3_enabled():
            raise InputError(
                "textcl trains a whole copy of the model on each GPU (DistributedDataParallel). With FSDP or ZeRO-3 "
                "each GPU has only a shard, and a momentum encoder would average the wrong weights: turn them off."
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        method: Method = kwargs["model"]
        method.hooked = True
        self.on_train_end(args, state, control)  # removes the hook of an interrupted run
        self._keys.clear()
        self._handle = method.register_forward_hook(self._collect)
        self._learned = method.learned_temperatures
        if state.global_step == 0:
            method.on_fit_start(kwargs["train_dataloader"].dataset, args.train_batch_size * args.world_size)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # epoch is a float computed from the steps done; a rounding error may put it just below the whole number
        kwargs["train_dataloader"].collate_fn.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        kwargs["model"].before_optimizer_step(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not getattr(kwargs["optimizer"], "step_was_skipped", False):  # a bare torch optimizer never skips
            kwargs["model"].after_optimizer_step(state.global_step, state.max_steps, self._keys)
            for module in self._learned:
                module.after_optimizer_step()
        self._memory.look()
        self._keys.clear()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._handle is not None:
            self._handle.remove()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            write_json(folder / COMPLETE, {"step": state.global_step})


def newest_complete_checkpoint(run: str | Path) -> Path | None:
    """The checkpoint of a run with the most steps, among those that were written completely; None if there is none."""
    folders = [path.parent for path in Path(run).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{COMPLETE}")]
    return max(folders, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)
