"""Reads the files of a model directory that came from somebody else: JSON whose keys must be known, and safetensors.

Each JSON file is compared with the keys that textcl knows. A key that textcl does not know may change the vectors, so
it is an error, unless it has the one value that changes nothing. Nothing outside the directory is read.
"""

import json
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from textcl.errors import InputError
from textcl.files import read_json
from textcl.model_files import safetensors_files


def inside(folder: Path, path: str, *, may_be_missing: bool = False) -> Path:
    """The folder `path` of a model directory.

    Raises:
        InputError: If it is outside of the directory, or missing and must not be.
    """
    place = folder / path
    try:
        within = place.resolve().is_relative_to(folder.resolve())
        there = place.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # an over-long name, a NUL character, a circle of links
        raise InputError(f"{folder / 'modules.json'} names the folder {path!r}: {error}.") from error
    if not within:
        raise InputError(f"{folder / 'modules.json'} names the folder {path!r}, which is outside of the directory.")
    if not there and not may_be_missing:
        raise InputError(f"{folder / 'modules.json'} names the folder {path!r}, which does not exist.")
    return place


def content_of(file: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object; empty if there is no file.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{file} is damaged: it must hold a JSON object, not a {type(content).__name__}.")
    return content


def understood(file: Path, keys: Collection[str], **only: Collection[Any]) -> dict[str, Any]:
    """The content of a JSON file, all of whose keys textcl understands.

    Args:
        file: The file; if it is missing, the content is empty.
        keys: The keys that are read.
        **only: Keys that are not read, and the values that change nothing.

    Raises:
        InputError: If there is another key, with its name, or the file cannot be read.
    """
    content = content_of(file)
    for key, value in content.items():
        if key not in keys and value not in only.get(key, ()):
            raise InputError(
                f"{file} says {key}: {json.dumps(value)[:80]}, which textcl does not know. It may change the vectors, "
                "so the model is not loaded; if it changes nothing, remove the key."
            )
    return content


def typed(file: Path, content: Mapping[str, Any], key: str, kind: type, default: Any = ...) -> Any:
    """The value of a key, of the given type; `default` if it is missing.

    Raises:
        InputError: If the value has another type, is a number below 1, or is missing without a default.
    """
    value = content.get(key, default)
    if value is ...:
        raise InputError(f"{file} lacks the key {key}.")
    if value is default:
        return value
    wrong = not isinstance(value, kind)
    if isinstance(value, int) and kind is int:
        wrong = isinstance(value, bool) or value < (0 if key == "layer_start" else 1)
    if wrong:
        raise InputError(f"{file} says {key}: {json.dumps(value)[:80]}, which must be {_KINDS[kind]}.")
    return value


_KINDS = {int: "a positive integer", bool: "true or false", list: "a list", dict: "an object", str: "a string"}


def tensors(folder: Path, names: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a module's model.safetensors.

    Args:
        folder: The module's folder.
        names: Names that must be there.

    Raises:
        InputError: If there is no such file, it is damaged, or lacks one of the names.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no {path.name}: weights in a pickle file are not loaded, for safety. Load and save the "
            "model once with a recent sentence-transformers, which writes safetensors."
        )
    found = read_tensors(path)
    if lost := sorted(set(names) - set(found)):
        raise InputError(f"{path} lacks the weights {lost[0]}.")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        path.open("rb").close()  # says why if it cannot be opened; safetensors says that it is missing
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of the files that model.safetensors.index.json names.

    Raises:
        InputError: If there is neither, or a file cannot be read.
    """
    files = safetensors_files(folder)
    if not files:
        return tensors(folder)  # says what is missing
    found: dict[str, Tensor] = {}
    for file in files:
        found.update(read_tensors(file))
    return found


def check_requirements(file: Path, requirements: Any) -> None:
    """Refuses a model that needs another version of a library than the installed one.

    Args:
        file: The file that names them, for the message.
        requirements: Name of a package: specifier such as ">=5.4", or an object with a `specifier` and a `reason`.

    Raises:
        InputError: If a package is missing or has another version; sentence-transformers may be missing.
    """
    if requirements is not None and not isinstance(requirements, dict):
        raise InputError(f"{file}: requirements must be an object of versions.")
    for name, required in (requirements or {}).items():
        specifier = required.get("specifier", "") if isinstance(required, dict) else required
        try:
            installed = version("torch" if name == "pytorch" else name)
            met = SpecifierSet(specifier, prereleases=True).contains(installed)
        except PackageNotFoundError:
            installed, met = "none", name == "sentence-transformers"
        except (InvalidSpecifier, InvalidVersion, TypeError, AttributeError, ValueError):
            raise InputError(f"{file} requires {name} {specifier!r}, which is not a version.") from None
        if not met:
            raise InputError(
                f"{file} requires {name}{specifier}, and {installed} is installed. Other versions give other vectors; "
                f'install it with: pip install "{name}{specifier}"'
            )
