"""`textcl encode` of a corpus to Parquet, versus `encode` of sentence-transformers and writing one Parquet file."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from benchmarks.encode import LENGTH, mean_cosine
from benchmarks.measure import EQUAL, FASTER, MEBIBYTE, SMALLER, Options, Row, in_child, peak_above, seconds, take_turns
from benchmarks.simcse import load_peer
from textcl import Encoder, load_vectors
from textcl.vectors.encode import encode_corpus

SHARDS = 8  # of the whole corpus


def run(options: Options) -> list[Row]:
    """Sentences per second and peak memory, each run in its own process; and memory versus that for a quarter."""
    texts = options.texts(options.size(20_000, 64))
    model, shard_rows = options.encoder(), -(-len(texts) // SHARDS)
    with tempfile.TemporaryDirectory() as folder:
        corpus, quarter = Path(folder) / "texts.txt", Path(folder) / "quarter.txt"
        corpus.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        quarter.write_text("".join(f"{text}\n" for text in texts[: len(texts) // 4]), encoding="utf-8")
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs.parquet"
        sides = {
            "textcl": lambda: in_child(textcl_side, model, corpus, ours, shard_rows),
            "quarter": lambda: in_child(textcl_side, model, quarter, Path(folder) / "a quarter", shard_rows),
            "peer": lambda: in_child(peer_side, model, corpus, theirs),
        }
        found = take_turns(sides, options.turns(1))
        flat = pyarrow.parquet.read_table(theirs)["vector"].combine_chunks().flatten().to_numpy()
        cosine = mean_cosine(load_vectors(ours)[1], flat.reshape(len(texts), -1))
    speed = {side: [len(texts) / each[0] for each in found[side]] for side in ("textcl", "peer")}
    peak = {side: [each[1] / MEBIBYTE for each in runs] for side, runs in found.items()}
    notes = f"{len(texts):,} sentences, at most {LENGTH} tokens, fp32; shards of {shard_rows:,}"
    return [
        Row.of("corpus", speed, "sentences/s", FASTER, notes),
        Row.of("corpus: peak memory", {side: peak[side] for side in speed}, "MiB", SMALLER, "above the loaded model"),
        Row.of(
            "corpus: peak memory, all beside a quarter",
            {"textcl": peak["textcl"], "quarter": peak["quarter"]},
            "MiB",
            "near 1",
            "textcl on both sides: memory depends only on the size of a shard",
        ),
        Row("corpus: stored vectors to the peer's", cosine, 1.0, "mean cosine", 1, EQUAL),
    ]


def textcl_side(model: str, corpus: Path, output: Path, shard_rows: int) -> tuple[float, int]:
    """Seconds, and peak bytes above the loaded model."""
    encoder = Encoder.from_pretrained(model, max_length=LENGTH)
    shutil.rmtree(output, ignore_errors=True)  # the output of the previous round
    taken = []
    encode = partial(encode_corpus, encoder, corpus, output, shard_rows=shard_rows)
    peak = peak_above(lambda: taken.append(seconds(encode)))
    return taken[0], peak


def peer_side(model: str, corpus: Path, output: Path) -> tuple[float, int]:
    """The same for sentence-transformers, which holds all vectors in memory."""
    encoder = load_peer(model, LENGTH)
    taken = []

    def encode() -> None:
        texts = corpus.read_text(encoding="utf-8").splitlines()
        vectors = encoder.encode(texts, show_progress_bar=False)
        flat = pyarrow.array(np.ascontiguousarray(vectors).ravel())
        columns = {"text": texts, "vector": pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
        pyarrow.parquet.write_table(pyarrow.table(columns), output, compression="zstd")

    peak = peak_above(lambda: taken.append(seconds(encode)))
    return taken[0], peak
