"""Dropout that draws fast on a processor; the statistics are those of torch's.

torch draws a number an element, one after the other. Here a draw of 64 bits serves four elements, and what is dropped
is multiplied by 0, as filling by a mask goes element by element.
"""

from torch import Tensor, nn

from textcl.views.model_side import kept


class Dropout(nn.Dropout):
    """`nn.Dropout`, to 16 bits of the rate on a processor."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        return input * kept(input, self.p) * (1 / (1 - self.p))


def draw_fast(backbone: nn.Module) -> None:
    """Puts it in the place of torch's, wherever a backbone has one."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
