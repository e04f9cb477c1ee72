"""The interchange directory: what `SentenceTransformer(path)`, plain `AutoModel` and `Encoder` all load.

Module references are the legacy ones (`sentence_transformers.models.…`), which releases from 2.0 to 6.2 understand.
Weights are safetensors; nothing is pickled and no remote code is named.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from textcl.card import expressible, model_card
from textcl.errors import InputError
from textcl.files import atomic_directory
from textcl.pooling import AVERAGES, LAYERS, layer_weights

if TYPE_CHECKING:
    from textcl.encoder import Encoder

logger = logging.getLogger("textcl")

MODE_OF_POOLING = {
    "cls": "pooling_mode_cls_token",
    "pooler": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "first_last": "pooling_mode_mean_tokens",
    "last2": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "last_token": "pooling_mode_lasttoken",
}
# The modes as releases from 5.4 on name them.
POOLING_OF_MODE = {
    "pooling_mode_cls_token": "cls",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "mean": "mean",
    "pooling_mode_max_tokens": "max",
    "max": "max",
    "pooling_mode_lasttoken": "last_token",
    "lasttoken": "last_token",
}
ONLY_TEXTCL = "textcl.Encoder"  # sentence-transformers refuses an unknown module rather than pool wrongly in silence


@dataclass
class Settings:
    """What a model directory says beside the backbone's weights."""

    backbone: str = ""
    pooling: str | None = None
    max_length: int | None = None
    token_weights: Tensor | None = None
    head: dict[str, Tensor] | None = None
    projection: dict[str, Tensor] | None = None
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' bars and its report of weights that are left out on purpose from worrying users."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def save(encoder: "Encoder", path: Path, card: str | None = None) -> Path:
    """Writes `encoder` to the directory `path`, under a temporary name first; one that stands there is replaced."""
    with atomic_directory(path) as folder:
        _save_backbone(encoder, folder)
        _write(
            folder / "sentence_bert_config.json",
            {"max_seq_length": encoder.max_length, "do_lower_case": False},
        )
        _write(
            folder / "config_sentence_transformers.json",
            {
                "prompts": encoder.prompts,
                "default_prompt_name": encoder.default_prompt_name,
                "similarity_fn_name": "cosine",
            },
        )
        if not expressible(encoder):
            modules = [("", ONLY_TEXTCL)]
            _write(folder / "textcl.json", {"pooling": encoder.pooling, "normalize": encoder.normalize})
            if (token_weights := encoder.weights_in_use) is not None:
                save_file({"token_weights": token_weights}, folder / "token_weights.safetensors")
            if encoder.head is not None:
                save_file(_dense_weights(encoder.head.dense), folder / "head.safetensors")
            if encoder.projection is not None:
                save_file(_dense_weights(encoder.projection), folder / "projection.safetensors")
            logger.warning(
                "sentence-transformers has no pooling %s with a prompt around the text: %s loads with textcl.Encoder "
                "alone.",
                encoder.pooling,
                path,
            )
        else:
            modules = _save_modules(encoder, folder)
        _write(
            folder / "modules.json",
            [{"idx": i, "name": str(i), "path": name, "type": kind} for i, (name, kind) in enumerate(modules)],
        )
        (folder / "README.md").write_text(card or model_card(encoder), encoding="utf-8")
    return path


