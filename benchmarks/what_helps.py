"""What makes a tuned encoder better, and what makes it worse? The table of docs/what-helps.md.

    python -m benchmarks what-helps --output FOLDER --collection CRANFIELD --clusters FILE --texts FILE
        [--model DIRECTORY] [--steps 100] [--seeds 3] [--only ROW ...] [--columns NAME ...] [--pages docs]

Each row starts from the same encoder, all-MiniLM-L6-v2 by default. The methods have objective, head, temperature,
views, batch and learning rate of their standard recipe, but the encoder's own pooling and prompt and at most 128
tokens. They train for 100 steps and nothing is selected, so that harm stays visible. The columns:

    search      trained on the collection's documents (BEIR's layout); nDCG@10 of its judged queries
    clusters    trained on the texts of the file (columns text and label); accuracy of k-means
    similarity  trained on a file of sentences; Spearman on STS-B test
    bundled     like similarity, but from the bundled encoder, which is not tuned; the only column of `--model bundled`

A difference to the untouched encoder is the mean over seeds. Its standard error has two parts, added in squares: over
queries or pairs (bootstrap) and over seeds. The last column says what `textcl adapt untouched,row` concludes from the
collection's texts alone, without its judgements, for the first seed. Each finished cell is a line of
FOLDER/what-helps.jsonl; an interrupted run is continued, and a row that fails is printed as failed. `--pages` writes
the table into what-helps.md and the README, and its rows into the pages of the methods; with `--output` and `--pages`
alone nothing is trained.
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
from benchmarks.what_helps_pages import FILE, MEASURES, read_cells, table_of, write_pages
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
LENGTH, PULL, ALPHA, RATE, SEED = 128, 0.3, 0.5, 2e-5, 42
LEAST_DOCUMENT = 256  # tokens at the median; DeCLUTR draws two anchors and their positives from a document


class NotApplicable(InputError):
    """The texts of a column do not allow a row."""


@dataclass
class Column:
    """Texts to train on, and what is measured on them.

    Attributes:
        name: "search", "clusters", "similarity" or "bundled".
        corpus: The texts, with titles if there are any.
        evaluators: What measures, by kind of retrieval; "dense" is that of all rows but BM25 and hybrid.
    """

    name: str
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
        found.append(Column("search", corpus, kinds))
    if given.clusters:
        rows = load_labelled(given.clusters)
        texts = list(rows["text"])
        found.append(Column("clusters", read_corpus(texts), {"dense": Clustering({"own": (texts, rows["label"])})}))
    if given.texts:
        texts = textcl.load_texts(given.texts, limit=50_000)["text"]
        name = "bundled" if given.model == "bundled" else "similarity"
        found.append(Column(name, read_corpus(list(texts)), {"dense": STSBenchmark("test")}))
    if given.model == "bundled" and [each.name for each in found] != ["bundled"]:
        raise InputError("From the bundled encoder only similarity is measured: leave --collection and --clusters out.")
    return found


def by_method(name: str, work: Table, column: Column, seed: int) -> Encoder:
    """The encoder after some steps of a method."""
    if name == "declutr":
        lengths = [len(work.start.tokenizer.tokenize(text)) for text in column.corpus.texts[:200]]
        if (median := float(np.median(lengths))) < LEAST_DOCUMENT:
            raise NotApplicable(f"the texts have {median:.0f} tokens at the median, and {LEAST_DOCUMENT} are needed")
    content = {key: value for key, value in load_recipe(METHODS[name]).items() if key not in NOT_THE_METHODS}
    if name == "clear" and column.name != "bundled":
        content["mlm_weight"] = 0.0  # sentence encoders come without a masked-word head
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
    titles = ["title"] if column.corpus.titles else []
    vectors = textcl.encode_corpus(  # of the untouched encoder, once for all rows
        work.start, _table(column, work.folder), work.folder / "untouched", column="text", columns=titles
    )
    adapted = textcl.adapt(
        f"{work.directory},{exported}", vectors, columns=titles, minutes=600,
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


def cell(row: str, work: Table, column: Column, seed: int, start: dict[str, Any] | None) -> dict[str, Any]:
    """Trains, measures, and says what was found; a failure is a result too.

    Args:
        row: The name of the row.
        work: What all cells share.
        column: The texts and their measure.
        seed: The seed.
        start: The cell of the untouched encoder; None for that cell itself, which alone keeps what its score was
            computed from.
    """
    begin = time.perf_counter()
    try:
        encoder = row_encoder(row, work, column, seed)
        seconds = time.perf_counter() - begin
        evaluator = column.evaluators.get(row, column.evaluators["dense"])
        result: Result = evaluator(encoder)
        found = {"score": result.primary, "seconds": seconds}
        items = None if result.items is None else np.asarray(result.items).round(5)
        if start is None:
            return found | {"items": None if items is None else items.tolist()}
        if items is not None and hasattr(evaluator, "error_of_difference"):
            found["error"] = evaluator.error_of_difference(np.array(start["items"]), items)
        judged = row not in ("bm25", "hybrid") and seed == SEED
        tool = concluded(row, encoder, work, column) if judged else ""
        return found | {"gain": result.primary - start["score"], "tool": tool}
    except NotApplicable as error:
        return {"not_applicable": str(error)}
    except Exception as error:  # the other cells go on; the table prints the reason
        logging.getLogger("textcl").exception("%s, %s, seed %s failed", row, column.name, seed)
        return {"failed": f"{type(error).__name__}: {error}"}


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
    parser.add_argument("--columns", nargs="*", choices=list(MEASURES))
    parser.add_argument("--pages", type=Path, metavar="DOCS")
    given = parser.parse_args(arguments)
    path = given.output / FILE
    if given.collection or given.clusters or given.texts:
        fill(path, given)
    found = read_cells(path, given.steps)
    print(table_of(found))
    if given.pages:
        write_pages(found, given.steps, given.pages)
    return 0


def fill(path: Path, given: argparse.Namespace) -> None:
    """Makes the cells that are missing."""
    directory = Options(given.model).encoder()
    work = Table(Encoder.from_pretrained(directory), directory, given.steps, given.output)
    given.output.mkdir(parents=True, exist_ok=True)
    used = [each for each in columns(given) if not given.columns or each.name in given.columns]
    rows = [row for row in (*OTHERS, *METHODS) if row == "untouched" or not given.only or row in given.only]
    done = {line["key"]: line for line in read_results(path)}
    starts: dict[str, dict[str, Any]] = {}
    plan = [
        (row, column, seed)
        for row in rows
        for column in used
        for seed in range(SEED, SEED + (1 if row in ("untouched", "bm25", "hybrid") else given.seeds))
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
            done[key] = line | cell(row, work, column, seed, starts.get(column.name))
            append_result(path, done[key])
        if row == "untouched":
            starts[column.name] = done[key]
    write_json(given.output / "settings.json", {key: str(value) for key, value in vars(given).items()})
