"""What a command prints: text for people, or JSON for programs."""

import json
from typing import Any

from textcl.cli.main import Parser
from textcl.files import check_output, write_json
from textcl.terminal import json_escaped, printable
from textcl.texts import in_one_line as in_one_line
from textcl.texts import spreadsheet_safe as spreadsheet_safe


def add_json_flag(parser: Parser) -> None:
    parser.add_argument(
        "--json", metavar="PATH", help="write the result to PATH as JSON; '-': print JSON, nothing else"
    )


def check_json(path: str | None) -> None:
    """Raises an error if what --json names cannot be written, before the work whose result it is for."""
    if path not in (None, "-"):
        check_output(str(path))


def show(result: Any, text: str, path: str | None) -> None:
    """Prints a command's result.

    Args:
        result: The result as JSON holds it.
        text: The result as people read it.
        path: What --json names: a file that `result` is written to, '-' to print `result` in place of `text`, or None.
    """
    if path == "-":
        print(json_escaped(json.dumps(result, indent=2, ensure_ascii=False)))
        return
    try:
        if path:
            write_json(path, result)
    finally:  # whatever becomes of the file
        say(text)


def show_line(value: Any) -> None:
    """Prints one of several results at once, so that a program that reads them need not wait: text, or a JSON line."""
    text = printable(value) if isinstance(value, str) else json_escaped(json.dumps(value, ensure_ascii=False))
    print(text, flush=True)


def say(text: str) -> None:
    """Prints text; what would control the terminal is replaced. Commands print by this function or by `show`."""
    print(printable(text))


def columns(rows: list[list[str]]) -> str:
    """Rows of cells as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
