"""A recipe: one flat mapping of flags that fixes method, model, data, arguments and seed of a run.

The keys of a recipe file are the flags of `textcl train`. They come from three places: the fields of `RunFlags`, the
parameters of the method's `__init__`, and the fields of `ContrastiveTrainingArguments`.
"""

import hashlib
import inspect
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from textcl.data.retrieval import beir_dev_split, beir_files
from textcl.encoder.card import file_name
from textcl.errors import InputError, UnknownFlag, nearest
from textcl.evaluation.label_free import CRITERIA
from textcl.files import file_hash
from textcl.methods.find import find_method, is_own
from textcl.runs.flags import FlagParser, as_arguments, beir_folder, path_flags, without_folders
from textcl.runs.identity import Identities


class _Loader(yaml.SafeLoader):
    """YAML 1.2 without aliases: `042` is 42, and `no`, `on`, `1:30` and `2026-01-31` are texts.

    Aliases are refused since a few lines of them can stand for billions of values, and no recipe needs one.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012, as in the class that it extends

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="a recipe takes no aliases", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _kind, _pattern, _starts in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_starts))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))

RECIPES = Path(__file__).parents[1] / "recipes"

# How a fingerprint identifies models; recipe.json has it. Before there was this number, only by their weights.
SCHEME = 2

# Where the output of a run goes and what is reported; `Recipe.command` leaves these out.
_REPORTING = frozenset(
    {"output", "output_dir", "disable_tqdm", "report_to", "run_name", "project", "log_level", "log_level_replica"}
    | {"logging_first_step", "log_on_each_node", "hub_token", "save_total_limit"}
)
# Flags that do not change the weights of a run; the others are how it is logged and saved, and how batches are loaded.
COSMETIC = frozenset(
    _REPORTING
    | {"logging_steps", "logging_strategy", "save_steps", "save_strategy", "save_on_each_node", "skip_memory_metrics"}
    | {"dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_in_order"}
    | {"dataloader_persistent_workers", "dataloader_multiprocessing_context", "enable_jit_checkpoint"}
    | {"trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "torch_empty_cache_steps", "ddp_timeout"}
)


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: the method's name and a value for every flag, defaults included.

    Attributes:
        method: The method's name, see `find_method`.
        flags: Every flag, with underscores, and its value.
    """

    method: str
    flags: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as `run.json` holds it: only values that JSON has."""
        return json.loads(json.dumps({"method": self.method, **self.flags}, default=str))

    def command(self) -> str:
        """The line of `textcl train` that repeats this run: the seed, and every flag that is not at its default.

        Files are named without their folders.
        """
        defaults = resolve({"method": self.method})[0].flags
        kept = {k: v for k, v in self.flags.items() if k not in _REPORTING and (v != defaults[k] or k == "seed")}
        for key, kind in path_flags(self.method).items():
            if isinstance(value := kept.get(key), list):
                kept[key] = [without_folders(each) for each in value]
            elif value:
                kept[key] = file_name(str(value)) if kind == "model" else without_folders(value)
        if checkpoint := kept.get("resume_from_checkpoint"):
            kept["resume_from_checkpoint"] = Path(checkpoint).name
        return shlex.join(["textcl", "train", self.method, *as_arguments(kept)])

    def fingerprint(self, known: Mapping[str, str] | None = None, identities: Identities | None = None) -> str:
        """A hash of what determines the run's weights: its flags, its data and all files of the models it names.

        Of an own method, the file that defines it counts too, but not what that file imports.

        Args:
            known: The hashes of flags that are known already, such as that of the corpus for `data`; the other files
                and models are read.
            identities: Keeps the hashes of what was read, for other recipes.
        """
        # unset flags are left out, so that a flag added later does not change the fingerprints of old runs
        decisive = {k: v for k, v in self.to_dict().items() if k not in COSMETIC and v not in (None, [], {})}
        if not self.flags.get("dedup"):
            decisive.pop("dedup", None)
        if is_own(self.method):
            decisive["method_sha256"] = file_hash(Path(inspect.getfile(find_method(self.method))))
        decisive |= (identities or Identities()).of(self.method, self.flags, known)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def recipe_file(name: str | Path) -> Path | None:
    """The file of a recipe, from its path or from the name of a shipped recipe; None if there is no such file."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    return None