def read_settings(folder: Path) -> Settings:
    """Reads pooling, head, length and prompts of a directory; all defaults for a plain transformers one."""
    if not (folder / "modules.json").is_file():
        return Settings()
    settings = Settings()
    prompts = _read(folder / "config_sentence_transformers.json")
    settings.prompts = {name: prompt for name, prompt in (prompts.get("prompts") or {}).items() if prompt}
    settings.default_prompt_name = prompts.get("default_prompt_name")
    layers: list[float] = []
    for module in _read(folder / "modules.json"):
        kind, place = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        if module["type"] == ONLY_TEXTCL:
            own = _read(folder / "textcl.json")
            settings.pooling, settings.normalize = own["pooling"], own["normalize"]
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
            settings.pooling = _pooling_name(_read(place / "config.json"), layers, folder)
        elif kind == "Dense":
            config = _read(place / "config.json")
            linear = config["activation_function"].endswith("Identity")
            tanh = config["activation_function"].endswith("Tanh") and config["in_features"] == config["out_features"]
            after_another = settings.projection is not None or (tanh and settings.head is not None)
            if not (linear or tanh) or after_another or config.get("use_residual"):
                raise InputError(
                    f"{folder} has dense layers other than a square one with tanh, a linear one, or both in this "
                    "order; not supported."
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
            raise InputError(f"{folder} uses the module {module['type']}, which textcl does not know.")
    if settings.token_weights is not None and settings.pooling not in AVERAGES:
        raise InputError(f"{folder} weighs tokens and then pools with {settings.pooling}; not supported.")
    return settings


def _save_backbone(encoder: "Encoder", folder: Path) -> None:
    backbone, tokenizer = encoder.backbone, encoder.tokenizer
    pooler = getattr(getattr(backbone, "pooler", None), "dense", None)
    if encoder.pooling == "pooler" and encoder.head is not None and pooler is not None:
        pooler.load_state_dict(encoder.head.dense.state_dict())  # as published SimCSE checkpoints keep it
    backbone.config.output_hidden_states = encoder.pooling in LAYERS  # what makes WeightedLayerPooling see them
    try:
        with quiet_transformers():
            backbone.save_pretrained(folder)
    finally:
        backbone.config.output_hidden_states = False
    tokenizer.save_pretrained(folder)


def _save_modules(encoder: "Encoder", folder: Path) -> list[tuple[str, str]]:
    modules = [("", "sentence_transformers.models.Transformer")]
    dimension = int(encoder.backbone.config.hidden_size)

    def add(name: str, config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> None:
        place = folder / f"{len(modules)}_{name}"
        place.mkdir()
        _write(place / "config.json", config)
        if weights:
            save_file(weights, place / "model.safetensors")
        modules.append((place.name, f"sentence_transformers.models.{name}"))

    if encoder.pooling in LAYERS:
        weights = layer_weights(encoder.pooling, encoder.backbone.config.num_hidden_layers)
        add(
            "WeightedLayerPooling",
            {"word_embedding_dimension": dimension, "layer_start": 0, "num_hidden_layers": len(weights) - 1},
            {"layer_weights": torch.tensor(weights)},
        )
    if (token_weights := encoder.weights_in_use) is not None:
        vocabulary = encoder.tokenizer.convert_ids_to_tokens(list(range(len(token_weights))))
        weights_of = dict(zip(vocabulary, token_weights.tolist(), strict=True))
        add(
            "WordWeights",
            {"vocab": vocabulary, "word_weights": weights_of, "unknown_word_weight": 1.0},
            {"emb_layer.weight": token_weights[:, None].contiguous()},
        )
    modes = dict.fromkeys(MODE_OF_POOLING.values(), False)
    modes[MODE_OF_POOLING[encoder.pooling]] = True
    add("Pooling", {"word_embedding_dimension": dimension, **modes, "include_prompt": True})
    head = None if encoder.head is None else encoder.head.dense
    for layer, activation in ((head, "activation.Tanh"), (encoder.projection, "linear.Identity")):
        if layer is not None:
            add(
                "Dense",
                {
                    "in_features": layer.in_features,
                    "out_features": layer.out_features,
                    "bias": layer.bias is not None,
                    "activation_function": f"torch.nn.modules.{activation}",
                },
                _dense_weights(layer),
            )
    if encoder.normalize:
        add("Normalize", {})
    return modules


def _pooling_name(config: dict[str, Any], layers: list[float], folder: Path) -> str:
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named or []
    modes = list(modes) + [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in POOLING_OF_MODE:
        raise InputError(f"{folder} pools with {modes}; textcl knows one of {sorted(set(POOLING_OF_MODE.values()))}.")
    if not layers:
        return POOLING_OF_MODE[modes[0]]
    for name in LAYERS:
        if layers == layer_weights(name, len(layers) - 1) and POOLING_OF_MODE[modes[0]] == "mean":
            return name
    raise InputError(f"{folder} weighs its layers {layers}; textcl knows first_last and last2.")


def _dense_weights(layer: nn.Linear) -> dict[str, Tensor]:
    return {f"linear.{name}": value.contiguous() for name, value in layer.state_dict().items()}


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
