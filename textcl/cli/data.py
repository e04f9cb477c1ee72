"""`textcl data list|fetch|import|verify`"""

from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.cli.output import add_json_flag, check_json, say, show
from textcl.errors import InputError


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl data",
        description="The public evaluation sets, training corpora and lexicons. They are in $TEXTCL_DATA, or else in "
        "./senteval_data if it holds a set, or else in the user's cache folder.",
        passes_on=True,  # each action has a parser of its own
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = {
        "list": "all sets: counts, licence, whether they are here",
        "fetch": "download sets (default: all with a public address, but not the training corpora); an interrupted "
        "download resumes",
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
        if action == "list":
            add_json_flag(sub)
    given = parser.parse_args(arguments)

    from textcl.data import fetch, import_archive, verify

    if given.action == "list":
        check_json(given)
        _list(given.data_dir, given.json)
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


def _list(folder: str | None, json: str | None) -> None:
    from textcl.data import data_directory, list_sets, verify
    from textcl.report.tables import table

    states = {status.name: status.state for status in verify(folder)}
    sets = [
        {"set": info.name, "kind": info.kind, "rows": info.rows, "here": states[info.name], "licence": info.licence}
        for info in list_sets()
    ]
    rows = [[info.name, info.kind, _rows(info.rows), states[info.name], info.licence] for info in list_sets()]
    place = str(folder or data_directory())
    text = f"in {place}\n\n{table(['set', 'kind', 'rows', 'here', 'licence'], rows)}"
    show({"folder": place, "sets": sets}, text, json)


def _print(statuses: list) -> None:
    from textcl.report.tables import table

    rows = [[s.name, s.state, _rows(s.rows), " ".join(s.notes[:1])] for s in statuses]
    say(table(["set", "state", "rows", "note"], rows))


def _rows(counts: dict[str, int]) -> str:
    return " / ".join(f"{count:,}" for count in counts.values())
