"""Comparing recipes over several seeds: one process and one line of results per run. Finished runs are not repeated.

Each line of the results file is a JSON object. It is written and synced to disk once its run has been evaluated. So an
interruption affects only the current run, which is resumed from its last checkpoint. A comparison takes its folder, so
that two of them do not train the same runs.
"""

import ctypes
import hashlib
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from textcl.data.catalogue import sets_in
from textcl.data.training import READING_OPTIONS, find_corpus, training_rows
from textcl.encoder import Encoder
from textcl.errors import InputError, disk_full
from textcl.evaluation import MeanWordVectors, Suite, TfidfEncoder, Transfer, mark_transductive, whitening
from textcl.evaluation.kinds import STS, kind_of
from textcl.evaluation.transductive import recorded_overlap
from textcl.files import append_result, clear_leftovers, read_results, write_json
from textcl.locks import taken
from textcl.methods.find import is_own
from textcl.runs.card import write_card
from textcl.runs.identity import Identities
from textcl.runs.recipe import Recipe, load_recipe, recipe_file, resolve
from textcl.runs.record import RunRecord

logger = logging.getLogger("textcl")

BASELINES = ("untouched", "sif", "whitening", "tfidf", "word-vectors")


@dataclass(frozen=True)
class Row:
    """A planned or finished line of the results file.

    Attributes:
        name: The recipe's file name without its suffix, or the baseline's name.
        recipe: The resolved recipe. For a baseline it is the first recipe, whose model and corpus the baseline uses.
        seed: The seed of the run; None for a baseline.
        fingerprint: A hash of all settings that the scores depend on.
    """

    name: str
    recipe: Recipe
    seed: int | None
    fingerprint: str


