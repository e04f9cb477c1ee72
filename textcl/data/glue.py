"""Readers of tasks for fine-tuning: GLUE's folders of .tsv files, and SentEval's MRPC and SST2."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.formats import read_lines
from textcl.data.transfer import Examples, hash_examples, read_transfer
from textcl.errors import InputError, nearest

logger = logging.getLogger("textcl")

NAMED = ("mrpc", "sst2")  # of SentEval
SST2_EXAMPLES = 5000  # of the 67,349 to train on, unless another number is asked for
_INCOMPLETE = 0.01  # share of incomplete lines, as QQP has some, above which a file counts as damaged


@dataclass(frozen=True)
class FinetuneTask:
    """A task to fine-tune on.

    Attributes:
        name: The name of the task, such as "mrpc".
        metrics: The names of its metrics, see `textcl.evaluation.predictions.METRICS`.
        classes: The number of classes; 1 for a regression.
        train: The examples to train on.
        scored: The examples to score, by the name of the split, such as "dev".
    """

    name: str
    metrics: tuple[str, ...]
    classes: int
    train: Examples
    scored: dict[str, Examples]

    def limited(self, count: int, seed: int = 0) -> FinetuneTask:
        """The task with at most `count` random examples to train on, always the same ones for a seed."""
        if count >= len(self.train):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self.train))[:count]
        return replace(self, train=part(self.train, np.sort(chosen)))

    def data_sha256(self) -> str:
        """SHA-256 of the examples to train on and to score."""
        return hash_examples({"train": self.train, **self.scored})


@dataclass(frozen=True)
class _Layout:
    """The columns and classes of a task of GLUE: names in the header, or numbers in a file without a header."""

    metrics: tuple[str, ...]
    texts: tuple[str | int, ...]
    label: str | int
    classes: tuple[str, ...] = ("0", "1")  # empty: scores
    dev: tuple[str, ...] = ("dev",)


_ENTAILMENT = ("not_entailment", "entailment")
_PAIR = ("sentence1", "sentence2")
LAYOUTS = {
    "CoLA": _Layout(("matthews",), (3,), 1),
    "SST-2": _Layout(("accuracy",), ("sentence",), "label"),
    "MRPC": _Layout(("accuracy", "f1"), ("#1 String", "#2 String"), "Quality"),
    "STS-B": _Layout(("pearson", "spearman"), _PAIR, "score", ()),
    "QQP": _Layout(("accuracy", "f1"), ("question1", "question2"), "is_duplicate"),
    "MNLI": _Layout(
        ("accuracy",),
        _PAIR,
        "gold_label",
        ("contradiction", "neutral", "entailment"),
        ("dev_matched", "dev_mismatched"),
    ),
    "QNLI": _Layout(("accuracy",), ("question", "sentence"), "label", _ENTAILMENT),
    "RTE": _Layout(("accuracy",), _PAIR, "label", _ENTAILMENT),
}


def part(examples: Examples, rows: Any) -> Examples:
    """Some rows of examples, in the order given."""
    second = [examples.second[row] for row in rows] if examples.second else []
    return Examples([examples.first[row] for row in rows], second, [examples.labels[row] for row in rows])


def read_finetune(
    tasks: str | Sequence[str], data_dir: str | os.PathLike[str] | None = None, examples: int | None = None
) -> list[FinetuneTask]:
    """Reads tasks to fine-tune on.

    Args:
        tasks: As a list or with commas between them: "mrpc" and "sst2" are SentEval's sets; "glue:FOLDER" has all tasks
            that are folders of FOLDER, or the one task whose folder FOLDER is. The folders have the names and files of
            GLUE: CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI and RTE, each with train.tsv and dev.tsv (MNLI:
            dev_matched.tsv and dev_mismatched.tsv).
        data_dir: The data directory of SentEval's sets; default: `textcl.data.data_directory()`.
        examples: The largest number of examples to train on. Default: all, but 5,000 of SentEval's sst2.

    Raises:
        InputError: A task is unknown or given twice, a file is missing or malformed, or a class has no example.

    Example:
        >>> [task.name for task in read_finetune("mrpc,glue:GLUE/RTE")]  # doctest: +SKIP
        ['mrpc', 'rte']
    """
    read: list[FinetuneTask] = []
    for name in map(str.strip, tasks.split(",") if isinstance(tasks, str) else tasks):
        if name.startswith("glue:"):
            read += _glue(Path(name.removeprefix("glue:")).expanduser(), examples)
        elif name.lower() in NAMED:
            read.append(_senteval(name.lower(), data_dir, examples))
        else:
            raise InputError(
                f"There is no task '{name}' to fine-tune on; there are {', '.join(NAMED)} and glue:FOLDER."
                f"{nearest(name, NAMED)}"
            )
    names = [task.name for task in read]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"The task {twice[0]} was given twice to fine-tune on; give it once.")
    return read


def _senteval(name: str, data_dir: str | os.PathLike[str] | None, examples: int | None) -> FinetuneTask:
    splits = read_transfer(name.upper(), None if data_dir is None else Path(data_dir))
    if name == "mrpc":  # it has no dev split
        return _limited(FinetuneTask(name, ("accuracy", "f1"), 2, splits["train"], {"test": splits["test"]}), examples)
    task = FinetuneTask(name, ("accuracy",), 2, splits["train"], {"dev": splits["dev"]})
    return _limited(task, SST2_EXAMPLES if examples is None else examples)


def _glue(folder: Path, examples: int | None) -> list[FinetuneTask]:
    if folder.name in LAYOUTS and (folder / "train.tsv").is_file():
        names, folder = [folder.name], folder.parent
    else:
        names = [name for name in LAYOUTS if (folder / name / "train.tsv").is_file()]
    if not names:
        raise InputError(
            f"{folder} has no task of GLUE: it needs a folder {', '.join(LAYOUTS)} with train.tsv, or must be one."
        )
    return [_limited(_read_task(name, folder / name), examples) for name in names]


def _limited(task: FinetuneTask, examples: int | None) -> FinetuneTask:
    task = task if examples is None else task.limited(examples)
    for split, each in {"train": task.train, **task.scored}.items():
        if missing := set(range(task.classes)) - set(each.labels) if task.classes > 1 else ():
            raise InputError(f"{task.name}: the {split} split has no example of class {min(missing)}.")
        if task.classes == 1 and len(set(each.labels)) < 2:
            raise InputError(f"{task.name}: all scores of the {split} split are equal, so there is no correlation.")
    return task


def _read_task(name: str, folder: Path) -> FinetuneTask:
    layout = LAYOUTS[name]
    train, *scored = (_read_file(folder / f"{split}.tsv", layout) for split in ("train", *layout.dev))
    short = name.lower().replace("-", "")
    return FinetuneTask(
        short, layout.metrics, len(layout.classes) or 1, train, dict(zip(layout.dev, scored, strict=True))
    )


def _read_file(path: Path, layout: _Layout) -> Examples:
    """The examples of one file, without lines that have too few cells."""
    lines = read_lines(path)
    wanted = [*layout.texts, layout.label]
    if isinstance(layout.label, str):
        header = next(lines, (1, ""))[1].split("\t")
        if missing := [column for column in wanted if column not in header]:
            raise InputError(f"{path} has no column '{missing[0]}' in its first line; it is not a file of GLUE.")
        places = [header.index(str(column)) for column in wanted]
    else:
        places = [int(column) for column in wanted]
    rows: list[list[str]] = []
    short = 0
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) <= max(places):
            short += 1
            continue
        *texts, label = (cells[place].strip() for place in places)
        rows.append([*texts, _checked(label, layout, path, number)])
    if short > _INCOMPLETE * (len(rows) + short) or not rows:
        raise InputError(f"{path}: {short:,} of {len(rows) + short:,} lines have too few cells; it is damaged.")
    if short:
        logger.warning("%s: %s lines have too few cells and are left out.", path, short)
    numbers = [layout.classes.index(label) if layout.classes else float(label) for *_, label in rows]
    return Examples([row[0] for row in rows], [row[1] for row in rows] if len(layout.texts) == 2 else [], numbers)


def _checked(label: str, layout: _Layout, path: Path, number: int) -> str:
    try:
        if label in layout.classes or (not layout.classes and np.isfinite(float(label))):
            return label
    except ValueError:
        pass
    needed = f"one of {', '.join(layout.classes)}" if layout.classes else "a number"
    raise InputError(f"{path}, line {number}: the label is '{label[:40]}', but must be {needed}.")
