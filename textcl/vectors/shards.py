"""The files in a directory of vectors, and how they are read and written.

manifest.json          the model, the settings and the corpora; written first
part-00000.parquet     one shard, the vectors of a window of texts: id, text, vector and, for int8, scale; for ubinary
                       also bits; what is kept beside the texts has the names of `textcl.vectors.columns`; parts of long
                       texts have `part`
complete.json          the number of texts and shards, size and SHA-256 of each shard; written last

Each shard has marks in its metadata, so that it can be checked before the directory is complete: what it was made of
(model, settings and corpus), and the SHA-256 of its vectors, of its texts and of what is kept beside them.

An appended corpus has shards of its own, behind those of the corpora before it. Until they are complete,
`complete.json` speaks of the shards before them, which can be read meanwhile.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textcl.errors import InputError
from textcl.files import atomic_write, clear_leftovers
from textcl.model_files import is_model
from textcl.seals import Seal, differs, read_sealed, write_sealed
from textcl.vectors.columns import OWN_ID, PREFIX, as_array
from textcl.vectors.compress import Compression, Storage
from textcl.vectors.manifest import stored_corpora

SCHEMA = 1
SETTINGS = ("pooling", "max_length", "weights", "normalize", "prompt", "bf16", "dtype", "shard_rows", "column", "limit")


class Row(NamedTuple):
    """A row of a shard: the row of the corpus, the text, its number among the parts of a long text, what is kept."""

    id: int
    text: str
    part: int | None
    own: tuple[Any, ...]


Window = list[Row]


def iterate_vectors(directory: str | os.PathLike[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the shards in order, each as (ids (rows,) int64, vectors (rows, dim) float32).

    Raises:
        InputError: The directory has no vectors, is not complete yet, or has a damaged file.
    """
    complete = read_complete(directory)
    for number in range(complete.shards):
        check_shard(directory, number, complete)
        columns = read_shard(directory, number, ["id", "vector", "scale"])
        yield columns["id"], restored(columns)


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


def vectors_folder(path: str | os.PathLike[str]) -> Path:
    """The directory of vectors that a path means: what `textcl explore` wrote has it as `vectors`."""
    folder = Path(path)
    return folder / "vectors" if (folder / "explore.json").is_file() and (folder / "vectors").is_dir() else folder


def is_vectors(source: Any) -> bool:
    """Whether a source of texts is the path of a directory of vectors, complete or not; a model's directory is none."""
    folder = vectors_folder(source) if isinstance(source, (str, os.PathLike)) else None
    return folder is not None and (folder / "manifest.json").is_file() and not is_model(folder)


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
    corpora = stored_corpora(manifest)  # behind an interruption, those behind the first may not be complete
    sizes = zip(accumulate(each.texts for each in corpora), (each.numbers.stop for each in corpora), strict=True)
    if (complete.texts, complete.shards) not in sizes or not isinstance(complete.files, dict):
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
    """The named columns of a shard, without those that it lacks.

    `vector` is (rows, dim), in the stored data type, and `bits` (rows, dim / 8) uint8. The user's ids (`own_id`) and
    columns (`column:NAME`) are arrays of Python values, None where a value is missing.
    """
    return _arrays(read_table(directory, number, names))


def read_table(directory: str | os.PathLike[str], number: int, names: Sequence[str]) -> Any:
    """Columns of a shard as a pyarrow table; a name that the shard does not have is left out."""
    return _table(shard_path(Path(directory), number), names)


