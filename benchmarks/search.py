"""Searching many vectors: exactly, by a graph (HNSW), by cells (IVF), by words (BM25), and by vectors and words.

`--data` names a directory that `textcl encode` wrote, such as one of a million texts, or a file of texts, which `small`
encodes here. The queries are texts of the corpus with every second word. faiss's exact search is the peer. Only the
ranking is timed: neither the encoder nor reading the texts that were found. It is timed on one thread and in CPU
seconds, which mean the same on a busy machine. Recall is the share of the ten texts of the exact search that are found;
of the hybrid search, the share of the ten that are best by exact cosines and BM25.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.measure import EQUAL, FASTER, MEBIBYTE, SMALLER, Options, Row, peak_above, take_turns
from textcl.data.training import find_corpus
from textcl.vectors.compress import unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.fusion import DEPTH, WEIGHT, best_by_words, fuse
from textcl.vectors.index import EXACT_TEXTS, CorpusIndex
from textcl.vectors.shards import is_vectors, iterate_vectors
from textcl.vectors.vectors import Vectors

TOP, TOGETHER = 10, 100
PROBES = 32  # cells that IVF looks into


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        name: What the table calls this search, such as "HNSW".
        one: Gives the places of the best texts for a query and its vector (dim,).
        many: Answers all queries, (queries, dim); None: one by one.
        built: The CPU seconds that building its index takes, and the peak in bytes.
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
        faiss.omp_set_num_threads(1)
        return list(_rows(directory, options))


def _rows(directory: Path, options: Options) -> Iterator[Row]:
    texts = Vectors(directory).texts()
    count = len(texts)
    chosen = np.random.default_rng(0).choice(count, options.size(TOGETHER, 20), replace=False)
    asked = [" ".join(texts[row].split()[::2]) for row in chosen.tolist()]
    del texts
    exact, of_exact = _timed(partial(_exact, directory))
    peer = Way("exact", partial(_nearest_of, exact), partial(_all_of, exact), of_exact)
    by_words, of_words = _timed(partial(CorpusIndex, directory, retrieval="bm25"))
    queries = np.stack([by_words._query_vector(query, None, 0) for query in asked])
    cosines = _vectors_in(exact) @ unit(queries).T
    nearest = np.stack([peer.one("", query) for query in queries])
    scores = [(cosines[:, number], by_words._bm25.scores(query)) for number, query in enumerate(asked)]
    fused = np.stack([_first(fuse(*both)) for both in scores])
    of_numpy = np.stack([_first(column) for column in cosines.T])
    del cosines, scores
    title = f"search, {count:,} vectors of {exact.d}"

    def compared(way: Way, expected: np.ndarray | None) -> list[Row]:
        side = [way, peer]
        return [
            *([_recall(title, way, expected, asked, queries)] if expected is not None else []),
            _speed(f"{title}, {way.name}: one query at a time", side, asked, queries, options, together=False),
            _speed(f"{title}, {way.name}: {len(asked)} together", side, asked, queries, options, together=True),
            Row(f"{title}, {way.name}: building", way.built[0], of_exact[0], "CPU s", 1, SMALLER),
            Row(f"{title}, {way.name}: memory", way.built[1] / MEBIBYTE, of_exact[1] / MEBIBYTE, "MiB", 1, SMALLER),
        ]

    yield _recall(title, peer, of_numpy, asked, queries, EQUAL)
    yield from compared(Way("BM25", partial(_by_words, by_words), None, of_words), None)
    del by_words
    cells, built = _timed(partial(_cells, exact))
    name = f"IVF, {PROBES} of {cells.nlist} cells"
    yield from compared(Way(name, partial(_nearest_of, cells), partial(_all_of, cells), built), nearest)
    del cells
    dense, built = _timed(partial(CorpusIndex, directory))
    name = "HNSW" if count > EXACT_TEXTS else "exact, CorpusIndex"
    yield from compared(Way(name, partial(_dense, dense), partial(_all_of, dense._index), built), nearest)
    del dense
    both, built = _timed(partial(CorpusIndex, directory, retrieval="hybrid"))
    yield from compared(Way(f"hybrid of BM25 and {name}, saved", partial(_hybrid, both), None, built), fused)


def _exact(directory: Path) -> Any:
    index: Any = None
    for _, vectors in iterate_vectors(directory):
        index = index or faiss.IndexFlatIP(vectors.shape[1])
        index.add(unit(vectors))
    return index


def _vectors_in(exact: Any) -> np.ndarray:
    """The vectors of an exact index, (texts, dim), which is not copied."""
    return faiss.rev_swig_ptr(exact.get_xb(), exact.ntotal * exact.d).reshape(exact.ntotal, exact.d)


def _cells(exact: Any) -> Any:
    """An IVF index of the vectors of an exact one, with 4 √n cells, trained on at most 40 vectors for each."""
    vectors = _vectors_in(exact)
    cells = max(PROBES, 4 * int(len(vectors) ** 0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(exact.d), exact.d, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.verbose, index.cp.niter = False, 10
    drawn = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 40 * cells), replace=False)
    index.train(vectors[drawn])
    for start in range(0, len(vectors), 65_536):
        index.add(vectors[start : start + 65_536])
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
    places, scores = index._fused(index._bm25.scores(query), vector, WEIGHT, DEPTH)
    return places[_first(scores)]


def _first(scores: np.ndarray) -> np.ndarray:
    """The places of the ten highest scores."""
    places = np.argpartition(-scores, TOP)[:TOP] if len(scores) > TOP else np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")]


def _recall(
    title: str, way: Way, expected: np.ndarray, asked: Sequence[str], queries: np.ndarray, aim: str = "near 1"
) -> Row:
    found = [way.one(*each) for each in zip(asked, queries, strict=True)]
    share = float(np.mean([np.isin(*pair).mean() for pair in zip(expected, found, strict=True)]))
    return Row(f"{title}, {way.name}: recall@10", 100 * share, 100, "points", 1, aim)


def _speed(
    name: str, sides: Sequence[Way], asked: Sequence[str], queries: np.ndarray, options: Options, *, together: bool
) -> Row:
    def speed(way: Way) -> float:
        started = time.process_time()
        if together and way.many is not None:
            way.many(queries)
        else:
            for each in zip(asked, queries, strict=True):
                way.one(*each)
        return len(asked) / (time.process_time() - started)

    found = take_turns({way.name: partial(speed, way) for way in sides}, options.turns())
    return Row.of(name, found, "queries/CPU s", FASTER)


def _timed(build: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What is built, the CPU seconds that it takes, and the peak of memory in bytes above what was held before."""
    made: list[Any] = []
    started = time.process_time()
    peak = peak_above(lambda: made.append(build()))
    return made[0], (time.process_time() - started, peak)
