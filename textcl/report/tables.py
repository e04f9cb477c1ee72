"""Plain tables that are Markdown as well."""

from collections.abc import Sequence
from statistics import fmean, stdev


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligns cells in columns, as a Markdown table. Columns of numbers are flush right.

    Example:
        >>> print(table(["row", "score"], [["SimCSE", "61.2"]]))
        | row    | score |
        |:-------|------:|
        | SimCSE |  61.2 |
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in [list(header), *cells])) for i in range(len(header))]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(f"{'-' * (w + 1)}:" if r else f":{'-' * (w + 1)}" for w, r in zip(widths, right, strict=True))
    return "\n".join([line(header), f"|{rule}|", *map(line, cells)])


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n - 1) of runs; a single value stands alone.

    Example:
        >>> mean_sd([60.0, 61.0, 62.0])
        '61.00 ± 1.00'
    """
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{fmean(values):.2f} ± {stdev(values):.2f}"


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-−" or not cell
