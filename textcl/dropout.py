"""Dropout that draws fast on a CPU, with the statistics of torch's dropout.

torch draws one number per element, one after the other. Here a draw of 64 bits serves four elements. Dropped elements
are multiplied by 0, because filling by a mask is slower: it goes element by element.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU the rate is rounded to 16 bits."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        return input * kept(input, self.p) * (1 / (1 - self.p))


def draw_fast(backbone: nn.Module) -> None:
    """Replaces each `nn.Dropout` of a backbone with the fast `Dropout`, in place."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))


def kept(like: Tensor, rate: float) -> Tensor:
    """A random mask: each element is 0 with probability `rate`, else 1; shape and type are those of `like`.

    Elements are independent, and the rate is rounded to 16 bits. On a CPU, multiplying by this mask is faster than
    filling by a mask.
    """
    # one draw serves four elements, because drawing takes most of the time
    count = like.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.long, device=like.device).random_(torch.iinfo(torch.long).min, None)
    bits = bits.view(torch.int16)[:count].view(like.shape).int()
    return torch.ge(bits, round(rate * 2**16) - 2**15, out=torch.empty_like(bits, dtype=like.dtype))


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and restores its earlier mode at the exit."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
