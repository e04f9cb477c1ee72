"""The files that a run writes, and the only reader and writer of `run.json`."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import write_json
from textcl.training.selection import Selection

RUN_JSON = "run.json"
_OF_SELECTION = {each.name for each in fields(Selection)}
RUN_FILES = (RUN_JSON, "recipe.json", "log.jsonl", "export", "best")


@dataclass(frozen=True)
class DataRecord:
    """The data that a run was trained on.

    Attributes:
        file: The path of the corpus.
        sha256: The SHA-256 of the file.
        rows: The number of rows trained on.
        held_out: The number of texts held out for a label-free criterion.
        duplicates: The number of rows whose text also occurs in an earlier row.
        duplicates_in_batches: The number of rows, up to the last logged step, whose text another row of the same batch
            had.
        overlap: How many texts of each evaluation set are among the rows, see `textcl.evaluation.overlap`.
    """

    file: str
    sha256: str
    rows: int
    held_out: int
    duplicates: int
    duplicates_in_batches: float | None
    overlap: dict[str, Any]


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

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RunRecord":
        """Makes a record from the dictionary that `to_dict` returned. Further keys are ignored.

        Raises:
            InputError: A key is missing.
        """
        try:
            known = {each.name: content[each.name] for each in fields(cls)}
            data = DataRecord(**{each.name: known["data"][each.name] for each in fields(DataRecord)})
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
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
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
        write_json(run / RUN_JSON, self.to_dict())


def holds_run(output: Path) -> bool:
    """Whether a run was started in this directory."""
    return any(output.glob("checkpoint-*")) or any((output / name).exists() for name in RUN_FILES)


def remove_run(output: Path) -> None:
    """Removes the files of a run from a directory, and keeps all other files there."""
    for path in [*output.glob("checkpoint-*"), *(output / name for name in RUN_FILES)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
