"""SentEval's classifier as in its code: each fold and each regularisation is trained on its own, batch by batch.

Conneau and Kiela 2018 (arXiv 1803.05449), with the settings of SimCSE: 10 folds, Adam, batch size 64, tenacity 5, four
passes between two checks. textcl trains many classifiers together; here they are trained one after another.
"""

import copy
from statistics import fmean

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from tqdm import tqdm

from textcl.evaluation.transfer import SEED

DECAYS = (1e-5, 1e-4, 1e-3, 1e-2)
FOLDS, BATCH, TENACITY, PASSES, MOST_PASSES = 10, 64, 5, 4, 200

Split = tuple[Tensor, Tensor]
"""Rows (n, dim) and their classes (n,)."""


def score(splits: dict[str, Split]) -> float:
    """Test accuracy × 100. "all" uses nested folds, "train" and "test" use folds of train, with "dev" the dev split."""
    if "all" in splits:
        return _nested(*splits["all"])
    if "dev" in splits:
        decay, _ = _best([fit(splits["train"], splits["dev"], decay)[1] for decay in DECAYS])
        layer, _ = fit(splits["train"], splits["dev"], decay)
    else:
        decay, _ = _of_folds(*splits["train"])
        layer, _ = fit(splits["train"], None, decay)
    return round(100 * accuracy(layer, splits["test"]), 2)


def _nested(rows: Tensor, labels: Tensor) -> float:
    found = []
    for train, test in tqdm(_folds(labels), desc="SentEval's loop", delay=2, disable=None, leave=False):
        decay, _ = _of_folds(rows[train], labels[train])
        layer, _ = fit((rows[train], labels[train]), None, decay)
        found.append(round(100 * accuracy(layer, (rows[test], labels[test])), 2))
    return round(fmean(found), 2)


def _of_folds(rows: Tensor, labels: Tensor) -> tuple[float, float]:
    """The weight decay with the best mean dev accuracy over folds, and this accuracy."""
    means = []
    for decay in DECAYS:
        each = [fit((rows[i], labels[i]), (rows[j], labels[j]), decay)[1] for i, j in _folds(labels)]
        means.append(fmean(each))
    return _best(means)


def _folds(labels: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    return list(splitter.split(np.zeros(len(labels)), labels.cpu().numpy()))


def _best(accuracies: list[float]) -> tuple[float, float]:
    rounded = [round(100 * each, 2) for each in accuracies]
    return DECAYS[int(np.argmax(rounded))], max(rounded)


def fit(train: Split, dev: Split | None, decay: float) -> tuple[nn.Linear, float]:
    """Trains one classifier with early stopping; returns the best classifier and its dev accuracy.

    Args:
        train: The rows to train on.
        dev: The rows that decide when to stop; None: 5 % of `train`, drawn at random.
        decay: The weight decay.
    """
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    rows, labels = train
    layer = nn.Linear(rows.shape[1], int(labels.max()) + 1).to(rows)
    optimizer = torch.optim.Adam(layer.parameters(), weight_decay=decay)
    if dev is None:
        order = np.random.permutation(len(rows))
        cut = int(0.05 * len(rows))
        dev = rows[order[:cut]], labels[order[:cut]]
        rows, labels = rows[order[cut:]], labels[order[cut:]]
    best, kept, misses, passes = -1.0, copy.deepcopy(layer), 0, 0
    while passes <= MOST_PASSES:
        for _ in range(PASSES):
            _one_pass(layer, optimizer, rows, labels)
        passes += PASSES
        found = accuracy(layer, dev)
        if found > best:
            best, kept = found, copy.deepcopy(layer)
            continue
        if misses >= TENACITY:
            break
        misses += 1
    return kept, best


def _one_pass(layer: nn.Linear, optimizer: torch.optim.Optimizer, rows: Tensor, labels: Tensor) -> None:
    costs = []
    order = np.random.permutation(len(rows))
    for start in range(0, len(rows), BATCH):
        batch = torch.from_numpy(order[start : start + BATCH]).to(rows.device)
        loss = nn.functional.cross_entropy(layer(rows[batch]), labels[batch])
        costs.append(loss.item())  # SentEval does this, which makes each step wait
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(layer: nn.Linear, split: Split) -> float:
    """The share of correctly classified rows, counted batch by batch."""
    right = 0
    for rows, labels in zip(split[0].split(BATCH), split[1].split(BATCH), strict=True):
        right += int((layer(rows).argmax(1) == labels).sum().item())
    return right / len(split[1])
