"""Search: the nearest by cosine, as numpy finds them; the index that is kept; and what is refused."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support.command import textcl, without_progress
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.seals import read_sealed
from textcl.vectors import index as index_module
from textcl.vectors.bm25 import Bm25
from textcl.vectors.encode import encode_corpus
from textcl.vectors.fusion import fuse
from textcl.vectors.index import CorpusIndex
from textcl.vectors.shards import load_vectors

QUERIES = [TEXTS[3], "a broken clock in the garden", "the chess player", "boxes"]


@pytest.fixture(scope="module")
def vectors(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode_corpus(encoder, TEXTS, tmp_path_factory.mktemp("search") / "v", shard_rows=50)


def nearest(encoder: Encoder, directory: Path, query: str, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, cosines) of the nearest, by brute force."""
    ids, vectors = load_vectors(directory)
    query_vector = encoder.encode(query).astype(np.float64)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1) * np.linalg.norm(query_vector)
    cosines = vectors.astype(np.float64) @ query_vector / lengths
    order = np.argsort(-cosines, kind="stable")[:top]
    return ids[order], cosines[order]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_nearest_are_those_of_brute_force(encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    texts = ["", *TEXTS]
    directory = encode_corpus(encoder, texts, tmp_path / "v", dtype=dtype, shard_rows=50)
    index = CorpusIndex(directory, encoder)
    for query in QUERIES:
        hits = index.search(query, top=7)
        ids, cosines = nearest(encoder, directory, query, 7)
        assert [hit.id for hit in hits] == ids.tolist()
        assert np.allclose([hit.score for hit in hits], cosines, atol=1e-5)
        assert [hit.text for hit in hits] == [texts[number] for number in ids]


def test_texts_that_were_shown_are_kept_up_to_a_limit(
    encoder: Encoder, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, few = CorpusIndex(vectors, encoder), CorpusIndex(vectors, encoder)
    found = [index.search(query, top=30) for query in QUERIES]
    assert len(index._tables) > 2
    monkeypatch.setattr(index_module, "KEPT", 1)
    assert [few.search(query, top=30) for query in QUERIES] == found
    assert len(few._tables) == 1
    monkeypatch.setattr(index_module, "KEPT", 1 << 28)
    two = sum(index._shown(number).nbytes for number in range(3)) - 1
    monkeypatch.setattr(index_module, "KEPT", two)
    order = [0, 1, 0, 2]
    assert [few._shown(number)["id"][0].as_py() for number in order] == [50 * number for number in order]
    assert list(few._tables) == [0, 2], "the one that was not used for the longest time is given up"
    monkeypatch.setattr(index_module, "KEPT", 1 << 28)
    monkeypatch.setattr(index_module, "read_table", None)
    assert [index.search(query, top=30) for query in QUERIES] == found, "nothing is read again"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_text_finds_itself_first(encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    index = CorpusIndex(encode_corpus(encoder, TEXTS, tmp_path / "v", dtype=dtype, shard_rows=50), encoder)
    for row in range(0, len(TEXTS), 17):
        first = index.search(TEXTS[row], top=1)[0]
        assert first.text == TEXTS[row]
        assert first.score > 0.999


def test_a_large_corpus_is_searched_by_a_graph(
    encoder: Encoder, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shutil.copytree(vectors, tmp_path / "v")
    exact = CorpusIndex(directory, encoder)
    monkeypatch.setattr("textcl.vectors.index.EXACT_TEXTS", 100)
    graph = CorpusIndex(directory, encoder)
    assert type(exact._index).__name__ == "IndexFlatIP"
    for index in (graph, CorpusIndex(directory, encoder)):  # made, and read back
        assert type(index._index).__name__ == "IndexHNSWFlat"
        assert index._index.hnsw.efSearch == 128
        for query in QUERIES:
            found, wanted = index.search(query, top=10), nearest(encoder, directory, query, 10)
            assert len({hit.id for hit in found} & set(wanted[0].tolist())) >= 9
            assert found[0].id == wanted[0][0]
            assert abs(found[0].score - wanted[1][0]) < 1e-5
        many, wanted = index.search(QUERIES[0], top=200), nearest(encoder, directory, QUERIES[0], 200)[0]
        assert len({hit.id for hit in many} & set(wanted.tolist())) >= 190
        assert index._index.hnsw.efSearch == 200  # as many candidates


def test_the_index_is_kept_and_made_again_when_the_vectors_change(
    encoder: Encoder, vectors: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(vectors, tmp_path / "v")
    before = CorpusIndex(directory, encoder).search(QUERIES[1])
    made = (directory / "index.faiss").stat().st_mtime_ns
    (directory / "part-00002.parquet").unlink()
    encode_corpus(encoder, TEXTS, directory, shard_rows=50)
    assert CorpusIndex(directory, encoder).search(QUERIES[1]) == before
    assert (directory / "index.faiss").stat().st_mtime_ns == made, "the same shard was made again"
    other = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", seed=1), device="cpu")
    (directory / "manifest.json").unlink()
    encode_corpus(other, TEXTS, directory, shard_rows=50)
    found = CorpusIndex(directory, other).search(QUERIES[1])
    ids, scores = nearest(other, directory, QUERIES[1], 10)
    assert [hit.id for hit in found] == ids.tolist()
    assert np.allclose([hit.score for hit in found], scores, atol=1e-6)
    (directory / "index.faiss").unlink()
    assert CorpusIndex(directory, other).search(QUERIES[1]) == found


def test_more_are_wanted_than_there_are(encoder: Encoder, tmp_path: Path) -> None:
    index = CorpusIndex(encode_corpus(encoder, TEXTS[:3], tmp_path / "v"), encoder)
    assert sorted(hit.id for hit in index.search("a boat", top=10)) == [0, 1, 2]


@pytest.mark.parametrize("retrieval", ["dense", "hybrid", "bm25"])
def test_a_query_whose_words_the_model_does_not_know_is_said(
    encoder: Encoder, tmp_path: Path, retrieval: str, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*TEXTS[:9], "订单什么时候发货"]
    index = CorpusIndex(encode_corpus(encoder, texts, tmp_path / "v"), encoder, retrieval=retrieval)
    caplog.clear()  # what encoding says of the text that the model does not know
    with caplog.at_level(logging.WARNING, logger="textcl"):
        index.search(TEXTS[0])
        assert caplog.messages == []
        hits = index.search("我想退货", top=1)
    if retrieval == "bm25":
        assert ([hit.text for hit in hits], caplog.messages) == (texts[-1:], []), "by the character that they share"
        return
    if retrieval == "dense":
        assert hits[0].score > 0.95, "another text of unknown words, and not one about the same thing"
    (said,) = caplog.messages
    assert said.startswith("The model knows at most half of the words of the query")


def test_a_query_has_the_prompt_query_else_that_of_the_corpus(model: Path, tmp_path: Path) -> None:
    prompts = {"query": "the tall farmer ", "document": "the garden wall "}
    encoder = Encoder.from_pretrained(model, prompts=prompts, device="cpu")
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", prompt_name="document")
    score = CorpusIndex(directory, encoder).search("a boat")[0].score

    def cosine(prompt: str) -> float:
        texts = load_vectors(directory)[1]
        query = encoder.encode("a boat", prompt=prompt)
        return float((texts @ query / np.linalg.norm(texts, axis=1) / np.linalg.norm(query)).max())

    assert abs(score - cosine(prompts["query"])) < 1e-5
    assert abs(score - cosine("")) > 1e-5
    plain = CorpusIndex(directory, Encoder.from_pretrained(model, device="cpu"))
    assert abs(plain.search("a boat")[0].score - cosine(prompts["document"])) < 1e-5
    assert abs(plain.search("a boat", prompt="the chess ")[0].score - cosine("the chess ")) < 1e-5
    prompts = {"document": prompts["document"], "other": "a small "}
    default = Encoder.from_pretrained(model, prompts=prompts, default_prompt_name="other", device="cpu")
    assert abs(CorpusIndex(directory, default).search("a boat")[0].score - cosine("a small ")) < 1e-5


def test_the_model_is_found_by_its_name_and_held_against_the_vectors(model: Path, tmp_path: Path) -> None:
    here = shutil.copytree(model, tmp_path / "model")
    directory = encode_corpus(Encoder.from_pretrained(here, pooling="cls", max_length=20), TEXTS, tmp_path / "v")
    index = CorpusIndex(directory)
    assert (index.encoder.pooling, index.encoder.max_length) == ("cls", 20)
    moved = here.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="no model directory"):
        CorpusIndex(directory)
    assert CorpusIndex(directory, moved).search(TEXTS[5])[0].text == TEXTS[5]
    with pytest.raises(InputError, match="is not the model that wrote"):
        CorpusIndex(directory, tiny_encoder_directory(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="is not the model that wrote"):
        CorpusIndex(directory, Encoder.from_pretrained(moved, pooling="mean"))


def test_what_is_refused(
    encoder: Encoder, vectors: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = CorpusIndex(vectors, encoder)
    with pytest.raises(InputError, match="must not be blank"):
        index.search("  ", 10)
    for top in (0, 2.0, "3", None, float("nan")):
        with pytest.raises(InputError, match=f"top must be a whole number of at least 1, not {top!r}"):
            index.search("a boat", top)
    with pytest.raises(InputError, match=r"expand must be 0 or .*, not 2.0"):
        index.search("a boat", expand=2.0)
    for retrieval in ("dense", "hybrid", "bm25"):
        plain = index.search("a boat", 2, retrieval=retrieval)
        assert index.search("a boat", np.int64(2), retrieval=retrieval, expand=np.int32(0)) == plain
    assert index.search("a boat", 1, expand=2) == index.search("a boat", True, expand=np.int64(2))
    directory = shutil.copytree(vectors, tmp_path / "v")
    manifest = read_sealed(directory / "manifest.json")
    (directory / "manifest.json").write_text(json.dumps({**manifest, "schema": 2}))
    with pytest.raises(InputError, match="has schema 2, but this textcl reads schema 1"):
        CorpusIndex(directory)
    (directory / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        CorpusIndex(directory)
    monkeypatch.setitem(sys.modules, "faiss", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install faiss-cpu"):
        CorpusIndex(vectors)


def test_the_command_shows_rank_score_id_and_text(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = textcl("search", vectors, TEXTS[20], "--top", "11", cwd=tmp_path)
    assert (run.returncode, without_progress(run.stderr)) == (0, "")
    lines = run.stdout.splitlines()
    assert len(lines) == 11
    rank, score, number, text = lines[0].split(maxsplit=3)
    assert (rank, float(score), int(number), text) == ("1", 1, 20, TEXTS[20])
    assert main(["search", str(vectors), "", "--top", "3"]) == 2
    assert "must not be blank" in capsys.readouterr().err


# by words, and by both


@pytest.fixture
def both(encoder: Encoder, vectors: Path, tmp_path: Path) -> CorpusIndex:
    return CorpusIndex(shutil.copytree(vectors, tmp_path / "v"), encoder, retrieval="hybrid")


def test_words_find_what_bm25_finds(both: CorpusIndex) -> None:
    for query in QUERIES:
        scores = Bm25(TEXTS).scores(query)
        order = [row for row in np.argsort(-scores, kind="stable")[:7].tolist() if scores[row] > 0]
        hits = both.search(query, top=7, retrieval="bm25")
        assert [hit.id for hit in hits] == order
        assert [hit.score for hit in hits] == scores[order].tolist()
    assert both.search("zebra", retrieval="bm25") == []
    assert len(both.search("zebra", retrieval="hybrid")) == 10


@pytest.mark.parametrize("depth", [20, 1000])
def test_hybrid_search_is_the_fusion_of_all_scores(
    both: CorpusIndex, encoder: Encoder, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcl.vectors.index.DEPTH", depth)
    _, vectors = load_vectors(both.directory)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in QUERIES:
        vector = encoder.encode(query)
        dense = unit @ (vector / np.linalg.norm(vector))
        fused = fuse(dense, Bm25(TEXTS).scores(query), 0.2, depth)
        hits = both.search(query, top=7, bm25_weight=0.2)
        assert [hit.score for hit in hits] == pytest.approx(np.sort(fused)[::-1][:7], abs=1e-3)
        assert [hit.score for hit in hits] == pytest.approx(fused[[hit.id for hit in hits]], abs=1e-3)


def test_hybrid_search_in_a_graph(both: CorpusIndex, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [both.search(query, top=5) for query in QUERIES]
    monkeypatch.setattr("textcl.vectors.index.EXACT_TEXTS", 100)
    graph = CorpusIndex(both.directory, encoder, retrieval="hybrid")
    assert type(graph._index).__name__ == "IndexHNSWFlat"
    for query, hits in zip(QUERIES, exact, strict=True):
        found = graph.search(query, top=5)
        assert [hit.id for hit in found] == [hit.id for hit in hits]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in hits], abs=1e-3)


def test_words_need_neither_model_nor_faiss(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = shutil.copytree(model, tmp_path / "model")
    directory = encode_corpus(here, TEXTS, tmp_path / "v")
    shutil.rmtree(here)
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = CorpusIndex(directory, retrieval="bm25")
    assert index.search("the chess player", top=1)[0].score > 0
    with pytest.raises(InputError, match="faiss"):
        CorpusIndex(directory, retrieval="hybrid")


def test_the_index_of_words_is_kept_and_made_again_when_texts_or_language_change(
    both: CorpusIndex, encoder: Encoder
) -> None:
    file = both.directory / "bm25.npz"
    made = file.stat().st_mtime_ns
    again = CorpusIndex(both.directory, retrieval="bm25")
    assert again.search(QUERIES[1]) == both.search(QUERIES[1], retrieval="bm25")
    assert file.stat().st_mtime_ns == made
    CorpusIndex(both.directory, retrieval="bm25", language="german")
    assert file.stat().st_mtime_ns != made
    encode_corpus(encoder, ["a zebra"], both.directory, append=True)
    hits = CorpusIndex(both.directory, encoder, retrieval="hybrid").search("zebra", top=1)
    assert (hits[0].id, hits[0].text) == (len(TEXTS), "a zebra")
    (both.directory / "manifest.json").unlink()  # the directory may still be written again
    encode_corpus(encoder, TEXTS, both.directory, shard_rows=50)


@pytest.mark.parametrize("retrieval", ["dense", "bm25", "hybrid"])
def test_ids_columns_and_the_best_part_are_shown(encoder: Encoder, model: Path, tmp_path: Path, retrieval: str) -> None:
    rows = [{"text": text, "key": f"k{number}", "day": number} for number, text in enumerate(TEXTS[:30])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    directory = encode_corpus(
        encoder, tmp_path / "rows.jsonl", tmp_path / "v", column="text", id_column="key", columns=["day"], shard_rows=7
    )
    hit = CorpusIndex(directory, encoder).search(TEXTS[9], top=1, retrieval=retrieval)[0]
    assert (hit.id, hit.text, hit.part, hit.columns) == ("k9", TEXTS[9], None, {"day": 9})

    short = Encoder.from_pretrained(model, max_length=24, device="cpu")
    long = [" ".join(TEXTS[start : start + 12]) for start in range(0, 60, 12)]
    parts = encode_corpus(short, long, tmp_path / "parts", split_long=True, shard_rows=4)
    index = CorpusIndex(parts, short)
    assert index.texts > 2 * len(long)
    for number in (1, 3):
        hits = index.search(TEXTS[12 * number + 8], top=5, retrieval=retrieval)
        assert [hit.id for hit in hits[:1]] == [number]
        assert TEXTS[12 * number + 8] in hits[0].text or hits[0].part is not None
        assert len({hit.id for hit in hits}) == len(hits)
    assert len(index.search(TEXTS[0], top=5, retrieval="dense")) == 5


def test_a_text_of_many_parts_crowds_no_other_text_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcl.vectors.index.DEPTH", 4)
    short = Encoder.from_pretrained(model, max_length=24, device="cpu")
    others = [" ".join([*TEXTS[n : n + 4], "boat", *TEXTS[n + 4 : n + 4 + 2 * n]]) for n in (1, 7, 13, 19, 25)]
    texts = [*others[:3], "boat " * 400, *others[3:], "her quiet brother"]
    parts = encode_corpus(short, texts, tmp_path / "parts", split_long=True)
    more = [others[0], "boat " * 300]
    encode_corpus(short, more, parts, append=True)  # other ids
    index = CorpusIndex(parts, short)
    rows, scores = index.vectors.texts(), Bm25(index.vectors.texts()).scores("boat")
    best: dict[int, float] = {}
    for row, number in enumerate(index.vectors.ids().tolist()):
        best[number] = max(best.get(number, 0), scores[row])
    order = [number for number in sorted(best, key=lambda number: -best[number]) if best[number] > 0]
    assert len(rows) > 4 * len(texts)
    assert len(order) == 8
    for top in (1, 3, 8, 20):
        hits = index.search("boat", top, retrieval="bm25")
        assert [hit.score for hit in hits] == [best[number] for number in order[:top]]
        assert all(best[hit.id] == hit.score and "boat" in hit.text for hit in hits)
        assert len({hit.id for hit in hits}) == len(hits)
        for weight in (0.0, 0.35, 1.0):
            hits = index.search("boat", top, retrieval="hybrid", bm25_weight=weight)
            assert len({hit.id for hit in hits}) == len(hits) == min(top, len(best))
    found = {hit.id for hit in index.search("boat", 8, retrieval="hybrid", bm25_weight=1.0)}
    assert found == set(order)


def test_an_expanded_query_is_rocchios(both: CorpusIndex, encoder: Encoder) -> None:
    _, vectors = load_vectors(both.directory)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    query = encoder.encode(QUERIES[1])
    query /= np.linalg.norm(query)
    moved = query + 0.75 * unit[np.argsort(-(unit @ query))[:3]].mean(axis=0)
    cosines = unit @ (moved / np.linalg.norm(moved))
    hits = both.search(QUERIES[1], top=5, retrieval="dense", expand=3)
    assert [hit.score for hit in hits] == pytest.approx(np.sort(cosines)[::-1][:5], abs=1e-5)
    assert hits != both.search(QUERIES[1], top=5, retrieval="dense")


def test_wrong_kinds_and_weights_are_refused(both: CorpusIndex) -> None:
    with pytest.raises(InputError, match=r"must be dense, bm25 or hybrid, not 'hybird'. Did you mean 'hybrid'"):
        both.search("a", retrieval="hybird")
    with pytest.raises(InputError, match="bm25_weight must be a finite number of at least 0 and at most 1"):
        both.search("a", bm25_weight=1.5)
    with pytest.raises(InputError, match="expand must be 0 or"):
        both.search("a", expand=-1)
