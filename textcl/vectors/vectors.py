"""Reading a directory of vectors: its texts, ids, columns and vectors, and the facts about how they were made."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcl.encoder import Encoder
from textcl.errors import InputError, nearest
from textcl.vectors.columns import OWN_ID, PREFIX, result_name
from textcl.vectors.shards import check_shard, read_complete, read_manifest, read_shard, read_table, restored

TABLE = ("id", "part", "text", "vector")  # the columns of a table that are not the user's


class Vectors:
    """A complete directory that `encode_corpus` wrote. Nothing is read before it is asked for.

    Each call reads from the disk what it returns, and keeps nothing. A shard is compared with its seal before it is
    read for the first time.

    Args:
        directory: The directory.

    Attributes:
        directory: The directory.
        manifest: What its manifest says.
        name: The name of the model that wrote it.
        fingerprint: `Encoder.fingerprint(settings=False)` of the model.
        pooling: The pooling.
        max_length: The number of tokens after which texts were cut.
        prompt: The prompt that was put before or around each text; "" if there was none.
        normalized: Whether the vectors were scaled to length 1.
        dimension: The size of a vector.
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
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        self._complete = read_complete(directory)
        self._checked: set[int] = set()
        settings = self.manifest["settings"]
        self.name: str = self.manifest["model"]["name"]
        self.fingerprint: str = self.manifest["model"]["sha256"]
        self.pooling: str = settings["pooling"]
        self.max_length: int = settings["max_length"]
        self.prompt: str = settings["prompt"]
        self.normalized: bool = settings["normalize"]
        self.dimension: int = self.manifest["dimension"]
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

        Raises:
            InputError: The column was not kept.
        """
        if name in self.columns:
            return self._values(PREFIX + name)
        if name == self.id_column:
            return self._values(OWN_ID)
        if name == self.manifest["settings"]["column"]:
            return self.texts()
        kept = ", ".join(map(repr, self.columns)) or "none"
        raise InputError(
            f"{self.directory} does not hold the column '{name}'; it holds {kept}.{nearest(name, self.columns)} "
            "`textcl encode --columns` keeps columns."
        )

    def vectors(self) -> np.ndarray:
        """All vectors, (rows, dim) float32."""
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
        if isinstance(model, Encoder):
            return model
        weights = getattr(torch, self.manifest["settings"]["weights"])
        return Encoder.from_pretrained(model, pooling=self.pooling, max_length=self.max_length, dtype=weights)

    def differs_from(self, encoder: Encoder, prompt: str | None = None) -> str | None:
        """Why an encoder would not give these vectors, as a sentence; None if it would.

        Vectors may still differ in whether they are scaled to length 1, see `normalized`, and by the rounding of the
        stored data type.

        Args:
            encoder: The encoder.
            prompt: The prompt of the texts; None: any.
        """
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
        """Raises an error if long texts were split.

        Args:
            command: The command that needs whole texts, such as "textcl cluster".

        Raises:
            InputError: Rows are parts of texts.
        """
        if self.split:
            raise InputError(
                f"{self.directory} holds parts of long texts, and {command} needs one vector for each text: encode "
                "them without --split-long to another directory."
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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (rows, dim) scaled to length 1, float32; those of length 0 stay as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
