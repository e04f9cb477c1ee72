"""`textcl results [PATH...] [--method M] [--format csv] [--compare A B] [--pairs ENCODER]`"""

import sys
from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.errors import InputError

FORMATS = ("table", "csv", "latex", "json")


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl results",
        description="Past runs and comparisons: one row a result. Scores x 100; STS by the aggregation 'all'.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="folders of runs and comparisons (default: runs)")
    parser.add_argument("--method", action="append", default=[], help="such as simcse; may be given again")
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help="of a comparison's row, or a run")
    parser.add_argument("--task", metavar="TASKS", help="show these and no averages, such as sts or sts16,mr")
    parser.add_argument("--since", metavar="DATE", help="such as 2026-01-31")
    parser.add_argument("--sort", metavar="COLUMN", help="such as STS or name (default: the oldest first)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="latex: mean ± sd of each row, for booktabs")
    parser.add_argument("--output", metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="say whether B is better: rows over seeds, encoders over pairs"
    )
    parser.add_argument("--pairs", metavar="ENCODER", help="gold score and cosine of every STS pair, as csv")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the sets are")
    given = parser.parse_args(arguments)
    if given.pairs and given.compare:
        raise InputError("--pairs writes the scores of one encoder and --compare compares two; give one of them.")
    if given.format != "table" and (given.pairs or given.compare):
        raise InputError("--format is for the list of results: --pairs is csv, and --compare is text.")

    from pathlib import Path

    from textcl.evaluation.suite import task_names
    from textcl.files import atomic_write
    from textcl.report import formats
    from textcl.report.differences import compare_results, pairs_csv
    from textcl.report.results import find_results, select

    tasks = task_names(given.task) if given.task else []
    chosen = []
    # encoders can be compared without any runs
    if given.paths or Path("runs").is_dir() or not (given.pairs or given.compare):
        found = find_results(given.paths or ["runs"])
        shown = [] if given.compare else tasks
        chosen = select(found, methods=given.method, rows=given.row, tasks=shown, since=given.since, sort=given.sort)
        if not chosen and not (given.pairs or given.compare):
            raise InputError(
                f"None of the {len(found)} results there was asked for." if found else "No result is there."
            )
    if given.pairs:
        text = pairs_csv(given.pairs, tasks, given.data_dir)
    elif given.compare:
        text = compare_results((given.compare[0], given.compare[1]), chosen, tasks, given.data_dir) + "\n"
    elif given.format == "csv":
        text = formats.results_csv(chosen, tasks)
    elif given.format == "latex":
        text = formats.results_latex(chosen, tasks)
    elif given.format == "json":
        text = formats.results_json(chosen)
    else:
        text = formats.results_table(chosen, tasks) + "\n"
    if given.output:
        with atomic_write(given.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
