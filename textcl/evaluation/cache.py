"""The cache from which an interrupted evaluation is resumed: the embeddings of texts and the scores of finished tasks.

Each encoder has one folder, named by the encoder's fingerprint. Two processes may write to it at the same time, because
a file of embeddings is renamed into place when it is complete. A file has the SHA-256 of its content in its metadata: a
damaged file is removed, and its texts are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from textcl.errors import DiskFull, InputError
from textcl.evaluation.encoding import encode_dense
from textcl.files import append_result, atomic_write, read_results
from textcl.version import library_versions

logger = logging.getLogger("textcl")

FINISHED = "results.jsonl"  # one line for each finished task
_WINDOW = 16_384  # texts whose embeddings are written to one file


def cache_folder(root: str | os.PathLike[str], encoder: Any, encode_arguments: dict[str, Any]) -> Path:
    """The folder under `root` for an encoder and the arguments of its `encode`, without the batch size.

    Raises:
        InputError: The encoder has no `fingerprint()`.
    """
    if not hasattr(encoder, "fingerprint"):
        raise InputError(
            f"A cache needs an encoder with a fingerprint, but {type(encoder).__name__} has no method fingerprint(). "
            f"Pass the directory of the model instead of the object, or use no cache."
        )
    arguments = {name: value for name, value in encode_arguments.items() if name != "batch_size"}
    mark = f"{encoder.fingerprint()} {json.dumps(arguments, sort_keys=True, default=str)}"
    return Path(root) / hashlib.sha256(mark.encode()).hexdigest()[:16]


def embed(
    encoder: Any, texts: Iterable[str], folder: Path | None, **encode_arguments: Any
) -> tuple[np.ndarray, dict[str, int]]:
    """Encodes each distinct text once, unless its embedding is in `folder`; new embeddings are added there.

    Returns:
        The embeddings in float32, `(distinct, dim)`, and for each text its row in them.

    Raises:
        InputError: The encoder did not return one row per text, or returned NaN, infinite values or sparse rows.
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    if folder is None:
        return encode_dense(encoder, row_of, **encode_arguments)
    wanted = {hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(): text for text in row_of}
    found = _stored(folder, wanted)
    missing = sorted((key for key in wanted if key not in found), key=lambda key: -len(wanted[key]))
    for start in range(0, len(missing), _WINDOW):
        keys = missing[start : start + _WINDOW]
        rows, places = encode_dense(encoder, [wanted[key] for key in keys], **encode_arguments)
        rows = rows[[places[wanted[key]] for key in keys]]
        _store(folder, keys, rows)
        found.update(zip(keys, rows, strict=True))
    return np.stack([found[key] for key in wanted]), row_of


class Finished:
    """The results of finished tasks in the folder of an encoder, see `cache_folder`; without a folder none is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FINISHED
        self._lines = [] if self._path is None else read_results(self._path)

    def find(self, key: dict[str, Any], what: str) -> Any:
        """What an earlier run added for a key; None if there is nothing."""
        return next((line[what] for line in self._lines if {name: line.get(name) for name in key} == key), None)

    def add(self, key: dict[str, Any], what: str, value: Any) -> None:
        """Adds the result of a task; `key` is all that it depends on. A warning is logged if it cannot be written."""
        if self._path is None:
            return
        written = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            append_result(self._path, {**key, what: value, "versions": library_versions(), "written": written})
        except (OSError, DiskFull) as error:
            logger.warning("The scores of %s are not kept for a later run: %s", key["task"], error)


def _stored(folder: Path, wanted: dict[bytes, str]) -> dict[bytes, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    found: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                texts = file.get_tensor("texts")
                keys = [key.tobytes() for key in texts]
                here = [row for row, key in enumerate(keys) if key in wanted]
                if not here:
                    continue
                rows = file.get_tensor("embeddings")
                whole = (file.metadata() or {}).get("sha256") == _hash(texts, rows)
        except (SafetensorError, OSError, ValueError, TypeError):
            whole = False
        if whole:
            found.update((keys[row], rows[row]) for row in here)
        else:
            logger.warning("%s is damaged and is removed; its texts are encoded again.", path)
            path.unlink(missing_ok=True)
    return found


def _store(folder: Path, keys: list[bytes], rows: np.ndarray) -> None:
    from safetensors.numpy import save_file

    joined = b"".join(keys)
    texts, rows = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32), np.ascontiguousarray(rows)
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:16]}.safetensors"
    try:
        with atomic_write(path) as temporary:
            save_file({"texts": texts, "embeddings": rows}, temporary, {"sha256": _hash(texts, rows)})
    except (OSError, DiskFull) as error:
        logger.warning("Embeddings are not kept for a later run: %s", error)


def _hash(texts: np.ndarray, rows: np.ndarray) -> str:
    """SHA-256 of the content of a file."""
    digest = hashlib.sha256(f"{texts.shape} {rows.dtype} {rows.shape}\n".encode())
    digest.update(np.ascontiguousarray(texts).data)
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
