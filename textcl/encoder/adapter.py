"""Adds a LoRA adapter that lies beside a backbone's weights to these weights.

Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022), section 4.1: W + α / r · B A. The files are
those of peft, which is not needed.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from textcl.encoder.understood import content_of, read_tensors, typed
from textcl.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# Keys that are read, say where an adapter came from, or decide only how it was trained.
_KNOWN = {
    *(
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "peft_version",
        "base_model_name_or_path",
        "revision",
    ),
    *("auto_mapping", "task_type", "inference_mode", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "init_lora_weights"),
    *("eva_config", "corda_config", "loftq_config", "parent_library"),
}
# These change the base model's weights when training begins, so the adapter does not fit the weights beside it.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda")


def merge_adapter(backbone: PreTrainedModel, folder: Path) -> None:
    """Adds the adapter in `folder` to the backbone's weights, in float32, in place.

    Raises:
        InputError: If the adapter is of a kind that textcl does not understand, with the key that says so, or does not
            fit the backbone.
    """
    scale, rank_scale = _scale(folder / CONFIG)
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in read_tensors(folder / WEIGHTS).items():
        part = next(
            (part for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B") if part in name), None
        )
        if part is None:
            raise InputError(f"{folder / WEIGHTS} holds {name}, which is not part of a LoRA adapter that textcl knows.")
        pairs.setdefault(name.split(f".{part}")[0].removeprefix("base_model.model."), {})[part[-1]] = value
    modules = dict(backbone.named_modules())
    for name, pair in pairs.items():
        module = modules.get(name) or modules.get(name.removeprefix(f"{backbone.base_model_prefix}."))
        if not isinstance(module, nn.Linear | nn.Embedding | Conv1D) or set(pair) != {"A", "B"}:
            raise InputError(f"{folder / WEIGHTS} changes {name}, which is not a layer of the backbone.")
        a, b = pair["A"].float(), pair["B"].float()
        change = (b @ a) * (scale / (math.sqrt(len(a)) if rank_scale else len(a)))
        if not isinstance(module, nn.Linear):
            change = change.T  # weights of these are (inputs, outputs)
        if change.shape != module.weight.shape:
            raise InputError(
                f"{folder / WEIGHTS} changes {name} by {tuple(change.shape)}, but the backbone has "
                f"{tuple(module.weight.shape)} there."
            )
        with torch.no_grad():
            module.weight.copy_(module.weight.float() + change)


def _scale(file: Path) -> tuple[float, bool]:
    """α, and whether it is divided by the root of the rank (rank-stabilised LoRA) instead of the rank."""
    content = content_of(file)
    for key, value in content.items():
        if key not in _KNOWN and value not in (None, False, "none", [], {}):
            raise InputError(f"{file} says {key}: {str(value)[:80]}, which textcl does not know. {_HELP}")
    if content.get("peft_type") != "LORA":
        raise InputError(f"{file} says peft_type: {content.get('peft_type')}, and textcl knows only LORA. {_HELP}")
    start: Any = content.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_BASE):
        raise InputError(f"{file} says init_lora_weights: {start}, which textcl does not know. {_HELP}")
    alpha = content.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"{file} says lora_alpha: {alpha}, which must be a number.")
    return float(alpha), bool(typed(file, content, "use_rslora", bool, False))


_HELP = "Merge the adapter with peft (merge_and_unload) and save the whole model."
