"""Searching bits: what a loop finds, with and without int8 vectors; and nothing of it needs faiss."""

import sys
from pathlib import Path

import numpy as np
import pytest
from support.disk import files_limited
from support.tiny import TEXTS

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.vectors import bits
from textcl.vectors.bits import RESCORED, as_words, hamming, nearest_bits
from textcl.vectors.compress import unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.index import CorpusIndex
from textcl.vectors.vectors import Vectors

QUERIES = [TEXTS[3], "a broken clock in the garden", "the chess player", "boxes"]


def differing(one: np.ndarray, two: np.ndarray) -> int:
    """How many bits of packed bytes differ, one after the other."""
    return sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("width", [1, 3, 8, 9, 48])
@pytest.mark.parametrize("counted", [True, False])
def test_distances_are_those_of_a_loop(width: int, counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, with bits that fill no word, and without numpy 2's function."""
    monkeypatch.setattr(bits, "_BLOCK", 17)
    if not counted:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    generator = np.random.default_rng(width)
    rows, query = generator.integers(0, 256, (60, width), np.uint8), generator.integers(0, 256, (1, width), np.uint8)
    found = hamming(as_words(rows), as_words(query)[:, 0])
    assert found.tolist() == [differing(row, query[0]) for row in rows]


def test_the_smallest_distances_and_of_equal_ones_the_first() -> None:
    distances = np.random.default_rng(0).integers(0, 9, 200).astype(np.uint16)
    expected = sorted(range(200), key=lambda row: (distances[row], row))
    for count in (1, 5, 23, 199, 200, 300):
        assert nearest_bits(distances, count).tolist() == expected[:count]


def brute(vectors: Vectors, query: np.ndarray, top: int) -> tuple[list[int], list[float]]:
    """Rows and scores: by bits, one row after the other, then by the cosine of the int8 vectors, if there are any."""
    fit, rows = vectors.compression, vectors.bits()
    query = fit.reduce(query)
    wanted = np.packbits(query > fit.mean)
    distances = [differing(row, wanted) for row in rows]
    order = sorted(range(len(rows)), key=lambda row: (distances[row], row))
    if not vectors.rescoring:
        return order[:top], [1 - 2 * distances[row] / vectors.dimension for row in order[:top]]
    numbers = vectors.vectors().astype(np.float64)
    cosine = {
        row: float(numbers[row] @ query[0]) / np.linalg.norm(numbers[row]) / np.linalg.norm(query[0])
        for row in order[: RESCORED * top]
    }
    order = sorted(cosine, key=lambda row: (-cosine[row], row))[:top]
    return order, [cosine[row] for row in order]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("options", [{}, {"rescoring": False}, {"dimensions": 16}, {"dimensions": 24, "pca": True}])
def test_a_search_finds_what_a_loop_finds(
    encoder: Encoder, tmp_path: Path, normalize: bool, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    directory = encode_corpus(
        encoder, TEXTS, tmp_path / "v", dtype="ubinary", normalize=normalize, shard_rows=50, **options
    )
    for index in (CorpusIndex(directory, encoder), CorpusIndex(directory, encoder)):  # made, and read back
        for query in QUERIES:
            hits = index.search(query, top=5)
            rows, scores = brute(index.vectors, encoder.encode([query], normalize=normalize), 5)
            assert [hit.id for hit in hits] == rows
            assert np.allclose([hit.score for hit in hits], scores, atol=1e-5)
            assert [hit.text for hit in hits] == [TEXTS[row] for row in rows]
    assert {path.name for path in directory.iterdir()} >= {"bits.npy", "bits.json"}
    assert (directory / "int8.npy").exists() == options.get("rescoring", True)


def test_where_all_are_rescored_the_order_is_that_of_int8(encoder: Encoder, tmp_path: Path) -> None:
    whole = CorpusIndex(encode_corpus(encoder, TEXTS, tmp_path / "int8", dtype="int8"), encoder)
    index = CorpusIndex(encode_corpus(encoder, TEXTS, tmp_path / "v", dtype="ubinary"), encoder)
    top = len(TEXTS) // RESCORED
    few = 0
    for query in QUERIES:
        expected, found = whole.search(query, top), index.search(query, top)
        assert np.allclose([hit.score for hit in found], [hit.score for hit in expected], atol=1e-5)
        few += [hit.id for hit in index.search(query, 2)] == [hit.id for hit in expected[:2]]
    assert few >= 2


@pytest.mark.parametrize("options", [{"dimensions": 16}, {"dimensions": 16, "pca": True}])
def test_queries_of_numbers_are_cut_too(encoder: Encoder, tmp_path: Path, options: dict) -> None:
    index = CorpusIndex(encode_corpus(encoder, TEXTS, tmp_path / "v", **options), encoder)
    rows = unit(index.vectors.vectors())
    for query in QUERIES:
        cosines = rows @ unit(index.vectors.compression.reduce(encoder.encode([query])))[0]
        hits = index.search(query, 7)
        assert np.allclose([hit.score for hit in hits], np.sort(cosines)[::-1][:7], atol=1e-5)
    assert index.search(TEXTS[9], 1)[0].text == TEXTS[9]


def test_a_changed_or_damaged_index_is_built_again(encoder: Encoder, tmp_path: Path) -> None:
    directory = encode_corpus(encoder, TEXTS[:100], tmp_path / "v", dtype="ubinary", shard_rows=40)
    expected = CorpusIndex(directory, encoder).search(QUERIES[1])
    made = {name: (directory / name).read_bytes() for name in ("bits.npy", "int8.npy", "bits.json")}
    for name, content in made.items():
        (directory / name).write_bytes(content[: len(content) // 2] + b"\0" + content[len(content) // 2 + 1 :])
        assert CorpusIndex(directory, encoder).search(QUERIES[1]) == expected
        assert {name: (directory / name).read_bytes() for name in made} == made
    encode_corpus(encoder, TEXTS[100:], directory, append=True)
    assert CorpusIndex(directory, encoder).search(TEXTS[150], 1)[0].id == 150
    with files_limited(100):
        (directory / "bits.json").unlink()
        index = CorpusIndex(directory, encoder)
    assert index.search(TEXTS[150], 1)[0].id == 150


def test_words_expansion_and_parts(encoder: Encoder, tmp_path: Path) -> None:
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", dtype="ubinary")
    index = CorpusIndex(directory, encoder, retrieval="hybrid")
    for query in QUERIES:
        whole = encode_corpus(encoder, TEXTS, tmp_path / "int8", dtype="int8")
        expected = CorpusIndex(whole, encoder, retrieval="hybrid").search(query, 5)
        found = index.search(query, 5)  # all 288 texts are candidates
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert np.allclose([hit.score for hit in found], [hit.score for hit in expected], atol=1e-4)
    for query in QUERIES:  # the moved query has its length again, which decides on which side of the mean a number is
        asked, rows = encoder.encode([query]), unit(index.vectors.vectors())
        near = rows[brute(index.vectors, asked, 3)[0]].mean(axis=0)
        moved = unit(unit(asked) + 0.75 * near) * np.linalg.norm(asked)
        hits = index.search(query, 5, retrieval="dense", expand=3)
        assert [hit.id for hit in hits] == brute(index.vectors, moved, 5)[0]
    alone = encode_corpus(encoder, TEXTS, tmp_path / "alone", dtype="ubinary", rescoring=False)
    index = CorpusIndex(alone, encoder, retrieval="hybrid")
    assert index.search(TEXTS[5], 1)[0].id == 5
    with pytest.raises(InputError, match="--expand needs the numbers of the nearest texts, and only bits were stored"):
        index.search(TEXTS[5], expand=2)
    short = encoder.with_(max_length=12)
    parts = encode_corpus(
        short, [" ".join(TEXTS[:9]), *TEXTS[9:60]], tmp_path / "parts", dtype="ubinary", split_long=True
    )
    hits = CorpusIndex(parts, short).search(TEXTS[4], 5)
    assert len({hit.id for hit in hits}) == 5
