"""Poolings: from token vectors to one vector per text.

Each function takes the hidden states of every layer, the rows that they belong to, the weight of each token in an
average, and which tokens are mask tokens; it returns (rows, dim). Layer 0 is the embedding layer. Rows are padded,
(rows, length, dim), or packed, (1, tokens, dim); weights and mask tokens have the same shape without dim. Half
precision is summed in float32.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from textcl.errors import InputError, nearest
from textcl.texts import each_text
from textcl.tokenising import vocabulary_size, whole_ids

HiddenStates = Sequence[Tensor]


class DenseTanh(nn.Module):
    """A dense layer followed by tanh, (rows, dim) to (rows, dim): the head of BERT's pooler and of SimCSE.

    It computes in the type of its weights, because embeddings are float32 also if the weights are not.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dimension, dimension)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.tanh(self.dense(embeddings.to(self.dense.weight.dtype)))


@dataclass(frozen=True)
class Padded:
    """Rows of vectors, (rows, length, dim), padded on the right.

    Code here reads `shape[0]`, not `len`, which would fix the number of rows in an exported graph.

    Attributes:
        mask: 1 where a token is pooled, else 0, (rows, length).
        skip: True at the tokens of a prompt that is not pooled, (rows, length); None: all tokens are pooled.
    """

    mask: Tensor
    skip: Tensor | None = None

    def first(self, vectors: Tensor) -> Tensor:
        if self.skip is None:
            return vectors[:, 0]
        return vectors[torch.arange(vectors.shape[0], device=vectors.device), self.mask.argmax(dim=1)]

    def last(self, vectors: Tensor) -> Tensor:
        last = (self.mask * torch.arange(self.mask.shape[1], device=self.mask.device)).argmax(dim=1)
        return vectors[torch.arange(last.shape[0], device=last.device), last]

    def total(self, vectors: Tensor) -> Tensor:
        """The sum of vectors that are zero at padding."""
        return vectors.sum(dim=1)

    def largest(self, vectors: Tensor) -> Tensor:
        return vectors.masked_fill(self.mask[..., None] == 0, float("-inf")).amax(dim=1)


@dataclass(frozen=True)
class Packed:
    """Packed rows of vectors, one row directly after the other, (1, tokens, dim), without padding.

    Attributes:
        lengths: Tokens of each row, (rows,).
        skip: True at the tokens of a prompt that is not pooled, (1, tokens); None: all tokens are pooled.
    """

    lengths: Tensor
    skip: Tensor | None = None

    def first(self, vectors: Tensor) -> Tensor:
        starts = self.lengths.cumsum(dim=0) - self.lengths
        if self.skip is not None:
            skipped = torch.segment_reduce(self.skip[0].float(), "sum", lengths=self.lengths, unsafe=True).long()
            starts = starts + skipped.where(skipped < self.lengths, 0)
        return vectors[0].index_select(0, starts)

    def last(self, vectors: Tensor) -> Tensor:
        return vectors[0].index_select(0, self.lengths.cumsum(dim=0) - 1)

    def total(self, vectors: Tensor) -> Tensor:
        return self._reduced(vectors, "sum")

    def largest(self, vectors: Tensor) -> Tensor:
        if self.skip is not None:
            vectors = vectors.masked_fill(self.skip[..., None], float("-inf"))
        return self._reduced(vectors, "max")

    def _reduced(self, vectors: Tensor, how: str) -> Tensor:
        # unsafe=True, because a check of the lengths would wait for a GPU
        return torch.segment_reduce(vectors[0].contiguous(), how, lengths=self.lengths, unsafe=True)


Rows = Padded | Packed


