"""`encode` versus `encode` of sentence-transformers, in float32 and in bfloat16."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.measure import EQUAL, FASTER, Options, Row, in_child, seconds, take_turns
from benchmarks.peak import operations, peak_rate, precisions, share, token_lengths
from benchmarks.simcse import load_peer
from textcl import Encoder

LENGTH = 128


def run(options: Options) -> list[Row]:
    """Sentences per second, and the mean cosine of the vectors with the float32 vectors of sentence-transformers."""
    texts = options.texts(options.size(20_000, 48))
    model = options.encoder()
    dtypes = precisions()
    vectors: dict[tuple[str, str], np.ndarray] = {}

    def rate(side: str, precision: str) -> Callable[[], float]:
        def measured() -> float:
            taken, vectors[side, precision] = in_child(encoded, side, precision, model, texts)
            return len(texts) / taken

        return measured

    sides = {f"{side}, {precision}": rate(side, precision) for precision in dtypes for side in ("textcl", "peer")}
    found = take_turns(sides, options.turns())
    work = operations(model, token_lengths(model, texts, LENGTH)) / len(texts)
    rows = []
    for ours, theirs in [("fp32", "fp32"), *([("bf16", "bf16"), ("bf16", "fp32")] if "bf16" in dtypes else [])]:
        notes = f"{len(texts):,} sentences, at most {LENGTH} tokens, batch size 32"
        if theirs == "bf16":
            notes += "; textcl computes in bf16 on float32 weights, the peer's weights are bf16"
        rates = {"textcl": found[f"textcl, {ours}"], "peer": found[f"peer, {theirs}"]}
        rows.append(Row.of(f"encode, {ours} beside {theirs}", rates, "sentences/s", FASTER, notes))
        if ours == theirs:
            peak = peak_rate(dtypes[ours], options.size(4096, 256))
            rows.append(share(f"encode, {ours}", rates, work / peak, f"of {peak / 1e9:.0f} Gflop/s"))
            cosines = [mean_cosine(vectors[side, ours], vectors["peer", "fp32"]) for side in ("textcl", "peer")]
            rows.append(Row(f"encode, {ours}: to the peer's fp32 vectors", *cosines, "mean cosine", 1, EQUAL))
    return rows


def encoded(side: str, precision: str, model: str, texts: list[str]) -> tuple[float, np.ndarray]:
    """Seconds and vectors. Runs in its own process, because textcl's memory settings would also speed up the peer."""
    half = precision == "bf16"
    if side == "textcl":
        encode = partial(Encoder.from_pretrained(model, max_length=LENGTH).encode, bf16=half)
    else:
        encode = partial(load_peer(model, LENGTH, bf16=half).encode, convert_to_numpy=not half, convert_to_tensor=half)
    encode(texts[:32], show_progress_bar=False)  # warming up
    vectors: list[Any] = []
    taken = seconds(lambda: vectors.append(encode(texts, show_progress_bar=False)))
    return taken, np.asarray(torch.as_tensor(vectors[0]).float().cpu())  # numpy has no bfloat16


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The mean cosine of each row of `first` (rows, dim) with the same row of `second`, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean(np.einsum("nd,nd->n", first, second) / norms))
