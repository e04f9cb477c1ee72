"""`textcl compare RECIPE... [--seeds N] [training flags]`"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from textcl.cli.main import Parser
from textcl.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl compare",
        description="Train recipes with several seeds, each run in a process of its own; score them; print one table "
        "of mean ± sd. Run it again and it goes on: finished runs are never repeated. Any flag of `textcl train` is "
        "passed on to every run.",
        allow_abbrev=False,
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="recipe files, or names of shipped recipes")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (default: 3)")
    parser.add_argument("--output", default="runs/compare", metavar="FOLDER", help="default: runs/compare")
    parser.add_argument(
        "--baselines",
        default="untouched",
        help="with commas: untouched, sif, whitening (each also with :POOLING), tfidf, word-vectors, or none (default: "
        "untouched)",
    )
    parser.add_argument("--tasks", default="sts", help="such as sts,clustering,transfer or mr (default: sts)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the sets are")
    parser.add_argument("--reference", metavar="ROW", help="the row that differences are taken to (default: the first)")
    parser.add_argument("--json", metavar="PATH", help="write the table's figures there; '-' for standard output")
    given, flags = parser.parse_known_args(arguments)

    from textcl.files import atomic_write, write_json
    from textcl.report.tables import comparison, comparison_table
    from textcl.runs.compare import compare

    lines, failures = compare(
        given.recipes,
        given.output,
        seeds=given.seeds,
        flags=flags,
        baselines=[] if given.baselines == "none" else given.baselines.split(","),
        tasks=given.tasks.split(","),
        data_dir=given.data_dir,
    )
    if not lines:
        raise InputError(f"No run ended well. {failures[0]}")
    figures = comparison(lines, given.reference)
    text = comparison_table(figures)
    with atomic_write(Path(given.output) / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    if given.json == "-":
        json.dump(figures, sys.stdout, indent=2)
        print()
    else:
        if given.json:
            write_json(given.json, figures)
        print(text)
    if failures:
        raise InputError(f"{len(failures)} of the runs failed, and the table lacks them. {failures[0]}")
