"""Readers of the STS sets in SentEval's layout: pairs of sentences with a human similarity score."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from textcl.data.catalogue import check_count, data_directory, load_manifest, require
from textcl.data.formats import read_lines
from textcl.errors import InputError, nearest

STS_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICKRelatedness")
STSB_FILES = {"train": "sts-train.csv", "dev": "sts-dev.csv", "test": "sts-test.csv"}
SICK_FILES = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
# only these two have splits; STS12 to STS16 are test sets
_SPLIT_FILES = {"STSBenchmark": ("STSBenchmark", STSB_FILES), "SICKRelatedness": ("SICK", SICK_FILES)}


@dataclass(frozen=True)
class Subset:
    """Scored sentence pairs of one source.

    Attributes:
        name: The name of the source, for example "MSRpar".
        first: The first sentence of each pair.
        second: The second sentence of each pair.
        scores: The human scores; higher means more similar.
    """

    name: str
    first: list[str]
    second: list[str]
    scores: list[float]

    def __len__(self) -> int:
        return len(self.scores)


def read_sts(task: str, directory: str | Path | None = None, split: str = "test") -> list[Subset]:
    """Reads one of `STS_TASKS`. As in SentEval, white space is normalised and pairs without a score are left out.

    STS13 lacks its SMT subset, which SentEval leaves out because of its licence. SICKRelatedness has SentEval's splits
    (test 4,927, dev 500), not the 9,927 pairs that MTEB uses.

    Args:
        task: "STS12" to "STS16", "STSBenchmark" or "SICKRelatedness".
        directory: The data directory; default: `data_directory()`.
        split: "test"; for STSBenchmark and SICKRelatedness also "dev" and "train".

    Raises:
        InputError: The task or split is unknown, a file is missing, a line is malformed, or the number of pairs is
            wrong.
    """
    root = Path(directory) if directory is not None else data_directory()
    if task not in STS_TASKS:
        raise InputError(f"There is no STS task '{task}'; there are {', '.join(STS_TASKS)}.{nearest(task, STS_TASKS)}")
    if task in _SPLIT_FILES:
        name, files = _SPLIT_FILES[task]
        if split not in files:
            raise InputError(f"{task} has no split '{split}'; it has {', '.join(files)}.")
        columns = (5, 6, 4) if task == "STSBenchmark" else (1, 2, 3)
        path = require(name, files[split], root)
        subset = _read_table(path, split, columns, header=task == "SICKRelatedness")
        check_count(name, path, len(subset), "scored pairs")
        return [subset]
    if split != "test":
        raise InputError(f"{task} has no split '{split}'; it has only test.")
    subsets = []
    for name in load_manifest()["sets"][task]["subsets"]:
        gold = require(task, f"STS.gs.{name}.txt", root)
        subset = _read_two_files(name, require(task, f"STS.input.{name}.txt", root), gold)
        check_count(task, gold, len(subset), "scored pairs")
        subsets.append(subset)
    return subsets


def hash_subsets(subsets: Sequence[Subset]) -> str:
    """SHA-256 of the subsets' names, texts and human scores, in the order in which they are evaluated."""
    digest = hashlib.sha256()
    for subset in subsets:
        digest.update(f"{subset.name}\n".encode())
        for first, second, score in zip(subset.first, subset.second, subset.scores, strict=True):
            digest.update(f"{first}\t{second}\t{score!r}\n".encode())
    return digest.hexdigest()


def parse_score(text: str, path: Path, number: int) -> float:
    """Converts `text` to a finite number.

    Raises:
        InputError: `text` is not a finite number; the message names file and line.
    """
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{path}, line {number}: the score '{text}' is not a number.")
    return score


def normalise_space(text: str) -> str:
    """The text with single spaces between words and none at its ends."""
    return " ".join(text.split())


def _read_two_files(name: str, texts: Path, gold: Path) -> Subset:
    pairs, scores = list(read_lines(texts)), list(read_lines(gold))
    if len(pairs) != len(scores):
        raise InputError(
            f"{texts} has {len(pairs):,} lines and {gold} has {len(scores):,}; they must have the same number."
        )
    subset = Subset(name, [], [], [])
    for (number, pair), (_, score) in zip(pairs, scores, strict=True):
        if score.strip():  # a pair without a score was not annotated
            cells = pair.split("\t")
            if len(cells) < 2:
                raise InputError(f"{texts}, line {number}: the line must be two sentences separated by a tab.")
            _append(subset, cells[0], cells[1], parse_score(score.strip(), gold, number))
    return subset


def _read_table(path: Path, name: str, columns: tuple[int, int, int], *, header: bool) -> Subset:
    subset = Subset(name, [], [], [])
    first, second, gold = columns
    for number, line in read_lines(path):
        if (header and number == 1) or not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) <= max(columns):
            raise InputError(f"{path}, line {number}: the line must have {max(columns) + 1} cells separated by tabs.")
        _append(subset, cells[first], cells[second], parse_score(cells[gold].strip(), path, number))
    return subset


def _append(subset: Subset, first: str, second: str, score: float) -> None:
    subset.first.append(normalise_space(first))
    subset.second.append(normalise_space(second))
    subset.scores.append(score)
