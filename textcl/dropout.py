"""Dropout that draws fast on a processor, for layers and for attention; the statistics are those of torch's.

torch draws a number an element, one after the other. Here a draw of 64 bits serves four elements, and what is dropped
is multiplied by 0, as filling by a mask goes element by element. torch's fused attention has no dropout on a processor,
and the one in its place computes in float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from textcl.views.model_side import kept

ATTENTION = "textcl"
SHORT = 128  # tokens up to which separate products in bfloat16 are faster than torch's fused ones


class Dropout(nn.Dropout):
    """`nn.Dropout`, to 16 bits of the rate on a processor."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        return input * kept(input, self.p) * (1 / (1 - self.p))


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
        **options: Further ones of transformers.

    Returns:
        (rows, length, heads, dim of a head), and None for the weights.
    """
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


def draw_fast(backbone: PreTrainedModel) -> None:
    """Puts both in the place of what a backbone has; attention only where it would be torch's."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
    if backbone.config._attn_implementation == "sdpa":
        backbone.set_attn_implementation(ATTENTION)
