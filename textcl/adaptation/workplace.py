"""The vectors that an adaptation needs, kept beside its output until it is finished, so that a kill costs little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.seals import read_sealed, write_sealed
from textcl.vectors.kept_vectors import kept_vectors
from textcl.vectors.vectors import Vectors

SHARD_ROWS = 2048  # texts that a kill can cost


class Workplace:
    """A folder with plan and vectors.

    Args:
        folder: The folder.
        known: A directory of vectors of the user's; what it holds is not encoded again.
    """

    def __init__(self, folder: Path, known: Vectors | None = None) -> None:
        self.folder = folder
        self.known = known
        self._read: dict[str, Any] = {}

    def once(self, path: str, read: Callable[[str], Any]) -> Any:
        """What `read` makes of a file or folder of the user's, read once, so that what is found there is said once."""
        if path not in self._read:
            self._read[path] = read(path)
        return self._read[path]

    def plan(self, identity: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The plan of this work, made once: an interrupted work goes on with the same one, however fast it is then.

        Args:
            identity: A hash of everything that the work depends on.
            make: Makes the plan.

        Raises:
            InputError: The folder has the plan of another work.
        """
        path = self.folder / "plan.json"
        try:
            there = read_sealed(path)
        except FileNotFoundError:
            there = {"identity": identity, **make()}
            write_sealed(path, there)
        if there["identity"] != identity:
            raise InputError(
                f"{self.folder} holds the work of another command, which was interrupted; run that command again, name "
                "another output, or remove this folder."
            )
        return there

    def vectors(self, encoder: Encoder, texts: Sequence[str], prompt: str) -> np.ndarray:
        """The vectors of texts, (texts, dim); each distinct text is encoded once, and never again after a kill."""
        distinct = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(distinct)}
        rows = np.full((len(distinct), encoder.dimension), np.nan, np.float32)
        known = self.known
        if known and known.normalized == encoder.normalize and known.differs_from(encoder, prompt) is None:
            for text, vector in zip(*self._known, strict=True):
                if text in place:
                    rows[place[text]] = vector
        missing = [text for text, row in place.items() if np.isnan(rows[row, 0])]
        if blank := [text for text in missing if not text.strip()]:  # a corpus leaves them out
            rows[[place[text] for text in blank]] = encoder.encode(blank, prompt=prompt, show_progress_bar=False)
            missing = [text for text in missing if text.strip()]
        if missing:
            rows[[place[text] for text in missing]] = kept_vectors(
                encoder, missing, self.folder, prompt=prompt, shard_rows=SHARD_ROWS
            )
        return rows[[place[text] for text in texts]]

    @cached_property
    def _known(self) -> tuple[list[str], np.ndarray]:
        """The texts of the user's directory and their vectors, read once."""
        assert self.known is not None
        return self.known.texts(), self.known.vectors()
