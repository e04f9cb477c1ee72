"""Attention where torch's is slow: separate products on a processor, and on a GPU rows that lie end to end.

torch's fused attention has no dropout on a processor, and the one in its place computes in float32. On a GPU it takes
padded rows; laid end to end, without padding, their tokens are all that the layers between attentions see, and
attention is told where each row begins.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

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
        **options: Further ones of transformers. `cu_seq_lens_q` (rows + 1,) says where each of several rows begins that
            lie end to end, (1, heads, tokens, dim of a head), and `max_length_q` how long the longest of them is.

    Returns:
        (rows, length, heads, dim of a head), and None for the weights.
    """
    if (offsets := options.get("cu_seq_lens_q")) is not None:
        return _end_to_end(query, key, value, offsets, options["max_length_q"], dropout, scaling), None
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


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])


@torch.compiler.disable  # nested tensors break the graph of a layer, and a break is cheaper than what replaces it
def _end_to_end(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    longest: int,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """The same of rows that lie end to end: (1, heads, tokens, dim) each, to (1, tokens, heads, dim)."""
    rows = (
        torch.nested.nested_tensor_from_jagged(
            each[0].transpose(0, 1).contiguous(), offsets, min_seqlen=1, max_seqlen=longest
        ).transpose(1, 2)
        for each in (query, key, value)
    )
    seen = scaled_dot_product_attention(*rows, dropout_p=dropout, scale=scaling)
    return seen.transpose(1, 2).values()[None]


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])


def attend_fast(backbone: PreTrainedModel) -> None:
    """Makes a backbone take this attention, where it would take torch's."""
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(ATTENTION)
