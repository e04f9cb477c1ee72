"""Attention where torch's is slow: separate products on a processor, and on a GPU rows that lie end to end.

torch's fused attention has no dropout on a processor, and the one in its place computes in float32. On a GPU, where
much would be padding, rows lie end to end: the layers see tokens alone, and rows are apart within attention, which is
a small part of the work. (torch's attention over rows of any length has no dropout; its nested tensors, which have it,
took ten times as long to launch as to compute.)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from textcl.batching import apart
from textcl.views.model_side import kept

ATTENTION = "textcl"
SHORT = 128  # tokens up to which separate products in bfloat16 are faster than torch's fused ones


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

    All but training, and short rows in bfloat16, on a processor is left to torch's, as is what has no mask but is
    causal, or fewer heads of keys than of queries.

    Args:
        module: The layer.
        query: (rows, heads, length, dim of a head), as are `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: True where a query sees a key, (rows or 1, 1, length, length); None: all of them.
        dropout: Rate at which weights are dropped.
        scaling: Of the products; None: 1 / √(dim of a head).
        **options: Further ones of transformers. Where `there` is among them, rows lie end to end, (1, heads, tokens,
            dim of a head): it says where tokens are if rows are apart, (rows, length), and `places` where each token
            is then, row · length + position, (tokens,).

    Returns:
        (rows, length, heads, dim of a head), and None for the weights.
    """
    if "there" in options:
        return _end_to_end(query, key, value, options["places"], options["there"], dropout, scaling), None
    short = query.dtype == torch.bfloat16 and query.shape[2] <= SHORT
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
        unseen = torch.zeros_like(attention_mask, dtype=scores.dtype)
        scores = scores + unseen.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    if dropout:
        weights = weights * kept(weights, dropout)
        value = value / (1 - dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _end_to_end(
    query: Tensor, key: Tensor, value: Tensor, places: Tensor, there: Tensor, dropout: float, scaling: float | None
) -> Tensor:
    """The same of rows that lie end to end: (1, heads, tokens, dim) each, to (1, tokens, heads, dim)."""
    query, key, value = (
        apart(each.transpose(1, 2), places, there.shape).transpose(1, 2) for each in (query, key, value)
    )
    mask = there[:, None, None]
    seen = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return seen.transpose(1, 2).flatten(0, 1).index_select(0, places)[None]


def mask(**options: Any) -> Tensor | None:
    """transformers' mask for torch's attention, without a look whether it hides anything: a GPU would be waited for.

    Who knows that nothing is padding gives no mask.
    """
    if options.get("attention_mask") is not None:
        options |= {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return AttentionMaskInterface()["sdpa"](**options)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, mask)


def attend_fast(backbone: PreTrainedModel) -> None:
    """Makes a backbone take this attention, where it would take torch's."""
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(ATTENTION)
