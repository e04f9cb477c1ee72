"""`textcl recipes [--json PATH|-]`"""

from collections.abc import Sequence
from typing import Any

from textcl.cli.main import Parser
from textcl.cli.output import columns, parsed, show


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl recipes",
        description="The recipes that textcl ships: name, method, model, data, description. textcl train RECIPE trains "
        "by one; its files are where the data folder has them, see textcl data --help.",
    )
    given = parsed(parser, arguments)

    recipes = list_recipes()
    text = columns([[each[key] for key in ("name", "method", "model", "data", "description")] for each in recipes])
    show(recipes, text, given.json)


def list_recipes() -> list[dict[str, Any]]:
    """Each shipped recipe: the method, model and data that it names, and the first line of its file."""
    from textcl.runs.recipe import RECIPES, load_recipe, shipped_recipes

    found = []
    for name in shipped_recipes():
        recipe = load_recipe(name)
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        named = {key: str(recipe[key]) for key in ("method", "model", "data")}
        found.append({"name": name, **named, "description": first.removeprefix("# ")})
    return found
