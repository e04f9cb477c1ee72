"""Marks results on evaluation texts that were in the training corpus.

A score on texts that were trained on is transductive: it says how well the encoder works on these texts, not how well
it works on new ones. `textcl.data.overlap` counts the texts. A subset of pairs is marked by its pairs. SCCL trains on
the texts that it clusters by design; for clustering sets only texts are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from textcl.data.clustering import CLUSTERING_SETS
from textcl.data.overlap import CHECKED, TRANSFER, Counts, is_transductive, read_overlap
from textcl.evaluation.results import Result, unnumbered


def recorded_overlap(encoder: Any) -> Counts | None:
    """The counts in the directory of an encoder, see `textcl.data.overlap.read_overlap`.

    Args:
        encoder: Any object; only an `Encoder` that was loaded from a directory has counts.
    """
    return read_overlap(getattr(encoder, "source", None))


def transductive_tasks(counts: Counts, tasks: Iterable[str]) -> set[str]:
    """Those of these STS tasks with a subset that `mark_transductive` marks."""
    return {task for task in tasks if any(map(is_transductive, counts.get(task, {}).values()))}


def mark_transductive(result: Result, counts: Counts | None) -> Result:
    """A copy of `result` with the counts that `overlap` found; the result itself if there are none (None).

    Every checked subset gets its counts under `overlap`. A subset and its task are marked `transductive` if at least
    `TRANSDUCTIVE_SHARE` of the subset's pairs have a side in the training corpus. A clustering task is marked by its
    texts. A transfer task is marked by the texts or pairs of the split that is evaluated, not of the split that its
    classifier is trained on. The counts of all splits are also in the provenance. Its entry `not_counted` names the
    tasks whose texts were not counted, because their set was not installed: there a mark may be missing.
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
    provenance = {**result.provenance, "overlap": deepcopy(checked)}
    if missing := sorted(task for task in marked if unnumbered(task) in CHECKED and unnumbered(task) not in counts):
        provenance["not_counted"] = missing
    return Result(marked, dict(result.average), provenance)
