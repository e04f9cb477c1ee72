"""The export: a directory that `SentenceTransformer(path)`, plain `AutoModel` and `Encoder` all load.

Module references are the legacy ones (`sentence_transformers.models.…`), which releases from 2.0 to 6.2 understand.
Weights are safetensors. The directory holds no pickle and names no remote code. `directory.py` reads it.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from textcl.encoder.layers import Dense, FirstDimensions, Layer, Norm, UnitLength, dimension_behind
from textcl.encoder.pooling import POOLINGS
from textcl.encoder.static import UNCUT, StaticBackbone, save_static
from textcl.errors import InputError
from textcl.files import atomic_directory

logger = logging.getLogger("textcl")

_ONE_AT_A_TIME = RLock()
# The files that a model directory may have, of textcl, transformers or sentence-transformers. An export replaces a
# directory of these files, and no other directory.
MODEL_FILE = re.compile(
    r"(\d+_(Transformer|Pooling|Dense|Normalize|WordWeights|WeightedLayerPooling|LayerNorm|Dropout)/)?"
    r"(((tokenizer|generation|adapter|sentence_\w+)_)?config\.json|config_sentence_transformers\.json"
    r"|(modules|textcl|overlap|adapt|tokenizer|vocab|special_tokens_map|added_tokens)\.json|vocab\.txt|merges\.txt"
    r"|(entity_vocab|byte_maps|emoji|word_shape|word_pronunciation)\.json|bpe\.codes"
    r"|(model(-\d+-of-\d+)?|head|projection|token_weights|adapter_model)\.safetensors|model\.safetensors\.index\.json"
    r"|pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"
    r"|(spiece|spm|tokenizer|sentencepiece(\.bpe)?)\.model|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja"
    r"|README\.md|report\.html|\.gitattributes)"
)
ONLY_TEXTCL = "textcl.Encoder"  # an unknown module makes sentence-transformers raise instead of pooling wrongly
_LEGACY = "sentence_transformers.models"


@dataclass
class Settings:
    """The settings in a model directory, in addition to the backbone's weights.

    Attributes:
        backbone: The backbone's folder in the directory.
        static: Whether the backbone is a table of token vectors, see `textcl.encoder.static`.
        pooling: The name of the pooling.
        max_length: Tokens after which a text is cut.
        length_of_tokenizer: Whether the directory leaves the length to its tokenizer.
        tokenizer_options: The sides on which the tokenizer cuts and pads, if the directory names them.
        lower_case: Whether texts are lower-cased first.
        layer_weights: The weight of each hidden state, (blocks + 1,).
        token_weights: The weight of each token of the vocabulary, (vocabulary,).
        token_layers: Layers on the vectors of tokens, before the pooling.
        head: The dense tanh layer behind the pooling.
        projection: The linear layer behind pooling and head.
        layers: Further layers behind them, in order.
        normalize: Whether vectors have length 1.
        prompts: The prompts by name.
        default_prompt_name: The prompt that is taken if none is named.
        pool_prompt: Whether the tokens of a prompt are pooled.
    """

    backbone: str = ""
    static: bool = False
    pooling: str | None = None
    max_length: int | None = None
    length_of_tokenizer: bool = False
    tokenizer_options: dict[str, str] = field(default_factory=dict)
    lower_case: bool = False
    layer_weights: Tensor | None = None
    token_weights: Tensor | None = None
    token_layers: list[nn.Module] = field(default_factory=list)
    head: dict[str, Tensor] | None = None
    projection: dict[str, Tensor] | None = None
    layers: list[nn.Module] = field(default_factory=list)
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    pool_prompt: bool = True


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides transformers' progress bars and its report of weights that are left out on purpose.

    Only one thread at a time is inside, because these settings belong to the process. What transformers sets and sets
    back while it loads a model does so as well.
    """
    with _ONE_AT_A_TIME:
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
    """Whether a sentence-transformers directory can hold the settings.

    It can hold neither mask-token pooling nor a prompt around a text. If tokens have weights, sentence-transformers
    divides by the weights of all tokens, also those of a prompt that is not pooled.
    """
    around = any("{text}" in prompt for prompt in settings.prompts.values())
    weighted = settings.token_weights is not None and not settings.pool_prompt
    return settings.pooling != "mask_token" and not around and not weighted


def requirements(settings: Settings) -> dict[str, str]:
    """The lowest versions that load an export with equal vectors; `Encoder` and `SentenceTransformer` (6) refuse lower.

    Measured with random models of eight architectures: 5.4 of both gives the same bits. Before release 6,
    sentence-transformers refuses `use_residual`, passes over Normalize on tokens, and takes [CLS] from a prompt that is
    not pooled.
    """
    adds = any(isinstance(layer, Dense) and layer.adds_input for layer in (*settings.token_layers, *settings.layers))
    without_prompt = settings.pooling == "cls" and not settings.pool_prompt
    newer = adds or without_prompt or any(isinstance(layer, UnitLength) for layer in settings.token_layers)
    return {"transformers": ">=5.4", "sentence-transformers": ">=6.0" if newer else ">=5.4"}


