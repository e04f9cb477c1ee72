"""The files in a directory of vectors, and how they are read and written.

manifest.json          the model, the settings and the corpus; written first
part-00000.parquet     one shard, the vectors of a window of texts: id, text, vector and, for int8, scale
complete.json          the number of texts and shards; written last
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write, write_json

if TYPE_CHECKING:
    pass
SCHEMA = 1

Storage = Literal["float32", "float16", "int8"]

Window = list[tuple[int, str]]  # (row of the corpus, text)


def iterate_vectors(directory: str | os.PathLike[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the shards in order, each as (ids (rows,) int64, vectors (rows, dim) float32).

    Raises:
        InputError: The directory has no vectors, is not complete yet, or has a damaged shard.
    """
    for number in range(read_complete(directory)["shards"]):
        columns = read_shard(directory, number, ["id", "vector", "scale"])
        yield columns["id"], _restored(columns)


def load_vectors(directory: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """All ids (texts,) int64 and vectors (texts, dim) float32 that `encode_corpus` wrote, in the order of the corpus.

    Raises:
        InputError: In the same cases as `iterate_vectors`.

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
    """The manifest that `encode_corpus` wrote: schema, model, settings, corpus, dimension.

    Raises:
        InputError: There is no manifest, or it is damaged or has another schema.
    """
    path = Path(directory) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{directory} holds no vectors: there is no {path.name}. Make it with `textcl encode`."
        ) from None
    except ValueError:
        raise InputError(f"{path} is damaged; remove {directory} and encode again.") from None
    if manifest["schema"] != SCHEMA:
        raise InputError(
            f"{directory} has schema {manifest['schema']}, but this textcl reads schema {SCHEMA}; encode again."
        )
    return cast(dict[str, Any], manifest)


def read_complete(directory: str | os.PathLike[str]) -> dict[str, int]:
    """The numbers of `texts` and `shards` of a complete directory.

    Raises:
        InputError: The directory is not complete yet, or as in `read_manifest`.
    """
    read_manifest(directory)
    path = Path(directory) / "complete.json"
    if not path.is_file():
        raise InputError(f"{directory} is not complete yet: run the same `textcl encode` again to resume it.")
    return cast(dict[str, int], json.loads(path.read_text(encoding="utf-8")))


def read_shard(directory: str | os.PathLike[str], number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named columns of a shard, without those that it lacks; `vector` is (rows, dim), in the stored data type."""
    import pyarrow
    import pyarrow.parquet

    path = shard_path(Path(directory), number)
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read([name for name in names if name in file.schema_arrow.names])
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Remove it and run the same `textcl encode` again."
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
    """Writes the manifest, or compares it with the existing one. All ranks may call this at the same time.

    Raises:
        InputError: The existing manifest has another model, other settings or another corpus.
    """
    if not (output / "manifest.json").is_file():
        write_json(output / "manifest.json", manifest)
    there = read_manifest(output)
    otherwise = "Encode with the same model, settings and corpus, or name another directory."
    if there["model"]["sha256"] != manifest["model"]["sha256"]:
        raise InputError(
            f"{output} was written by another model, {there['model']['name']}; the weights, the configuration or the "
            f"tokenizer of {manifest['model']['name']} differ from it. {otherwise}"
        )
    for name, value in manifest["settings"].items():
        if there["settings"][name] != value:
            raise InputError(
                f"{output} was written with {name} {there['settings'][name]!r}, not {value!r}. {otherwise}"
            )
    if there["corpus"]["sha256"] != manifest["corpus"]["sha256"]:
        raise InputError(
            f"{output} was written from another corpus, or {manifest['corpus']['name']} has changed since: the corpus "
            f"had {there['corpus']['texts']:,} texts, and now has {manifest['corpus']['texts']:,}. {otherwise}"
        )


def holds(path: Path, digest: bytes) -> bool:
    """Whether the shard exists, can be read, and has the ids and texts with this SHA-256."""
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
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):  # temporary files of a killed process
        left_over.unlink()
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.table(columns),
            temporary,
            compression="zstd",
            use_dictionary=dtype == "int8",  # without a dictionary Parquet needs four bytes for each int8
            write_page_checksum=True,
        )


def check_finite(vectors: np.ndarray) -> None:
    """Raises an InputError if the model gave NaN or infinite numbers."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"The model gives NaN or infinite numbers for {len(bad):,} of {len(vectors):,} texts, first for number "
            f"{bad[0] + 1} of them. Its weights are damaged, or too large for the precision: leave out --bf16."
        )


def stored_columns(vectors: np.ndarray, dtype: Storage) -> dict[str, np.ndarray]:
    """The columns to store for vectors (rows, dim): `vector` and, for int8, `scale` (rows,)."""
    check_finite(vectors)
    columns = {"vector": vectors.astype(np.float32)}
    if dtype == "float16":
        with np.errstate(over="ignore"):
            columns["vector"] = vectors.astype(np.float16)
    if not np.isfinite(columns["vector"]).all():
        raise InputError(
            f"A vector has numbers that are too large for {dtype}; normalize the vectors, or store float32."
        )
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
