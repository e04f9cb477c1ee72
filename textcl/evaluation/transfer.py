"""Transfer: how well a linear classifier on frozen embeddings predicts the classes of SentEval's tasks.

The protocol is SentEval's (Conneau and Kiela 2018), with the settings of SimCSE (Gao et al. 2021).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textcl.data.transfer import REGRESSIONS, TRANSFER_TASKS, Examples, hash_examples, read_transfer
from textcl.errors import InputError, nearest
from textcl.evaluation.cache import Finished, cache_folder, embed
from textcl.evaluation.encoding import check_own_names, made_with, texts_and_labels
from textcl.evaluation.kinds import REGRESSION, TRANSFER
from textcl.evaluation.logistic import Fold, Training, expected_class, predict, solve, train, with_ones
from textcl.evaluation.results import Result, averages
from textcl.texts import names_in

logger = logging.getLogger("textcl")

SEED = 1111
SETTINGS = {  # the number of folds, and how SentEval's classifier is trained
    "test": (10, Training("adam", batch_size=64, tenacity=5, passes=4)),
    "dev": (5, Training("rmsprop", batch_size=128, tenacity=3, passes=2)),
}
MODES = ("senteval", "fast")
FEW = 1000  # texts: two separable classes with fewer texts than this may get a random accuracy in mode "senteval"
_REGRESSION = Training("adam", batch_size=64, tenacity=3, passes=50, most_passes=1000)
_HELD_OUT = 0.05  # share of the rows that the chosen classifier does not train on, for early stopping
_WEIGHT_DECAYS = np.array([1e-5, 1e-4, 1e-3, 1e-2])
# C in the scikit-learn branch of SentEval: for nested folds and a dev split; for folds of a train split
STRENGTHS, STRENGTHS_OF_FOLDS = 2.0 ** np.arange(-2, 4), 2.0 ** np.arange(-1, 6)
# SentEval does not regularise on SNLI, and checks after each pass because there are so many rows
_SNLI_WEIGHT_DECAYS, _SNLI_STRENGTHS = np.array([1e-9]), np.array([1e9])


class Transfer:
    """A logistic regression on the embeddings of each task; its regularisation is chosen on dev data.

    Tasks without splits (MR, CR, SUBJ, MPQA) are evaluated by nested cross-validation. Tasks with only a train and a
    test split (TREC, MRPC) choose the regularisation by cross-validation on the train split, the others on their dev
    split. A pair (u, v) is represented by |u − v| and the elementwise product u · v; on SNLI also by u and v. SNLI is
    trained as in SentEval: without regularisation, with at most 16 passes and a check after each.

    Args:
        tasks: Names from `CLASSIFICATIONS` and `REGRESSIONS`, or your own data as `{name: (texts, labels)}`, which is
            evaluated like MR.
        data_dir: The data directory; default: `textcl.data.data_directory()`.
        mode: "senteval" trains as SentEval does, with early stopping. "fast" computes the optimum of each logistic
            regression, without randomness, and agrees with scikit-learn; use it for fewer than a thousand texts, on
            which SentEval's training may stop too early (a warning says so). `REGRESSIONS` are always trained as in
            SentEval.
        setting: "test" reports test accuracy, with 10 folds. "dev", for model selection, reports dev accuracy with 5
            folds and faster training, and uses no test label.
        cache: A folder for embeddings and finished tasks, from which an interrupted evaluation is resumed.

    Raises:
        InputError: A task, mode or setting is unknown, or a set is not installed; or your own data has the name of a
            public set, a text that is not a string, a missing label (see `textcl.metrics.labels.number_labels`), only
            one class, or unequal numbers of texts and labels.

    Example:
        >>> Transfer(["MR", "TREC"], mode="fast")(encoder).results["MR"]["accuracy"]  # doctest: +SKIP
        >>> Transfer({"mine": (texts, labels)})(encoder).primary  # doctest: +SKIP
    """

    def __init__(
        self,
        tasks: Sequence[str] | Mapping[str, tuple[Sequence[str], Sequence[Any]]] = TRANSFER_TASKS,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        mode: str = "senteval",
        setting: str = "test",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        for what, name, known in (("mode", mode, MODES), ("setting", setting, tuple(SETTINGS))):
            if name not in known:
                raise InputError(f"There is no {what} '{name}'; there are {', '.join(known)}.{nearest(name, known)}")
        self.labels: dict[str, list[Any]] = {}  # of own data, whose classes have other names than their numbers
        if isinstance(tasks, Mapping):
            check_own_names(tasks)
            self.tasks = {}
            for name, own in tasks.items():
                texts, numbers, self.labels[name] = texts_and_labels(name, own, "a classification")
                self.tasks[name] = {"all": Examples.ordered([(text,) for text in texts], numbers)}
        else:
            directory = None if data_dir is None else Path(data_dir)
            self.tasks = {name: read_transfer(name, directory) for name in names_in(tasks)}
        for name, splits in self.tasks.items() if isinstance(tasks, Mapping) and mode == "senteval" else ():
            if len(splits["all"]) < FEW:
                logger.warning(
                    "%s has %s texts. SentEval's training, made for thousands of texts, may stop on so few before it "
                    "has learnt anything; mode='fast' finds the optimum.",
                    name,
                    len(splits["all"]),
                )
        if not self.tasks:
            raise InputError("There is no transfer task to evaluate; name at least one.")
        self.mode, self.setting, self.cache = mode, setting, cache
        self.folds, self._training = SETTINGS[setting]
        self.name = "-".join(["transfer", *map(str.lower, self.tasks)]) if len(self.tasks) == 1 else "transfer"

    @property
    def data_hashes(self) -> dict[str, str]:
        """The hash of texts and labels of each task."""
        return {name: hash_examples(splits) for name, splits in self.tasks.items()}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates an encoder.

        Args:
            encoder: Any object with `.encode(list[str])` that returns one dense row per text: an array, a tensor or a
                list. With a cache it also needs a method `fingerprint()`.
            **encode_arguments: Passed on to `encoder.encode`.

        Raises:
            InputError: The encoder did not return one row per text, or returned NaN, infinite values or the same
                embedding for all texts of a task; a fold or split lacks a class; or finished tasks in the cache have
                another schema.
        """
        folder = None if self.cache is None else cache_folder(self.cache, encoder, encode_arguments)
        finished = Finished(folder)
        results: dict[str, dict[str, Any]] = {}
        hashes = self.data_hashes
        for name, splits in self.tasks.items():
            key = {"task": name, "data_sha256": hashes[name], "convention": self._convention(name)}
            scores = finished.find(key, "scores")
            if scores is None:
                scores = self._score(name, splits, encoder, folder, encode_arguments)
                finished.add(key, "scores", scores)
            results[name] = scores
        provenance = {
            "tasks": {
                name: {
                    "split": "folds" if "all" in splits else self.setting,
                    "texts": {split: len(examples) for split, examples in splits.items()},
                    "data_sha256": hashes[name],
                    "convention": self._convention(name),
                }
                for name, splits in self.tasks.items()
            },
            "transfer": {
                "primary": "accuracy",
                "accuracy": f"{self.setting} accuracy in points, for the regularisation with the best dev accuracy",
                "f1": "of the paraphrases, in points (MRPC test)",
                "by_fold": "accuracy of each outer fold, where folds are nested",
                "mode": self.mode,
                "setting": self.setting,
                "embeddings": "as encode gives them (not normalised here), float32",
                "pairs": "|u - v| and u * v, joined; on SNLI u, v, u * v and |u - v|",
                "aggregation": "mean over tasks",
            },
            **made_with(encoder),
        }
        return Result(results, averages(results), provenance)

    def training(self, name: str) -> Training:
        """How SentEval's classifier is trained on a task."""
        return replace(self._training, passes=1, most_passes=15) if name == "SNLI" else self._training

    def _convention(self, name: str) -> dict[str, Any]:
        """All settings that a score depends on, apart from the embeddings and the data."""
        if name in REGRESSIONS:
            return {
                "setting": self.setting,
                "classifier": "softmax, squared error",
                "seed": SEED,
                **asdict(_REGRESSION),
            }
        common = {"mode": self.mode, "setting": self.setting, "folds": self.folds, "seed": SEED}
        splits = self.tasks[name]
        grid = _grid(self.mode, name, folds_of_train="all" not in splits and "dev" not in splits).tolist()
        if self.mode == "fast":
            return {**common, "classifier": "logistic regression, converged", "inverse_l2": grid}
        training = {**asdict(self.training(name)), "held_out": _HELD_OUT, "weight_decay": grid}
        return {**common, "classifier": "logistic regression, early stopping", **training}

    def _score(
        self,
        name: str,
        splits: dict[str, Examples],
        encoder: Any,
        folder: Path | None,
        encode_arguments: dict[str, Any],
    ) -> dict[str, Any]:
        if self.setting == "dev":
            splits = {split: examples for split, examples in splits.items() if split != "test"}
        rows = with_ones(_features(name, splits, encoder, folder, encode_arguments))
        labels = np.concatenate([examples.labels for examples in splits.values()])
        ends = np.cumsum([len(examples) for examples in splits.values()])
        places = dict(zip(splits, np.split(np.arange(len(labels)), ends[:-1]), strict=True))
        if name in REGRESSIONS:
            return {"kind": REGRESSION.name, **_regress(name, rows, labels, places)}
        task = _Task(self, name, rows, labels, int(labels.max()) + 1)
        way = task.nested if "all" in places else partial(task.split if "dev" in places else task.folds, places)
        return {"kind": TRANSFER.name, **way()}


