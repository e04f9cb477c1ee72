"""Puts token rows through the backbone slice by slice, and pools token vectors to one vector per row.

Rows of a batch are ordered by length and cut into slices of a token budget. A slice is padded:

    [CLS] a    cat  sleeps [SEP]
    [CLS] it   rains [SEP] [PAD]
    [CLS] yes  [SEP] [PAD] [PAD]         (3, 5), with a mask

or, on a GPU and with much padding, packed, one row directly after the other:

    [CLS] a cat sleeps [SEP] [CLS] it rains [SEP] [CLS] yes [SEP]        (1, 12)

All layers work on the packed slice; only attention unpacks it, so that no row sees another row (`attention.py`). The
probe `takes_packed_rows` finds out once whether a backbone gives packed rows the same vectors as padded rows.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from textcl.device import to_device
from textcl.dropout import evaluation_copy, without_dropout
from textcl.encoder.attention import ATTENTION
from textcl.encoder.backbone import first_position, ordinary_tokens
from textcl.encoder.batching import (
    Tokens,
    few_lengths,
    in_slices,
    on_device,
    on_host,
    pack,
    row_lengths,
    take_rows,
    unpack,
    words_asked_for,
)
from textcl.encoder.graphs import Graphs
from textcl.encoder.layers import apply_layers
from textcl.encoder.pooling import POOLINGS, Packed, Padded
from textcl.errors import InputError
from textcl.tokenising import INPUTS, pad
from textcl.views.model_side import applied
from textcl.views.view import View

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

# Pack a slice that has this many padding tokens; below that, packing costs more than it saves. On a CPU, never.
PACK_FROM = {"cuda": 8192}


def embed_rows(
    encoder: "Encoder",
    tokens: Tokens,
    views: Sequence[View] = (),
    dropout: bool = True,
    perturbation: Tensor | None = None,
    labels: Tensor | None = None,
    pooled: bool = True,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Embeds rows. Returns the embeddings in the order of the rows and, with labels, `words_asked_for` of each slice.

    Args:
        encoder: The encoder whose backbone and pooling are used.
        tokens: The rows, see `Encoder.embed`.
        views: The views, see `Encoder.embed`.
        dropout: False: no dropout.
        perturbation: Added to the output of the embedding block, see `Encoder.embed`.
        labels: The token to predict at each masked position, -100 elsewhere, (rows, length), on the CPU.
        pooled: False: no row is pooled, and the embeddings are empty, (0,).
    """
    inputs: dict[str, Any] = {name: tokens[name] for name in INPUTS if name in tokens}  # type: ignore[literal-required]
    inputs = on_device(inputs, encoder.device)
    if not any(view.input_operators or view.embedding_operators for view in views):
        views = ()
    if any(view.shuffles_positions for view in views):
        positions = torch.arange(inputs["input_ids"].shape[1], device=encoder.device) + first_position(encoder.backbone)
        inputs["position_ids"] = positions.expand_as(inputs["input_ids"])
    if perturbation is not None:
        inputs["perturbation"] = perturbation
    lengths = row_lengths(tokens)
    trains = torch.is_grad_enabled()
    padded = few_lengths(lengths).clamp(max=inputs["input_ids"].shape[1]) if trains else lengths
    view = on_host(tokens["view"]) if views else None
    prompts = on_host(tokens["prompt_lengths"]) if "prompt_lengths" in tokens else None
    embeddings, asked = [], []
    cached = encoder.slicing.gradient_cache and trains
    inside = bool(views) or perturbation is not None or labels is not None
    graphs = encoder.slicing.graphs is not None and trains and not cached and not inside

    def embed(rows: Tensor) -> None:
        longest = max(1, int(padded[rows].max()))
        of_slice = take_rows(inputs, to_device(rows, encoder.device), longest)
        if view is not None:
            of_slice["view"] = view[rows]
        if prompts is not None:
            of_slice["prompt_lengths"] = to_device(prompts[rows], encoder.device)
        given = (encoder, of_slice, lengths[rows], views, dropout, labels is None, pooled)
        if graphs and (repeated := embed_by_graph(encoder, of_slice, lengths[rows], dropout)) is not None:
            embeddings.append(repeated)
            return
        if cached:
            # With autocast's weight cache the gradients of all slices would add up in bf16, so cast again in each.
            with _autocast_without_cache(encoder.device.type):
                vectors, output = cast(Any, checkpoint(embed_slice, *given, use_reentrant=False))
        else:
            vectors, output = embed_slice(*given)
        if labels is not None:  # before the vectors: if memory runs out here, the slice is computed once more
            asked.append(words_asked_for(output.last_hidden_state, labels[rows, :longest]))
        embeddings.append(vectors)

    # smaller slices save no memory if the graphs of all slices are kept
    halving = cached or not trains
    slices = in_slices(padded, encoder.tokens_at_a_time, embed, encoder.slicing if halving else None)
    restored = to_device(torch.argsort(torch.cat(slices)), encoder.device)
    return torch.cat(embeddings)[restored] if pooled else embeddings[0], asked


