"""The demo: trains on bundled texts, evaluates before and after, draws a picture; offline, in minutes."""

import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.training import BUNDLED_TEXTS, find_corpus, training_rows
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import LabelledPairs, Result, STSSuite, TfidfEncoder, mark_transductive
from textcl.evaluation.encoding import cosine
from textcl.evaluation.results import short_name
from textcl.files import atomic_write, write_json
from textcl.report.plots import similarity_by_grade
from textcl.report.tables import table
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.record import RunRecord
from textcl.runs.run import run_recipe

logger = logging.getLogger("textcl")

PAIRS = BUNDLED_TEXTS.parent / "similarity.tsv"
QUERIES = ("a machine that flies", "to speak without being understood", "feeling happy about the success of a friend")
SEARCHED = 4000  # glosses that the example search compares with a query
SANITY = "WordNet"


@dataclass
class Demo:
    """The result of the demo.

    Attributes:
        table: The scores before and after training, as a Markdown table with notes.
        search: Example queries with the nearest gloss before and after training.
        export: The directory of the trained encoder.
        picture: The path of the picture; None if altair or vl-convert-python is not installed.
        record: The record of the run.
    """

    table: str
    search: str
    export: Path
    picture: Path | None
    record: RunRecord


def demo(output: str | Path, *, overwrite: bool = False, flags: Sequence[str] = ()) -> Demo:
    """Trains SimCSE on WordNet glosses and compares the encoder before and after.

    Args:
        output: The run's directory. Table, scores and picture are written there too.
        overwrite: Replace the run in the directory.
        flags: Training flags that take precedence over the demo's recipe, such as `["--limit", "2000"]`.

    Raises:
        InputError: The directory has a run already and `overwrite` is not given.
    """
    recipe, _ = resolve(load_recipe("demo"), [*flags, "--output", str(output)])
    run = run_recipe(recipe, overwrite=overwrite)

    logger.info("Evaluating ...")
    glosses = training_rows(find_corpus(recipe.flags["data"]), limit=recipe.flags["limit"])["text"]
    after = Encoder.from_pretrained(run.export)
    before = Encoder.from_pretrained(recipe.flags["model"], pooling=after.pooling, max_length=after.max_length)
    rows: dict[str, Any] = {"untouched": before, "SimCSE": after, "bag of words": TfidfEncoder(glosses)}
    sanity = LabelledPairs(PAIRS)
    suite = _installed_suite()
    checked = {name: sanity(encoder) for name, encoder in rows.items()}
    scored = {name: suite(encoder) for name, encoder in rows.items()} if suite else {}
    overlap = run.record.data.overlap
    if scored:
        scored["SimCSE"] = mark_transductive(scored["SimCSE"], overlap)
    text = _table(checked, scored)
    search = _search(glosses[:SEARCHED], before, after)
    picture = None
    if all(map(importlib.util.find_spec, ("altair", "vl_convert"))):
        panels = {name: _by_grade(sanity, encoder) for name, encoder in list(rows.items())[:2]}
        title = "WordNet definitions: cosine by grade, before and after SimCSE"
        picture = similarity_by_grade(panels, title).save(Path(output) / "before-after.png")
    else:
        logger.warning("No picture is drawn; it needs altair and vl-convert: pip install altair vl-convert-python")
    with atomic_write(Path(output) / "table.md") as temporary:
        temporary.write_text(f"{text}\n\n{search}\n", encoding="utf-8")
    figures = {
        name: {"sanity": checked[name].to_dict(), "sts": scored[name].to_dict() if scored else None} for name in rows
    }
    write_json(Path(output) / "scores.json", json.loads(json.dumps(figures, default=str)))
    return Demo(text, search, run.export, picture, run.record)


def _installed_suite() -> STSSuite | None:
    try:
        return STSSuite()
    except InputError:
        logger.info("The STS sets are not installed, so only the sanity check is shown; see `textcl data --help`.")
        return None


def _table(checked: dict[str, Result], scored: dict[str, Result]) -> str:
    tasks = list(next(iter(scored.values())).results) if scored else []
    header = ["", SANITY, *map(short_name, tasks), *(["Avg."] if scored else [])]
    rows = []
    marked: set[str] = set()
    for name, check in checked.items():
        cells = [f"{check.primary:.2f}"]
        for task in tasks:
            entry = scored[name].results[task]
            star = "*" if entry.get("transductive") else ""
            marked |= {task} if star else set()
            cells.append(f"{entry['all']:.2f}{star}")
        rows.append([name, *cells, *([f"{scored[name].primary:.2f}"] if scored else [])])
    notes = [
        f"Spearman × 100. {SANITY}: graded pairs of definitions, a sanity check; the synsets in it are not in the "
        "training texts."
    ]
    if marked:
        notes.append(
            "* transductive: sentences of this set are WordNet glosses that were trained on, without their scores."
        )
    return "\n".join([table(header, rows), "", *notes])


def _by_grade(pairs: LabelledPairs, encoder: Encoder) -> tuple[list[float], list[float]]:
    (subset,) = pairs.tasks["pairs"]
    first, second = (encoder.encode(side).astype(np.float64) for side in (subset.first, subset.second))
    return subset.scores, cosine(first, second).tolist()


def _search(glosses: Sequence[str], before: Encoder, after: Encoder) -> str:
    """The nearest gloss for each query, before and after training, as text lines."""
    found = {}
    for name, encoder in (("untouched", before), ("SimCSE", after)):
        rows = encoder.encode(list(glosses), normalize=True)
        nearest = (encoder.encode(list(QUERIES), normalize=True) @ rows.T).argmax(axis=1)
        found[name] = [glosses[index] for index in nearest]
    lines = [f"Nearest of {len(glosses):,} glosses:"]
    for number, query in enumerate(QUERIES):
        lines.append(f"  {query}")
        lines += [f"    {name:<10} {_shorten(texts[number])}" for name, texts in found.items()]
    return "\n".join(lines)


def _shorten(text: str, width: int = 96) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
