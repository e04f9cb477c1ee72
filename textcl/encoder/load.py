"""Loads a backbone, its tokenizer and the settings from a hub name or a directory."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import normalizers
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from textcl.encoder import adapter, export
from textcl.encoder.backbone import backbone_class, check_dropout, input_table, longest_input, set_dropout
from textcl.encoder.directory import read_settings
from textcl.encoder.layers import dimension_behind, inputs_of
from textcl.encoder.pooling import DenseTanh
from textcl.encoder.static import load_static
from textcl.encoder.understood import content_of, read_weights
from textcl.errors import InputError
from textcl.model_files import is_model
from textcl.ranges import Range

logger = logging.getLogger("textcl")

ModelPath = Annotated[str, ("path", "model")]
"""The type of an option that names a model: its weights are part of what identifies a run."""

BUNDLED = Path(__file__).parents[1] / "assets" / "encoder"
NAMED = {"bundled": BUNDLED, "small": BUNDLED.parent / "small"}
"""The encoders that come with textcl, by name."""


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
        name: The name or directory; "small" or "bundled" for the encoders that come with textcl.
        pooling: The pooling; None: that of the directory, else mean. If it differs from the directory's pooling, the
            layers behind the pooling are dropped, because they were trained behind the directory's pooling.
        dropout: Sets every dropout rate of the backbone; None: the rates of its configuration.
        dtype: Type of the weights.

    Raises:
        InputError: If there is no such model, or it holds something that textcl cannot load safely.
    """
    folder = directory_of(name)
    settings = read_settings(folder)
    place = folder / settings.backbone
    backbone: PreTrainedModel
    if settings.static:
        backbone, tokenizer = load_static(place, settings, dtype)
    else:
        config = load_config(place)
        if dropout is not None:
            set_dropout(config, dropout)
        backbone = _load_backbone(place, config, dtype)
        if (place / adapter.CONFIG).is_file():
            adapter.merge_adapter(backbone, place)
        tokenizer = _tokenizer(place, backbone, settings)
    if dropout is not None:
        check_dropout(backbone, dropout, name)
    _check_fit(folder, backbone, tokenizer, settings)
    if pooling is not None and pooling != settings.pooling:
        settings.head = settings.projection = settings.layer_weights = None
        settings.token_layers, settings.layers = [], []
    settings.pooling = pooling or settings.pooling or "mean"
    _warn_of_wrong_pooling(f"{name} {backbone.config.name_or_path}", settings.pooling)
    return Loaded(backbone, tokenizer, settings, place)


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


