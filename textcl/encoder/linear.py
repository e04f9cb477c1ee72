"""Linear layers for CPUs on which torch's float32 products use half of the speed: those of AMD with AVX-512.

torch computes float32 products with MKL, which on AMD's CPUs uses vectors of 256 bits. oneDNN, which torch computes its
bfloat16 products with, uses 512 bits there, and is about twice as fast from eight rows on. Results differ by rounding.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from textcl.device import halves_float32, product_by_onednn


class Linear(nn.Linear):
    """`nn.Linear`, its float32 products on a CPU computed by oneDNN, forward and backward."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32 and input.numel()
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        return cast(Tensor, _Product.apply(input, self.weight, self.bias))


class _Product(torch.autograd.Function):
    """input (…, in) · weightᵀ (in, out) + bias (out,), to (…, out)."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return product_by_onednn(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        # by `apply`, so that there is a second derivative
        return (
            cast(Tensor, _Product.apply(gradient, weight.t(), None)) if of_input else None,
            cast(Tensor, _Product.apply(rows.t(), input.reshape(len(rows), -1).t(), None)) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def multiply_fast(backbone: nn.Module) -> None:
    """Makes each `nn.Linear` of a backbone a `Linear`, in place, on CPUs on which this is faster."""
    if halves_float32():
        for module in backbone.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear
