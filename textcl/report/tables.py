"""Plain-text tables, which are also valid Markdown."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from textcl.errors import InputError
from textcl.evaluation.kinds import KINDS, REGRESSION, RETRIEVAL, STS, TaskKind, kind_of
from textcl.evaluation.results import short_name
from textcl.evaluation.significance import over_seeds


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns; columns of numbers are right-aligned.

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
    """Mean ± standard deviation (n - 1) of runs; a single value has no deviation.

    Example:
        >>> mean_sd([60.0, 61.0, 62.0])
        '61.00 ± 1.00'
    """
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{fmean(values):.2f} ± {_deviation(values):.2f}"


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation; NaN if a value is NaN or infinite, for which `stdev` has no answer."""
    return stdev(values) if all(map(math.isfinite, values)) else math.nan


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-−" or not cell


def comparison(lines: Sequence[dict[str, Any]], reference: str | None = None) -> dict[str, Any]:
    """Mean and standard deviation over seeds for each row, and its difference to the reference row.

    Args:
        lines: Lines of a results file, see `textcl.runs.compare`.
        reference: The row that the other rows are compared with; default: the first.

    Returns:
        `{"reference", "columns", "average", "rows": {name: {"seeds", "columns": {column: {"mean", "sd", "values"}},
        "difference": {"mean", "low", "high", "p_value", "basis", "shown", "sentence"}}}, "differing_data": [task]}`,
        where the last are tasks that were scored on different data in some lines. The difference is that of what
        "average" names (over STS tasks if there are any), with its 95 % interval over seeds, see `over_seeds`. Between
        single runs it has no interval.

    Raises:
        InputError: There is no row `reference`.
    """
    groups = _by_row(lines)
    reference = reference or next(iter(groups))
    if reference not in groups:
        raise InputError(f"There is no row {reference!r} to compare with; there are {', '.join(groups)}.")
    tasks = [task for task in lines[0]["results"] if task != "STSBenchmark-dev"]
    kinds, dev = {task: kind_of(lines[0]["results"][task]) for task in tasks}, lines[0]["dev"] is not None
    rows: dict[str, Any] = {}
    for name, group in groups.items():
        rows[name] = {
            "seeds": [line["seed"] for line in group],
            "columns": {
                column: {"mean": fmean(values), "sd": _deviation(values) if len(values) > 1 else None, "values": values}
                for column, values in _columns(group, kinds, dev).items()
            },
            "transductive": sorted({t for line in group for t in tasks if line["results"][t].get("transductive")}),
            "untouched": [line["seed"] for line in group if _is_untouched(line)],
            "difference": None if name == reference else _difference(group, groups[reference]),
        }
    return {
        "reference": reference,
        "columns": list(rows[reference]["columns"]),
        "average": _name_of_average(kinds.values(), dev),
        "rows": rows,
        "differing_data": differing_data([line.get("provenance", {}) for line in lines], list(lines[0]["results"])),
    }


def _columns(group: Sequence[dict[str, Any]], kinds: Mapping[str, TaskKind], dev: bool) -> dict[str, list[float]]:
    """The columns of a row, each with the value of each line; `dev`: whether lines have a score on STS-B dev."""
    columns: dict[str, list[float]] = {}
    for kind in KINDS.values():
        tasks = [task for task, of_task in kinds.items() if of_task is kind]
        for head, metric in kind.columns.items() if tasks else ():
            of_tasks = [[line["results"][task][metric] for line in group] for task in tasks]
            columns |= {kind.column(short_name(task), head): each for task, each in zip(tasks, of_tasks, strict=True)}
            if kind.mean_column:
                columns[kind.mean_column.format(head)] = list(map(fmean, zip(*of_tasks, strict=True)))
        if kind is STS and dev:
            columns |= {"Avg.": [line["average"] for line in group], "STS-B dev": [line["dev"] for line in group]}
    return columns


def _name_of_average(kinds: Collection[TaskKind], dev: bool) -> str:
    """The name of what `runs.compare` averages: the score of the first kind in `KINDS` that is there."""
    kind = STS if dev else next((kind for kind in KINDS.values() if kind in kinds), STS)
    head = next(head for head, metric in kind.columns.items() if metric == kind.figure)
    if kind.mean_column:
        return kind.mean_column.format(head)
    return {STS.name: "Avg.", REGRESSION.name: "Pearson", RETRIEVAL.name: "nDCG@10"}.get(kind.name, head)


