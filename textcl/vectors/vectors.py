"""Reading a directory of vectors: its texts, ids, columns and vectors, and the facts about how they were made."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textcl.errors import InputError, nearest
from textcl.vectors.columns import OWN_ID, PREFIX, result_name
from textcl.vectors.compress import Compression
from textcl.vectors.shards import (
    check_shard,
    read_complete,
    read_manifest,
    read_shard,
    read_table,
    restored,
    vectors_folder,
)

if TYPE_CHECKING:
    from textcl.encoder import Encoder

logger = logging.getLogger("textcl")

TABLE = ("id", "part", "text", "vector")  # the columns of a table that are not the user's


class Vectors:
    """A complete directory that `encode_corpus` wrote. Nothing is read before it is asked for.

    Each call reads from the disk what it returns, and keeps nothing. A shard is compared with its seal before it is
    read for the first time.

    Args:
        directory: The directory, or that of `textcl explore`, which has it as `vectors`.

    Attributes:
        directory: The directory of the vectors.
        manifest: What its manifest says.
        name: The name of the model that wrote it.
        fingerprint: `Encoder.fingerprint(settings=False)` of the model.
        pooling: The pooling.
        max_length: The number of tokens after which texts were cut.
        prompt: The prompt that was put before or around each text; "" if there was none.
        normalized: Whether the vectors were scaled to length 1.
        dimension: The size of a vector.
        dtype: The data type in which the vectors are stored.
        rescoring: For "ubinary", whether int8 vectors are stored beside the bits.
        compression: How the model's vectors became these: cut, by PCA, or not at all; and what bits are compared with.
        split: Whether long texts were split: then a row is a part of a text.
        id_column: The name of the user's column of ids; None if there is none.
        columns: The names of the user's other columns.

    Raises:
        InputError: There are no vectors, or they are not complete; other calls raise it if a shard is damaged.

    Example:
        >>> vectors = Vectors("vectors")  # doctest: +SKIP
        >>> vectors.table().to_pandas()  # doctest: +SKIP
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = vectors_folder(directory)
        self.manifest = read_manifest(self.directory)
        self._complete = read_complete(self.directory)
        self._checked: set[int] = set()
        settings = self.manifest["settings"]
        self.name: str = self.manifest["model"]["name"]
        self.fingerprint: str = self.manifest["model"]["sha256"]
        self.pooling: str = settings["pooling"]
        self.max_length: int = settings["max_length"]
        self.prompt: str = settings["prompt"]
        self.normalized: bool = settings["normalize"]
        self.dimension: int = self.manifest["dimension"]
        self.dtype: str = settings["dtype"]
        self.rescoring: bool = settings.get("rescoring", False)
        self.compression = Compression.of(self.manifest)
        self.split: bool = settings.get("split", False)
        self.id_column: str | None = settings.get("id_column")
        self.columns: tuple[str, ...] = tuple(settings.get("columns", ()))

    def __len__(self) -> int:
        """The number of rows."""
        return self._complete.texts

    def ids(self) -> np.ndarray:
        """The row of each text in the corpus, counted from 0, (rows,) int64; appended texts continue the count."""
        return np.concatenate(list(self._read("id")))

    def own_ids(self) -> list[str] | list[int] | None:
        """The user's id of each row; None if no column of ids was kept."""
        return None if self.id_column is None else self._values(OWN_ID)

    def parts(self) -> np.ndarray | None:
        """The number of each row among the parts of its text, (rows,) int32; None if texts are whole."""
        return np.concatenate(list(self._read("part"))) if self.split else None

    def texts(self) -> list[str]:
        """The text of each row."""
        return self._values("text")

    def column(self, name: str) -> list[Any]:
        """The value of a user's column in each row, None where it is missing; also of the column of the texts.

        The column of the texts is "text" if none was named when they were encoded.

        Raises:
            InputError: The column was not kept.
        """
        if name in self.columns:
            return self._values(PREFIX + name)
        if name == self.id_column:
            return self._values(OWN_ID)
        if name == (self.manifest["settings"]["column"] or "text"):
            return self.texts()
        kept = ", ".join(map(repr, self.columns)) or "none"
        raise InputError(
            f"{self.directory} does not hold the column '{name}'; it holds {kept}.{nearest(name, self.columns)} "
            "`textcl encode --columns` keeps columns."
        )

    @property
    def space(self) -> str:
        """SHA-256 of what decides what the numbers of a vector mean: the model and, if there are fewer, the dimensions.

        It is the model's fingerprint if the vectors have all its dimensions. Cosines of vectors from two directories
        mean something only if this is equal.
        """
        if self.compression.dimensions is None:
            return self.fingerprint
        fitted = self.manifest.get("fitted", {})  # what bits are compared with changes no numbers
        pca = {name: each for name, each in fitted.items() if name != "mean"} if "directions" in fitted else {}
        content = [self.fingerprint, self.compression.dimensions, pca]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def bits(self) -> np.ndarray:
        """All bits, (rows, dim / 8) uint8: 1 where a number is above the mean of the first vectors of the corpus.

        Raises:
            InputError: The vectors were not stored as bits.
        """
        if self.dtype != "ubinary":
            raise InputError(f"{self.directory} holds {self.dtype} vectors and no bits; --dtype ubinary stores bits.")
        return np.concatenate(list(self._read("bits")))

    def vectors(self) -> np.ndarray:
        """All vectors, (rows, dim) float32; for "ubinary" those that are stored as int8 beside the bits.

        Raises:
            InputError: Only bits were stored.
        """
        found, start = np.empty((len(self), self.dimension), np.float32), 0
        for rows in self._shards(["vector", "scale"]):
            values = restored(rows)
            found[start : start + len(values)] = values
            start += len(values)
        return found

    def table(self, *, vectors: bool = False) -> Any:
        """All rows as a pyarrow table, see `tables`."""
        import pyarrow

        return pyarrow.concat_tables(self.tables(vectors=vectors))

    def tables(self, *, vectors: bool = False) -> Iterator[Any]:
        """Yields a pyarrow table for each shard.

        Its columns are `id` (the user's id, else the row of the corpus), with split texts `part`, the user's columns by
        their names (`column:text` if a column has a name of the table itself), and `text`.

        Args:
            vectors: Add the column `vector`, a list of float32.
        """
        import pyarrow

        key = "id" if self.id_column is None else OWN_ID
        names = {key: "id", **({"part": "part"} if self.split else {})}
        names |= {PREFIX + name: result_name(name, TABLE) for name in self.columns}
        names["text"] = "text"
        for number in range(self._complete.shards):
            self._check(number)
            table = read_table(self.directory, number, list(names)).replace_schema_metadata()
            table = table.select(list(names)).rename_columns(list(names.values()))
            if vectors:
                numbers = restored(read_shard(self.directory, number, ["vector", "scale"]))
                flat = pyarrow.array(numbers.ravel())
                table = table.append_column("vector", pyarrow.FixedSizeListArray.from_arrays(flat, self.dimension))
            yield table

    def load_encoder(self, model: Encoder | str | Path) -> Encoder:
        """The encoder of a name or path, with the settings of these vectors; an `Encoder` is returned as it is.

        Whether it gives these vectors is for `differs_from` to say.
        """
        import torch

        from textcl.encoder import Encoder

        if isinstance(model, Encoder):
            return model
        weights = getattr(torch, self.manifest["settings"]["weights"])
        return Encoder.from_pretrained(model, pooling=self.pooling, max_length=self.max_length, dtype=weights)

    def differs_from(self, encoder: Encoder, prompt: str | None = None) -> str | None:
        """Why an encoder would not give these vectors, as a sentence; None if it would.

        It would not if these have fewer dimensions. Vectors may still differ in whether they are scaled to length 1,
        see `normalized`, and by the rounding of the stored data type.

        Args:
            encoder: The encoder.
            prompt: The prompt of the texts; None: any.
        """
        if self.compression.dimensions is not None:
            how = " by PCA" if self.compression.directions is not None else ""
            return f"{self.directory} holds vectors that were cut to {self.dimension} dimensions{how}."
        return self.other_model(encoder, prompt)

    def other_model(self, encoder: Encoder, prompt: str | None = None) -> str | None:
        """Why an encoder would not give the vectors that these were cut from, as a sentence; None if it would."""
        pairs = [("pooling", self.pooling, encoder.pooling), ("max_length", self.max_length, encoder.max_length)]
        if prompt is not None:
            pairs.append(("prompt", self.prompt, prompt))
        for what, there, wanted in pairs:
            if there != wanted:
                return f"{self.directory} was written with {what} {there!r}, not {wanted!r}."
        if encoder.fingerprint(settings=False) != self.fingerprint:
            return f"{encoder.name} is not the model that wrote {self.directory}, or has changed since."
        return None

    def check_whole(self, command: str) -> None:
        """Raises an error unless there is one vector of numbers for each text; says so if there are bits too.

        Args:
            command: The command that needs them, such as "textcl cluster".

        Raises:
            InputError: Rows are parts of texts, or only bits were stored.
        """
        if self.dtype == "ubinary" and not self.rescoring:
            raise InputError(
                f"{self.directory} holds only bits (--no-rescoring), and {command} needs numbers: encode the texts "
                "without --no-rescoring to another directory."
            )
        if self.split:
            raise InputError(
                f"{self.directory} holds parts of long texts, and {command} needs one vector for each text: encode "
                "them without --split-long to another directory."
            )
        if self.dtype == "ubinary":
            logger.info(
                "%s holds bits; %s takes the int8 vectors that are stored beside them.", self.directory, command
            )

    def _read(self, name: str) -> Iterator[np.ndarray]:
        return (rows[name] for rows in self._shards([name]))

    def _values(self, name: str) -> list[Any]:
        return [value for values in self._read(name) for value in values.tolist()]

    def _shards(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        for number in range(self._complete.shards):
            self._check(number)
            yield read_shard(self.directory, number, names)

    def _check(self, number: int) -> None:
        if number not in self._checked:
            check_shard(self.directory, number, self._complete)
            self._checked.add(number)
