"""The scores of vectors of several sizes, as a table and as a curve."""

from collections.abc import Sequence

from textcl.evaluation.kinds import KINDS
from textcl.evaluation.sizes import Size
from textcl.report.plots import Plot, curves_by_size
from textcl.report.tables import table


def sizes_table(sizes: Sequence[Size]) -> str:
    """A row for each size: dimensions, how they are stored, bytes, and the main score of each kind of task."""
    kinds = [kind for kind in KINDS.values() if kind.average in sizes[0].result.average]
    header = ["dimensions", "stored as", "bytes", *(f"{kind.title} {kind.figure}" for kind in kinds)]
    rows = [
        [size.dimensions, size.name, size.bytes, *(f"{size.result.average[kind.average]:.2f}" for kind in kinds)]
        for size in sizes
    ]
    return table(header, rows)


def sizes_plot(sizes: Sequence[Size]) -> Plot:
    """The score by the bytes of a vector, with a line for each way of storing; a point for each number of dimensions.

    The score is `Result.primary`.
    """
    kind = next(kind for kind in KINDS.values() if kind.average in sizes[0].result.average)
    lines: dict[str, list[tuple[int, int, float]]] = {}
    for size in sizes:
        lines.setdefault(size.name, []).append((size.dimensions, size.bytes, size.result.primary))
    return curves_by_size(lines, f"{kind.title} {kind.figure}")
