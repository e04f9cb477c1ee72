"""`textcl train METHOD|RECIPE [flags]`"""

import os
from collections.abc import Sequence

from textcl.errors import InputError

USAGE = """\
textcl train METHOD --data FILE [flags]     the method's defaults
textcl train RECIPE [flags]                 a recipe's keys are the flags; flags given here win
textcl train METHOD --help                  every flag"""


def main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    what, *flags = arguments
    if what.startswith("-"):
        raise InputError("Name the method or the recipe first, as in: textcl train simcse --data wiki.txt.")

    from textcl.runs.flags import FlagParser
    from textcl.runs.recipe import load_recipe, recipe_file, resolve
    from textcl.runs.run import run_recipe

    recipe = load_recipe(what) if recipe_file(what) or what.endswith((".yaml", ".yml")) else {"method": what}
    parser = FlagParser(str(recipe.get("method", "simcse")), prog=f"textcl train {what}", usage=USAGE)
    parser.add_argument("--resume", action="store_true", help="go on with the run that the output directory holds")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the output directory holds")
    resolved, further = resolve(recipe, flags, parser)
    if further["resume"] and further["overwrite"]:
        raise InputError("--resume goes on with a run and --overwrite replaces it; give one of them.")
    result = run_recipe(resolved, **further)
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process prints
        return

    record = result.record
    dev = f", {record.dev.set} {record.dev.score:.2f}" if record.dev else ""
    print(
        f"{record.data.rows:,} rows, {record.steps:,} steps, {record.seconds:.0f} s{dev}\n"
        f"encoder: {result.export}\nrecord:  {result.output / 'run.json'}"
    )
