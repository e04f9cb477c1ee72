"""The demo: trains on bundled texts, evaluates before and after, draws a picture; offline, in minutes."""

import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.sts import Subset
from textcl.data.training import BUNDLED_TEXTS, find_corpus, training_rows
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import LabelledPairs, Result, STSSuite, TfidfEncoder, mark_transductive
from textcl.evaluation.results import short_name
from textcl.files import atomic_write, write_json
from textcl.report.examples import untouched
from textcl.report.page import Page, Section, Table
from textcl.report.plots import Plot, precision_by_share
from textcl.report.tables import table
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.record import RunRecord, holds_run
from textcl.runs.run import run_recipe
from textcl.texts import in_one_line
from textcl.version import __version__

logger = logging.getLogger("textcl")

FILES = TABLE, SCORES, PICTURE, PAGE = "table.md", "scores.json", "before-after.png", "index.html"
PAIRS = BUNDLED_TEXTS.parent / "similarity.tsv"
SAME_MEANING = 4  # the grade of two definitions of one meaning
SIMILAR = 3  # the least grade of similar ones: one meaning includes the other
SEARCHED = 4000  # glosses among which the other definition has to be found
SHOWN = 3  # queries that gained most, and as many that lost most
SANITY = "WordNet"
WHAT_IT_SHOWS = (
    "It shows that a few minutes of training with unlabelled texts change what a small encoder finds, on definitions "
    "much like those that it was trained on. It does not show that your encoder becomes better with your texts: textcl "
    "adapt measures that."
)


@dataclass
class Demo:
    """The result of the demo.

    Attributes:
        table: The scores before and after training, as a Markdown table with notes.
        search: What a search finds before and after training, as lines of text.
        export: The directory of the trained encoder.
        page: The path of the page with all of it; None if altair or vl-convert-python is not installed.
        picture: The path of the picture; None in the same case.
        record: The record of the run.
    """

    table: str
    search: str
    export: Path
    page: Path | None
    picture: Path | None
    record: RunRecord


@dataclass
class Found:
    """How a search for the other definition of the same meaning ends, before and after training.

    Attributes:
        queries: The definitions searched for.
        sought: For each query, the other definition of its meaning.
        ranks: From the name of an encoder to the rank of the sought definition, (queries,); 1 is the nearest.
        nearest: From the name of an encoder to the nearest text of each query.
        documents: The number of texts searched.
    """

    queries: list[str]
    sought: list[str]
    ranks: dict[str, np.ndarray]
    nearest: dict[str, list[str]]
    documents: int

    @property
    def summary(self) -> str:
        before, after = self.ranks.values()
        medians = [f"{np.median(ranks):,.0f} {name}" for name, ranks in self.ranks.items()]
        return (
            f"{len(self.queries)} definitions search for the other definition of the same meaning among "
            f"{self.documents:,} texts. The median rank of what is sought is {', '.join(medians)}; the rank became "
            f"better for {(after < before).sum()} definitions and worse for {(after > before).sum()}. Before training "
            f"{(before <= 10).sum()} are found among the first ten, afterwards {(after <= 10).sum()}."
        )

    @property
    def changed(self) -> list[int]:
        """The queries whose reciprocal rank rose most, and those whose reciprocal rank fell most."""
        before, after = self.ranks.values()
        gains = 1 / after - 1 / before
        order = np.argsort(-gains, kind="stable")
        return [int(each) for each in (*order[:SHOWN], *order[-SHOWN:])]


def demo(output: str | Path, *, resume: bool = False, overwrite: bool = False, flags: Sequence[str] = ()) -> Demo:
    """Trains SimCSE on WordNet glosses and compares the encoder before and after.

    Args:
        output: The run's directory. Table, scores and picture are written there too.
        resume: Continue the run in the directory; of a finished one only the scores are computed again.
        overwrite: Replace the run in the directory.
        flags: Training flags that take precedence over the demo's recipe, such as `["--limit", "2000"]`.

    Raises:
        InputError: The directory has a run already, and neither `resume` nor `overwrite` is given; or it has no run,
            but a file that would be replaced.
    """
    there = next((name for name in FILES if (Path(output) / name).exists()), None)
    if there and not holds_run(Path(output)):
        raise InputError(f"{output} has {there}, which textcl demo did not write; name another directory.")
    recipe, _ = resolve(load_recipe("demo"), [*flags, "--output", str(output)])
    run = run_recipe(recipe, resume=resume, overwrite=overwrite)

    logger.info("Evaluating ...")
    glosses = training_rows(find_corpus(recipe.flags["data"]), limit=recipe.flags["limit"])["text"]
    after = Encoder.from_pretrained(run.export)
    before = untouched(recipe.flags, after)
    rows: dict[str, Any] = {"untouched": before, "SimCSE": after, "bag of words": TfidfEncoder(glosses)}
    sanity = LabelledPairs(PAIRS)
    suite = _installed_suite()
    checked = {name: sanity(encoder) for name, encoder in rows.items()}
    scored = {name: suite(encoder) for name, encoder in rows.items()} if suite else {}
    overlap = run.record.data.overlap
    if scored:
        scored["SimCSE"] = mark_transductive(scored["SimCSE"], overlap)
    scores, notes = _scores(checked, scored)
    text = "\n".join([table(scores.header, scores.rows), "", *notes])
    (pairs,) = sanity.tasks["pairs"]
    encoders = dict(list(rows.items())[:2])
    found = _search(pairs, glosses[:SEARCHED], encoders)
    lines = _lines(found)
    page = picture = None
    if all(map(importlib.util.find_spec, ("altair", "vl_convert"))):
        plot = _precision(sanity, checked, list(encoders))
        picture = plot.save(Path(output) / PICTURE)
        page = _page(scores, notes, found, plot, run.record).save(Path(output) / PAGE)
    else:
        logger.warning(
            "No picture and no page are made; they need altair and vl-convert: pip install altair vl-convert-python"
        )
    with atomic_write(Path(output) / TABLE) as temporary:
        temporary.write_text(f"{text}\n\n{lines}\n", encoding="utf-8")
    figures = {
        name: {"sanity": checked[name].to_dict(), "sts": scored[name].to_dict() if scored else None} for name in rows
    }
    write_json(Path(output) / SCORES, json.loads(json.dumps(figures, default=str)))
    return Demo(text, lines, run.export, page, picture, run.record)


