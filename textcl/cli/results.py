"""`textcl results [PATH...] [--method M] [--format csv|json] [--compare A B] [--pairs ENCODER]`"""

from collections.abc import Sequence
from pathlib import Path

from textcl.cli.main import Parser
from textcl.cli.output import add_json_flag, check_file, check_json, say, show
from textcl.errors import InputError

FORMATS = ("table", "csv", "latex", "json")


def main(arguments: Sequence[str]) -> None:
    given = _parser().parse_args(arguments)
    check_json(given)
    if given.output:
        check_file(given, "output")
    if given.pairs and given.compare:
        raise InputError("--pairs writes the scores of one encoder, and --compare compares two; give one of them.")
    if (given.format != "table" or given.json) and (given.pairs or given.compare):
        raise InputError("--format and --json are for the list of results: --pairs is csv, and --compare is text.")

    from textcl.evaluation.suite import task_names
    from textcl.files import atomic_write, check_same_kind
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
                f"None of the {len(found)} results matches the flags; leave some flags out."
                if found
                else "There is no result there; textcl train and textcl compare write them."
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
        check_same_kind(given.output, text[:6])  # enough to tell a table, csv, LaTeX and JSON apart
        with atomic_write(given.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if given.json:
        show([result.to_dict() for result in chosen], text.removesuffix("\n"), given.json)
    elif not given.output:
        say(text.removesuffix("\n"))


def _parser() -> Parser:
    parser = Parser(
        prog="textcl results",
        description="Past runs and comparisons: one row for each result. Scores × 100; STS by the aggregation 'all'.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="folders of runs and comparisons (default: runs)")
    parser.add_argument("--method", action="append", default=[], help="such as simcse; can be repeated")
    parser.add_argument(
        "--row", action="append", default=[], metavar="NAME", help="the row of a comparison, or a run; can be repeated"
    )
    parser.add_argument("--task", metavar="TASKS", help="show these tasks and no averages, such as sts or sts16,mr")
    parser.add_argument("--since", metavar="DATE", help="only results since then, such as 2026-01-31")
    parser.add_argument("--sort", metavar="COLUMN", help="such as STS or name (default: oldest first)")
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="latex: mean ± sd of each row, with booktabs"
    )
    parser.add_argument("--output", metavar="FILE", help="where the list is written (default: standard output)")
    add_json_flag(parser)
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="whether B is better than A: two rows over seeds, two encoders over pairs, or two files of eval --json "
        "over retrieval queries or the examples of fine-tuned tasks",
    )
    parser.add_argument("--pairs", metavar="ENCODER", help="gold score and cosine of every STS pair, as csv")
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder of the evaluation sets")
    return parser
