"""Seals: the size and the SHA-256 of what textcl wrote, by which it notices a change before it reads the files again.

A seal of files is a dictionary `{name: {"size": bytes, "sha256": hash}}`, kept in a JSON file that has a seal of its
own: the key "sha256" is the hash of its other keys.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import content_hash, file_hash, write_json

Seal = dict[str, dict[str, Any]]


def seal(folder: Path, names: Iterable[str] | None = None) -> Seal:
    """The seal of some files in a folder.

    Args:
        folder: The folder.
        names: The files, relative to the folder; default: all files below it.
    """
    if names is None:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: _state(folder / name) for name in names}


def differs(folder: Path, sealed: Any) -> str | None:
    """The name of the first file that is not what its seal says, or is missing; None if all agree.

    Args:
        folder: The folder of the files.
        sealed: What `seal` returned, read back from a file that itself may be damaged.
    """
    if not isinstance(sealed, dict) or not sealed:
        return "its seal"
    for name, state in sealed.items():
        path = folder / name
        try:
            if path.stat().st_size != state["size"] or _state(path) != state:
                return name
        except (OSError, KeyError, TypeError):
            return name
    return None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a dictionary as JSON with the SHA-256 of its content as its last key."""
    write_json(path, {**value, "sha256": content_hash(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The dictionary that `write_sealed` wrote, without its SHA-256. A file without one is taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is damaged.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it does not have the content that textcl wrote.") from None
    if not isinstance(value, dict) or value.pop("sha256", hashed := content_hash(value)) != hashed:
        raise InputError(f"{path} is damaged: it does not have the content that textcl wrote.")
    return value


def agrees(mark: Path, **about: Any) -> bool:
    """Whether a mark, written by `write_sealed`, has the entries `about` and, under "files", a seal that agrees."""
    try:
        there = read_sealed(mark)
    except (OSError, InputError):  # missing or damaged
        return False
    return {name: there.get(name) for name in about} == about and differs(mark.parent, there.get("files")) is None


def _state(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": file_hash(path)}
