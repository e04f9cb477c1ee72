"""The cells of `python -m benchmarks what-helps` as a table, as a page of the docs, and in the pages of the methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from textcl.errors import InputError
from textcl.files import atomic_write, read_results
from textcl.report.tables import table

FILE = "what-helps.jsonl"
MEASURES = {  # of each column: what is trained on, and what is measured
    "search": ("Cranfield", "nDCG@10"),
    "clusters": ("StackOverflow titles", "k-means accuracy"),
    "similarity": ("Wikipedia sentences", "STS-B test"),
    "bundled": ("Wikipedia sentences", "STS-B test of the bundled encoder"),  # the only one whose start is not tuned
}
TUNED = tuple(name for name in MEASURES if name != "bundled")
LABELS_SEEN = {("sccl", "clusters")}  # the authors chose the recipe with these labels: its score is marked
UNSEEDED = ("untouched", "bm25", "hybrid")  # nothing is drawn at random
BEGIN, END = "<!-- from what-helps.jsonl -->", "<!-- end -->"

Cells = dict[tuple[str, str], list[dict[str, Any]]]


def read_cells(path: Path, steps: int) -> Cells:
    """The cells of a file with this number of steps, by row and column, one for each seed."""
    found: Cells = {}
    for line in read_results(path):
        if line["steps"] == steps:
            found.setdefault((line["row"], line["column"]), []).append(line)
    return found


def difference(cells: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The mean difference to the untouched encoder over seeds, and half the width of its 95 % interval.

    The standard error has two parts, added in squares: over seeds, and over queries or pairs (bootstrap). Student's t
    widens the interval as far as the error rests on few seeds; its degrees of freedom are those of Satterthwaite 1946.
    Where the error cannot be measured (no bootstrap, and one seed or the same result for each), the width is NaN.
    """
    gains = np.array([each["gain"] for each in cells])
    parts = [gains.std(ddof=1) / np.sqrt(len(gains))] if len(gains) > 1 else []
    freedom = np.inf
    if all("error" in each for each in cells):
        parts.append(np.mean([each["error"] for each in cells]))
    error = float(np.linalg.norm(parts)) if parts else float("nan")
    if len(gains) > 1 and parts[0] > 0:
        freedom = (len(gains) - 1) * (error / parts[0]) ** 4
    return float(gains.mean()), error * float(student.ppf(0.975, freedom)) if error > 0 else float("nan")


