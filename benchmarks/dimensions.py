"""Vectors of few dimensions: trained for it (Matryoshka), or rotated by PCA, or only cut?

    python -m benchmarks dimensions --output FOLDER [--collection CRANFIELD] [--texts FILE] [--model DIRECTORY]
        [--sizes 128 64 32] [--steps 100] [--seeds 3] [--only ROW ...]

Each row starts from the same encoder, all-MiniLM-L6-v2 by default, and keeps the first 128, 64 or 32 dimensions. The
rows:

    cut               the untouched vectors
    pca               the untouched vectors, rotated by PCA; it is fitted on the texts of the column, at most 10,000
    rotated           the same without removing the mean, so that the cosines of whole vectors stay what they were
    trained, cut      trained on whole vectors
    trained, rotated  the same, rotated
    matryoshka        trained on the whole vector and on all sizes, as `textcl train simcse --dimensions` does

The columns:

    search            trained on titles and bodies of the collection (BEIR's layout); nDCG@10 of its judged queries
    similarity        trained on the sentences of the file, with dropout as the only view; Spearman on STS-B dev

Nothing is selected. A difference is to the best of the three untouched rows with the same size, over seeds; its
standard error has two parts, added in squares: over queries or pairs (bootstrap) and over seeds. Each finished row is
a line of FOLDER/dimensions.jsonl, and an interrupted run is continued.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

import textcl
from benchmarks.measure import Options
from benchmarks.what_helps import Column
from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.rows import Rows, pair_rows
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Retrieval, STSBenchmark
from textcl.files import append_result, content_hash, read_results, write_json
from textcl.methods import SimCSE
from textcl.progress import Progress
from textcl.report.tables import table
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

ROWS = ("cut", "pca", "rotated", "trained, cut", "trained, rotated", "matryoshka")
UNTOUCHED = ROWS[:3]
FITTED_ON = 10_000  # vectors
LENGTH, RATE, WARM_UP, SENTENCES = 128, 2e-5, 0.1, 64

MEASURES = {"search": "nDCG@10", "similarity": "Spearman"}

Map = Callable[[np.ndarray], np.ndarray]


class Kept:
    """An encoder that encodes each text once, whatever is made of its vectors."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.rows: dict[str, np.ndarray] = {}

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if new:
            self.rows |= zip(new, self.encoder.encode(new), strict=True)
        return np.stack([self.rows[text] for text in texts])


class Shortened:
    """The vectors of an encoder after a map; what evaluators take."""

    def __init__(self, kept: Kept, shorten: Map) -> None:
        self.kept, self.shorten = kept, shorten

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.shorten(self.kept.vectors(texts))


def first(size: int) -> Map:
    """Keeps the first dimensions."""
    return lambda vectors: vectors[:, :size]


def principal(vectors: np.ndarray, centred: bool) -> Callable[[int], Map]:
    """Keeps the directions in which some vectors, (rows, dim), are longest, after their mean was removed, or before."""
    rows = vectors.astype(np.float64)
    mean = rows.mean(axis=0) if centred else np.zeros(rows.shape[1])
    _, directions = np.linalg.eigh((rows - mean).T @ (rows - mean))
    return lambda size: lambda given: (given - mean) @ directions[:, ::-1][:, :size]


def columns(given: argparse.Namespace) -> list[Column]:
    """The columns whose data are named."""
    found = []
    if given.collection:
        corpus = read_corpus(given.collection / "corpus.jsonl", ("title", "text"))
        found.append(Column("search", corpus, {"dense": Retrieval.from_folder(given.collection)}))
    if given.texts:
        texts = textcl.load_texts(given.texts, limit=50_000)["text"]
        found.append(Column("similarity", read_corpus(list(texts)), {"dense": STSBenchmark("dev")}))
    if not found:
        raise InputError("Name a collection with --collection, or a file of sentences with --texts.")
    return found


def training_rows(column: Column, steps: int, seed: int) -> Rows:
    """Titles and bodies, or sentences, in the order in which they are trained on."""
    if column.name == "search":
        if "title" not in column.views:
            raise InputError("The collection has too few titles to train on.")
        return pair_rows(column.views["title"], column.groups, np.ones(len(column.corpus), bool), steps, seed)
    texts = list(dict.fromkeys(column.corpus.texts))
    order = np.random.default_rng(seed).permutation(len(texts))
    return Rows({"text": [texts[i] for i in np.resize(order, steps * SENTENCES).tolist()]}, SENTENCES)


