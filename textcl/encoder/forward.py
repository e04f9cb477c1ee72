"""Token rows through the backbone, slice by slice, and from token vectors to one vector a row.

Rows of a batch are ordered by length and cut into slices of a token budget. A slice is padded:

    [CLS] a    cat  sleeps [SEP]
    [CLS] it   rains [SEP] [PAD]
    [CLS] yes  [SEP] [PAD] [PAD]         (3, 5), with a mask

or, on a GPU, where padding would cost more than it saves, packed, one row behind the other:

    [CLS] a cat sleeps [SEP] [CLS] it rains [SEP] [CLS] yes [SEP]        (1, 12)

All layers see a packed slice as it is; only attention unpacks it, so that no row sees another (`attention.py`). The
probe `takes_packed_rows` finds out once whether a backbone gives packed rows the vectors that it gives padded ones.
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from textcl.dropout import without_dropout
from textcl.encoder.attention import ATTENTION
from textcl.encoder.backbone import first_position, ordinary_tokens
from textcl.encoder.batching import (
    Tokens,
    in_slices,
    input_names,
    on_host,
    pack,
    pad,
    row_lengths,
    take_rows,
    to_device,
    unpack,
    words_asked_for,
)
from textcl.encoder.pooling import POOLINGS, Packed, Padded
from textcl.errors import InputError
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
    """Embeddings in the order of the rows; and for each slice what `words_asked_for` gives by the labels.

    Args:
        encoder: Whose backbone and pooling.
        tokens: See `Encoder.embed`, as `views`, `dropout` and `perturbation`.
        views: See `tokens`.
        dropout: See `tokens`.
        perturbation: See `tokens`.
        labels: -100 where no word is asked for, (rows, length), on the CPU.
        pooled: False: no row is pooled, and the embeddings are empty, (0,).
    """
    inputs: dict[str, Any] = {name: tokens[name] for name in input_names(encoder.tokenizer) if name in tokens}  # type: ignore[literal-required]
    if not any(view.input_operators or view.embedding_operators for view in views):
        views = ()
    if any(view.shuffles_positions for view in views):
        positions = torch.arange(inputs["input_ids"].shape[1], device=encoder.device) + first_position(encoder.backbone)
        inputs["position_ids"] = positions.expand_as(inputs["input_ids"])
    if perturbation is not None:
        inputs["perturbation"] = perturbation
    lengths = row_lengths(tokens)
    view = on_host(tokens["view"]) if views else None
    embeddings, asked = [], []
    cached = encoder.slicing.gradient_cache and torch.is_grad_enabled()

    def embed(rows: Tensor) -> None:
        own = lengths[rows]
        longest = int(own.max())
        of_slice = take_rows(inputs, to_device(rows, encoder.device), longest)
        if view is not None:
            of_slice["view"] = view[rows]
        given = (encoder, of_slice, own, views, dropout, labels is None, pooled)
        if cached:
            # With autocast's weight cache the gradients of all slices would add up in bf16, so cast anew in each.
            with _autocast_without_cache(encoder.device.type):
                vectors, output = cast(Any, checkpoint(embed_slice, *given, use_reentrant=False))
        else:
            vectors, output = embed_slice(*given)
        embeddings.append(vectors)
        if labels is not None:
            asked.append(words_asked_for(output.last_hidden_state, labels[rows, :longest]))

    # smaller slices save nothing where the graphs of all of them are kept
    halving = cached or not torch.is_grad_enabled()
    slices = in_slices(lengths, encoder.tokens_at_a_time, embed, encoder.slicing if halving else None)
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
    """The embeddings (rows, dim) of one slice, and what the backbone gave for it.

    Args:
        encoder: Whose backbone and pooling.
        tokens: Of the slice, (rows, length) each.
        lengths: Tokens of each row, (rows,), on the CPU.
        views: Of the rows; empty where none works inside the backbone.
        dropout: False leaves it out.
        may_pack: False where the backbone's output is needed in padded rows.
        pooled: False: the embeddings are empty, (0,).

    Raises:
        InputError: If pooling is mask_token, and a row has no mask token.
    """
    if encoder.slicing.gradient_cache:
        encoder.slicing.kept.look()
    pooling = POOLINGS[encoder.pooling]
    count = int(lengths.sum())
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
    # the mode is set in here, so that a slice which backward computes again has the same
    with nullcontext() if dropout else without_dropout(encoder), changed as inputs:
        if packed:
            given = _packed_inputs(encoder, inputs, count)
        else:
            given = dict(inputs)
            if plain and padding == 0:  # the backbone need not look for padding
                del given["attention_mask"]
        output = encoder.backbone(**given, output_hidden_states=pooling.layers != "last")
    if not pooled:
        return output[0].new_empty(0), output
    hidden = [output[0]] if pooling.layers == "last" else [*output.hidden_states[:-1], output.last_hidden_state]
    mask, ids = inputs["attention_mask"], given["input_ids"]
    rows = Packed(mask.sum(dim=1)) if packed else Padded(mask)
    mask_tokens = ids == encoder.tokenizer.mask_token_id
    if encoder.pooling == "mask_token" and not (rows.total(mask_tokens[..., None].float()) > 0).all():
        raise InputError(
            "Pooling mask_token needs a mask token in every text; give a prompt such as "
            f"'{{text}} means {encoder.tokenizer.mask_token}.'"
        )
    weights = torch.ones_like(ids) if packed else mask
    if encoder.token_weights is not None and pooling.averages:
        weights = weights * encoder.token_weights[ids]
    vectors = pooling.function(hidden, rows, weights, mask_tokens)
    if encoder.head is not None:
        vectors = encoder.head(vectors)
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    if encoder.projection is not None:
        with torch.autocast(encoder.device.type, enabled=False):  # the small directions of a whitening need the bits
            vectors = encoder.projection(vectors)
    return vectors, output


def takes_packed_rows(encoder: "Encoder") -> bool:
    """Whether the backbone gives packed rows what it gives padded ones, and does not take them for one row."""
    backbone, tokenizer = encoder.backbone, encoder.tokenizer
    windows = any(getattr(backbone.config, name, None) for name in ("sliding_window", "local_attention"))
    named = inspect.signature(backbone.forward).parameters
    if backbone.config._attn_implementation != ATTENTION or windows or not {"position_ids", "kwargs"} <= set(named):
        return False
    words = ordinary_tokens(backbone, tokenizer, 6)
    rows = [words[:2], words[2:], words]  # 12 tokens
    tokens = {name: tensor.to(encoder.device) for name, tensor in pad(tokenizer, rows).items()}
    with torch.no_grad(), torch.autocast(encoder.device.type, enabled=False), without_dropout(encoder):
        expected = backbone(**tokens)[0]
        flat = _packed_inputs(encoder, tokens, count=12)
        found = unpack(backbone(**flat)[0], flat["packed_from"], expected.shape[:2])
    error = (found - expected)[tokens["attention_mask"].bool()].abs().max()
    change = (expected[0, :2] - expected[2, :2]).abs().max()  # the same words, but one row saw what followed them
    return bool(error < change / 10)


def _packed_inputs(encoder: "Encoder", tokens: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The backbone's inputs for packed rows of `count` tokens; attention finds in them how to unpack."""
    mask = tokens["attention_mask"]
    positions = torch.arange(mask.shape[1], device=mask.device) + first_position(encoder.backbone)
    flat, packed_from = pack({**tokens, "position_ids": positions.expand_as(mask)}, count)
    return {**flat, "packed_from": packed_from, "padded_mask": mask.bool()}


def _autocast_without_cache(device_type: str) -> torch.autocast:
    """The autocast that is on already, but each time a weight is used it is cast anew."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    return torch.autocast(device_type, dtype, enabled, cache_enabled=False)