class _Task:
    """One classification task: chooses the regularisation and computes the scores."""

    def __init__(self, transfer: Transfer, name: str, rows: Tensor, labels: np.ndarray, classes: int) -> None:
        self.transfer, self.name, self.rows, self.labels, self.classes = transfer, name, rows, labels, classes

    def nested(self) -> dict[str, Any]:
        count = self.transfer.folds
        grid = _grid(self.transfer.mode, self.name)
        outer = self._stratified(np.arange(len(self.labels)))
        inner = [Fold.split(*pair, SEED) for rows, _ in outer for pair in self._stratified(rows)]
        _, accuracy = self._fit(inner, np.tile(grid, (len(inner), 1)))
        means = np.round(100 * accuracy.reshape(count, count, -1).mean(axis=1), 2)
        chosen = grid[means.argmax(axis=1)]
        by_fold = means.max(axis=1)
        dev = round(by_fold.mean(), 2)
        scores = {"accuracy": dev, "dev_accuracy": dev}
        if self.transfer.setting == "test":
            weights, _ = self._fit([self._final(rows) for rows, _ in outer], chosen[:, None])
            by_fold = np.array(
                [self._test(rows, each[0])["accuracy"] for (_, rows), each in zip(outer, weights, strict=True)]
            )
            scores["accuracy"] = round(by_fold.mean(), 2)
        return {**_plain(scores), "by_fold": by_fold.tolist(), "chosen": chosen.tolist()}

    def folds(self, places: dict[str, np.ndarray]) -> dict[str, Any]:
        if "test" in places:
            self._check_classes(places["test"], 1, "the test split")
        grid = _grid(self.transfer.mode, self.name, folds_of_train=True)
        folds = [Fold.split(*pair, SEED) for pair in self._stratified(places["train"])]
        _, accuracy = self._fit(folds, np.tile(grid, (len(folds), 1)))
        means = np.round(100 * accuracy.mean(axis=0), 2)
        chosen = grid[means.argmax()]
        scores = {"accuracy": means.max(), "dev_accuracy": means.max()}
        if "test" in places:
            weights, _ = self._fit([self._final(places["train"])], np.array([[chosen]]))
            scores |= self._test(places["test"], weights[0, 0])
        return {**_plain(scores), "chosen": float(chosen)}

    def split(self, places: dict[str, np.ndarray]) -> dict[str, Any]:
        for split, rows in places.items():
            self._check_classes(rows, 1, f"the {split} split")
        grid = _grid(self.transfer.mode, self.name)
        weights, accuracy = self._fit([Fold.split(places["train"], places["dev"], SEED)], grid[None])
        means = np.round(100 * accuracy[0], 2)
        best = means.argmax()
        scores = {"accuracy": means[best], "dev_accuracy": means[best]}
        if "test" in places:  # SentEval trains again with the same seed and rows, which gives the same weights
            scores |= self._test(places["test"], weights[0, best])
        return {**_plain(scores), "chosen": float(grid[best])}

    def _fit(self, folds: list[Fold], grid: np.ndarray) -> tuple[Tensor, np.ndarray]:
        if self.transfer.mode == "fast":
            return solve(self.rows, self.labels, self.classes, folds, grid, title=self.name)
        places = torch.as_tensor(self.labels, device=self.rows.device)
        targets = torch.nn.functional.one_hot(places, self.classes).to(self.rows)
        training = self.transfer.training(self.name)
        return train(self.rows, targets, folds, grid, training, SEED, title=self.name)

    def _final(self, rows: np.ndarray) -> Fold:
        """The fold that the chosen classifier is trained on."""
        if self.transfer.mode == "fast":
            return Fold.split(rows, rows, SEED)
        return Fold.held_out(rows, _HELD_OUT, SEED)

    def _test(self, rows: np.ndarray, weights: Tensor) -> dict[str, Any]:
        from sklearn.metrics import f1_score

        found = predict(self.rows[rows], weights)
        scores = {"accuracy": round(100 * (found == self.labels[rows]).mean(), 2)}
        if self.name == "MRPC":
            scores["f1"] = round(100 * f1_score(self.labels[rows], found, zero_division=0), 2)
        return scores

    def _stratified(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The train and dev rows of each fold."""
        from sklearn.model_selection import StratifiedKFold

        count = self.transfer.folds
        self._check_classes(rows, count, f"one of {count} folds")
        splitter = StratifiedKFold(n_splits=count, shuffle=True, random_state=SEED)
        return [(rows[train_], rows[dev]) for train_, dev in splitter.split(rows, self.labels[rows])]

    def _check_classes(self, rows: np.ndarray, least: int, where: str) -> None:
        counts = np.bincount(self.labels[rows], minlength=self.classes)
        if counts.min() < least:
            rarest = int(counts.argmin())
            label = self.transfer.labels[self.name][rarest] if self.name in self.transfer.labels else rarest
            raise InputError(
                f"{self.name}: class {label!r} has {counts.min()} of {len(rows):,} texts, so {where} would "
                f"have no text of this class, and the score would be meaningless."
            )


def _grid(mode: str, name: str, *, folds_of_train: bool = False) -> np.ndarray:
    """The strengths of regularisation to try: weight decays for "senteval", values of C for "fast"."""
    if name == "SNLI":
        return _SNLI_WEIGHT_DECAYS if mode == "senteval" else _SNLI_STRENGTHS
    if mode == "senteval":
        return _WEIGHT_DECAYS
    return STRENGTHS_OF_FOLDS if folds_of_train else STRENGTHS


def _features(
    name: str, splits: dict[str, Examples], encoder: Any, folder: Path | None, encode_arguments: dict[str, Any]
) -> np.ndarray:
    """One row for each example of all splits: its embedding or, for a pair, |u − v| and u · v.

    On SNLI a pair is u, v, u · v and |u − v|.
    """
    first = [text for examples in splits.values() for text in examples.first]
    second = [text for examples in splits.values() for text in examples.second]
    rows, row_of = embed(encoder, (*first, *second), folder, **encode_arguments)
    for split, examples in splits.items():
        places = [row_of[text] for text in dict.fromkeys((*examples.first, *examples.second))]
        found = rows[places]
        if len(places) > 1 and np.ptp(found, axis=0).max() <= 1e-6 * np.abs(found).max():
            where = name if split == "all" else f"{name}, {split}"
            raise InputError(
                f"The encoder returns the same embedding for all {len(places):,} texts of {where}: it has collapsed, "
                f"and no classifier can distinguish the texts."
            )
    left = rows[[row_of[text] for text in first]]
    if not second:
        return left
    right = rows[[row_of[text] for text in second]]
    if name == "SNLI":
        return np.concatenate([left, right, left * right, np.abs(left - right)], axis=1)
    return np.concatenate([np.abs(left - right), left * right], axis=1)


def _regress(name: str, rows: Tensor, scores: np.ndarray, places: dict[str, np.ndarray]) -> dict[str, Any]:
    """SentEval's regressor (Tai et al. 2015, section 4.2): a score is the mean of a distribution over five classes."""
    from scipy.stats import pearsonr, spearmanr

    floor = np.floor(scores).astype(int)
    targets = np.zeros((len(scores), 7))
    targets[np.arange(len(scores)), floor] = 1 - (scores - floor)
    targets[np.arange(len(scores)), floor + 1] = scores - floor
    # STS-B has scores below 1; SentEval drops the share that belongs to class 0
    distribution = torch.as_tensor(targets[:, 1:6]).to(rows)
    fold = Fold.split(places["train"], places["dev"], SEED)
    weights, best = train(rows, distribution, [fold], np.zeros((1, 1)), _REGRESSION, SEED, gold=scores, title=name)
    scored = places["test" if "test" in places else "dev"]
    found = expected_class(rows[scored] @ weights[0, 0].T)
    constant = np.ptp(found) == 0
    if constant:
        logger.warning("All predictions on %s are equal: the correlation is undefined and counts as 0.", name)
    return _plain(
        {
            "pearson": 0.0 if constant else 100 * pearsonr(found, scores[scored]).statistic,
            "spearman": 0.0 if constant else 100 * spearmanr(found, scores[scored]).statistic,
            "dev_pearson": 100 * best[0, 0],
        }
    )


def _plain(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}
