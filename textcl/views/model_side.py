"""Views made inside the encoder: they change position ids, the attention mask or the output of the embedding block.

ConSERT (Yan et al. 2021, arXiv 2105.11741), section 3.2. As in the authors' code, cutoff is applied after the embedding
block's LayerNorm and dropout and does not change the attention mask: zeroed tokens are still attended to and pooled.

The random numbers come from torch's global generator, like those of dropout, because a checkpoint saves the state of
that generator and a gradient cache can replay it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from textcl.device import to_device
from textcl.dropout import kept, zeroed

Operator = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Takes and returns the rows of one view: `attention_mask` and `position_ids`, (rows, length); operators on the output
of the embedding block also get `embeddings`, (rows, length, dim)."""


def shuffle(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permutes the position ids of the tokens of each text; padding keeps its position ids."""
    mask = inputs["attention_mask"].bool()
    keys = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)  # padding sorts last and keeps its order
    return {**inputs, "position_ids": inputs["position_ids"].gather(1, torch.argsort(keys, dim=1, stable=True))}


def span(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Keeps a contiguous span of max(⌊L(1 − rate)⌋, 1) of a text's L tokens and masks the other tokens out.

    In the authors' code the mask has no effect, because they compute the attention mask before they sample the span.
    """
    mask = inputs["attention_mask"]
    count = mask.sum(dim=1, keepdim=True)
    kept = (count * (1 - rate)).floor().clamp(min=1)
    start = (torch.rand(count.shape, device=mask.device) * (count - kept + 1)).floor()
    position = torch.arange(mask.shape[1], device=mask.device)
    return {**inputs, "attention_mask": mask * ((position >= start) & (position < start + kept))}


def template_alone(inputs: dict[str, Tensor], before: int, behind: int) -> dict[str, Tensor]:
    """Masks out the text inside a template: all tokens but the first `before` and the last `behind`.

    The tokens of the template keep their positions. PromptBERT (Jiang et al. 2022, arXiv 2201.04337), section 3.3:
    the result is the embedding of the template without a text.
    """
    mask = inputs["attention_mask"]
    position = torch.arange(mask.shape[1], device=mask.device)
    of_text = (position >= before) & (position < mask.sum(dim=1, keepdim=True) - behind)
    return {**inputs, "attention_mask": mask.masked_fill(of_text, 0)}


def token_cutoff(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Sets ⌊L · rate⌋ random token vectors of a text of L tokens to zero."""
    mask = inputs["attention_mask"]
    chosen = _choose(mask, (mask.sum(dim=1) * rate).long())
    return {**inputs, "embeddings": inputs["embeddings"].masked_fill(chosen[..., None], 0.0)}


def feature_cutoff(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Sets ⌊d · rate⌋ of the d features to zero, the same ones in all tokens of a text."""
    rows, _, dimension = inputs["embeddings"].shape
    every = torch.ones(rows, dimension, device=inputs["embeddings"].device)
    chosen = _choose(every, torch.full((rows,), int(dimension * rate), device=every.device))
    return {**inputs, "embeddings": inputs["embeddings"].masked_fill(chosen[:, None], 0.0)}


def embedding_dropout(inputs: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Sets elements of the token vectors to zero with probability `rate`; the others are not scaled up.

    The authors' code chooses exactly ⌊L · d · rate⌋ elements per text; here each element is drawn independently.
    """
    embeddings = inputs["embeddings"]
    return {**inputs, "embeddings": zeroed(embeddings, kept(embeddings, rate))}


@contextmanager
def applied(
    backbone: nn.Module,
    inputs: Mapping[str, Tensor],
    on_inputs: Sequence[Sequence[Operator]],
    on_embeddings: Sequence[Sequence[Operator]],
) -> Iterator[dict[str, Tensor]]:
    """Yields the changed inputs for the backbone. Inside the context a hook also changes the embedding block's output.

    Args:
        backbone: A backbone with an `embeddings` module, as the BERT family has.
        inputs: The backbone's inputs, and `view` (rows,), the number of each row's view, on the CPU. They must include
            `position_ids` if an operator permutes them. A `perturbation` (rows, length, dim), if given, is added to the
            output of the embedding block.
        on_inputs: For each view, the operators on the inputs, in the order of application.
        on_embeddings: For each view, the operators on the output of the embedding block, in the order of application.
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
            output = output + perturbation.to(output.dtype)
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
        rows = to_device(rows, tensors["attention_mask"].device)
        changed = {name: tensor[rows] for name, tensor in tensors.items()}
        for operator in of_view:
            changed = operator(changed)
        tensors = {name: tensor.index_copy(0, rows, changed[name].to(tensor.dtype)) for name, tensor in tensors.items()}
    return tensors


def _choose(mask: Tensor, counts: Tensor) -> Tensor:
    """A bool mask that is true at `counts[i]` random positions of row i, chosen where `mask` is true."""
    keys = torch.rand(mask.shape, device=mask.device).masked_fill(mask == 0, 2.0)
    return keys.argsort(dim=1).argsort(dim=1) < counts[:, None]
