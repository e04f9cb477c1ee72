"""`textcl distill MODEL --data FILE|VECTORS --static 256 --output DIR`, or `--layers 3`"""

from collections.abc import Sequence

from textcl.cli.main import Parser, within
from textcl.cli.output import check_outside, parsed, show, without_json
from textcl.ranges import Count, Positive, Seed, ZeroOrMore


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl distill",
        description="Make a small, fast student that gives nearly the vectors of an encoder, from unlabelled texts. "
        "A static student has one vector for each token and needs no transformer; with --layers it is the "
        "encoder with fewer layers.",
    )
    parser.add_argument("model", help="the teacher: an exported or transformers directory, a hub name, or 'bundled'")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|VECTORS",
        help="txt, csv, tsv, jsonl or parquet, also gz, xz or zst; or what textcl encode wrote with MODEL, whose "
        "vectors are then used",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where the student is written")
    parser.add_argument("--static", type=within(Count), metavar="DIMENSIONS", help="a static student, such as 256")
    parser.add_argument("--layers", type=within(Count), metavar="N", help="a student with N layers of the teacher")
    parser.add_argument(
        "--words",
        type=within(ZeroOrMore),
        metavar="N",
        help="with --static and a WordPiece tokenizer: the N most frequent words that have several tokens become "
        "tokens (default: 10,000)",
    )
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--limit", type=within(Count), help="read the first LIMIT texts only")
    parser.add_argument(
        "--epochs", type=within(Count), help="how often each text is seen (default: 10, with --layers 1)"
    )
    parser.add_argument(
        "--learning-rate", type=within(Positive), help="largest learning rate (default: 3e-3, with --layers 2e-4)"
    )
    parser.add_argument("--batch-size", type=within(Count), help="texts in a step (default: 512, with --layers 32)")
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed (default: 0)")
    given = parsed(parser, arguments)
    check_outside(given)

    from textcl.vectors.distill import distill

    made = distill(**without_json(given))
    show(made.record, "\n".join(made.lines), given.json)
