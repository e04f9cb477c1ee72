"""Reading the files of a run or a comparison, finished or not."""

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import content_hash
from textcl.report.results import comparison_lines, of_textcl, setting_of
from textcl.runs.record import RunRecord, run_files
from textcl.seals import differs, read_sealed
from textcl.training.callback import SEAL

logger = logging.getLogger("textcl")


@dataclass(frozen=True)
class Run:
    """The content of a run's directory.

    Attributes:
        path: The directory.
        recipe: The resolved recipe; empty for a run that was started from Python without a recipe.
        record: The record of the run; None if it has not finished.
        log: The entries of `log.jsonl`, in the order in which they were written.
        best: The content of `best/best.json`; None if there is no such file.
    """

    path: Path
    recipe: dict[str, Any]
    record: RunRecord | None
    log: list[dict[str, Any]]
    best: dict[str, Any] | None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def encoder(self) -> Path | None:
        """The directory of the export or, for an unfinished run, of the best encoder so far; None if there is none."""
        folders = (self.path / "export", self.path / "best" / "encoder")
        return next((folder for folder in folders if (folder / "config.json").is_file()), None)

    @property
    def dev_set(self) -> str | None:
        """The key in the log of the score that chooses the checkpoint."""
        if self.best:
            return str(self.best["metric"])
        return next((key for entry in self.log for key in entry if key.startswith("eval_")), None)

    def series(self, *keys: str) -> list[tuple[float, ...]]:
        """The step and the values of all entries that have these keys with finite values.

        A resumed run may have logged a step twice; the later entry is used.
        """
        found = {e["step"]: (e["step"], *(e[key] for key in keys)) for e in self.log if all(key in e for key in keys)}
        return [found[step] for step in sorted(found) if all(map(math.isfinite, found[step]))]


def read_run(path: str | Path) -> Run:
    """Reads a run's directory.

    Raises:
        InputError: The directory has no run, or one of its files is damaged.
    """
    folder = Path(path)
    if not run_files(folder):
        raise InputError(
            f"{folder} has neither a run (recipe.json, log.jsonl), nor a comparison (results.jsonl), nor an adaptation "
            "(adapt.json)."
            if folder.is_dir()
            else f"There is no directory {folder}; name the directory of a run, a comparison or an adaptation."
        )
    begun, record = _read(folder / "recipe.json") or {}, RunRecord.read(folder)
    recipe = record.recipe if record else begun.get("recipe", {})
    return Run(folder, recipe, record, _read_log(folder / "log.jsonl"), _read_best(folder / "best"))


@dataclass(frozen=True)
class Comparison:
    """The content of a comparison's folder.

    Attributes:
        path: The folder.
        lines: The lines of its results, see `textcl.runs.compare`; for each row, seed and set of tasks the last one.
        runs: All runs that were started, finished or not.
        replaced: The rows that have earlier lines of another recipe, model or corpus, which are left out.
    """

    path: Path
    lines: list[dict[str, Any]]
    runs: list[Run]
    replaced: list[str]


def is_comparison(path: str | Path) -> bool:
    """Whether a folder is the output of `textcl compare`."""
    folder = Path(path)
    there = of_textcl(folder / "results.jsonl") or (folder / "runs").is_dir()
    return there and not run_files(folder)


def read_comparison(path: str | Path) -> Comparison:
    """Reads a comparison's folder.

    Raises:
        InputError: The results have another schema, or a file is damaged.
    """
    folder = Path(path)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    replaced: dict[str, None] = {}
    read = comparison_lines(folder)
    last = {line["row"]: setting_of(line.get("recipe"), line.get("run")) for line in read}
    for line in read:
        row, seed = line["row"], line["seed"]
        if setting_of(line.get("recipe"), line.get("run")) != last[row]:
            replaced[row] = None
            continue
        if any(key[:2] == (row, seed) and lines[key]["fingerprint"] != line["fingerprint"] for key in lines):
            replaced[row] = None  # of another model or corpus, as are the other seeds of the row
            lines = {key: each for key, each in lines.items() if key[0] != row}
        lines[row, seed, *line["results"]] = line
    runs = [read_run(run) for run in sorted((folder / "runs").glob("*")) if run_files(run)]
    return Comparison(folder, list(lines.values()), runs, list(replaced))


def recorded_results(run: Run) -> dict[str, dict[str, Any]]:
    """The scores of a run that its comparison recorded; empty if the run does not belong to a comparison."""
    folder = run.path.resolve().parent.parent
    if run.path.resolve().parent.name != "runs" or not is_comparison(folder):
        return {}
    export = str((run.path.resolve() / "export").relative_to(folder))
    found: dict[str, dict[str, Any]] = {}
    for line in comparison_lines(folder):
        if line["run"] and line["run"]["export"] == export:
            found |= line["results"]
    return found


def _read(path: Path) -> Any:
    try:
        return read_sealed(path)
    except FileNotFoundError:
        return None


def _read_best(folder: Path) -> Any:
    sealed = (_read(folder / SEAL) or {}).get("files", {})
    if "best.json" in sealed and differs(folder, {"best.json": sealed["best.json"]}) is not None:
        raise InputError(f"{folder / 'best.json'} is damaged: it does not have the content that textcl wrote.")
    return _read(folder / "best.json")


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log; an incomplete line, as an interruption leaves it, and a damaged one are skipped."""
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else [], start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict) or "step" not in entry:
            continue
        if entry.pop("sha256", hashed := content_hash(entry)) != hashed:
            logger.warning("%s, line %d is damaged and was skipped.", path, number)
            continue
        entries.append(entry)
    return entries
