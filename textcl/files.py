"""Writing files so that a kill at any moment leaves either the old content or the new, never half of it.

Results are lines of JSON: several processes may add to one file at the same time, and a line that a kill has torn is
passed over.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textcl.errors import InputError

logger = logging.getLogger("textcl")

SCHEMA = 1  # of a line of results


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there takes the name `path` when the block ends well.

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
    """The same for a directory; one that stands at `path` already is replaced."""
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
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def append_result(path: str | os.PathLike[str], line: dict[str, Any]) -> None:
    """Adds a line to a file of results and waits until it is on disk.

    The line goes out in one write at the end of the file, and begins a new one: neither another process nor a line that
    a kill has torn can get into it.
    """
    content = b"\n" + json.dumps({"schema": SCHEMA, **line}, ensure_ascii=False).encode() + b"\n"
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if (written := os.write(handle, content)) < len(content):
            raise InputError(f"{target} took {written:,} of {len(content):,} bytes; is the disk full?")
        os.fsync(handle)
    finally:
        os.close(handle)


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a file of results; none where there is no file, and without what a kill has torn.

    Raises:
        InputError: The file was written by a textcl whose results have another schema.
    """
    file = Path(path)
    lines = []
    for number, raw in enumerate(file.read_bytes().split(b"\n") if file.exists() else [], start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            logger.warning("%s, line %d is torn and ignored.", file, number)
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
    """A hidden name that is this process's own, also among the machines that share a disk."""
    return target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.{ending}")