def cls(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The first token of the last layer."""
    return rows.first(hidden[-1])


def last_token(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The last token that is not padding, of the last layer."""
    return rows.last(hidden[-1])


def mean(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the last layer, special tokens included."""
    return _mean(hidden[-1], rows, weights)


def maximum(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The largest value of each dimension over the tokens of the last layer."""
    return rows.largest(hidden[-1])


def first_last(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the first and the last layer.

    The first layer is hidden state 1, the output of the first transformer block. It is not the embedding layer, which
    early SimCSE code used (Gao et al. 2021, corrected in January 2022: 60.73 instead of 56.70 for BERT-base).
    """
    return _mean((hidden[1] + hidden[-1]) / 2, rows, weights)


def last2(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the tokens of the last two layers (Yan et al. 2021, §4.1)."""
    return _mean((hidden[-2] + hidden[-1]) / 2, rows, weights)


def mask_token(hidden: HiddenStates, rows: Rows, weights: Tensor, mask_tokens: Tensor) -> Tensor:
    """The mean over the mask tokens of the last layer (Jiang et al. 2022, PromptBERT)."""
    return _mean(hidden[-1], rows, mask_tokens)


def _mean(vectors: Tensor, rows: Rows, weights: Tensor) -> Tensor:
    weights = weights[..., None].to(torch.promote_types(vectors.dtype, torch.float32))
    return rows.total(vectors * weights) / rows.total(weights).clamp(min=1e-9)


@dataclass(frozen=True)
class Pooling:
    """Everything that textcl knows about a pooling.

    Attributes:
        function: From hidden states to (rows, dim).
        modes: The names of the pooling in sentence-transformers: the legacy key of the configuration, and the name from
            release 5.4 on; None: sentence-transformers does not have this pooling.
        layers: The layers that it reads, as results name them.
        hidden_states: The numbers of these layers; 0 is the embedding layer, −1 the last layer.
        averages: Whether it averages over all tokens of a text, so that `token_weights` apply.
    """

    function: Callable[[HiddenStates, Rows, Tensor, Tensor], Tensor]
    modes: tuple[str, str] | None
    layers: str = "last"
    hidden_states: tuple[int, ...] = (-1,)
    averages: bool = False

    def layer_weights(self, blocks: int) -> list[float]:
        """The weight of each hidden state, from the embedding layer (0) to the last of `blocks` transformer blocks."""
        weights = [0.0] * (blocks + 1)
        for layer in self.hidden_states:
            weights[layer] += 1 / len(self.hidden_states)
        return weights


_CLS, _MEAN = ("pooling_mode_cls_token", "cls"), ("pooling_mode_mean_tokens", "mean")

POOLINGS: dict[str, Pooling] = {
    "cls": Pooling(cls, _CLS),
    "pooler": Pooling(cls, _CLS),  # the Encoder puts a dense tanh layer behind it
    "mean": Pooling(mean, _MEAN, averages=True),
    "max": Pooling(maximum, ("pooling_mode_max_tokens", "max")),
    "last_token": Pooling(last_token, ("pooling_mode_lasttoken", "lasttoken")),
    "first_last": Pooling(first_last, _MEAN, "1 and last", (1, -1), averages=True),
    "last2": Pooling(last2, _MEAN, "last two", (-2, -1), averages=True),
    "mask_token": Pooling(mask_token, None),
}


def check_pooling(name: str) -> None:
    """Raises `InputError`, with the nearest name, if there is no such pooling."""
    if name not in POOLINGS:
        raise InputError(f"There is no pooling {name!r}.{nearest(name, POOLINGS)} There are: {', '.join(POOLINGS)}.")


def smooth_inverse_frequency(tokenizer: Any, texts: Iterable[str], a: float = 1e-3) -> Tensor:
    """The weight of each token in an average: a / (a + p), where p is the token's share of all tokens in `texts`.

    Arora, Liang and Ma, "A simple but tough-to-beat baseline for sentence embeddings" (ICLR 2017), section 3; only the
    first of their two steps. Words that occur everywhere say little about the topic of a text. Special tokens occur in
    every text, so they get a low weight like other frequent tokens. A token that never occurs has weight 1.

    Args:
        tokenizer: The encoder's tokenizer.
        texts: A corpus of the domain, such as the training texts; never the texts of the evaluation.
        a: The share p at which the weight is one half; the authors take 1e-3 to 1e-4.

    Returns:
        (vocabulary,), for `Encoder.token_weights`.

    Raises:
        InputError: If `a` is not positive, or there is no text.

    Example:
        >>> encoder.token_weights = smooth_inverse_frequency(encoder.tokenizer, corpus)  # doctest: +SKIP
    """
    if not a > 0:
        raise InputError(f"The a of smooth inverse frequency must be a positive number such as 1e-3, not {a}.")
    counts = torch.zeros(vocabulary_size(tokenizer), dtype=torch.float64)
    stream = each_text(texts)
    while window := list(islice(stream, 8192)):
        ids = torch.tensor(list(chain.from_iterable(whole_ids(tokenizer, window))), dtype=torch.long)
        counts += torch.bincount(ids, minlength=len(counts))
    if not counts.any():
        raise InputError("Token frequencies cannot be counted, because there is no text.")
    return (a / (a + counts / counts.sum())).float()
