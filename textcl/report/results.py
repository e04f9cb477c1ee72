"""Past results: finding and selecting the runs and the lines of comparisons under some folders."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from textcl.errors import InputError, nearest
from textcl.evaluation.kinds import GEOMETRY, KINDS, kind_of
from textcl.evaluation.results import short_name
from textcl.files import read_results
from textcl.report.tables import differing_data
from textcl.runs.recipe import COSMETIC
from textcl.runs.record import RUN_JSON, RunRecord
from textcl.texts import counted

logger = logging.getLogger("textcl")

# From the kind of task to the column of its average; it is the kind's name except for geometry.
COLUMNS = {**{kind: kind for kind in KINDS}, GEOMETRY.name: "eff. rank"}
DEV = "STS-B dev"
FACTS = ("name", "method", "seed", "date", "folder")
_PASSED_OVER = ("export", "best", "checkpoint-")  # large directories without results


@dataclass(frozen=True)
class PastResult:
    """A line of a comparison, or a run that does not belong to a comparison.

    Attributes:
        name: The name of the row; for a run, the name of its directory.
        method: The name of the method; None for a baseline.
        seed: The seed; None for a baseline.
        date: The date of the evaluation or, for a run, of its end; ISO 8601.
        folder: The folder of the comparison or the run.
        export: The directory of the encoder; None if it does not exist.
        fingerprint: A hash of all settings that the scores depend on.
        setting: What results must have in common to be runs of one recipe, see `setting_of`.
        results: The scores of each task, see `textcl.evaluation.Result`; empty for a run.
        dev: From the name of a dev set to the score of the chosen checkpoint.
        provenance: For a line, the provenance of its result; for a run, its record.
    """

    name: str
    method: str | None
    seed: int | None
    date: str
    folder: Path
    export: Path | None
    fingerprint: str
    setting: str
    results: dict[str, dict[str, Any]]
    dev: dict[str, float]
    provenance: dict[str, Any] = field(repr=False)

    def scores(self, tasks: Sequence[str] = ()) -> dict[str, float]:
        """The score columns of its row: averages and dev score or, if `tasks` are given, the scores of these tasks.

        Correlations, accuracies and nDCG are × 100; STS has the aggregation "all".
        """
        if tasks:
            return {short_name(task): score(self.results[task]) for task in tasks if task in self.results}
        kinds = self.averaged()
        averages = {
            column: fmean(score(self.results[task]) for task in kinds[column])
            for column in COLUMNS.values()
            if column in kinds
        }
        return {**averages, **self.dev}

    def averaged(self) -> dict[str, list[str]]:
        """The tasks that each column of an average is the mean over."""
        kinds: dict[str, list[str]] = {}
        for task, entry in self.results.items():
            if not task.endswith("-dev"):
                kinds.setdefault(COLUMNS[kind_of(entry).name], []).append(task)
        return kinds

    def transductive(self, tasks: Sequence[str] = ()) -> list[str]:
        """The tasks that have texts in the training corpus."""
        return [task for task in tasks or self.results if self.results.get(task, {}).get("transductive")]

    def facts(self) -> dict[str, Any]:
        """Name, method, seed, date and folder."""
        return {**{name: getattr(self, name) for name in FACTS}, "folder": str(self.folder)}

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            **self.facts(),
            "export": None if self.export is None else str(self.export),
            "fingerprint": self.fingerprint,
            "scores": self.scores(),
            "transductive": self.transductive(),
            "results": self.results,
            "provenance": self.provenance,
        }


def score(entry: dict[str, Any]) -> float:
    """The main metric of a task's result."""
    return float(entry[kind_of(entry).figure])


