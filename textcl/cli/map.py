"""`textcl map VECTORS [--clusters clusters.csv] [--duplicates groups.csv] [--color COLUMN] --output map.html`"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_json, show, without_json
from textcl.errors import InputError
from textcl.files import check_output
from textcl.ranges import Seed
from textcl.texts import counted


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl map",
        description="Write one HTML page on which each text is a point, near those that mean the same. It has a search "
        "box, the names of clusters, and the nearest texts of a text that is clicked. The page needs no network.",
    )
    parser.add_argument("vectors", metavar="VECTORS", help="what textcl encode wrote; at most 200,000 texts")
    parser.add_argument("--output", required=True, metavar="FILE.html", help="the page")
    parser.add_argument(
        "--clusters", metavar="FILE.csv", help="what textcl cluster wrote for VECTORS: names and colours"
    )
    parser.add_argument("--duplicates", metavar="FILE.csv", help="what textcl duplicates wrote for VECTORS: marks them")
    parser.add_argument(
        "--color", metavar="COLUMN", help="a column of VECTORS that gives the colours (default: clusters)"
    )
    parser.add_argument(
        "--update",
        metavar="FILE.html",
        help="a map of VECTORS before texts were appended; its texts stay where they are on the new page",
    )
    parser.add_argument(
        "--layout",
        choices=("umap", "pca"),
        help="how texts are placed (default: umap if it is installed, pip install umap-learn; else pca)",
    )
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed of umap (default: 0)")
    add_json_flag(parser)
    given = parser.parse_args(arguments)
    output = Path(given.output)
    same = given.update is not None and output.resolve() == Path(given.update).resolve()
    if output.exists() and not same:
        raise InputError(f"{given.output} exists already; remove it, name another file, or update it by --update.")
    check_json(given)
    check_output(given.output)

    from textcl.report.map import LENGTH, write_map

    asked = without_json(given)
    made = write_map(asked.pop("vectors"), **asked)
    lines = [f"{given.output}: {counted(made.texts, 'text')}, {made.bytes / 1e6:.1f} MB; open it in a browser."]
    kept = "" if made.kept is None else f" ({made.kept:.0%} of the variance)"
    lines.append(f"Placed by {made.layout.upper()}{kept}, {made.why}.")
    if given.update:
        gone = f"; {made.gone:,} are no longer in {given.vectors} and left the map" if made.gone else ""
        lines.append(f"{made.new:,} new texts; {made.texts - made.new:,} stay where they were{gone}.")
    if given.clusters:
        lines.append(f"{made.clusters:,} clusters have names on it.")
    if given.duplicates:
        lines.append(f"{made.duplicates:,} texts are marked, because they have near-duplicates.")
    if made.cut:
        lines.append(
            f"{counted(made.cut, 'text')} longer than {LENGTH} characters: the page holds the beginning of each."
        )
    show({**asdict(made), "path": str(made.path)}, "\n".join(lines), given.json)
