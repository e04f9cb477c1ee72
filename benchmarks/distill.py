"""How much of an encoder a student keeps. The table of docs/how-to/make-a-small-student.md.

    python -m benchmarks distill --output FOLDER --data FILE|VECTORS [--collections FOLDER ...] [--clusters FILE]
        [--model DIRECTORY] [--seeds 3] [--only ROW ...] [--dev]

The rows: the teacher (all-MiniLM-L6-v2 by default), the static student before and after the regression, the student
with half the layers, the encoder `small` of textcl, Model2Vec's distillation of the same teacher, and TF-IDF. The
columns: the average of the seven STS tasks (Spearman × 100, all), nDCG@10 of each collection in BEIR's layout, accuracy
of k-means on labelled texts, and sentences a second. Nothing was trained on a text of an evaluation; the last column
says what a row was trained on. `--dev` shows STS-B dev alone, by which settings are chosen. Each finished cell is a
line of FOLDER/distill.jsonl; an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import textcl
from benchmarks.measure import Options, seconds
from textcl.data.corpora import load_labelled
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Clustering, Retrieval, STSBenchmark, STSSuite
from textcl.evaluation.baselines import TfidfEncoder
from textcl.files import append_result, content_hash, read_results
from textcl.progress import Progress
from textcl.report.tables import table
from textcl.vectors.shards import is_vectors
from textcl.vectors.static_student import start_of
from textcl.vectors.vectors import Vectors

SEEDED = ("static", "layers")
ROWS = ("teacher", "start", *SEEDED, "small", "model2vec", "tf-idf")
DIMENSIONS = 256
TIMED = {"teacher": 1000, "layers": 1000}  # sentences; other rows take 20,000


class Model2Vec:
    """Model2Vec's distillation of an encoder, with its defaults but float32.

    Args:
        model: The encoder's directory.
    """

    def __init__(self, model: str) -> None:
        if find_spec("model2vec") is None or find_spec("skeletoken") is None:
            raise InputError("model2vec is not here: pip install model2vec[distill].")
        from model2vec.distill import distill

        self._model = distill(model, pca_dims=DIMENSIONS, quantize_to="float32")

    def encode(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        return self._model.encode(list(texts), show_progress_bar=False, use_multiprocessing=False)


class Work:
    """What all rows share.

    Args:
        given: The arguments of the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.model = Options(given.model).encoder()
        self.teacher = Encoder.from_pretrained(self.model)
        vectors = is_vectors(given.data)
        self.texts = Vectors(given.data).texts() if vectors else list(textcl.load_texts(given.data)["text"])

    def encoder(self, row: str, seed: int) -> Any:
        """The encoder of a row."""
        if row == "teacher":
            return self.teacher
        if row == "small":
            return Encoder.from_pretrained("small")
        if row == "tf-idf":
            return TfidfEncoder(self.texts)
        if row == "model2vec":
            return Model2Vec(self.model)
        if row == "start":
            start = start_of(self.teacher, self.texts, DIMENSIONS)
            return start.encoder(start.table)
        asked = {"static": DIMENSIONS} if row == "static" else {"layers": self._half()}
        return textcl.distill(self.model, self.given.data, seed=seed, **asked).encoder

    def _half(self) -> int:
        return int(self.teacher.backbone.config.num_hidden_layers) // 2

    def trained_on(self, row: str) -> str:
        """What the teacher's student has seen."""
        return {
            "teacher": "see its model card",
            "small": "see its model card",
            "start": f"vocabulary, token counts of {len(self.texts):,} texts",
            "model2vec": "vocabulary",
            "tf-idf": f"word counts of {len(self.texts):,} texts",
        }.get(row, f"teacher's vectors of {len(self.texts):,} texts")


def columns(given: argparse.Namespace) -> dict[str, Callable[[Any], float]]:
    """What is measured, by name."""
    if given.dev:
        return {"STS-B dev": lambda encoder: STSBenchmark("dev")(encoder).primary}
    found: dict[str, Callable[[Any], float]] = {"STS": lambda encoder: STSSuite()(encoder).primary}
    for folder in given.collections or ():
        retrieval = Retrieval.from_folder(folder)
        found[folder.name] = lambda encoder, retrieval=retrieval: retrieval(encoder).primary
    if given.clusters:
        rows = load_labelled(given.clusters)
        clustering = Clustering({"own": (list(rows["text"]), rows["label"])})
        found[given.clusters.stem] = lambda encoder: clustering(encoder).primary
    return found


def rate(encoder: Any, texts: Sequence[str]) -> float:
    """Sentences a second, the median of three runs."""
    encoder.encode(texts[:64])
    return float(len(texts) / np.median([seconds(lambda: encoder.encode(texts)) for _ in range(3)]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--collections", type=Path, nargs="*")
    parser.add_argument("--clusters", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=ROWS, metavar="ROW")
    parser.add_argument("--dev", action="store_true")
    given = parser.parse_args(arguments)
    work, measures = Work(given), columns(given)
    path = given.output / "distill.jsonl"
    done = {line["key"]: line for line in read_results(path)}
    found: dict[tuple[str, str], list[float]] = {}
    plan = [(row, seed) for row in given.only or ROWS for seed in range(given.seeds if row in SEEDED else 1)]
    names = [*measures, "sentences/s"]
    for row, seed in Progress("Rows", len(plan), "rows").over(plan):
        encoder = None
        for name in names:
            facts = {"row": row, "seed": seed, "column": name, "texts": len(work.texts)}
            key = content_hash({**facts, "model": work.teacher.fingerprint()})
            if key not in done:
                try:
                    encoder = encoder or work.encoder(row, seed)
                except InputError as error:
                    logging.getLogger("textcl").warning("%s: %s", row, error)
                    break
                own = work.texts[: TIMED.get(row, 20_000)]
                value = rate(encoder, own) if name == "sentences/s" else measures[name](encoder)
                done[key] = {"key": key, **facts, "value": float(value), "threads": torch.get_num_threads()}
                append_result(path, done[key])
            found.setdefault((row, name), []).append(done[key]["value"])
    print(written(found, given.only or ROWS, names, work))
    return 0


def written(found: dict[tuple[str, str], list[float]], rows: Sequence[str], names: Sequence[str], work: Work) -> str:
    """The table in Markdown: mean ± standard deviation over seeds."""

    def cell(values: list[float] | None, name: str) -> str:
        if not values:
            return "not run"
        if name == "sentences/s":
            return f"{np.mean(values):,.0f}"
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        return f"{np.mean(values):.2f}{spread}"

    lines = [[row, *(cell(found.get((row, name)), name) for name in names), work.trained_on(row)] for row in rows]
    return table(["", *names, "trained on"], lines)
