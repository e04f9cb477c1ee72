"""The threshold of near-duplicates: against counting by hand, and where it must separate, fail, or not be moved."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from textcl.vectors import calibration
from textcl.vectors.calibration import Others, Pairs, calibrate, choose_thresholds
from textcl.vectors.planted_edits import KINDS, edit

LETTERS = np.random.default_rng(7).integers(97, 123, size=(800, 8, 6)).astype(np.uint8)  # of 800 texts of 8 words
TEXTS = [" ".join(word.tobytes().decode() for word in text) for text in LETTERS]
OWNER = {word: number for number, text in enumerate(TEXTS) for word in text.split()}


class Noisy:
    """An encoder that knows the vector of each text, and gives a copy this vector turned by a random angle."""

    def __init__(self, vectors: np.ndarray, cosines: Sequence[float], seed: int = 0) -> None:
        self.vectors, self.cosines, self.generator = vectors, cosines, np.random.default_rng(seed)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = []
        for text in texts:
            owners = Counter(OWNER[word] for word in text.casefold().split() if word in OWNER)
            own = self.vectors[owners.most_common(1)[0][0]]
            other = self.generator.normal(size=len(own))
            other -= (other @ own) * own
            cosine = self.generator.uniform(*self.cosines)
            found.append(cosine * own + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other))
        return np.array(found)


def directions(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: np.ndarray) -> np.ndarray:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return cosines.max(axis=1)


def test_where_copies_are_nearer_than_others_the_threshold_is_between_them() -> None:
    vectors = directions(300, 64)
    found = calibrate(vectors, TEXTS[:300], Noisy(vectors, (0.9, 0.95)), words=1.0)
    assert found is not None
    assert found.separates
    assert found.cosine is not None
    assert 0.9 > found.cosine > np.quantile(nearest(vectors), 0.98)
    assert found.cosine == pytest.approx((0.9 + np.quantile(nearest(vectors), 0.99)) / 2, abs=0.02)
    assert found.found == dict.fromkeys(KINDS, 1.0)
    assert found.false <= 0.01
    assert found.texts == 150


def test_where_they_overlap_it_is_the_lowest_threshold_with_few_false_pairs() -> None:
    """Counted by hand on the half that chooses; on the other half the error is about the same."""
    vectors = directions(800, 8)
    noisy, encoded = Noisy(vectors, (0.8, 1.0)), dict[str, np.ndarray]()

    def encode(texts: Sequence[str]) -> np.ndarray:
        encoded.update(zip(texts, noisy(texts), strict=True))
        return np.array([encoded[text] for text in texts])

    found = calibrate(vectors, TEXTS[:800], encode, words=1.0, seed=3)
    assert found is not None
    assert found.cosine is not None
    assert not found.separates
    order = np.random.default_rng(3).permutation(800)
    scores = nearest(vectors)[order]
    counted = next(t for t in np.arange(500, 1001) / 1000 if (scores[:400] >= t).mean() <= 0.01)
    assert found.cosine == pytest.approx(counted)
    assert found.false == pytest.approx((scores[400:] >= counted - 1e-6).mean())
    assert found.false <= 0.03
    assert found.found["case"] == 1.0  # equal but for case, whatever the encoder says
    expected = (1.0 - found.cosine) / 0.2  # the share of uniform cosines above the threshold
    assert found.found["typo"] == pytest.approx(expected, abs=0.08)
    assert all(edit(TEXTS[row], TEXTS[order[place]], "more") in encoded for place, row in enumerate(order[1:]))
    copies = {row: encoded.get(edit(TEXTS[row], "", "typo")) for row in order[400:]}  # two equal letters are no typo
    recognised = [vectors[row] @ copy >= counted - 1e-6 for row, copy in copies.items() if copy is not None]
    assert found.found["typo"] == pytest.approx(np.mean(recognised), abs=1 / 400)


def test_a_threshold_that_would_miss_more_than_one_copy_in_a_hundred_does_not_separate() -> None:
    others = Pairs(np.array([0.95, *[0.6995] * 99]), np.zeros(100))  # one in a hundred reaches 0.7
    for missed, expected in ((1, 0.8), (2, 0.7)):  # of 150; 0.8 is in the middle between 0.7 and 0.9
        copies = Pairs(np.array([0.6] * missed + [0.9] * (150 - missed)), np.zeros(150))
        assert choose_thresholds({"typo": copies}, others, 1.0) == (pytest.approx(expected), 1.0)


def test_words_whose_overlap_others_have_too_are_not_chosen() -> None:
    others = Pairs(np.full(100, 0.3), np.array([0.55] * 5 + [0.1] * 95))
    copies = Pairs(np.full(100, 0.9), np.zeros(100))
    assert choose_thresholds({"typo": copies}, others) == (0.7, calibration.WORDS)  # between 0.5 and 0.9
    copies = Pairs(np.full(100, 0.9), np.full(100, 0.62))  # found by their words; the cosine is between 0.5 and 1
    assert choose_thresholds({"typo": copies}, others) == (0.75, 0.6)


def test_a_long_text_without_words_is_not_its_own_neighbour() -> None:
    found = Others(["!" * 600, "?" * 600, "a cat"], np.arange(3)).pairs(np.eye(3))
    assert (found.cosines.tolist(), found.words.tolist()) == ([0.0] * 3, [0.0] * 3)


def test_words_find_what_the_cosine_misses() -> None:
    vectors = directions(400, 8)
    encode = Noisy(vectors, (0.0, 0.5))  # this encoder misses every copy
    by_both, by_cosine = (calibrate(vectors, TEXTS[:400], encode, words=words) for words in (None, 1.0))
    assert by_both is not None
    assert by_cosine is not None
    assert by_cosine.found["typo"] < 0.1
    assert by_cosine.found["order"] == 1.0
    assert by_both.found["typo"] == by_both.found["more"] == 1.0
    assert by_both.words in calibration.OVERLAPS


def test_real_copies_in_the_corpus_do_not_move_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the texts have a misspelt twin of the same vector. Negative control: as others, twins move it."""
    texts, vectors = TEXTS[:300], directions(300, 8)
    twins = {edit(text, "", "typo"): vectors[row] for row, text in enumerate(texts[:100])}
    twins = {twin: vector for twin, vector in twins.items() if twin not in texts}
    assert len(twins) > 90

    def threshold() -> float:
        both = np.array([*vectors, *twins.values()])
        found = calibrate(both, [*texts, *twins], Noisy(vectors, (0.8, 1.0)), words=1.0)
        assert found is not None
        return found.cosine or 9

    alone = calibrate(vectors, texts, Noisy(vectors, (0.8, 1.0)), words=1.0)
    assert alone is not None
    assert threshold() == pytest.approx(alone.cosine, abs=0.03)
    monkeypatch.setattr(calibration, "NEAR", 1.01)
    monkeypatch.setattr(calibration, "WORDS", 1.01)
    assert threshold() > 0.99


