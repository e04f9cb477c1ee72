"""Does textcl's faster training step train as well? Its defaults versus the plain path, over seeds.

    python -m benchmarks.quality RECIPE --output FOLDER [--seeds 5] [training flags]

The plain path is float32 with torch's dropout and attention. textcl's path is that of the recipe: bf16 by default, with
textcl's faster dropout and attention. Both train on the same rows with the same seeds; the last checkpoint is used,
without selection. The STS average of each run is a line of FOLDER/quality.jsonl; an interrupted comparison is resumed.
"""

import argparse
import logging
import shutil
from pathlib import Path

from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from textcl import STSSuite
from textcl.dropout import Dropout
from textcl.encoder.attention import ATTENTION
from textcl.errors import InputError
from textcl.evaluation.significance import over_seeds
from textcl.files import append_result, read_results
from textcl.report.tables import mean_sd, table
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.run import make_trainer

SIDES = {"textcl": [], "plain": ["--bf16=false"]}
FLAGS = ["--dev=none", "--select_best=false", "--early_stopping_patience=0"]


def draw_plainly(backbone: PreTrainedModel) -> None:
    """Replaces textcl's faster dropout and attention by those of torch."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if type(child) is Dropout:
                setattr(module, name, nn.Dropout(child.p).train(child.training))
    if backbone.config._attn_implementation == ATTENTION:
        backbone.set_attn_implementation("sdpa")


Scores = dict[str, dict[int | None, float]]


def measure(name: str, seeds: int, folder: Path, flags: list[str]) -> Scores:
    """The STS average of each side and seed. Runs without a line in the file are trained, evaluated and added."""
    path, sts = folder / "quality.jsonl", STSSuite()
    folder.mkdir(parents=True, exist_ok=True)
    done = {line["fingerprint"]: line["average"] for line in read_results(path)}
    scores: Scores = {side: {} for side in SIDES}
    turns = [(seed, side) for seed in range(42, 42 + seeds) for side in SIDES]
    for seed, side in tqdm(turns, desc="Runs", disable=None):
        output = folder / f"{side}-{seed}"
        given = [*flags, *SIDES[side], *FLAGS, f"--seed={seed}", f"--output={output}"]
        recipe, _ = resolve(load_recipe(name), given)
        fingerprint = recipe.fingerprint()
        if fingerprint not in done:
            trainer, _ = make_trainer(recipe)
            if side == "plain":
                draw_plainly(trainer.model.encoder.backbone)
            trainer.train()
            done[fingerprint] = sts(trainer.model.exported).primary
            line = {"recipe": name, "side": side, "seed": seed, "fingerprint": fingerprint}
            append_result(path, {**line, "average": done[fingerprint]})
            shutil.rmtree(output, ignore_errors=True)
        scores[side][seed] = done[fingerprint]
    return scores


def report(scores: Scores) -> str:
    """The STS average of both sides, and their difference with its interval."""
    difference = over_seeds(scores["plain"], scores["textcl"])
    rows = [[side, mean_sd(list(found.values())), len(found)] for side, found in scores.items()]
    return (
        f"{table(['', 'STS average', 'seeds'], rows)}\n\ntextcl − plain: {difference.mean:+.2f}, 95 % interval "
        f"{difference.low:+.2f} to {difference.high:+.2f} ({difference.basis})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    given, flags = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        print(report(measure(given.recipe, given.seeds, given.output, flags)))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
