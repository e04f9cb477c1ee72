"""`encode` beside sentence-transformers' `encode`, as they come and in bfloat16."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.measure import EQUAL, FASTER, Options, Row, seconds, take_turns
from benchmarks.peak import DTYPES, operations, peak_rate, share, token_lengths
from benchmarks.simcse import load_peer
from textcl import Encoder
from textcl.device import has_bf16

LENGTH = 128


def run(options: Options) -> list[Row]:
    """Sentences a second, and how near the vectors are to the float32 ones of sentence-transformers."""
    texts = options.texts(options.size(20_000, 48))
    model = options.encoder()
    encoder = Encoder.from_pretrained(model, max_length=LENGTH)
    encoders: dict[str, Callable[[list[str]], Any]] = {
        "textcl, fp32": lambda texts: encoder.encode(texts, show_progress_bar=False),
        "peer, fp32": _peer(model),
    }
    if has_bf16():
        encoders["textcl, bf16"] = lambda texts: encoder.encode(texts, bf16=True, show_progress_bar=False)
        encoders["peer, bf16"] = _peer(model, bf16=True)
    vectors: dict[str, np.ndarray] = {}

    def rate(name: str) -> Callable[[], float]:
        def encoded() -> None:
            vectors[name] = encoders[name](texts)

        return lambda: len(texts) / seconds(encoded)

    for encode in encoders.values():
        encode(texts[:32])  # warming up
    found = take_turns({name: rate(name) for name in encoders}, options.turns())
    work = operations(model, token_lengths(model, texts, LENGTH)) / len(texts)
    rows = []
    for precision in ("fp32", *(["bf16"] if has_bf16() else [])):
        ours, theirs = f"textcl, {precision}", f"peer, {precision}"
        notes = f"{len(texts):,} sentences, at most {LENGTH} tokens, batch size 32"
        if precision == "bf16":
            notes += "; textcl computes in bf16 on float32 weights, the peer's weights are bf16"
        sides = {"textcl": found[ours], "peer": found[theirs]}
        rows.append(Row.of(f"encode, {precision}", sides, "sentences/s", FASTER, notes))
        peak = peak_rate(DTYPES[precision], options.size(4096, 256))
        rows.append(share(f"encode, {precision}", sides, work / peak))
        cosines = [mean_cosine(vectors[name], vectors["peer, fp32"]) for name in (ours, theirs)]
        rows.append(Row(f"encode, {precision}: to the peer's fp32 vectors", *cosines, "mean cosine", 1, EQUAL))
    return rows


def _peer(model: str, *, bf16: bool = False) -> Callable[[list[str]], np.ndarray]:
    encoder = load_peer(model, LENGTH, bf16=bf16)

    def encode(texts: list[str]) -> np.ndarray:
        vectors = encoder.encode(texts, show_progress_bar=False, convert_to_numpy=not bf16, convert_to_tensor=bf16)
        return vectors.float().cpu().numpy() if isinstance(vectors, torch.Tensor) else vectors

    return encode


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Of each row of `first` (rows, dim) with the same row of `second`, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean(np.einsum("nd,nd->n", first, second) / norms))
