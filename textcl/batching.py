"""Length order and token budgets: how rows of different lengths become a few tensors with little padding.

Training, corpus encoding and the gradient cache all cut their rows here.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textcl.device import out_of_memory

logger = logging.getLogger("textcl")

Tokens = Mapping[str, Tensor]


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


def take_rows(tokens: Tokens, rows: Tensor) -> dict[str, Tensor]:
    """The given rows of every tensor, those with a length cut to the longest of them (padding is on the right)."""
    longest = int(tokens["attention_mask"][rows].sum(dim=1).max())
    return {name: tensor[rows] if tensor.ndim == 1 else tensor[rows][:, :longest] for name, tensor in tokens.items()}


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> dict[str, Tensor]:
    """Texts as token tensors (rows, length), cut at `max_length` tokens and padded on the right."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    return {name: _pad(rows[name], fill.get(name, 0)) for name in input_names(tokenizer) if name in rows}


def pad(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Rows of tokens, special ones included, as token tensors (rows, length), padded on the right."""
    tensors = {
        "input_ids": _pad(rows, tokenizer.pad_token_id),
        "attention_mask": _pad([[1] * len(row) for row in rows], 0),
    }
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


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
