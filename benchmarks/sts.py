"""The seven STS tasks, from text to table, versus the evaluator of sentence-transformers on each of their subsets."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from benchmarks.encode import LENGTH
from benchmarks.measure import EQUAL, SMALLER, Options, Row, in_child, seconds, take_turns
from benchmarks.peak import precisions
from benchmarks.simcse import load_peer
from textcl import Encoder
from textcl.data.sts import STS_TASKS, Subset, read_sts
from textcl.evaluation import STSSuite


def run(options: Options) -> list[Row]:
    """Seconds, and the average Spearman correlation over tasks; the score of a task is the mean over its subsets."""
    most = options.size(10**9, 12)
    dtypes = precisions()
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        name: partial(in_child, textcl_side, options.encoder(), dtype, most) for name, dtype in dtypes.items()
    }
    found = take_turns({**sides, "peer": partial(in_child, peer_side, options.encoder(), most)}, options.turns())
    notes = "EmbeddingSimilarityEvaluator for each subset, batch size 32; reading the files included on both sides"
    rows = []
    for name in dtypes:
        runs = {side: [taken for taken, _ in found[key]] for side, key in (("textcl", name), ("peer", "peer"))}
        rows.append(Row.of(f"sts, {name} beside fp32", runs, "s", SMALLER, notes))
        points = found[name][-1][1], found["peer"][-1][1]
        rows.append(Row(f"sts, {name}: average", *points, "points", 1, EQUAL, "means over subsets"))
    return rows


def textcl_side(model: str, dtype: torch.dtype, most: int) -> tuple[float, float]:
    """Seconds and score. Runs in its own process, because textcl's memory settings would also speed up the peer."""
    encoder = Encoder.from_pretrained(model, max_length=LENGTH, dtype=dtype)
    results = []

    def scored() -> None:
        suite = STSSuite()
        suite.tasks = {task: [_first(subset, most) for subset in subsets] for task, subsets in suite.tasks.items()}
        results.append(suite(encoder, show_progress_bar=False))
        results[0].table()

    return seconds(scored), results[0].average["mean"]


def peer_side(model: str, most: int) -> tuple[float, float]:
    """Seconds and score of sentence-transformers, in float32."""
    peer = load_peer(model, LENGTH)
    points = []

    def scored() -> None:
        means = [fmean(_scored(peer, _first(subset, most)) for subset in read_sts(task)) for task in STS_TASKS]
        points.append(fmean(means))

    return seconds(scored), points[0]


def _scored(model: Any, subset: Subset) -> float:
    evaluator = EmbeddingSimilarityEvaluator(
        subset.first,
        subset.second,
        subset.scores,
        batch_size=32,
        main_similarity="cosine",
        similarity_fn_names=["cosine"],
        write_csv=False,
    )
    return 100 * evaluator(model)["spearman_cosine"]


def _first(subset: Subset, most: int) -> Subset:
    return replace(subset, first=subset.first[:most], second=subset.second[:most], scores=subset.scores[:most])
