"""What a killed evaluation leaves behind for the next: embeddings by text, beside the tasks that were finished.

All of it lies in one folder for each encoder, named by the encoder's fingerprint. Two processes may write there at the
same time: a file of embeddings takes its name when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.evaluation.encoding import encode_distinct
from textcl.files import atomic_write

FINISHED = "results.jsonl"  # a line for each task that was scored
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
