"""Groups of near-duplicates: the rule in plain Python, and what the rule promises."""

import re

import numpy as np
import pytest

from textcl.errors import InputError
from textcl.vectors import near_duplicates
from textcl.vectors.near_duplicates import near_duplicate_groups


def oracle(vectors: np.ndarray | None, texts: list[str], cosine: float | None, words: float | None) -> list[int]:
    def near(one: int, two: int) -> bool:
        plain = [" ".join(texts[number].split()).casefold() for number in (one, two)]
        if plain[0] == plain[1]:
            return True
        sets = [set(re.findall(r"\w+", text)) for text in plain]
        shared, either = len(sets[0] & sets[1]), len(sets[0] | sets[1])
        if words is not None and shared and shared / either >= words - 1e-9:
            return True
        if vectors is None or cosine is None:
            return False
        a, b = vectors[one].astype(float), vectors[two].astype(float)
        return bool(a @ b >= (cosine - 1e-6) * np.linalg.norm(a) * np.linalg.norm(b)) and bool(a.any() and b.any())

    if vectors is not None:  # equal texts have the vector of the first
        plain = [" ".join(text.split()).casefold() for text in texts]
        vectors = vectors[[plain.index(text) for text in plain]]
    centres: list[int] = []
    groups = []
    for row in range(len(texts)):
        group = next((number for number, centre in enumerate(centres) if near(row, centre)), len(centres))
        if group == len(centres):
            centres.append(row)
        groups.append(group)
    return groups


def corpus(texts: int = 160, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Texts of few words and vectors around few directions, so that many are near-equal."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(12, 5))[generator.integers(12, size=texts)]
    vectors += 0.25 * generator.normal(size=vectors.shape)
    vocabulary = [f"w{number}" for number in range(9)]
    lines = [" ".join(generator.choice(vocabulary, size=generator.integers(0, 7))) for _ in range(texts)]
    return vectors.astype(np.float32), [
        line.upper() if number % 3 else f" {line}  " for number, line in enumerate(lines)
    ]


@pytest.mark.parametrize(("cosine", "words"), [(0.95, 0.8), (None, 0.5), (0.9, None), (None, None), (0.99, 1.0)])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_groups_are_those_of_the_rule(
    cosine: float | None, words: float | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, texts = corpus()
    monkeypatch.setattr(near_duplicates, "_ROWS", block)
    monkeypatch.setattr(near_duplicates, "_TILE", 5 * block)
    monkeypatch.setattr(near_duplicates, "_PAIRS", 13)
    monkeypatch.setattr(near_duplicates, "_CANDIDATES", 29)
    found = near_duplicate_groups(vectors, texts, cosine, words)
    assert found.tolist() == oracle(vectors, texts, cosine, words)
    assert 1 < found.max() + 1 < len(texts)
    assert near_duplicate_groups(None, texts, cosine, words).tolist() == oracle(None, texts, None, words)


def test_groups_do_not_chain() -> None:
    """A hundred vectors, each within the threshold of the next: every member is within it of its centre."""
    angles = np.linspace(0, np.pi, 100)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    groups = near_duplicate_groups(vectors, [f"text{number}" for number in range(100)], cosine=0.95)
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        assert (vectors[members] @ vectors[members[0]] >= 0.95 - 1e-6).all()
    assert groups.max() + 1 == 10  # each reaches arccos(0.95) = 18.2 degrees from its first


def test_equal_texts_are_together_whatever_their_vectors_are() -> None:
    vectors = np.eye(4)
    assert near_duplicate_groups(vectors, ["A  cat", "a dog", "a CAT ", "!!!"]).tolist() == [0, 1, 0, 2]
    assert near_duplicate_groups(None, ["!!!", "???", ""], words=0.1).tolist() == [0, 1, 2]
    assert near_duplicate_groups(vectors[:0], []).tolist() == []


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match="2 vectors for 1 text"):
        near_duplicate_groups(np.eye(2), ["a"])
    with pytest.raises(InputError, match=r"cosine must be a finite number above 0 and at most 1, not 1\.5"):
        near_duplicate_groups(np.eye(1), ["a"], cosine=1.5)


@pytest.mark.parametrize("cosine", [0.5, 0.9, 1.0])
def test_sketches_overlook_no_pair(cosine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 160 dimensions, which are compared by sketches, have the groups of the rule."""
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(40, 160))[generator.integers(40, size=300)]
    vectors += generator.choice([0, 0.2, 0.6, 1.0], size=(300, 1)) * generator.normal(size=vectors.shape)
    texts = [f"text{number}" for number in range(300)]
    monkeypatch.setattr(near_duplicates, "_GATHERED", 7)
    found = near_duplicate_groups(vectors.astype(np.float32), texts, cosine, None)
    assert found.tolist() == oracle(vectors.astype(np.float32), texts, cosine, None)
    assert 1 < found.max() + 1 < 300
    whole = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sketches = near_duplicates._sketches(whole.astype(np.float32))
    assert sketches.shape == (300, 65)
    assert (sketches @ sketches.T >= whole @ whole.T - 1e-6).all()


def test_the_overlap_of_words_is_that_of_sets() -> None:
    assert near_duplicates.overlaps(["A b", "", "a b c d"], ["a  B", "", "a x"]).tolist() == [1.0, 0.0, 0.2]
