"""Views made inside the encoder: of position ids, of the attention mask, and of what the embedding block gives.

ConSERT (Yan et al. 2021, arXiv 2105.11741), section 3.2, and its authors' code, which cuts off after the embedding
block's LayerNorm and dropout, and leaves attention as it is: zeroed tokens are still attended to and pooled.

Numbers come from torch's own generator, as those of dropout do, so that a checkpoint holds its place and a gradient
cache can replay them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from textcl.dropout import kept

Operator = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Takes and gives the rows of one view: `attention_mask` and `position_ids` (rows, length); for those that work on the
embedding block's output also `embeddings` (rows, length, dim)."""


def shuffle(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permutes the position ids of the tokens of each text; padding keeps its own."""
    mask = inputs["attention_mask"].bool()
    keys = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)  # padding sorts last, in its order
    return {**inputs, "position_ids": inputs["position_ids"].gather(1, torch.argsort(keys, dim=1, stable=True))}


def span(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Keeps a contiguous span of max(⌊L(1 − rate)⌋, 1) tokens, and masks the others out.

    The authors' code computes its attention mask before it samples the span, so that there the mask has no effect.
    """
    mask = inputs["attention_mask"]
    count = mask.sum(dim=1, keepdim=True)
    kept = (count * (1 - rate)).floor().clamp(min=1)
    start = (torch.rand(count.shape, device=mask.device) * (count - kept + 1)).floor()
    position = torch.arange(mask.shape[1], device=mask.device)
    return {**inputs, "attention_mask": mask * ((position >= start) & (position < start + kept))}


def template_alone(inputs: dict[str, Tensor], before: int, behind: int) -> dict[str, Tensor]:
    """Hides the text of a template, which keeps its places: all but the first `before` and the last `behind` tokens.

    PromptBERT (Jiang et al. 2022, arXiv 2201.04337), section 3.3: what the template says without the text.
    """
    mask = inputs["attention_mask"]
    position = torch.arange(mask.shape[1], device=mask.device)
    of_text = (position >= before) & (position < mask.sum(dim=1, keepdim=True) - behind)
    return {**inputs, "attention_mask": mask.masked_fill(of_text, 0)}


def token_cutoff(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Zeroes the vectors of ⌊L · rate⌋ tokens of each text."""
    mask = inputs["attention_mask"]
    chosen = _choose(mask, (mask.sum(dim=1) * rate).long())
    return {**inputs, "embeddings": inputs["embeddings"].masked_fill(chosen[..., None], 0.0)}


def feature_cutoff(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Zeroes ⌊d · rate⌋ features, the same ones in all tokens of a text."""
    rows, _, dimension = inputs["embeddings"].shape
    every = torch.ones(rows, dimension, device=inputs["embeddings"].device)
    chosen = _choose(every, torch.full((rows,), int(dimension * rate), device=every.device))
    return {**inputs, "embeddings": inputs["embeddings"].masked_fill(chosen[:, None], 0.0)}


def embedding_dropout(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Zeroes elements of the token vectors with probability `rate`; the others are not scaled up.

    The authors' code draws exactly ⌊L · d · rate⌋ elements a text; here each is drawn by itself.
    """
    embeddings = inputs["embeddings"]
    return {**inputs, "embeddings": embeddings * kept(embeddings, rate)}


@contextmanager
def applied(
    backbone: nn.Module,
    inputs: Mapping[str, Tensor],
    on_inputs: Sequence[Sequence[Operator]],
    on_embeddings: Sequence[Sequence[Operator]],
) -> Iterator[dict[str, Tensor]]:
    """Gives the inputs to call the backbone with; until the exit, the output of its embedding block is changed too.

    Args:
        backbone: With an `embeddings` module, as the BERT family has.
        inputs: The call's inputs, and `view` (rows,), the number of each row's view, on the CPU. `position_ids` must be
            among them if an operator permutes them. A `perturbation` (rows, length, dim) is added to the output of the
            embedding block.
        on_inputs: For each view, the operators on the inputs, in their order.
        on_embeddings: For each view, the operators on the output of the embedding block.
    """
    inputs = dict(inputs)
    view, perturbation = inputs.pop("view"), inputs.pop("perturbation", None)
    changeable: dict[str, Tensor] = {
        name: inputs[name] for name in ("attention_mask", "position_ids") if name in inputs
    }
    inputs |= _by_view(changeable, view, on_inputs)
    if not any(on_embeddings) and perturbation is None:
        yield inputs
        return

    def change(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if perturbation is not None:
            output = output + perturbation
        tensors = {"embeddings": output, "attention_mask": inputs["attention_mask"]}
        return _by_view(tensors, view, on_embeddings)["embeddings"]

    handle = backbone.embeddings.register_forward_hook(change)  # type: ignore[union-attr]
    try:
        yield inputs
    finally:
        handle.remove()


def _by_view(tensors: dict[str, Tensor], view: Tensor, operators: Sequence[Sequence[Operator]]) -> dict[str, Tensor]:
    """Applies the operators of each view to the rows of that view."""
    for number, of_view in enumerate(operators):
        if not of_view:
            continue
        rows = (view == number).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        rows = rows.to(tensors["attention_mask"].device, non_blocking=True)
        changed = {name: tensor[rows] for name, tensor in tensors.items()}
        for operator in of_view:
            changed = operator(changed)
        tensors = {name: tensor.index_copy(0, rows, changed[name].to(tensor.dtype)) for name, tensor in tensors.items()}
    return tensors


def _choose(mask: Tensor, counts: Tensor) -> Tensor:
    """`counts[i]` random positions among those of row i where `mask` is true, as a bool mask."""
    keys = torch.rand(mask.shape, device=mask.device).masked_fill(mask == 0, 2.0)
    return keys.argsort(dim=1).argsort(dim=1) < counts[:, None]
