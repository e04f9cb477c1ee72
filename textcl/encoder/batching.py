"""Turns rows of different lengths into a few tensors with little padding.

Training, corpus encoding and the gradient cache all cut their rows here, in length order and by a token budget.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.device import KeptMemory, out_of_memory, to_device
from textcl.encoder.graphs import Graphs
from textcl.tokenising import token_ids

logger = logging.getLogger("textcl")


class Tokens(TypedDict, total=False):
    """Tokenised rows, padded on the right, as an encoder reads them."""

    input_ids: Tensor
    """Tokens, (rows, length)."""
    attention_mask: Tensor
    """1 where there is a token, 0 at padding, (rows, length)."""
    token_type_ids: Tensor
    """Zeros, if the backbone needs token types, (rows, length)."""
    lengths: np.ndarray | Tensor
    """Number of tokens of each row, (rows,). Stays on the CPU, because it decides the shapes of slices: a collator
    gives it as a numpy array, which no trainer moves. Without `lengths` the mask is summed, which waits for a GPU."""
    view: np.ndarray | Tensor
    """The number of each row's view, (rows,). Stays on the CPU for the same reason."""
    prompt_lengths: np.ndarray | Tensor
    """Number of leading tokens of each row that the pooling skips, (rows,). Stays on the CPU. Present if the encoder
    does not pool the tokens of its prompt (`Encoder.pool_prompt` is False)."""


@dataclass
class Slicing:
    """How an encoder cuts its rows into slices; shared by the copies that `Encoder.with_` makes.

    Attributes:
        token_budget: Largest number of tokens of a slice, padding included; None: the default of the device. Halved
            when memory runs out.
        gradient_cache: Whether `embed` keeps no activations and computes each slice again in backward.
        packs: Whether the backbone takes packed rows, see `textcl.encoder.forward`; None: not probed yet.
        kept: Limits the freed memory that the process keeps while slices are computed again.
        graphs: The CUDA graphs that repeat the training steps of short texts; None: none are recorded.
    """

    token_budget: int | None = None
    gradient_cache: bool = False
    packs: bool | None = None
    kept: KeptMemory = field(default_factory=KeptMemory)
    graphs: Graphs | None = None


def few_lengths(lengths: Tensor) -> Tensor:
    """Rounds lengths up, so that training has tensors of few shapes: four lengths from one power of two to the next.

    A tensor whose shape occurred before fits into the memory that earlier steps freed. Without rounding, new shapes
    occur for hundreds of steps, and the process grows.

    Args:
        lengths: Tokens of each row, (rows,).

    Returns:
        Lengths of less than 5/4 of the given ones, (rows,).

    Example:
        >>> few_lengths(torch.tensor([7, 17, 33, 65, 100, 128])).tolist()
        [7, 20, 40, 80, 112, 128]
    """
    step = 2 ** (torch.frexp(lengths.float()).exponent.long() - 3).clamp(min=0)  # the exponent is the number of bits
    return (lengths + step - 1) // step * step


