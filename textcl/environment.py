"""What a process finds around it: its rank, the home of the user, and the folder for cached files."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from textcl.errors import InputError


@contextmanager
def without_parallel_tokenizers() -> Iterator[None]:
    """Sets TOKENIZERS_PARALLELISM to false, unless it is set: else tokenizers warns whenever a worker is forked.

    It is unset afterwards, because it would keep all later texts of the process on one core.
    """
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that torchrun started.

    Attributes:
        rank: The number of the process, from 0.
        ranks: The number of processes.
        local_rank: The number of the process on its machine, from 0.
    """

    rank: int
    ranks: int
    local_rank: int


def launched() -> Launch:
    """Reads RANK, WORLD_SIZE and LOCAL_RANK; without them this is the only process.

    Raises:
        InputError: They are not numbers, or RANK is not below WORLD_SIZE.
    """
    given = {name: os.environ.get(name) or None for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    rank, ranks, local = given["RANK"] or "0", given["WORLD_SIZE"] or "1", given["LOCAL_RANK"] or given["RANK"] or "0"
    numbers = [int(each) if each.isascii() and each.isdigit() else -1 for each in (rank, ranks, local)]
    lone = given["RANK"] is None and numbers[1] > 1
    if min(numbers) < 0 or numbers[0] >= numbers[1] or lone:
        said = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        raise InputError(
            f"The environment has {said}, but RANK must be a whole number from 0 and below WORLD_SIZE. torchrun sets "
            "them all; unset them to run one process."
        )
    return Launch(*numbers)


def home() -> Path | None:
    """The home of the user; None if there is none, as for a user number without an account in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def cache_directory() -> Path:
    """textcl's folder in the user's cache, or without a home in the temporary folder; it may not exist yet."""
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    if chosen := os.environ.get(variable):
        return Path(chosen) / "textcl"
    own = home()
    if own is None:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"textcl-{user}"
    caches = {"win32": own / "AppData" / "Local", "darwin": own / "Library" / "Caches"}
    return caches.get(sys.platform, own / ".cache") / "textcl"


def is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
