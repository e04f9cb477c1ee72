"""Searching many vectors: exactly, by a graph (HNSW), by cells (IVF), by words (BM25), and by vectors and words.

`--data` names a directory that `textcl encode` wrote, such as one of a million texts, or a file of texts, which `small`
encodes here. The queries are texts of the corpus with every second word. faiss's exact search is the peer. Only the
ranking is timed: neither the encoder nor reading the texts that were found. Recall is the share of its ten texts that
are found; of the hybrid search, the share of the ten that are best by exact cosines and BM25.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.measure import EQUAL, FASTER, MEBIBYTE, SMALLER, Options, Row, peak_above, seconds, take_turns
from textcl.data.training import find_corpus
from textcl.vectors.encode import encode_corpus
from textcl.vectors.fusion import DEPTH, WEIGHT, best_by_words, fuse
from textcl.vectors.index import EXACT_TEXTS, CorpusIndex
from textcl.vectors.shards import is_vectors, iterate_vectors
from textcl.vectors.vectors import Vectors, unit

TOP, TOGETHER = 10, 100
PROBES = 32  # cells that IVF looks into


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        name: Its name in the table.
        one: Gives the places of the best texts for a query and its vector (dim,).
        many: Answers all queries, (queries, dim); None: one by one.
        built: The seconds that building its index takes, and the peak in bytes.
    """

    name: str
    one: Callable[[str, np.ndarray], np.ndarray]
    many: Callable[[np.ndarray], Any] | None
    built: tuple[float, float]


