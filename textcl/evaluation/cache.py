"""What a killed evaluation leaves behind for the next: embeddings by text, and the tasks that were finished.

All of it lies in one folder for each encoder, named by the encoder's fingerprint. Two processes may write there at the
same time: a file of embeddings takes its name when it is complete, and a finished task is one line in one write.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.evaluation.sts import encode_distinct
from textcl.files import atomic_write

logger = logging.getLogger("textcl")

SCHEMA = 1  # of a line of results.jsonl
_WINDOW = 16_384  # texts that are encoded between two files


def cache_folder(root: str | os.PathLike[str], encoder: Any, encode_arguments: dict[str, Any]) -> Path:
    """The folder under `root` for an encoder and the arguments of its `encode`, whose batch size does not matter.

    Raises:
        InputError: The encoder has no `fingerprint()`.
    """
    if not hasattr(encoder, "fingerprint"):
        raise InputError(
            f"A cache needs an encoder with a fingerprint, and {type(encoder).__name__} has no method fingerprint(). "
            f"Name the directory of the model instead of passing it, or leave the cache out."
        )
    arguments = {name: value for name, value in encode_arguments.items() if name != "batch_size"}
    mark = f"{encoder.fingerprint()} {json.dumps(arguments, sort_keys=True, default=str)}"
    return Path(root) / hashlib.sha256(mark.encode()).hexdigest()[:16]


def embed(
    encoder: Any, texts: Iterable[str], folder: Path | None, **encode_arguments: Any
) -> tuple[np.ndarray, dict[str, int]]:
    """Encodes each distinct text once, unless its embedding lies in `folder`, where new ones are put.

    Returns:
        The embeddings in float32, `(distinct, dim)`, and the row of each text in them.

    Raises:
        InputError: The encoder returned another number of rows than it was given texts, NaN or infinite values, or
            sparse rows; or a file of the folder is damaged.
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    if folder is None:
        rows, places = _encode(encoder, list(row_of), encode_arguments)
        return rows, places
    wanted = {hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(): text for text in row_of}
    found = _stored(folder, wanted)
    missing = sorted((key for key in wanted if key not in found), key=lambda key: -len(wanted[key]))
    for start in range(0, len(missing), _WINDOW):
        keys = missing[start : start + _WINDOW]
        rows, places = _encode(encoder, [wanted[key] for key in keys], encode_arguments)
        rows = rows[[places[wanted[key]] for key in keys]]
        _store(folder, keys, rows)
        found.update(zip(keys, rows, strict=True))
    return np.stack([found[key] for key in wanted]), row_of


def finished(folder: Path) -> list[dict[str, Any]]:
    """The lines of the results file. A line that a kill has torn is left out.

    Raises:
        InputError: The file was written by a textcl whose results have another schema.
    """
    path = folder / "results.jsonl"
    lines = []
    for number, raw in enumerate(path.read_bytes().split(b"\n") if path.exists() else [], start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            logger.warning("%s, line %d is torn and ignored.", path, number)
            continue
        schema = line.get("schema") if isinstance(line, dict) else None
        if schema != SCHEMA:
            raise InputError(
                f"{path}, line {number} has results of schema {schema}, and this version of textcl writes schema "
                f"{SCHEMA}. Remove the file, or name another folder for the cache."
            )
        lines.append(line)
    return lines


def add_finished(folder: Path, line: dict[str, Any]) -> None:
    """Adds a line to the results file and waits until it is on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    # one write in append mode, and a line end before it: neither another process nor a torn line can get into it
    handle = os.open(folder / "results.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, b"\n" + json.dumps({"schema": SCHEMA, **line}, ensure_ascii=False).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def _encode(encoder: Any, texts: list[str], encode_arguments: dict[str, Any]) -> tuple[np.ndarray, dict[str, int]]:
    rows, places = encode_distinct(encoder, texts, **encode_arguments)
    if not isinstance(rows, np.ndarray):
        raise InputError(
            "The encoder returns sparse rows; a classifier on them would not fit in memory. Dense ones are needed."
        )
    return rows.astype(np.float32), places


def _stored(folder: Path, wanted: dict[bytes, str]) -> dict[bytes, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    found: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                keys = [key.tobytes() for key in file.get_tensor("texts")]
                here = [row for row, key in enumerate(keys) if key in wanted]
                if here:
                    rows = file.get_tensor("embeddings")
                    found.update((keys[row], rows[row]) for row in here)
        except SafetensorError as error:
            raise InputError(f"{path} cannot be read: {error}. Remove it; its texts are then encoded anew.") from None
    return found


def _store(folder: Path, keys: list[bytes], rows: np.ndarray) -> None:
    from safetensors.numpy import save_file

    joined = b"".join(keys)
    with atomic_write(folder / f"{hashlib.sha256(joined).hexdigest()[:16]}.safetensors") as temporary:
        texts = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)
        save_file({"texts": texts, "embeddings": np.ascontiguousarray(rows)}, temporary)