def embed_slice(
    encoder: "Encoder",
    tokens: dict[str, Tensor],
    lengths: Tensor,
    views: Sequence[View] = (),
    dropout: bool = True,
    may_pack: bool = True,
    pooled: bool = True,
) -> tuple[Tensor, Any]:
    """The embeddings (rows, dim) of one slice, and the backbone's output for it.

    Args:
        encoder: The encoder whose backbone and pooling are used.
        tokens: The tensors of the slice, (rows, length) each, and perhaps `prompt_lengths`, (rows,).
        lengths: Tokens of each row, (rows,), on the CPU.
        views: The views of the rows; empty if no view works inside the backbone.
        dropout: False: no dropout.
        may_pack: False if the backbone's output is needed in padded rows.
        pooled: False: the embeddings are empty, (0,).

    Raises:
        InputError: If pooling is mask_token, and a row has no mask token.
    """
    if encoder.slicing.gradient_cache:
        encoder.slicing.kept.look()
    prompts = tokens.get("prompt_lengths")
    tokens = {name: tensor for name, tensor in tokens.items() if name != "prompt_lengths"}
    empty = lengths == 0
    if empty.any():  # for a text without tokens, attention sees one padding token, and the vector is set to 0 below
        tokens = {**tokens, "attention_mask": with_first_token(tokens["attention_mask"])}
    count = int(lengths.clamp(min=1).sum())
    padding = tokens["input_ids"].numel() - count
    plain = not views and "perturbation" not in tokens
    packed = plain and may_pack and padding >= PACK_FROM.get(encoder.device.type, padding + 1)
    if packed and encoder.slicing.packs is None:
        encoder.slicing.packs = takes_packed_rows(encoder)
    packed = packed and bool(encoder.slicing.packs)
    if plain:
        changed: Any = nullcontext(tokens)
    else:
        nothing = {"view": torch.zeros(len(tokens["input_ids"]), dtype=torch.long)}
        changed = applied(
            encoder.backbone,
            {**nothing, **tokens},
            [view.input_operators for view in views],
            [view.embedding_operators for view in views],
        )
    # set the mode here, so that a slice that backward computes again has the same mode
    with nullcontext() if dropout else without_dropout(encoder), changed as inputs:
        if packed:
            given = _packed_inputs(encoder, inputs, count)
        else:
            given = dict(inputs)
            if plain and padding == 0:  # so that the backbone does not look for padding
                del given["attention_mask"]
        layers = POOLINGS[encoder.pooling].layers != "last" or encoder.layer_weights is not None
        output = encoder.backbone(**given, output_hidden_states=layers)
    hidden = hidden_states(encoder, output, given["input_ids"].shape, layers)
    if not pooled:
        return output[0].new_empty(0), output
    ids, mask = given["input_ids"], inputs["attention_mask"]
    vectors = pool(encoder, hidden, ids, mask, given["packed_from"] if packed else None, prompts)
    if empty.any():
        vectors = vectors.masked_fill(to_device(empty, encoder.device)[:, None], 0)
    return vectors, output


def embed_by_graph(encoder: "Encoder", tokens: dict[str, Tensor], lengths: Tensor, dropout: bool) -> Tensor | None:
    """The embeddings (rows, dim) of one slice by a CUDA graph, see `graphs.py`; None if it has to be computed without.

    A text without tokens, a slice that is packed, and a pooling that checks for a mask token need a look at the tokens.
    """
    padding = tokens["input_ids"].numel() - int(lengths.sum())
    packed = padding >= PACK_FROM.get(encoder.device.type, padding + 1)
    if packed or bool((lengths == 0).any()) or encoder.pooling == "mask_token":
        return None
    graphs = cast(Graphs, encoder.slicing.graphs)

    def embed(memory: Mapping[str, Tensor]) -> Tensor:
        return embed_slice(encoder, dict(memory), lengths, (), dropout)[0]

    return graphs.embed(encoder, tokens, (padding == 0, dropout, encoder.pooling), embed)


def with_first_token(mask: Tensor) -> Tensor:
    """A mask (rows, length) that is 1 at the first position of every row, so that attention sees at least one token."""
    return torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)


