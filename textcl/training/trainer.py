"""A thin subclass of `transformers.Trainer` with evaluators, the best encoder, diagnostics and helpful errors."""

import json
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import RandomSampler
from transformers import PrinterCallback, Trainer
from transformers import ProgressCallback as BarCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from textcl.collator.batch import where_views_are
from textcl.collator.collator import texts_of
from textcl.collator.reads import Reads
from textcl.data.rows import has_transform
from textcl.data.training import as_training_rows
from textcl.device import out_of_memory
from textcl.encoder.export import check_savable
from textcl.environment import without_parallel_tokenizers
from textcl.errors import DiskFull, InputError, disk_full
from textcl.evaluation.results import numbered
from textcl.files import atomic_directory, content_hash, write_json
from textcl.methods import Method
from textcl.modules import InfoNCE
from textcl.seals import seal, write_sealed
from textcl.training.arguments import ContrastiveTrainingArguments, check_kinds, check_options, prepare_method
from textcl.training.callback import (
    BEST,
    BEST_FILE,
    SEAL,
    MethodCallback,
    best_step,
    last_good,
    newest_complete_checkpoint,
    remove_old_checkpoints,
    unhook,
)
from textcl.training.checks import check_batches, check_run
from textcl.training.diagnostics import diagnostics
from textcl.training.evaluator import Evaluation, Evaluator, checked
from textcl.training.finite import check_loss, check_weights
from textcl.training.progress import ProgressCallback
from textcl.training.resume import check_resumable
from textcl.training.sampler import RowOrder
from textcl.training.selection import ERROR, Selection, or_lowest, save_start, select, start_of, take_over_best
from textcl.vectors.unknown import warn_of_unknown

logger = logging.getLogger("textcl")

LEAST_LOSS = 0.01  # of InfoNCE; if it is below from the first step on, there is nothing to learn
FIRST_STEPS = 10


