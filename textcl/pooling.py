"""From token vectors to one vector a sentence.

Each function takes the hidden states of every layer, each (rows, length, dim), the attention mask (rows, length) and
a mask of the tokenizer's mask tokens (rows, length), and returns (rows, dim). Layer 0 is the embedding layer.
Half types are summed in float32.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from textcl.errors import InputError, nearest

HiddenStates = Sequence[Tensor]


def cls(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The first token of the last layer."""
    return hidden[-1][:, 0]


def last_token(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The last token that is no padding, of the last layer."""
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
    return hidden[-1][torch.arange(len(last), device=last.device), last]


def mean(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the last layer, special tokens included."""
    return _masked_mean(hidden[-1], mask)


def maximum(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The largest value of each dimension over the tokens of the last layer."""
    return hidden[-1].masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def first_last(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the first and the last layer.

    The first layer is hidden state 1, what the first transformer block gives, and not the embedding layer that early
    SimCSE code took for it (Gao et al. 2021, corrected in January 2022: 60.73 in place of 56.70 for BERT-base).
    """
    return _masked_mean((hidden[1] + hidden[-1]) / 2, mask)


def last2(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the last two layers (Yan et al. 2021, §4.1)."""
    return _masked_mean((hidden[-2] + hidden[-1]) / 2, mask)


def mask_token(hidden: HiddenStates, mask: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the mask tokens of the last layer (Jiang et al. 2022, PromptBERT)."""
    return _masked_mean(hidden[-1], mask_tokens)


def _masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(torch.promote_types(vectors.dtype, torch.float32))
    return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


Pooling = Callable[[HiddenStates, Tensor, Tensor], Tensor]

# "pooler" takes [CLS] as well; what makes it one is the dense tanh layer that the Encoder puts behind it.
POOLINGS: dict[str, Pooling] = {
    "cls": cls,
    "pooler": cls,
    "mean": mean,
    "max": maximum,
    "last_token": last_token,
    "first_last": first_last,
    "last2": last2,
    "mask_token": mask_token,
}

LAYERS: dict[str, str] = {"first_last": "1 and last", "last2": "last two"}


def check_pooling(name: str) -> None:
    """Raises `InputError`, with the nearest name, if there is no such pooling."""
    if name not in POOLINGS:
        raise InputError(f"There is no pooling {name!r}.{nearest(name, POOLINGS)} There are: {', '.join(POOLINGS)}.")


def layer_weights(pooling: str, layers: int) -> list[float]:
    """How much each hidden state counts, from the embedding layer (0) to the last of `layers` blocks."""
    weights = [0.0] * (layers + 1)
    chosen = {"first_last": (1, layers), "last2": (layers - 1, layers)}.get(pooling, (layers,))
    for layer in chosen:
        weights[layer] += 1 / len(chosen)
    return weights