def in_float32(layers: Iterable[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """The layers in float32 or wider."""
    return [layer.to(torch.promote_types(dtype, torch.float32)) for layer in layers]


def path_of(name: str) -> Path:
    """The directory of an encoder that comes with textcl, else the name as a path, which may not exist."""
    return NAMED.get(name) or Path(name)


def directory_of(name: str) -> Path:
    """The local directory of a model, downloaded from the hub if it is not on disk."""
    folder = path_of(name)
    if folder.is_dir():
        if not is_model(folder):
            raise InputError(
                f"The directory {name} is not a model: it holds neither config.json nor modules.json. Give a directory "
                "saved by textcl, transformers or sentence-transformers."
            )
        for path in folder.rglob("*"):  # transformers would say that there are no weights
            if path.suffix in (".json", ".safetensors") and path.is_file() and not os.access(path, os.R_OK):
                raise InputError(f"{path} cannot be read: permission denied.")
        return folder
    if folder.exists():
        raise InputError(f"{name} is a file, not a model directory.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # the card states language and licence
    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "bpe.codes", "README.md"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"]))
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"There is no model directory {name!r}, and the hub cannot be asked for a model of that name: there is no "
            "network, or HF_HUB_OFFLINE is set. Check the path, or use 'small' or 'bundled'."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"There is no model directory {name!r}, and the hub gave no model of that name "
            f"({type(error).__name__}). Check the path, write the owner of a hub name too, as in "
            "sentence-transformers/all-MiniLM-L6-v2, or use 'small' or 'bundled'."
        ) from error


@contextmanager
def library_errors(what: str, *more: type[Exception]) -> Iterator[None]:
    """Turns what a library raises about a model's files into one sentence. Put only the library's call inside.

    Args:
        what: What failed; the first line of the library's message follows.
        *more: Further exceptions that the call raises.

    Raises:
        InputError: The sentence.
    """
    raised: tuple[type[Exception], ...] = (*_RAISED, *more)
    try:
        yield
    except raised as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines and not isinstance(error, KeyError) else f"{type(error).__name__} {error}".strip()
        raise InputError(f"{what}: {reason}") from error


# What transformers raises at files that are damaged, or that ask for something which is not there.
_RAISED: tuple[type[Exception], ...] = (
    *(OSError, ValueError, LookupError, RuntimeError, ImportError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, StrictDataclassError),
)


def load_config(folder: Path) -> Any:
    """The configuration of a transformers directory, without what names code, kernels or other files.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(
            f"{folder} holds no config.json. If it is an adapter, put config.json and weights of its base model beside "
            "it, or merge the adapter with peft (merge_and_unload) and save the whole model."
        )
    content = content_of(file)
    for key in ("quantization_config", "transformers_weights"):
        if content.get(key):
            raise InputError(f"{file} says {key}, which textcl does not support: it needs plain weights.")
    with library_errors(f"No model can be loaded from {folder}"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.output_hidden_states = config.output_attentions = False
        config.return_dict = True
        # no kernel that the file names: transformers chooses torch's attention, or its own if a model has no other
        config._attn_implementation = None
    return config


def load_model(auto: Any, folder: Path, config: Any, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model with the weights of a directory, and what transformers says about weights that are missing or unused.

    The weights are handed over, so that transformers looks for no file, adapter or repository by itself.

    Args:
        auto: A class of models, or one that chooses the architecture, such as `AutoModel`.
        folder: The directory.
        config: The model's configuration, see `load_config`.
        dtype: Type of the weights.

    Raises:
        InputError: If it cannot be loaded.
    """
    weights = read_weights(folder)
    blocks = getattr(config, "num_hidden_layers", 0)
    if isinstance(blocks, int) and blocks > max(1000, len(weights)):
        raise InputError(f"{folder / 'config.json'} says {blocks} layers, but the weights have {len(weights)} tensors.")
    name = config.name_or_path
    with export.quiet_transformers(), library_errors(f"No model can be loaded from {folder}"):
        with torch.device("meta"):
            concrete = issubclass(auto, PreTrainedModel)
            kind = auto if concrete else type(auto.from_config(config, trust_remote_code=False))
        model, loading = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
    model.config.name_or_path = name
    return model, loading


def _load_backbone(folder: Path, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    backbone, loading = load_model(backbone_class(config), folder, config, dtype)
    other_shape = {key for key, *_ in loading["mismatched_keys"]}
    missing = set(loading["missing_keys"]) | other_shape
    if any(key.startswith("pooler") for key in missing):
        backbone.pooler = cast(Any, None)  # it is random, and would be exported as if it were trained
    if wrong := sorted(key for key in other_shape if not key.startswith("pooler")):
        raise InputError(f"{folder}: the weights {wrong[0]} have another shape than config.json says.")
    if lost := sorted(key for key in missing if not key.startswith("pooler")):
        raise InputError(
            f"{folder} lacks {len(lost)} of the backbone's weights (the first is {lost[0]}); it is damaged, or its "
            "config.json belongs to another model."
        )
    if unused := sorted(key for key in loading["unexpected_keys"] if _is_of_backbone(key, backbone)):
        raise InputError(
            f"{folder} has {len(unused)} weights that its backbone does not use (the first is {unused[0]}); its "
            "config.json belongs to another model, or says too few layers."
        )
    return backbone


def _is_of_backbone(key: str, backbone: PreTrainedModel) -> bool:
    """Whether weights that nothing uses belong to the backbone, and not to a pooler or a head, or are only a buffer."""
    key = key.removeprefix(f"{backbone.base_model_prefix}.")
    buffers = {name for name, _ in backbone.named_buffers()}
    if key in buffers or key.endswith(("position_ids", "inv_freq", "masked_bias")):
        return False  # older versions of transformers saved them
    parts = {name for name, _ in backbone.named_children()} | {name for name, _ in backbone.named_parameters()}
    return key.split(".")[0] in parts - {"pooler"}


def _tokenizer(folder: Path, backbone: PreTrainedModel, settings: export.Settings) -> PreTrainedTokenizerBase:
    lacking = f"{folder} holds no tokenizer. Save it there with tokenizer.save_pretrained({str(folder)!r})"
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise InputError(f"{lacking}.")
    # a damaged tokenizer.json makes the tokenizers library raise Exception itself, and no subclass
    with export.quiet_transformers(), library_errors(f"{folder} holds no tokenizer that can be loaded", Exception):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings.tokenizer_options
        )
    # transformers makes a tokenizer of special tokens if the files of its class are missing
    needed = tokenizer.vocab_files_names.values()
    known, table = len(tokenizer.get_vocab()), input_table(backbone)
    if needed and not any((folder / name).is_file() for name in {"tokenizer.json", *needed}):
        raise InputError(f"{lacking}.")
    if table is not None and known < table.num_embeddings / 10:
        raise InputError(
            f"{lacking}: the one that is there knows {known} tokens, and the backbone {table.num_embeddings}."
        )
    # transformers writes "no limit" as the whole number 10^30, which a Range refuses as too large
    longest = tokenizer.model_max_length
    Range(at_least=1).check(
        f"{folder / 'tokenizer_config.json'}: model_max_length", float(longest) if isinstance(longest, int) else longest
    )
    if settings.lower_case:
        _lower_case(tokenizer, folder)
    if settings.max_length is not None:  # as in sentence-transformers, it is the tokenizer's own limit too
        tokenizer.model_max_length = max(tokenizer.model_max_length, settings.max_length)
    if settings.length_of_tokenizer:
        settings.max_length = longest_input(backbone, tokenizer)
        if settings.max_length > 10**6:
            settings.max_length = None
            logger.warning("%s names no longest input; texts are cut at 512 tokens.", folder)
    return tokenizer


_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "spm.model", "source.spm", "prophetnet.tokenizer", "vocab.model", "tekken.json"),
)


