"""Loads a backbone, its tokenizer and the settings from a hub name or a directory."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from textcl.encoder import export
from textcl.encoder.backbone import DROPOUT_FIELDS
from textcl.encoder.pooling import DenseTanh
from textcl.errors import InputError

logger = logging.getLogger("textcl")

ModelPath = Annotated[str, ("path", "model")]
"""The type of an option that names a model: its weights are part of what identifies a run."""

BUNDLED = Path(__file__).parents[1] / "assets" / "encoder"


@dataclass
class Loaded:
    """The content of a model directory.

    Attributes:
        backbone: The transformer.
        tokenizer: The tokenizer of the backbone.
        settings: Pooling, length, prompts and the layers behind the pooling.
        folder: The backbone's own directory.
    """

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: export.Settings
    folder: Path


def load(name: str, pooling: str | None, dropout: float | None, dtype: torch.dtype) -> Loaded:
    """Loads a hub name, a transformers directory or a sentence-transformers directory.

    Args:
        name: The name or directory; "bundled" for the small encoder that comes with textcl.
        pooling: The pooling; None: that of the directory, else mean. If it differs from the directory's pooling, the
            layers behind the pooling are dropped, because they were trained behind the directory's pooling.
        dropout: Sets every dropout rate of the backbone; None: the rates of its configuration.
        dtype: Type of the weights.

    Raises:
        InputError: If there is no such model, or it holds something that textcl cannot load safely.
    """
    folder = _locate(str(BUNDLED) if name == "bundled" else name)
    settings = export.read_settings(folder)
    backbone_folder = folder / settings.backbone
    config = AutoConfig.from_pretrained(backbone_folder)
    if dropout is not None:
        for field in DROPOUT_FIELDS:
            if hasattr(config, field):
                setattr(config, field, dropout)
    config.output_hidden_states = False
    backbone = _load_backbone(backbone_folder, config, dtype)
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder)
    if pooling is not None and pooling != settings.pooling:
        settings.head = settings.projection = None
    settings.pooling = pooling or settings.pooling or "mean"
    _warn_of_wrong_pooling(f"{name} {config.name_or_path}", settings.pooling)
    return Loaded(backbone, tokenizer, settings, backbone_folder)


def head_of(settings: export.Settings, dtype: torch.dtype) -> DenseTanh | None:
    """The dense tanh layer behind the pooling, if the settings have one."""
    if settings.head is None:
        return None
    head = DenseTanh(len(settings.head["bias"])).to(dtype)
    head.dense.load_state_dict(settings.head)
    return head


def projection_of(settings: export.Settings, dtype: torch.dtype) -> nn.Linear | None:
    """The linear layer behind pooling and head, in float32 or wider, if the settings have one."""
    if settings.projection is None:
        return None
    rows, columns = settings.projection["weight"].shape
    projection = nn.Linear(columns, rows, bias="bias" in settings.projection)
    projection = projection.to(torch.promote_types(dtype, torch.float32))
    projection.load_state_dict(settings.projection)
    return projection


def _locate(name: str) -> Path:
    """The local directory of a model, downloaded from the hub if it is not on disk."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            raise InputError(
                f"The directory {name} is not a model: it holds neither config.json nor modules.json. Give a directory "
                "saved by textcl, transformers or sentence-transformers."
            )
        return folder
    if folder.exists():
        raise InputError(f"{name} is a file, not a model directory.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"There is no model directory {name!r}, and the hub gave no model of that name "
            f"({type(error).__name__}). Check the path, or use 'bundled'."
        ) from error


def _load_backbone(folder: Path, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with export.quiet_transformers():
            backbone, loading = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"No model can be loaded from {folder}: {first_line}") from error
    missing = set(loading["missing_keys"])
    if any(key.startswith("pooler") for key in missing):
        backbone.pooler = None  # it is random, and would be exported as if it were trained
    if lost := sorted(key for key in missing if not key.startswith("pooler")):
        raise InputError(
            f"{folder} lacks {len(lost)} of the backbone's weights (the first is {lost[0]}); it is damaged, or its "
            "config.json belongs to another model."
        )
    return cast(PreTrainedModel, backbone)


def _warn_of_wrong_pooling(name: str, pooling: str) -> None:
    """Warns if a published SimCSE checkpoint is loaded with another pooling than its published scores.

    These checkpoints keep their head in the pooler, which only the supervised ones use at test.
    """
    if match := re.search(r"\b(un)?sup-simcse", name):
        right = "cls" if match[1] else "pooler"
        if pooling != right:
            kind = "unsupervised ([CLS] before the pooler)" if match[1] else "supervised ([CLS] through the pooler)"
            logger.warning(
                "%s is a published SimCSE checkpoint, %s: pooling=%r was asked for, but pooling=%r gives the "
                "published scores.",
                name.split()[0],
                kind,
                pooling,
                right,
            )
