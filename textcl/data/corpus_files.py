"""The files of a corpus: one file, or those that match a pattern such as shards/*.jsonl.zst, and a hash of them all."""

from __future__ import annotations

import glob
import hashlib
import json
from pathlib import Path

from textcl.data.formats import check_file
from textcl.errors import InputError
from textcl.files import file_hash


class CorpusFiles:
    """The files of a corpus as they were when they were hashed. The readers of `textcl.data` take it like a path.

    Args:
        path: A file or a pattern, see `files_of`.

    Attributes:
        path: The file or the pattern.
        files: The files, sorted by their names.
        sha256: The SHA-256 of the file; of several, a hash of the SHA-256 of each, in their order.
        rows_read: The number of rows in the files, once `training_rows` has read them.

    Raises:
        InputError: As in `files_of`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = files_of(path)
        self._state = self._states()
        hashes = [file_hash(file) for file in self.files]
        self.sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
        self.rows_read: int | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

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


def files_of(path: Path) -> list[Path]:
    """The files that a path names: the file itself, or those that a pattern matches, sorted by their names.

    Hidden files are not matched. ** stands for any number of folders.

    Raises:
        InputError: There is no such file, or it is a directory, a pipe or a device.
    """
    if is_pattern(path):
        files = [found for name in sorted(glob.glob(str(path), recursive=True)) if not (found := Path(name)).is_dir()]
        if not files:
            raise InputError(f"No file matches the pattern {path}.")
    else:
        files = [path]
    for file in files:
        check_file(file)
    return files