def shipped_recipes() -> list[str]:
    """The names of the recipes that textcl ships."""
    return sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))


def load_recipe(path: str | Path, *, allow_code: bool = False) -> dict[str, Any]:
    """Reads a recipe file: a flat YAML mapping whose keys are flags, and `method`.

    Args:
        path: The file, or the name of a shipped recipe.
        allow_code: Whether the recipe may name an own method, package.module:ClassName. Its code is then run.

    Raises:
        InputError: If there is no such file, it does not hold such a mapping, or it names an own method without
            `allow_code`.
    """
    file = recipe_file(path)
    if file is None:
        near = nearest(str(path), shipped_recipes()) or " textcl recipes lists those that textcl ships."
        raise InputError(f"There is no recipe {str(path)!r}.{near}")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{file}{where} is not YAML of a recipe: {error.problem or error.context}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes, numbers and depths that Python cannot hold
        raise InputError(f"{file} is not YAML: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{file} is not a recipe: it must be a mapping of flags to values, such as 'method: simcse'.")
    if nested := [key for key, value in content.items() if isinstance(value, dict) and not key.endswith("_kwargs")]:
        raise InputError(f"{file}: a recipe is flat, but {nested[0]!r} holds a mapping.")
    listed = [cell for value in content.values() if isinstance(value, list) for cell in value]
    if any(isinstance(cell, (list, dict)) for cell in listed):
        raise InputError(f"{file}: a recipe is flat, but one of its lists holds a list or a mapping.")
    method = str(content.get("method", ""))
    if is_own(method) and not allow_code:
        raise InputError(
            f"{file} names the method {method}, whose code would be run; read that code, and give --allow-code if you "
            "trust it."
        )
    recipe = {key.replace("-", "_"): value for key, value in content.items()}
    if len(recipe) < len(content):
        raise InputError(f"{file} names a flag twice, with dashes and with underscores.")
    return recipe


def resolve(
    recipe: Mapping[str, Any], arguments: Sequence[str] = (), parser: FlagParser | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Fills in every default of a recipe and converts its values to the flags' types.

    Args:
        recipe: Flags and values; `method` names the method (default: simcse).
        arguments: Command-line flags, which override the recipe's.
        parser: A parser of that method that has further flags.

    Returns:
        The recipe, and the values of those further flags.

    Raises:
        InputError: For an unknown method or flag (the nearest is suggested), or a value of the wrong type.
    """
    flags = dict(recipe)
    method = str(flags.pop("method", "simcse"))
    parser = parser or FlagParser(method)
    own = {f.name for group in parser.dataclass_types for f in group.__dataclass_fields__.values() if f.init}
    for key in flags:
        if key not in own:
            raise InputError(f"A recipe for {method} has no key {key!r}.{nearest(key, own)}")
    values, unknown = parser.parse_known_args([*as_arguments(flags), *arguments])
    if unknown:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            raise InputError(f"{flag!r} is not the value of a flag; flags begin with two dashes, as in --seed 3.")
        raise UnknownFlag(flag, parser.known_flags(), parser.prog)
    resolved = vars(values)
    further = {key: resolved.pop(key) for key in list(resolved) if key not in own}
    dev, known = resolved["dev"], ["stsb", "none", *CRITERIA]
    if (folder := beir_folder(dev)) is not None:
        if not folder.is_dir():
            raise InputError(f"--dev {dev} names the folder {str(folder)!r}, which does not exist.")
        if missing := [file for file in beir_files(folder, beir_dev_split(folder)) if not file.is_file()]:
            raise InputError(f"--dev {dev} needs a folder in BEIR's layout, but there is no file {missing[0]}.")
    elif dev and dev not in known and not Path(dev).suffix and not Path(dev).exists():
        raise InputError(
            f"--dev {dev} is neither a file of labelled pairs, nor beir:FOLDER, nor one of {', '.join(known)}."
            f"{nearest(dev, known)}"
        )
    output = resolved.pop("output_dir", None)
    resolved["output"] = resolved["output"] or output or f"runs/{method.replace(':', '-')}"
    return Recipe(method, resolved), further
