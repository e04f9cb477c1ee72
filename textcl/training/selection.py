"""Which encoder a training keeps: the untouched one, the best checkpoint, or the last one."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from textcl.errors import InputError
from textcl.evaluation.label_free import CRITERIA
from textcl.files import atomic_directory
from textcl.training.callback import BEST, BEST_FILE, best_step, places_of_best

ERROR = "_error"
"""Behind the name of a score in the log: the standard error of its difference from the untouched encoder's score."""

START = "start.safetensors"
"""A file of a checkpoint: what the untouched encoder's score was computed from, for the errors of later differences,
and the number of duplicates in the batches so far."""


@dataclass(frozen=True)
class Selection:
    """The encoder that a training keeps, and its score.

    Attributes:
        set: The name of the evaluator that chose.
        score: The score of the encoder that is kept.
        step: The step of the encoder that is kept; 0: the untouched encoder.
        before: The score of the untouched encoder; None: it was not scored.
        highest: The highest score of a trained checkpoint; None: none was scored.
        error: The standard error of the difference of this checkpoint from the untouched encoder, by the paired
            bootstrap of the evaluator; None: the evaluator has none.
        chosen: Whether the evaluator chose; False: the last weights are kept.
    """

    set: str
    score: float
    step: int | None = None
    before: float | None = None
    highest: float | None = None
    error: float | None = None
    chosen: bool = True

    @property
    def untouched(self) -> bool:
        """Whether the untouched encoder is kept."""
        return self.chosen and self.before is not None and self.step == 0

    def sentence(self) -> str:
        """The last line of a training.

        Example:
            >>> Selection("stsb-dev", 80.12, 400, before=78.9).sentence()
            'stsb: 78.9 before, 80.1 after (step 400, chosen on these data)'
        """
        name = self.set.removesuffix("-dev")
        note = f"; {name} follows neither clusters nor search" if name in CRITERIA else ""
        how = "chosen on these data" if self.chosen else "the last one: nothing was chosen"
        step = "" if self.step is None else f"step {self.step}, "
        if self.before is None:
            (score,) = _rounded(self.score)
            return f"{name}: {score} ({step}{how}); the untouched encoder was not scored{note}"
        before, score = _rounded(self.before, self.score)
        if self.untouched:
            how = "the untouched encoder: no checkpoint was better"
            if self.highest is not None:
                more = "" if self.error is None else f" by more than the error of the difference, {self.error:.2g}"
                how += f"{more}; the highest score was {_rounded(self.highest, self.before)[0]}"
            step = ""
        return f"{name}: {before} before, {score} after ({step}{how}){note}"


def select(history: Sequence[Mapping[str, Any]], metric: str, *, best: bool = True, quality: bool = True) -> Selection:
    """Which encoder is kept, from the log of a training.

    A checkpoint replaces the first encoder that was scored, which is the untouched one, if it is better by more than
    the error of the difference. Among such checkpoints the highest score is kept, the first of equal ones.

    Args:
        history: The entries of the log so far, each with its `step`.
        metric: The name of the score; at least one entry must have it.
        best: False: the last scored encoder is kept.
        quality: Whether the score measures quality, so that the untouched encoder has one.
    """
    first, *others = [entry for entry in history if metric in entry]
    kept, highest = first, None
    for entry in others:
        if highest is None or or_lowest(entry[metric]) > or_lowest(highest[metric]):
            highest = entry
        gain = or_lowest(entry[metric]) - or_lowest(first[metric])
        if gain > entry.get(metric + ERROR, 0.0) and entry[metric] > or_lowest(kept[metric]):
            kept = entry
    if not best:
        kept = [first, *others][-1]
    started = quality and first["step"] == 0
    if not started:
        highest = None
    return Selection(
        metric.partition("_")[2],
        kept[metric],
        kept["step"],
        before=first[metric] if started else None,
        highest=None if highest is None else highest[metric],
        error=None if highest is None else highest.get(metric + ERROR),
        chosen=best,
    )


def save_start(checkpoint: Path, items: np.ndarray | None, duplicates: Tensor) -> None:
    """Writes what a resumed run needs and transformers does not save, see `START`."""
    known = {} if items is None else {"items": torch.from_numpy(items)}
    save_file({**known, "duplicates": duplicates.cpu()}, checkpoint / START)


def start_of(checkpoint: Path, metric: str) -> tuple[np.ndarray | None, int]:
    """What the untouched encoder's score was computed from, and the number of duplicates in the batches so far.

    The first is None if the checkpoint does not have that score, the second 0 if an earlier version did not count it.
    """
    path = checkpoint / START
    kept = load_file(path) if path.is_file() else {}
    items = kept.get("items") if _scored(checkpoint, metric) else None
    return None if items is None else items.numpy(), int(kept.get("duplicates", 0))


def take_over_best(checkpoint: Path, run: Path, metric: str) -> None:
    """Makes the best encoder up to a checkpoint that of the run that continues from it.

    `best/` of the run may have a later encoder, and the checkpoint may be of another run.

    Args:
        checkpoint: The checkpoint.
        run: The directory of the run that continues.
        metric: The score that chooses. If the checkpoint's log does not have it, nothing was chosen before.

    Raises:
        InputError: An encoder was chosen before the checkpoint, and is no longer there.
    """
    history = _scored(checkpoint, metric)
    if not history:
        return
    step = select(history, metric).step
    for best in places_of_best(checkpoint):
        if best_step(best, metric) == step:
            if best != run / BEST:
                with atomic_directory(run / BEST, BEST_FILE) as folder:
                    shutil.copytree(best, folder, dirs_exist_ok=True)
            return
    raise InputError(
        f"The best encoder up to {checkpoint} is that of step {step}, and neither the checkpoint nor "
        f"{checkpoint.parent / BEST} has it. Start a new run, or set select_best to false to keep the last weights."
    )


def _scored(checkpoint: Path, metric: str) -> list[dict[str, Any]]:
    """The entries of the log up to a checkpoint that have a score."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in history if metric in entry]


def or_lowest(score: float) -> float:
    """The score to compare; −∞ for NaN, with which each comparison is false."""
    return -math.inf if math.isnan(score) else score


def _rounded(*scores: float) -> list[str]:
    """The scores with one decimal, or with two if they are small or would look equal."""
    small = max(map(abs, scores)) < 10
    texts = [f"{score:.{2 if small else 1}f}" for score in scores]
    equal = len(set(texts)) < len(set(scores))
    return [f"{score:.{3 if small else 2}f}" for score in scores] if equal else texts
