"""What a command prints: text for people, or JSON for programs."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textcl.cli.main import Parser
from textcl.errors import InputError
from textcl.files import check_output, read_json, write_json
from textcl.terminal import json_escaped, printable
from textcl.texts import json_value

# JSON and pages that belong to a model, to vectors, to a run or to what else a command writes into a folder
_PARTS = re.compile(
    r"(added_tokens|adapt|adapter_config|best|bm25|complete|config\w*|explore|generation_config|index|manifest|modules"
    r"|model\.safetensors\.index|plan|recipe|run|seal|sentence_\w+_config|special_tokens_map|textcl\w*|token\w*"
    r"|trainer_state|vocab|\w+\.centres)\.json|(report|index|map)\.html"
)


def add_json_flag(parser: Parser) -> None:
    parser.add_argument(
        "--json", metavar="PATH", help="write the result to PATH as JSON; '-': print JSON, nothing else"
    )


def parsed(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Parses the arguments of a command, to which this adds --json, and checks the file that --json names."""
    add_json_flag(parser)
    given = parser.parse_args(arguments)
    check_json(given)
    return given


def without_json(given: Namespace) -> dict[str, Any]:
    """All flags but --json by name, to call a function whose arguments have the same names."""
    return {name: value for name, value in vars(given).items() if name != "json"}


def check_json(given: Namespace) -> None:
    """Raises an error, before the work, if what --json names cannot be written, or holds anything but JSON."""
    if given.json in (None, "-"):
        return
    check_file(given, "json")
    target = Path(given.json)
    try:
        if target.is_file() and target.stat().st_size:
            read_json(target)
    except InputError:
        raise InputError(f"{given.json} exists already and is not JSON; name another file for --json.") from None


def check_outside(given: Namespace) -> None:
    """Raises an error, before the work, if --json names a file in the model directory that --output replaces."""
    if given.json not in (None, "-") and Path(given.output).resolve() in Path(given.json).resolve().parents:
        raise InputError(
            f"--json {given.json} is in {given.output}, which would then not be a directory of textcl that can be "
            "replaced; name a file outside of it."
        )


def check_file(given: Namespace, flag: str) -> None:
    """Raises an error, before the work, if the file that a flag names cannot be written, or is not to be replaced.

    Args:
        given: All arguments of the command. What one of them names is read, or is another output.
        flag: The name of the flag in `given`.

    Raises:
        InputError: Another argument names the same file, or it belongs to a model, to vectors or to a run.
    """
    path = getattr(given, flag)
    check_output(path)
    target = Path(path).resolve()
    for each in _named(given, flag):
        for other in (Path(each).resolve(), Path(each.partition(":")[2] or each).resolve()):  # or KIND:PATH
            if target == other:
                raise InputError(f"--{flag} {path} is what {each} names too; name another file.")
            if other in target.parents and other != Path.cwd() and _PARTS.fullmatch(target.name):
                raise InputError(f"--{flag} {path} may be a part of {each}; name another file.")


def check_csv(given: Namespace, flag: str) -> None:
    """As `check_file`, for a csv file: a later command would read it in the format that its name says."""
    from textcl.data.formats import is_text_file

    path = str(getattr(given, flag))
    if is_text_file(path) and not path.lower().endswith(".csv"):
        raise InputError(f"--{flag} {path} would hold csv, and would be read as something else; end the name in .csv.")
    check_file(given, flag)


def _named(given: Namespace, flag: str) -> Iterator[str]:
    """What the other arguments say, each item of a list by itself; some of it may be paths."""
    for name, value in vars(given).items():
        if name != flag and isinstance(value, (str, list)):
            yield from (str(each) for each in ([value] if isinstance(value, str) else value) if each)


def show(result: Any, text: str, path: str | None) -> None:
    """Prints a command's result.

    Args:
        result: The result as JSON holds it.
        text: The result as people read it.
        path: What --json names: a file that `result` is written to, '-' to print `result` in place of `text`, or None.
    """
    if path == "-":
        print(_json(result, indent=2))
        return
    try:
        if path:
            write_json(path, json_value(result))
    finally:  # whatever becomes of the file
        say(text)


def show_line(value: Any) -> None:
    """Prints one of several results at once, so that a program that reads them need not wait: text, or a JSON line."""
    print(printable(value) if isinstance(value, str) else _json(value), flush=True)


def _json(value: Any, indent: int | None = None) -> str:
    """JSON for standard output; characters that its encoding lacks are escapes, which any reader of JSON undoes."""
    value = json_value(value)
    text = json_escaped(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json_escaped(json.dumps(value, indent=indent, allow_nan=False))
    return text


def say(text: str) -> None:
    """Prints text; what would control the terminal is replaced. Commands print by this function or by `show`."""
    print(printable(text))


def columns(rows: list[list[str]]) -> str:
    """Rows of cells as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
