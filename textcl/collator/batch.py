"""The flat batch that collators make and methods take."""

from itertools import accumulate
from typing import Any, cast

import numpy as np
from torch import Tensor

from textcl.encoder.batching import Tokens, on_host, row_lengths


class Batch(Tokens, total=False):
    """Token rows of all views, view by view: all rows of view 0, then all of view 1, and so on.

    `lengths`, `view`, `column`, `prompt_lengths`, `mlm_labels` and `mlm_lengths` decide the shapes of a step or what it
    computes. They are numpy arrays, which stay on the CPU when a trainer moves the batch; reading them does not wait
    for the GPU. `embed` and `objective` of a method read the keys below and those of `Tokens`.
    """

    group: Tensor
    """A number that is equal for rows that are positives of each other, (rows,)."""
    text_id: Tensor
    """A hash of each row's text before any view, (rows,). Equal texts have equal hashes, also on other ranks. In
    DeCLUTR it is the hash of the document plus the number of the anchor in it."""
    column: np.ndarray
    """The column of each row's text, (rows,): 0 text, 1 positive, 2 negative. Stays on the CPU."""
    label: Tensor
    """The label of each dataset row, (batch,), if the dataset has labels."""
    teacher: Tensor
    """A teacher encoder's embedding of each dataset row, (batch, dim of the teacher)."""
    pair: Tensor
    """The two rows of each pair of Contrastive Tension, (pairs, 2)."""
    identical: Tensor
    """Whether both rows of a pair hold the same text, (pairs,)."""
    mlm_labels: np.ndarray
    """The token to predict at each masked position, -100 elsewhere, (rows, length). Stays on the CPU."""
    mlm_input_ids: Tensor
    """The rows with masked words, (rows, length)."""
    mlm_attention_mask: Tensor
    """The attention mask of the masked rows, (rows, length)."""
    mlm_token_type_ids: Tensor
    """Zeros, if the backbone needs token types, (rows, length)."""
    mlm_lengths: np.ndarray
    """The lengths of the masked rows, (rows,); views may change the lengths of the other rows. Stays on the CPU."""
    mlm_prompt_lengths: np.ndarray
    """The `prompt_lengths` of the masked rows, (rows,). Stays on the CPU."""


Tensors = dict[str, Tensor]
"""A batch before `finished`: all its values are tensors."""

_ON_HOST = ("view", "column", "mlm_labels", "mlm_lengths", "prompt_lengths", "mlm_prompt_lengths")


def finished(tensors: Tensors) -> Batch:
    """The batch with the lengths of its rows; what decides the shapes of a step becomes a numpy array."""
    decisive = {"lengths": row_lengths(tensors)}
    decisive |= {name: tensors[name] for name in _ON_HOST if name in tensors}
    return cast(Batch, {**tensors, **{name: tensor.numpy() for name, tensor in decisive.items()}})


def where_views_are(batch: Batch) -> list[slice]:
    """The rows of each view."""
    counts = on_host(batch["view"]).bincount().tolist()
    ends = list(accumulate(counts))
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def rows_of_view(batch: Batch, number: int) -> Batch:
    """The rows of one view. It keeps only the values that have one entry for each row of the batch."""
    rows, count = where_views_are(batch)[number], len(batch["view"])
    values = cast("dict[str, Any]", batch).items()
    return cast(Batch, {name: each[rows] for name, each in values if len(each) == count})


def holds_pairs(batch: Batch) -> bool | None:
    """Whether the rows are pairs or triplets, not views of single texts; None: the collator does not say."""
    return bool(batch["column"].any()) if "column" in batch else None


def masked_copies(batch: Batch) -> Tokens:
    """The masked copies of a batch's rows, with the names that an encoder reads."""
    values = cast("dict[str, Any]", batch).items()
    copies = {name.removeprefix("mlm_"): each for name, each in values if name.startswith("mlm_")}
    del copies["labels"]
    return cast(Tokens, copies)