def judged(cells: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The difference with its 95 % interval, and what it says: better, worse, no difference, or why there is none."""
    gain, width = difference(cells)
    if not any(each["gain"] for each in cells):  # the untouched encoder itself, or the same clusters
        return "+0.0", "no difference"
    if np.isnan(width):
        return f"{gain:+.1f}", "no interval" if len(cells) == 1 else "the same for each seed"
    low, high = gain - width, gain + width
    word = "better" if low > 0 else "worse" if high < 0 else "no difference"
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})", word


def _score(cells: Sequence[dict[str, Any]]) -> str:
    return f"{np.mean([each['score'] for each in cells]):.1f}"


def _all_of_one_seed(name: str, found: Cells) -> str:
    """Says at the head of a column that all its cells are of one seed."""
    return ", one seed" if _most_seeds(name, found) == 1 else ""


def _of_fewer_seeds(row: str, name: str, found: Cells) -> str:
    """Says of how many seeds a cell is, where others of its column are of more."""
    count = len(found[row, name])
    if row in UNSEEDED or count == _most_seeds(name, found):
        return ""
    return " (one seed)" if count == 1 else f" ({count} seeds)"


def _most_seeds(name: str, found: Cells) -> int:
    return max((len(cells) for (_, column), cells in found.items() if column == name), default=0)


def _reason(cells: Sequence[dict[str, Any]]) -> str | None:
    """Why there is no score."""
    for each in cells:
        if why := each.get("failed"):
            return f"failed: {why}"
        if why := each.get("not_applicable"):
            return f"not applicable: {why}"
    return None if cells else "not run"


def table_of(found: Cells) -> str:
    """The table in Markdown, its rows in the order in which they were made."""
    lines, names = [], [name for name in MEASURES if any(column == name for _, column in found)]
    for row in dict.fromkeys(row for row, _ in found):
        line = [row]
        for name in names:
            cells = found.get((row, name), [])
            if why := _reason(cells):
                line.append(why)
            elif row == "untouched":
                line.append(_score(cells))
            else:
                shown, word = judged(cells)
                word = f"**{word}**" if word == "worse" else word
                line.append(f"{_score(cells)}{_mark(row, name)}: {shown}, {word}{_of_fewer_seeds(row, name, found)}")
        tools = sorted({each["tool"] for each in found.get((row, "search"), []) if each.get("tool")})
        every = [each for name in names for each in found.get((row, name), []) if each.get("seconds")]
        seconds = "" if row == "untouched" or not every else f"{np.mean([each['seconds'] for each in every]):.0f}"
        lines.append([row, *line[1:], seconds, "; ".join(tools)])
    heads = [f"{name}: {MEASURES[name][1]} ({MEASURES[name][0]}){_all_of_one_seed(name, found)}" for name in names]
    names = ["", *heads, "seconds", "`textcl adapt`, from the texts alone"]
    if not any(line[-2] for line in lines):  # not measured, or not on an idle machine
        names, lines = [*names[:-2], names[-1]], [[*line[:-2], line[-1]] for line in lines]
    return table(names, lines)


def short_table(found: Cells) -> str:
    """The differences alone, for the README. Those that are shown say so; a dash: the row is not applicable."""
    lines = []
    for row in dict.fromkeys(row for row, _ in found):
        line = [row]
        for name in TUNED:
            cells = found.get((row, name), [])
            if _reason(cells):
                line.append("–" if cells else "not run")
            elif row == "untouched":
                line.append(_score(cells))
            else:
                word = judged(cells)[1]
                said = {"better": " better", "worse": " **worse**"}.get(word, "")
                line.append(f"{difference(cells)[0]:+.1f}{_mark(row, name)}{said}{_of_fewer_seeds(row, name, found)}")
        lines.append(line)
    heads = [f"{name}: {MEASURES[name][0]}, {MEASURES[name][1]}{_all_of_one_seed(name, found)}" for name in TUNED]
    return table(["", *heads], lines)


def section(row: str, found: Cells, steps: int) -> str:
    """What a method does to an encoder that is tuned already, as Markdown for its page."""
    lines, words = [], {}
    for name in TUNED:
        (texts, measure), cells, start = MEASURES[name], found.get((row, name), []), found.get(("untouched", name))
        if not cells or not start:
            continue
        if why := _reason(cells):
            lines.append([f"{name}, {measure}", texts, _score(start), "", "", why])
        else:
            shown, words[name] = judged(cells)
            shown = f"{shown}, {words[name]}"
            score = f"{_score(cells)}{_mark(row, name)}"
            lines.append([f"{name}, {measure}", texts, _score(start), score, str(len(cells)), shown])
    said = ", ".join(
        f"{word} at {_listed([name for name in words if words[name] == word])}"
        for word in ("worse", "better", "no difference", "no interval", "the same for each seed")
        if word in words.values()
    )
    marked = any(_mark(row, name) for name in words)
    return (
        f"To an encoder that is tuned already, all-MiniLM-L6-v2, in {steps} steps: {said or 'not measured'}. "
        "See [what helps](../what-helps.md) for all rows and how they were made.\n\n"
        + table(["", "trained on", "untouched", "after", "seeds", "difference (95 % interval)"], lines)
        + ("\n\n`*`: its authors chose the recipe with these labels." if marked else "")
    )


def _mark(row: str, name: str) -> str:
    return "*" if (row, name) in LABELS_SEEN else ""


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def write_pages(found: Cells, steps: int, docs: Path) -> None:
    """Writes the tables into what-helps.md and the README, and each method's rows into its page, between two comments.

    Raises:
        InputError: A page has no such comments.
    """
    _put(docs / "what-helps.md", table_of(found))
    if (readme := docs.resolve().parent / "README.md").is_file():
        _put(readme, short_table(found))
    for row in dict.fromkeys(row for row, _ in found):
        page = docs / "methods" / f"{row}.md"
        if page.is_file():
            _put(page, section(row, found, steps))


def _put(page: Path, text: str) -> None:
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(f"(?<={BEGIN}\n\n).*?(?=\n\n{END})", lambda _: text.rstrip(), old, flags=re.DOTALL)
    if count != 1:
        raise InputError(f"{page} needs a line {BEGIN} and, below it, a line {END}.")
    with atomic_write(page) as temporary:
        temporary.write_text(new, encoding="utf-8")
