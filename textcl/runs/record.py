"""What a run leaves on disk, and the one reader and writer of `run.json`."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import write_json

RUN_JSON = "run.json"
RUN_FILES = (RUN_JSON, "recipe.json", "log.jsonl", "export", "best")


@dataclass(frozen=True)
class DataRecord:
    """What a run was trained on.

    Attributes:
        file: The corpus.
        sha256: Of its bytes.
        rows: Rows trained on.
        held_out: Texts that a criterion without labels saw, and training did not.
        duplicates: Rows whose text an earlier row has.
        duplicates_in_batches: Rows of the last logged step's batches so far whose text another row of their batch had.
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
class DevRecord:
    """What chose the checkpoint.

    Attributes:
        set: The evaluator's name.
        score: The exported encoder's.
    """

    set: str
    score: float


@dataclass(frozen=True)
class RunRecord:
    """The record of a finished run.

    Attributes:
        started: Date and time, UTC.
        finished: Date and time, UTC.
        fingerprint: See `Recipe.fingerprint`.
        recipe: See `Recipe.to_dict`.
        command: The line that makes the run again.
        seed: Its seed.
        encoder: See `Encoder.describe`.
        data: What it was trained on.
        dev: What chose the checkpoint; None: nothing did.
        steps: Optimizer steps.
        train_loss: The mean over the steps since the run was last begun or resumed.
        seconds: Training took, since then.
        sentences_per_second: In training.
        resumed: Whether it went on from a checkpoint.
        processes: How many trained together.
        device: The device of the process that wrote this.
        precision: fp32, or the half type of autocast.
        versions: See `textcl.version.library_versions`.
    """

    started: str
    finished: str
    fingerprint: str
    recipe: dict[str, Any]
    command: str
    seed: int
    encoder: dict[str, Any]
    data: DataRecord
    dev: DevRecord | None
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
        """The record that `to_dict` gave; further keys are ignored.

        Raises:
            InputError: If a key is missing.
        """
        try:
            known = {each.name: content[each.name] for each in fields(cls)}
            data = DataRecord(**{each.name: known["data"][each.name] for each in fields(DataRecord)})
            dev = known["dev"] and DevRecord(known["dev"]["set"], known["dev"]["score"])
        except (KeyError, TypeError) as error:
            raise InputError(f"This is not the record of a run: {error} is missing.") from None
        return cls(**{**known, "data": data, "dev": dev})

    @classmethod
    def read(cls, run: Path) -> "RunRecord | None":
        """The record in a run's directory; None if the run has not finished.

        Raises:
            InputError: If `run.json` is damaged, or is not the record of a run.
        """
        path = run / RUN_JSON
        if not path.is_file():
            return None
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise InputError(f"{path} is not the record of a run: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return asdict(self)

    def write(self, run: Path) -> None:
        write_json(run / RUN_JSON, self.to_dict())


def holds_run(output: Path) -> bool:
    """Whether a run was begun in this directory."""
    return any(output.glob("checkpoint-*")) or any((output / name).exists() for name in RUN_FILES)


def remove_run(output: Path) -> None:
    """Removes what a run writes, and nothing else that may lie there."""
    for path in [*output.glob("checkpoint-*"), *(output / name for name in RUN_FILES)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
