"""Searching the vectors that `encode_corpus` wrote, by cosine. The faiss index is saved in their directory."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from textcl.encoder import Encoder
from textcl.errors import DiskFull, InputError
from textcl.files import atomic_write
from textcl.progress import Progress
from textcl.seals import differs, read_sealed, seal, write_sealed
from textcl.texts import check_text
from textcl.vectors.shards import check_shard, iterate_vectors, read_complete, read_manifest, read_shard

logger = logging.getLogger("textcl")

EXACT_TEXTS = 200_000  # up to this many, all vectors are compared, which takes less time than loading the encoder
NEIGHBOURS = 32  # links of each vector in the HNSW graph of a larger index
BUILD_BREADTH, SEARCH_BREADTH = 200, 128  # efConstruction and efSearch: candidates kept while building and searching


class Hit(NamedTuple):
    """A text that was found: its cosine to the query (`score`), its row in the corpus (`id`), and the text."""

    score: float
    id: int
    text: str


class CorpusIndex:
    """Finds the texts of a corpus that are nearest to a query.

    The search is exact up to 200,000 texts. For more texts a graph (HNSW) finds nearly all of the nearest. The index
    takes four bytes per number. It is built at first use, and rebuilt when the vectors or its file have changed. It is
    kept in memory only where it cannot be saved.

    Args:
        directory: A directory that `encode_corpus` wrote.
        model: The encoder for the queries, or a name or path that `Encoder.from_pretrained` takes; default: the model
            that the directory's manifest names.

    Raises:
        InputError: faiss is not installed, the directory is not complete, or the model is not the one that wrote it.

    Example:
        >>> index = CorpusIndex("vectors")  # doctest: +SKIP
        >>> index.search("a machine that flies", top=3)  # doctest: +SKIP
    """

    def __init__(self, directory: str | Path, model: Encoder | str | Path | None = None) -> None:
        try:
            import faiss
        except ImportError:
            raise InputError("Searching needs faiss, which is not installed: pip install faiss-cpu") from None
        self._faiss: Any = faiss
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        self._complete = read_complete(directory)
        self.texts = self._complete.texts
        self._checked: set[int] = set()  # shards whose files were compared with their seals
        self.encoder = self._load_encoder(model)
        self._index = self._load_index()

    def search(self, query: str, top: int = 10, *, prompt: str | None = None) -> list[Hit]:
        """The `top` nearest texts, the nearest first.

        Args:
            query: The query text.
            top: How many texts to return.
            prompt: A prompt that is put before the query, or around it if the prompt contains `{text}`; default: the
                encoder's prompt named "query"; else the prompt that the corpus was encoded with, unless that is the
                encoder's own for documents.

        Raises:
            InputError: The query is blank or not a valid text, or `top` is less than 1.
        """
        if not check_text(query, "The query").strip() or top < 1:
            raise InputError("The query must not be blank, and at least one result must be asked for.")
        if prompt is None:
            prompt = self._query_prompt()
        vector = _unit(self.encoder.encode([query.strip()], prompt=prompt))
        scores, places = self._index.search(vector, min(top, self.texts))
        # the graph may find fewer texts than wanted; faiss then fills the places with -1
        found = [(float(score), int(place)) for score, place in zip(scores[0], places[0], strict=True) if place >= 0]
        shards: dict[int, dict[str, np.ndarray]] = {}
        hits = []
        for score, place in found:
            number, row = divmod(place, self.manifest["settings"]["shard_rows"])
            if number not in shards:
                if number not in self._checked:
                    check_shard(self.directory, number, self._complete)
                    self._checked.add(number)
                shards[number] = read_shard(self.directory, number, ["id", "text"])
            hits.append(Hit(score, int(shards[number]["id"][row]), shards[number]["text"][row]))
        return hits

    def _query_prompt(self) -> str:
        prompts, of_corpus = self.encoder.prompts, str(self.manifest["settings"]["prompt"])
        if "query" in prompts:
            return prompts["query"]
        return self.encoder.prompt_text() if of_corpus and prompts.get("document") == of_corpus else of_corpus

    def _load_encoder(self, model: Encoder | str | Path | None) -> Encoder:
        name = model or self.manifest["model"]["name"]
        settings = self.manifest["settings"]
        if not name:
            raise InputError(f"{self.directory} does not say where its model is; name the model.")
        if isinstance(name, Encoder):
            encoder = name
        else:
            encoder = Encoder.from_pretrained(
                name,
                pooling=settings["pooling"],
                max_length=settings["max_length"],
                dtype=getattr(torch, settings["weights"]),
            )
        if (
            encoder.fingerprint(settings=False) != self.manifest["model"]["sha256"]
            or encoder.pooling != settings["pooling"]
        ):
            raise InputError(
                f"{encoder.name} is not the model that wrote {self.directory}, or has changed since; name the model "
                "that wrote it, or encode again."
            )
        return encoder

    def _load_index(self) -> Any:
        faiss, path, mark = self._faiss, self.directory / "index.faiss", self.directory / "index.json"
        exact = self.texts <= EXACT_TEXTS
        made_of = {"exact": exact, "shards": self._complete.files}
        try:
            there = read_sealed(mark)
        except (OSError, InputError):  # missing or damaged
            there = {}
        if there.get("made_of") == made_of and differs(self.directory, there.get("files")) is None:
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
                    index.add(_unit(vectors[start : start + 1024]))
                    bar.update(len(vectors[start : start + 1024]))
        try:
            with atomic_write(path) as temporary:
                faiss.write_index(index, str(temporary))
            write_sealed(mark, {"made_of": made_of, "files": seal(self.directory, [path.name])})
        except (OSError, DiskFull) as error:
            logger.warning("The index cannot be saved (%s), so it is built again at the next search.", error)
        return index


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (rows, dim) scaled to length 1; vectors of length 0 stay as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