def find_results(paths: Sequence[str | Path]) -> list[PastResult]:
    """All results below some folders, oldest first. A run that belongs to a comparison appears only as its line.

    Args:
        paths: Folders of runs or comparisons, or folders that contain these.

    Raises:
        InputError: A folder does not exist, or results have another schema.
    """
    lines: list[PastResult] = []
    runs: list[PastResult] = []
    scored: set[Path] = set()  # folders of runs that have a line, also where their export was removed
    for folder, files in _folders(paths):
        if "results.jsonl" in files:
            read = comparison_lines(folder)
            lines += [_of_line(folder, line) for line in read]
            scored |= {(folder / line["run"]["export"]).parent.resolve() for line in read if line.get("run")}
        if RUN_JSON in files and (run := _of_run(folder)):
            runs.append(run)
    found = lines + [run for run in runs if run.folder.resolve() not in scored]
    return sorted(found, key=lambda result: _moment(result.date))


def select(
    results: Sequence[PastResult],
    *,
    methods: Sequence[str] = (),
    rows: Sequence[str] = (),
    tasks: Sequence[str] = (),
    since: str | None = None,
    sort: str | None = None,
) -> list[PastResult]:
    """Selects results by method, row, task and date, and sorts them.

    Args:
        results: Past results from `find_results`.
        methods: Keep only results of these methods, such as "simcse".
        rows: Keep only results with these names.
        tasks: Keep only results that have at least one of these tasks.
        since: Keep only results from this date on; ISO 8601, such as "2026-01-31".
        sort: The column to sort by; scores are sorted with the highest first.

    Raises:
        InputError: `since` is not a date, or there is no column `sort`.
    """
    try:
        oldest = None if since is None else _moment(since)
    except ValueError:
        raise InputError(f"{since!r} is not a date; write it like 2026-01-31.") from None
    chosen = [
        result
        for result in results
        if (not methods or result.method in methods)
        and (not rows or result.name in rows)
        and (not tasks or not set(tasks).isdisjoint(result.results))
        and (oldest is None or _moment(result.date) >= oldest)
    ]
    if sort is None or not chosen:
        return chosen
    columns = score_columns(chosen, tasks)
    named = {name.lower(): name for name in (*FACTS, *columns)}
    if sort.lower() not in named:
        raise InputError(f"There is no column {sort!r} to sort by; there are {', '.join(named)}.{nearest(sort, named)}")
    column = named[sort.lower()]
    if column in FACTS:
        return sorted(chosen, key=lambda r: (r.facts()[column] is None, r.facts()[column] or 0))

    def place(result: PastResult) -> float:
        """Higher scores first; without a score, or with NaN, last."""
        found = result.scores(tasks).get(column, math.nan)
        return math.inf if math.isnan(found) else -found

    return sorted(chosen, key=place)


def score_columns(results: Sequence[PastResult], tasks: Sequence[str] = ()) -> list[str]:
    """The score columns that at least one of the results has, in the order of a table."""
    there = dict.fromkeys(column for result in results for column in result.scores(tasks))
    order = [short_name(task) for task in tasks] or [*COLUMNS.values(), DEV]
    return [column for column in order if column in there] + [column for column in there if column not in order]


def by_row(results: Sequence[PastResult]) -> dict[str, dict[int | None, PastResult]]:
    """The results by name and seed.

    If several results have the same name and seed, their tasks are joined if they have the same fingerprint. Of
    results of different recipes, models or corpora with one name, those of the last one are used, with a warning:
    seeds are runs of one recipe.

    Args:
        results: Past results from `find_results`.
    """
    rows: dict[str, dict[int | None, PastResult]] = {}
    left_out: dict[str, int] = {}
    ordered = sorted(results, key=lambda result: _moment(result.date))
    last = {result.name: result.setting for result in ordered}
    for result in ordered:
        seeds = rows.setdefault(result.name, {})
        if result.setting != last[result.name]:
            left_out[result.name] = left_out.get(result.name, 0) + 1
            continue
        earlier = seeds.get(result.seed)
        if earlier and earlier.fingerprint == result.fingerprint:
            if changed := differing_data([earlier.provenance, result.provenance], list(result.results)):
                logger.warning(
                    "%s was scored twice on %s, with different data; the last score is used.",
                    result.name,
                    ", ".join(changed),
                )
            tasks = {**earlier.provenance.get("tasks", {}), **result.provenance.get("tasks", {})}
            result = replace(
                result,
                results={**earlier.results, **result.results},
                dev={**earlier.dev, **result.dev},
                provenance={**result.provenance, **({"tasks": tasks} if tasks else {})},
            )
        elif earlier:  # the model or the corpus is another one, also for the other seeds
            left_out[result.name] = left_out.get(result.name, 0) + len(seeds)
            seeds.clear()
        seeds[result.seed] = result
    for name, count in left_out.items():
        logger.warning(
            "%s has results of different recipes, models or corpora; those of the last one are used, and %s left out. "
            "Name the folder of one comparison to use its results.",
            name,
            counted(count, "earlier result is", "earlier results are"),
        )
    return rows