class ContrastiveTrainer(Trainer):
    """Trains a method, evaluates its encoder every `eval_steps`, and restores the best encoder at the end.

    The untouched encoder is scored first, at step 0. A checkpoint replaces it only if it is better by more than the
    standard error of the difference; otherwise the untouched weights are restored, and a warning says so.

    The run's directory contains `checkpoint-N/` (each with `complete.json`, written last), `best/` (an export of the
    best encoder, its score in `best.json`, and the method's weights), and `log.jsonl`.

    Args:
        model: The method.
        args: The training arguments, see `ContrastiveTrainingArguments`.
        train_dataset: Rows with `text` and, if the data has them, `positive` and `negative`; see the method's collator,
            and `textcl.data.training.as_training_rows` for the kinds that are taken.
        evaluators: They run every `eval_steps` and at the end. The score of the first chooses the best encoder. The
            method's own evaluators are added after them; they never choose. Of equal names the second and later are
            logged with a number.
        callbacks: Further callbacks; a `MethodCallback` is added if there is none among them.

    Attributes:
        selection: After training: the encoder that was kept, with its score and that of the untouched encoder; None:
            nothing was scored.

    Raises:
        InputError: The method's encoder cannot encode with its pooling or with `test_pooling`, the rows are of another
            kind or one of them is wrong, several GPUs are visible to one process, a
            batch would have only one row, or the corpus has fewer rows than one batch.

    Example:
        >>> trainer = ContrastiveTrainer(method, args, texts, evaluators=[STSBenchmark("dev")])  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    args: ContrastiveTrainingArguments

    def __init__(
        self,
        model: Method,
        args: ContrastiveTrainingArguments,
        train_dataset: Any,
        evaluators: Sequence[Evaluator] = (),
        callbacks: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        check_kinds(model, args, evaluators)
        check_options(options)
        args = copy(args)  # the trainer changes some, and another trainer may be made from the user's
        if args.n_gpu > 1:
            raise InputError(
                f"{args.n_gpu} GPUs are visible to one process. transformers would use DataParallel, which splits the "
                "batch and so its negatives. Start one process per GPU (torchrun --nproc_per_node "
                f"{args.n_gpu} -m textcl train …), or use only one GPU (CUDA_VISIBLE_DEVICES=0)."
            )
        exported = model.exported
        exported.encode(["A text."])  # raises errors about its pooling before anything is written
        check_savable(exported.backbone, exported.settings())
        prepare_method(model, args)
        train_dataset = as_training_rows(train_dataset)
        if isinstance(train_dataset, Dataset) and not has_transform(train_dataset):  # others: in each batch
            Reads.of(model).check(train_dataset.column_names)
        train_dataset = model.prepare_corpus(train_dataset)
        check_batches(args, len(train_dataset))
        own_collator = model.collator(args.seed)
        with args.main_process_first(desc="tokenising"):
            train_dataset = own_collator.tokenized(train_dataset)
        collator = options.pop("data_collator", None) or own_collator
        sizes = {min(args.train_batch_size, len(train_dataset))}
        if not args.dataloader_drop_last and args.world_size == 1:  # several processes fill their last batches
            sizes |= {len(train_dataset) % args.train_batch_size} - {0}
        for size in sizes:  # raises errors about the data before anything is written
            collator([train_dataset[row] for row in range(size)])
        if args.should_log:
            column = "text" if "text" in train_dataset[0] else "text_1"  # rows may hold only their views
            warn_of_unknown(exported, (texts_of([train_dataset[row]], column)[0] for row in range(len(train_dataset))))
        self.evaluators = [*evaluators, *model.evaluators(train_dataset, bf16=bool(args.bf16))]
        check_run(args, model, len(train_dataset), self.evaluators)
        if self.evaluators and args.eval_strategy == "no":
            args.eval_strategy = "steps"
        # a method's own evaluators follow training and say nothing of quality
        self._quality = bool(evaluators) and getattr(evaluators[0], "measures_quality", True)
        self._chooses = args.select_best and self._quality
        progress = ProgressCallback()
        hooked = any(isinstance(each, MethodCallback) or each is MethodCallback for each in callbacks)
        hooks = [] if hooked else [MethodCallback()]  # a second one would call every hook twice
        super().__init__(
            model=model,
            args=args,
            data_collator=cast(Any, collator),
            train_dataset=train_dataset,
            # transformers requires a dataset before it calls `evaluate`, although `evaluate` here does not use it
            eval_dataset=train_dataset if self.evaluators else None,
            callbacks=[*hooks, *callbacks, progress],  # the last: it sees which callback stops the run
            **options,
        )
        self.remove_callback(PrinterCallback)  # these two would show other lines beside those of `ProgressCallback`
        self.remove_callback(BarCallback)
        self._progress = progress
        self.method = model
        self.selection: Selection | None = None
        self._start: np.ndarray | None = None  # the items of the untouched encoder's score
        self._first_losses: list[Tensor] | None = None
        self._seen: dict[str, Tensor] = {}
        self._duplicates = torch.zeros((), dtype=torch.long, device=args.device)
        self._unseen: tuple[int, Tensor] | None = None  # the last step and its loss, until the loss is checked

    @property
    def run_directory(self) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *options: Any, **named_options: Any
    ) -> TrainOutput:
        """Trains, then restores the weights with the best score.

        Args:
            resume_from_checkpoint: True: the newest complete checkpoint of the run; or the path of a checkpoint.
            *options: Passed on to `transformers.Trainer.train`, like the named options.

        Raises:
            InputError: There is no complete checkpoint to resume, or it belongs to another method; the loss or a weight
                is not finite; or saving fails. The last complete checkpoint is kept.
        """
        checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        contrasts = any(isinstance(module, InfoNCE) for module in self.method.modules())
        self._first_losses = [] if contrasts and not checkpoint else None
        if self._quality:
            self.args.eval_on_start = not checkpoint  # a checkpoint has the start's score
        chosen = _metric(self.evaluators)
        self._duplicates.zero_()
        if checkpoint:
            self._start, duplicates = start_of(Path(checkpoint), chosen)
            self._duplicates += duplicates
            if self.is_world_process_zero() and self._chooses:
                take_over_best(Path(checkpoint), self.run_directory, chosen)
        try:
            with without_parallel_tokenizers() if self.args.dataloader_num_workers else nullcontext():
                output = super().train(checkpoint, *options, **named_options)
            self._look_at_loss()
            self._look_at_first_losses()
        except Exception as error:  # each library has its own for a full disk
            if not isinstance(error, (OSError, SafetensorError, DiskFull)) and not disk_full(error):
                raise
            reason = error.reason if isinstance(error, DiskFull) else str(error).splitlines()[0]
            raise InputError(
                f"Writing to {self.run_directory} failed at step {self.state.global_step} ({reason}). "
                f"{last_good(self.run_directory)} {'Make room, and c' if disk_full(error) else 'C'}ontinue the run "
                "with --resume (in Python, resume_from_checkpoint)."
            ) from error
        finally:
            self._progress.close()
            unhook(self.method)  # an interrupted run has no end at which the callback does this
        self.accelerator.wait_for_everyone()  # rank 0 may still be renaming the best encoder into place
        self._restore_best()
        check_weights(self.method, self.state.global_step, self.run_directory)
        return output

    def _restore_best(self) -> None:
        """Loads the weights with the best score, and notes which they are."""
        chosen = _metric(self.evaluators)
        if not any(chosen in entry for entry in self.state.log_history):
            return
        selected = select(self.state.log_history, chosen, best=self._chooses, quality=self._quality)
        best = self.run_directory / BEST
        if self._chooses:
            if best_step(best, chosen) != selected.step:
                raise InputError(
                    f"{best} no longer has the best encoder, that of step {selected.step}; run the same command with "
                    "--resume."
                )
            self.method.load_state_dict(load_file(best / "method.safetensors"))
        self.selection = selected
        if selected.untouched:
            logger.warning("Training did not help: %s", selected.sentence())

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        if 0 < self.args.max_steps <= self.state.global_step:  # transformers would make a step before it stops
            self.control.should_training_stop = True
        else:
            if getattr(options["train_dataloader"], "_iterator", None) is not None:
                # New workers draw a seed. Those that stay must too, else dropout of a resumed run would be another.
                torch.empty((), dtype=torch.int64).random_()
            super()._run_epoch(*args, **options)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        self._look_at_loss()
        if self.state.global_step == FIRST_STEPS:
            self._look_at_first_losses()
        try:
            loss = super().training_step(model, inputs, *args, **kwargs)
        except RuntimeError as error:
            # Memory runs out in backward, because there the gradient cache recomputes slices with their graphs. The
            # step can be repeated because nothing has changed before the optimizer step, but only with one process and
            # without accumulation: other ranks would not repeat it, and gradients of earlier micro-batches would be
            # lost.
            alone = self.args.gradient_cache and self.args.world_size * self.args.gradient_accumulation_steps == 1
            if not alone or not out_of_memory(error) or not self.method.halve_slices():
                raise
            loss = None
        if loss is None:
            tokens = self.method.encoder.tokens_at_a_time
            logger.warning(
                "Out of memory in step %d; the step is repeated with slices of %d tokens.",
                self.state.global_step + 1,
                tokens,
            )
            for hooks in (each for each in self.callback_handler.callbacks if isinstance(each, MethodCallback)):
                hooks.forget_keys()
            model.zero_grad()
            torch.cuda.empty_cache()
            return self.training_step(model, inputs, *args, **kwargs)
        ids = inputs["text_id"][where_views_are(inputs)[0]].sort().values
        self._duplicates += (ids[1:] == ids[:-1]).sum()
        self._unseen = self.state.global_step + 1, loss.detach()
        if not loss.is_cuda:
            self._look_at_loss()
        return loss

    def _look_at_loss(self) -> None:
        """Raises an error if the last loss is not finite.

        On a GPU the loss is checked one step later, because checking it at once would make the CPU wait for the GPU.
        """
        if self._unseen is None:
            return
        (step, loss), self._unseen = self._unseen, None
        check_loss(loss.item(), step, self.run_directory)

    def _look_at_first_losses(self) -> None:
        """Warns once if InfoNCE was low from the first step on."""
        if self._first_losses and self.state.global_step >= FIRST_STEPS:
            if torch.stack(self._first_losses).max().item() < LEAST_LOSS:
                logger.warning(
                    "InfoNCE was below %g in the first %d steps: the encoder separates these texts already, and this "
                    "method has nothing to teach it.",
                    LEAST_LOSS,
                    FIRST_STEPS,
                )
            self._first_losses = None

    def _get_train_sampler(self, *given: Any) -> Any:
        sampler = super()._get_train_sampler(*given)
        accelerator: Any = self.args.accelerator_config
        if type(sampler) is not RandomSampler or not accelerator.use_seedable_sampler:
            return sampler
        seed = self.args.data_seed
        return RowOrder(sampler.data_source, torch.random.initial_seed() if seed is None else seed)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._look_at_loss()
        check_weights(self.method, self.state.global_step, self.run_directory)
        # transformers would count, and remove, every folder whose name begins with "checkpoint-"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit
        if self.is_world_process_zero():
            checkpoint = self.run_directory / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_start(checkpoint, self._start, self._duplicates)
            if limit:
                remove_old_checkpoints(self.run_directory, self.state.global_step, limit)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        self._progress.loss = outputs["loss"].detach()
        if self._first_losses is not None and self.state.global_step < FIRST_STEPS:
            self._first_losses.append(outputs.get("contrastive", outputs["loss"]).detach())
        self._seen = {name: value.detach() for name, value in outputs.items() if name not in ("loss", "keys")}
        self._seen |= {"view": inputs["view"], "group": inputs["group"]}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Runs the evaluators on the current encoder and logs their scores.

        In training the scores named "eval" also choose the best encoder, which is saved, and can end the training.

        Raises:
            InputError: The trainer has no evaluators, or one of them returned something without a score.
        """
        if not self.evaluators:
            raise InputError("This trainer has no evaluators; give it some, such as evaluators=[STSBenchmark('dev')].")
        in_training = self.is_in_train and metric_key_prefix == "eval"
        first, *others = self.evaluators
        chosen, *names = (f"{metric_key_prefix}_{name}" for name in self._names)
        candidates = self.method.candidates if in_training else [self.method.exported]
        found = [checked(first, first(encoder)) for encoder in candidates]
        best = max(range(len(found)), key=lambda number: or_lowest(found[number].primary))
        scores = {chosen: float(found[best].primary)}
        if in_training:
            self.method.choose(best)
            scores |= self._error(chosen, found[best])
        scores |= {
            name: float(checked(each, each(self.method.exported)).primary)
            for name, each in zip(names, others, strict=True)
        }
        for name in (name for name, score in scores.items() if math.isnan(score)):
            logger.warning("The score %s is NaN at step %d; NaN is never the best.", name, self.state.global_step)
        history = [entry for entry in self.state.log_history if chosen in entry]
        before = select(history, chosen).step if history else None
        history.append({**scores, "step": self.state.global_step})
        keep = in_training and self._quality and select(history, chosen).step != before
        if keep and self.is_world_process_zero():
            self._keep_best(chosen, scores[chosen])
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        ranked = [or_lowest(entry[chosen]) for entry in history]
        if in_training and _is_over(ranked, self.args, self.state.global_step):
            self.control.should_training_stop = True
        return scores

    @property
    def _names(self) -> list[str]:
        """The names of the evaluators; of equal ones the second and later have a number."""
        return numbered(each.name for each in self.evaluators)

    def _error(self, metric: str, found: Evaluation) -> dict[str, float]:
        """The standard error of the difference from the untouched encoder; empty for that encoder itself."""
        items = getattr(found, "items", None)
        if not self._quality or items is None or not hasattr(self.evaluators[0], "error_of_difference"):
            return {}
        if self.state.global_step == 0:
            self._start = np.ascontiguousarray(items)
            return {}
        if self._start is None:
            return {}
        return {metric + ERROR: self.evaluators[0].error_of_difference(self._start, items)}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._seen:
            seen, self._seen = self._seen, {}
            logs |= diagnostics(seen, self.state.global_step) | {"duplicates_in_batches": int(self._duplicates)}
        super().log(logs, *args, **kwargs)
        if self.is_world_process_zero():
            self.run_directory.mkdir(parents=True, exist_ok=True)
            entry = {**logs, "step": self.state.global_step}
            with (self.run_directory / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({**entry, "sha256": content_hash(entry)}) + "\n")

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.method.learning_rate_factors:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            decayed = self.get_decay_parameter_names(self.method)
            groups = self.method.param_groups(self.args.learning_rate, self.args.weight_decay, decayed)
            self.optimizer = kind(groups, **options)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        first = self.lr_scheduler is None  # or transformers dropped that of the last `train`
        scheduler: Any = super().create_scheduler(num_training_steps, optimizer)
        if first and self.args.learning_rate_pieces:
            scheduler = self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(scheduler.optimizer, self.args.piece_at)
        return scheduler

    def _keep_best(self, metric: str, score: float) -> None:
        best = {"metric": metric, "score": score, "step": self.state.global_step}
        with atomic_directory(self.run_directory / BEST, BEST_FILE) as folder:
            self.method.export(folder / "encoder")
            save_file(self.method.state_dict(), folder / "method.safetensors")
            write_json(folder / "best.json", best)
            write_sealed(folder / SEAL, {"files": seal(folder)})

    def _checkpoint_to_resume(self, asked: str | bool | None) -> str | None:
        if not asked:
            return None
        folder = newest_complete_checkpoint(self.run_directory) if asked is True else Path(asked)
        if folder is None:
            raise InputError(f"{self.run_directory} has no complete checkpoint to resume from; start a new run.")
        check_resumable(folder, self.method, self.args.world_size)
        return str(folder)


def _metric(evaluators: Sequence[Evaluator]) -> str:
    """The score that chooses the best encoder; empty without evaluators."""
    return f"eval_{evaluators[0].name}" if evaluators else ""


def _is_over(scores: Sequence[float], args: ContrastiveTrainingArguments, step: int) -> bool:
    """Whether the last score reached the target, or the best one is too many evaluations ago."""
    patience, target = args.early_stopping_patience, args.target_score
    late = patience > 0 and len(scores) - 1 - scores.index(max(scores)) >= patience
    return late or (target is not None and step > 0 and scores[-1] >= target)