def run(options: Options) -> list[Row]:
    """For each way: recall, queries a second one by one and 100 together, and what building its index takes."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "vectors"
        if is_vectors(options.data):  # without the indexes that may be there
            directory.mkdir()
            for file in Path(options.data).resolve().iterdir():
                if file.suffix == ".parquet":
                    (directory / file.name).symlink_to(file)
                elif file.name in ("manifest.json", "complete.json"):
                    shutil.copy(file, directory)
        else:
            limit = options.size(1_000_000, 2000)
            encode_corpus("small", find_corpus(options.data), directory, limit=limit, show_progress_bar=False)
        return list(_rows(directory, options))


def _rows(directory: Path, options: Options) -> Iterator[Row]:
    texts = Vectors(directory).texts()
    chosen = np.random.default_rng(0).choice(len(texts), options.size(TOGETHER, 20), replace=False)
    asked = [" ".join(texts[row].split()[::2]) for row in chosen.tolist()]
    count = len(texts)
    del texts
    exact, of_exact = _timed(partial(_exact, directory))
    by_words, of_words = _timed(partial(CorpusIndex, directory, retrieval="bm25"))
    queries = np.stack([by_words._query_vector(query, None, 0) for query in asked])
    words = [by_words._bm25.scores(query) for query in asked]
    title = f"search, {count:,} vectors of {exact.d}"

    def best(number: int) -> np.ndarray:
        cosines = np.zeros(count, np.float32)
        scores, places = exact.search(unit(queries[number, None]), count if options.quick else 100_000)
        cosines[places[0]] = scores[0]
        return np.argsort(-fuse(cosines, words[number]), kind="stable")[:TOP]

    peer = Way("exact", partial(_nearest_of, exact), partial(_all_of, exact), of_exact)
    nearest = [peer.one("", query) for query in queries]
    largest = [np.argsort(-_products(exact, query), kind="stable")[:TOP] for query in queries[:5]]
    found = 100 * float(np.mean([np.isin(*pair).mean() for pair in zip(nearest, largest, strict=False)]))
    yield Row(f"{title}, exact: recall@10", found, 100, "points", 1, EQUAL, "beside numpy's products, five queries")
    yield from _compared(
        title, Way("BM25", partial(_by_words, by_words), None, of_words), peer, asked, queries, options
    )
    fused = [best(number) for number in range(len(asked))]
    cells, of_cells = _timed(partial(_cells, exact))
    way = Way(f"IVF, {PROBES} of {cells.nlist} cells", partial(_nearest_of, cells), partial(_all_of, cells), of_cells)
    yield _recall(title, way, nearest, asked, queries)
    yield from _compared(title, way, peer, asked, queries, options)
    del cells, way
    graph, of_graph = _timed(partial(CorpusIndex, directory))
    kind = "HNSW" if count > EXACT_TEXTS else "exact, few texts"
    way = Way(f"CorpusIndex ({kind})", partial(_dense, graph), partial(_all_of, graph._index), of_graph)
    yield _recall(title, way, nearest, asked, queries)
    yield from _compared(title, way, peer, asked, queries, options)
    del graph
    both, of_both = _timed(partial(CorpusIndex, directory, retrieval="hybrid"))
    way = Way("hybrid, saved indexes", partial(_hybrid, both), None, of_both)
    yield _recall(title, way, fused, asked, queries)
    yield from _compared(title, way, peer, asked, queries, options)


def _exact(directory: Path) -> Any:
    index: Any = None
    for _, vectors in iterate_vectors(directory):
        index = index or faiss.IndexFlatIP(vectors.shape[1])
        index.add(unit(vectors))
    return index


def _cells(exact: Any) -> Any:
    """An IVF index of the vectors of another index, with 4 √n cells, trained on 40 vectors for each."""
    count = exact.ntotal
    cells = max(PROBES, 4 * int(count**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(exact.d), exact.d, cells, faiss.METRIC_INNER_PRODUCT)
    drawn = np.random.default_rng(0).choice(count, min(count, 40 * cells), replace=False)
    index.train(exact.reconstruct_batch(drawn))
    for start in range(0, count, 65_536):
        index.add(exact.reconstruct_n(start, min(65_536, count - start)))
    index.nprobe = PROBES
    return index


def _nearest_of(index: Any, query: str, vector: np.ndarray) -> np.ndarray:
    return np.asarray(index.search(unit(vector[None]), TOP)[1][0])


def _all_of(index: Any, queries: np.ndarray) -> Any:
    return index.search(unit(queries), TOP)


def _by_words(index: CorpusIndex, query: str, vector: np.ndarray) -> np.ndarray:
    return best_by_words(index._bm25.scores(query), TOP)


def _dense(index: CorpusIndex, query: str, vector: np.ndarray) -> np.ndarray:
    return index._nearest(vector, TOP)[0]


def _hybrid(index: CorpusIndex, query: str, vector: np.ndarray) -> np.ndarray:
    places, scores = index._fused(query, vector, WEIGHT, DEPTH)
    return places[np.argsort(-scores, kind="stable")[:TOP]]


def _products(exact: Any, vector: np.ndarray) -> np.ndarray:
    """The cosines of all vectors with one."""
    starts = range(0, exact.ntotal, 65_536)
    query = unit(vector[None])[0]
    return np.concatenate([exact.reconstruct_n(start, min(65_536, exact.ntotal - start)) @ query for start in starts])


def _recall(title: str, way: Way, expected: Sequence[np.ndarray], asked: Sequence[str], queries: np.ndarray) -> Row:
    found = [way.one(*each) for each in zip(asked, queries, strict=True)]
    share = float(np.mean([np.isin(*pair).mean() for pair in zip(expected, found, strict=True)]))
    return Row(f"{title}, {way.name}: recall@10", 100 * share, 100, "points", 1, "near 1")


def _compared(
    title: str, way: Way, peer: Way, asked: Sequence[str], queries: np.ndarray, options: Options
) -> list[Row]:
    """The speed of a way and of the exact search, in turns, and what their indexes take."""
    name = f"{title}, {way.name}"
    alone = {side.name: partial(_speed, side, asked, queries, together=False) for side in (way, peer)}
    together = {side.name: partial(_speed, side, asked, queries, together=True) for side in (way, peer)}
    return [
        Row.of(f"{name}: one query at a time", take_turns(alone, options.turns()), "queries/s", FASTER),
        Row.of(f"{name}: {len(asked)} together", take_turns(together, options.turns()), "queries/s", FASTER),
        Row(f"{name}: building", way.built[0], peer.built[0], "s", 1, SMALLER),
        Row(
            f"{name}: memory", way.built[1] / MEBIBYTE, peer.built[1] / MEBIBYTE, "MiB", 1, SMALLER, "peak of building"
        ),
    ]


def _speed(side: Way, asked: Sequence[str], queries: np.ndarray, *, together: bool) -> float:
    """Queries a second."""
    if together and side.many is not None:
        return len(asked) / seconds(partial(side.many, queries))
    return len(asked) / seconds(lambda: [side.one(*each) for each in zip(asked, queries, strict=True)])


def _timed(build: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What is built, the seconds that it takes, and the peak of memory in bytes above what was held before."""
    made: list[Any] = []
    taken: list[float] = []
    peak = peak_above(lambda: taken.append(seconds(lambda: made.append(build()))))
    return made[0], (taken[0], peak)
