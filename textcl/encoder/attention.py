"""Attention for the cases in which torch's is slow: separate matrix products on a CPU, and packed rows on a GPU.

On a CPU, torch's fused attention has no dropout, and its fallback computes in float32. On a GPU, slices with much
padding are packed (see `forward.py`), and attention unpacks them, which is a small part of the work. (torch's own
attention for rows of any length has no dropout. Its nested tensors have dropout, but launching them took ten times as
long as the computation.)
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from textcl.dropout import kept, zeroed
from textcl.encoder.batching import unpack

ATTENTION = "textcl"
SHORT = {torch.bfloat16: 128, torch.float32: 31}  # tokens up to which separate products are faster than torch's fused

_KEYS = 16  # float32 numbers in a vector of AVX-512


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention, as transformers calls it: heads × (length, length) products, softmax, dropout.

    Falls back to torch's attention (SDPA) unless on a CPU and training, or on a CPU with rows of at most `SHORT`
    tokens. Also falls back for causal attention without a mask, and if there are fewer key heads than query heads.

    Args:
        module: The layer.
        query: The queries, (rows, heads, length, dim of a head).
        key: The keys, (rows, heads, length, dim of a head).
        value: The values, (rows, heads, length, dim of a head).
        attention_mask: True if a query sees a key, (rows or 1, 1, length, length), or numbers that are added to the
            products; None: every query sees all keys.
        dropout: Rate at which attention weights are dropped.
        scaling: Factor of the products; None: 1 / √(dim of a head).
        **options: Other options of transformers. With `padded_mask` (rows, length) and `packed_from` (tokens,), rows
            are packed, (1, heads, tokens, dim of a head). `padded_mask` is True where the padded rows have a token, and
            `packed_from` is the position of each token in the padded rows, row · length + position.

    Returns:
        (rows, length, heads, dim of a head), and None for the weights.
    """
    if "padded_mask" in options:
        packed_from, padded_mask = options["packed_from"], options["padded_mask"]
        return _packed(query, key, value, packed_from, padded_mask, dropout, scaling), None
    short = query.shape[2] <= SHORT.get(query.dtype, 0) and not torch.compiler.is_compiling()
    here = query.device.type == "cpu" and (torch.is_grad_enabled() or short) and key.shape[1] == query.shape[1]
    plain = options.get("softcap") is None and options.get("position_bias") is None
    causal = options.get("is_causal") or getattr(module, "is_causal", False)
    if not here or not plain or (attention_mask is None and causal):
        return AttentionInterface()["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            unseen = torch.zeros_like(attention_mask, dtype=scores.dtype)
            attention_mask = unseen.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
        scores = scores + attention_mask
    weights = _softmax(scores)
    if dropout:
        mixed = cast(Tensor, _Dropped.apply(weights, kept(weights, dropout), value / (1 - dropout)))
    else:
        mixed = weights @ value
    return mixed.transpose(1, 2).contiguous(), None


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the keys, in the type of the scores. torch's own is slow on a CPU for some numbers of keys.

    With fewer than 16 keys, torch's goes number by number, so the scores are filled up to 16 keys. In bfloat16, torch's
    goes number by number over the keys behind the last multiple of 32, so the softmax is computed in float32. From 64
    keys on, float32 is faster only if there is no backward pass.
    """
    if torch.compiler.is_compiling():  # a graph is for rows of any length: it must not depend on that of its example
        return scores.softmax(dim=-1)
    keys = scores.shape[-1]
    if keys < _KEYS and scores.dtype != torch.float64:
        filled = pad(scores, (0, _KEYS - keys), value=-torch.inf).float()
        return filled.softmax(dim=-1)[..., :keys].to(scores.dtype)
    if scores.dtype == torch.bfloat16 and keys % 32 and (keys < 64 or not torch.is_grad_enabled()):
        return scores.float().softmax(dim=-1).to(scores.dtype)
    return scores.softmax(dim=-1)


class _Dropped(torch.autograd.Function):
    """Drops weights and multiplies by the values. Backward drops them again: to keep them takes the most memory."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, kept: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(weights, kept, value)
        return zeroed(weights, kept) @ value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, kept, value = ctx.saved_tensors
        dtype = gradient.dtype  # with autocast a half type, while the weights are float32
        dropped = zeroed(weights, kept).to(dtype)
        of_weights = zeroed(gradient @ value.to(dtype).transpose(-1, -2), kept)
        return of_weights.to(weights.dtype), None, (dropped.transpose(-1, -2) @ gradient).to(value.dtype)


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed_from: Tensor,
    padded_mask: Tensor,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention of packed rows: (1, heads, tokens, dim) each, to (1, tokens, heads, dim)."""
    query, key, value = (
        unpack(each.transpose(1, 2), packed_from, padded_mask.shape).transpose(1, 2) for each in (query, key, value)
    )
    mask = padded_mask[:, None, None]
    seen = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return seen.transpose(1, 2).flatten(0, 1).index_select(0, packed_from)[None]


def mask(**options: Any) -> Tensor | None:
    """transformers' mask for torch's attention, without the check whether it hides a token, which waits for a GPU.

    If there is no padding, call the backbone with `attention_mask=None`.
    """
    if options.get("attention_mask") is not None:
        options |= {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return AttentionMaskInterface()["sdpa"](**options)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, mask)


def attend_fast(backbone: PreTrainedModel) -> None:
    """Makes a backbone use this attention in place of torch's (SDPA), in place."""
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(ATTENTION)
