"""What makes a tuned encoder better, and what makes it worse? The table of docs/what-helps.md.

    python -m benchmarks what-helps --output FOLDER --collection CRANFIELD --clusters FILE --texts FILE
        [--model DIRECTORY] [--steps 100] [--seeds 3] [--only ROW ...] [--columns NAME ...]

Each row starts from the same encoder, all-MiniLM-L6-v2 by default. The methods have objective, head, temperature,
views, batch and learning rate of their standard recipe, but the encoder's own pooling and prompt and at most 128
tokens. They train for 100 steps and nothing is selected, so that harm stays visible. The columns:

    search      trained on the collection's documents (BEIR's layout); nDCG@10 of its judged queries
    clusters    trained on the texts of the file (columns text and label); accuracy of k-means
    similarity  trained on a file of sentences; Spearman on STS-B test

A difference to the untouched encoder is the mean over seeds. Its standard error has two parts, added in squares: over
queries or pairs (bootstrap) and over seeds. The last column says what `textcl adapt untouched,row` concludes from the
collection's texts alone, without its judgements. Each finished cell is a line of FOLDER/what-helps.jsonl; an
interrupted run is continued, and a row that fails is printed as failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

import textcl
from benchmarks.measure import Options
from textcl.adaptation.blend import blended
from textcl.adaptation.corpus import Corpus, read_corpus
from textcl.adaptation.known_items import View, known_items
from textcl.adaptation.linear_map import with_linear_map
from textcl.adaptation.material import make_material
from textcl.adaptation.rows import Rows, crop_rows, half_rows, pair_rows
from textcl.adaptation.trained import Candidate, train
from textcl.adaptation.workplace import Workplace
from textcl.data.corpora import load_labelled
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Clustering, Retrieval, STSBenchmark
from textcl.evaluation.results import Result
from textcl.files import append_result, content_hash, read_results, write_json
from textcl.progress import Progress
from textcl.report.tables import table
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.run import make_trainer

METHODS = {
    "simcse": "standard-simcse",
    "simcse-plus": "standard-simcse-plus-plus",
    "bert-ct": "standard-bert-ct",
    "ct-in-batch": "standard-ct-in-batch",
    "consert": "standard-consert-2e-5",
    "clear": "standard-clear",
    "declutr": "standard-docs-declutr",
    "sccl": "standard-sccl-stackoverflow",
    "simclr": "standard-simclr",
    "moco": "standard-moco",
    "moco-v3": "standard-moco-v3",
    "swav": "standard-swav",
    "byol": "standard-byol",
    "simsiam": "standard-simsiam",
    "barlow-twins": "standard-barlow-twins",
    "vicreg": "standard-vicreg",
}
OTHERS = ("untouched", "linear map", "title-body", "crops", "halves", "blend", "bm25", "hybrid", "adapt")
NOT_THE_METHODS = (  # settings of a standard recipe that are replaced by those of this table
    "model", "pooling", "test_pooling", "max_length", "data", "column", "limit", "num_train_epochs", "max_steps", "dev",
    "eval_steps", "select_best", "target_score", "bf16", "seed",
)  # fmt: skip
LENGTH, PULL, ALPHA, RATE = 128, 0.3, 0.5, 2e-5
LABELS_SEEN = {("sccl", "clusters")}  # the recipe was chosen with these labels
LEAST_DOCUMENT = 256  # tokens at the median; DeCLUTR draws two anchors and their positives from a document


class NotApplicable(InputError):
    """The texts of a column do not allow a row."""


@dataclass
class Column:
    """Texts to train on, and what is measured on them.

    Attributes:
        name: "search", "clusters" or "similarity".
        measure: The measure, for the head of the table.
        corpus: The texts, with titles if there are any.
        evaluators: What measures, by kind of retrieval; "dense" is that of all rows but BM25 and hybrid.
    """

    name: str
    measure: str
    corpus: Corpus
    evaluators: dict[str, Any]

    @cached_property
    def views(self) -> dict[str, View]:
        return {view.name: view for view in known_items(self.corpus.bodies, self.corpus.titles, least=200)}

    @cached_property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.corpus))


@dataclass(frozen=True)
class Table:
    """What all cells share: the untouched encoder, its directory, steps, and the folder of the work."""

    start: Encoder
    directory: str
    steps: int
    folder: Path


def columns(given: argparse.Namespace) -> list[Column]:
    """The columns whose data are named."""
    found = []
    if given.collection:
        make = partial(Retrieval.from_folder, given.collection)
        try:
            corpus = read_corpus(given.collection / "corpus.jsonl", ("title", "text"))
        except InputError:
            corpus = read_corpus(given.collection / "corpus.jsonl", ("text",))
        kinds = {kind: make(retrieval=kind) for kind in ("dense", "bm25", "hybrid")}
        found.append(Column("search", "nDCG@10", corpus, kinds))
    if given.clusters:
        rows = load_labelled(given.clusters)
        texts = list(rows["text"])
        found.append(
            Column("clusters", "accuracy", read_corpus(texts), {"dense": Clustering({"own": (texts, rows["label"])})})
        )
    if given.texts:
        texts = textcl.load_texts(given.texts, limit=50_000)["text"]
        found.append(Column("similarity", "Spearman", read_corpus(list(texts)), {"dense": STSBenchmark("test")}))
    return found


def by_method(name: str, work: Table, column: Column, seed: int) -> Encoder:
    """The encoder after some steps of a method."""
    if name == "declutr":
        lengths = [len(work.start.tokenizer.tokenize(text)) for text in column.corpus.texts[:200]]
        if (median := float(np.median(lengths))) < LEAST_DOCUMENT:
            raise NotApplicable(f"the texts have {median:.0f} tokens at the median, and {LEAST_DOCUMENT} are needed")
    content = {key: value for key, value in load_recipe(METHODS[name]).items() if key not in NOT_THE_METHODS}
    data, output = work.folder / f"{column.name}.jsonl", work.folder / "run"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in column.corpus.texts), encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    given = {
        "model": work.directory, "pooling": work.start.pooling, "max_length": min(LENGTH, work.start.max_length),
        "data": str(data), "max_steps": work.steps, "dev": "none", "select_best": False, "seed": seed,
        "output": str(output),
    }  # fmt: skip
    recipe, _ = resolve(content | given, [])
    trainer, _ = make_trainer(recipe)
    trainer.train()
    shutil.rmtree(output, ignore_errors=True)
    trained: Encoder = trainer.model.exported
    return trained.with_(max_length=work.start.max_length)


def by_rows(name: str, work: Table, column: Column, seed: int) -> Encoder:
    """The encoder after some steps on pairs that were cut out of the texts."""
    corpus, allowed = column.corpus, np.ones(len(column.corpus), bool)
    if name == "title-body":
        if "title" not in column.views:
            raise NotApplicable("the texts have no titles")
        rows: Rows = pair_rows(column.views["title"], column.groups, allowed, work.steps, seed)
    elif name == "crops":
        if "sentence" not in column.views:
            raise NotApplicable("the texts have too few sentences")
        rows = crop_rows(corpus.bodies, column.groups, allowed, work.steps, seed)
    else:
        rows = half_rows(corpus.bodies, column.groups, allowed, work.steps, seed)
    candidate = Candidate("pairs", "all layers", RATE)
    return train(work.start, candidate, rows, work.steps, work.folder / "run", seed=seed)


def row_encoder(row: str, work: Table, column: Column, seed: int) -> Encoder:
    """The encoder of a row."""
    if row in METHODS:
        return by_method(row, work, column, seed)
    if row in ("title-body", "crops", "halves"):
        return by_rows(row, work, column, seed)
    if row == "blend":
        name = "title-body" if "title" in column.views else "halves"
        return blended(work.start, by_rows(name, work, column, seed), ALPHA)
    if row == "linear map":
        first = next(iter(column.views.values()))
        material = make_material(work.start, [first], Workplace(work.folder / "vectors"), column.groups)
        return with_linear_map(work.start, material.fit(PULL))
    if row == "adapt":
        return textcl.adapt(
            work.directory, _table(column, work.folder), columns=_names(column), ledger=work.folder / "looks.jsonl",
            minutes=600, seed=seed,
        ).encoder  # fmt: skip
    if row in ("bm25", "hybrid") and row not in column.evaluators:
        raise NotApplicable("nothing is searched")
    return work.start


def concluded(row: str, encoder: Encoder, work: Table, column: Column) -> str:
    """What `textcl adapt untouched,row` concludes from the texts of the collection, and what it would export."""
    if row == "adapt":
        return "exports the untouched encoder" if encoder.fingerprint() == work.start.fingerprint() else "exports it"
    if column.name != "search" or encoder.fingerprint() == work.start.fingerprint():
        return ""
    exported = encoder.save(work.folder / "export")
    adapted = textcl.adapt(
        f"{work.directory},{exported}", _table(column, work.folder), columns=_names(column), minutes=600,
        ledger=work.folder / f"looks-{row.replace(' ', '-')}" / "looks.jsonl",
    )  # fmt: skip
    shutil.rmtree(exported)
    kept = "it" if adapted.verdict.outcome == "better" else "the untouched encoder"
    return f"{adapted.verdict.outcome}: exports {kept}"


def _names(column: Column) -> tuple[str, ...]:
    return ("title", "text") if column.corpus.titles else ("text",)


def _table(column: Column, folder: Path) -> Path:
    path, corpus = folder / f"{column.name}-texts.jsonl", column.corpus
    titles = corpus.titles or [""] * len(corpus)
    rows = [{"title": title, "text": text} for title, text in zip(titles, corpus.bodies, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cell(row: str, work: Table, column: Column, seed: int) -> dict[str, Any]:
    """Trains, measures, and says what was found; a failure is a result too."""
    begin = time.perf_counter()
    try:
        encoder = row_encoder(row, work, column, seed)
        seconds = time.perf_counter() - begin
        result: Result = column.evaluators.get(row, column.evaluators["dense"])(encoder)
        items = None if result.items is None else np.asarray(result.items).round(5).tolist()
        tool = "" if row in ("bm25", "hybrid") else concluded(row, encoder, work, column)
        return {"score": result.primary, "items": items, "seconds": seconds, "tool": tool}
    except NotApplicable as error:
        return {"not_applicable": str(error)}
    except Exception as error:  # the other cells go on; the table prints the reason
        logging.getLogger("textcl").exception("%s, %s, seed %s failed", row, column.name, seed)
        return {"failed": f"{type(error).__name__}: {error}"}


def difference(column: Column, cells: Sequence[dict[str, Any]], start: dict[str, Any]) -> tuple[float, float]:
    """The mean difference to the untouched encoder over seeds, and its standard error."""
    gains = np.array([each["score"] - start["score"] for each in cells])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    evaluator = column.evaluators["dense"]
    if start["items"] is not None and hasattr(evaluator, "error_of_difference"):
        before = np.array(start["items"])
        units = [evaluator.error_of_difference(before, np.array(each["items"])) for each in cells]
        error = float(np.hypot(error, np.mean(units)))
    return float(gains.mean()), float(error)


def shown(column: Column, row: str, cells: Sequence[dict[str, Any]], start: dict[str, Any] | None) -> str:
    """The text of a cell of the table."""
    for each in cells:
        if why := each.get("failed"):
            return f"failed: {why}"
        if why := each.get("not_applicable"):
            return f"not applicable: {why}"
    if not cells:
        return "not run"
    mark = "*" if (row, column.name) in LABELS_SEEN else ""
    score = f"{np.mean([each['score'] for each in cells]):.1f}{mark}"
    if row == "untouched" or start is None:
        return score
    gain, error = difference(column, cells, start)
    low, high = gain - 1.96 * error, gain + 1.96 * error
    word = "better" if low > 0 else "**worse**" if high < 0 else "no difference"
    return f"{score}: {gain:+.1f} ({low:+.1f} to {high:+.1f}), {word}"


def written(found: dict[tuple[str, str, int], dict[str, Any]], rows: Sequence[str], used: Sequence[Column]) -> str:
    """The table in Markdown."""
    lines = []
    for row in rows:
        by_column = {
            each.name: [c for (r, name, _), c in found.items() if (r, name) == (row, each.name)] for each in used
        }
        starts = {each.name: found.get(("untouched", each.name, 42)) for each in used}
        tools = sorted({c["tool"] for c in by_column.get("search", []) if c.get("tool")})
        seconds = [c["seconds"] for cells in by_column.values() for c in cells if c.get("seconds")]
        lines.append(
            [
                row,
                *(shown(each, row, by_column[each.name], starts[each.name]) for each in used),
                f"{np.mean(seconds):.0f}" if seconds and row != "untouched" else "",
                "; ".join(tools),
            ]
        )
    heads = [f"{each.name}: {each.measure}" for each in used]
    return table(["", *heads, "seconds", "textcl adapt, from the texts alone"], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks what-helps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("collection", "clusters", "texts"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[*OTHERS, *METHODS], metavar="ROW")
    parser.add_argument("--columns", nargs="*", choices=["search", "clusters", "similarity"])
    given = parser.parse_args(arguments)
    directory = Options(given.model).encoder()
    work = Table(Encoder.from_pretrained(directory), directory, given.steps, given.output)
    given.output.mkdir(parents=True, exist_ok=True)
    used = [each for each in columns(given) if not given.columns or each.name in given.columns]
    rows = [row for row in (*OTHERS, *METHODS) if row == "untouched" or not given.only or row in given.only]
    path = given.output / "what-helps.jsonl"
    done = {line["key"]: line for line in read_results(path)}
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    plan = [
        (row, column, seed)
        for row in rows
        for column in used
        for seed in range(42, 42 + (1 if row in ("untouched", "bm25", "hybrid") else given.seeds))
    ]
    for row, column, seed in Progress("Cells", len(plan), "cells").over(plan):
        key = content_hash(
            {
                "row": row, "recipe": METHODS.get(row) and load_recipe(METHODS[row]), "column": column.name,
                "seed": seed, "steps": given.steps, "model": work.start.fingerprint(), "texts": column.corpus.hash(),
            }
        )  # fmt: skip
        if key not in done:
            line = {"key": key, "row": row, "column": column.name, "seed": seed, "steps": given.steps}
            done[key] = line | cell(row, work, column, seed)
            append_result(path, done[key])
        found[row, column.name, seed] = done[key]
    print(f"{given.steps} steps, {given.seeds} seeds, from {work.start.name}\n")
    print(written(found, rows, used))
    write_json(given.output / "settings.json", {key: str(value) for key, value in vars(given).items()})
    return 0