def compare(
    recipes: Sequence[str | Path],
    output: str | Path,
    *,
    seeds: int = 3,
    flags: Sequence[str] = (),
    baselines: Sequence[str] = ("untouched",),
    tasks: Sequence[str] = ("sts",),
    data_dir: str | Path | None = None,
    allow_code: bool = False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains each recipe with several seeds, evaluates each export and the baselines, and returns all results.

    A run that fails does not stop the other runs.

    Args:
        recipes: Recipe files, or names of recipes that come with textcl.
        output: The folder for `results.jsonl` and the runs. Runs that it already has are not repeated.
        seeds: The number of seeds: the recipe's seed and the following ones.
        flags: Command-line flags for every run, such as `["--limit", "20000"]`; they take precedence over the recipes.
        baselines: "untouched" (the first recipe's model without training; "untouched:mean" sets the pooling), "sif"
            (the untouched model with frequent words down-weighted), "whitening" (the untouched model, whitened on the
            first recipe's corpus), "tfidf", "word-vectors" (the mean of the model's word embeddings). A pooling can
            also be set for "sif" and "whitening".
        tasks: Names in `textcl.evaluation.TASKS` (default: the seven STS tasks that papers report). If one of them is
            an STS task, STS-B dev is evaluated as well.
        data_dir: The data directory.
        allow_code: Whether recipes may name own methods, see `load_recipe`.

    Returns:
        The line of the results file for each baseline and each successful run, in the order given; and a sentence for
        each failed run.

    Raises:
        InputError: For bad input of any kind, before the first run starts; or another comparison uses the folder.
    """
    with taken(output), sets_in(data_dir):  # the sets are also those of a run's --dev, and of its overlap
        return _compare(recipes, Path(output), seeds, flags, baselines, tasks, data_dir, allow_code)


def _compare(
    recipes: Sequence[str | Path],
    folder: Path,
    seeds: int,
    flags: Sequence[str],
    baselines: Sequence[str],
    tasks: Sequence[str],
    data_dir: str | Path | None,
    allow_code: bool,
) -> tuple[list[dict[str, Any]], list[str]]:
    clear_leftovers(folder)
    rows = list(_plan(recipes, seeds, flags, baselines, allow_code))
    suite = Suite(tasks, data_dir)
    if suite.pairs:
        suite = Suite([*tasks, "stsb-dev"], data_dir)
    if "tfidf" in baselines and any(isinstance(each, Transfer) for each in suite.evaluators):
        raise InputError(
            "The baseline tfidf has sparse vectors, on which no classifier is trained; leave it out, or the transfer "
            "tasks."
        )
    results = folder / "results.jsonl"
    done = {_key(line["row"], line["fingerprint"], _data_of(line)): line for line in read_results(results)}
    hashes = suite.data_hashes
    earlier = {(line["row"], line["seed"], *line["results"]) for line in done.values()}
    lines, failures = [], []
    for number, row in enumerate(rows, start=1):
        key = _key(row.name, row.fingerprint, hashes)
        title = f"[{number}/{len(rows)}] {row.name}" + ("" if row.seed is None else f", seed {row.seed}")
        if key in done:
            logger.info("%s: finished earlier", title)
            lines.append(done[key])
            continue
        if (row.name, row.seed, *suite.tasks) in earlier:
            logger.warning(
                "%s has an earlier result for another recipe, model, corpus, evaluation set or version of textcl; it "
                "is made again.",
                title,
            )
        logger.info("%s ...", title)
        run: dict[str, Any] | None = None
        try:
            if row.seed is not None:
                run = _train(row, folder)
            encoder = _baseline(row) if run is None else Encoder.from_pretrained(folder / run["export"])
            counts = recorded_overlap(encoder)
            result = mark_transductive(suite(encoder), counts)
        except InputError as failure:
            if row.seed is None or disk_full(failure):
                raise
            logger.error("%s failed: %s", title, failure)
            failures.append(f"{row.name}, seed {row.seed}: {failure}")
            continue
        if run is not None:
            write_card(folder / run["export"], encoder, RunRecord.from_dict(run), result)
        line = _line(row, run, result)
        append_result(results, line)
        lines.append(line)
        seconds = f", trained in {run['seconds']:.0f} s" if run else ""
        dev = "" if line["dev"] is None else f", STS-B dev {line['dev']:.2f}"
        logger.info("%s: average %.2f%s%s", title, line["average"], dev, seconds)
    return lines, failures


def _key(row: str, fingerprint: str, hashes: Mapping[str, str | None]) -> tuple[Any, ...]:
    """What two results must have in common for the earlier one to count: also the data of each task, in order."""
    return row, fingerprint, *hashes.items()


def _data_of(line: Mapping[str, Any]) -> dict[str, str | None]:
    """The hash of the data of each task in a line of the results file."""
    return {
        task: line.get("provenance", {}).get("tasks", {}).get(task, {}).get("data_sha256") for task in line["results"]
    }


def _plan(
    recipes: Sequence[str | Path],
    seeds: int,
    flags: Sequence[str],
    baselines: Sequence[str],
    allow_code: bool = False,
) -> Iterator[Row]:
    """Yields all rows of the comparison. All recipes are read and checked before the first row is yielded."""
    if not recipes:
        raise InputError("There is nothing to compare: name at least one recipe.")
    if seeds < 1:
        raise InputError(f"A comparison needs at least one seed, not {seeds}.")
    loaded: dict[str, dict[str, Any]] = {}
    for path in recipes:
        content = load_recipe(path, allow_code=allow_code)
        name = recipe_file(path).stem  # type: ignore[union-attr]  # load_recipe has found it
        if name in loaded:
            raise InputError(f"Two recipes are called {name}, so that their rows would have the same name; rename one.")
        loaded[name] = content
    if shared := [name for name in loaded if name in baselines]:
        raise InputError(f"A recipe and a baseline are both called {shared[0]}; rename the recipe's file.")
    resolved = {name: resolve(content, flags)[0] for name, content in loaded.items()}
    first = next(iter(resolved.values()))
    identities = Identities()
    for baseline in dict.fromkeys(baselines):
        kind = baseline.partition(":")[0]
        if kind not in BASELINES:
            raise InputError(f"There is no baseline {baseline!r}; there are {', '.join(BASELINES)}.")
        fingerprint = first.fingerprint(identities=identities)
        yield Row(baseline, first, None, hashlib.sha256(f"{baseline} {fingerprint}".encode()).hexdigest()[:16])
    for name, recipe in resolved.items():
        for seed in range(recipe.flags["seed"], recipe.flags["seed"] + seeds):
            seeded = Recipe(recipe.method, {**recipe.flags, "seed": seed})
            yield Row(name, seeded, seed, seeded.fingerprint(identities=identities))


def _train(row: Row, folder: Path) -> dict[str, Any]:
    """Runs `textcl train --resume` in a process of its own; returns the run's record with the path of its export."""
    output = folder / "runs" / f"{row.name}-seed{row.seed}-{row.fingerprint[:8]}"
    output.mkdir(parents=True, exist_ok=True)
    flags = {**row.recipe.to_dict(), "output": str(output)}
    recipe = output / "resolved.yaml"
    write_json(recipe, {k: v for k, v in flags.items() if v is not None})  # JSON is YAML
    log = output / "train.log"
    allow = ["--allow-code"] if is_own(row.recipe.method) else []  # `_plan` has checked that it was given
    with log.open("ab") as handle:
        code = subprocess.run(
            [sys.executable, "-m", "textcl", "train", str(recipe), "--resume", *allow],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            check=False,
        ).returncode
    if code != 0:
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["there is no output"])[-1]
        raise InputError(f"{last.removeprefix('textcl: ')} (exit code {code}, {log})")
    for checkpoint in output.glob("checkpoint-*"):  # checkpoints are large, and a finished run does not need them
        shutil.rmtree(checkpoint)
    record = RunRecord.read(output)
    assert record is not None
    return {**record.to_dict(), "export": str((output / "export").relative_to(folder))}


def _die_with_parent() -> None:
    """Asks the kernel to kill this child process when its parent ends, so that it does not train on unnoticed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _baseline(row: Row) -> Any:
    kind, _, pooling = row.name.partition(":")
    flags = row.recipe.flags
    reading = {key: flags[key] for key in READING_OPTIONS}
    if kind in ("untouched", "sif", "whitening"):
        template = None if pooling else flags.get("template")  # pooling "mask" needs the template's mask token
        pooling = pooling or flags["test_pooling"] or flags["pooling"]
        encoder = Encoder.from_pretrained(
            flags["model"],
            pooling=pooling,
            max_length=flags["max_length"],
            prompts={"template": template} if template else None,
            default_prompt_name="template" if template else None,
        )
        if kind == "untouched":
            return encoder
        texts = training_rows(find_corpus(flags["data"]), **reading)["text"]
        if kind == "sif":
            encoder.weigh_tokens(texts, flags["smooth_inverse_frequency"] or 1e-3)
            return encoder
        return whitening(encoder, texts)
    if kind == "word-vectors":
        return MeanWordVectors(Encoder.from_pretrained(flags["model"], max_length=flags["max_length"]))
    return TfidfEncoder(training_rows(find_corpus(flags["data"]), **reading)["text"])


def _line(row: Row, run: dict[str, Any] | None, result: Any) -> dict[str, Any]:
    scores = {task: entry["all"] for task, entry in result.results.items() if kind_of(entry) is STS}
    dev = scores.pop("STSBenchmark-dev", None)
    return {
        "row": row.name,
        "seed": row.seed,
        "fingerprint": row.fingerprint,
        "average": fmean(scores.values()) if scores else result.primary,  # of the STS tasks if there are any
        "dev": dev,
        "results": result.results,
        "provenance": {**result.provenance, "seed": row.seed},
        "recipe": None if row.seed is None else row.recipe.to_dict(),
        "run": run,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
