"""Past results as a Markdown table, csv, JSON or a LaTeX table."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from textcl.report.results import FACTS, PastResult, by_row, score_columns
from textcl.report.tables import mean_sd, table
from textcl.texts import json_value


def results_table(results: Sequence[PastResult], tasks: Sequence[str] = ()) -> str:
    """A Markdown table with one row per result."""
    columns = score_columns(results, tasks)
    rows = []
    for result in results:
        scores = result.scores(tasks)
        star = "*" if result.transductive(tasks) else ""
        cells = [f"{scores[column]:.2f}" if column in scores else "" for column in columns]
        seed = "" if result.seed is None else result.seed
        rows.append([result.name + star, result.method or "", seed, *cells, result.date[:10], result.folder])
    text = table(["name", "method", "seed", *columns, "date", "folder"], rows)
    if any(result.transductive(tasks) for result in results):
        text += "\n\n* transductive: texts of some of its tasks were in the training corpus; --format json shows which."
    if not tasks and (mixed := mixed_averages(results)):
        text += (
            f"\n\nNot comparable: {', '.join(mixed)} is the mean over other tasks in some rows than in others; --task "
            "shows single tasks."
        )
    return text


def mixed_averages(results: Sequence[PastResult]) -> list[str]:
    """The columns of averages that are not over the same tasks in all results that have them."""
    over: dict[str, set[frozenset[str]]] = {}
    for result in results:
        for column, tasks in result.averaged().items():
            over.setdefault(column, set()).add(frozenset(tasks))
    return [column for column, each in over.items() if len(each) > 1]


def results_csv(results: Sequence[PastResult], tasks: Sequence[str] = ()) -> str:
    """A csv with one row per result and all digits. `transductive` lists tasks, separated by spaces."""
    columns = score_columns(results, tasks)
    rows = [
        {**result.facts(), **result.scores(tasks), "transductive": " ".join(result.transductive(tasks))}
        for result in results
    ]
    return as_csv([*FACTS[:3], *columns, "transductive", *FACTS[3:]], rows)


def results_json(results: Sequence[PastResult]) -> str:
    """JSON with everything that is known about each result."""
    values = json_value([result.to_dict() for result in results])
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def results_latex(results: Sequence[PastResult], tasks: Sequence[str] = ()) -> str:
    """A LaTeX table (needs booktabs): one line per row name, with mean ± standard deviation (n - 1) over seeds."""
    columns = score_columns(results, tasks)
    lines = [
        r"\begin{tabular}{l" + "r" * (len(columns) + 1) + "}",
        r"\toprule",
        " & ".join(["", *map(_latex, columns), r"runs \\"]),
        r"\midrule",
    ]
    for name, seeds in by_row(results).items():
        scores = [result.scores(tasks) for result in seeds.values()]
        values = [[each[column] for each in scores if column in each] for column in columns]
        cells = [mean_sd(each).replace(" ± ", r" $\pm$ ").replace("-", "$-$") if each else "" for each in values]
        star = "*" if any(result.transductive(tasks) for result in seeds.values()) else ""
        lines.append(" & ".join([_latex(name) + star, *cells, rf"{len(seeds)} \\"]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """A csv file with a header."""
    target = io.StringIO()
    writer = csv.DictWriter(target, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue()


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