def length_ordered_slices(lengths: Tensor, token_budget: int, even_from: int | None = None) -> list[Tensor]:
    """Cuts rows into slices of similar length whose padded size stays within a budget.

    Args:
        lengths: Tokens of each row, (rows,).
        token_budget: Largest number of tokens of a slice, padding included; a longer row is a slice by itself.
        even_from: A slice of at least this many tokens ends before a row that is shorter than 15/16 of its longest row;
            None: slices are as large as the budget allows.

    Returns:
        Row numbers of each slice, longest rows first, so that a batch too large for the memory fails at once.

    Example:
        >>> [s.tolist() for s in length_ordered_slices(torch.tensor([2, 8, 3, 7]), token_budget=16)]
        [[1, 3], [2, 0]]
    """
    order = torch.argsort(lengths, descending=True, stable=True)
    slices = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        rows = max(1, token_budget // longest)
        if even_from is not None:
            similar = int((16 * lengths[order[start : start + rows]] >= 15 * longest).sum())
            rows = min(rows, max(similar, -(-even_from // longest)))
        slices.append(order[start : start + rows])
        start += rows
    return slices


def in_slices(
    lengths: Tensor,
    token_budget: int,
    compute: Callable[[Tensor], None],
    slicing: Slicing | None = None,
    even_from: int | None = None,
) -> list[Tensor]:
    """Computes rows slice by slice, see `length_ordered_slices`, and in smaller slices after memory has run out.

    Args:
        lengths: Tokens of each row, (rows,).
        token_budget: Largest number of tokens of a slice, padding included.
        compute: Called with the row numbers of each slice.
        slicing: Keeps a halved budget for later calls. None: running out of memory raises.
        even_from: See `length_ordered_slices`.

    Returns:
        The slices that were computed, in their order.

    Raises:
        RuntimeError: The error of `compute`, if it has another cause or a slice of one row ran out of memory.
    """
    waiting = length_ordered_slices(lengths, token_budget, even_from)
    done: list[Tensor] = []
    while waiting:
        try:
            compute(waiting[0])
        except RuntimeError as error:
            if slicing is None or len(waiting[0]) == 1 or not out_of_memory(error):
                raise
        else:
            done.append(waiting.pop(0))
            continue
        # outside of `except`, because the traceback of the error keeps tensors in memory
        size = len(waiting[0]) * max(1, int(lengths[waiting[0]].max()))
        slicing.token_budget = size // 2
        logger.warning("Out of memory with %d tokens at a time; continuing with %d.", size, slicing.token_budget)
        torch.cuda.empty_cache()
        rest = torch.cat(waiting)
        waiting = [rest[rows] for rows in length_ordered_slices(lengths[rest], slicing.token_budget, even_from)]
    return done


def take_rows(tokens: Mapping[str, Tensor], rows: Tensor, longest: int) -> dict[str, Tensor]:
    """The given rows of every tensor; tensors with a length are cut to `longest` (padding is on the right)."""
    return {name: tensor[rows] if tensor.ndim == 1 else tensor[rows, :longest] for name, tensor in tokens.items()}


def pack(tokens: Mapping[str, Tensor], count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Packs padded rows: one row directly after the other, without padding.

    Args:
        tokens: Each (rows, length), padded on the right.
        count: The number of tokens that are not padding; an argument, because counting would wait for a GPU.

    Returns:
        Each tensor except the mask, (1, tokens); and the position of each token in the padded rows, row · length +
        position, (tokens,).

    Example:
        >>> ids, mask = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
        >>> packed, packed_from = pack({"input_ids": ids, "attention_mask": mask}, count=4)
        >>> packed["input_ids"].tolist(), packed_from.tolist()
        ([[5, 6, 7, 8]], [0, 1, 2, 3])
    """
    mask = tokens["attention_mask"]
    rows, width = mask.shape
    lengths = mask.sum(dim=1)
    row = torch.repeat_interleave(torch.arange(rows, device=mask.device), lengths, output_size=count)
    starts = lengths.cumsum(0) - lengths
    packed_from = row * width + torch.arange(count, device=mask.device) - starts[row]
    inputs = {name: tensor for name, tensor in tokens.items() if name != "attention_mask"}
    return {name: tensor.reshape(-1)[packed_from][None] for name, tensor in inputs.items()}, packed_from


def unpack(vectors: Tensor, packed_from: Tensor, shape: Sequence[int]) -> Tensor:
    """Undoes `pack` for vectors: (1, tokens, …) to (rows, length, …), zeros at padding."""
    rows, length = shape
    padded = vectors.new_zeros((rows * length, *vectors.shape[2:]))
    return padded.index_copy(0, packed_from, vectors[0]).view(rows, length, *vectors.shape[2:])


def on_device(batch: Mapping[str, Any], device: torch.device) -> Any:
    """A batch with its tensors on a device and its numpy arrays unchanged, as a trainer moves it."""
    return {name: to_device(each, device) if isinstance(each, Tensor) else each for name, each in batch.items()}


def on_host(values: Tensor | np.ndarray) -> Tensor:
    """The values as a tensor on the CPU.

    Values that decide the shapes of a step (lengths, views, masked words) are numpy arrays in a batch. No trainer moves
    them to a GPU, so reading them does not wait. For a tensor on a GPU this function waits.
    """
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values.cpu()


def row_lengths(tokens: Mapping[str, Any]) -> Tensor:
    """Tokens of each row, (rows,), on the CPU: `lengths` if the batch has it, else the sum of the mask."""
    return on_host(tokens["lengths"] if "lengths" in tokens else tokens["attention_mask"].sum(dim=1))


def words_asked_for(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors and the labels at masked positions, for a masked-word head.

    Args:
        hidden: The backbone's last layer, (rows, length, dim).
        labels: The token to predict at each masked position, -100 elsewhere, (rows, length), on the CPU.

    Returns:
        The vectors at masked positions, (words, dim), and the tokens to predict there, (words,).
    """
    labels = labels.flatten()
    places = (labels != -100).nonzero()[:, 0]
    words = to_device(labels[places], hidden.device)
    return hidden.flatten(0, 1).index_select(0, to_device(places, hidden.device)), words


def prompt_length(tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int) -> int:
    """The number of leading tokens of a text that belong to the prompt in front of it, the start token included.

    sentence-transformers counts the same: the tokens of the prompt alone, without the special token at their end.
    """
    (ids,) = token_ids(tokenizer, [prompt], max_length)
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def in_windows(count: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover 0 … count - 1."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
