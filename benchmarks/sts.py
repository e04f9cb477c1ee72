"""The seven STS tasks, from text to table, beside sentence-transformers' evaluator on each of their subsets."""

from dataclasses import replace
from statistics import fmean
from typing import Any

from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from benchmarks.measure import EQUAL, SMALLER, Options, Row, seconds, take_turns
from benchmarks.simcse import load_peer
from textcl import Encoder
from textcl.data.sts import STS_TASKS, Subset, read_sts
from textcl.evaluation import STSSuite

LENGTH = 128


def run(options: Options) -> list[Row]:
    """Seconds, and the average Spearman correlation, each task the mean over its subsets."""
    encoder = Encoder.from_pretrained(options.encoder(), max_length=LENGTH)
    peer = load_peer(options.encoder(), LENGTH)
    points: dict[str, float] = {}
    most = options.size(10**9, 12)

    def textcl_side() -> None:
        suite = STSSuite()
        suite.tasks = {task: [_first(subset, most) for subset in subsets] for task, subsets in suite.tasks.items()}
        result = suite(encoder, show_progress_bar=False)
        result.table()
        points["textcl"] = result.average["mean"]

    def peer_side() -> None:
        points["peer"] = fmean(
            fmean(_scored(peer, _first(subset, most)) for subset in read_sts(task)) for task in STS_TASKS
        )

    found = take_turns({"textcl": lambda: seconds(textcl_side), "peer": lambda: seconds(peer_side)}, options.turns())
    notes = "EmbeddingSimilarityEvaluator for each subset, batch size 32; reading the files included on both sides"
    return [
        Row.of("sts", found, "s", SMALLER, notes),
        Row("sts: average", points["textcl"], points["peer"], "points", 1, EQUAL, "means over subsets"),
    ]


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
