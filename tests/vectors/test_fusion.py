"""The fusion of two rankings: its closed forms, and what must not change it."""

import numpy as np
import pytest

from textcl.vectors.fusion import best, best_by_words, fuse, weighted


def drawn(texts: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, and scores of which two thirds are 0, as those of BM25."""
    generator = np.random.default_rng(seed)
    words = np.maximum(generator.normal(size=texts) - 0.4, 0).astype(np.float32)
    return generator.normal(size=texts).astype(np.float32), words


def test_two_texts_have_scores_of_plus_and_minus_one() -> None:
    assert fuse(np.array([0.9, 0.1]), np.array([1.0, 7.0]), 0.35).tolist() == pytest.approx([0.3, -0.3])
    assert fuse(np.array([0.9, 0.1]), np.array([7.0, 1.0]), 0.35).tolist() == pytest.approx([1, -1])


def test_with_all_texts_it_is_the_formula() -> None:
    dense, words = drawn()
    whole = 0.8 * (dense - dense.mean()) / dense.std() + 0.2 * (words - words.mean()) / words.std()
    assert fuse(dense, words, 0.2, depth=500) == pytest.approx(whole, abs=1e-5)


def test_candidates_are_the_best_of_both_and_mean_and_deviation_are_theirs() -> None:
    dense, words = drawn()
    fused = fuse(dense, words, depth=20)
    places = sorted({*np.argsort(-dense)[:20].tolist(), *np.argsort(-words)[:20].tolist()})
    assert np.flatnonzero(fused > -np.inf).tolist() == places
    assert fused[places] == pytest.approx(weighted(dense[places], words[places]))
    assert fused[places].mean() == pytest.approx(0, abs=1e-9)


def test_what_is_equal_to_the_last_of_the_best_is_among_them_but_a_text_without_a_word_is_not() -> None:
    scores = np.array([2.0, 3.0, 0.0, 2.0, 1.0, 2.0, 0.0])
    assert sorted(best(scores, 2)) == [0, 1, 3, 5]
    assert sorted(best(scores, 4)) == [0, 1, 3, 5]
    assert sorted(best(scores, 6)) == sorted(best(scores, 9)) == [*range(7)]
    assert sorted(best_by_words(scores, 6)) == sorted(best_by_words(scores, 5)) == [0, 1, 3, 4, 5]


def test_neither_scale_nor_order_matters() -> None:
    dense, words = drawn()
    words[:40] = 1.0  # ties across the border of the best
    fused = fuse(dense, words, depth=20)
    assert fuse(5 * dense + 3, 7 * words, depth=20) == pytest.approx(fused, abs=1e-4)
    order = np.random.default_rng(1).permutation(len(dense))
    assert fuse(dense[order], words[order], depth=20) == pytest.approx(fused[order], abs=1e-9)


def test_weights_of_0_and_1_leave_one_side() -> None:
    dense, words = drawn()
    assert (np.argsort(-fuse(dense, words, 0.0))[:50] == np.argsort(-dense)[:50]).all()
    assert (np.argsort(-fuse(dense, words, 1.0))[:50] == np.argsort(-words)[:50]).all()


@pytest.mark.parametrize("words", [np.zeros(500, np.float32), np.full(500, 0.1, np.float32)])
def test_words_that_say_nothing_leave_the_cosines(words: np.ndarray) -> None:
    dense = drawn()[0]
    assert (np.argsort(-fuse(dense, words, depth=30))[:30] == np.argsort(-dense)[:30]).all()
    assert np.isfinite(fuse(dense[:1], words[:1])).all()


def test_cosines_that_rounding_alone_tells_apart_leave_the_words() -> None:
    words = np.random.default_rng(2).uniform(0.1, 9, 500).astype(np.float32)
    ones = np.float32(0.9) + np.float32(1e-7) * np.random.default_rng(3).integers(3, size=500).astype(np.float32)
    assert len(np.unique(ones)) > 1
    assert fuse(ones, words, 0.2) == pytest.approx(0.2 * (words - words.mean()) / words.std(), abs=1e-4)
