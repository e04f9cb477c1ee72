"""What an evaluator hands back: scores with the convention and provenance that make them comparable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textcl.files import write_json

AGGREGATIONS = ("all", "mean", "wmean")
_SHORT_NAMES = {"STSBenchmark": "STS-B", "SICKRelatedness": "SICK-R"}
_LIBRARIES = ("torch", "transformers", "sentence-transformers", "numpy", "scipy")


@dataclass
class Result:
    """Scores of one encoder.

    Attributes:
        results: For each task `all`, `mean` and `wmean` (Spearman correlation in points, ×100), the same three under
            `pearson`, and `subsets` with the figures of each. "all" is one correlation over the joined subsets, "mean"
            the mean over subsets, "wmean" the mean weighted with their number of pairs.
        average: The mean over the tasks, for each aggregation.
        provenance: Tasks with split, pairs and data hash; aggregation; encoder (pooling, layers, maximal length, data
            type); library versions; seed; overlap with the training corpus where it was checked.
    """

    results: dict[str, dict[str, Any]]
    average: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> float:
        """The one number to select on: the average Spearman correlation, aggregation "all"."""
        return self.average["all"]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {"results": self.results, "average": self.average, "provenance": self.provenance}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `to_dict()` as JSON, atomically."""
        write_json(path, self.to_dict())
        return Path(path)

    def table(self) -> str:
        """One column a task and their average, one row an aggregation, as plain text.

        A task marked with * has pairs whose text was in the training corpus; the lines below the table say how many.
        """
        marked = {task for task, entry in self.results.items() if entry.get("transductive")}
        names = [short_name(task) + ("*" if task in marked else "") for task in self.results] + ["Avg."]
        widths = [max(len(name), 6) for name in names]
        lines = ["Spearman  " + "  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
        for kind in AGGREGATIONS:
            values = [entry[kind] for entry in self.results.values()] + [self.average[kind]]
            cells = (f"{value:.2f}".rjust(width) for value, width in zip(values, widths, strict=True))
            lines.append(kind.ljust(8) + "  " + "  ".join(cells))
        for task in self.results:
            for name, subset in self.results[task]["subsets"].items():
                if subset.get("transductive"):
                    found, total = subset["overlap"]["pairs_found"], subset["overlap"]["pairs"]
                    lines.append(
                        f"* {short_name(task)} {name}: {found:,} of {total:,} pairs ({100 * found / total:.1f} %) "
                        f"have a text that was in the training corpus (transductive)"
                    )
        return "\n".join(lines)


def short_name(task: str) -> str:
    """The column head that papers use: STS-B for STSBenchmark, SICK-R for SICKRelatedness."""
    name, dash, split = task.partition("-")
    return _SHORT_NAMES.get(name, name) + (f" {split}" if dash else "")


def library_versions() -> dict[str, str]:
    """Versions of what takes part in a score."""
    import platform
    from importlib.metadata import version

    from textcl import __version__

    return {"textcl": __version__, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}