def _table(path: Path, names: Sequence[str] | None) -> Any:
    """The named columns of a shard, or all, as a pyarrow table with the shard's metadata."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            there = [name for name in file.schema_arrow.names if names is None or name in names]
            table = file.read(there)
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}). {_AGAIN}") from None
    return table.select(there)  # pyarrow reads "a.b" too where "a" is asked for


def _arrays(table: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in ("vector", "bits"):
            found[name] = _numbers(column.flatten()).reshape(len(column), -1)
        elif name == "text" or _is_own(name):
            found[name] = np.empty(len(column), dtype=object)
            found[name][:] = column.to_pylist()
        else:
            found[name] = _numbers(column)
    return found


def _numbers(column: Any) -> np.ndarray:
    """The numbers of a pyarrow array. `to_numpy` would import pandas, a tenth of the time that a search takes."""
    if column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    kind = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _is_own(name: str) -> bool:
    return name == OWN_ID or name.startswith(PREFIX)


def window_bytes(window: Window) -> bytes:
    """The ids and texts of some rows as bytes."""
    ids = (str(row.id) if row.part is None else f"{row.id}.{row.part}" for row in window)
    # UTF-8 has no byte 0xff
    return b"".join(f"{each} {row.text}".encode() + b"\xff" for each, row in zip(ids, window, strict=True))


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
    check_settings(output, there, manifest)
    if there["corpus"]["sha256"] != manifest["corpus"]["sha256"]:
        raise InputError(
            f"{output} was written from another corpus, or {manifest['corpus']['name']} has changed since: the corpus "
            f"had {there['corpus']['texts']:,} texts, and now has {manifest['corpus']['texts']:,}. {_OTHERWISE}"
        )


_OTHERWISE = "Encode with the same model, settings and corpus, or name another directory."


def check_settings(output: Path, there: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Raises an error unless the manifest of a directory has the model and the settings of another one.

    Raises:
        InputError: One of them differs; the message says which.
    """
    if there["model"]["sha256"] != manifest["model"]["sha256"]:
        raise InputError(
            f"{output} was written by another model, {there['model']['name']}; the weights, the configuration or the "
            f"tokenizer of {manifest['model']['name']} differ from it. {_OTHERWISE}"
        )
    for name in {**manifest["settings"], **there["settings"]}:
        before, now = there["settings"].get(name), manifest["settings"].get(name)
        if before != now:
            raise InputError(f"{output} was written with {name} {before!r}, not {now!r}. {_OTHERWISE}")


