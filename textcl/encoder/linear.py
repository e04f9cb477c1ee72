"""Linear layers for CPUs on which torch's float32 products use half of the speed: those of AMD with AVX-512.

torch computes float32 products with MKL, which on AMD's CPUs uses vectors of 256 bits. oneDNN, which torch computes its
bfloat16 products with, uses 512 bits there, and is about twice as fast from eight rows on. Results differ by rounding.

Also linear layers for encoding many texts in bfloat16, whose weights are ordered once and not in each product.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from textcl.device import can_order_weights, halves_float32, product_by_onednn


class Linear(nn.Linear):
    """`nn.Linear`, its float32 products on a CPU computed by oneDNN, forward and backward."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32 and input.numel()
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        # Reshaped here and not in the function: backbones such as Longformer change the output in place, which torch
        # forbids for a view that a function of autograd returns.
        rows = cast(Tensor, _Product.apply(input.reshape(-1, input.shape[-1]), self.weight, self.bias))
        return rows.view(*input.shape[:-1], len(self.weight))


class _Product(torch.autograd.Function):
    """input (rows, in) · weightᵀ (in, out) + bias (out,), to (rows, out)."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return product_by_onednn(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        # by `apply`, so that there is a second derivative
        return (
            cast(Tensor, _Product.apply(gradient, weight.t(), None)) if of_input else None,
            cast(Tensor, _Product.apply(gradient.t(), input.t(), None)) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def multiply_fast(backbone: nn.Module) -> None:
    """Makes each `nn.Linear` of a backbone a `Linear`, in place, on CPUs on which this is faster."""
    if halves_float32():
        for module in backbone.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


class Ordered(nn.Linear):
    """`nn.Linear` for inference in bfloat16 on a CPU, with a weight that oneDNN has ordered once."""

    ordered: Tensor
    ordered_bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        if not input.numel():
            return super().forward(input)
        return product_by_onednn(input.to(torch.bfloat16), self.ordered, self.ordered_bias)


def order_weights(backbone: nn.Module) -> None:
    """Makes the linear layers of a copy compute in bfloat16 with weights that are ordered once, on CPUs with oneDNN.

    Args:
        backbone: A copy by `evaluation_copy`, so that the layers of the original stay as they are. A later change of
            the weights does not change what the copy computes.
    """
    if not can_order_weights():
        return
    for module in backbone.modules():
        if not isinstance(module, nn.Linear) or type(module) not in (nn.Linear, Linear):
            continue
        if module.weight.device.type == "cpu" and module.weight.dtype in (torch.float32, torch.bfloat16):
            ordered = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach().bfloat16())
            bias = None if module.bias is None else module.bias.detach().bfloat16()
            module.__dict__.update(ordered=ordered, ordered_bias=bias)
            module.__class__ = Ordered
