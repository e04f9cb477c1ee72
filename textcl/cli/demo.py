"""`textcl demo [--output demo]`"""

import logging
from collections.abc import Sequence

from textcl.cli.main import Parser


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl demo",
        description="Train SimCSE on bundled text with the bundled encoder, show scores before and after, and write "
        "encoder, table and picture. Offline, minutes. Any flag of `textcl train` is passed on.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", default="demo", metavar="FOLDER", help="default: demo")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    given, flags = parser.parse_known_args(arguments)

    logging.getLogger("textcl").info("Training SimCSE on WordNet glosses: some two minutes on two cores ...")
    from textcl.demo import demo

    shown = demo(given.output, overwrite=given.overwrite, flags=flags)
    print(f"\n{shown.table}\n\n{shown.search}\n")
    print(
        f"trained: {shown.record.data.rows:,} glosses in {shown.record.seconds:.0f} s\n"
        f"encoder: {shown.export}\npicture: {shown.picture or 'none'}"
    )
