"""Writes files so that an interruption at any moment leaves either the old or the new content, never half of it.

Results are lines of JSON: several processes may add to one file at the same time, and a line that an interruption left
incomplete is skipped.
"""

import hashlib
import json
import logging
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textcl.errors import InputError

logger = logging.getLogger("textcl")

SCHEMA = 1  # the version of the format of a line of results


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path`. If the block ends without an error, the file there is renamed to `path`.

    Example:
        >>> with atomic_write("scores.json") as temporary:
        ...     _ = temporary.write_text("{}")
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary directory, which is renamed to `path` like the file of `atomic_write`; replaces an old one."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "tmp")
    replaced = _beside(target, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            os.replace(target, replaced)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        content = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_bytes(content.encode("utf-8", "backslashreplace"))  # names of files may not be UTF-8


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def safetensors_files(folder: Path) -> list[Path]:
    """The files of a model's weights: model.safetensors, or those that model.safetensors.index.json names; else none.

    Raises:
        InputError: If the index cannot be read, or names a file that is not a safetensors file of the same folder.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{index} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise InputError(f"{index} is damaged: it must hold an object with a weight_map.")
    for name in files.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
            raise InputError(
                f"{index} names the file {name!r}. Weights are loaded only from .safetensors files of the same folder, "
                "for safety."
            )
    return [folder / name for name in sorted(set(files.values()))]


def append_result(path: str | os.PathLike[str], line: dict[str, Any]) -> None:
    """Adds a line to a file of results and waits until it is on disk.

    The line is written in one call at the end of the file, after a line break, so that it does not mix with the line of
    another process or with an incomplete line.
    """
    text = json.dumps({"schema": SCHEMA, **line}, ensure_ascii=False)
    content = b"\n" + text.encode("utf-8", "backslashreplace") + b"\n"
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if (written := os.write(handle, content)) < len(content):
            raise InputError(f"Only {written:,} of {len(content):,} bytes were written to {target}. Is the disk full?")
        os.fsync(handle)
    finally:
        os.close(handle)


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a file of results, without incomplete ones; an empty list if there is no file.

    Raises:
        InputError: If the file was written by a version of textcl whose results have another schema.
    """
    file = Path(path)
    lines = []
    for number, raw in enumerate(file.read_bytes().split(b"\n") if file.exists() else [], start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            logger.warning("%s, line %d is incomplete and was skipped.", file, number)
            continue
        schema = line.pop("schema", None) if isinstance(line, dict) else None
        if schema != SCHEMA:
            raise InputError(
                f"{file}, line {number} has results of schema {schema}, and this version of textcl reads schema "
                f"{SCHEMA}. Move the file away, or name another folder."
            )
        lines.append(line)
    return lines


def _beside(target: Path, ending: str) -> Path:
    """A hidden name next to the target that only this process uses, even if several machines share a disk."""
    return target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.{ending}")


def target_of(path: str) -> str:
    """The path whose temporary name this is, for messages; another path unchanged."""
    named = re.fullmatch(rf"\.(.+)\.{re.escape(platform.node())}\.\d+\.(tmp|old)", Path(path).name)
    return str(Path(path).with_name(named[1])) if named else path
