"""What lies in a directory of vectors, and how it is read and written.

manifest.json          the model, the settings and the corpus; written first
part-00000.parquet     id, text, vector and, for int8, scale; a shard is a window: read, encoded, written, forgotten
complete.json          how many texts and shards there are; written last
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write, write_json

if TYPE_CHECKING:
    pass
logger = logging.getLogger("textcl")

SCHEMA = 1

Storage = Literal["float32", "float16", "int8"]

Window = list[tuple[int, str]]  # (row of the corpus, text)


def iterate_vectors(directory: str | os.PathLike[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (ids (rows,) int64, vectors (rows, dim) float32) of one shard after another.

    Raises:
        InputError: If the directory holds no vectors, not yet all of them, or a damaged shard.
    """
    for number in range(read_complete(directory)["shards"]):
        columns = read_shard(directory, number, ["id", "vector", "scale"])
        yield columns["id"], _restored(columns)


def load_vectors(directory: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """All that `encode_corpus` wrote: (ids (texts,) int64, vectors (texts, dim) float32), in the corpus' order.

    Raises:
        InputError: As `iterate_vectors`.

    Example:
        >>> ids, vectors = load_vectors("vectors")  # doctest: +SKIP
    """
    texts, dimension = read_complete(directory)["texts"], read_manifest(directory)["dimension"]
    ids, vectors = np.empty(texts, np.int64), np.empty((texts, dimension), np.float32)
    start = 0
    for shard_ids, shard_vectors in iterate_vectors(directory):
        ids[start : start + len(shard_ids)] = shard_ids
        vectors[start : start + len(shard_ids)] = shard_vectors
        start += len(shard_ids)
    return ids, vectors


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `encode_corpus` says of a directory: schema, model, settings, corpus, dimension."""
    path = Path(directory) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{directory} holds no vectors: there is no {path.name}. Make it with textcl encode."
        ) from None
    except ValueError:
        raise InputError(f"{path} is damaged; remove {directory} and encode again.") from None
    if manifest["schema"] != SCHEMA:
        raise InputError(f"{directory} has schema {manifest['schema']}, and this textcl knows {SCHEMA}; encode again.")
    return cast(dict[str, Any], manifest)


def read_complete(directory: str | os.PathLike[str]) -> dict[str, int]:
    """How many `texts` and `shards` a directory has, once it has all of them.

    Raises:
        InputError: If it has not.
    """
    read_manifest(directory)
    path = Path(directory) / "complete.json"
    if not path.is_file():
        raise InputError(f"{directory} is not complete yet: give the same textcl encode again, and it goes on.")
    return cast(dict[str, int], json.loads(path.read_text(encoding="utf-8")))


def read_shard(directory: str | os.PathLike[str], number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the named columns that a shard has; `vector` as (rows, dim), as it is stored."""
    import pyarrow
    import pyarrow.parquet

    path = shard_path(Path(directory), number)
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read([name for name in names if name in file.schema_arrow.names])
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Remove it and give the same textcl encode again."
        ) from None
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if name == "vector" else column
        columns[name] = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1 if name == "vector" else 1)
    return {name: values if name == "vector" else values[:, 0] for name, values in columns.items()}


def window_bytes(window: Window) -> bytes:
    return b"".join(f"{row} {text}".encode() + b"\xff" for row, text in window)  # UTF-8 has no byte 0xff


def begin(output: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, or holds it against the one that is there; ranks may all do so at once."""
    if not (output / "manifest.json").is_file():
        write_json(output / "manifest.json", manifest)
    there = read_manifest(output)
    otherwise = "Encode with what wrote it, or name another directory."
    if there["model"]["sha256"] != manifest["model"]["sha256"]:
        raise InputError(
            f"{output} was written by another model, {there['model']['name']}: weights, configuration or tokenizer of "
            f"{manifest['model']['name']} differ from it. {otherwise}"
        )
    for name, value in manifest["settings"].items():
        if there["settings"][name] != value:
            raise InputError(
                f"{output} was written with {name} {there['settings'][name]!r}, not {value!r}. {otherwise}"
            )
    if there["corpus"]["sha256"] != manifest["corpus"]["sha256"]:
        raise InputError(
            f"{output} was written from another corpus, or {manifest['corpus']['name']} has changed since: it had "
            f"{there['corpus']['texts']:,} texts, and {manifest['corpus']['texts']:,} are here. {otherwise}"
        )


def holds(path: Path, digest: bytes) -> bool:
    """Whether a shard can be opened and has these ids and texts."""
    if not path.is_file():
        return False
    try:
        columns = read_shard(path.parent, int(path.stem.removeprefix("part-")), ["id", "text"])
        return hashlib.sha256(window_bytes(list(zip(columns["id"], columns["text"], strict=True)))).digest() == digest
    except (InputError, KeyError):
        return False


def write_shard(path: Path, window: Window, vectors: np.ndarray, dtype: Storage) -> None:
    import pyarrow
    import pyarrow.parquet

    stored = stored_columns(vectors, dtype)
    ids, texts = zip(*window, strict=True)
    flat = pyarrow.array(stored.pop("vector").ravel())
    columns = {
        "id": pyarrow.array(ids, pyarrow.int64()),
        "text": pyarrow.array(texts, pyarrow.large_string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        **{name: pyarrow.array(values) for name, values in stored.items()},
    }
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed
        left_over.unlink()
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.table(columns),
            temporary,
            compression="zstd",
            use_dictionary=dtype == "int8",  # without it Parquet takes four bytes for each int8
            write_page_checksum=True,
        )


def stored_columns(vectors: np.ndarray, dtype: Storage) -> dict[str, np.ndarray]:
    """Vectors (rows, dim) as they are stored, with their scales (rows,) where they are int8."""
    columns = {"vector": vectors.astype(np.float32)}
    if dtype == "float16":
        with np.errstate(over="ignore"):
            columns["vector"] = vectors.astype(np.float16)
    if not np.isfinite(columns["vector"]).all():
        raise InputError(f"A vector holds numbers that are not finite in {dtype}; normalize, or store float32.")
    if dtype == "int8":
        scale = np.abs(vectors).max(axis=1, initial=0).astype(np.float32) / np.float32(127)
        quotients = np.rint(vectors / np.where(scale > 0, scale, 1)[:, None])
        columns["vector"] = np.clip(quotients, -127, 127).astype(np.int8)
        columns["scale"] = scale
    return columns


def _restored(columns: dict[str, np.ndarray]) -> np.ndarray:
    vectors = columns["vector"].astype(np.float32)
    return vectors * columns["scale"][:, None] if "scale" in columns else vectors


def shard_path(output: Path, number: int) -> Path:
    return output / f"part-{number:05}.parquet"
