"""Length order and token budgets: how rows of different lengths become a few tensors with little padding.

Training, corpus encoding and the gradient cache all cut their rows here.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.device import out_of_memory

logger = logging.getLogger("textcl")

Tokens = Mapping[str, Any]
"""Tensors, each (rows, length) or (rows,). What is a numpy array stays on the processor, see `on_host`."""


def length_ordered_slices(lengths: Tensor, token_budget: int) -> list[Tensor]:
    """Cuts rows into slices of similar length whose padded size stays within a budget.

    Args:
        lengths: Tokens of each row, (rows,).
        token_budget: Most tokens, padding included, that a slice may hold; a longer row is a slice by itself.

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
        slices.append(order[start : start + rows])
        start += rows
    return slices


def in_slices(
    lengths: Tensor, token_budget: int, compute: Callable[[Tensor], None], *, halving: bool = True
) -> tuple[list[Tensor], int]:
    """Computes rows slice by slice, as `length_ordered_slices` cuts them; in smaller slices where memory runs out.

    Args:
        lengths: Tokens of each row, (rows,).
        token_budget: Most tokens, padding included, that a slice may hold.
        compute: What is called with the row numbers of each slice.
        halving: Whether running out of memory halves the budget, and a warning says so. A slice of one row raises.

    Returns:
        The slices that were computed, in their order; the token budget at the end.

    Raises:
        RuntimeError: What `compute` raised, if it is not for want of memory, or nothing smaller can be tried.
    """
    waiting = length_ordered_slices(lengths, token_budget)
    done: list[Tensor] = []
    while waiting:
        try:
            compute(waiting[0])
        except RuntimeError as error:
            if not halving or len(waiting[0]) == 1 or not out_of_memory(error):
                raise
        else:
            done.append(waiting.pop(0))
            continue
        # out here the error is gone, and with it what its traceback kept in memory
        size = len(waiting[0]) * max(1, int(lengths[waiting[0]].max()))
        token_budget = size // 2
        logger.warning("Out of memory with %d tokens at a time; going on with %d.", size, token_budget)
        torch.cuda.empty_cache()
        rest = torch.cat(waiting)
        waiting = [rest[rows] for rows in length_ordered_slices(lengths[rest], token_budget)]
    return done, token_budget


def take_rows(tokens: Tokens, rows: Tensor, longest: int) -> dict[str, Tensor]:
    """The given rows of every tensor, those with a length cut to the `longest` of them (padding is on the right)."""
    return {name: tensor[rows] if tensor.ndim == 1 else tensor[rows, :longest] for name, tensor in tokens.items()}


def end_to_end(tokens: Tokens, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Lays rows end to end, without padding.

    Args:
        tokens: Each (rows, length), padded on the right.
        count: Of the tokens that are no padding; who is told need not wait for a GPU to count.

    Returns:
        Each tensor but the mask, (1, tokens). And where each token was, row · length + position, (tokens,).

    Example:
        >>> ids, mask = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
        >>> flat, places = end_to_end({"input_ids": ids, "attention_mask": mask}, count=4)
        >>> flat["input_ids"].tolist(), places.tolist()
        ([[5, 6, 7, 8]], [0, 1, 2, 3])
    """
    mask = tokens["attention_mask"]
    rows, width = mask.shape
    lengths = mask.sum(dim=1)
    row = torch.repeat_interleave(torch.arange(rows, device=mask.device), lengths, output_size=count)
    starts = lengths.cumsum(0) - lengths
    places = row * width + torch.arange(count, device=mask.device) - starts[row]
    inputs = {name: tensor for name, tensor in tokens.items() if name != "attention_mask"}
    return {name: tensor.reshape(-1)[places][None] for name, tensor in inputs.items()}, places


def apart(vectors: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """Undoes `end_to_end` for vectors: (1, tokens, …) to (rows, length, …), zeros where there is no token."""
    rows, length = shape
    padded = vectors.new_zeros((rows * length, *vectors.shape[2:]))
    return padded.index_copy(0, places, vectors[0]).view(rows, length, *vectors.shape[2:])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without a wait for a GPU to have done what it is at."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_device(batch: Tokens, device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device, and its numpy arrays where they are, as a trainer moves it."""
    return {name: to_device(each, device) if isinstance(each, Tensor) else each for name, each in batch.items()}


def on_host(values: Tensor | np.ndarray) -> Tensor:
    """The values as a tensor of the processor.

    What decides the shapes of a step (lengths, views, masked words) is a numpy array in a batch, which no trainer moves
    to a GPU, so that the processor knows it without a wait. Tensors do as well, and on a GPU are waited for.
    """
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values.cpu()


def row_lengths(tokens: Tokens) -> Tensor:
    """The tokens of each row, (rows,), on the processor; as `lengths` says where it is there."""
    return on_host(tokens["lengths"] if "lengths" in tokens else tokens["attention_mask"].sum(dim=1))


def words_asked_for(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a masked-word head needs of the backbone's last layer.

    Args:
        hidden: Last layer, (rows, length, dim).
        labels: -100 where no word is asked for, (rows, length), on the processor.

    Returns:
        The vectors where words are asked for, (words, dim), and those words, (words,).
    """
    labels = labels.flatten()
    places = (labels != -100).nonzero()[:, 0]
    words = to_device(labels[places], hidden.device)
    return hidden.flatten(0, 1).index_select(0, to_device(places, hidden.device)), words


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> dict[str, Tensor]:
    """Texts as token tensors (rows, length), cut at `max_length` tokens and padded on the right."""
    return pad(tokenizer, token_ids(tokenizer, texts, max_length))


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None) -> list[list[int]]:
    """The tokens of texts, special ones included, cut at `max_length`; None: whole."""
    # ids alone: what else the tokenizer could give takes it longer to hand over than to make
    asked = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    ids = tokenizer(list(texts), truncation=max_length is not None, max_length=max_length, **asked)["input_ids"]
    return cast(list[list[int]], ids)


def pad(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Rows of tokens, special ones included, as token tensors (rows, length), padded on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    input_ids = torch.full(there.shape, tokenizer.pad_token_id)
    input_ids[there] = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())))
    tensors = {"input_ids": input_ids, "attention_mask": there.long()}
    if "token_type_ids" in input_names(tokenizer):  # a single text has one type
        tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
    return tensors


def input_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tensors that a backbone takes from its tokenizer."""
    return list(dict.fromkeys(["input_ids", "attention_mask", *tokenizer.model_input_names]))


def in_windows(count: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most `size` that cover 0 … count - 1."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
