"""The export: a directory that `SentenceTransformer(path)`, plain `AutoModel` and `Encoder` all load.

Module references are the legacy ones (`sentence_transformers.models.…`), which releases from 2.0 to 6.2 understand.
Weights are safetensors. The directory holds no pickle and names no remote code.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from textcl.encoder.pooling import POOLINGS
from textcl.errors import InputError
from textcl.files import atomic_directory

logger = logging.getLogger("textcl")

ONLY_TEXTCL = "textcl.Encoder"  # an unknown module makes sentence-transformers raise instead of pooling wrongly


@dataclass
class Settings:
    """The settings in a model directory, in addition to the backbone's weights."""

    backbone: str = ""
    pooling: str | None = None
    max_length: int | None = None
    token_weights: Tensor | None = None
    head: dict[str, Tensor] | None = None
    projection: dict[str, Tensor] | None = None
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    pool_prompt: bool = True


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides transformers' progress bars and its report of weights that are left out on purpose."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def expressible(settings: Settings) -> bool:
    """Whether a sentence-transformers directory can hold the settings. It can hold neither mask-token pooling nor a
    prompt around a text."""
    return settings.pooling != "mask_token" and not any("{text}" in prompt for prompt in settings.prompts.values())


def save(
    path: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, card: str
) -> Path:
    """Writes the directory `path`, first under a temporary name; an existing one is replaced.

    Args:
        path: The directory.
        backbone: The transformer.
        tokenizer: The tokenizer of the backbone.
        settings: The settings, which `read_settings` reads again.
        card: Text of README.md.
    """
    assert settings.pooling is not None
    with atomic_directory(path) as folder:
        _save_backbone(backbone, tokenizer, settings, folder)
        _write(
            folder / "sentence_bert_config.json",
            {"max_seq_length": settings.max_length, "do_lower_case": False},
        )
        _write(
            folder / "config_sentence_transformers.json",
            {
                "prompts": settings.prompts,
                "default_prompt_name": settings.default_prompt_name,
                "similarity_fn_name": "cosine",
            },
        )
        if not expressible(settings):
            modules = [("", ONLY_TEXTCL)]
            own = {"pooling": settings.pooling, "normalize": settings.normalize}
            if not settings.pool_prompt:
                own["pool_prompt"] = False
            _write(folder / "textcl.json", own)
            if settings.token_weights is not None:
                save_file({"token_weights": settings.token_weights}, folder / "token_weights.safetensors")
            if settings.head is not None:
                save_file(_dense_weights(settings.head), folder / "head.safetensors")
            if settings.projection is not None:
                save_file(_dense_weights(settings.projection), folder / "projection.safetensors")
            logger.warning(
                "sentence-transformers cannot express pooling %s with a prompt around the text: only textcl.Encoder "
                "loads %s.",
                settings.pooling,
                path,
            )
        else:
            modules = _save_modules(backbone, tokenizer, settings, folder)
        _write(
            folder / "modules.json",
            [{"idx": i, "name": str(i), "path": name, "type": kind} for i, (name, kind) in enumerate(modules)],
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
    return path


def read_settings(folder: Path) -> Settings:
    """Reads pooling, head, length and prompts of a directory; a plain transformers directory gives the defaults."""
    if not (folder / "modules.json").is_file():
        return Settings()
    settings = Settings()
    prompts = _read(folder / "config_sentence_transformers.json")
    settings.prompts = {name: prompt or "" for name, prompt in (prompts.get("prompts") or {}).items()}
    settings.default_prompt_name = prompts.get("default_prompt_name")
    layers: list[float] = []
    for module in _read(folder / "modules.json"):
        kind, place = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        if module["type"] == ONLY_TEXTCL:
            own = _read(folder / "textcl.json")
            settings.pooling, settings.normalize = own["pooling"], own["normalize"]
            settings.pool_prompt = own.get("pool_prompt", True)
            settings.max_length = _read(folder / "sentence_bert_config.json").get("max_seq_length")
            if (place := folder / "token_weights.safetensors").is_file():
                settings.token_weights = load_file(place)["token_weights"]
            if (place := folder / "head.safetensors").is_file():
                settings.head = _dense(load_file(place))
            if (place := folder / "projection.safetensors").is_file():
                settings.projection = _dense(load_file(place))
        elif kind == "Transformer":
            settings.backbone = module["path"]
            config = _read(place / "sentence_bert_config.json")
            settings.max_length = config.get("max_seq_length") or config.get("model_max_length")
        elif kind == "WeightedLayerPooling":
            layers = _weights(place)["layer_weights"].tolist()
        elif kind == "WordWeights":
            settings.token_weights = _weights(place)["emb_layer.weight"][:, 0]
        elif kind == "Pooling":
            config = _read(place / "config.json")
            settings.pooling = _pooling_name(config, layers, folder)
            settings.pool_prompt = config.get("include_prompt", True)
        elif kind == "Dense":
            config = _read(place / "config.json")
            linear = config["activation_function"].endswith("Identity")
            tanh = config["activation_function"].endswith("Tanh") and config["in_features"] == config["out_features"]
            after_another = settings.projection is not None or (tanh and settings.head is not None)
            if not (linear or tanh) or after_another or config.get("use_residual"):
                raise InputError(
                    f"{folder} has dense layers other than a square one with tanh, a linear one, or both in this "
                    "order. textcl does not support them."
                )
            weights = _dense(_weights(place))
            if linear:
                settings.projection = weights
            else:
                settings.head = weights
                settings.pooling = "pooler" if settings.pooling == "cls" else settings.pooling
        elif kind == "Normalize":
            settings.normalize = True
        else:
            raise InputError(f"{folder} uses the module {module['type']}, which textcl does not support.")
    if settings.token_weights is not None and not POOLINGS[settings.pooling or "mean"].averages:
        raise InputError(
            f"{folder} weighs tokens and then pools with {settings.pooling}, which textcl does not support."
        )
    return settings


def _save_backbone(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, folder: Path
) -> None:
    pooler = getattr(getattr(backbone, "pooler", None), "dense", None)
    if settings.pooling == "pooler" and settings.head is not None and pooler is not None:
        pooler.load_state_dict(settings.head)  # published SimCSE checkpoints keep their head there
    # WeightedLayerPooling reads the hidden states of all layers
    backbone.config.output_hidden_states = POOLINGS[settings.pooling or "mean"].layers != "last"
    try:
        with quiet_transformers():
            backbone.save_pretrained(folder)
    finally:
        backbone.config.output_hidden_states = False
    tokenizer.save_pretrained(folder)


def _save_modules(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, folder: Path
) -> list[tuple[str, str]]:
    modules = [("", "sentence_transformers.models.Transformer")]
    dimension = int(backbone.config.hidden_size)
    pooling = POOLINGS[settings.pooling or "mean"]

    def add(name: str, config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> None:
        place = folder / f"{len(modules)}_{name}"
        place.mkdir()
        _write(place / "config.json", config)
        if weights:
            save_file(weights, place / "model.safetensors")
        modules.append((place.name, f"sentence_transformers.models.{name}"))

    if pooling.layers != "last":
        weights = pooling.layer_weights(backbone.config.num_hidden_layers)
        add(
            "WeightedLayerPooling",
            {"word_embedding_dimension": dimension, "layer_start": 0, "num_hidden_layers": len(weights) - 1},
            {"layer_weights": torch.tensor(weights)},
        )
    if (token_weights := settings.token_weights) is not None:
        vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(token_weights))))
        weights_of = dict(zip(vocabulary, token_weights.tolist(), strict=True))
        add(
            "WordWeights",
            {"vocab": vocabulary, "word_weights": weights_of, "unknown_word_weight": 1.0},
            {"emb_layer.weight": token_weights[:, None].contiguous()},
        )
    modes = {each.modes[0]: False for each in POOLINGS.values() if each.modes}
    assert pooling.modes is not None  # else it is not expressible
    modes[pooling.modes[0]] = True
    add("Pooling", {"word_embedding_dimension": dimension, **modes, "include_prompt": settings.pool_prompt})
    for layer, activation in ((settings.head, "activation.Tanh"), (settings.projection, "linear.Identity")):
        if layer is not None:
            outputs, inputs = layer["weight"].shape
            add(
                "Dense",
                {
                    "in_features": inputs,
                    "out_features": outputs,
                    "bias": "bias" in layer,
                    "activation_function": f"torch.nn.modules.{activation}",
                },
                _dense_weights(layer),
            )
    if settings.normalize:
        add("Normalize", {})
    return modules


def _pooling_name(config: dict[str, Any], layers: list[float], folder: Path) -> str:
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named or []
    modes = list(modes) + [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    # several poolings share a mode; the first of them is the plain one
    names = {mode: name for name, each in reversed(POOLINGS.items()) for mode in each.modes or ()}
    if len(modes) != 1 or modes[0] not in names:
        raise InputError(f"{folder} pools with {modes}, but textcl supports one of {sorted(set(names.values()))}.")
    if not layers:
        return names[modes[0]]
    for name, each in POOLINGS.items():
        several = each.layers != "last" and modes[0] in (each.modes or ())
        if several and layers == each.layer_weights(len(layers) - 1):
            return name
    raise InputError(f"{folder} weighs its layers by {layers}, but textcl supports only first_last and last2.")


def _dense_weights(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"linear.{name}": value.contiguous() for name, value in layer.items()}


def _weights(module: Path) -> dict[str, Tensor]:
    path = module / "model.safetensors"
    if not path.is_file():
        raise InputError(
            f"{module} holds no {path.name}: weights in a pickle file are not loaded, for safety. Load and save the "
            "model once with a recent sentence-transformers, which writes safetensors."
        )
    return load_file(path)


def _dense(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("linear."): value for name, value in weights.items()}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
