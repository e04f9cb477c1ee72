"""`textcl judge BEFORE AFTER --data FILE|VECTORS [--answers 50] [--html PAGE]`, then `textcl judge --finish FILE`"""

import shutil
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_file, check_json, say, show
from textcl.errors import InputError
from textcl.files import check_same_kind
from textcl.ranges import Count, Seed
from textcl.terminal import keys
from textcl.texts import names_in

if TYPE_CHECKING:
    from textcl.adaptation.judging import BlindPairs

KEYS = {"l": "left", "left": "left", "r": "right", "right": "right", "e": "equal", "n": "neither"}
ASKED = "Which fits better? l left, r right, e equal, n neither; b back, q stop"
OUTPUT = "judgements.tsv"


def main(arguments: Sequence[str]) -> None:
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    given.systems += [each for each in rest if each != "--"]  # argparse overlooks those behind a flag
    check_json(given)
    _check_use(given)
    if given.finish is not None:
        from textcl.adaptation.judging import finish_judging

        found = finish_judging(given.finish)
        show(found.record(), "\n".join(found.lines()), given.json)
        return
    if given.html:
        check_file(given, "html")
        check_same_kind(given.html)

    from textcl.adaptation.judging import draw_pairs
    from textcl.adaptation.sign_test import power_sentence

    pairs = draw_pairs(
        given.systems[0],
        given.systems[1],
        given.data,
        given.output or OUTPUT,
        columns=names_in(given.column) if given.column else (),
        query_log=given.query_log,
        answers=given.answers or 50,
        language=given.language or "english",
        seed=given.seed or 0,
    )
    say(power_sentence(len(pairs)))
    if given.html:
        from textcl.report.judge import save_judging_page

        page = save_judging_page(pairs, given.html)
        say(f"{page}: open it in a browser, give the answers, and save them as {pairs.output}.")
        return
    _ask(pairs)


def _parser() -> Parser:
    parser = Parser(
        prog="textcl judge",
        usage="textcl judge BEFORE AFTER --data FILE|VECTORS [--column NAME[,NAME]] [--query-log FILE] "
        "[--answers 50|100|200] [--language NAME] [--seed N] [--output FILE] [--html PAGE]\n"
        "       textcl judge --finish FILE [--json PATH]",
        description="Compare two systems without judgements: you see a query and the first result of each, and say "
        "which fits better, without knowing whose it is. A system is a model, bm25, tfidf, or hybrid:MODEL. The same "
        "command goes on where you stopped.",
    )
    parser.add_argument("systems", nargs="*", metavar="BEFORE AFTER", help="the two systems")
    parser.add_argument(
        "--data",
        metavar="FILE|VECTORS",
        help="texts to find: txt, csv, tsv, jsonl or parquet, also gz, xz or zst, or what textcl encode wrote",
    )
    parser.add_argument("--column", metavar="NAME[,NAME]", help="the column of the texts, or those of title and text")
    parser.add_argument(
        "--query-log", metavar="FILE", help="your users' queries, one in each line (default: texts are the queries)"
    )
    parser.add_argument(
        "--answers", type=within(Count), choices=[50, 100, 200], help="how many pairs are judged (default: 50)"
    )
    parser.add_argument("--language", help="language of the texts, for BM25 (default: english)")
    parser.add_argument("--seed", type=within(Seed), help="seed of queries and sides (default: 0)")
    parser.add_argument(
        "--output", metavar="FILE", help=f"the answers, a .tsv file; a sealed file lies beside them (default: {OUTPUT})"
    )
    parser.add_argument(
        "--html", metavar="PAGE", help="write a page that asks and saves the same file, and ask nothing"
    )
    parser.add_argument("--finish", metavar="FILE", help="resolve the sides of a complete file of answers, and test")
    add_json_flag(parser)
    return parser


def _check_use(given: Namespace) -> None:
    """Raises an error unless either two systems and texts were given, or --finish alone."""
    if given.finish is None:
        if len(given.systems) != 2 or given.data is None:
            raise InputError("Name two systems and the texts, textcl judge BEFORE AFTER --data FILE, or --finish FILE.")
        if given.json:
            raise InputError("--json is for --finish, since nothing is counted before the end; leave it out.")
        return
    for name in ("systems", "data", "column", "query_log", "answers", "language", "seed", "output", "html"):
        if getattr(given, name) not in (None, []):
            what = "two systems" if name == "systems" else f"--{name.replace('_', '-')}"
            raise InputError(f"--finish takes a file of answers alone; leave out {what}.")


def _ask(pairs: "BlindPairs") -> None:
    """Asks for the answers that are missing; each one is written at once."""
    answers, width = pairs.answers(), min(100, shutil.get_terminal_size().columns)
    with keys() as next_key:
        while len(answers) < len(pairs):
            texts = pairs.shown(len(answers))
            say(f"\n{'─' * width}\nPair {len(answers) + 1} of {len(pairs)}")
            for heading, text in zip((pairs.what, "Left", "Right"), texts, strict=True):
                say(f"\n{heading.upper()}\n{_wrapped(text, width)}")
            say(f"\n{ASKED}")
            while (key := next_key()) not in (*KEYS, "b", "q", ""):
                say(ASKED)
            if key in ("q", ""):
                break
            if key == "b":
                del answers[-1:]
            else:
                answers.append(KEYS[key])
            pairs.write(answers)
    if len(answers) < len(pairs):
        say(f"\n{pairs.output}: {len(answers)} of {len(pairs)} answers. The same command goes on.")
    else:
        say(f"\n{pairs.output}: all {len(pairs)} answers. The result: textcl judge --finish {quote(str(pairs.output))}")


def _wrapped(text: str, width: int) -> str:
    lines = (textwrap.fill(line, width - 2, replace_whitespace=False) for line in text.splitlines())
    return textwrap.indent("\n".join(lines), "  ")