def setting_of(recipe: Mapping[str, Any] | None, run: Mapping[str, Any] | None) -> str:
    """What results must have in common to be runs of one recipe: its flags but the seed, the data, and the model.

    Args:
        recipe: The resolved recipe; None for a baseline.
        run: The record of the run, if there is one.
    """
    unset: tuple[Any, ...] = (None, [], {})  # as in a fingerprint
    left_out = {"seed", *COSMETIC}
    flags = {key: value for key, value in (recipe or {}).items() if key not in left_out and value not in unset}
    run = run or {}
    return json.dumps([flags, run.get("data", {}).get("sha256"), run.get("model_weights")], sort_keys=True)


def _folders(paths: Sequence[str | Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yields every folder once with its files, without large folders that have no results."""
    seen = set()
    for path in paths:
        if not Path(path).is_dir():
            raise InputError(f"There is no folder {path}; name a folder with runs or comparisons.")
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith(_PASSED_OVER))
            if (real := Path(folder).resolve()) not in seen:
                seen.add(real)
                yield Path(folder), files


def comparison_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a comparison's results; none if the file is of another program, or is missing.

    Raises:
        InputError: The results have another schema.
    """
    path = folder / "results.jsonl"
    # the cache of an evaluation also has a results.jsonl, whose lines have no "row"
    return [line for line in read_results(path) if "row" in line] if of_textcl(path) else []


def of_textcl(results: Path) -> bool:
    """Whether a results.jsonl is of textcl, of any version: the first line that can be read has a schema."""
    if not results.is_file():
        return False
    with results.open("rb") as lines:
        for raw in lines:
            with suppress(ValueError, RecursionError):  # a line that is incomplete or damaged
                line = json.loads(raw)
                return isinstance(line, dict) and "schema" in line
    return True


def _of_line(folder: Path, line: dict[str, Any]) -> PastResult:
    export = folder / line["run"]["export"] if line.get("run") else None
    return PastResult(
        name=line["row"],
        method=(line["recipe"] or {}).get("method"),
        seed=line["seed"],
        date=line["written"],
        folder=folder,
        export=export if export and export.is_dir() else None,
        fingerprint=line["fingerprint"],
        setting=setting_of(line["recipe"], line.get("run")),
        results=line["results"],
        dev={} if line["dev"] is None else {DEV: line["dev"]},
        provenance=line["provenance"],
    )


def _of_run(folder: Path) -> PastResult | None:
    try:
        record = RunRecord.read(folder)
    except InputError as error:  # a damaged file, or a file of another program with this name
        logger.warning("%s The file is left out.", error)
        return None
    if record is None:
        return None
    dev = record.dev
    return PastResult(
        name=folder.resolve().name,
        method=record.recipe["method"],
        seed=record.seed,
        date=record.finished,
        folder=folder,
        export=folder / "export" if (folder / "export").is_dir() else None,
        fingerprint=record.fingerprint,
        setting=setting_of(record.recipe, record.to_dict()),
        results={},
        dev={} if dev is None else {DEV if dev.set == "stsb-dev" else f"dev {dev.set}": dev.score},
        provenance=record.to_dict(),
    )


def _moment(date: str) -> datetime:
    """Parses an ISO 8601 date; without a time zone it is local time."""
    return datetime.fromisoformat(date).astimezone()
