"""Dropout that draws fast on a CPU, with the statistics of torch's dropout.

torch draws one number per element, one after the other. Here a draw of 64 bits serves four elements. Dropped elements
are multiplied by 0, because filling by a mask is slower: it goes element by element.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# The names under which configurations and layers keep dropout rates: dropout, hidden_dropout_prob, attn_pdrop, …
# Those of heads and of whole layers are not meant.
_HEADS = "classifier|summary|pooler|cls_|final_|head_|qa_|seq_classif|layer_drop"
_DROPOUT = re.compile(rf"(?!{_HEADS})([a-z_]+_)?p?drop(out)?(_prob|_rate|_p|_ratio)?")


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
    """A random mask: each element is False with probability `rate`, else True; its shape is that of `like`.

    Elements are independent, and the rate is rounded to 16 bits. On a CPU, multiplying by this mask is faster than
    filling by a mask. It is boolean because a graph keeps it until its backward pass: a byte for each element.
    """
    # one draw serves four elements, because drawing takes most of the time
    count = like.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.long, device=like.device).random_(torch.iinfo(torch.long).min, None)
    bits = bits.view(torch.int16)[:count].view(like.shape).int()
    return bits >= round(rate * 2**16) - 2**15


def evaluation_copy(module: nn.Module) -> Any:
    """A copy of a module that shares its weights and is in evaluation mode, whatever mode the module is put into.

    With it a thread computes without dropout while another thread trains the module; no mode is set and set back.
    Parameters and buffers are shared, submodules are copied, which takes a few microseconds each.
    """
    copies: dict[nn.Module, nn.Module] = {}

    def copied(original: nn.Module) -> nn.Module:
        if original not in copies:
            copies[original] = copy = object.__new__(type(original))
            for name, value in vars(original).items():
                # hooks are copied, because transformers adds some in the forward pass and notes so in the module
                shared = name in ("_parameters", "_buffers") or not isinstance(value, dict)
                copy.__dict__[name] = value if shared else value.copy()
            children = original._modules.items()
            copy.__dict__["_modules"] = {name: None if child is None else copied(child) for name, child in children}
            copy.__dict__["training"] = False
            copy.__dict__["_compiled_call_impl"] = None  # it is bound to the original
        return copies[original]

    return copied(module)


def is_dropout_rate(name: str, value: Any) -> bool:
    """Whether an attribute of a configuration or a layer is a dropout rate of the backbone."""
    return _DROPOUT.fullmatch(name) is not None and isinstance(value, int | float) and not isinstance(value, bool)


def dropout_rates(module: nn.Module) -> list[float]:
    """The dropout rates above 0 in a module, the pooler's aside: of its dropout layers and of its attention."""
    rates = []
    for path, part in module.named_modules():
        if "pooler" in path.split("."):
            continue
        if isinstance(part, nn.modules.dropout._DropoutNd):
            rates.append(part.p)
        # attention layers keep the rate as a number, and hand it to the function that computes attention
        rates += [value for name, value in vars(part).items() if is_dropout_rate(name, value)]
    return [float(rate) for rate in rates if rate > 0]


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and restores its earlier mode at the exit."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
