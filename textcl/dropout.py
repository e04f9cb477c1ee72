"""Dropout that draws fast on a CPU, with the statistics of torch's dropout.

torch draws one number per element, one after the other. Here a draw of 64 bits serves four elements. A mask is 0 or -1
(no bit or all bits), and elements are dropped by a bitwise "and": to multiply by a boolean mask or to fill by one takes
ten times as long, because torch goes element by element there.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

# The names under which configurations and layers keep dropout rates: dropout, hidden_dropout_prob, attn_pdrop, …
# Those of heads and of whole layers are not meant.
_HEADS = "classifier|summary|pooler|cls_|final_|head_|qa_|seq_classif|layer_drop"
_DROPOUT = re.compile(rf"(?!{_HEADS})([a-z_]+_)?p?drop(out)?(_prob|_rate|_p|_ratio)?")

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # whole numbers of as many bytes


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU the rate is rounded to 15 bits."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        return zeroed(input, kept(input, self.p)) * (1 / (1 - self.p))


def draw_fast(backbone: nn.Module) -> None:
    """Replaces each `nn.Dropout` of a backbone with the fast `Dropout`, in place."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))


def kept(like: Tensor, rate: float) -> Tensor:
    """A random mask for `zeroed`: each element is 0 with probability `rate`, else -1; its shape is that of `like`.

    Elements are independent, and the rate is rounded to 15 bits. The mask has a byte for each element, because a graph
    keeps it until its backward pass.
    """
    # one draw serves four elements, because drawing takes most of the time
    count = like.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.long, device=like.device).random_(torch.iinfo(torch.long).min, None)
    drawn = bits.view(torch.int16)[:count].view(like.shape).bitwise_right_shift_(1)  # from -2¹⁴ to 2¹⁴ - 1
    least = round(rate * 2**15) - 2**14  # numbers from here on are kept
    return drawn.neg_().add_(least - 1).bitwise_right_shift_(15).to(torch.int8)  # the sign: -1 where drawn >= least


def zeroed(values: Tensor, mask: Tensor) -> Tensor:
    """The values, 0 where a mask of `kept` is 0; differentiable.

    Example:
        >>> zeroed(torch.tensor([1.0, 2.0]), torch.tensor([-1, 0], dtype=torch.int8))
        tensor([1., 0.])
    """
    if torch.compiler.is_compiling():  # a compiled product is fast, and autograd functions are not compiled well
        return values * mask.bool()
    return cast(Tensor, _Zeroed.apply(values, mask))


class _Zeroed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        bits = _BITS[values.element_size()]
        return (values.view(bits) & mask.to(bits)).view(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return zeroed(gradient, mask), None


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
    """Puts a module into evaluation mode, and restores the earlier mode of each of its parts at the exit."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
