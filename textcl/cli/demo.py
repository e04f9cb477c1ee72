"""`textcl demo [--output demo]`"""

import logging
from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.cli.output import say


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl demo",
        description="Train SimCSE on bundled text with the bundled encoder, show scores before and after, and write "
        "encoder, table, picture and a page. It needs no network and takes minutes. Any flag of `textcl train` is "
        "passed on.",
        passes_on=True,
    )
    parser.add_argument("--output", default="demo", metavar="FOLDER", help="where all of it is written (default: demo)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--resume", action="store_true", help="continue the run in that folder")
    ways.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    given, flags = parser.parse_known_args(arguments)

    logging.getLogger("textcl").info("Training SimCSE on WordNet glosses: about two minutes on two cores ...")
    from textcl.demo import demo

    with parser.passing_on():
        shown = demo(given.output, resume=given.resume, overwrite=given.overwrite, flags=flags)
    say(f"\n{shown.table}\n\n{shown.search}\n")
    say(
        f"trained: {shown.record.data.rows:,} glosses in {shown.record.seconds:.0f} s\n"
        f"encoder: {shown.export}\npicture: {shown.picture or 'none'}\npage: {shown.page or 'none'}"
    )
