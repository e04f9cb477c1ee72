"""The seven transfer tasks on vectors that are computed before, versus SentEval's loop and scikit-learn."""

from collections.abc import Callable, Iterable
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold, cross_val_score

from benchmarks import senteval_loop
from benchmarks.measure import EQUAL, SMALLER, Options, Row, seconds, take_turns
from textcl import Encoder
from textcl.data.transfer import TRANSFER_TASKS, Examples, read_transfer
from textcl.errors import InputError
from textcl.evaluation import Transfer
from textcl.evaluation.transfer import SEED, STRENGTHS, STRENGTHS_OF_FOLDS

DIMENSION = 384
COUNTS = {  # the number of texts of each class, in each split
    "MR": {"all": [5331, 5331]},
    "CR": {"all": [1368, 2407]},
    "SUBJ": {"all": [5000, 5000]},
    "MPQA": {"all": [7294, 3312]},
    "SST2": {"train": [29780, 37569], "dev": [428, 444], "test": [912, 909]},
    "TREC": {"train": [86, 1162, 1250, 1223, 835, 896], "test": [9, 138, 94, 65, 81, 113]},
    "MRPC": {"train": [1323, 2753], "test": [578, 1147]},
}
TINY = {
    "MR": {"all": [30, 30]},
    "SST2": {"train": [90, 110], "dev": [40, 40], "test": [200, 200]},
    "TREC": {"train": [90, 60, 50], "test": [100, 100, 100]},
}
Tasks = dict[str, dict[str, Examples]]
Vectors = dict[str, np.ndarray]
Peers = dict[str, Callable[[dict[str, senteval_loop.Split]], float]]
"""Functions from the splits of a task to its test accuracy × 100; one is named "loop"."""


class Cached:
    """An encoder that only looks up vectors computed before."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        return np.stack([self.vectors[text] for text in texts])


def run(options: Options) -> list[Row]:
    """Seconds for all tasks, and their average accuracy."""
    if options.quick:
        return beside(PEERS, *random_tasks(TINY, 64), options.turns(), "tiny tasks, random vectors")
    try:
        tasks = {name: read_transfer(name) for name in TRANSFER_TASKS}
    except InputError as error:
        return beside(PEERS, *random_tasks(COUNTS), options.turns(1), f"random vectors, because {error}")
    texts = {text for splits in tasks.values() for each in splits.values() for text in (*each.first, *each.second)}
    found = Encoder.from_pretrained(options.encoder()).encode(sorted(texts))
    return beside(PEERS, tasks, dict(zip(sorted(texts), found, strict=True)), options.turns(1), "vectors of the model")


def beside(peers: Peers, tasks: Tasks, vectors: Vectors, rounds: int, notes: str) -> list[Row]:
    """textcl versus its peers on the same vectors: "fast" versus each peer, "senteval" only versus the loop."""
    points: dict[str, float] = {}

    def textcl_side(mode: str) -> None:
        transfer = Transfer({"own": (["a", "b"], [0, 1])}, mode=mode)
        transfer.tasks = tasks
        points[mode] = transfer(Cached(vectors)).average["transfer"]

    def peer_side(peer: str) -> None:
        points[peer] = fmean(
            peers[peer]({split: features(each, vectors) for split, each in splits.items()}) for splits in tasks.values()
        )

    sides = {
        **{mode: partial(seconds, partial(textcl_side, mode)) for mode in ("senteval", "fast")},
        **{peer: partial(seconds, partial(peer_side, peer)) for peer in peers},
    }
    found = take_turns(sides, rounds)
    names = f"{', '.join(tasks)}; {notes}"
    pairs = [("senteval", "loop"), *(("fast", peer) for peer in peers)]
    rows = [
        Row.of(f"transfer, {mode} beside {peer}", {mode: found[mode], peer: found[peer]}, "s", SMALLER, names)
        for mode, peer in pairs
    ]
    protocols = {"senteval": EQUAL, "fast": "near 1"}
    rows += [
        Row(f"transfer, {mode} beside {peer}: average", points[mode], points[peer], "points", 1, protocols[mode])
        for mode, peer in pairs
    ]
    return rows


def scikit_learn(splits: dict[str, senteval_loop.Split]) -> float:
    """Test accuracy × 100 of scikit-learn's logistic regression; C is chosen by nested folds, by folds, or on dev."""
    data = {split: (rows.cpu().numpy(), labels.cpu().numpy()) for split, (rows, labels) in splits.items()}
    folds: Any = StratifiedKFold(senteval_loop.FOLDS, shuffle=True, random_state=SEED)
    if "dev" in data:
        (rows, labels), (dev_rows, dev_labels) = data["train"], data["dev"]
        held_out = PredefinedSplit(np.repeat([-1, 0], [len(labels), len(dev_labels)]))
        joined = np.concatenate([rows, dev_rows]), np.concatenate([labels, dev_labels])
        search = GridSearchCV(_regression(), {"C": STRENGTHS}, cv=held_out, refit=False).fit(*joined)
        model = _regression(**search.best_params_).fit(rows, labels)  # only on train, as in SentEval
        return 100 * float(model.score(*data["test"]))
    strengths = STRENGTHS if "all" in data else STRENGTHS_OF_FOLDS
    search = GridSearchCV(_regression(), {"C": strengths}, cv=folds)
    if "all" in data:
        return 100 * float(cross_val_score(search, *data["all"], cv=folds).mean())
    return 100 * float(search.fit(*data["train"]).score(*data["test"]))


PEERS: Peers = {"loop": senteval_loop.score, "scikit-learn": scikit_learn}


def _regression(**options: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=1000, **options)


def random_tasks(counts: dict[str, dict[str, list[int]]], dimension: int = DIMENSION) -> tuple[Tasks, Vectors]:
    """Tasks with these numbers of texts, and vectors around one centre per class; the classes overlap."""
    generator = np.random.default_rng(0)
    tasks: Tasks = {}
    vectors: Vectors = {}
    for name, splits in counts.items():
        centres = generator.normal(size=(max(map(len, splits.values())), dimension))
        tasks[name] = {}
        for split, sizes in splits.items():
            labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
            spread = 0.5 * dimension**0.5
            rows = (centres[labels] + spread * generator.normal(size=(len(labels), dimension))).astype(np.float32)
            texts = [f"{name} {split} {number}" for number in range(len(labels))]
            vectors |= dict(zip(texts, rows, strict=True))
            # MRPC has pairs: the second text of a pair is the first text of the next pair
            second = [*texts[1:], texts[0]] if name == "MRPC" else []
            tasks[name][split] = Examples(texts, second, labels.tolist())
    return tasks, vectors


def features(examples: Examples, vectors: Vectors) -> senteval_loop.Split:
    """Rows and classes as in SentEval: a pair (u, v) is represented by |u − v| and u · v."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = np.stack([vectors[text] for text in examples.first])
    if examples.second:
        other = np.stack([vectors[text] for text in examples.second])
        rows = np.concatenate([np.abs(rows - other), rows * other], axis=1)
    return torch.as_tensor(rows, device=device), torch.as_tensor(examples.labels, device=device)
