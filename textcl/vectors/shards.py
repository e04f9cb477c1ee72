"""The files in a directory of vectors, and how they are read and written.

manifest.json          the model, the settings and the corpus; written first
part-00000.parquet     one shard, the vectors of a window of texts: id, text, vector and, for int8, scale
complete.json          the number of texts and shards, size and SHA-256 of each shard; written last

Each shard has two marks in its metadata, so that it can be checked before the directory is complete: what it was made
of (model, settings and corpus), and the SHA-256 of its vectors.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write, clear_leftovers
from textcl.seals import Seal, differs, read_sealed, write_sealed

SCHEMA = 1
SETTINGS = ("pooling", "max_length", "weights", "normalize", "prompt", "bf16", "dtype", "shard_rows", "column", "limit")

Storage = Literal["float32", "float16", "int8"]

Window = list[tuple[int, str]]  # (row of the corpus, text)


def iterate_vectors(directory: str | os.PathLike[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the shards in order, each as (ids (rows,) int64, vectors (rows, dim) float32).

    Raises:
        InputError: The directory has no vectors, is not complete yet, or has a damaged file.
    """
    complete = read_complete(directory)
    for number in range(complete.shards):
        check_shard(directory, number, complete)
        columns = read_shard(directory, number, ["id", "vector", "scale"])
        yield columns["id"], _restored(columns)


