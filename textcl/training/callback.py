"""A callback for any `transformers.Trainer` that calls the hooks of methods and marks checkpoints as complete."""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from textcl.device import SteadyMemory
from textcl.encoder.export import MODEL_FILE
from textcl.errors import InputError
from textcl.files import settle, unknown_file
from textcl.methods import Method
from textcl.methods.method import Outputs
from textcl.modules import InfoNCE
from textcl.seals import differs, read_sealed, seal, write_sealed

logger = logging.getLogger("textcl")

LOOK_EVERY = 4  # steps between two looks at the memory of the process
COMPLETE = "complete.json"
SEAL = "seal.json"  # in `best/`, of all its files
BEST = "best"  # the folder of the best encoder, in a run and in a checkpoint
BEST_FILE = re.compile(rf"best\.json|{re.escape(SEAL)}|method\.safetensors|encoder/({MODEL_FILE.pattern})")
# The Trainer's files, the weights and the tokenizer, and what a killed process left.
CHECKPOINT_FILE = re.compile(
    r"complete\.json|start\.safetensors|(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|trainer_state\.json|training_args\.bin"
    r"|\.tmp\w*|\..+\.tmp|" + MODEL_FILE.pattern + rf"|best/({BEST_FILE.pattern})"
)


class MethodCallback(TrainerCallback):
    """Calls the hooks of a `Method` in the training loop.

    Example:
        >>> transformers.Trainer(  # doctest: +SKIP
        ...     model=method, args=args, data_collator=method.collator(), train_dataset=texts,
        ...     callbacks=[textcl.MethodCallback()],
        ... )
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []  # the keys of all micro-batches since the last optimizer step
        self._learned: list[InfoNCE] = []
        self._epoch = 0
        self._memory = SteadyMemory()

    def _collect(self, method: Method, inputs: Any, outputs: Outputs) -> None:
        if method.training and "keys" in outputs:
            self._keys.append(outputs["keys"])

    def forget_keys(self) -> None:
        """Drops the keys of a step that is made again, which returns them once more."""
        self._keys.clear()

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
        unhook(method)  # from another trainer, whose run was interrupted
        method.hooked = method.register_forward_hook(self._collect)
        self._keys.clear()
        self._learned = method.learned_temperatures
        # `state.epoch` is a float computed from the steps done; a rounding error may put it just below the whole number
        self._epoch = int((state.epoch or 0) + 1e-6)
        if state.global_step == 0:
            method.on_fit_start(kwargs["train_dataloader"].dataset, args.train_batch_size * args.world_size)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        collator = kwargs["train_dataloader"].collate_fn
        if hasattr(collator, "set_epoch"):
            collator.set_epoch(self._epoch)
        self._epoch += 1  # counted, because `state.epoch` of a stream does not know how long it is

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        kwargs["model"].before_optimizer_step(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not getattr(kwargs["optimizer"], "step_was_skipped", False):  # a bare torch optimizer never skips
            kwargs["model"].after_optimizer_step(state.global_step, state.max_steps, self._keys)
            for module in self._learned:
                module.after_optimizer_step()
        if state.global_step % LOOK_EVERY == 0:
            self._memory.look()
        self._keys.clear()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        unhook(kwargs["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            args.distributed_state.wait_for_everyone()  # each rank has written the state of its random numbers
        if state.is_world_process_zero:
            run = Path(str(args.output_dir))
            folder = run / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            settle(folder)
            (folder / COMPLETE).unlink(missing_ok=True)  # of an earlier process that made this step as well
            shutil.rmtree(folder / BEST, ignore_errors=True)
            content: dict[str, Any] = {"step": state.global_step, "processes": args.world_size}
            content |= {"best": best_step(run / BEST), "files": seal(folder)}
            if content["best"] is not None:
                # A later best encoder takes the place of this one in the run. Links need no space while it does not.
                shutil.copytree(run / BEST, folder / BEST, copy_function=_link)
            write_sealed(folder / COMPLETE, content)


def unhook(method: Method) -> None:
    """Removes the hook of a `MethodCallback`, so that a later training without one raises, as `forward` promises."""
    if isinstance(method.hooked, RemovableHandle):
        method.hooked.remove()
    method.hooked = False


def newest_complete_checkpoint(run: str | Path) -> Path | None:
    """The checkpoint of a run with the most steps that training can continue from; None if there is none.

    Checkpoints that were not written completely do not count. A checkpoint is passed over with a warning if its files
    are not those that were written, or if neither it nor `best/` has the best encoder up to its step.
    """
    for _, folder in reversed(_checkpoints(Path(run))):
        if not (folder / COMPLETE).is_file():
            continue
        if (fault := fault_of(folder)) is None:
            return folder
        logger.warning("%s is passed over: %s.", folder, fault)
    return None


def last_good(run: Path) -> str:
    """Which checkpoint a run that stops can go on from, as a sentence."""
    checkpoint = newest_complete_checkpoint(run)
    return f"The last complete checkpoint is {checkpoint}." if checkpoint else "No checkpoint was complete yet."


def remove_old_checkpoints(run: Path, step: int, limit: int) -> None:
    """Removes the oldest checkpoints up to a step, so that `limit` are left; none that has a file of somebody else."""
    for _, folder in [each for each in _checkpoints(run) if each[0] <= step][:-limit]:
        if unknown_file(folder, CHECKPOINT_FILE) is None:
            shutil.rmtree(folder, ignore_errors=True)


def fault_of(checkpoint: Path) -> str | None:
    """Why training cannot continue from a complete checkpoint, in words; None if it can."""
    try:
        content = read_sealed(checkpoint / COMPLETE)
    except InputError:
        return f"its {COMPLETE} is damaged"
    if "files" in content and (name := differs(checkpoint, content["files"])) is not None:
        return f"its {name} is missing or damaged"
    needed = content.get("best")
    if needed is not None and needed not in map(best_step, places_of_best(checkpoint)):
        return "the best encoder up to then is missing or damaged"
    return None


def places_of_best(checkpoint: Path) -> tuple[Path, Path]:
    """Where the best encoder up to a checkpoint may be: in the checkpoint, else in its run."""
    return checkpoint / BEST, checkpoint.parent / BEST


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run with their steps, in order, complete or not."""
    found = ((path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-"), path) for path in run.glob("checkpoint-*"))
    return sorted((int(step), path) for step, path in found if step.isdecimal() and path.is_dir())


def best_step(best: Path, metric: str | None = None) -> int | None:
    """The step of the encoder in a folder `best`; None if there is none, it is damaged, or another metric chose it."""
    try:
        if differs(best, read_sealed(best / SEAL).get("files")) is not None:
            return None
        kept = read_sealed(best / "best.json")
        return int(kept["step"]) if metric in (None, kept["metric"]) else None
    except (OSError, InputError):
        return None


def _link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
