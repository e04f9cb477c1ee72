"""A run stops when its loss or its weights are not finite."""

import math
from pathlib import Path

from torch import nn

from textcl.errors import InputError
from textcl.training.callback import last_good


def check_loss(loss: float, step: int, run: Path) -> None:
    """Stops a run whose loss is not finite.

    Raises:
        InputError: It is not; the message names the last complete checkpoint.
    """
    if not math.isfinite(loss):
        raise _not_finite(f"The loss became {loss} at step {step}.", run)


def check_weights(method: nn.Module, step: int, run: Path) -> None:
    """Stops a run in which a step made weights that are not finite, before they are saved or exported.

    Raises:
        InputError: A trained weight is NaN or infinite; the message names the last complete checkpoint.
    """
    if not all(weight.isfinite().all() for weight in method.parameters() if weight.requires_grad):
        raise _not_finite(f"Weights became NaN or infinite by step {step}.", run)


def _not_finite(reason: str, run: Path) -> InputError:
    return InputError(f"{reason} Lower the learning rate, or raise the temperature. {last_good(run)}")
