"""`textcl duplicates VECTORS|FILE [--model MODEL] [--threshold T|auto] [--output FILE.csv] [--unique FILE.csv]`"""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_csv, check_json, columns, show
from textcl.errors import InputError
from textcl.ranges import PositiveShare, Seed, ZeroOrMore
from textcl.texts import counted, in_one_line

if TYPE_CHECKING:
    from textcl.vectors.duplicates import Duplicates

_share = within(PositiveShare)

EDITS = {
    "typo": "two letters changed places",
    "case": "capitals or small letters",
    "order": "the halves changed places",
    "more": "a word added, or one for each five",
}
MEMBERS = 3  # texts of a group that are shown


def main(arguments: Sequence[str]) -> None:
    given = _parser().parse_args(arguments)
    if given.output is None and given.unique is None and given.raw_csv:
        raise InputError("--raw-csv is about the files of --output and --unique; add one, or leave --raw-csv out.")
    for flag in ("output", "unique"):
        if (path := getattr(given, flag)) is not None:
            if Path(path).exists():
                raise InputError(f"{path} exists already; remove it or name another file.")
            check_csv(given, flag)
    check_json(given)

    from textcl.vectors.duplicates import near_duplicates

    columns = {"column": given.column, "id_column": given.id_column}
    found = near_duplicates(
        given.source, given.model, threshold=given.threshold, words=given.words, **columns, seed=given.seed
    )
    if given.output is not None:
        found.save(given.output, raw=given.raw_csv)
    if given.unique is not None:
        found.save(given.unique, raw=given.raw_csv, kept_only=True)
    result = {"output": given.output, "unique": given.unique, **found.record()}
    show(result, _page(found, given), given.json)


def _parser() -> Parser:
    parser = Parser(
        prog="textcl duplicates",
        description="Find near-duplicates: groups of texts that are equal or nearly equal, by their vectors and their "
        "words. Of each group the first row is kept; nothing is removed, the result says which rows repeat it.",
    )
    parser.add_argument(
        "source",
        metavar="VECTORS|FILE",
        help="what textcl encode wrote; or txt, csv, tsv, jsonl or parquet, also gz, xz or zst, which is encoded first",
    )
    parser.add_argument(
        "--model",
        help="the encoder (default: small; for VECTORS the one that wrote them; without it, give a --threshold)",
    )
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--id-column", metavar="NAME", help="a column of ids of your own, which the output repeats")
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default="auto",
        metavar="T|auto",
        help="least cosine of near-duplicates; auto: chosen by edits that are planted in these texts (default: auto)",
    )
    parser.add_argument(
        "--words",
        type=_share,
        metavar="SHARE",
        help="texts that share so many of their words are near-duplicates too (default: chosen with auto, else off)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.csv",
        help="every row with text, group, size, kept, duplicate_of, why, cosine, words, id and the columns of VECTORS",
    )
    parser.add_argument(
        "--unique", metavar="FILE.csv", help="a file with the columns of --output, but only the rows that are kept"
    )
    parser.add_argument(
        "--raw-csv", action="store_true", help="leave out the ' before texts that a spreadsheet would run as formulas"
    )
    parser.add_argument(
        "--largest", type=within(ZeroOrMore), default=5, metavar="GROUPS", help="groups that are shown (default: 5)"
    )
    parser.add_argument("--seed", type=within(Seed), default=0, help="seed of the sample for auto (default: 0)")
    add_json_flag(parser)
    return parser


def _threshold(text: str) -> float | str:
    try:
        return text if text == "auto" else _share(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(str(error).replace("must be", "must be auto or")) from None


def _page(found: "Duplicates", given: Namespace) -> str:
    """The result as people read it."""
    from textcl.vectors.duplicates import rule

    copies, near, groups = found.why.count("copy"), found.why.count("near"), int((found.sizes > 1).sum())
    lines = [
        f"{given.source}: {counted(len(found.texts), 'text')}. {counted(copies, 'copy', 'copies')} (equal to an "
        f"earlier text but for case and spaces) and {counted(near, 'near-duplicate')} in {counted(groups, 'group')}; "
        f"{found.kept.sum():,} kept, of each group the first one."
    ]
    near_if = rule(found.cosine, found.overlap)
    lines += [f"Near-duplicates: {near_if}."] if near_if else []
    if (calibration := found.calibration) is not None:
        table = [["planted edit", "found", ""]]
        table += [[kind, f"{100 * share:.1f} %", EDITS[kind]] for kind, share in calibration.found.items()]
        table += [["no edit", f"{100 * calibration.false:.1f} %", "the nearest other text, taken for a copy"]]
        lines += ["", columns(table), f"measured on {calibration.texts:,} texts that did not choose the threshold"]
    lines += ["", *found.notes] if found.notes else []
    for members in found.members()[: given.largest]:
        kept = members[0]
        lines += ["", f"group {found.groups[kept]}: {len(members):,} texts", f"  kept        {_shown(found, kept)}"]
        for row in members[1 : 1 + MEMBERS]:
            cosine = f" {found.cosines[row]:.3f}" if found.cosines[row] else ""  # 0: the words are not known
            sign = "copy" if found.why[row] == "copy" else f"near{cosine}"
            by_words = found.cosine is None or found.cosines[row] < found.cosine - 1e-6
            sign += f", words {found.words[row]:.2f}" if sign != "copy" and by_words else ""
            lines.append(f"  {sign:<10}  {_shown(found, row)}")
        lines += [f"  and {len(members) - 1 - MEMBERS:,} more"] if len(members) > 1 + MEMBERS else []
    lines += ["", f"{given.output}: every row, with its group and whether it is kept"] if given.output else []
    lines += ["", f"{given.unique}: the {found.kept.sum():,} kept rows"] if given.unique else []
    return "\n".join(lines)


def _shown(found: "Duplicates", row: int) -> str:
    return f"{found.ids[row]}  {in_one_line(found.texts[row])}"