def pool(
    encoder: "Encoder",
    hidden: list[Tensor],
    ids: Tensor,
    mask: Tensor,
    packed_from: Tensor | None,
    prompts: Tensor | None,
) -> Tensor:
    """The embeddings (rows, dim) from the backbone's hidden states.

    Args:
        encoder: The encoder whose pooling, head and projection are used.
        hidden: The hidden states that the pooling reads, for padded or packed rows.
        ids: The tokens that the backbone was given, (rows, length), or packed (1, tokens).
        mask: 1 where the padded rows have a token, else 0, (rows, length).
        packed_from: If rows are packed, the position of each token in the padded rows, (tokens,).
        prompts: Number of leading tokens of each row that are not pooled, (rows,); None: all tokens are pooled.
    """
    pooling = POOLINGS[encoder.pooling]
    if encoder.layer_weights is not None:
        weighted = zip(encoder.layer_weights, hidden, strict=True)
        hidden = [sum((weight * layer for weight, layer in weighted)) / encoder.layer_weights.sum()]
    if encoder.token_layers:
        hidden = [apply_layers(encoder.token_layers, layer) for layer in hidden]
    skip = None if prompts is None else torch.arange(mask.shape[1], device=mask.device) < prompts[:, None]
    if packed_from is None:
        weights = mask if skip is None else mask * ~skip
        rows: Packed | Padded = Padded(weights, skip)
    else:
        skip = None if skip is None else skip.flatten().index_select(0, packed_from)[None]
        weights = torch.ones_like(ids) if skip is None else (~skip).to(ids.dtype)
        rows = Packed(mask.sum(dim=1), skip)
    mask_tokens = ids == encoder.tokenizer.mask_token_id
    if skip is not None:
        mask_tokens = mask_tokens & ~skip
    checked = encoder.pooling == "mask_token" and not torch.compiler.is_compiling()  # a graph cannot raise an error
    if checked and not (rows.total(mask_tokens[..., None].float()) > 0).all():
        raise InputError(
            "Pooling mask_token needs a mask token in every text; give a prompt such as "
            f"'{{text}} means {encoder.tokenizer.mask_token}.'"
        )
    if encoder.token_weights is not None and pooling.averages:
        weights = weights * encoder.token_weights[ids]
    vectors = pooling.function(hidden, rows, weights, mask_tokens)
    return behind_pooling(encoder, vectors)


def behind_pooling(encoder: "Encoder", vectors: Tensor) -> Tensor:
    """Pooled vectors (rows, dim) behind head, projection and further layers, in float32 or wider."""
    if encoder.head is not None:
        vectors = encoder.head(vectors)
    # without autocast, because small directions of a whitening need full precision
    projection = [] if encoder.projection is None else [encoder.projection]
    return apply_layers([*projection, *encoder.layers], vectors)


def hidden_states(encoder: "Encoder", output: Any, shape: torch.Size, layers: bool) -> list[Tensor]:
    """The backbone's hidden states: the last one or, with `layers`, all.

    Raises:
        InputError: If the backbone has not returned a vector for each token in each of them.
    """
    name, last = f"{encoder.name} ({type(encoder.backbone).__name__})", output[0]
    size = (*shape, encoder.backbone.config.hidden_size)
    if not isinstance(last, Tensor) or last.shape != size:
        found = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise InputError(
            f"{name} cannot be used as an encoder: for tokens of shape {tuple(shape)} it returns {found} in place of "
            f"one vector for each token, {size}."
        )
    if not layers:
        return [last]
    if getattr(output, "hidden_states", None) is None:
        raise InputError(
            f"Pooling {encoder.pooling} needs the vectors of several layers, which {name} does not return. Choose a "
            "pooling of the last layer, such as mean."
        )
    return [*output.hidden_states[:-1], output.last_hidden_state]


def takes_packed_rows(encoder: "Encoder") -> bool:
    """Whether the backbone gives packed rows the same vectors as padded rows, and does not treat them as one row."""
    backbone, tokenizer = encoder.backbone, encoder.tokenizer
    windows = any(getattr(backbone.config, name, None) for name in ("sliding_window", "local_attention"))
    named = inspect.signature(backbone.forward).parameters
    if backbone.config._attn_implementation != ATTENTION or windows or not {"position_ids", "kwargs"} <= set(named):
        return False
    words = ordinary_tokens(backbone, tokenizer, 6)
    rows = [words[:2], words[2:], words]  # 12 tokens
    tokens = {name: tensor.to(encoder.device) for name, tensor in pad(tokenizer, rows).items()}
    backbone = evaluation_copy(backbone)
    with torch.no_grad(), torch.autocast(encoder.device.type, enabled=False):
        expected = backbone(**tokens)[0]
        flat = _packed_inputs(encoder, tokens, count=12)
        found = unpack(backbone(**flat)[0], flat["packed_from"], expected.shape[:2])
    error = (found - expected)[tokens["attention_mask"].bool()].abs().max()
    change = (expected[0, :2] - expected[2, :2]).abs().max()  # the same words, but the longer row also saw later words
    return bool(error < change / 10)


def _packed_inputs(encoder: "Encoder", tokens: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The backbone's inputs for packed rows of `count` tokens, with what attention needs to unpack them."""
    mask = tokens["attention_mask"]
    positions = torch.arange(mask.shape[1], device=mask.device) + first_position(encoder.backbone)
    flat, packed_from = pack({**tokens, "position_ids": positions.expand_as(mask)}, count)
    return {**flat, "packed_from": packed_from, "padded_mask": mask.bool()}


def _autocast_without_cache(device_type: str) -> torch.autocast:
    """The autocast that is already on, but a weight is cast again at each use."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    return torch.autocast(device_type, dtype, enabled, cache_enabled=False)
