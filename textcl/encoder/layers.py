"""Layers on token vectors before the pooling, and behind the pooling, as a sentence-transformers directory has them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from textcl.encoder.pooling import POOLINGS

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

ACTIVATIONS = {
    name: getattr(nn, name)
    for name in (
        *("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "SELU", "CELU", "Mish"),
        *("ReLU6", "Hardtanh", "Hardswish", "Hardsigmoid", "Softplus", "Softsign", "LogSigmoid", "Tanhshrink"),
    )
}
"""The activations of a dense layer by the name of their class in `torch.nn`; all are made without arguments."""


class Dense(nn.Module):
    """activation(W x + b) of vectors (…, inputs), to (…, outputs); with `residual`, x or its projection is added.

    Args:
        inputs: Dimension of the vectors.
        outputs: Dimension of the result.
        bias: Whether there is a b.
        activation: One of `ACTIVATIONS`.
        residual: Whether the input is added, through a linear layer without bias if the dimensions differ.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, activation: str = "Tanh", residual: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.adds_input = residual
        if residual and inputs != outputs:
            self.residual: nn.Module = nn.Linear(inputs, outputs, bias=False)
        else:
            self.residual = nn.Identity()

    def forward(self, vectors: Tensor) -> Tensor:
        changed: Tensor = self.activation(self.linear(vectors))
        return changed + self.residual(vectors) if self.adds_input else changed

    def extra_repr(self) -> str:
        return "residual" if self.adds_input else ""


class Norm(nn.LayerNorm):
    """Layer normalisation of vectors (…, dim)."""


class UnitLength(nn.Module):
    """Scales vectors (…, dim) to length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=-1)


class FirstDimensions(nn.Module):
    """The first `count` dimensions of vectors (…, dim), as models with Matryoshka training allow."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors[..., : self.count]


Layer = Dense | Norm | UnitLength | FirstDimensions


def inputs_of(layer: nn.Module) -> int | None:
    """The dimension of the vectors that a layer takes; None: any."""
    if isinstance(layer, Norm):
        return int(layer.normalized_shape[0])
    return layer.linear.in_features if isinstance(layer, Dense) else None


def dimension_behind(layers: Iterable[nn.Module], dimension: int) -> int:
    """The dimension of vectors behind the layers, if they have `dimension` before them."""
    for layer in layers:
        if isinstance(layer, Dense):
            dimension = layer.linear.out_features
        elif isinstance(layer, FirstDimensions):
            dimension = min(dimension, layer.count)
    return dimension


def with_first_dimensions(encoder: "Encoder", count: int) -> "Encoder":
    """An encoder that keeps the first `count` dimensions of its vectors, and normalises them behind the cut, if at all.

    It shares its weights with the given one. An export says so as `truncate_dim`, or, if vectors are normalised, by a
    layer before `Normalize`, because sentence-transformers cuts behind it.
    """
    cut = encoder.with_()
    cut.layers = nn.ModuleList([*encoder.layers, FirstDimensions(count)])
    return cut


def apply_layers(layers: Iterable[nn.Module], vectors: Tensor) -> Tensor:
    """Vectors (…, dim) behind the layers, in float32 or wider, whatever the autocast.

    Each layer computes in the type of its weights, which is a half type after `Encoder.half()`.
    """
    wide = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(vectors.device.type, enabled=False):
        for layer in layers:
            vectors = layer(in_type_of(layer, vectors.to(wide)))
    return vectors.to(wide)


def in_type_of(layer: nn.Module, vectors: Tensor) -> Tensor:
    """The vectors in the type of a layer's weights, unchanged if it has none."""
    weights = next(layer.parameters(), None)
    return vectors if weights is None else vectors.to(weights.dtype)


def pooled_dimension(encoder: "Encoder") -> int:
    """The dimension of vectors directly behind the pooling."""
    return dimension_behind(encoder.token_layers, int(encoder.backbone.config.hidden_size))


def layers_read(encoder: "Encoder") -> str:
    """The hidden states that the pooling reads, as results name them."""
    if encoder.layer_weights is None:
        return POOLINGS[encoder.pooling].layers
    return "weighted " + ", ".join(f"{weight:g}" for weight in encoder.layer_weights.tolist())


def further_layers(encoder: "Encoder") -> dict[str, str | bool]:
    """What results record of layers other than head and projection, and of the prompt."""
    named = {"token_layers": encoder.token_layers, "further_layers": encoder.layers}
    described = {name: ", ".join(map(describe_layer, layers)) for name, layers in named.items() if layers}
    return {**described, **({} if encoder.pool_prompt else {"pool_prompt": False})}


def describe_layer(layer: nn.Module) -> str:
    """One layer in a few words, for results and fingerprints."""
    if isinstance(layer, Dense):
        added = " plus its input" if layer.adds_input else ""
        size = f"{layer.linear.in_features} to {layer.linear.out_features}"
        return f"dense {type(layer.activation).__name__} {size}{added}"
    if isinstance(layer, FirstDimensions):
        return f"first {layer.count} dimensions"
    if isinstance(layer, Norm):
        return "layer norm"
    return "unit length" if isinstance(layer, UnitLength) else type(layer).__name__
