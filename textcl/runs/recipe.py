"""A recipe: one flat mapping of flags that fixes method, model, data, arguments and seed of a run.

The keys of a recipe file are the flags of `textcl train`. They come from three places: the fields of `RunFlags`, the
parameters of the method's `__init__`, and the fields of `ContrastiveTrainingArguments`.
"""

import hashlib
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from textcl.data.training import find_corpus
from textcl.encoder.card import file_name
from textcl.encoder.load import BUNDLED
from textcl.errors import InputError, nearest
from textcl.evaluation.label_free import CRITERIA
from textcl.files import file_hash
from textcl.runs.flags import FlagParser, as_arguments, path_flags

logger = logging.getLogger("textcl")

RECIPES = Path(__file__).parents[1] / "recipes"

# Where a run's output goes and how it is reported: two runs that differ in these alone have the same weights.
COSMETIC = frozenset(
    {"output", "output_dir", "disable_tqdm", "report_to", "run_name", "project", "log_level", "log_level_replica"}
    | {"logging_first_step", "log_on_each_node", "resume_from_checkpoint", "hub_token", "save_total_limit"}
)


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: the method's name and a value for every flag, defaults included.

    Attributes:
        method: A name in `METHODS`.
        flags: Every flag and its value, flat.
    """

    method: str
    flags: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `run.json`: nothing but what JSON holds."""
        return json.loads(json.dumps({"method": self.method, **self.flags}, default=str))

    def command(self) -> str:
        """The line of `textcl train` that makes this run again: all that is not at its default, files without folders.

        The seed is always named.
        """
        defaults = resolve({"method": self.method})[0].flags
        kept = {k: v for k, v in self.flags.items() if k not in COSMETIC and (v != defaults[k] or k == "seed")}
        for key, kind in path_flags(self.method).items():
            if kept.get(key):
                kept[key] = file_name(str(kept[key])) if kind == "model" else Path(kept[key]).name
        return shlex.join(["textcl", "train", self.method, *as_arguments(kept)])

    def fingerprint(self, data_sha256: str | None = None) -> str:
        """A hash of all that decides the run's weights: its flags, its data and the weights it starts from.

        Args:
            data_sha256: SHA-256 of the corpus, if it is known; else the corpus is read.
        """
        # what is not set decides nothing, so that a flag added later leaves the fingerprints of old runs as they are
        decisive = {k: v for k, v in self.to_dict().items() if k not in COSMETIC and v not in (None, [], {})}
        for key, kind in path_flags(self.method).items():
            value = decisive.get(key)
            if not value or value in ("stsb", "none", *CRITERIA):
                continue
            if kind == "model":
                folder = BUNDLED if value == "bundled" else Path(value)
                if folder.is_dir():
                    decisive[key] = [file_hash(path) for path in sorted(folder.rglob("*.safetensors"))]
            elif key == "data" and data_sha256:
                decisive[key] = data_sha256
            else:
                decisive[key] = file_hash(find_corpus(value))
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def recipe_file(name: str | Path) -> Path | None:
    """The file of a recipe that is named by its path or, if textcl ships it, by its stem."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    return None


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe file: a flat YAML mapping whose keys are flags. `method` is one of them.

    Raises:
        InputError: If there is no such file, or it holds anything but such a mapping.
    """
    file = recipe_file(path)
    if file is None:
        shipped = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
        raise InputError(f"There is no recipe {str(path)!r}.{nearest(str(path), shipped)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{file} is no recipe: it has to be a mapping of flags to values, such as 'method: simcse'.")
    if nested := [key for key, value in content.items() if isinstance(value, dict) and not key.endswith("_kwargs")]:
        raise InputError(f"{file}: a recipe is flat, but {nested[0]!r} holds a mapping.")
    return {key.replace("-", "_"): value for key, value in content.items()}


def resolve(
    recipe: Mapping[str, Any], arguments: Sequence[str] = (), parser: FlagParser | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Fills in every default of a recipe and converts its values to the flags' types.

    Args:
        recipe: Flags and values; `method` names the method (default: simcse).
        arguments: Command-line flags, which win over the recipe's.
        parser: A parser of that method with further flags of its own.

    Returns:
        The recipe, and the values of those further flags.

    Raises:
        InputError: For an unknown method or flag (the nearest is suggested), or a value of the wrong kind.
    """
    flags = dict(recipe)
    method = str(flags.pop("method", "simcse"))
    parser = parser or FlagParser(method)
    known = parser.known_flags()
    for key in flags:
        if key not in known:
            raise InputError(f"A recipe for {method} has no key {key!r}.{nearest(key, known)}")
    values, unknown = parser.parse_known_args([*as_arguments(flags), *arguments])
    if unknown:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            raise InputError(f"{flag!r} belongs to no flag.")
        raise InputError(f"There is no flag {flag}.{nearest(flag.lstrip('-').replace('-', '_'), known)}")
    resolved = vars(values)
    own = {f.name for group in parser.dataclass_types for f in group.__dataclass_fields__.values() if f.init}
    further = {key: resolved.pop(key) for key in list(resolved) if key not in own}
    output = resolved.pop("output_dir", None)
    resolved["output"] = resolved["output"] or output or f"runs/{method}"
    return Recipe(method, resolved), further
