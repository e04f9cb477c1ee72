"""Smaller vectors: fewer dimensions, by cutting or by PCA, and one bit in place of each number.

Mean and PCA are fitted once, on the first vectors of the corpus, and kept in the manifest. So all processes, corpora
that are appended later, and queries use the same ones.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from textcl.errors import InputError

Storage = Literal["float32", "float16", "int8", "ubinary"]
STORAGES: tuple[Storage, ...] = get_args(Storage)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (rows, dim) scaled to length 1, float32; those of length 0 stay as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


@dataclass(frozen=True)
class Compression:
    """How the vectors of an encoder become smaller ones.

    Attributes:
        dimensions: The size of the smaller vectors; None: that of the encoder's.
        normalize: Whether the vectors have length 1; then the smaller ones are scaled to length 1 again.
        directions: The directions of largest variance, (encoder's dim, dim); None: vectors are cut and not rotated. The
            mean is not subtracted: cosines would change, and on Cranfield and NPL search is no better without it.
        mean: The mean of the smaller vectors, (dim,), which bits are compared with; None: there are no bits.
        fitted_on: The number of vectors that all this was fitted on; 0 if nothing was fitted.
    """

    dimensions: int | None = None
    normalize: bool = False
    directions: np.ndarray | None = None
    mean: np.ndarray | None = None
    fitted_on: int = 0

    @classmethod
    def fit(
        cls, vectors: np.ndarray, dimensions: int | None, *, normalize: bool, pca: bool = False, bits: bool = False
    ) -> "Compression":
        """Fits the PCA, and the mean for bits, on the vectors of an encoder.

        Args:
            vectors: The vectors, (rows, encoder's dim).
            dimensions: The size of the smaller vectors; None: that of the encoder's.
            normalize: Whether these vectors have length 1.
            pca: Rotate the vectors before they are cut, so that the first numbers are those of largest variance.
            bits: Fit the mean that bits are compared with.

        Raises:
            InputError: The vectors vary in fewer directions than `dimensions`, because they are too few.
        """
        directions = mean = None
        if pca:
            assert dimensions is not None
            directions = _principal(vectors, dimensions)
        if bits:
            mean = cls(dimensions, normalize, directions).reduce(vectors).mean(axis=0, dtype=np.float64)
            mean = mean.astype(np.float32)
        return cls(dimensions, normalize, directions, mean, len(vectors) if pca or bits else 0)

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Compression":
        """The compression of a directory of vectors."""
        settings, fitted = manifest["settings"], manifest.get("fitted", {})
        directions, mean = (_decoded(fitted[name]) if name in fitted else None for name in _ARRAYS)
        if directions is not None:
            directions = directions.reshape(-1, manifest["dimension"])
        smaller = settings.get("dimensions"), settings["normalize"]
        return cls(*smaller, directions, mean, fitted.get("vectors", 0))

    def to_manifest(self) -> dict[str, Any]:
        """What was fitted, as the manifest keeps it: float32 numbers, little-endian, as base64."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        fitted = {name: _encoded(each) for name, each in arrays.items() if each is not None}
        return {"vectors": self.fitted_on, **fitted} if fitted else {}

    def reduce(self, vectors: np.ndarray) -> np.ndarray:
        """The smaller vectors (rows, dim) float32 of an encoder's vectors (rows, encoder's dim)."""
        if self.dimensions is None:
            return vectors
        if self.directions is not None:
            found = (vectors.astype(np.float64) @ self.directions).astype(np.float32)
        else:
            found = np.ascontiguousarray(vectors[:, : self.dimensions])
        return unit(found) if self.normalize else found

    def bits(self, reduced: np.ndarray) -> np.ndarray:
        """Packed bits (rows, dim / 8) uint8 of the smaller vectors: 1 where a number is above the mean.

        The first number is the highest bit of the first byte, as numpy packs bits.
        """
        assert self.mean is not None
        return np.packbits(reduced > self.mean, axis=1)


_ARRAYS = ("directions", "mean")  # what is fitted


def check_sizes(dimension: int, sizes: Sequence[int], dtypes: Sequence[str], *, pca: bool = False) -> None:
    """Raises an error unless vectors can be made so small.

    Args:
        dimension: The size of the encoder's vectors.
        sizes: The sizes of the smaller vectors; empty: that of the encoder's.
        dtypes: The data types in which they are stored.
        pca: Whether they are rotated before they are cut.

    Raises:
        InputError: A size or a data type is wrong; the message says which.
    """
    for size in sizes:
        if not 1 <= size <= dimension:
            raise InputError(
                f"The model's vectors have {dimension} dimensions, so smaller ones can have 1 to {dimension}, not "
                f"{size}."
            )
    if pca and not sizes:
        raise InputError("--pca needs --dimensions: the number of dimensions that are kept.")
    for dtype in dtypes:
        if dtype not in STORAGES:
            raise InputError(f"Vectors are stored as float32, float16, int8 or ubinary, not {dtype}.")
    odd = [size for size in sizes or [dimension] if size % 8]
    if "ubinary" in dtypes and odd:
        raise InputError(
            f"Eight bits are stored in a byte, so --dtype ubinary needs a multiple of 8 dimensions, not {odd[0]}; "
            "choose one by --dimensions."
        )


def bytes_of(dimension: int, dtype: str, *, rescoring: bool = True) -> int:
    """The bytes of a stored vector: its numbers and, for int8, its scale.

    Example:
        >>> bytes_of(384, "float32"), bytes_of(384, "ubinary"), bytes_of(384, "ubinary", rescoring=False)
        (1536, 436, 48)
    """
    if dtype == "ubinary":
        return dimension // 8 + (dimension + 4 if rescoring else 0)
    return {"float32": 4, "float16": 2, "int8": 1}[dtype] * dimension + 4 * (dtype == "int8")


def _principal(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The directions of largest variance of vectors, (dim, dimensions) float32; their signs are fixed."""
    rows = vectors.astype(np.float64)
    center = rows.mean(axis=0)
    rows -= center
    variances, found = np.linalg.eigh(rows.T @ rows)
    # smaller ones are the rounding noise of float32 vectors
    least = (np.trace(rows.T @ rows) + len(rows) * (center @ center)) * np.finfo(np.float32).eps ** 2
    varying = min(int((variances > least).sum()), len(rows) - 1)
    if dimensions > varying:
        raise InputError(
            f"The vectors of the first {len(rows):,} texts vary in {varying:,} directions, so --pca cannot keep "
            f"{dimensions:,} dimensions. Give more texts or fewer --dimensions, or leave out --pca."
        )
    found = found[:, ::-1][:, :dimensions]
    largest = np.abs(found).argmax(axis=0)
    found = found * np.sign(found[largest, np.arange(dimensions)])
    return np.ascontiguousarray(found, dtype=np.float32)


def _encoded(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.astype("<f4").tobytes()).decode("ascii")


def _decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
