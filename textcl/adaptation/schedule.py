"""Which candidates are trained, and for how many steps: what the minutes allow, by a measured rate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from textcl.adaptation.known_items import View, halves, sentences
from textcl.adaptation.rows import BATCH, WINDOW, pair_rows
from textcl.adaptation.trained import CANDIDATES, Candidate, Kind, Layers, train
from textcl.encoder import Encoder
from textcl.errors import disk_full
from textcl.runs.clusters import LOOK_STEPS

STEPS = (200, 100, 50)  # the most for which there is time for all candidates
PASSES = 10  # over the rows, at most
LEAST_ROWS = 200  # texts of a kind, before the split
ALPHAS = 3  # blends of a candidate that are scored, at most
MOST_SEARCHED = 3000  # documents, where candidates are selected
MOST_ASKED = 1000  # queries, where candidates are selected
COST: dict[Kind, float] = {"pairs": 1, "crops": 1, "halves": 1, "hard negatives": 1.5, "SCCL": 8}  # of a step, in pairs
_TIMED = 4  # steps


def possible(views: Sequence[View], texts: Sequence[str], purpose: str) -> list[Candidate]:
    """The candidates that the texts and the purpose allow.

    Halves are trained on only where they are neither the main view, whose pairs they are, nor the second view, which
    must not be trained on.

    Args:
        views: The views; the first one is trained on.
        texts: The texts.
        purpose: What the encoder is for.
    """
    names = {view.name for view in views}
    kinds: set[Kind] = {"pairs"}
    if sum(len(sentences(text)) >= 2 * WINDOW for text in texts) >= LEAST_ROWS:
        kinds.add("crops")
    if "half" not in names and sum(halves(text) is not None for text in texts) >= LEAST_ROWS:
        kinds.add("halves")
    if purpose == "search":
        kinds.add("hard negatives")
    if purpose == "clusters":
        kinds.add("SCCL")
    return [candidate for candidate in CANDIDATES if candidate.kind in kinds]


def schedule(
    encoder: Encoder,
    views: Sequence[View],
    texts: Sequence[str],
    purpose: str,
    documents: int,
    seconds: float,
    each: float,
    again: bool = True,
) -> dict[str, Any]:
    """The candidates that there is time for, in their order, and the time to train the selected one on all texts.

    Args:
        encoder: The encoder.
        views: The views; the first one is trained on.
        texts: The texts.
        purpose: What the encoder is for.
        documents: The number of documents that are looked at.
        seconds: The time for all candidates.
        each: The seconds that encoding a text takes.
        again: Whether the selected one is trained again, on all texts; else all texts train at once.

    Returns:
        "candidates": their names; "left_out": the names of those that there is no time for; "steps": the number of
        steps; "seconds": the time that all of it takes.
    """
    view, known = views[0], possible(views, texts, purpose)
    pairs = len(view.queries) * documents // len(texts)
    most = max(1, PASSES * (pairs // 2) // BATCH)
    scoring = ALPHAS * each * (min(MOST_SEARCHED, documents) + min(MOST_ASKED, pairs // 4))
    rates = _rates(encoder, view, known)
    chosen: list[Candidate] = []
    total, steps = 0.0, 0
    for steps in (min(wanted, most) for wanted in STEPS):
        looks = (2 + steps // LOOK_STEPS) * each * documents  # of SCCL, twice before training
        costs = {
            candidate: steps * rates[candidate.layers] * COST[candidate.kind] + looks * (candidate.kind == "SCCL")
            for candidate in known
        }
        chosen, total, refit = [], 0.0, 0.0
        for candidate, cost in costs.items():
            dearest = max(refit, cost) if again else 0.0
            if total + cost + scoring + dearest <= seconds:
                chosen.append(candidate)
                total, refit = total + cost + scoring, dearest
        total += refit
        if len(chosen) == len(known):
            break
    left_out = [candidate.name for candidate in known if candidate not in chosen]
    names = [candidate.name for candidate in chosen]
    return {"candidates": names, "left_out": left_out, "steps": steps, "seconds": total}


class _Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def _rates(encoder: Encoder, view: View, known: Sequence[Candidate]) -> dict[Layers, float]:
    """The measured seconds of a step on pairs, by the layers that are trained.

    The time until the end of the first step is left out: on short texts, making a trainer takes as long as many steps.
    """
    alone = np.arange(len(view.documents))
    rows = pair_rows(view, alone, np.ones(len(alone), bool), _TIMED)
    found: dict[Layers, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for layers in dict.fromkeys(candidate.layers for candidate in known):
            begin, clock = time.perf_counter(), _Clock()
            try:
                train(encoder, Candidate("pairs", layers, 1e-5), rows, _TIMED, Path(folder) / "run", callbacks=[clock])
            except Exception as error:  # the candidates are planned, fail again, and are recorded with the reason
                if disk_full(error):
                    raise
            steps = np.diff(clock.ends)
            found[layers] = float(np.median(steps)) if len(steps) else time.perf_counter() - begin
    return found