def trained(start: Encoder, rows: Rows, steps: int, seed: int, sizes: Sequence[int], run: Path) -> Encoder:
    """A trained copy: SimCSE without a head, on whole vectors or, if there are sizes, on these."""
    shutil.rmtree(run, ignore_errors=True)
    encoder = copy.deepcopy(start)
    args = ContrastiveTrainingArguments(
        str(run), max_steps=steps, per_device_train_batch_size=rows.batch, learning_rate=RATE,
        warmup_steps=max(1, round(WARM_UP * steps)), train_sampling_strategy="sequential", save_strategy="no",
        seed=seed,
    )  # fmt: skip
    set_seed(seed)
    method = SimCSE(encoder.with_(max_length=min(LENGTH, start.max_length)), head="none")
    if sizes:
        method.set_dimensions(sizes)
    ContrastiveTrainer(method, args, rows).train()
    shutil.rmtree(run, ignore_errors=True)
    return encoder.eval()


def measured(kept: Kept, column: Column, sizes: Sequence[int], row: str) -> dict[str, Any]:
    """The score of each size, and what it was computed from."""
    shorten, found = first, {}
    if row.endswith(("pca", "rotated")):
        shorten = principal(kept.vectors(column.corpus.texts[:FITTED_ON]), centred=row == "pca")
    for size in sizes:
        result = column.evaluators["dense"](Shortened(kept, shorten(size)))
        found[str(size)] = {"score": result.primary, "items": np.asarray(result.items).round(5).tolist()}
    return found


def difference(column: Column, cells: Sequence[dict[str, Any]], start: dict[str, Any]) -> tuple[float, float]:
    """The mean difference to an untouched row over seeds, and its standard error."""
    gains = np.array([each["score"] - start["score"] for each in cells])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    evaluator, before = column.evaluators["dense"], np.array(start["items"])
    units = [evaluator.error_of_difference(before, np.array(each["items"])) for each in cells]
    return float(gains.mean()), float(np.hypot(error, np.mean(units)))


def written(found: dict[tuple[str, str, int], dict[str, Any]], column: Column, sizes: Sequence[int]) -> str:
    """The table of a column in Markdown."""
    lines = []
    for row in ROWS:
        by_seed = [line["sizes"] for (name, of, _), line in found.items() if (name, of) == (row, column.name)]
        cells = [row, str(len(by_seed))]
        for size in map(str, sizes):
            scores = [each[size] for each in by_seed]
            if not scores:
                cells.append("not run")
                continue
            text = f"{np.mean([each['score'] for each in scores]):.1f}"
            bases = [found[key]["sizes"][size] for name in UNTOUCHED if (key := (name, column.name, 42)) in found]
            if row not in UNTOUCHED and bases:
                gain, error = difference(column, scores, max(bases, key=lambda base: base["score"]))
                low, high = gain - 1.96 * error, gain + 1.96 * error
                word = "better" if low > 0 else "**worse**" if high < 0 else "no difference"
                text += f": {gain:+.1f} ({low:+.1f} to {high:+.1f}), {word}"
            cells.append(text)
        lines.append(cells)
    return table([f"{column.name}: {MEASURES[column.name]}", "seeds", *map(str, sizes)], lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks dimensions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("collection", "texts"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 64, 32])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=ROWS, metavar="ROW")
    given = parser.parse_args(arguments)
    start = Encoder.from_pretrained(Options(given.model).encoder())
    given.output.mkdir(parents=True, exist_ok=True)
    used, sizes = columns(given), [start.dimension, *given.sizes]
    path = given.output / "dimensions.jsonl"
    done = {line["key"]: line for line in read_results(path)}
    untouched = {column.name: Kept(start) for column in used}
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    plan = [
        (column, seed, row)  # the two rows of a seed that need the same encoder come one after the other
        for column in used
        for seed in range(42, 42 + given.seeds)
        for row in ROWS
        if (not given.only or row in given.only) and (seed == 42 or row not in UNTOUCHED)
    ]
    kept: dict[tuple[str, int], Kept] = {}
    for column, seed, row in Progress("Rows", len(plan), "rows").over(plan):
        nested = sizes if row == "matryoshka" else []
        settings = {
            "row": row, "column": column.name, "seed": seed, "steps": given.steps, "sizes": sizes, "rate": RATE,
            "model": start.fingerprint(), "texts": column.corpus.hash(),
        }  # fmt: skip
        key = content_hash(settings)
        if key not in done:
            begin = time.perf_counter()
            if row in UNTOUCHED:
                source = untouched[column.name]
            elif row == "matryoshka" or (column.name, seed) not in kept:
                rows = training_rows(column, given.steps, seed)
                source = Kept(trained(start, rows, given.steps, seed, nested, given.output / "run"))
                kept = {} if nested else {(column.name, seed): source}
            else:
                source = kept[column.name, seed]
            scores = measured(source, column, sizes, row)
            done[key] = {**settings, "key": key, "sizes": scores, "seconds": time.perf_counter() - begin}
            append_result(path, done[key])
        found[row, column.name, seed] = done[key]
    print(f"{given.steps} steps, {given.seeds} seeds, from {start.name}; differences are to the best untouched row\n")
    print("\n\n".join(written(found, column, sizes) for column in used))
    write_json(given.output / "settings.json", {key: str(value) for key, value in vars(given).items()})
    return 0
