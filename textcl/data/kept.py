"""Rows that were read once and are kept in an Arrow file, which later runs map into memory.

The texts of a corpus of any size then take no memory of the process. The files are in the user's cache; they may be
removed at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textcl.data.arrow_files import from_file, in_memory, write_file
from textcl.environment import cache_directory
from textcl.errors import DiskFull, InputError
from textcl.files import atomic_write, content_hash
from textcl.seals import differs, read_sealed, seal, write_sealed
from textcl.version import __version__

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

logger = logging.getLogger("textcl")


def kept(
    made_of: Mapping[str, Any],
    names: Sequence[str],
    make: Callable[[dict[str, Any]], Iterator[pyarrow.RecordBatch]],
) -> tuple[Dataset, dict[str, Any]]:
    """The rows that `make` yields, from the file of an earlier call if there is one.

    Args:
        made_of: All that the rows depend on: equal values mean equal rows.
        names: The names of the columns.
        make: Yields the rows in batches, and puts what it found into a dictionary. It is not called if the rows are
            kept already.

    Returns:
        The rows, and what was found when they were made. If no file can be written, a warning is logged, and the rows
        are in memory.
    """
    digest = content_hash({"made_of": dict(made_of), "columns": list(names), "textcl": __version__})
    folder = cache_directory() / "corpora"
    path = folder / f"{digest}.arrow"
    found = _found(path)
    if found is None:
        found = {}
        try:
            with atomic_write(path) as temporary:
                write_file(temporary, make(found), names)
            write_sealed(path.with_suffix(".json"), {"files": seal(folder, [path.name]), "found": found})
        except (OSError, DiskFull) as error:
            logger.warning("The corpus cannot be saved to a file (%s); its texts are in memory.", error)
            found = {}
            return in_memory(make(found), names), found
    return from_file(path, digest), found


def _found(path: Path) -> dict[str, Any] | None:
    """What was found when a file was made; None if the file is missing, or is not what was written."""
    try:
        sealed = read_sealed(path.with_suffix(".json"))
        if differs(path.parent, sealed.get("files")) is not None:
            logger.warning("%s is damaged; the corpus is read again.", path)
            return None
    except (OSError, InputError):
        return None
    found = sealed.get("found")
    return found if isinstance(found, dict) else None
