"""The files of a corpus: one, several, or those that match a pattern such as shards/*.jsonl.zst, and their hash."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textcl.data.formats import check_file, is_text_file
from textcl.errors import InputError
from textcl.files import file_hash


class CorpusFiles:
    """The files of a corpus as they were when they were hashed. The readers of `textcl.data` take it like a path.

    Args:
        paths: Files and patterns, see `files_of`.

    Attributes:
        paths: These files and patterns.
        files: The files, in the order in which they are read.
        sha256: The SHA-256 of the file; of several, a hash of the SHA-256 of each, in their order.
        rows_read: The number of rows in the files, once `training_rows` has read them.

    Raises:
        InputError: As in `files_of`.
    """

    def __init__(self, paths: Path | Sequence[Path]) -> None:
        self.paths = [paths] if isinstance(paths, Path) else list(paths)
        self.files = files_of(self.paths)
        self._state = self._states()
        hashes = [file_hash(file) for file in self.files]
        self.sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
        self.rows_read: int | None = None

    def __str__(self) -> str:
        return name_of(self.paths)

    def check_unchanged(self) -> None:
        """Raises an `InputError` if a file was written since it was hashed."""
        for file, before, now in zip(self.files, self._state, self._states(), strict=True):
            if before != now:
                raise InputError(f"{file} changed while it was read; start again when it no longer changes.")

    def _states(self) -> list[tuple[int, ...]]:
        states = [file.stat() for file in self.files]
        return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in states]


def is_pattern(path: Path) -> bool:
    """Whether a path names no file itself but is a pattern, with *, ? or [."""
    return glob.has_magic(str(path)) and not path.exists() and not path.is_symlink()


def files_of(paths: Path | Sequence[Path]) -> list[Path]:
    """The files that paths name, in their order: the file itself, or those that a pattern matches, sorted by name.

    Hidden files are not matched. ** stands for any number of folders.

    Raises:
        InputError: There is no such file, or it is a directory, a pipe or a device.
    """
    files: list[Path] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        found = [path]
        if is_pattern(path):
            names = sorted(glob.glob(str(path), recursive=True))
            found = [file for name in names if not (file := Path(name)).is_dir()]
            if not found:
                raise InputError(f"No file matches the pattern {path}.")
        files += found
    for file in files:
        check_file(file)
    return files


def paths_in(source: Any) -> list[Path] | None:
    """The files and patterns that a source of texts names; None if it holds the texts itself.

    A list names files if it holds `Path` objects alone; a list of strings holds the texts themselves.

    Raises:
        InputError: All strings of a list end as names of files do.
    """
    if isinstance(source, CorpusFiles):
        return source.paths
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return [Path(source)]
    if isinstance(source, (list, tuple)) and source and all(isinstance(each, os.PathLike) for each in source):
        return [Path(each) for each in source]
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(each, str) and is_text_file(each) for each in source)
    ):
        name = str(source[0])
        raise InputError(
            f"The {type(source).__name__} names files by strings, which are read as texts: give Path({name!r}) for a "
            f"file, or {{'text': {name!r}}} for a text."
        )
    return None


def source_name(source: Any) -> str:
    """The name of a source of texts in messages: that of its files, else its kind."""
    paths = paths_in(source)
    return name_of(paths) if paths else f"the {type(source).__name__}"


def name_of(paths: Sequence[Path]) -> str:
    """The name of some files in messages and records: that of the first one, and how many more there are."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more"
