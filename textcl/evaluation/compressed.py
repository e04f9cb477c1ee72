"""An encoder with smaller vectors, for evaluators: fewer dimensions, or fewer bits for each number."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from textcl.evaluation.encoding import check_encoder, describe, encode_dense
from textcl.vectors.compress import Compression, Storage
from textcl.vectors.fitting import FITTED
from textcl.vectors.shards import restored, stored_columns


class Kept:
    """An encoder that encodes each text once, and keeps its vector in memory.

    Args:
        encoder: Any object with `.encode(list[str])`.
    """

    def __init__(self, encoder: Any) -> None:
        check_encoder(encoder)
        self.encoder = encoder
        self.prompts = getattr(encoder, "prompts", None) or {}
        self._kept: dict[tuple[str, str], np.ndarray] = {}

    def encode(self, texts: Sequence[str], **arguments: Any) -> np.ndarray:
        """The vectors of texts, (texts, dim) float32."""
        way = repr(sorted((name, each) for name, each in arguments.items() if name != "batch_size"))
        if missing := [text for text in dict.fromkeys(texts) if (text, way) not in self._kept]:
            rows, row_of = encode_dense(self.encoder, missing, **arguments)
            self._kept |= {(text, way): rows[row_of[text]] for text in missing}
        return np.stack([self._kept[text, way] for text in texts])

    def sample(self, among: Container[str] | None) -> np.ndarray:
        """The vectors of up to 10,000 of the texts that were encoded, drawn with a fixed seed, (rows, dim).

        Args:
            among: The texts to draw from; None: all.
        """
        rows = [row for (text, _), row in self._kept.items() if among is None or text in among]
        chosen = np.random.default_rng(0).permutation(len(rows))[:FITTED]
        return np.stack([rows[place] for place in chosen])

    def describe(self) -> dict[str, Any]:
        return describe(self.encoder)


class Compressed:
    """An encoder with smaller vectors, restored to numbers.

    Args:
        exact: The encoder.
        compression: How its vectors become smaller ones.
        dtype: The data type in which they would be stored. Of "ubinary" the numbers are −1 and 1.
        rescores: Whether retrieval orders the best by the int8 vectors too.
    """

    def __init__(self, exact: Kept, compression: Compression, dtype: Storage, *, rescores: bool = False) -> None:
        self._kept, self.compression, self.dtype, self.rescores = exact, compression, dtype, rescores
        self.prompts = exact.prompts

    def encode(self, texts: Sequence[str], **arguments: Any) -> np.ndarray:
        """The restored vectors of texts, (texts, dim) float32."""
        vectors = self.compression.reduce(self._kept.encode(texts, **arguments))
        if self.dtype == "ubinary":
            return np.unpackbits(self.compression.bits(vectors), axis=1).astype(np.float32) * 2 - 1
        return restored(stored_columns(vectors, self.dtype))

    @property
    def exact(self) -> Compressed:
        """The same dimensions in float32, as a query has them."""
        return Compressed(self._kept, self.compression, "float32")

    @property
    def numbers(self) -> Compressed:
        """The same dimensions in int8, as they are stored beside bits."""
        return Compressed(self._kept, self.compression, "int8")

    def describe(self) -> dict[str, Any]:
        pca = {"pca": True} if self.compression.directions is not None else {}
        smaller = {"dimensions": self.compression.dimensions, **pca, "stored": self.dtype}
        return {**self._kept.describe(), **{name: each for name, each in smaller.items() if each is not None}}
