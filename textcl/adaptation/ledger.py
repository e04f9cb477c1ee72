"""How often the same evidence was looked at: of twenty settings that change nothing, one looks better by chance."""

from __future__ import annotations

import json
import os
from pathlib import Path

from textcl.environment import cache_directory
from textcl.errors import InputError
from textcl.files import atomic_write, check_output
from textcl.locks import waited_for


def ledger_path() -> Path:
    """The ledger in the user's cache folder."""
    return cache_directory() / "textcl" / "looks" / "looks.jsonl"


def check_ledger(path: str | os.PathLike[str] | None = None) -> None:
    """Reads the ledger and tries whether it can be written. Call it before the work that ends with a look.

    Args:
        path: The ledger; default: the one in the user's cache folder.

    Raises:
        InputError: The ledger cannot be written or read, or it has a line that is not a look.
    """
    place = ledger_path() if path is None else Path(path)
    try:
        check_output(place)
    except InputError as error:
        raise InputError(f"The ledger {str(error).rstrip('.')}; name another file with --ledger.") from None
    _read(place)


def count_look(evidence: str, look: str, path: str | os.PathLike[str] | None = None) -> int:
    """The number of this look at the evidence, from 1. A look that was taken before keeps its number.

    Args:
        evidence: A hash of the content that judges.
        look: A hash of all that is judged by it: models, settings, texts that are trained on.
        path: The ledger; default: the one in the user's cache folder.

    Raises:
        InputError: The ledger cannot be written or read, or it has a line that is not a look.
    """
    place = ledger_path() if path is None else Path(path)
    with waited_for(place):
        entries = _read(place)
        looks = [entry["look"] for entry in entries if entry["evidence"] == evidence]
        if look not in looks:
            looks.append(look)
            entries.append({"evidence": evidence, "look": look})
            with atomic_write(place) as temporary:
                temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return looks.index(look) + 1


def _read(place: Path) -> list[dict[str, str]]:
    """The looks of a ledger; none if there is no file."""
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"The ledger {place} cannot be read: {reason}; name another file with --ledger.") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entries.append({"evidence": entry["evidence"], "look": entry["look"]})
        except (ValueError, RecursionError, KeyError, TypeError):
            raise InputError(
                f"The ledger {place}, line {number}, is not a look of textcl adapt; remove that line, or name another "
                "file with --ledger."
            ) from None
    return entries
