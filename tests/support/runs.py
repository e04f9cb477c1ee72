"""Runs on a tiny encoder: their flags, and one that ends as a kill does."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.runs.recipe import Recipe
from textcl.runs.run import make_trainer, run_recipe


def write_inputs(folder: Path) -> None:
    """Writes a tiny encoder `bert`, `texts.txt` with 64 texts, and `pairs.tsv` with 40 scored pairs."""
    tiny_encoder_directory(folder / "bert")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    pairs = [f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}" for i in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(pairs) + "\n")


def small_run(work: Path, output: Path, **more: object) -> dict[str, Any]:
    """The flags of three steps of SimCSE on `bert` and `texts.txt` in the folder `work`."""
    return {
        "method": "simcse",
        "model": str(work / "bert"),
        "data": str(work / "texts.txt"),
        "output": str(output),
        "per_device_train_batch_size": 8,
        "dev": "none",
        "max_steps": 3,
        **more,
    }


class KilledAt(transformers.TrainerCallback):
    """Ends a training as a kill does: nothing is restored, and later steps are missing."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def run_until_killed(recipe: Recipe, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a recipe, and interrupts it at a step."""

    def killed(*given):
        trainer, held_out = make_trainer(*given)
        trainer.add_callback(KilledAt(step))
        return trainer, held_out

    with monkeypatch.context() as patched:
        patched.setattr("textcl.runs.run.make_trainer", killed)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe)
