"""Reads what a sentence-transformers directory says of its vectors, and refuses what it does not understand.

The modules of a directory are read in their order; `understood.py` says what happens to keys that textcl does not know.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from textcl.encoder.export import ONLY_TEXTCL, Settings
from textcl.encoder.layers import ACTIVATIONS, Dense, FirstDimensions, Norm, UnitLength
from textcl.encoder.pooling import POOLINGS
from textcl.encoder.understood import check_requirements, content_of, inside, read_tensors, tensors, typed, understood
from textcl.errors import InputError
from textcl.files import read_json
from textcl.views.template import PLACE

logger = logging.getLogger("textcl")

_TRANSFORMER_FILES = [
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_LEGACY_MODES = (
    *("pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens"),
    *("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"),
)
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def read_settings(folder: Path) -> Settings:
    """Reads pooling, layers, length and prompts of a directory; a plain transformers directory gives the defaults.

    Raises:
        InputError: If the directory says something that textcl does not understand, names a folder outside or one that
            is missing, or holds a damaged file.
    """
    settings = Settings()
    if not (folder / "modules.json").is_file():
        return settings
    truncate = _read_prompts(folder, settings)
    chain = _Chain(settings)
    modules = _modules(folder / "modules.json", read_json(folder / "modules.json"))
    if [module["type"] for module in modules] == [ONLY_TEXTCL]:
        _read_own(folder, chain)
    else:
        for module in modules:
            chain.read(folder, module)
        for name, prompt in settings.prompts.items():
            if PLACE in prompt:
                raise InputError(
                    f"{folder} has the prompt {name!r} with {PLACE}, which textcl takes as the place of the text, and "
                    "sentence-transformers as a part of the prompt. Remove the prompt."
                )
    chain.finish(folder, truncate)
    return settings


_WITHOUT_FILES = ("Normalize",)  # modules without settings, whose empty folder git and model hubs do not keep


class _Chain:
    """The modules of a directory, read in their order: what makes vectors of tokens, a Pooling, layers behind it.

    Attributes:
        settings: What was read so far.
        layer_weights: The weights of the backbone's layers; empty: the last layer alone counts.
        outputs_layers: Whether the backbone returns the vectors of all its layers.
        started: Whether the backbone was read.
        pooled: Whether the Pooling was read. Layers before it change the vectors of tokens, and those behind it the
            vectors of texts.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layer_weights: list[float] = []
        self.outputs_layers = False
        self.started = self.pooled = False

    def read(self, folder: Path, module: Mapping[str, Any]) -> None:
        """Reads one module."""
        kind = module["type"]
        readers: dict[str, Callable[[Path], None]] = {
            "WeightedLayerPooling": self.layer_pooling,
            "WordWeights": self.word_weights,
            "Pooling": self.pooling,
            "Dense": self.dense,
            "LayerNorm": self.layer_norm,
            "Normalize": self.normalize,
            "Dropout": self.dropout,
        }
        name = kind.rsplit(".", 1)[-1] if kind.startswith("sentence_transformers.") else ""
        place = inside(folder, module["path"], may_be_missing=name in _WITHOUT_FILES)
        if name in ("Transformer", "StaticEmbedding"):
            self.backbone(place, module["path"], name)
        elif name in readers:
            if name not in _WITHOUT_FILES and not (place / "config.json").is_file():
                raise InputError(f"{place} holds no config.json, which says what this {name} does.")
            readers[name](place)
        else:
            raise InputError(f"{folder} uses the module {kind}, which textcl does not support.")

    def backbone(self, place: Path, path: str, kind: str) -> None:
        """Reads a Transformer, or a StaticEmbedding, which pools by itself."""
        if self.started:
            raise InputError(f"{place} is a second {kind}, which textcl does not support.")
        self.started = True
        self.settings.backbone = path
        if kind == "Transformer":
            self.outputs_layers = _read_transformer(place, self.settings)
        else:
            self.settings.static, self.settings.pooling, self.pooled = True, "mean", True

    def layer_pooling(self, place: Path) -> None:
        self._before_pooling(place, "WeightedLayerPooling", bool(self.layer_weights))
        content = understood(
            place / "config.json",
            ("word_embedding_dimension", "embedding_dimension", "layer_start", "num_hidden_layers"),
        )
        start = typed(place / "config.json", content, "layer_start", int, 4)
        weights = tensors(place, {"layer_weights"})["layer_weights"]
        if weights.ndim != 1 or start < 0:
            raise InputError(f"{place} must weigh the layers by a vector, not {tuple(weights.shape)}.")
        if not self.outputs_layers:
            logger.warning(
                "%s weighs the layers of its backbone, but config.json has no output_hidden_states: true. "
                "sentence-transformers then takes the last layer alone, and so does textcl.",
                place,
            )
            return
        self.layer_weights = [0.0] * start + weights.tolist()

    def word_weights(self, place: Path) -> None:
        self._before_pooling(place, "WordWeights")
        file = place / "config.json"
        content = understood(file, ("vocab", "word_weights", "unknown_word_weight"))
        vocabulary = typed(file, content, "vocab", list, [])
        weights = typed(file, content, "word_weights", dict, {})
        unknown = content.get("unknown_word_weight", 1)
        try:
            of_words = [weights.get(word, weights.get(str(word).lower(), unknown)) for word in vocabulary]
            self.settings.token_weights = torch.tensor(of_words, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{file} must hold words and their weights as numbers: {error}.") from error

    def pooling(self, place: Path) -> None:
        if not self.started or self.pooled:
            raise InputError(f"{place}: textcl supports one Pooling, behind the Transformer.")
        self.pooled = True
        file = place / "config.json"
        content = understood(
            file, ("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *_LEGACY_MODES)
        )
        self.settings.pool_prompt = typed(file, content, "include_prompt", bool, True)
        if not self.settings.pool_prompt and self.settings.token_weights is not None:
            raise InputError(f"{file} says include_prompt: false, which textcl does not support behind WordWeights.")
        mode = _pooling_mode(file, content)
        # several poolings share a mode; the first of them is the plain one
        names = {mode: name for name, each in reversed(POOLINGS.items()) for mode in each.modes or ()}
        if mode not in names:
            key = "pooling_mode" if "pooling_mode" in content else f"pooling_mode_{mode}_tokens"
            raise InputError(f"{file} says {key}: {mode}, but textcl supports one of {sorted(set(names.values()))}.")
        self.settings.pooling = names[mode]
        if weights := self.layer_weights:
            for name, each in POOLINGS.items():
                several = each.layers != "last" and mode in (each.modes or ())
                if several and weights == each.layer_weights(len(weights) - 1):
                    self.settings.pooling = name
                    return
            self.settings.layer_weights = torch.tensor(weights)

    def dense(self, place: Path) -> None:
        file = place / "config.json"
        content = _understood_layer(
            file, ("in_features", "out_features", "bias", "activation_function", "use_residual")
        )
        name = str(content.get("activation_function", "torch.nn.modules.activation.Tanh"))
        if not name.startswith("torch.nn.") or name.rsplit(".", 1)[-1] not in ACTIVATIONS:
            raise InputError(f"{file} says activation_function: {name}, which textcl does not support.")
        layer = Dense(
            typed(file, content, "in_features", int),
            typed(file, content, "out_features", int),
            bias=typed(file, content, "bias", bool, True),
            activation=name.rsplit(".", 1)[-1],
            residual=typed(file, content, "use_residual", bool, False),
        )
        self._add(place, _load_layer(layer, place), content)

    def layer_norm(self, place: Path) -> None:
        file = place / "config.json"
        layer = Norm(typed(file, understood(file, ("dimension",)), "dimension", int))
        weights = {name.removeprefix("norm."): value for name, value in tensors(place).items()}
        self._add(place, _load_layer(layer, place, weights), {})

    def normalize(self, place: Path) -> None:
        content = _understood_layer(place / "config.json", ())
        if _input_of(content) == _OF_TEXT and not self.pooled:
            return  # sentence-transformers passes over it, because there is no vector of the text yet
        self._add(place, UnitLength(), content)

    def dropout(self, place: Path) -> None:
        understood(place / "config.json", ("dropout",))  # it changes no vector

    def finish(self, folder: Path, truncate: int | None) -> None:
        """Puts the layers behind the pooling into `head`, `projection`, `normalize` and `layers`."""
        settings = self.settings
        if not self.started or not self.pooled:
            raise InputError(f"{folder / 'modules.json'} must name a Transformer and a Pooling.")
        layers = settings.layers
        if settings.head is None and settings.projection is None and layers and _is_head(layers[0]):
            settings.head = _linear(layers.pop(0))
            settings.pooling = "pooler" if settings.pooling == "cls" else settings.pooling
        if settings.projection is None and layers and _is_projection(layers[0]):
            settings.projection = _linear(layers.pop(0))
        if truncate is not None:
            layers.append(FirstDimensions(truncate))
        elif layers and isinstance(layers[-1], UnitLength):
            settings.normalize = True
            layers.pop()
        if settings.token_weights is not None and not POOLINGS[settings.pooling or "mean"].averages:
            raise InputError(
                f"{folder} weighs tokens and then pools with {settings.pooling}, which textcl does not support."
            )

    def _before_pooling(self, place: Path, kind: str, again: bool = False) -> None:
        """Raises an error unless this is the place of such a module; `again`: there was one already."""
        changed = bool(self.settings.token_layers) or self.settings.token_weights is not None
        if not self.started or self.pooled or changed or again:
            raise InputError(
                f"{place}: textcl supports a {kind} only between Transformer and Pooling, once, and before other "
                "modules that change the vectors of tokens."
            )

    def _add(self, place: Path, layer: torch.nn.Module, content: Mapping[str, Any]) -> None:
        """Adds a layer to those of tokens or those of texts, as its configuration says."""
        name = _input_of(content)
        of_tokens = name == _OF_TOKENS
        known = of_tokens or name == _OF_TEXT
        if not known or of_tokens == self.pooled or (of_tokens and self.settings.token_weights is not None):
            raise InputError(
                f"{place / 'config.json'} says module_input_name: {name}, which textcl does not support at this "
                "place: token_embeddings before the Pooling and without WordWeights, sentence_embedding behind it."
            )
        (self.settings.token_layers if of_tokens else self.settings.layers).append(layer)


_OF_TEXT, _OF_TOKENS = "sentence_embedding", "token_embeddings"  # what sentence-transformers calls their vectors


def _input_of(content: Mapping[str, Any]) -> Any:
    """Which vectors a layer changes: those of the texts or those of their tokens."""
    return content.get("module_input_name", _OF_TEXT)


def _understood_layer(file: Path, keys: Collection[str]) -> dict[str, Any]:
    """The content of a layer's config.json; the layer writes to where it reads."""
    return understood(file, (*keys, "module_input_name"), module_output_name=[None, _input_of(content_of(file))])


def _modules(file: Path, modules: Any) -> list[dict[str, Any]]:
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InputError(f"{file} is damaged: it must hold a list of modules.")
    for module in modules:
        for key, value in module.items():
            if key not in ("idx", "name", "path", "type") and not (key == "kwargs" and value == []):
                raise InputError(f"{file} says {key}: {json.dumps(value)[:80]}, which textcl does not know.")
        typed(file, module, "type", str)
        typed(file, module, "path", str)
    return modules


def _read_prompts(folder: Path, settings: Settings) -> int | None:
    """Reads config_sentence_transformers.json; returns the number of dimensions to keep."""
    file = folder / "config_sentence_transformers.json"
    content = understood(
        file,
        ("__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "requirements"),
        model_type=[None, "SentenceTransformer"],
    )
    check_requirements(file, content.get("requirements"))
    prompts = content.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        prompt is None or isinstance(prompt, str) for prompt in prompts.values()
    ):
        raise InputError(f"{file}: prompts must be an object of strings.")
    settings.prompts = {name: prompt or "" for name, prompt in prompts.items()}
    if content.get("default_prompt_name") is not None:
        name = settings.default_prompt_name = typed(file, content, "default_prompt_name", str)
        if name not in settings.prompts:
            raise InputError(f"{file} says default_prompt_name: {name}, which is not among its prompts.")
    if (similarity := content.get("similarity_fn_name")) not in (None, "cosine"):
        logger.warning("%s says similarity_fn_name: %s; textcl compares vectors by their cosine.", file, similarity)
    if content.get("truncate_dim") is None:
        return None
    return int(typed(file, content, "truncate_dim", int))


def _read_transformer(place: Path, settings: Settings) -> bool:
    """Reads the length and the tokenizer's options; returns whether the backbone returns the vectors of all layers."""
    file = next(
        (place / name for name in _TRANSFORMER_FILES if content_of(place / name)), place / _TRANSFORMER_FILES[0]
    )
    content = understood(
        file,
        (
            *("max_seq_length", "do_lower_case", "unpad_inputs", "tokenizer_args", "processor_kwargs"),
            *("model_args", "model_kwargs", "config_args", "config_kwargs"),
        ),
        transformer_task=["feature-extraction"],
        modality_config=[_TEXT_ONLY],
        module_output_name=["token_embeddings"],
        processing_kwargs=[None, {}],
        query_length=[None],
        document_length=[None],
        query_expansion=[None],
        tokenizer_name_or_path=[None],
    )
    options = {}
    for kind, (old, new), known in (
        ("tokenizer", ("tokenizer_args", "processor_kwargs"), _TOKENIZER_OPTIONS),
        ("model", ("model_args", "model_kwargs"), _MODEL_OPTIONS),
        ("config", ("config_args", "config_kwargs"), _CONFIG_OPTIONS),
    ):
        key = old if old in content else new
        options[kind] = typed(file, content, key, dict, {})
        for name, value in options[kind].items():
            if name not in known or (known[name] and value not in known[name]):
                raise InputError(f"{file} says {name}: {json.dumps(value)[:80]} in {key}, which textcl does not know.")
    given = options["tokenizer"]
    settings.tokenizer_options = {name: given[name] for name in ("truncation_side", "padding_side") if name in given}
    settings.lower_case = bool(typed(file, content, "do_lower_case", bool, None))
    length = typed(file, content, "max_seq_length", int, None) if content.get("max_seq_length") is not None else None
    if given.get("model_max_length") is not None:
        length = typed(file, given, "model_max_length", int)
    settings.max_length = length
    settings.length_of_tokenizer = length is None
    of_backbone = content_of(place / "config.json").get("output_hidden_states", False)
    return bool(options["config"].get("output_hidden_states", of_backbone))


# The options that a directory may give to tokenizer, model and configuration; empty: any value.
_TOKENIZER_OPTIONS: dict[str, tuple[Any, ...]] = {
    "model_max_length": (),
    "truncation_side": ("left", "right"),
    "padding_side": ("left", "right"),
    "use_fast": (True, None),
    "trust_remote_code": (),
}
_MODEL_OPTIONS: dict[str, tuple[Any, ...]] = {
    "attn_implementation": (),
    "add_pooling_layer": (),
    "dtype": ("float32", "auto", None),
    "torch_dtype": ("float32", "auto", None),
    "trust_remote_code": (),
    "use_safetensors": (),
}
_CONFIG_OPTIONS: dict[str, tuple[Any, ...]] = {
    "output_hidden_states": (True, False),
    "use_cache": (),
    "trust_remote_code": (),
}


def _pooling_mode(file: Path, content: Mapping[str, Any]) -> str:
    """The one mode of a Pooling, by the name that sentence-transformers 5.4 gives it."""
    if "pooling_mode" in content:
        named = content["pooling_mode"]
        modes = [named] if isinstance(named, str) else named
        key = "pooling_mode"
    else:
        keys = [key for key in _LEGACY_MODES if content.get(key)]
        modes = [key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for key in keys]
        modes, key = modes or ["mean"], " and ".join(keys)
    if not isinstance(modes, list) or len(modes) != 1 or not isinstance(modes[0], str):
        raise InputError(f"{file} says {key}: {modes}, but textcl pools in one way.")
    return str(modes[0])


def _load_layer(layer: torch.nn.Module, place: Path, weights: dict[str, Tensor] | None = None) -> torch.nn.Module:
    weights = tensors(place) if weights is None else weights
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if shapes != found:
        raise InputError(f"{place}: the weights {found} do not fit its config.json, which says {shapes}.")
    layer.load_state_dict(weights)
    return layer


def _is_head(layer: torch.nn.Module) -> bool:
    """Whether the layer is a square dense one with tanh, as BERT's pooler has it."""
    if not isinstance(layer, Dense) or layer.adds_input or layer.linear.bias is None:
        return False
    return isinstance(layer.activation, torch.nn.Tanh) and layer.linear.in_features == layer.linear.out_features


def _is_projection(layer: torch.nn.Module) -> bool:
    return isinstance(layer, Dense) and isinstance(layer.activation, torch.nn.Identity) and not layer.adds_input


def _linear(layer: torch.nn.Module) -> dict[str, Tensor]:
    assert isinstance(layer, Dense)
    return {name: value.detach() for name, value in layer.linear.state_dict().items()}


def _read_own(folder: Path, chain: _Chain) -> None:
    """Reads the files of a directory that only textcl loads."""
    settings, file = chain.settings, folder / "textcl.json"
    content = understood(file, ("pooling", "normalize", "pool_prompt", "before_pooling", "behind_pooling"))
    chain.started = True
    chain.outputs_layers = _read_transformer(folder, settings)
    for module in _modules(file, content.get("before_pooling", [])):
        chain.read(folder, module)
    chain.pooled = True
    settings.pooling = typed(file, content, "pooling", str)
    settings.layer_weights = torch.tensor(chain.layer_weights) if chain.layer_weights else None
    settings.normalize = typed(file, content, "normalize", bool)
    settings.pool_prompt = typed(file, content, "pool_prompt", bool, True)
    if (place := folder / "token_weights.safetensors").is_file():
        settings.token_weights = _named(place, {"token_weights": 1})["token_weights"]
    if (place := folder / "head.safetensors").is_file():
        settings.head = _named(place, {"weight": 2, "bias": 1})
    if (place := folder / "projection.safetensors").is_file():
        settings.projection = _named(place, {"weight": 2}, {"bias": 1})
    for module in _modules(file, content.get("behind_pooling", [])):
        chain.read(folder, module)


def _named(
    file: Path, needed: Mapping[str, int], allowed: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Tensor]:
    """The tensors of a file, by names and numbers of dimensions."""
    found = {key.removeprefix("linear."): value for key, value in read_tensors(file).items()}
    known = {**needed, **allowed}
    if not set(needed) <= set(found) <= set(known) or any(value.ndim != known[name] for name, value in found.items()):
        raise InputError(f"{file} is damaged: it must hold {', '.join(needed)}.")
    return found
