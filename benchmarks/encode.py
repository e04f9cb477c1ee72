"""`encode` versus sentence-transformers, OpenVINO and ONNX Runtime, on sentences and on passages."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks import graphs
from benchmarks.measure import (
    EQUAL,
    FASTER,
    Options,
    Row,
    Seconds,
    cpu_seconds,
    in_child,
    seconds,
    take_turns,
    with_seconds,
)
from benchmarks.peak import operations, peak_rate, precisions, share, token_lengths
from benchmarks.simcse import load_peer
from textcl import Encoder

LENGTH = 128
TOGETHER = 3  # sentences of a passage
ST = "sentence-transformers"

Side = tuple[str, str]  # a library and a precision
Encoded = dict[str, tuple[Seconds, np.ndarray]]  # of each set of texts: the time and the vectors


def run(options: Options) -> list[Row]:
    """Texts per second, shares of the peak, and mean cosines to the float32 vectors of sentence-transformers."""
    sentences = options.texts(options.size(20_000, 48))
    passages = [" ".join(sentences[start : start + TOGETHER]) for start in range(0, len(sentences), TOGETHER)]
    sets = {"sentences": sentences, "passages": passages[: options.size(4_000, 16)]}
    model, dtypes, there = options.encoder(), precisions(), runtimes()
    pairs = _pairs(list(dtypes), there)

    def measure(side: Side) -> Callable[[], Encoded]:
        function = partial(graphs.encoded, folder) if side[0] in there else encoded
        return lambda: in_child(function, *side, model, sets, LENGTH)

    with TemporaryDirectory() as folder:
        if there:
            in_child(graphs.write, model, folder, LENGTH, "onnxruntime" in there)
        found = take_turns({_name(side): measure(side) for pair in pairs for side in pair}, options.turns())
    clock = seconds if torch.cuda.is_available() else cpu_seconds
    peaks = {name: peak_rate(dtype, options.size(4096, 256), clock) for name, dtype in dtypes.items()}
    rows = []
    for title, texts in sets.items():
        lengths = token_lengths(model, texts, LENGTH)
        work = operations(model, lengths) / len(texts)
        notes = f"{len(texts):,} texts, {sum(lengths) / len(texts):.0f} tokens on average"
        taken = {side: [turn[title][0] for turn in turns] for side, turns in found.items()}
        vectors = {side: turns[-1][title][1] for side, turns in found.items()}
        for pair in pairs:
            rows += compared(title, pair, taken, vectors, len(texts), work, peaks, notes)
    return rows


def runtimes() -> list[str]:
    """The runtimes that are measured too. A line says which ones are left out."""
    found = []
    for runtime in graphs.PRECISIONS:
        missing = graphs.missing(runtime)
        if missing or torch.cuda.is_available():
            reason = f"pip install {' '.join(missing)}" if missing else "it computes on the CPU, textcl on the GPU"
            print(f"encode: the rows of {runtime} are left out: {reason}.", file=sys.stderr)
        else:
            found.append(runtime)
    return found


def _pairs(precisions: list[str], there: list[str]) -> list[tuple[Side, Side]]:
    """What is compared: textcl with each peer at the peer's precision or, if it has not got that, its fastest one."""
    pairs = [(("textcl", each), (ST, each)) for each in precisions]
    if "bf16" in precisions:
        pairs.append((("textcl", "bf16"), (ST, "fp32")))
    for runtime in there:
        for theirs in graphs.PRECISIONS[runtime]:
            if theirs in precisions:
                pairs.append((("textcl", theirs), (runtime, theirs)))
            elif theirs == "int8":
                pairs.append((("textcl", precisions[-1]), (runtime, theirs)))
    return pairs


def _name(side: Side) -> str:
    return ", ".join(side)


def compared(
    title: str,
    pair: tuple[Side, Side],
    taken: Mapping[str, list[Seconds]],
    vectors: Mapping[str, np.ndarray],
    count: int,
    work: float,
    peaks: Mapping[str, float],
    notes: str,
) -> list[Row]:
    """The rows of one peer and `count` texts: by the clock, by CPU time, the share of the peak, and cosines.

    Different precisions are unequal work: the row says so, and has no share of the peak.
    """
    (_, ours), (library, theirs) = pair
    sides = dict(zip(("textcl", "peer"), map(_name, pair), strict=True))
    name = f"encode, {title}, {ours} beside {library} {theirs}"
    notes = f"{notes}; {_described(library, theirs)}"
    if ours != theirs:
        name, notes = f"{name} (unequal work)", f"{notes}; the precisions differ, see the cosines"
    by_clock = {side: [count / each.wall for each in taken[key]] for side, key in sides.items()}
    by_cpu = {side: [count / each.cpu for each in taken[key]] for side, key in sides.items()}
    rows = [Row.of(name, by_clock, "texts/s", FASTER, notes)]
    if not torch.cuda.is_available():
        rows.append(Row.of(f"{name}: CPU time", by_cpu, "texts/CPU s", FASTER))
    if ours == theirs:
        rates = by_clock if torch.cuda.is_available() else by_cpu
        rows.append(share(name, rates, work / peaks[ours], f"of {peaks[ours] / 1e9:.0f} Gflop/s"))
    cosines = [mean_cosine(vectors[key], vectors[_name((ST, "fp32"))]) for key in sides.values()]
    aim = EQUAL if ours == theirs else "near 1"
    return [*rows, Row(f"{name}: to the fp32 vectors of {ST}", *cosines, "mean cosine", 1, aim)]


def _described(library: str, precision: str) -> str:
    """The command, threads, type, padding and length of a peer's row."""
    command, batches = "SentenceTransformer.encode", "characters, batches of 32 texts"
    if library != ST:
        command, batches = graphs.described(library, precision), f"tokens, batches of {graphs.TOKENS:,} tokens"
    return (
        f"the peer is {command}, {precision}, {torch.get_num_threads()} threads; sorted by the number of {batches}, "
        f"padded to their longest row, at most {LENGTH} tokens a text"
    )


def encoded(side: str, precision: str, model: str, sets: Mapping[str, list[str]], length: int) -> Encoded:
    """Encodes each set. Call it in a new process, because textcl's memory settings affect the peer too."""
    half = precision == "bf16"
    if side == "textcl":
        encode = partial(Encoder.from_pretrained(model, max_length=length).encode, bf16=half)
    else:
        encode = partial(load_peer(model, length, bf16=half).encode, convert_to_numpy=not half, convert_to_tensor=half)
    encode(next(iter(sets.values()))[:32], show_progress_bar=False)  # warming up
    found: Encoded = {}
    for title, texts in sets.items():
        taken, vectors = with_seconds(partial(encode, texts, show_progress_bar=False))
        found[title] = taken, np.asarray(torch.as_tensor(vectors).float().cpu())  # numpy has no bfloat16
    return found


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The mean cosine of each row of `first` (rows, dim) with the same row of `second`, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean(np.einsum("nd,nd->n", first, second) / norms))
