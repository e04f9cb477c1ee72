"""What smaller vectors cost a search: recall@10 beside the exact search of float32 vectors, bytes, queries a second.

The collections are Cranfield and NPL in BEIR's layout, in the folder `retrieval` of the data directory. Recall is the
share of the ten texts that the exact search finds. Each side answers the queries one by one, as `CorpusIndex` does: by
faiss for numbers, by `BitIndex` for bits. All dimensions in float32 are the peer.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from benchmarks.measure import EQUAL, FASTER, SMALLER, Options, Row, seconds, take_turns
from textcl.data.catalogue import data_directory
from textcl.data.retrieval import read_beir
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.vectors.bits import BitIndex, as_words
from textcl.vectors.compress import Compression, Storage, bytes_of, unit
from textcl.vectors.fitting import FITTED
from textcl.vectors.shards import restored, stored_columns

NAMES = ("cranfield", "npl")
SHARES = (1, 1 / 3, 1 / 6, 1 / 12)  # of the dimensions: 384, 128, 64 and 32
LENGTH, TOP, QUERIES = 256, 10, 300  # queries of a round, so that a round takes long enough
MANY = 200_000, 2000  # up to so many, numbers are searched exactly
WAYS: tuple[tuple[str, Storage, bool], ...] = (
    ("float32", "float32", True),
    ("float16", "float16", True),
    ("int8", "int8", True),
    ("ubinary, then int8", "ubinary", True),
    ("ubinary", "ubinary", False),
)
Search = Callable[[np.ndarray], np.ndarray]  # places of the nearest texts to a query, (dim,)


def run(options: Options) -> list[Row]:
    """Recall, bytes and speed for each collection, number of dimensions and data type."""
    encoder = Encoder.from_pretrained(options.encoder(), max_length=LENGTH)
    rows = []
    for name, (texts, queries) in collections(options).items():
        documents, asked = encoder.encode(texts), encoder.encode(queries)
        sizes = sorted({round(share * encoder.dimension) // 8 * 8 for share in SHARES}, reverse=True)
        exact = searching(documents, Compression(None, encoder.normalize), "float32", True)
        best = [exact(query) for query in asked]
        notes = f"{len(texts):,} texts, {len(queries):,} queries"
        for size in sizes:
            for rotated in (False, True) if size < encoder.dimension else (False,):
                for title, dtype, rescoring in WAYS:
                    cut = None if size == encoder.dimension else size
                    bits = dtype == "ubinary"
                    fit = Compression.fit(documents[:FITTED], cut, normalize=encoder.normalize, pca=rotated, bits=bits)
                    search = searching(documents, fit, dtype, rescoring)
                    found = [
                        np.isin(search(query), expected).mean() for query, expected in zip(asked, best, strict=True)
                    ]
                    what = f"{name}, {size} dimensions{' by PCA' * rotated}, {title}"
                    same = not rotated and cut is None and dtype == "float32"
                    recall = 100 * float(np.mean(found))
                    rows.append(Row(f"{what}: recall@10", recall, 100, "points", 1, EQUAL if same else "near 1", notes))
                    stored = bytes_of(size, dtype, rescoring=rescoring), bytes_of(encoder.dimension, "float32")
                    rows.append(Row(f"{what}: size", *stored, "bytes", 1, SMALLER))
                    if not rotated and dtype in ("float32", "ubinary"):  # the others are searched as float32
                        rows.append(speed(what, search, exact, asked, QUERIES, options))
    return [*rows, *many(options)]


def many(options: Options) -> list[Row]:
    """The speed over so many vectors that the work on each of them counts; of random ones, which cost the same."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((options.size(*MANY), 384), dtype=np.float32)
    asked = generator.standard_normal((20, 384), dtype=np.float32)
    exact = searching(vectors, Compression(), "float32", True)
    fit = Compression.fit(vectors[:FITTED], None, normalize=False, bits=True)
    rows = []
    for title, dtype, rescoring in WAYS[3:]:
        search = searching(vectors, fit, dtype, rescoring)
        rows.append(speed(f"{len(vectors):,} vectors of 384, {title}", search, exact, asked, 100, options))
    return rows


def collections(options: Options) -> dict[str, tuple[list[str], list[str]]]:
    """Texts and queries of each collection; with `quick`, of bundled sentences."""
    if options.quick:
        texts = options.texts(200)
        return {"sentences": (texts, [" ".join(text.split()[:5]) for text in texts[:20]])}
    folder = data_directory() / "retrieval"
    missing = [name for name in NAMES if not (folder / name / "corpus.jsonl").is_file()]
    if missing:
        raise InputError(f"There is no collection {folder / missing[0]}; put it there in BEIR's layout.")
    return {name: _read(folder / name) for name in NAMES}


def _read(folder: Path) -> tuple[list[str], list[str]]:
    collection = read_beir(folder)
    return list(collection.documents.values()), [collection.queries[query] for query in collection.answered]


def searching(documents: np.ndarray, fit: Compression, dtype: Storage, rescoring: bool) -> Search:
    """A search over vectors that are stored so; a query is a vector of the encoder."""
    reduced = fit.reduce(documents)
    stored = stored_columns(reduced, dtype, fit, rescoring=rescoring)
    if dtype == "ubinary":
        bits = BitIndex(as_words(stored["bits"]), stored["vector"] if rescoring else None, fit)
        return lambda query: bits.search(fit.reduce(query[None])[0], TOP)[0]
    index = faiss.IndexFlatIP(reduced.shape[1])
    index.add(unit(restored(stored)))
    return lambda query: index.search(unit(fit.reduce(query[None])), TOP)[1][0]


def speed(what: str, search: Search, exact: Search, asked: np.ndarray, count: int, options: Options) -> Row:
    """Queries a second, one by one; `count` of them in a round."""
    queries = np.resize(asked, (options.size(count, 40), asked.shape[1]))

    def answer(side: Search) -> float:
        return len(queries) / seconds(lambda: [side(query) for query in queries])

    found = take_turns({"textcl": partial(answer, search), "peer": partial(answer, exact)}, options.turns(3))
    return Row.of(f"{what}: speed", found, "queries/s", FASTER)