def save(
    path: Path,
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    card: str,
    source: Path | None = None,
) -> Path:
    """Writes the directory `path`, first under a temporary name.

    An existing directory is replaced if it is empty, or a model directory and nothing else.

    Args:
        path: The directory.
        backbone: The transformer.
        tokenizer: The tokenizer of the backbone.
        settings: The settings, which `directory.read_settings` reads again.
        card: Text of README.md.
        source: The directory that the backbone was loaded from. What it says of the texts that it was trained on
            (overlap.json) is true of this one too.

    Raises:
        InputError: There is something at `path` that is not a model, or the disk is full.
    """
    assert settings.pooling is not None
    layers, truncate = _split_truncation(settings)
    check_savable(backbone, settings)
    static = isinstance(backbone, StaticBackbone)
    with atomic_directory(path, MODEL_FILE) as folder:
        if isinstance(backbone, StaticBackbone):
            save_static(backbone, tokenizer, settings.max_length or UNCUT, folder)
        else:
            _save_backbone(backbone, tokenizer, settings, folder)
            _write(
                folder / "sentence_bert_config.json",
                {"max_seq_length": settings.max_length, "do_lower_case": False},  # lower-casing is in the tokenizer
            )
        _write(
            folder / "config_sentence_transformers.json",
            {
                "prompts": settings.prompts,
                "default_prompt_name": settings.default_prompt_name,
                "similarity_fn_name": "cosine",
                **({} if truncate is None else {"truncate_dim": truncate}),
                "requirements": requirements(settings),
            },
        )
        modules = _Modules(folder, int(backbone.config.hidden_size), "StaticEmbedding" if static else "Transformer")
        if expressible(settings):
            if not static:
                modules.before_pooling(settings, backbone.config.num_hidden_layers, tokenizer)
                modules.pooling(settings)
            modules.head_and_projection(settings)
            modules.layers(layers)
            if settings.normalize:
                modules.add("Normalize", {})
            named = modules.named
        else:
            _save_own(folder, modules, settings, layers)
            named = [{"path": "", "type": ONLY_TEXTCL}]
            logger.warning(
                "sentence-transformers cannot express pooling %s with its prompt: only textcl.Encoder loads %s.",
                settings.pooling,
                path,
            )
        _write(folder / "modules.json", [{"idx": i, "name": str(i), **module} for i, module in enumerate(named)])
        (folder / "README.md").write_text(card, encoding="utf-8")
        if source is not None and (seen := source / "overlap.json").is_file():
            shutil.copyfile(seen, folder / seen.name)
    return path


def check_savable(backbone: PreTrainedModel, settings: Settings) -> None:
    """Raises an `InputError` if `save` would.

    A static encoder is saved as a table and a tokenizer, and no more; layers of other kinds would be lost.
    """
    for layer in (*settings.token_layers, *settings.layers):
        if not isinstance(layer, Layer):
            raise InputError(
                f"An encoder cannot be saved with a layer {type(layer).__name__}; layers and token_layers are of "
                "textcl.encoder.layers: Dense, Norm, UnitLength or FirstDimensions."
            )
    more = not expressible(settings) or settings.token_weights is not None or settings.token_layers
    if isinstance(backbone, StaticBackbone) and more:
        raise InputError(
            "A static encoder cannot be saved with weights of tokens (--smooth-inverse-frequency), a prompt around the "
            "text (--template), or layers before the mean; leave them out, or take a model with a transformer."
        )


def _split_truncation(settings: Settings) -> tuple[list[nn.Module], int | None]:
    """The layers behind the pooling without a truncation at their end, and the number of dimensions that it keeps."""
    last = settings.layers[-1] if settings.layers else None
    if isinstance(last, FirstDimensions) and not settings.normalize:
        return settings.layers[:-1], last.count
    return settings.layers, None


def _save_backbone(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings, folder: Path
) -> None:
    pooler = getattr(getattr(backbone, "pooler", None), "dense", None)
    if settings.pooling == "pooler" and settings.head is not None and pooler is not None:
        pooler.load_state_dict(settings.head)  # published SimCSE checkpoints keep their head there
    # WeightedLayerPooling reads the hidden states of all layers
    several = POOLINGS[settings.pooling or "mean"].layers != "last" or settings.layer_weights is not None
    backbone.config.output_hidden_states = several
    try:
        with quiet_transformers():
            backbone.save_pretrained(folder)
    finally:
        backbone.config.output_hidden_states = False
    # as textcl pads: sentence-transformers pads as the tokenizer says, and cannot without a token
    side, token = tokenizer.padding_side, tokenizer.pad_token
    tokenizer.padding_side, tokenizer.pad_token = "right", token or tokenizer.eos_token
    if tokenizer.truncation_side != "right":  # transformers saves a side that was set later only if a file named one
        tokenizer.init_kwargs["truncation_side"] = tokenizer.truncation_side
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.padding_side, tokenizer.pad_token = side, token


