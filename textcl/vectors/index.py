"""Searching the vectors that `encode_corpus` wrote: by cosine, by words (BM25), or by both.

The index of the vectors (faiss, or bits) and that of the words are saved in their directory.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from textcl.errors import DiskFull, InputError
from textcl.files import atomic_write
from textcl.progress import Progress
from textcl.ranges import Range
from textcl.seals import agrees, seal, write_sealed
from textcl.texts import check_text
from textcl.vectors.bits import BitIndex, open_bits
from textcl.vectors.bm25 import Bm25, check_language
from textcl.vectors.columns import OWN_ID, PREFIX
from textcl.vectors.compress import unit
from textcl.vectors.fusion import DEPTH, WEIGHT, RetrievalKind, best_by_words, check_retrieval, check_weight, weighted
from textcl.vectors.manifest import shard_starts
from textcl.vectors.shards import check_shard, iterate_vectors, read_complete, read_table
from textcl.vectors.unknown import unknown_texts
from textcl.vectors.vectors import Vectors

if TYPE_CHECKING:
    from textcl.encoder import Encoder

logger = logging.getLogger("textcl")

EXACT_TEXTS = 200_000  # up to this many, all vectors are compared, which takes less time than loading the encoder
NEIGHBOURS = 32  # links of each vector in the HNSW graph of a larger index
BUILD_BREADTH, SEARCH_BREADTH = 200, 128  # efConstruction and efSearch: candidates kept while building and searching
KEPT = 1 << 28  # bytes of texts that are kept in memory for later queries; reading a shard takes ten milliseconds
FEEDBACK = 0.75  # weight of the texts that expand a query (Rocchio's β; the query has the weight 1)


class Hit(NamedTuple):
    """A text that was found.

    Attributes:
        score: The cosine to the query; the BM25 score; or the score of `fuse`.
        id: The user's own id if the vectors were encoded with an id column, else the row in the corpus.
        text: The text; of a long text that was encoded in parts, the best part.
        part: The number of the part; None if texts are whole.
        columns: The user's columns that were kept.
    """

    score: float
    id: int | str
    text: str
    part: int | None
    columns: dict[str, Any]


class CorpusIndex:
    """Finds the texts of a corpus that answer a query.

    - "dense": by the cosine of their vectors. The search is exact up to 200,000 texts; for more texts a graph (HNSW)
      finds nearly all of the nearest. The index takes four bytes per number. Of vectors that were stored as bits, all
      bits are compared, and the four times as many nearest are ordered by their int8 vectors, see `BitIndex`; this
      needs no faiss.
    - "bm25": by their words, see `Bm25`; exact. A text without a word of the query is not found. It needs neither the
      model nor faiss.
    - "hybrid": by both, see `fuse`.

    An index is built at first use, and rebuilt when the vectors or its file have changed. It is kept in memory only
    where it cannot be saved. Of a long text that was encoded in parts, the best part counts.

    Args:
        directory: A directory that `encode_corpus` wrote.
        model: The encoder for the queries, or a name or path that `Encoder.from_pretrained` takes; default: the model
            that the directory's manifest names.
        retrieval: How `search` ranks if it is not told; what it needs is loaded now.
        language: The language of the words for BM25, one of `textcl.vectors.bm25.languages()`.

    Raises:
        InputError: faiss is needed and not installed, the directory is not complete, or the model is not the one that
            wrote it.

    Example:
        >>> index = CorpusIndex("vectors")  # doctest: +SKIP
        >>> index.search("a machine that flies", top=3)  # doctest: +SKIP
        >>> index.search("error 0x80070057", retrieval="hybrid")  # doctest: +SKIP
    """

    def __init__(
        self,
        directory: str | Path,
        model: Encoder | str | Path | None = None,
        *,
        retrieval: RetrievalKind = "dense",
        language: str = "english",
    ) -> None:
        check_retrieval(retrieval)
        if retrieval != "dense":
            check_language(language)
        self._model, self.retrieval, self.language = model, retrieval, language
        self.vectors = Vectors(directory)
        self.directory = self.vectors.directory
        if retrieval != "bm25" and self.vectors.dtype != "ubinary":
            _faiss()
        self.manifest, self._complete = self.vectors.manifest, read_complete(self.directory)
        self.texts = self._complete.texts
        self._starts = shard_starts(self.manifest)
        self._checked: set[int] = set()  # shards whose files were compared with their seals
        self._tables: dict[int, Any] = {}  # see `_shown`
        if retrieval != "bm25":
            _ = self.encoder, self._index
        if retrieval != "dense":
            _ = self._bm25

    def search(
        self,
        query: str,
        top: int = 10,
        *,
        prompt: str | None = None,
        retrieval: RetrievalKind | None = None,
        bm25_weight: float = WEIGHT,
        expand: int = 0,
    ) -> list[Hit]:
        """The `top` best texts, the best first.

        Args:
            query: The query text.
            top: How many texts to return.
            prompt: A prompt that is put before the query, or around it if the prompt contains `{text}`; default: the
                encoder's prompt named "query"; else the prompt that the corpus was encoded with, unless that is the
                encoder's own for documents.
            retrieval: "dense", "bm25" or "hybrid"; default: that of the constructor.
            bm25_weight: The weight of BM25 in hybrid search, from 0 to 1.
            expand: If above 0, the vector of the query is moved towards the `expand` nearest texts (Rocchio 1971): q +
                0.75 · mean of their vectors, with all vectors of length 1.

        Raises:
            InputError: The query is blank or not a valid text, `top` is not a whole number of at least 1, or another
                argument is out of range.
        """
        if not check_text(query, "The query").strip():
            raise InputError("The query must not be blank.")
        Range(at_least=1, whole=True).check("top", top)
        kind = check_retrieval(self.retrieval if retrieval is None else retrieval)
        check_weight(bm25_weight)
        if expand not in Range(at_least=0, whole=True):
            raise InputError(f"expand must be 0 or the number of texts that expand the query, not {expand}.")
        top, expand = int(top), int(expand)  # faiss takes no numpy numbers
        words = None if kind == "dense" else self._bm25.scores(query)
        if kind == "bm25":
            assert words is not None
            places = best_by_words(self._of_best_rows(words), top)
            return self._hits(places, words[places], top)
        vector, depth = self._query_vector(query, prompt, expand), self._rows_for(top)

        def candidates() -> tuple[np.ndarray, np.ndarray]:
            if words is None:
                return self._nearest(vector, depth)
            return self._fused(words, vector, bm25_weight, max(DEPTH, depth))

        places, scores = candidates()
        # more rows are looked at while these are parts of too few texts
        while self.vectors.split and depth < self.texts and len(set(self._row_ids[places])) < top:
            before, depth = len(places), 2 * depth
            places, scores = candidates()
            if words is None and len(places) <= before:  # a graph may not reach all
                break
        return self._hits(places, scores, top)

    def _rows_for(self, top: int) -> int:
        """How many rows are looked at for `top` texts: more if a text has several."""
        return min(self.texts, top if not self.vectors.split else max(DEPTH, 4 * top))

    def _query_vector(self, query: str, prompt: str | None, expand: int) -> np.ndarray:
        """The vector of a query, (dim,), made smaller as those of the corpus were, and with the length of one of them.

        The length decides on which side of the mean a number is.
        """
        if prompt is None:
            prompt = self._query_prompt()
        encoded = self.encoder.encode([query.strip()], prompt=prompt, normalize=self.vectors.normalized)
        vector: np.ndarray = self.vectors.compression.reduce(encoded)[0]
        if unknown_texts(self.encoder, [query.strip()])[0]:  # its cosine with other such texts is 1
            logger.warning(
                "The model knows at most half of the words of the query, so its vector and the cosines say "
                "little. Encode the texts with a model for its language, or search by words (bm25)."
            )
        if expand:
            near = self._rows(self._nearest(vector, expand)[0])
            moved = unit((unit(vector[None])[0] + FEEDBACK * near.mean(axis=0))[None])[0]
            vector = moved * np.linalg.norm(vector)
        return vector

    def _nearest(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The places of the rows nearest to a vector, the nearest first, and their cosines."""
        count, index = min(count, self.texts), self._index
        if isinstance(index, BitIndex):
            return index.search(vector, count)
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = max(SEARCH_BREADTH, count)
        scores, places = index.search(unit(vector[None]), count)
        found = places[0] >= 0  # the graph may find fewer texts than wanted; faiss then fills the places with -1
        return places[0][found], scores[0][found]

    def _fused(self, words: np.ndarray, vector: np.ndarray, weight: float, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of both sides and their scores, see `fuse`; `words`: the BM25 scores of all rows."""
        places = np.union1d(self._nearest(vector, depth)[0], best_by_words(self._of_best_rows(words), depth))
        if isinstance(self._index, BitIndex):
            cosines = self._index.scores(vector, places)
        else:
            cosines = self._rows(places) @ unit(vector[None])[0]
        return places, weighted(cosines, words[places], weight)

    def _of_best_rows(self, scores: np.ndarray) -> np.ndarray:
        """The scores, with 0 for all rows of a text but its best one, so that a text counts once, (rows,)."""
        if not self.vectors.split:
            return scores
        first = np.flatnonzero(np.diff(self._row_ids, prepend=self._row_ids[0] - 1))  # the parts of a text are in a row
        best = np.repeat(np.maximum.reduceat(scores, first), np.diff(first, append=len(scores)))
        rows = np.flatnonzero(scores == best)
        rows = rows[np.unique(self._row_ids[rows], return_index=True)[1]]
        found = np.zeros_like(scores)
        found[rows] = scores[rows]
        return found

    def _rows(self, places: np.ndarray) -> np.ndarray:
        """The vectors of some rows, (rows, dim), of length 1."""
        index = self._index
        return np.asarray(index.rows(places) if isinstance(index, BitIndex) else index.reconstruct_batch(places))

    def _hits(self, places: np.ndarray, scores: np.ndarray, top: int) -> list[Hit]:
        """The best `top` texts among some rows, each with its best row."""
        order = np.argsort(-scores, kind="stable")
        if self.vectors.split:
            order = order[np.sort(np.unique(self._row_ids[places[order]], return_index=True)[1])]
        hits = []
        for place, score in zip(places[order[:top]].tolist(), scores[order[:top]].tolist(), strict=True):
            number = bisect_right(self._starts, place) - 1
            table, place = self._shown(number), place - self._starts[number]
            row = {name: table[name][place].as_py() for name in table.column_names}
            columns = {name: row[PREFIX + name] for name in self.vectors.columns}
            hits.append(Hit(score, row.get(OWN_ID, row["id"]), row["text"], row.get("part"), columns))
        return hits

    def _shown(self, number: int) -> Any:
        """What a hit shows, of all rows of a shard, as a pyarrow table; the tables that were used last are kept."""
        if number not in self._checked:
            check_shard(self.directory, number, self._complete)
            self._checked.add(number)
        if (table := self._tables.pop(number, None)) is None:
            names = ["id", OWN_ID, "text", "part", *(PREFIX + name for name in self.vectors.columns)]
            table = read_table(self.directory, number, names)
        self._tables[number] = table
        while len(self._tables) > 1 and sum(each.nbytes for each in self._tables.values()) > KEPT:
            del self._tables[next(iter(self._tables))]  # the one that was not used for the longest time
        return table

    @cached_property
    def _row_ids(self) -> np.ndarray:
        """The text that each row belongs to, (rows,)."""
        return self.vectors.ids()

    def _query_prompt(self) -> str:
        prompts, of_corpus = self.encoder.prompts, str(self.manifest["settings"]["prompt"])
        if "query" in prompts:
            return prompts["query"]
        return self.encoder.prompt_text() if of_corpus and prompts.get("document") == of_corpus else of_corpus

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the queries; loaded at first use."""
        name = self._model or self.manifest["model"]["name"]
        settings = self.manifest["settings"]
        if not name:
            raise InputError(f"{self.directory} does not say where its model is; name the model.")
        encoder = self.vectors.load_encoder(name)
        if (
            encoder.fingerprint(settings=False) != self.manifest["model"]["sha256"]
            or encoder.pooling != settings["pooling"]
        ):
            raise InputError(
                f"{encoder.name} is not the model that wrote {self.directory}, or has changed since; name the model "
                "that wrote it, or encode again."
            )
        return encoder

    @cached_property
    def _bm25(self) -> Bm25:
        made_of = {"shards": self._complete.files}
        if (kept := Bm25.load(self.directory, made_of, self.language)) is not None:
            return kept
        with Progress("Building the index of words", at_once=self.texts > EXACT_TEXTS):
            made = Bm25(self.vectors.texts(), self.language)
        try:
            made.save(self.directory, made_of)
        except (OSError, DiskFull) as error:
            logger.warning(_NOT_SAVED, error)
        return made

    @cached_property
    def _index(self) -> Any:
        if self.vectors.dtype == "ubinary":
            return open_bits(self.directory, self._complete, self.vectors.compression, self.vectors.rescoring)
        faiss, path, mark = _faiss(), self.directory / "index.faiss", self.directory / "index.json"
        exact = self.texts <= EXACT_TEXTS
        made_of = {"exact": exact, "shards": self._complete.files}
        if agrees(mark, made_of=made_of):
            return faiss.read_index(str(path))
        dimension = self.manifest["dimension"]
        if exact:
            index = faiss.IndexFlatIP(dimension)
        else:
            index = faiss.IndexHNSWFlat(dimension, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_BREADTH, SEARCH_BREADTH
        with Progress("Building the index", self.texts) as bar:
            for _, vectors in iterate_vectors(self.directory):
                for start in range(0, len(vectors), 1024):
                    index.add(unit(vectors[start : start + 1024]))
                    bar.update(len(vectors[start : start + 1024]))
        try:
            with atomic_write(path) as temporary:
                faiss.write_index(index, str(temporary))
            write_sealed(mark, {"made_of": made_of, "files": seal(self.directory, [path.name])})
        except (OSError, DiskFull) as error:
            logger.warning(_NOT_SAVED, error)
        return index


_NOT_SAVED = "The index cannot be saved (%s), so it is built again at the next search."


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError("Searching needs faiss, which is not installed: pip install faiss-cpu") from None
    return faiss