def pair_differences(lines: Sequence[dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """The difference of the averages of every two rows: the first row, the second, and second minus first.

    Args:
        lines: As for `comparison`; the differences are as there, too.
    """
    groups = _by_row(lines)
    pairs = combinations(groups, 2)
    return [(one, other, found) for one, other in pairs if (found := _difference(groups[other], groups[one]))]


def comparison_table(figures: dict[str, Any]) -> str:
    """The result of `comparison` as a table, with lines below it that explain how to read it."""
    header, rows, notes = comparison_cells(figures)
    return f"{table(header, rows)}\n\n" + "\n".join(notes)


def comparison_cells(figures: dict[str, Any]) -> tuple[list[str], list[list[object]], list[str]]:
    """The header and the rows of the table of a comparison, and the lines below it."""
    average = figures["average"]
    repeated = _repeated(figures)
    columns = [column for column in figures["columns"] if column not in repeated]
    header = ["", *columns, f"{repeated.get(average, average)} − {figures['reference']}", "runs"]
    rows: list[list[object]] = []
    for name, row in figures["rows"].items():
        difference = row["difference"]
        cells = [mean_sd(row["columns"][column]["values"]) for column in columns]
        rows.append([name, *cells, _plus_minus(difference), len(row["seeds"])])
    measures = ["Spearman × 100, aggregation all"] if average == "Avg." else []
    if "Avg. ACC" in figures["columns"]:
        measures.append("ACC and NMI: accuracy and normalised mutual information of k-means × 100")
    if "Avg. transfer" in figures["columns"]:
        measures.append("transfer tasks: test accuracy × 100")
    if "align" in figures["columns"]:
        measures.append("alignment, uniformity and effective rank on STS-B dev")
    if any(column.endswith(" regression") for column in figures["columns"]):
        measures.append("regressions: Pearson × 100")
    how = "the difference has its 95 % interval over seeds, and * if zero is outside it"
    notes = [f"{'; '.join(measures)}; mean ± sd over seeds; {how}."]
    differences = [row["difference"] for row in figures["rows"].values() if row["difference"]]
    notes += [each["sentence"] for each in differences if each["low"] is not None]
    marked = [
        f"{name}: {', '.join(row['transductive'])}" for name, row in figures["rows"].items() if row["transductive"]
    ]
    if marked:
        notes.append(f"Transductive (evaluation texts were in the training corpus): {'; '.join(marked)}.")
    if kept := {name: row["untouched"] for name, row in figures["rows"].items() if row["untouched"]}:
        of_rows = "; ".join(
            f"{name} ({len(seeds)} of {len(figures['rows'][name]['seeds'])})" for name, seeds in kept.items()
        )
        notes.append(
            f"Runs without a checkpoint that beat the untouched encoder on the dev set, whose scores are those of the "
            f"untouched encoder: {of_rows}. --select-best false shows what training made of it."
        )
    if figures["differing_data"]:
        notes.append(on_differing_data(figures["differing_data"]))
    return header, rows, notes


def differing_data(provenances: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """The tasks whose data had another hash in some of the results than in others."""
    facts = [provenance.get("tasks", {}) for provenance in provenances]
    hashes = {task: {each[task].get("data_sha256") for each in facts if task in each} - {None} for task in tasks}
    return [task for task in tasks if len(hashes[task]) > 1]


def on_differing_data(tasks: Sequence[str]) -> str:
    """A sentence that warns of results on different data."""
    return (
        f"Not comparable: the data of {', '.join(map(short_name, tasks))} were not the same for all runs (another "
        "SHA-256)."
    )


def _by_row(lines: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["row"], []).append(line)
    return groups


def _repeated(figures: dict[str, Any]) -> dict[str, str]:
    """The averages that hold the values of an earlier column, as those over one task do, and that column."""
    first: dict[tuple[float, ...], str] = {}
    for column in figures["columns"]:
        first.setdefault(_values(figures, column), column)
    found = {column: first[_values(figures, column)] for column in figures["columns"] if column.startswith("Avg.")}
    return {column: earlier for column, earlier in found.items() if earlier != column}


def _values(figures: dict[str, Any], column: str) -> tuple[float, ...]:
    return tuple(value for row in figures["rows"].values() for value in row["columns"][column]["values"])


def _is_untouched(line: Mapping[str, Any]) -> bool:
    """Whether the export of a run is the untouched encoder, because no checkpoint was better."""
    dev = (line.get("run") or {}).get("dev") or {}
    return bool(dev.get("chosen") and dev.get("before") is not None and dev.get("step") == 0)


def _difference(group: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A row's mean average minus the reference row's, with an interval if one of the two has several seeds."""
    own, other = ({line["seed"]: line["average"] for line in lines} for lines in (group, reference))
    try:
        found = over_seeds(other, own)
    except InputError:
        return {"mean": fmean(own.values()) - fmean(other.values()), "low": None, "high": None, "p_value": None}
    return {**asdict(found), "shown": found.shown, "sentence": found.sentence(reference[0]["row"], group[0]["row"])}


def _plus_minus(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    if difference["low"] is None:
        return f"{difference['mean']:+.2f}"
    half = (difference["high"] - difference["low"]) / 2
    return f"{difference['mean']:+.2f} ± {half:.2f}" + "*" * difference["shown"]
