"""How many evaluation texts are in a training corpus: what an encoder's directory says in its overlap.json.

`textcl.evaluation.transductive` marks the results by these counts. For example, the WordNet glosses contain one side of
nearly every pair of STS OnWN and FNWN, but only half of their texts. Therefore pairs are counted as well as texts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast
from unicodedata import normalize

from textcl.data.catalogue import data_directory
from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.data.sts import STS_TASKS, read_sts
from textcl.data.transfer import CLASSIFICATIONS, PROBING_TASKS, REGRESSIONS, read_transfer
from textcl.errors import InputError
from textcl.files import read_json, write_json
from textcl.texts import each_text, names_in

OVERLAP_JSON = "overlap.json"
TRANSDUCTIVE_SHARE = 0.01  # of pairs or texts; a few common sentences such as "he said ." should not mark a task
SPLITS = (*STS_TASKS, "STSBenchmark-dev", "SICKRelatedness-dev")
TRANSFER = (*CLASSIFICATIONS, *REGRESSIONS)
# Without the probing tasks and SNLI, which have over a million texts each: they are counted only if they are named.
CHECKED = (*SPLITS, *CLUSTERING_SETS, *(task for task in TRANSFER if task not in (*PROBING_TASKS, "SNLI")))
Counts = dict[str, dict[str, dict[str, int]]]
_SEPARATORS = re.compile(r"[\W_]+")


def fingerprint(text: str) -> str:
    """Only the letters and digits of a text, lower-cased; a letter with its accent is one character.

    So "Don't, U.S.!" and its tokenised form "don 't , u.s. !" count as the same text. A text of only punctuation gives
    an empty string.
    """
    return _SEPARATORS.sub("", normalize("NFC", text.casefold()))


def overlap(
    corpus_texts: Iterable[str],
    tasks: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Counts:
    """Counts the distinct evaluation texts that occur in a training corpus; texts are compared by `fingerprint`.

    Only the evaluation texts are in memory; the corpus is read one text at a time and may have any size. Pass the texts
    of all columns that are trained on: texts, positives and negatives.

    Args:
        corpus_texts: The training texts.
        tasks: Names from `STS_TASKS` (also with "-dev"), from `CLUSTERING_SETS`, and of transfer tasks; default: all
            installed ones, test and dev, without SNLI and the probing tasks.
        data_dir: The data directory; default: `textcl.data.data_directory()`.

    Returns:
        For each task and subset `{"found": distinct texts in the corpus, "total": distinct texts, "pairs_found": pairs
        with at least one side in the corpus, "pairs": pairs}`; without the last two if there are no pairs. A clustering
        set has one subset, "all"; the subsets of a transfer task are its splits.

    Example:
        >>> overlap(dataset["text"])["STS13"]["OnWN"]  # doctest: +SKIP
        {'found': 447, 'total': 853, 'pairs_found': 560, 'pairs': 561}
    """
    directory = Path(data_dir) if data_dir is not None else data_directory()
    pairs: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for task in CHECKED if tasks is None else names_in(tasks):
        name, _, split = task.partition("-")
        try:
            if task in CLUSTERING_SETS:
                pairs[task, "all"] = [(fingerprint(text),) for text in load_clustering(task, directory)[0]]
                continue
            if task in TRANSFER:
                for part, examples in read_transfer(task, directory).items():
                    sides = (examples.first, examples.second) if examples.second else (examples.first,)
                    pairs[task, part] = [tuple(map(fingerprint, texts)) for texts in zip(*sides, strict=True)]
                continue
            subsets = read_sts(name, directory, split or "test")
        except InputError:
            if tasks is not None:
                raise
            continue  # a task that is not installed cannot be evaluated here
        for subset in subsets:
            pairs[task.removesuffix("-test"), subset.name] = [
                (fingerprint(first), fingerprint(second))
                for first, second in zip(subset.first, subset.second, strict=True)
            ]
    sought = {mark for marks in pairs.values() for pair in marks for mark in pair} - {""}
    found = {mark for text in each_text(corpus_texts) if (mark := fingerprint(text)) in sought} if sought else set()
    counts: Counts = {}
    for (task, subset_name), marks in pairs.items():
        distinct = {mark for pair in marks for mark in pair} - {""}
        count = {"found": len(distinct & found), "total": len(distinct)}
        if marks and len(marks[0]) == 2:
            count |= {"pairs_found": sum(not found.isdisjoint(pair) for pair in marks), "pairs": len(marks)}
        counts.setdefault(task, {})[subset_name] = count
    return counts


def with_earlier(counts: Counts, earlier: Counts | None) -> Counts:
    """The counts of a corpus and of those that an encoder was trained on before: the larger ones of each subset.

    Args:
        counts: What `overlap` found in the corpus.
        earlier: The counts that the encoder's directory had, see `read_overlap`.
    """
    joined = deepcopy(counts)
    for task, subsets in (earlier or {}).items():
        for name, count in subsets.items():
            now = joined.setdefault(task, {}).setdefault(name, count)
            joined[task][name] = max(now, count, key=lambda each: each.get("pairs_found", each["found"]))
    return joined


def read_overlap(folder: Path | None) -> Counts | None:
    """The counts of `overlap` that the directory of an encoder keeps in `overlap.json`; None if it has no such file.

    Args:
        folder: The directory; None: the encoder was not loaded from one.

    Raises:
        InputError: The file cannot be read, or does not hold counts.
    """
    if folder is None or not (file := folder / OVERLAP_JSON).is_file():
        return None
    counts = read_json(file)
    try:
        for task in counts.values():
            for count in task.values():
                is_transductive(count)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is damaged: it must hold counts for each task and subset. Remove it to go on without marks."
        ) from error
    return cast(Counts, counts)


def write_overlap(folder: Path, texts: Iterable[str], earlier: Counts | None) -> Counts:
    """Counts the evaluation texts among those that an encoder learnt from, and keeps the counts in its directory.

    Args:
        folder: The directory of the encoder that learnt.
        texts: All texts that it learnt from.
        earlier: The counts of the encoder that it started from or learnt from, see `read_overlap`.

    Returns:
        The larger counts of each subset.
    """
    counts = with_earlier(overlap(texts), earlier)
    write_json(folder / OVERLAP_JSON, counts)
    return counts


def is_transductive(count: dict[str, int]) -> bool:
    """Whether the share found is at least `TRANSDUCTIVE_SHARE`: of pairs if there are pairs, else of texts."""
    found, total = ("pairs_found", "pairs") if "pairs" in count else ("found", "total")
    return count[found] >= TRANSDUCTIVE_SHARE * count[total] > 0
