"""Readers of SentEval's transfer and probing tasks: texts or pairs of texts, each with a class or a score."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textcl.data.catalogue import check_count, data_directory, load_manifest, require
from textcl.data.formats import read_lines
from textcl.data.sts import SICK_FILES, STSB_FILES, normalise_space
from textcl.errors import InputError, nearest

TRANSFER_TASKS = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")  # the seven tasks that papers average
PROBING_TASKS = {
    "Length": "sentence_length.txt",
    "WordContent": "word_content.txt",
    "Depth": "tree_depth.txt",
    "TopConstituents": "top_constituents.txt",
    "BigramShift": "bigram_shift.txt",
    "Tense": "past_present.txt",
    "SubjNumber": "subj_number.txt",
    "ObjNumber": "obj_number.txt",
    "OddManOut": "odd_man_out.txt",
    "CoordinationInversion": "coordination_inversion.txt",
}
REGRESSIONS = ("SICKRelatedness-regression", "STSBenchmark-regression")
CLASSIFICATIONS = (*TRANSFER_TASKS, "SST5", "SICKEntailment", "SNLI", *PROBING_TASKS)

_TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
_ENTAILMENT = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
_SNLI = ("entailment", "neutral", "contradiction")
_SST = {"train": "sentiment-train", "dev": "sentiment-dev", "test": "sentiment-test"}
_PROBING_SPLITS = {"tr": "train", "va": "dev", "te": "test"}


@dataclass(frozen=True)
class Examples:
    """Texts with their labels, in SentEval's order, because SentEval's folds depend on it.

    Attributes:
        first: The texts, or the first text of each pair.
        second: The second text of each pair; empty for single texts.
        labels: For each text or pair its class, an integer from 0, or its score.
    """

    first: list[str]
    second: list[str]
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def ordered(cls, rows: Sequence[tuple[str, ...]], labels: Sequence[Any]) -> Examples:
        """Sorts by number of words (of the first text, then of the second), then by label. The sort is stable."""
        lengths = [[len(text.split()) for text in row] for row in rows]
        order = sorted(range(len(rows)), key=lambda i: (lengths[i], labels[i]))
        second = [rows[i][1] for i in order] if rows and len(rows[0]) == 2 else []
        return cls([rows[i][0] for i in order], second, [labels[i] for i in order])


def read_transfer(task: str, directory: str | Path | None = None) -> dict[str, Examples]:
    """Reads one of `CLASSIFICATIONS` or `REGRESSIONS`, with normalised white space, in SentEval's order.

    Args:
        task: The name of the task.
        directory: The data directory; default: `data_directory()`.

    Returns:
        The examples of each split: "all" (MR, CR, SUBJ, MPQA), "train" and "test" (TREC, MRPC), or "train", "dev" and
        "test" (the others).

    Raises:
        InputError: The task is unknown, a file is missing, a line is malformed, or the number of texts is wrong.

    Example:
        >>> read_transfer("TREC")["test"].labels[:3]  # doctest: +SKIP
    """
    known = (*CLASSIFICATIONS, *REGRESSIONS)
    if task not in known:
        raise InputError(f"There is no transfer task '{task}'; there are {', '.join(known)}.{nearest(task, known)}")
    root = Path(directory) if directory is not None else data_directory()
    if task in PROBING_TASKS:
        return _read_probing(require("Probing", PROBING_TASKS[task], root))
    if task == "SNLI":
        return {split: _read_snli(split, root) for split in ("train", "dev", "test")}
    if task in ("MR", "CR", "SUBJ", "MPQA"):
        # SentEval's order: the file of class 1 comes first (for SUBJ, the objective sentences)
        one, zero = (file["name"] for file in load_manifest()["sets"][task]["files"])
        texts = [(name, text) for name in (one, zero) for (text,), _ in _rows(task, name, root, _text, "latin-1")]
        labels = [int(name == one) for name, _ in texts]
        return {"all": Examples.ordered([(text,) for _, text in texts], labels)}
    mrpc = _pair(3, 4, 0, ("0", "1").index)
    name, files, cells, encoding = {
        "SST2": ("SST2", _SST, _sst2, "utf-8"),
        "SST5": ("SST5", _SST, _sst5, "utf-8"),
        "TREC": ("TREC", {"train": "train_5500.label", "test": "TREC_10.label"}, _trec, "latin-1"),
        "MRPC": ("MRPC", {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}, mrpc, "utf-8"),
        "SICKEntailment": ("SICK", SICK_FILES, _pair(1, 2, 4, _ENTAILMENT.index), "utf-8"),
        "SICKRelatedness-regression": ("SICK", SICK_FILES, _pair(1, 2, 3, float), "utf-8"),
        "STSBenchmark-regression": ("STSBenchmark", STSB_FILES, _pair(5, 6, 4, float), "utf-8"),
    }[task]
    splits = {split: list(_rows(name, file, root, cells, encoding)) for split, file in files.items()}
    return {
        split: Examples.ordered([texts for texts, _ in rows], [y for _, y in rows]) for split, rows in splits.items()
    }


def hash_examples(splits: dict[str, Examples]) -> str:
    """SHA-256 of the splits' names, texts and labels, in the order in which they are evaluated."""
    digest = hashlib.sha256()
    for name, examples in splits.items():
        digest.update(f"{name}\n".encode())
        for text in (*examples.first, *examples.second):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
        digest.update(repr(examples.labels).encode())
    return digest.hexdigest()