def holds(path: Path, made_of: str, digest: bytes | None = None, first_id: int = 0) -> bool:
    """Whether a shard is there and is what was written.

    Args:
        path: The shard.
        made_of: The `origin` of its vectors.
        digest: SHA-256 of the ids and texts, see `window_bytes`; None: the corpus is not at hand, and the shard's own
            mark counts.
        first_id: Added to each id: the number of rows that were stored before this corpus.
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
        table = _table(path, None)
        columns, marks = _arrays(table), table.schema.metadata or {}
        parts = columns["part"].tolist() if "part" in columns else [None] * len(table)
        ids, texts = (columns["id"] - first_id).tolist(), columns["text"]
        window = [Row(*each, ()) for each in zip(ids, texts, parts, strict=True)]
        found = _marks(columns, made_of, window)
    except (InputError, KeyError, ValueError, TypeError, MemoryError, OverflowError):  # a damaged file is read as it is
        return False
    rows = found.pop(_ROWS)
    wanted = marks.get(_ROWS, rows) if digest is None else digest.hex().encode()
    return rows == wanted and {key: marks.get(key) for key in found} == found


def write_shard(
    path: Path,
    window: Window,
    stored: Mapping[str, np.ndarray],
    made_of: str,
    *,
    first_id: int = 0,
    types: Mapping[str, str] | None = None,
    cut: int = 0,
) -> None:
    """Writes a shard.

    Args:
        path: The shard.
        window: The rows. Their ids are row numbers of the corpus that is added, from 0.
        stored: Their vectors, see `stored_columns`.
        made_of: What the vectors were made of, see `origin`.
        first_id: Added to each id: the number of rows that were stored before this corpus.
        types: The names and types of what is kept beside the texts, see `textcl.vectors.columns`.
        cut: The number of texts that had more tokens than the encoder reads, and were cut or split.
    """
    import pyarrow
    import pyarrow.parquet

    kept = enumerate((types or {}).items())
    own = {name: as_array([row.own[place] for row in window], of_column) for place, (name, of_column) in kept}
    values = {name: np.array(each.to_pylist(), dtype=object) for name, each in own.items()}
    marks = {**_marks({**values, **stored}, made_of, window), _CUT: str(cut).encode()}
    columns = {
        "id": pyarrow.array([row.id + first_id for row in window], pyarrow.int64()),
        "text": pyarrow.array([row.text for row in window], pyarrow.large_string()),
        **{name: _listed(each) for name, each in stored.items()},
        **own,
    }
    if window[0].part is not None:
        columns["part"] = pyarrow.array([row.part for row in window], pyarrow.int32())
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(
            pyarrow.table(columns, metadata=marks),
            temporary,
            compression="zstd",
            # without a dictionary Parquet needs four bytes for each int8 or uint8
            use_dictionary=any(each.dtype.itemsize == 1 for each in stored.values()),
            write_page_checksum=True,
        )


def _listed(values: np.ndarray) -> Any:
    """An array as a column, and a matrix as a column of lists."""
    import pyarrow

    flat = pyarrow.array(values.ravel())
    return flat if values.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


_ROWS, _CUT = b"textcl.rows", b"textcl.cut"  # shards of earlier versions lack these two marks


def _marks(columns: Mapping[str, np.ndarray], made_of: str, window: Window) -> dict[bytes, bytes]:
    """The marks of a shard with these columns and, with ids that are counted in their corpus, these rows."""
    digest = hashlib.sha256()
    for name in ("vector", "scale", "bits"):
        if name in columns:
            digest.update(f"{name} {columns[name].dtype} {columns[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(columns[name]).data)
    marks = {
        b"textcl.made_of": made_of.encode(),
        b"textcl.vectors": digest.hexdigest().encode(),
        _ROWS: hashlib.sha256(window_bytes(window)).hexdigest().encode(),
    }
    if own := {name: columns[name].tolist() for name in sorted(columns) if _is_own(name)}:
        marks[b"textcl.columns"] = hashlib.sha256(json.dumps(own, default=str).encode()).hexdigest().encode()
    return marks


def texts_cut(directory: str | os.PathLike[str], complete: Complete) -> int | None:
    """The number of texts that were longer than the encoder reads; None if a shard does not say so."""
    import pyarrow.parquet

    found = 0
    for number in range(complete.shards):
        marks = pyarrow.parquet.read_metadata(shard_path(Path(directory), number)).metadata or {}
        if _CUT not in marks:
            return None
        found += int(marks[_CUT])
    return found


def check_finite(vectors: np.ndarray) -> None:
    """Raises an InputError if the model gave NaN or infinite numbers."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"The model gives NaN or infinite numbers for {len(bad):,} of {len(vectors):,} texts, first for number "
            f"{bad[0] + 1} of them. Its weights are damaged, or too large for the precision: leave out --bf16."
        )


def stored_columns(
    vectors: np.ndarray, dtype: Storage, compression: Compression | None = None, *, rescoring: bool = True
) -> dict[str, np.ndarray]:
    """The columns to store for smaller vectors.

    Args:
        vectors: The vectors, (rows, dim).
        dtype: The data type in which they are stored.
        compression: How bits are made; for "ubinary".
        rescoring: Whether int8 vectors are stored beside bits.

    Returns:
        `vector` (rows, dim); for "int8" also `scale` (rows,); for "ubinary" also, or only, `bits` (rows, dim / 8).
    """
    check_finite(vectors)
    if dtype == "ubinary":
        assert compression is not None
        beside = stored_columns(vectors, "int8") if rescoring else {}
        return {**beside, "bits": compression.bits(vectors)}
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


def restored(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The vectors (rows, dim) float32 of a shard's columns `vector` and `scale`.

    Raises:
        InputError: Only bits were stored.
    """
    if "vector" not in columns:
        raise InputError(
            "Only the bits of these vectors were stored (--no-rescoring), and numbers are needed here: encode the "
            "texts without --no-rescoring to another directory."
        )
    vectors = columns["vector"].astype(np.float32)
    return vectors * columns["scale"][:, None] if "scale" in columns else vectors


def shard_path(output: Path, number: int) -> Path:
    return output / f"part-{number:05}.parquet"