def test_an_encoder_for_which_all_texts_are_equal_is_not_used() -> None:
    vectors = np.ones((200, 4))
    found = calibrate(vectors, TEXTS[:200], lambda texts: np.ones((len(texts), 4)))
    assert found is not None
    assert found.cosine is None
    assert found.false == 0
    assert found.found["typo"] == 1.0  # by their words


@pytest.mark.parametrize("texts", [[f"word{n:03}" for n in range(150)], [f"{n:03} !" for n in range(150)]])
def test_texts_of_one_word_are_survived(texts: list[str]) -> None:
    vectors = directions(150, 16)
    found = calibrate(vectors, texts, lambda copies: directions(len(copies), 16, 1))
    assert found is not None
    assert found.found["case"] == 1.0
    assert "order" not in found.found or texts[0].endswith("!")


def test_few_texts_choose_no_threshold() -> None:
    vectors = directions(99, 4)
    assert calibrate(vectors, TEXTS[:99], Noisy(vectors, (0.9, 1.0))) is None


def test_edits_of_one_kind() -> None:
    text, other = "two small cats sleep on the old warm chair today", "a dog barks loudly"
    assert edit(text, other, "case") == text.upper()
    assert edit(text.upper(), other, "case") == text
    assert edit(text, other, "order") == "the old warm chair today two small cats sleep on"
    assert edit(text, other, "more") == f"{text} a dog"
    typo = edit(text, other, "typo")
    assert typo != text
    assert sorted(typo) == sorted(text)
    assert [edit(each, "", "typo") for each in ("", "a")] == ["", "a"]
    assert edit("word", other, "order") == "word"