Row = tuple[tuple[str, ...], Any]


def _rows(name: str, file: str, root: Path, parse: Callable[[str], Row], encoding: str) -> Iterator[Row]:
    """Yields the rows of one file. If `parse` fails, the error message names the line."""
    path = require(name, file, root)
    entry = next(entry for entry in load_manifest()["sets"][name]["files"] if entry["name"] == file)
    count = 0
    for number, line in read_lines(path, encoding):
        if entry.get("header") and number == 1:
            continue
        try:
            texts, label = parse(line)
        except (ValueError, IndexError):
            raise InputError(f"{path}, line {number}: this is not a valid line of {name}: '{line[:80]}'.") from None
        count += 1
        yield tuple(map(normalise_space, texts)), label
    check_count(name, path, count, "texts")


def _text(line: str) -> Row:
    return (line,), None


def _sst2(line: str) -> Row:
    text, label = line.strip().split("\t")
    return (text,), ("0", "1").index(label)


def _sst5(line: str) -> Row:
    label, text = line.strip().split(" ", 1)
    return (text,), ("0", "1", "2", "3", "4").index(label)


def _trec(line: str) -> Row:
    label, question = line.split(":", 1)
    return (question.split(" ", 1)[1],), _TREC_CLASSES.index(label)  # the word before the space is the fine class


def _pair(first: int, second: int, label: int, read: Callable[[str], Any]) -> Callable[[str], Row]:
    """Parses a line of cells: two texts and a label, at these places."""

    def parse(line: str) -> Row:
        cells = line.strip().split("\t")
        return (cells[first], cells[second]), read(cells[label])

    return parse


def _read_snli(split: str, root: Path) -> Examples:
    """One split of SNLI: its files of first sentences, second sentences and classes have a line for each pair.

    As in SentEval, pairs are sorted by the words of the second sentence, then of the first, then by the name of the
    class.
    """
    parts = [(f"{part}.{split}", parse) for part, parse in (("s1", _text), ("s2", _text), ("labels", _snli_class))]
    first, second, labels = (list(_rows("SNLI", file, root, parse, "latin-1")) for file, parse in parts)
    if not len(first) == len(second) == len(labels):
        files = ", ".join(file for file, _ in parts)
        raise InputError(
            f"{root / 'SNLI'}: {files} have {len(first):,}, {len(second):,} and {len(labels):,} lines, but each needs "
            f"one line for each pair. Get them again with `textcl data import FILE`."
        )
    pairs = [(*one, *two, label) for (one, _), (two, _), (_, label) in zip(first, second, labels, strict=True)]
    pairs.sort(key=lambda pair: (len(pair[1].split()), len(pair[0].split()), _SNLI[pair[2]]))
    return Examples([one for one, _, _ in pairs], [two for _, two, _ in pairs], [label for _, _, label in pairs])


def _snli_class(line: str) -> Row:
    return (), _SNLI.index(line.strip())


def _read_probing(path: Path) -> dict[str, Examples]:
    """Reads lines of three cells: tr, va or te; class; sentence. Classes are numbered in the order of their names."""
    rows: dict[str, list[tuple[str, str]]] = {split: [] for split in _PROBING_SPLITS.values()}
    for number, line in read_lines(path):
        cells = line.rstrip().split("\t")
        if len(cells) < 3 or cells[0] not in _PROBING_SPLITS:
            raise InputError(
                f"{path}, line {number}: the line must have three cells: tr, va or te; a class; a sentence."
            )
        rows[_PROBING_SPLITS[cells[0]]].append((normalise_space(cells[-1]), cells[1]))
    classes = {label: number for number, label in enumerate(sorted({label for _, label in rows["train"]}))}
    unknown = {label for split in rows.values() for _, label in split} - set(classes)
    if unknown:
        raise InputError(f"{path}: the class '{min(unknown)}' occurs in no training sentence.")
    return {
        split: Examples.ordered([(text,) for text, _ in pairs], [classes[label] for _, label in pairs])
        for split, pairs in rows.items()
    }
