"""What training arguments must satisfy: ranges, flags that have no meaning here, and what the Trainer would refuse.

All of it is checked before a run writes its first file.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import MISSING, fields
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from textcl.errors import InputError
from textcl.modules import InfoNCE
from textcl.ranges import Range

logger = logging.getLogger("textcl")

_COUNT = Range(at_least=1, whole=True)
_ZERO_OR_MORE = Range(at_least=0, whole=True)
_POSITIVE = Range(above=0)
_NOT_NEGATIVE = Range(at_least=0)
_SEED = Range(at_least=0, at_most=2**32 - 1, whole=True)

RANGES = {
    "per_device_train_batch_size": _COUNT,
    "num_train_epochs": _POSITIVE,
    "max_steps": Range(at_least=1, also=-1, whole=True),
    "learning_rate": _POSITIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "adam_beta1": Range(at_least=0, below=1),
    "adam_beta2": Range(at_least=0, below=1),
    "adam_epsilon": _POSITIVE,
    "gradient_accumulation_steps": _COUNT,
    "max_grad_norm": _NOT_NEGATIVE,
    "label_smoothing_factor": _NOT_NEGATIVE,
    "neftune_noise_alpha": _NOT_NEGATIVE,
    "torch_empty_cache_steps": _COUNT,
    "logging_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _NOT_NEGATIVE,
    "save_steps": _POSITIVE,
    "per_device_eval_batch_size": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "save_total_limit": _COUNT,
    "seed": _SEED,
    "data_seed": _SEED,
    "dataloader_num_workers": _ZERO_OR_MORE,
    "dataloader_prefetch_factor": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "local_rank": Range(at_least=-1, whole=True),
    "chunk_size": _COUNT,
    "early_stopping_patience": _ZERO_OR_MORE,
    "target_score": Range(),
}
"""The allowed values of every training argument that is a number."""


_HUB = "textcl uploads nothing; upload the export with `hf upload`"
_SHARDS = (
    "textcl trains a whole copy of the model on each GPU (DistributedDataParallel); a momentum encoder would average "
    "the wrong weights of a shard"
)
_EVALUATION = "textcl's evaluators (--dev) score the encoder; transformers' evaluation loop is not used"
_BEST = "--select-best keeps the weights with the best score of --dev"
_COMPILE = "--compile-layers compiles the layers of the encoder"

WITHOUT_MEANING = {
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy"), _HUB),
    **dict.fromkeys(("hub_always_push", "hub_revision"), _HUB),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), _SHARDS),
    **dict.fromkeys(("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object"), _EVALUATION),
    **dict.fromkeys(("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics"), _EVALUATION),
    **dict.fromkeys(("per_device_eval_batch_size", "bf16_full_eval", "fp16_full_eval"), _EVALUATION),
    **dict.fromkeys(("do_train", "do_predict"), "a run trains, and --dev says what evaluates it"),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _BEST),
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), _COMPILE),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), "its kernels are for language models"),
    "use_cache": "an encoder has no cache of keys and values",
    "label_smoothing_factor": "it smooths the labels of classifiers, and methods have their own losses",
    "label_names": "the batch of a method has its own names",
    "neftune_noise_alpha": "the views of a text are its augmentation, such as --second-view embedding_dropout:0.1",
    "remove_unused_columns": "the collator needs all columns",
    "length_column_name": "batches are drawn at random, and slices are ordered by length within a batch",
    "debug": "its hooks take only tensors of numbers, and a batch has masks",
    "include_num_input_tokens_seen": "the views of a batch have several inputs",
    "auto_find_batch_size": "a smaller batch has fewer negatives; --gradient-cache true bounds the memory of a batch",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed",
}
"""Flags of transformers that change nothing here or would do harm, and what to do instead. Only defaults are taken."""


_MAPPINGS = {
    "accelerator_config",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing_kwargs",
    "lr_scheduler_kwargs",
}
_MAPPING = '{"num_cycles": 2}'


def check_meaning(args: TrainingArguments) -> None:
    """Refuses flags without a meaning here, by name, before transformers acts on them.

    Raises:
        InputError: Such a flag has a value other than its default.
    """
    for field in fields(args):
        default = _default(args, field.name)
        value = getattr(args, field.name)
        unset = value in (default, None, "", []) or (value is False and default is not True)  # 0 is a value
        if field.name in WITHOUT_MEANING and not unset:
            raise InputError(
                f"{_flag(field.name)} has no meaning in textcl: {WITHOUT_MEANING[field.name]}. Leave it out."
            )
    if str(getattr(args.train_sampling_strategy, "value", args.train_sampling_strategy)) == "group_by_length":
        raise InputError(
            "--train-sampling-strategy group_by_length has no meaning in textcl: slices are ordered by length within a "
            "batch already. Leave it out."
        )
    if str(getattr(args.save_strategy, "value", args.save_strategy)) == "best":
        raise InputError(f"--save-strategy best has no meaning in textcl: {_BEST}. Use steps, epoch or no.")
    if str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) in ("reduce_lr_on_plateau", "greedy"):
        raise InputError(
            "--lr-scheduler-type reduce_lr_on_plateau and greedy need the loss of transformers' evaluation, which "
            "textcl does not compute; use another schedule, such as linear, cosine or constant."
        )
    if not args.dataloader_num_workers:
        for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
            if getattr(args, name, None):  # the second is missing before transformers 5.5
                raise InputError(f"{_flag(name)} needs --dataloader-num-workers of at least 1.")
    available = {"none", "all", *get_available_reporting_integrations()}
    for name in [args.report_to] if isinstance(args.report_to, str) else args.report_to or []:
        if name not in available:
            raise InputError(
                f"--report-to {name} cannot be used: there is no such integration, or its package is not installed. "
                f"Here are {', '.join(sorted(available))}. textcl report draws the curves of a run without any."
            )


def check_mappings(args: TrainingArguments) -> None:
    """Refuses settings that are not a mapping, of which transformers says neither the flag nor what it takes.

    Raises:
        InputError: A flag that takes a mapping has another text. `accelerator_config` may also name a file.
    """
    for name in sorted(_MAPPINGS & {field.name for field in fields(args)}):  # transformers 5.5 has fewer
        value = getattr(args, name)
        if not isinstance(value, str) or (name == "accelerator_config" and not value.startswith("{")):
            continue
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{_flag(name)} takes a mapping in JSON, such as '{_MAPPING}', not {value}.")


def check_batches(args: Any, rows: int) -> None:
    """Raises an `InputError` if a corpus of so many rows has no batch, or a batch no negatives."""
    if args.per_device_train_batch_size * args.world_size < 2:
        raise InputError("A batch of one row has no negatives; set per_device_train_batch_size to 2 or more.")
    if args.dataloader_drop_last and rows < args.train_batch_size * args.world_size:
        raise InputError(
            f"The corpus has {rows} rows, fewer than one batch of "
            f"{args.train_batch_size * args.world_size}, so that there would be no training step. Lower "
            "per_device_train_batch_size."
        )


def check_run(args: Any, model: Any, rows: int, evaluators: Sequence[Any]) -> None:
    """Finds out before the first step what would end a run later.

    Args:
        args: The training arguments.
        model: The method.
        rows: The number of rows of the corpus.
        evaluators: The evaluators of the run.

    Raises:
        InputError: The last batch would have one row, CUDA graphs are combined with what they cannot repeat, a model
            cannot recompute its layers, evaluation is asked for without evaluators, or the optimizer or the schedule
            cannot be made.
    """
    if not args.dataloader_drop_last and args.world_size == 1 and rows % args.train_batch_size == 1:
        batches = rows // args.train_batch_size + 1
        if args.max_steps < 0 or args.max_steps * args.gradient_accumulation_steps >= batches:
            raise InputError(
                f"The last batch of an epoch would have one row, which has no negatives: {rows:,} rows in batches of "
                f"{args.train_batch_size}. Set --dataloader-drop-last true, or another --per-device-train-batch-size."
            )
    others = {"--gradient-cache": args.gradient_cache, "--gradient-checkpointing": args.gradient_checkpointing}
    if args.cuda_graphs and (args.world_size > 1 or any(others.values())):
        reason = next((flag for flag, given in others.items() if given), f"{args.world_size} processes")
        raise InputError(f"--cuda-graphs cannot be combined with {reason}; leave one of them out.")
    if args.gradient_checkpointing:
        _check_checkpointing(args, model)
    asked = {
        "--eval-on-start": args.eval_on_start,
        f"--eval-strategy {args.eval_strategy.value}": args.eval_strategy != "no",
    }
    if not evaluators and any(asked.values()):
        flag = next(flag for flag, given in asked.items() if given)
        raise InputError(f"{flag} needs something to evaluate with: give a dev set with --dev, or leave the flag out.")
    stopping = {  # a recipe may bring these, and is also trained where its dev set is not installed
        f"--early-stopping-patience {args.early_stopping_patience}": args.early_stopping_patience > 0,
        f"--target-score {args.target_score}": args.target_score is not None,
    }
    for flag in (flag for flag, given in stopping.items() if given and not evaluators):
        logger.warning("%s cannot stop this run, because nothing is scored; --dev names a dev set.", flag)
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1))], **options)
    except (ImportError, ValueError, TypeError, RuntimeError) as error:
        settings = f" with --optim-args {args.optim_args} (NAME=VALUE,...)" if args.optim_args else ""
        raise InputError(f"--optim {args.optim.value} cannot be used{settings}: {dashed(str(error))}") from error
    if args.optim_args:
        without = copy(args)
        without.optim_args = None
        if Trainer.get_optimizer_cls_and_kwargs(without, model)[1] == options:
            raise InputError(
                f"--optim-args {args.optim_args} changes nothing in --optim {args.optim.value}; leave it out, or name "
                "the optimizer that it is for. Adam's settings are --adam-beta1, --adam-beta2 and --adam-epsilon."
            )
    for flag, reason in _idle(args, model, options):
        logger.warning("%s changes nothing, because %s.", flag, reason)
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(100),
            num_training_steps=100,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"--lr-scheduler-type {args.lr_scheduler_type.value} cannot be used with --lr-scheduler-kwargs "
            f"{json.dumps(args.lr_scheduler_kwargs or {}, default=str)}: {error}"
        ) from error


def _check_checkpointing(args: Any, model: Any) -> None:
    """Raises an `InputError` if a backbone, or torch with these settings, cannot recompute layers in backward."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and not module.supports_gradient_checkpointing:
            raise InputError(
                f"--gradient-checkpointing cannot be used with {type(module).__name__}, whose layers cannot be "
                "recomputed; leave it out. --gradient-cache true saves memory with every model."
            )
    options = dict(args.gradient_checkpointing_kwargs or {})
    for name in ("every_n_layers", "offload"):  # transformers takes these itself
        options.pop(name, None)
    try:
        checkpoint(torch.nn.Identity(), torch.zeros(1), **{"use_reentrant": False, **options})
    except (TypeError, ValueError) as error:
        given = json.dumps(options, default=str)
        raise InputError(f"--gradient-checkpointing-kwargs {given} cannot be used: {error}.") from error


def _idle(args: Any, model: Any, options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The flags that change nothing as the others are, and why; `options` are those of the optimizer."""
    if args.learning_rate_pieces:
        for name in ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"):
            if getattr(args, name) not in (_default(args, name), None, {}):
                yield _flag(name), "--learning-rate-pieces replaces the schedule"
    for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        if getattr(args, name) != _default(args, name):
            without = copy(args)
            setattr(without, name, _default(args, name))
            if Trainer.get_optimizer_cls_and_kwargs(without, model)[1] == options:
                yield _flag(name), f"--optim {args.optim.value} does not read it"
    if args.chunk_size is not None and not any(isinstance(module, InfoNCE) for module in model.modules()):
        yield _flag("chunk_size"), "this method has no InfoNCE, whose similarity matrix the tiles divide"


def _default(args: Any, name: str) -> Any:
    field = next(field for field in fields(args) if field.name == name)
    return field.default if field.default_factory is MISSING else field.default_factory()


def dashed(message: str) -> str:
    """A message of transformers in one line, with its flags spelled with dashes."""
    line = " ".join(message.split())
    return re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), line)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
