"""`textcl explore FILE|VECTORS [--column NAME] [--id-column NAME] [--model MODEL] --output DIR`"""

import time
from collections.abc import Sequence

from textcl.cli.encode import column_names
from textcl.cli.main import Parser, within
from textcl.cli.output import parsed, show, without_json
from textcl.files import check_output
from textcl.ranges import Count, Seed, TwoOrMore


def main(arguments: Sequence[str]) -> None:
    begin = time.monotonic()  # to import torch and others takes seconds, which no step counts
    parser = Parser(
        prog="textcl explore",
        description="Take a first look at a file of texts: encode them, find near-duplicates and clusters, and draw a "
        "map, all on one page that needs no network. The same command goes on after an interruption.",
    )
    parser.add_argument(
        "source",
        metavar="FILE|VECTORS",
        help="txt, csv, tsv, jsonl or parquet, also gz, xz or zst; or what textcl encode wrote",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="a new directory for index.html, map.html, clusters.csv, groups.csv and vectors/",
    )
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--id-column", metavar="NAME", help="a column of ids of your own, which the files repeat")
    parser.add_argument(
        "--columns", metavar="NAMES", help="further columns to keep, such as date,product, or all (default: none)"
    )
    parser.add_argument("--model", help="the encoder (default: small; for VECTORS the one that wrote them)")
    parser.add_argument("--limit", type=within(Count), help="read the first LIMIT texts only")
    parser.add_argument(
        "--clusters", type=within(TwoOrMore), metavar="N", help="how many clusters (default: it is estimated)"
    )
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed (default: 0)")
    given = parsed(parser, arguments)
    check_output(given.output, folder=True)

    from textcl.report.explore import explore
    from textcl.report.explored import printed_lines

    given.columns = None if given.columns is None else column_names(given.columns)
    record = explore(**without_json(given))
    lines = printed_lines(record, given.output.rstrip("/"), time.monotonic() - begin)
    show(record, "\n".join(lines), given.json)
