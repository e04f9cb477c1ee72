"""`textcl methods [--json PATH|-]`"""

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from textcl.cli.main import Parser
from textcl.cli.output import columns, parsed, show


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl methods",
        description="The methods: name, family (what avoids collapse), the rows that it needs, number of recipes and "
        "their names. textcl train METHOD --help lists the flags of one.",
    )
    given = parsed(parser, arguments)

    methods = list_methods()
    width = max(shutil.get_terminal_size((120, 24)).columns, 80)
    lines = columns([[each["name"], each["family"], each["needs"], str(len(each["recipes"]))] for each in methods])
    text = "\n".join(
        f"{line}  {_shortened(', '.join(each['recipes']), width - len(line) - 2)}"
        for line, each in zip(lines.splitlines(), methods, strict=True)
    )
    show(methods, text, given.json)


def list_methods() -> list[dict[str, Any]]:
    """Each method with its family, the rows that it needs, its paper and the recipes that textcl ships for it."""
    from textcl.cli.recipes import list_recipes
    from textcl.methods import METHODS

    recipes = list_recipes()
    return [
        {
            "name": name,
            "family": method.family,
            "needs": method.needs,
            "paper": method.paper,
            "recipes": [recipe["name"] for recipe in recipes if recipe["method"] == name],
        }
        for name, method in METHODS.items()
    ]


def _shortened(text: str, width: int) -> str:
    """The text, cut between names with an ellipsis if it is wider."""
    return textwrap.shorten(text, width, placeholder=" …", break_on_hyphens=False)
