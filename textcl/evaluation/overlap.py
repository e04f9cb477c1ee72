"""How many of the evaluation texts were in the training corpus.

A score on texts that were trained on is transductive: it says how well the encoder works on these texts, not how well
it works on new ones. For example, the WordNet glosses contain one side of nearly every pair of STS OnWN and FNWN, but
only half of their texts. Therefore pairs are counted as well as texts, and a subset is marked by its pairs. SCCL trains
on the texts that it clusters by design; for clustering sets only texts are counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from textcl.data.catalogue import data_directory
from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.data.sts import STS_TASKS, read_sts
from textcl.data.transfer import CLASSIFICATIONS, PROBING_TASKS, REGRESSIONS, read_transfer
from textcl.errors import InputError
from textcl.evaluation.results import Result, unnumbered
from textcl.files import read_json
from textcl.texts import each_text, names_in

TRANSDUCTIVE_SHARE = 0.01  # of pairs or texts; a few common sentences such as "he said ." should not mark a task
SPLITS = (*STS_TASKS, "STSBenchmark-dev", "SICKRelatedness-dev")
TRANSFER = (*CLASSIFICATIONS, *REGRESSIONS)
# Without the probing tasks and SNLI, which have over a million texts each: they are counted only if they are named.
_CHECKED = (*SPLITS, *CLUSTERING_SETS, *(task for task in TRANSFER if task not in (*PROBING_TASKS, "SNLI")))
_SEPARATORS = re.compile(r"[\W_]+")


def fingerprint(text: str) -> str:
    """Only the letters and digits of a text, lower-cased.

    So "Don't, U.S.!" and its tokenised form "don 't , u.s. !" count as the same text. A text of only punctuation gives
    an empty string.
    """
    return _SEPARATORS.sub("", text.casefold())


def overlap(
    corpus_texts: Iterable[str],
    tasks: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, dict[str, dict[str, int]]]:
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
    for task in _CHECKED if tasks is None else names_in(tasks):
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
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (task, subset_name), marks in pairs.items():
        distinct = {mark for pair in marks for mark in pair} - {""}
        count = {"found": len(distinct & found), "total": len(distinct)}
        if marks and len(marks[0]) == 2:
            count |= {"pairs_found": sum(not found.isdisjoint(pair) for pair in marks), "pairs": len(marks)}
        counts.setdefault(task, {})[subset_name] = count
    return counts


Counts = dict[str, dict[str, dict[str, int]]]


def with_earlier(counts: Counts, earlier: Counts | None) -> Counts:
    """The counts of a corpus and of those that an encoder was trained on before: the larger ones of each subset.

    Args:
        counts: What `overlap` found in the corpus.
        earlier: The counts that the encoder's directory had, see `recorded_overlap`.
    """
    joined = deepcopy(counts)
    for task, subsets in (earlier or {}).items():
        for name, count in subsets.items():
            now = joined.setdefault(task, {}).setdefault(name, count)
            joined[task][name] = max(now, count, key=lambda each: each.get("pairs_found", each["found"]))
    return joined


def recorded_overlap(encoder: Any) -> Counts | None:
    """The counts of `overlap` that the directory of an encoder keeps in `overlap.json`; None if it has no such file.

    Args:
        encoder: Any object; only an `Encoder` that was loaded from a directory has counts.

    Raises:
        InputError: The file cannot be read, or does not hold counts.
    """
    source = getattr(encoder, "source", None)
    if source is None or not (file := Path(source) / "overlap.json").is_file():
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


def transductive_tasks(counts: Counts, tasks: Iterable[str]) -> set[str]:
    """Those of these STS tasks with a subset that `mark_transductive` marks."""
    return {task for task in tasks if any(map(is_transductive, counts.get(task, {}).values()))}


def mark_transductive(result: Result, counts: Counts | None) -> Result:
    """A copy of `result` with the counts that `overlap` found; the result itself if there are none (None).

    Every checked subset gets its counts under `overlap`. A subset and its task are marked `transductive` if at least
    `TRANSDUCTIVE_SHARE` of the subset's pairs have a side in the training corpus. A clustering task is marked by its
    texts. A transfer task is marked by the texts or pairs of the split that is evaluated, not of the split that its
    classifier is trained on. The counts of all splits are also in the provenance.
    """
    if counts is None:
        return result
    marked: dict[str, dict[str, Any]] = deepcopy(result.results)
    checked = {task: counts[unnumbered(task)] for task in marked if unnumbered(task) in counts}
    for task, subsets in checked.items():
        if unnumbered(task) in CLUSTERING_SETS or unnumbered(task) in TRANSFER:
            # a task keeps its own convention if it was joined with a result of another convention
            own = result.provenance.get("tasks", {}).get(task, {}).get("transfer")
            setting = (own or result.provenance.get("transfer", {})).get("setting", "test")
            # folds are taken from all texts or, with setting "dev" and no dev split, from the train split
            scored = next(split for split in ("all", setting, "dev", "train") if split in subsets)
            marked[task] |= {"overlap": dict(subsets[scored]), "transductive": is_transductive(subsets[scored])}
            continue
        for name, count in subsets.items():
            if name not in marked[task]["subsets"]:
                continue  # counted on another version of the set
            entry = marked[task]["subsets"][name]
            entry["overlap"] = dict(count)
            entry["transductive"] = is_transductive(count)
        marked[task]["transductive"] = any(entry.get("transductive") for entry in marked[task]["subsets"].values())
    return Result(marked, dict(result.average), {**result.provenance, "overlap": deepcopy(checked)})


def is_transductive(count: dict[str, int]) -> bool:
    """Whether the share found is at least `TRANSDUCTIVE_SHARE`: of pairs if there are pairs, else of texts."""
    found, total = ("pairs_found", "pairs") if "pairs" in count else ("found", "total")
    return count[found] >= TRANSDUCTIVE_SHARE * count[total] > 0
