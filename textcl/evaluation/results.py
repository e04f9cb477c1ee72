"""The result of an evaluator: scores, with the convention and the provenance that make them comparable."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from textcl.evaluation.kinds import FINETUNE, KINDS, TaskKind
from textcl.files import write_json

_METRICS = {"f1": "F1", "matthews": "Matthews", "pearson": "Pearson", "spearman": "Spearman"}
_SHORT_NAMES = {"STSBenchmark": "STS-B", "SICKRelatedness": "SICK-R", "SICKEntailment": "SICK-E"}


@dataclass
class Result:
    """The scores of one encoder.

    Attributes:
        results: For each task a dictionary with its `kind` (see `textcl.evaluation.kinds`) and its scores, all × 100
            except those of geometry.

            - STS: `all`, `mean` and `wmean` (Spearman correlation), the same three under `pearson`, and `subsets` with
              the scores of each subset. "all" is one correlation over the joined subsets, "mean" the mean over subsets,
              "wmean" the mean weighted by the number of pairs.
            - Clustering: `accuracy`, `nmi` and `ari`, which are means over seeds, and `by_seed` with the single values.
            - Transfer: `accuracy`, `dev_accuracy`, `f1` for MRPC, `by_fold` if there are outer folds, and the `chosen`
              regularisation.
            - Regression: `pearson`, `spearman` and `dev_pearson`.
            - Retrieval and geometry: the metrics of `Retrieval` and `Geometry`.
            - Fine-tuning: `score`, the mean and standard deviation of each metric `over_seeds`, `by_seed`, the `chosen`
              rate, and the `labels` and `predictions` of all examples.
        average: The means over tasks: for STS those of each aggregation, for clustering those of each metric;
            `transfer` and `transfer_dev` for the accuracies of transfer tasks, `regression_pearson` and
            `regression_spearman` for regressions; `finetune` for fine-tuned tasks; for retrieval and geometry their
            metrics.
        provenance: Tasks with split, number of pairs and data hash; aggregation; encoder (pooling, layers, maximal
            length, data type); library versions; seed; overlap with the training corpus if it was checked.
        items: What the primary score was computed from, one entry for each pair or query, such as the cosines of STS
            pairs; None if the evaluator has no bootstrap. It is not saved.
    """

    results: dict[str, dict[str, Any]]
    average: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)
    items: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def primary(self) -> float:
        """The one number to select by: the average Spearman correlation, aggregation "all", of the STS tasks.

        Without STS tasks it is the first of these that the result has: the average accuracy of clustering, the average
        accuracy of transfer tasks, the average Pearson correlation of regressions, nDCG@10, the average score of
        fine-tuning, the effective rank.
        """
        return next(self.average[kind.average] for kind in KINDS.values() if kind.average in self.average)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {"results": self.results, "average": self.average, "provenance": self.provenance}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `to_dict()` as JSON, atomically."""
        write_json(path, self.to_dict())
        return Path(path)

    def table(self) -> str:
        """A plain-text table: one column per task and one for their average, one row per aggregation or metric.

        Of a task with *, at least 1 % of the pairs or texts of a subset were in the training corpus; lines below the
        table say how many.
        """
        blocks = [self._block(kind) for kind in KINDS.values() if kind.average in self.average]
        lines = ["\n\n".join("\n".join(block) for block in blocks)]
        lines += [f"{short_name(task)}: F1 {entry['f1']:.2f}" for task, entry in self.results.items() if "f1" in entry]
        lines += [_finetuned(task, entry) for task, entry in self.results.items() if FINETUNE.has(entry)]
        for task, entry in self.results.items():
            for name, part in entry.get("subsets", {"": entry}).items():
                if not part.get("transductive"):
                    continue
                count, title = part["overlap"], f"* {short_name(task)} {name}".rstrip()
                if "pairs" in count:
                    found, total = count["pairs_found"], count["pairs"]
                    lines.append(
                        f"{title}: {found:,} of {total:,} pairs ({100 * found / total:.1f} %) have a text that was in "
                        f"the training corpus (transductive)"
                    )
                else:
                    lines.append(
                        f"{title}: {count['found']:,} of {count['total']:,} distinct texts were in the training corpus "
                        f"(transductive)"
                    )
        if missing := self.provenance.get("not_counted"):
            names = ", ".join(map(short_name, missing))
            lines.append(f"Not compared with the training corpus, so a * may be missing: {names}.")
        return "\n".join(lines)

    def _block(self, kind: TaskKind) -> list[str]:
        title, rows = kind.title, kind.rows
        tasks = {task: entry for task, entry in self.results.items() if kind.has(entry)}
        names = [short_name(task) + "*" * bool(entry.get("transductive")) for task, entry in tasks.items()] + ["Avg."]
        widths = [max(len(name), 6) for name in names]
        left = max(map(len, (title, *rows))) + 2
        lines = [title.ljust(left) + "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
        for row, average in rows.items():
            values = [entry[row] for entry in tasks.values()] + [self.average[average]]
            cells = (f"{value:.2f}".rjust(width) for value, width in zip(values, widths, strict=True))
            lines.append(row.ljust(left) + "  ".join(cells))
        return lines


def _finetuned(task: str, entry: Mapping[str, Any]) -> str:
    """A line with the metrics of a fine-tuned task, over seeds, and the rate."""
    parts = [
        f"{_METRICS.get(name, name)} {each['mean']:.2f}" + ("" if each["sd"] is None else f" ± {each['sd']:.2f}")
        for name, each in entry["over_seeds"].items()
        if name != "score"
    ]
    seeds = len(entry["by_seed"])
    over = f"mean ± sd of {seeds} seeds" if seeds > 1 else "one seed"
    return f"{short_name(task)}: {', '.join(parts)} ({over}; rate {entry['chosen']['rate']:g})"


def averages(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The means over the tasks of each kind, for all kinds of task in `results`."""
    found: dict[str, float] = {}
    for kind in KINDS.values():
        if entries := [entry for entry in results.values() if kind.has(entry)]:
            found |= {name: float(np.mean([entry[row] for entry in entries])) for row, name in kind.rows.items()}
    return found


def join(results: Sequence[Result]) -> Result:
    """One result with all tasks of several results of the same encoder, and the averages over all of them.

    Of tasks with equal names the second and later get a number: "pairs", "pairs-2". If the provenance of a later
    result says something else than that of an earlier one, it is kept with each task of the later result.
    """
    if len(results) == 1:
        return results[0]
    names = iter(numbered([task for result in results for task in result.results]))
    joined: dict[str, dict[str, Any]] = {}
    own_averages: list[tuple[str, float]] = []  # of own evaluators, whose tasks are of no kind that is known here
    provenance: dict[str, Any] = {"tasks": {}}
    for result in results:
        renamed = {task: next(names) for task in result.results}
        joined |= {renamed[task]: entry for task, entry in result.results.items()}
        of_kinds = averages(result.results)
        own_averages += [(name, value) for name, value in result.average.items() if name not in of_kinds]
        facts = {key: value for key, value in result.provenance.items() if key not in ("tasks", "undefined")}
        differing = {key: value for key, value in facts.items() if provenance.setdefault(key, value) != value}
        tasks = result.provenance.get("tasks", {})
        provenance["tasks"] |= {name: {**tasks.get(task, {}), **differing} for task, name in renamed.items()}
        if "undefined" in result.provenance:
            undefined = [_renamed(what, renamed) for what in result.provenance["undefined"]]
            provenance["undefined"] = [*provenance.get("undefined", ()), *undefined]
    unique = numbered([*(average := averages(joined)), *(name for name, _ in own_averages)])[len(average) :]
    average |= {name: value for name, (_, value) in zip(unique, own_averages, strict=True)}
    return Result(joined, average, provenance)


def numbered(names: Iterable[str]) -> list[str]:
    """The names; of equal ones the second and later get a number.

    Example:
        >>> numbered(["pairs", "stsb-dev", "pairs"])
        ['pairs', 'stsb-dev', 'pairs-2']
    """
    taken: dict[str, None] = {}
    for name in names:
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken[unique] = None
    return list(taken)


def _renamed(what: str, names: Mapping[str, str]) -> str:
    """A task, or a task and its subset, such as "STS12 MSRpar", with the task's new name."""
    task = max((task for task in names if f"{what} ".startswith(f"{task} ")), key=len, default="")
    return names.get(task, "") + what[len(task) :]


def unnumbered(task: str) -> str:
    """The name of a task without the number that `numbered` gave it."""
    return re.sub(r"-\d+$", "", task)


def short_name(task: str) -> str:
    """The name that papers use for a task: STS-B for STSBenchmark, SICK-R for SICKRelatedness."""
    name, dash, split = task.partition("-")
    return _SHORT_NAMES.get(name, name) + (f" {split}" if dash else "")


def measures(entry: Mapping[str, Any]) -> dict[str, float]:
    """The scores of a task's result by name. With one subset only "all", because all aggregations are then equal.

    Example:
        >>> measures({"all": 60.0, "mean": 60.0, "wmean": 60.0, "subsets": {"test": {}}})
        {'all': 60.0}
    """
    figures = {name: value for name, value in entry.items() if isinstance(value, float)}
    return {"all": figures["all"]} if len(entry.get("subsets", ())) == 1 else figures
