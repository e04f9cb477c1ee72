"""How often the same evidence was looked at: of twenty settings that change nothing, one looks better by chance."""

from __future__ import annotations

import json
import os
from pathlib import Path

from textcl.environment import cache_directory
from textcl.files import atomic_write
from textcl.locks import taken


def ledger_path() -> Path:
    """The ledger in the user's cache folder."""
    return cache_directory() / "textcl" / "looks" / "looks.jsonl"


def count_look(evidence: str, look: str, path: str | os.PathLike[str] | None = None) -> int:
    """The number of this look at the evidence, from 1. A look that was taken before keeps its number.

    Args:
        evidence: A hash of the content that judges.
        look: A hash of all that is judged by it: models, settings, texts that are trained on.
        path: The ledger; default: the one in the user's cache folder.

    Raises:
        InputError: The ledger cannot be written, or another process uses it.
    """
    place = ledger_path() if path is None else Path(path)
    with taken(place.parent):
        lines = place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
        entries = [json.loads(line) for line in lines]
        looks = [entry["look"] for entry in entries if entry["evidence"] == evidence]
        if look not in looks:
            looks.append(look)
            lines.append(json.dumps({"evidence": evidence, "look": look}))
            with atomic_write(place) as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return looks.index(look) + 1
