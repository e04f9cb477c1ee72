"""Searching bits: the nearest by Hamming distance, then ordered by the int8 vectors that are stored beside the bits.

All bits are compared, in blocks: a million vectors of 384 bits take about ten milliseconds. Bits and int8 vectors are
kept in the directory of the vectors, as files that are mapped into memory and not read whole:

    bits.npy      64 bits of each vector in a number, (words, rows) uint64
    int8.npy      the int8 vectors, (rows, dim); missing if only bits were stored
    bits.json     what they were made of, and their seals
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from textcl.errors import DiskFull, InputError
from textcl.files import atomic_write
from textcl.progress import Progress
from textcl.seals import agrees, seal, write_sealed
from textcl.vectors.compress import Compression, unit
from textcl.vectors.shards import Complete, check_shard, read_shard

logger = logging.getLogger("textcl")

RESCORED = 4  # times as many texts as are wanted are ordered by their int8 vectors
BITS, NUMBERS, MARK = "bits.npy", "int8.npy", "bits.json"
_BLOCK = 32_768  # rows that are compared at a time, so that they stay in the cache of the CPU
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def as_words(bits: np.ndarray) -> np.ndarray:
    """Packed bits (rows, bytes) uint8 as numbers of 64 bits, (words, rows) uint64; missing bits are 0."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def hamming(words: np.ndarray, query: np.ndarray) -> np.ndarray:
    """In how many bits each row differs from a query, (rows,) uint16.

    Args:
        words: The bits of the rows, as `as_words` gives them.
        query: The bits of the query, (words,) uint64.

    Example:
        >>> rows = np.array([[0b10110000], [0b00000001]], np.uint8)
        >>> hamming(as_words(rows), as_words(rows[:1])[:, 0]).tolist()
        [0, 4]
    """
    found = np.zeros(words.shape[1], np.uint16)
    for start in range(0, len(found), _BLOCK):
        block = slice(start, start + _BLOCK)
        for word, wanted in zip(words, query, strict=True):
            found[block] += _ones(word[block] ^ wanted)
    return found


def nearest_bits(distances: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` smallest distances, in their order; of equal ones the lower place comes first."""
    if count >= len(distances):
        return np.argsort(distances, kind="stable")
    bound = int(np.searchsorted(np.cumsum(np.bincount(distances)), count))
    below, at = np.flatnonzero(distances < bound), np.flatnonzero(distances == bound)
    places = np.concatenate([below, at[: count - len(below)]])
    return places[np.argsort(distances[places], kind="stable")]


class BitIndex:
    """Finds the vectors nearest to a query by their bits, and orders the best by their numbers.

    Args:
        words: The bits of the rows, as `as_words` gives them.
        numbers: Their int8 vectors, (rows, dim), of any scale; None: only bits were stored.
        compression: How vectors became bits.

    Example:
        >>> index = BitIndex(words, numbers, compression)  # doctest: +SKIP
        >>> places, cosines = index.search(vector, 10)  # doctest: +SKIP
    """

    def __init__(self, words: np.ndarray, numbers: np.ndarray | None, compression: Compression) -> None:
        self.words, self.numbers, self.compression = words, numbers, compression

    def search(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of the nearest rows, the nearest first, and their scores.

        Args:
            vector: The query's vector, (dim,), made smaller as the rows were, and with the length that it had then.
            count: How many rows are returned. Four times as many, the nearest by bits, are ordered by their cosines.

        Returns:
            Places (count,) and scores (count,), see `scores`.
        """
        distances = self._distances(vector)
        if self.numbers is None:
            places = nearest_bits(distances, count)
            return places, self._agreement(distances[places])
        places = np.sort(nearest_bits(distances, RESCORED * count))
        cosines = self.scores(vector, places)
        order = np.argsort(-cosines, kind="stable")[:count]
        return places[order], cosines[order]

    def scores(self, vector: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The cosines of some rows to a query: of the int8 vectors; or, if there are only bits, of the signs.

        The cosine of the signs is 1 − 2 · (bits that differ) / (bits).
        """
        if self.numbers is None:
            return self._agreement(self._distances(vector)[places])
        return np.asarray(self.rows(places) @ unit(vector[None])[0])

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Some of the int8 vectors, scaled to length 1, (rows, dim) float32.

        Raises:
            InputError: Only bits were stored.
        """
        if self.numbers is None:
            raise InputError(
                "--expand needs the numbers of the nearest texts, and only bits were stored (--no-rescoring): leave "
                "out --expand, or encode the texts without --no-rescoring to another directory."
            )
        return unit(self.numbers[places].astype(np.float32))

    def _distances(self, vector: np.ndarray) -> np.ndarray:
        return hamming(self.words, as_words(self.compression.bits(vector[None]))[:, 0])

    def _agreement(self, distances: np.ndarray) -> np.ndarray:
        assert self.compression.mean is not None
        return 1 - 2 * distances.astype(np.float32) / np.float32(len(self.compression.mean))


def open_bits(directory: Path, complete: Complete, compression: Compression, rescoring: bool) -> BitIndex:
    """The index of a directory of bits; made if it is missing or damaged, or if a shard has changed.

    Where it cannot be saved, it is in memory alone.
    """
    names = [BITS, NUMBERS] if rescoring else [BITS]
    made_of = {"shards": complete.files}
    if not agrees(directory / MARK, made_of=made_of):
        arrays = _read(directory, complete, rescoring)
        try:
            for name, array in zip(names, arrays, strict=True):
                with atomic_write(directory / name) as temporary, temporary.open("wb") as handle:
                    np.save(handle, array)
            write_sealed(directory / MARK, {"made_of": made_of, "files": seal(directory, names)})
        except (OSError, DiskFull) as error:
            logger.warning("The index cannot be saved (%s), so it is built again at the next search.", error)
            return BitIndex(arrays[0], arrays[1] if rescoring else None, compression)
    mapped = [np.asarray(np.load(directory / name, mmap_mode="r")) for name in names]
    return BitIndex(mapped[0], mapped[1] if rescoring else None, compression)


def _read(directory: Path, complete: Complete, rescoring: bool) -> list[np.ndarray]:
    """The bits as words and, with `rescoring`, the int8 vectors of all shards."""
    bits, numbers = [], []
    for shard in _shards(directory, complete):
        bits.append(as_words(shard["bits"]))
        if rescoring:
            numbers.append(shard["vector"])
    return [np.concatenate(bits, axis=1), *([np.concatenate(numbers)] if rescoring else [])]


def _shards(directory: Path, complete: Complete) -> Iterator[dict[str, np.ndarray]]:
    with Progress("Building the index", complete.texts) as bar:
        for number in range(complete.shards):
            check_shard(directory, number, complete)
            shard = read_shard(directory, number, ["bits", "vector"])
            yield shard
            bar.update(len(shard["bits"]))


def _ones(words: np.ndarray) -> np.ndarray:
    """The number of ones in each number of 64 bits."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words)
    return _ONES[words.view(np.uint8)].reshape(len(words), 8).sum(axis=1, dtype=np.uint8)