def _lower_case(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Makes the tokenizer lower-case texts first, as sentence-transformers does for `do_lower_case`."""
    if not tokenizer.is_fast:
        raise InputError(f"{folder} says do_lower_case: true, which textcl supports only for fast tokenizers.")
    backend = cast(Any, tokenizer).backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def _check_fit(
    folder: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: export.Settings
) -> None:
    """Raises `InputError` if the settings of a sentence-transformers directory do not fit its backbone."""
    if settings.pooling is None:
        return
    if settings.layer_weights is not None and len(settings.layer_weights) != backbone.config.num_hidden_layers + 1:
        raise InputError(
            f"{folder} weighs {len(settings.layer_weights)} layers, embedding layer included, but its backbone has "
            f"{backbone.config.num_hidden_layers + 1}."
        )
    if settings.token_weights is not None and len(settings.token_weights) <= max(tokenizer.get_vocab().values()):
        raise InputError(
            f"{folder} has weights of {len(settings.token_weights)} tokens, but its tokenizer has tokens up to "
            f"number {max(tokenizer.get_vocab().values())}."
        )
    tables = ("position_embeddings", "wpe", "embed_positions")
    counts = any(n.endswith(tables) and isinstance(m, nn.Embedding) for n, m in backbone.named_modules())
    if tokenizer.padding_side == "left" and counts:
        raise InputError(
            f"{folder} says padding_side: left, but its backbone counts positions from the padding, so that vectors "
            "would depend on the other texts of a batch. Set padding_side to right."
        )
    own = [layer for layer in (head_of(settings, torch.float32), projection_of(settings, torch.float32)) if layer]
    linear = [layer.dense if isinstance(layer, DenseTanh) else layer for layer in own]
    size = int(backbone.config.hidden_size)
    for layer in (*settings.token_layers, *linear, *settings.layers):
        takes = layer.in_features if isinstance(layer, nn.Linear) else inputs_of(layer)
        if takes not in (None, size):
            raise InputError(f"{folder} has a layer for vectors of {takes} dimensions, which is given {size}.")
        size = layer.out_features if isinstance(layer, nn.Linear) else dimension_behind([layer], size)


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
