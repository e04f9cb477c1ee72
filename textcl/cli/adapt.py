"""`textcl adapt MODEL --data FILE|VECTORS --output DIR [--column title,body] [--for search] [--json PATH|-]`"""

import logging
from collections.abc import Sequence
from pathlib import Path

from textcl.cli.main import Parser, within
from textcl.cli.output import check_outside, parsed, show, without_json
from textcl.errors import DiskFull, InputError
from textcl.ranges import Positive, Seed, Share
from textcl.texts import names_in

logger = logging.getLogger("textcl")

PURPOSES = ("search", "clusters", "duplicates")


def main(arguments: Sequence[str]) -> None:
    given = parsed(_parser(), arguments)
    check_outside(given)

    from textcl.adaptation.adapt import PAGE, adapt
    from textcl.report.adapted import write_page

    asked = without_json(given)
    column = asked.pop("column")
    adapted = adapt(**asked, columns=names_in(column) if column else ())
    try:
        write_page(adapted.record, Path(given.output) / PAGE)
    except DiskFull:
        raise
    except InputError as error:  # what draws it is not installed
        logger.warning("%s has no %s. %s Then run textcl report %s.", given.output, PAGE, error, given.output)
    show(adapted.record, "\n".join(adapted.lines), given.json)


def _parser() -> Parser:
    parser = Parser(
        prog="textcl adapt",
        description="Look for an encoder that is better for your own texts, and say honestly whether there is one. The "
        "last two lines are the verdict and what was exported: the untouched encoder unless the verdict is 'better'.",
    )
    parser.add_argument(
        "model",
        help="an exported or transformers directory, a hub name, 'small' or 'bundled'; several with commas: nothing is "
        "trained, and the best of the others is compared with the first",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|VECTORS",
        help="txt, csv, tsv, jsonl or parquet, also gz, xz or zst, or what textcl encode wrote",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="where the encoder to use, adapt.json and report.html go"
    )
    parser.add_argument("--column", metavar="NAME[,NAME]", help="the column of the texts, or those of title and text")
    parser.add_argument(
        "--for", dest="purpose", choices=PURPOSES, default="search", help="what the encoder is for (default: search)"
    )
    parser.add_argument(
        "--dev",
        metavar="KIND:PATH",
        help="evidence of your own: beir:FOLDER, judged queries in BEIR's layout; pairs:FILE, rows of two texts that "
        "belong together, which are trained on too; judgements:FILE, the answers of textcl judge; labels:FILE, "
        "labelled texts (columns text and label), for clusters",
    )
    parser.add_argument(
        "--retrieval", choices=["dense", "hybrid"], default="dense", help="search by vectors (default), or by words too"
    )
    parser.add_argument(
        "--bm25-weight", type=within(Share), default=0.35, help="weight of words in hybrid (default: 0.35)"
    )
    parser.add_argument("--language", default="english", help="language of the texts, for BM25 (default: english)")
    parser.add_argument(
        "--minutes", type=within(Positive), default=20.0, help="about how long it may take (default: 20)"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="also train layers of the encoder, as the minutes allow, and blend them with the untouched ones; the "
        "default is a linear map behind the vectors",
    )
    parser.add_argument("--ledger", metavar="PATH", help="the file that counts looks at the same texts")
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed (default: 0)")
    return parser
