"""Whether a run may continue what is on disk: the run in its own directory, or a checkpoint of another run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from textcl.data.overlap import OVERLAP_JSON
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.runs.recipe import COSMETIC, SCHEME, Recipe
from textcl.runs.record import RECIPE_JSON, RunRecord
from textcl.seals import read_sealed

# A continued run may be longer or shorter than the run that its checkpoint is from: the Trainer follows these flags.
_LENGTH = ("max_steps", "num_train_epochs")


def finished(output: Path, recipe: Recipe, fingerprint: str) -> RunRecord | None:
    """The record of the finished run in `output`; None if there is no run or it is not finished.

    Raises:
        InputError: The run in `output` has another recipe, so it must not be continued.
    """
    begun = _begun(output)
    if begun is None:
        return None
    if begun.get("scheme") != SCHEME:
        raise InputError(
            f"The run in {output} was started by another version of textcl, which did not look at all files of the "
            "model, so it cannot be known whether the model is still the same; replace the run with --overwrite, or "
            "finish it with that version."
        )
    if begun.get("fingerprint") != fingerprint:
        if (found := _differing(recipe, begun)) is None:
            raise InputError(
                f"The data or a file of the models of the run in {output} changed after it was started. Restore "
                "it, name another --output, or replace the run with --overwrite, which removes its checkpoints."
            )
        flags, values = found
        raise InputError(
            f"The run in {output} was started with {flags}, not {values}. Give these flags to continue it, name "
            "another --output, or replace the run with --overwrite, which removes its checkpoints."
        )
    return RunRecord.read(output)


def can_be_loaded(export: Path) -> bool:
    """Whether the export of a finished run is still there, with all its files."""
    try:
        with torch.random.fork_rng(devices=[]):  # loading draws, and a training may follow
            Encoder.from_pretrained(export, device="cpu")
    except InputError:
        return False
    return (export / OVERLAP_JSON).is_file()


def check_checkpoint(checkpoint: Path, recipe: Recipe, known: Mapping[str, str]) -> None:
    """Raises an error unless a checkpoint is of a run with the flags, data and models of a recipe.

    Its optimizer, schedule and log continue, so that other flags would be recorded and not followed.

    Args:
        checkpoint: The checkpoint.
        recipe: The recipe of the run that continues from it.
        known: The hashes of flags that are known already, see `Recipe.fingerprint`.

    Raises:
        InputError: The run of the checkpoint is not known, or has other flags, data or models.
    """
    begun = _begun(checkpoint.parent)
    if begun is None or begun.get("scheme") != SCHEME:
        raise InputError(
            f"{checkpoint.parent} has no {RECIPE_JSON} of this version of textcl, so it cannot be known with which "
            f"flags {checkpoint} was made; continue it in Python, or start a new run."
        )
    before, flag = begun["recipe"], "resume_from_checkpoint"
    known = {key: value for key, value in known.items() if key != flag}
    if "checkpoint" in begun:  # that run continued from a third one, whose checkpoint may be gone
        known[flag] = begun["checkpoint"]
    length = {key: before.get(key) for key in _LENGTH}
    theirs = Recipe(recipe.method, {**recipe.flags, **length, flag: before.get(flag) if flag in known else None})
    if begun.get("fingerprint") == theirs.fingerprint(known):
        return
    if (found := _differing(theirs, begun)) is None:
        raise InputError(
            f"The data or a file of the models of the run that {checkpoint} is from changed after it was started; "
            "restore it, or start a new run."
        )
    flags, values = found
    raise InputError(
        f"{checkpoint} is from a run with {flags}, not {values}; only --max-steps and --num-train-epochs may differ, "
        "so give that run's flags, or start a new run from its export with --model."
    )


def _begun(run: Path) -> dict[str, Any] | None:
    """What a run wrote when it started; None if there is no run."""
    try:
        begun = read_sealed(run / RECIPE_JSON)
    except FileNotFoundError:
        return None
    if not isinstance(begun.get("recipe"), dict):
        raise InputError(f"{run / RECIPE_JSON} is not of a run of textcl; name another directory.")
    return begun


def _differing(recipe: Recipe, begun: Mapping[str, Any]) -> tuple[str, str] | None:
    """The flags of a run that a recipe has otherwise, and the recipe's values, in words; None if all are equal."""
    now, before = recipe.to_dict(), begun["recipe"]
    differ = sorted(key for key in now if now[key] != before.get(key) and key not in COSMETIC)
    if not differ:
        return None
    flags = ", ".join(f"--{key.replace('_', '-')} {_shown(before.get(key))}" for key in differ)
    return flags, ", ".join(_shown(now[key]) for key in differ)


def _shown(value: Any) -> str:
    """A flag's value as the command line takes it."""
    return "unset" if value in (None, "", []) else shlex.join(map(str, value if isinstance(value, list) else [value]))
