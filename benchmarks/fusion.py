"""How should cosines and BM25 be fused? nDCG@10 of each way on collections in BEIR's layout.

    python -m benchmarks.fusion FOLDER ... [--model DIRECTORY] [--max-length 256]

All documents are scored by both sides; only the fusion differs. Each difference to the default is tested over queries.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import Options
from textcl.data.retrieval import read_beir
from textcl.encoder import Encoder
from textcl.evaluation.retrieval import score_ranking
from textcl.evaluation.significance import over_queries
from textcl.report.tables import table
from textcl.vectors.bm25 import Bm25
from textcl.vectors.fusion import fuse, weighted
from textcl.vectors.index import FEEDBACK

Fusion = Callable[[np.ndarray, np.ndarray], np.ndarray]
DEFAULT = "z-scores, weight 0.35"


def reciprocal_ranks(dense: np.ndarray, bm25: np.ndarray, k: int = 60, depth: int = 1000) -> np.ndarray:
    """The sum of 1 / (k + rank) over both rankings (Cormack, Clarke and Büttcher 2009)."""
    scores = np.zeros(len(dense))
    for side, ranked in ((dense, len(dense)), (bm25, int((bm25 > 0).sum()))):
        best = np.argsort(-side, kind="stable")[: min(depth, ranked)]
        scores[best] += 1 / (k + np.arange(1, len(best) + 1))
    return scores


FUSIONS: dict[str, Fusion] = {
    DEFAULT: fuse,
    "z-scores, weight 0.2": lambda dense, bm25: fuse(dense, bm25, 0.2),
    "z-scores, weight 0.5": lambda dense, bm25: fuse(dense, bm25, 0.5),
    "z-scores, 1,000 of each side": lambda dense, bm25: fuse(dense, bm25, depth=1000),
    "z-scores of all documents": weighted,
    "reciprocal ranks, k = 60": reciprocal_ranks,
    "dense": lambda dense, bm25: dense,
    "bm25": lambda dense, bm25: bm25,
}


def measure(folder: Path, encoder: Encoder) -> list[list[str]]:
    """The rows of a table: way, nDCG@10, difference to the default with its 95 % interval, p."""
    collection = read_beir(folder)
    names, answered = sorted(collection.documents), collection.answered
    texts = [collection.documents[name] for name in names]
    queries = [collection.queries[query] for query in answered]
    documents, asked = (encoder.encode(each, normalize=True) for each in (texts, queries))
    words = Bm25(texts)
    bm25 = [words.scores(query) for query in queries]

    def scored(fusion: Fusion, vectors: np.ndarray) -> list[float]:
        found = []
        for query, vector, by_words in zip(answered, vectors, bm25, strict=True):
            best = np.argsort(-fusion(documents @ vector, by_words), kind="stable")[:100]
            found.append(100 * score_ranking([names[place] for place in best], collection.relevance[query])["ndcg@10"])
        return found

    values = {name: scored(fusion, asked) for name, fusion in FUSIONS.items()}
    for count in (3, 10):
        near = np.stack([documents[np.argsort(-(documents @ vector))[:count]].mean(axis=0) for vector in asked])
        moved = asked + FEEDBACK * near
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        values[f"dense, expand {count}"] = scored(FUSIONS["dense"], moved)
        values[f"{DEFAULT}, expand {count}"] = scored(fuse, moved)
    rows = []
    for name, each in values.items():
        found = over_queries(values[DEFAULT], each)
        difference = "" if name == DEFAULT else f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        p_value = "" if name == DEFAULT else f"{found.p_value:.4f}"
        rows.append([name, f"{np.mean(each):.2f}", difference, p_value])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="corpus.jsonl, queries.jsonl and qrels/test.tsv")
    parser.add_argument("--model", metavar="DIRECTORY", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--max-length", type=int, default=256)
    given = parser.parse_args(arguments)
    encoder = Encoder.from_pretrained(Options(given.model).encoder(), max_length=given.max_length)
    for folder in given.folders:
        print(f"{folder.name}\n{table(['', 'nDCG@10', 'difference', 'p'], measure(folder, encoder))}\n")


if __name__ == "__main__":
    main()