def load_vectors(directory: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """All ids (texts,) int64 and vectors (texts, dim) float32 that `encode_corpus` wrote, in the order of the corpus.

    Raises:
        InputError: In the same cases as `iterate_vectors`.

    Example:
        >>> ids, vectors = load_vectors("vectors")  # doctest: +SKIP
    """
    texts, dimension = read_complete(directory).texts, read_manifest(directory)["dimension"]
    ids, vectors = np.empty(texts, np.int64), np.empty((texts, dimension), np.float32)
    start = 0
    for shard_ids, shard_vectors in iterate_vectors(directory):
        if start + len(shard_ids) <= texts:
            ids[start : start + len(shard_ids)] = shard_ids
            vectors[start : start + len(shard_ids)] = shard_vectors
        start += len(shard_ids)
    if start != texts:
        raise InputError(f"The shards of {directory} have {start:,} texts, not {texts:,}. {_AGAIN}")
    return ids, vectors


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest that `encode_corpus` wrote: schema, model, settings, corpus, dimension.

    Raises:
        InputError: There is no manifest, or it is damaged or has another schema.
    """
    path = Path(directory) / "manifest.json"
    try:
        manifest = read_sealed(path)
    except OSError:
        raise InputError(
            f"{directory} holds no vectors: there is no {path.name}. Make it with `textcl encode`."
        ) from None
    except InputError:
        raise InputError(f"{path} is damaged. Remove this file; then {_AGAIN[0].lower()}{_AGAIN[1:]}") from None
    if "schema" in manifest and manifest["schema"] != SCHEMA:
        raise InputError(
            f"{directory} has schema {manifest['schema']}, but this textcl reads schema {SCHEMA}; encode again."
        )
    parts = {"schema": (), "model": ("name", "sha256"), "settings": SETTINGS, "corpus": ("name", "texts", "sha256")}
    for name, keys in {**parts, "dimension": ()}.items():
        if name not in manifest or not set(keys) <= set(manifest[name] if keys else ()):
            raise InputError(f"{path} is not a manifest of textcl: it lacks {name}; name another directory.")
    return manifest


_AGAIN = "Run the same `textcl encode` again: it makes what is missing or damaged."


@dataclass(frozen=True)
class Complete:
    """The content of `complete.json`: the number of texts and of shards, and the seal of the shards."""

    texts: int
    shards: int
    files: Seal


def read_complete(directory: str | os.PathLike[str]) -> Complete:
    """What a complete directory holds.

    Raises:
        InputError: The directory is not complete yet, `complete.json` is damaged, or as in `read_manifest`.
    """
    manifest = read_manifest(directory)
    path = Path(directory) / "complete.json"
    if not path.is_file():
        raise InputError(f"{directory} is not complete yet: run the same `textcl encode` again to resume it.")
    try:
        complete = Complete(**read_sealed(path))
    except (InputError, TypeError):
        raise InputError(f"{path} is damaged. {_AGAIN}") from None
    if complete.texts != manifest["corpus"]["texts"] or not isinstance(complete.files, dict):
        raise InputError(f"{path} does not agree with the manifest. {_AGAIN}")
    return complete


def check_shard(directory: str | os.PathLike[str], number: int, complete: Complete) -> None:
    """Raises an error unless a shard is what was written.

    Raises:
        InputError: The shard is missing or damaged.
    """
    name = shard_path(Path(directory), number).name
    if name not in complete.files or differs(Path(directory), {name: complete.files[name]}) is not None:
        raise InputError(f"{Path(directory) / name} is missing or damaged. {_AGAIN}")


def read_shard(directory: str | os.PathLike[str], number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named columns of a shard, without those that it lacks; `vector` is (rows, dim), in the stored data type."""
    return _read(shard_path(Path(directory), number), names)[0]


def _read(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[bytes, bytes]]:
    """The named columns of a shard and its metadata."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read([name for name in names if name in file.schema_arrow.names])
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}). {_AGAIN}") from None
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if name == "vector" else column
        columns[name] = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1 if name == "vector" else 1)
    found = {name: values if name == "vector" else values[:, 0] for name, values in columns.items()}
    return found, table.schema.metadata or {}


def window_bytes(window: Window) -> bytes:
    return b"".join(f"{row} {text}".encode() + b"\xff" for row, text in window)  # UTF-8 has no byte 0xff


def begin(output: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, or compares it with the existing one. All ranks may call this at the same time.

    Raises:
        InputError: The existing manifest has another model, other settings or another corpus.
    """
    clear_leftovers(output)
    if not (output / "manifest.json").is_file():
        (output / "complete.json").unlink(missing_ok=True)  # it may be of another model
        write_sealed(output / "manifest.json", manifest)
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


def origin(manifest: dict[str, Any]) -> str:
    """SHA-256 of all in a manifest that decides the vectors: model, settings and corpus, without their names."""
    made_of = [manifest["model"]["sha256"], manifest["settings"], manifest["corpus"]["sha256"], manifest["dimension"]]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def holds(path: Path, digest: bytes, made_of: str) -> bool:
    """Whether the shard is there, has the ids and texts with this SHA-256, and has the vectors that were written.

    Args:
        path: The shard.
        digest: SHA-256 of the ids and texts, see `window_bytes`.
        made_of: The `origin` of the vectors.
    """
    if not path.is_file():
        return False
    try:
        sealed = read_complete(path.parent).files[path.name]
    except (InputError, KeyError):  # the directory is not complete, so the content itself has to be compared
        pass
    else:
        return differs(path.parent, {path.name: sealed}) is None
    try:
        columns, marks = _read(path, ["id", "text", "vector", "scale"])
        rows = hashlib.sha256(window_bytes(list(zip(columns["id"], columns["text"], strict=True)))).digest()
    except (InputError, KeyError, ValueError, TypeError, MemoryError, OverflowError):  # a damaged file is read as it is
        return False
    return rows == digest and {key: marks.get(key) for key in _marks(columns, made_of)} == _marks(columns, made_of)


def write_shard(path: Path, window: Window, vectors: np.ndarray, dtype: Storage, made_of: str) -> None:
    """Writes a shard; `made_of` is the `origin` of its vectors."""
    import pyarrow
    import pyarrow.parquet

    stored = stored_columns(vectors, dtype)
    marks = _marks(stored, made_of)
    ids, texts = zip(*window, strict=True)
    flat = pyarrow.array(stored.pop("vector").ravel())
    columns = {
        "id": pyarrow.array(ids, pyarrow.int64()),
        "text": pyarrow.array(texts, pyarrow.large_string()),
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        **{name: pyarrow.array(values) for name, values in stored.items()},
    }
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.table(columns, metadata=marks),
            temporary,
            compression="zstd",
            use_dictionary=dtype == "int8",  # without a dictionary Parquet needs four bytes for each int8
            write_page_checksum=True,
        )


def _marks(columns: dict[str, np.ndarray], made_of: str) -> dict[bytes, bytes]:
    """The metadata of a shard with these columns."""
    digest = hashlib.sha256()
    for name in ("vector", "scale"):
        if name in columns:
            digest.update(f"{name} {columns[name].dtype} {columns[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(columns[name]).data)
    return {b"textcl.made_of": made_of.encode(), b"textcl.vectors": digest.hexdigest().encode()}


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
