"""Counting rows that repeat an earlier one, without keeping the rows in memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

TOGETHER = 1 << 16  # hashes that are kept in memory


class Repeats:
    """Counts rows that are equal to an earlier one.

    Rows are compared by Python's hash of 64 bits. Among ten million different rows, the probability that any two are
    taken as equal is 3 in a million. From 65,536 rows on, the hashes are in a temporary file.

    Example:
        >>> repeats = Repeats()
        >>> for text in ("a", "b", "a", "a"):
        ...     repeats.add(text)
        >>> repeats.count()
        2
    """

    def __init__(self) -> None:
        self._part = array("q")
        self._file: Any = None

    def add(self, row: Hashable) -> None:
        """Adds a row."""
        self._part.append(hash(row))
        if len(self._part) == TOGETHER:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
            self._part.tofile(self._file)
            self._part = array("q")

    def count(self) -> int:
        """The number of rows that are equal to an earlier one."""
        return sum(len(hashes) for hashes in self._again())

    def repeated(self) -> set[int]:
        """The hashes that several rows have."""
        return {each for hashes in self._again() for each in hashes.tolist()}

    def _again(self) -> Iterator[np.ndarray]:
        """Yields, in parts, the hashes that are equal to the one before them in sorted order."""
        hashes = self._sorted()
        for start in range(0, len(hashes), TOGETHER):
            part = hashes[start : start + TOGETHER + 1]
            yield part[1:][part[1:] == part[:-1]]

    def _sorted(self) -> np.ndarray:
        """All hashes. Those in the file are sorted there, because a mapped file takes no memory of the process."""
        if self._file is None:
            return np.sort(np.frombuffer(self._part, np.int64))
        self._part.tofile(self._file)
        self._part = array("q")
        self._file.flush()
        hashes = np.memmap(self._file, np.int64, "r+")
        hashes.sort()
        return hashes
