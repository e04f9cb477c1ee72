"""`textcl train METHOD|RECIPE [flags]`"""

import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin

from textcl.cli.output import say
from textcl.errors import InputError, nearest

USAGE = """\
textcl train METHOD --data FILE [flags]     a method, with its defaults
textcl train RECIPE [flags]                 a recipe, whose keys are flags; flags given here override them
textcl train METHOD|RECIPE --help           the flags of the run and of the method, each in one line
textcl train METHOD|RECIPE --help-all       those of transformers as well, each with its whole text

METHOD  a name that `textcl methods` lists, or package.module:ClassName for your own, which
        the current folder may hold
RECIPE  a name that `textcl recipes` lists, or a YAML file"""

FLAGS = {
    "resume": "Continue the run in the output directory.",
    "overwrite": "Replace the run in the output directory.",
    "allow_code": "Let a recipe name an own method, package.module:ClassName, and run its code.",
}
# The flags of transformers that --help shows.
COMMON = {"seed", "learning_rate", "per_device_train_batch_size", "num_train_epochs", "max_steps", "eval_steps", "bf16"}
TYPES = {int: "INT", float: "FLOAT", list[str]: "TEXT ..."}
COLUMN = 38  # where help texts begin


def main(arguments: Sequence[str]) -> None:
    if not arguments:
        say(USAGE)
        raise InputError("Name a method or a recipe, as in: textcl train simcse --data wiki.txt.")
    what, *flags = arguments
    if what in ("-h", "--help", "--help-all"):
        say(USAGE)
        return
    if what.startswith("-"):
        raise InputError("Name the method or the recipe first, as in: textcl train simcse --data wiki.txt.")

    from textcl.methods import METHODS
    from textcl.methods.find import is_own
    from textcl.runs.flags import FlagParser
    from textcl.runs.recipe import load_recipe, recipe_file, resolve, shipped_recipes
    from textcl.runs.run import run_recipe

    if recipe_file(what) or what.endswith((".yaml", ".yml")):
        recipe = load_recipe(what, allow_code=bool({"--allow-code", "--allow_code"} & {*flags}))
    elif what in METHODS or is_own(what):
        recipe = {"method": what}
    else:
        near = nearest(what, [*METHODS, *shipped_recipes()])
        raise InputError(f"There is no method or recipe {what!r}.{near} textcl methods and textcl recipes list them.")
    parser = FlagParser(str(recipe.get("method", "simcse")), prog=f"textcl train {what}")
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    if {"-h", "--help", "--help-all"} & {*flags}:
        say(help_page(parser, everything="--help-all" in flags))
        return
    resolved, further = resolve(recipe, flags, parser)
    del further["allow_code"]
    if further["resume"] and further["overwrite"]:
        raise InputError("--resume continues a run and --overwrite replaces it; give one of them.")
    result = run_recipe(resolved, **further)
    record = result.record
    say(
        f"{record.data.rows:,} rows, {record.steps:,} steps, {record.seconds:.0f} s\n"
        f"encoder: {result.export}\nrecord:  {result.output / 'run.json'}\n{record.verdict()}"
    )


def help_page(parser: Any, *, everything: bool = False) -> str:
    """The flags of a run in their groups, one line each.

    Args:
        parser: A `FlagParser`.
        everything: Show all flags of transformers too, and help texts in full.
    """
    from transformers import TrainingArguments

    hidden = {"output_dir"} if everything else {field.name for field in fields(TrainingArguments)} - COMMON
    width = max(shutil.get_terminal_size((120, 24)).columns, 80) - COLUMN
    lines = [USAGE, "", "Flags are shown with their defaults; those without one are followed by their type."]
    for group in parser.dataclass_types:
        entries = [_entry(field, parser) for field in fields(group) if field.init and field.name not in hidden]
        if group._argument_group_name == "run":
            entries += [(f"--{name.replace('_', '-')}", text) for name, text in FLAGS.items()]
        lines += ["", f"{group._argument_group_name}:"] if entries else []
        for flag, text in entries:
            first, *more = textwrap.wrap(text, width) if everything else [_beginning(text, width)]
            lines += [f"  {flag}  ".ljust(COLUMN) + first, *(" " * COLUMN + line for line in more)]
    return "\n".join(line.rstrip() for line in lines)


def _entry(field: Any, parser: Any) -> tuple[str, str]:
    """A flag with its default, that of the method if it has its own, or its type, and its help text."""
    default = parser.get_default(field.name)
    if default in (MISSING, None, "", []):
        value = "true|false" if bool in get_args(field.type) else TYPES.get(field.type, "TEXT")
    else:
        value = str(default).lower() if isinstance(default, bool) else str(default)
    text = " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
    if get_origin(field.type) is Literal:
        text = f"{', '.join(map(str, get_args(field.type)))}: {text}"
    return f"--{field.name.replace('_', '-')} {value}", text


def _beginning(text: str, width: int) -> str:
    """The first sentences of a text, as many as fit into a line; of a long sentence, its beginning."""
    line, *sentences = re.split(r"(?<=\.) ", text)
    for sentence in sentences:
        if len(f"{line} {sentence}") > width:
            break
        line = f"{line} {sentence}"
    return textwrap.shorten(line, width, placeholder=" …")
