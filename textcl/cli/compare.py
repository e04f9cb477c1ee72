"""`textcl compare RECIPE... [--seeds N] [--json PATH|-] [training flags]`"""

from collections.abc import Sequence
from pathlib import Path

from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_json, show
from textcl.environment import launched
from textcl.errors import InputError
from textcl.ranges import Count
from textcl.texts import names_in


def main(arguments: Sequence[str]) -> None:
    parser = _parser()
    given, flags = parser.parse_known_args(arguments)
    if launched().ranks > 1:
        raise InputError("textcl compare starts a process for each run; start it without torchrun.")
    check_json(given)
    written, results = Path(given.output) / "table.md", Path(given.output) / "results.jsonl"
    if written.exists() and not results.exists():
        raise InputError(f"{written} exists already, and textcl compare did not write it; name another directory.")

    from textcl.files import atomic_write
    from textcl.report.tables import comparison, comparison_table
    from textcl.runs.compare import compare

    with parser.passing_on():
        lines, failures = compare(
            given.recipes,
            given.output,
            seeds=given.seeds,
            flags=flags,
            baselines=[] if given.baselines == "none" else names_in(given.baselines),
            tasks=given.tasks.split(","),
            data_dir=given.data_dir,
            allow_code=given.allow_code,
        )
    if not lines:
        raise InputError(f"Every run failed. {failures[0]}")
    figures = comparison(lines, given.reference)
    text = comparison_table(figures)
    try:
        with atomic_write(written) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    finally:
        show(figures, text, given.json)
    if failures:
        raise InputError(f"{len(failures)} of the runs failed and are not in the table. {failures[0]}")


def _parser() -> Parser:
    parser = Parser(
        prog="textcl compare",
        description="Train recipes with several seeds, each run in its own process, score them, and print one table of "
        "mean ± sd. Run the command again to continue: finished runs are not repeated. Any flag of `textcl train` is "
        "passed on to every run.",
        passes_on=True,
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="recipe files, or names of shipped recipes")
    parser.add_argument("--seeds", type=within(Count), default=3, help="how many runs of each recipe (default: 3)")
    parser.add_argument(
        "--output",
        default="runs/compare",
        metavar="FOLDER",
        help="where runs and results are written (default: runs/compare)",
    )
    parser.add_argument(
        "--baselines",
        default="untouched",
        help="untouched, sif, whitening (these three also as NAME:POOLING), tfidf, word-vectors, with commas between "
        "them; or none (default: untouched)",
    )
    parser.add_argument("--tasks", default="sts", help="such as sts,clustering,transfer or mr (default: sts)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder of the evaluation sets")
    parser.add_argument("--reference", metavar="ROW", help="the row that others are compared with (default: the first)")
    parser.add_argument(
        "--allow-code", action="store_true", help="let recipes name own methods, package.module:ClassName, and run them"
    )
    add_json_flag(parser)
    return parser