def _installed_suite() -> STSSuite | None:
    try:
        return STSSuite()
    except InputError:
        logger.info("The STS sets are not installed, so only the sanity check is shown; see `textcl data --help`.")
        return None


def _scores(checked: dict[str, Result], scored: dict[str, Result]) -> tuple[Table, list[str]]:
    """The scores before and after training, and notes on them."""
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
    return Table(header, rows), notes


def _precision(sanity: LabelledPairs, checked: dict[str, Result], names: Sequence[str]) -> Plot:
    (pairs,) = sanity.tasks["pairs"]
    similar = [grade >= SIMILAR for grade in pairs.scores]
    panels = {}
    for name in names:
        cosines = checked[name].items
        assert cosines is not None
        panels[name] = similar, cosines.tolist()
    scores = ", ".join(f"{checked[name].primary:.1f} {name}" for name in names)
    return precision_by_share(panels, f"Similar definitions of WordNet (Spearman × 100: {scores})", "pairs")


def _search(pairs: Subset, glosses: Sequence[str], encoders: dict[str, Encoder]) -> Found:
    same = [number for number, grade in enumerate(pairs.scores) if grade == SAME_MEANING]
    queries, sought = [pairs.first[number] for number in same], [pairs.second[number] for number in same]
    documents = list(dict.fromkeys([*sought, *glosses]))
    place = {text: number for number, text in enumerate(documents)}
    own = np.array([place[text] for text in sought])
    found = Found(queries, sought, {}, {}, len(documents))
    for name, encoder in encoders.items():
        cosines = encoder.encode(queries, normalize=True) @ encoder.encode(documents, normalize=True).T
        found.ranks[name] = 1 + (cosines > cosines[np.arange(len(own)), own][:, None]).sum(axis=1)
        found.nearest[name] = [documents[number] for number in cosines.argmax(axis=1)]
    return found


def _lines(found: Found) -> str:
    """What the search found, as lines of text."""
    lines = [found.summary, f"The {SHOWN} definitions that gained most and the {SHOWN} that lost most:"]
    short = partial(in_one_line, width=96)
    for query in found.changed:
        lines += [f"  {short(found.queries[query])}", f"    other definition: {short(found.sought[query])}"]
        for name, texts in found.nearest.items():
            lines.append(f"    {name:<10} rank {found.ranks[name][query]:,}; nearest: {short(texts[query])}")
    return "\n".join(lines)


def _page(scores: Table, notes: list[str], found: Found, plot: Plot, record: RunRecord) -> Page:
    """The page of the demo: scores, the curve, and queries where something changed."""
    names = list(found.ranks)
    changed = [
        [[found.queries[query], f"other definition: {found.sought[query]}"]]
        + [[f"rank {found.ranks[name][query]:,}", found.nearest[name][query]] for name in names]
        for query in found.changed
    ]
    rule = (
        f"The {SHOWN} definitions whose reciprocal rank rose most, and below them the {SHOWN} whose reciprocal rank "
        "fell most. Each cell has the rank of the other definition and the text that is nearest to the query."
    )
    table_of_changes = Table(["query", *names], changed, leading=True)
    return Page(
        "SimCSE on WordNet's definitions",
        f"{record.data.rows:,} glosses, {record.seconds:.0f} s of training, textcl {__version__}",
        [WHAT_IT_SHOWS],
        [
            Section("Scores", notes, [scores], [plot]),
            Section("What a search finds", [found.summary, rule], [table_of_changes]),
        ],
    )
