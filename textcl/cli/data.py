"""`textcl data list|fetch|import|verify`"""

from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl data",
        description="The public sets that encoders are scored on, training corpora and lexicons. They lie in "
        "$TEXTCL_DATA, else in ./senteval_data if it holds a set, else in the user's cache folder.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = {
        "list": "all sets: counts, licence, whether they are here",
        "fetch": "download sets (default: all with a public address but the training corpora); a cut download goes on",
        "import": "take sets from an archive or a folder on disk",
        "verify": "check counts and hashes of the sets that are here",
    }
    for action, text in helps.items():
        sub = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action == "import":
            sub.add_argument("file", help="a .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip archive, or a folder")
        elif action != "list":
            sub.add_argument("names", nargs="*", metavar="NAME", help="sets (default: all)")
        sub.add_argument("--data-dir", metavar="FOLDER", help="another folder than the one above")
    given = parser.parse_args(arguments)

    from textcl.data import fetch, import_archive, verify

    if given.action == "list":
        _list(given.data_dir)
    elif given.action == "fetch":
        _print(fetch(given.names or None, given.data_dir))
    elif given.action == "import":
        _print(import_archive(given.file, given.data_dir))
    else:
        statuses = verify(given.data_dir, given.names or None)
        _print(statuses)
        bad = [s for s in statuses if not s.usable and (given.names or s.state != "missing")]
        if bad:
            raise InputError(f"{bad[0].name}: {bad[0].state}. {' '.join(bad[0].notes[:1])}")


def _list(folder: str | None) -> None:
    from textcl.data import data_directory, list_sets, verify
    from textcl.report.tables import table

    states = {status.name: status.state for status in verify(folder)}
    rows = [
        [info.name, info.kind, " / ".join(f"{n:,}" for n in info.rows.values()), states[info.name], info.licence]
        for info in list_sets()
    ]
    print(f"in {folder or data_directory()}\n")
    print(table(["set", "kind", "rows", "here", "licence"], rows))


def _print(statuses: list) -> None:
    from textcl.report.tables import table

    rows = [[s.name, s.state, " / ".join(f"{n:,}" for n in s.rows.values()), " ".join(s.notes[:1])] for s in statuses]
    print(table(["set", "state", "rows", "note"], rows))
