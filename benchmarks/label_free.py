"""Which label-free criterion correlates with STS? Each criterion and the STS average, at every checkpoint of recipes.

    python -m benchmarks.label_free standard-simcse standard-byol ... --output FOLDER [--texts FILE] [training flags]
    python -m benchmarks.label_free --table --output FOLDER

The first form trains each recipe as `textcl train` does, with its own seed, and adds a line to FOLDER/checkpoints.jsonl
at step 0 and at every evaluation: STS-B dev, the average of the seven STS tasks, and every criterion on the last 1,000
rows of a file that no recipe trains on. An interrupted run is resumed; a finished recipe is not repeated. The second
form prints the results as tables.
"""

import argparse
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import TrainerCallback

from textcl import STSSuite, hold_out, load_texts
from textcl.data.training import find_corpus
from textcl.device import has_bf16
from textcl.errors import InputError
from textcl.evaluation import LabelFree
from textcl.evaluation.label_free import CRITERIA
from textcl.evaluation.significance import spearman
from textcl.files import append_result, read_results
from textcl.report.tables import mean_sd, table
from textcl.runs.recipe import Recipe, load_recipe, resolve
from textcl.runs.run import make_trainer
from textcl.training.callback import newest_complete_checkpoint

HELD_OUT = 1000
DEV = "STS-B dev"  # for comparison with the criteria: selection with labels
FLAGS = ["--dev=stsb", "--eval_on_start=true", "--select_best=false", "--early_stopping_patience=0"]


class Measure(TrainerCallback):
    """Writes all scores of each checkpoint to a file, after the trainer has evaluated it on STS-B dev."""

    def __init__(self, sts: Any, label_free: LabelFree, path: Path, line: dict[str, Any]) -> None:
        self.sts, self.label_free, self.path, self.line = sts, label_free, path, line

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        encoder = kwargs["model"].exported
        scores = {DEV: kwargs["metrics"]["eval_stsb-dev"], **self.label_free(encoder, bf16=has_bf16()).scores}
        average = self.sts(encoder, bf16=has_bf16()).primary
        append_result(self.path, {**self.line, "step": state.global_step, "average": average, "scores": scores})


def measure(recipes: Sequence[str], folder: Path, texts: str, flags: Sequence[str]) -> None:
    """Trains the recipes that are not finished yet, and writes one line per checkpoint."""
    path = folder / "checkpoints.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    resolved = {name: resolve(load_recipe(name), ["--eval_steps=100", *flags, *FLAGS])[0] for name in recipes}
    rows = load_texts(find_corpus(texts))
    label_free = LabelFree(hold_out(rows, min(HELD_OUT, len(rows) // 10))[1], CRITERIA)
    sts = STSSuite()
    done = {line["fingerprint"] for line in read_lines(path) if "finished" in line}
    for name, recipe in tqdm(resolved.items(), desc="Recipes", disable=None):
        line = {"recipe": name, "fingerprint": recipe.fingerprint()}
        if line["fingerprint"] in done:
            continue
        output = folder / "runs" / f"{name}-{line['fingerprint'][:8]}"
        steps = recipe.flags["eval_steps"]
        recipe = Recipe(recipe.method, {**recipe.flags, "output": str(output), "save_steps": steps})
        trainer, _ = make_trainer(recipe)
        trainer.add_callback(Measure(sts, label_free, path, line))
        checkpoint = newest_complete_checkpoint(output)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        append_result(path, {**line, "finished": trainer.state.global_step})
        shutil.rmtree(output)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that were written so far.

    Raises:
        InputError: The lines have other criteria than the current ones.
    """
    lines = read_results(path)
    if any(set(line["scores"]) != {DEV, *CRITERIA} for line in lines if "step" in line):
        raise InputError(f"{path} has scores of other criteria than the current ones; name another folder.")
    return lines


def read_runs(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The checkpoints of each finished run, by step. If a checkpoint has several lines, the last one is used."""
    lines = read_lines(path)
    finished = {line["fingerprint"]: line["recipe"] for line in lines if "finished" in line}
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        if "step" in line and line["fingerprint"] in finished:
            runs.setdefault(line["recipe"], {})[line["step"]] = line
    return {name: [checkpoints[step] for step in sorted(checkpoints)] for name, checkpoints in runs.items()}


def figures(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """For each criterion its Spearman correlation with the STS average, and the STS averages that it selects.

    Returns:
        `{criterion: {"pooled": points, "within": [points of each run], "chosen": [STS average of each run]}}`. In
        "pooled", the untouched encoder counts only once, because it is the same in several runs. "last" and "best" have
        only "chosen".
    """
    distinct = {(c["average"], *c["scores"].values()): c for run in runs.values() for c in run}
    found: dict[str, dict[str, Any]] = {}
    for name in next(iter(runs.values()))[0]["scores"]:
        found[name] = {
            "pooled": _correlation(distinct.values(), name),
            "within": [_correlation(run, name) for run in runs.values() if len(run) > 2],
            "chosen": [max(run, key=lambda c: c["scores"][name])["average"] for run in runs.values()],
        }
    found["last"] = {"chosen": [run[-1]["average"] for run in runs.values()]}
    found["best"] = {"chosen": [max(c["average"] for c in run) for run in runs.values()]}
    return found


def _correlation(checkpoints: Iterable[dict[str, Any]], name: str) -> float:
    pairs = np.array([[c["scores"][name], c["average"]] for c in checkpoints])
    return 100 * float(spearman(pairs[:, 0], pairs[:, 1]))


def report(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Two tables: the correlations over all runs, and the STS average of the checkpoint chosen by each criterion."""
    found = figures(runs)
    rows = [
        [
            name,
            f"{each['pooled']:.1f}" if "pooled" in each else "",
            mean_sd(each["within"]) if "within" in each else "",
            f"{fmean(each['chosen']):.2f}",
        ]
        for name, each in found.items()
    ]
    header = ["criterion", "ρ, pooled", "ρ within runs, mean ± sd", "STS average of the chosen"]
    each_run = [[name, *(f"{found[by]['chosen'][n]:.2f}" for by in found)] for n, name in enumerate(runs)]
    checkpoints = sum(map(len, runs.values()))
    note = f"{len(runs)} runs, {checkpoints} checkpoints; ρ: Spearman × 100 of the criterion with the STS average."
    return f"{table(header, rows)}\n\n{note}\n\n{table(['run, chosen by', *found], each_run)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--texts", default="wiki100k_like.txt.xz", help="a file whose last rows no recipe trains on")
    parser.add_argument("--table", action="store_true", help="only print the results, without training")
    given, flags = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        if not given.table:
            measure(given.recipes, given.output, given.texts, flags)
        runs = read_runs(given.output / "checkpoints.jsonl")
    except InputError as error:
        parser.error(str(error))
    if not runs:
        parser.error(f"No recipe is finished in {given.output}.")
    print(report(runs))


if __name__ == "__main__":
    main()
