"""The result of an evaluator: scores, with the convention and the provenance that make them comparable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textcl.evaluation.kinds import KINDS, TaskKind, kind_of
from textcl.files import write_json

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
        average: The means over tasks: for STS those of each aggregation, for clustering those of each metric;
            `transfer` and `transfer_dev` for the accuracies of transfer tasks, `regression_pearson` and
            `regression_spearman` for regressions; for retrieval and geometry their metrics.
        provenance: Tasks with split, number of pairs and data hash; aggregation; encoder (pooling, layers, maximal
            length, data type); library versions; seed; overlap with the training corpus if it was checked.
    """

    results: dict[str, dict[str, Any]]
    average: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> float:
        """The one number to select by: the average Spearman correlation, aggregation "all", of the STS tasks.

        Without STS tasks it is the first of these that the result has: the average accuracy of clustering, the average
        accuracy of transfer tasks, the average Pearson correlation of regressions, nDCG@10, the effective rank.
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

        A task with * has texts that were in the training corpus; the lines below the table say how many.
        """
        blocks = [self._block(kind) for kind in KINDS.values() if kind.average in self.average]
        lines = ["\n\n".join("\n".join(block) for block in blocks)]
        if "f1" in self.results.get("MRPC", {}):
            lines.append(f"MRPC: F1 {self.results['MRPC']['f1']:.2f}")
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
        return "\n".join(lines)

    def _block(self, kind: TaskKind) -> list[str]:
        title, rows = kind.title, kind.rows
        tasks = {task: entry for task, entry in self.results.items() if kind_of(entry) is kind}
        names = [short_name(task) + "*" * bool(entry.get("transductive")) for task, entry in tasks.items()] + ["Avg."]
        widths = [max(len(name), 6) for name in names]
        left = max(map(len, (title, *rows))) + 2
        lines = [title.ljust(left) + "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
        for row, average in rows.items():
            values = [entry[row] for entry in tasks.values()] + [self.average[average]]
            cells = (f"{value:.2f}".rjust(width) for value, width in zip(values, widths, strict=True))
            lines.append(row.ljust(left) + "  ".join(cells))
        return lines


def merge(first: Result, second: Result) -> Result:
    """Joins two results of the same encoder on different kinds of tasks."""
    provenance = {**second.provenance, **first.provenance}
    provenance["tasks"] = {**first.provenance["tasks"], **second.provenance["tasks"]}
    return Result({**first.results, **second.results}, {**first.average, **second.average}, provenance)


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