def _save_own(folder: Path, modules: "_Modules", settings: Settings, layers: Sequence[nn.Module]) -> None:
    """Writes what sentence-transformers cannot express, for textcl alone."""
    own: dict[str, Any] = {"pooling": settings.pooling, "normalize": settings.normalize}
    if not settings.pool_prompt:
        own["pool_prompt"] = False
    if settings.token_weights is not None:
        save_file({"token_weights": settings.token_weights}, folder / "token_weights.safetensors")
    if settings.head is not None:
        save_file(_dense_weights(settings.head), folder / "head.safetensors")
    if settings.projection is not None:
        save_file(_dense_weights(settings.projection), folder / "projection.safetensors")
    if settings.layer_weights is not None:
        modules.layer_weights(settings.layer_weights.tolist())
    modules.layers(settings.token_layers, of_tokens=True)
    before = len(modules.named)
    modules.layers(layers)
    for name, named in (("before_pooling", modules.named[1:before]), ("behind_pooling", modules.named[before:])):
        if named:
            own[name] = named
    _write(folder / "textcl.json", own)


class _Modules:
    """Writes the folders of modules, and collects what modules.json says of them."""

    def __init__(self, folder: Path, dimension: int, first: str) -> None:
        self.folder = folder
        self.dimension = dimension
        self.named = [{"path": "", "type": f"{_LEGACY}.{first}"}]

    def add(self, name: str, config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> None:
        place = self.folder / f"{len(self.named)}_{name}"
        place.mkdir()
        _write(place / "config.json", config)
        if weights:
            save_file(weights, place / "model.safetensors")
        self.named.append({"path": place.name, "type": f"{_LEGACY}.{name}"})

    def layer_weights(self, weights: list[float]) -> None:
        self.add(
            "WeightedLayerPooling",
            {"word_embedding_dimension": self.dimension, "layer_start": 0, "num_hidden_layers": len(weights) - 1},
            {"layer_weights": torch.tensor(weights)},
        )

    def before_pooling(self, settings: Settings, blocks: int, tokenizer: PreTrainedTokenizerBase) -> None:
        pooling = POOLINGS[settings.pooling or "mean"]
        if settings.layer_weights is not None:
            self.layer_weights(settings.layer_weights.tolist())
        elif pooling.layers != "last":
            self.layer_weights(pooling.layer_weights(blocks))
        if (token_weights := settings.token_weights) is not None:
            vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(token_weights))))
            weights_of = dict(zip(vocabulary, token_weights.tolist(), strict=True))
            self.add(
                "WordWeights",
                {"vocab": vocabulary, "word_weights": weights_of, "unknown_word_weight": 1.0},
                {"emb_layer.weight": token_weights[:, None].contiguous()},
            )
        self.layers(settings.token_layers, of_tokens=True)

    def pooling(self, settings: Settings) -> None:
        pooling = POOLINGS[settings.pooling or "mean"]
        modes = {each.modes[0]: False for each in POOLINGS.values() if each.modes}
        assert pooling.modes is not None  # else it is not expressible
        modes[pooling.modes[0]] = True
        self.add(
            "Pooling", {"word_embedding_dimension": self.dimension, **modes, "include_prompt": settings.pool_prompt}
        )

    def head_and_projection(self, settings: Settings) -> None:
        for layer, activation in ((settings.head, "activation.Tanh"), (settings.projection, "linear.Identity")):
            if layer is not None:
                self.dimension, inputs = layer["weight"].shape
                self.dense(inputs, "bias" in layer, f"torch.nn.modules.{activation}", {}, _dense_weights(layer))

    def layers(self, layers: Sequence[nn.Module], of_tokens: bool = False) -> None:
        place = {"module_input_name": "token_embeddings"} if of_tokens else {}
        for layer in layers:
            weights = {name: value.contiguous() for name, value in layer.state_dict().items()}
            if isinstance(layer, Dense):
                kind = type(layer.activation)
                more = {**({"use_residual": True} if layer.adds_input else {}), **place}
                bias = layer.linear.bias is not None
                self.dense(layer.linear.in_features, bias, f"{kind.__module__}.{kind.__name__}", more, weights)
            elif isinstance(layer, Norm):
                norm = {f"norm.{name}": value for name, value in weights.items()}
                self.add("LayerNorm", {"dimension": layer.normalized_shape[0]}, norm)
            elif isinstance(layer, FirstDimensions):  # only the last layer can be truncate_dim
                first = {"linear.weight": torch.eye(self.dimension)[: layer.count].contiguous()}
                self.dense(self.dimension, False, "torch.nn.modules.linear.Identity", place, first)
            else:
                self.add("Normalize", place)
            self.dimension = dimension_behind([layer], self.dimension)

    def dense(self, inputs: int, bias: bool, activation: str, more: dict[str, Any], weights: dict[str, Tensor]) -> None:
        outputs = len(weights["linear.weight"])
        config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}
        self.add("Dense", {**config, **more}, weights)


def _dense_weights(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"linear.{name}": value.contiguous() for name, value in layer.items()}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
