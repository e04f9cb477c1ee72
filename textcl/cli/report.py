"""`textcl report RUN|COMPARISON|ADAPTED [--output report.html] [--no-texts]`"""

from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.cli.output import say


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl report",
        description="Write one HTML page on a run or a comparison, finished or not, or on what adapt wrote: scores, "
        "curves, examples and provenance. The page needs no network.",
    )
    parser.add_argument(
        "source",
        metavar="DIRECTORY",
        help="a run (runs/simcse), a comparison (runs/compare), or the output of textcl adapt",
    )
    parser.add_argument("--output", metavar="FILE.html", help="the page (default: report.html in that directory)")
    parser.add_argument(
        "--no-texts", action="store_true", help="leave out all sentences of the corpus and of evaluation sets"
    )
    parser.add_argument("--tasks", help="for a run: tasks to score before and after, such as sts (default: stsb-dev)")
    parser.add_argument(
        "--reference",
        metavar="ROW",
        help="for a comparison: the row that others are compared with (default: the first)",
    )
    given = parser.parse_args(arguments)

    from textcl.report.build import report

    page = report(given.source, given.output, texts=not given.no_texts, tasks=given.tasks, reference=given.reference)
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
