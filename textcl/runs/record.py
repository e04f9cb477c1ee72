"""The files that a run writes, and the only reader and writer of `run.json`."""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from textcl.encoder.export import MODEL_FILE
from textcl.errors import InputError
from textcl.files import read_json, unknown_file
from textcl.seals import read_sealed, write_sealed
from textcl.training.callback import BEST_FILE, CHECKPOINT_FILE
from textcl.training.selection import Selection

RUN_JSON = "run.json"
RECIPE_JSON = "recipe.json"
_OF_SELECTION = {each.name for each in fields(Selection)}
# The directories of a run, with the files that textcl writes into them.
_DIRECTORIES = {"export": MODEL_FILE, "best": BEST_FILE, r"checkpoint-\d+": CHECKPOINT_FILE}


@dataclass(frozen=True)
class DataRecord:
    """The data that a run was trained on.

    Attributes:
        file: The path of the corpus or the pattern of its files; of several, the first, and how many more there are.
        sha256: The SHA-256 of the file, or of several, see `CorpusFiles`.
        rows: The number of rows trained on.
        held_out: The number of texts held out for a label-free criterion.
        duplicates: The number of rows whose text also occurs in an earlier row.
        duplicates_in_batches: The number of rows, up to the last logged step, whose text another row of the same batch
            had; of several processes, among the rows of the first one.
        overlap: How many texts of each evaluation set are among the rows, or among those that the model was trained on
            before, see `textcl.data.overlap`.
        rows_read: The number of rows read from the files, those that were left out included; None: an earlier version
            trained, which did not count them.
    """

    file: str
    sha256: str
    rows: int
    held_out: int
    duplicates: int
    duplicates_in_batches: float | None
    overlap: dict[str, Any]
    rows_read: int | None = None


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record; those with a default may be missing, because an earlier version did not write them."""
    wanted = (each.name for each in fields(kind) if each.default is MISSING or each.name in content)
    return {name: content[name] for name in wanted}


@dataclass(frozen=True)
class RunRecord:
    """The record of a finished run.

    Attributes:
        started: The date and time of the start, UTC.
        finished: The date and time of the end, UTC.
        fingerprint: The fingerprint of the recipe, see `Recipe.fingerprint`.
        recipe: The resolved recipe, see `Recipe.to_dict`.
        command: The command that repeats the run.
        seed: The seed of the run.
        encoder: The description of the encoder, see `Encoder.describe`.
        data: The data that the run was trained on.
        dev: The encoder that was kept and its score before and after; None: nothing was scored.
        steps: The number of optimizer steps.
        train_loss: The mean loss over the steps since the run was last started or resumed.
        seconds: The duration of training since the run was last started or resumed, in seconds.
        sentences_per_second: The speed of training.
        resumed: Whether the run was resumed from a checkpoint.
        processes: The number of processes that trained together.
        device: The device of the process that wrote this record.
        precision: "fp32", or the data type of autocast, such as "bf16 autocast".
        versions: The versions of the libraries, see `textcl.version.library_versions`.
        model_weights: The hash of each weight file of the model that training started from; None: an earlier version
            trained.
    """

    started: str
    finished: str
    fingerprint: str
    recipe: dict[str, Any]
    command: str
    seed: int
    encoder: dict[str, Any]
    data: DataRecord
    dev: Selection | None
    steps: int
    train_loss: float | None
    seconds: float
    sentences_per_second: float | None
    resumed: bool
    processes: int
    device: str
    precision: str
    versions: dict[str, str]
    model_weights: list[str] | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RunRecord":
        """Makes a record from the dictionary that `to_dict` returned. Further keys are ignored.

        Raises:
            InputError: A key is missing.
        """
        try:
            known = _known(cls, content)
            data = DataRecord(**_known(DataRecord, known["data"]))
            # records of earlier versions have only the set and the score
            dev = known["dev"] and Selection(**{k: v for k, v in known["dev"].items() if k in _OF_SELECTION})
        except (KeyError, TypeError) as error:
            raise InputError(f"This is not the record of a run: {error} is missing.") from None
        return cls(**{**known, "data": data, "dev": dev})

    @classmethod
    def read(cls, run: Path) -> "RunRecord | None":
        """The record in a run's directory; None if the run has not finished.

        Raises:
            InputError: `run.json` is damaged, or is not the record of a run.
        """
        path = run / RUN_JSON
        if not path.is_file():
            return None
        content = read_sealed(path)
        try:
            return cls.from_dict(content)
        except InputError as error:
            raise InputError(f"{path} is not the record of a run: {error}") from None

    def verdict(self) -> str:
        """One sentence: the score before and after training, or that nothing was measured."""
        if self.dev is not None:
            return self.dev.sentence()
        return f"Nothing was measured: the export is the encoder after the last step ({self.steps:,})."

    def to_dict(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return asdict(self)

    def write(self, run: Path) -> None:
        write_sealed(run / RUN_JSON, self.to_dict())


def holds_run(output: Path) -> bool:
    """Whether a run was started from a recipe in this directory."""
    return any(_is_of_run(output / name) for name in (RECIPE_JSON, RUN_JSON))


def _is_of_run(file: Path) -> bool:
    """Whether a file is a record of textcl, which may be damaged, and not another program's file of that name."""
    if not file.is_file():
        return False
    try:
        content = read_json(file)
    except InputError:
        return True
    return isinstance(content, dict) and "fingerprint" in content


def run_files(output: Path) -> list[str]:
    """The names of what is in a directory and may be of a run, whether it was started from a recipe or from Python."""
    names = [name for name in (RUN_JSON, RECIPE_JSON, "log.jsonl") if (output / name).is_file()]
    return names + [folder.name for folder, _ in _directories(output)]


def check_directory(output: Path, *, replace: bool) -> None:
    """Raises an error unless a run can begin, continue or be replaced in a directory without a loss.

    Args:
        output: The directory of the run.
        replace: Whether a run that is there may be continued or removed.

    Raises:
        InputError: There is a run, or there are files that a run would overwrite or that `remove_run` would remove,
            although textcl did not write them.
    """
    if not holds_run(output):
        if found := run_files(output):
            raise InputError(
                f"{output} has {found[-1]}, but no {RECIPE_JSON} of a run, so nothing in it is continued or replaced; "
                "name another directory."
            )
    elif not replace:
        raise InputError(f"{output} has a run already; continue it with --resume, or replace it with --overwrite.")
    for folder, known in _directories(output):
        if (name := unknown_file(folder, known)) is not None:
            raise InputError(
                f"{folder} has {name}, which textcl did not write; move it away, or name another directory."
            )


def remove_run(output: Path) -> None:
    """Removes the files of a run from a directory, and keeps all other files there. Call `check_directory` first."""
    for name in run_files(output):
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _directories(output: Path) -> Iterator[tuple[Path, re.Pattern[str]]]:
    """The directories of a run that are there, with the pattern of the files that may be in them."""
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        for name, known in _DIRECTORIES.items():
            if re.fullmatch(name, path.name) and path.is_dir():
                yield path, known
