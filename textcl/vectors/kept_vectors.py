"""Vectors of texts that are kept in a folder until the work that needs them is done, so that a kill costs little."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textcl.encoder import Encoder
from textcl.vectors.encode import encode_corpus
from textcl.vectors.shards import load_vectors


def kept_vectors(
    encoder: Encoder,
    texts: Sequence[str],
    folder: Path,
    *,
    prompt: str,
    shard_rows: int,
    show_progress_bar: bool | None = None,
) -> np.ndarray:
    """The vectors of texts, (texts, dim). The same texts, encoder and prompt are encoded once.

    Args:
        encoder: The encoder.
        texts: The texts; no text may be blank.
        folder: The folder; it may keep the vectors of other texts and encoders too.
        prompt: What is put in front of each text.
        shard_rows: The number of texts that a kill can cost.
        show_progress_bar: As in `encode_corpus`.
    """
    content = "\x1e".join([prompt, encoder.fingerprint(), *texts])
    place = folder / hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    corpus = [{"text": text} for text in texts]  # not strings, as all could be names of files
    encode_corpus(encoder, corpus, place, prompt=prompt, shard_rows=shard_rows, show_progress_bar=show_progress_bar)
    return load_vectors(place)[1]
