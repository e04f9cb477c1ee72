"""Evidence: rankings equal those of the retrieval evaluator, planted edits and labels score as counted by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from textcl.adaptation.edits import Edits, threshold
from textcl.adaptation.evidence import Lexical, Ranking
from textcl.adaptation.labels import Labels, compare_vectors
from textcl.evaluation import Retrieval
from textcl.vectors.planted_edits import edited

GENERATOR = np.random.default_rng(0)
WORDS = ["wing", "flow", "heat", "shock", "plate", "layer", "jet", "body", "speed", "cone"]
DOCUMENTS = [" ".join(GENERATOR.choice(WORDS, 6)) + f" number{i}" for i in range(40)]
QUERIES = [" ".join(GENERATOR.choice(WORDS, 3)) + f" query{i}" for i in range(12)]
ROWS = {text: row for row, text in enumerate([*QUERIES, *DOCUMENTS])}
VECTORS = GENERATOR.normal(size=(len(ROWS), 8)).astype(np.float32)
RELEVANT = [
    {int(d): float(g) for d, g in zip(GENERATOR.choice(40, 3, replace=False), (3, 1, 1), strict=True)} for _ in QUERIES
]
RANKING = Ranking("a test", VECTORS[:12], VECTORS[12:], RELEVANT, np.arange(12), (QUERIES, DOCUMENTS))


class Table:
    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        return VECTORS[[ROWS[text] for text in texts]]


def evaluator(**options: object) -> Retrieval:
    relevance = {str(i): {f"{d:02}": g for d, g in grades.items()} for i, grades in enumerate(RELEVANT)}
    documents = {f"{i:02}": text for i, text in enumerate(DOCUMENTS)}
    return Retrieval({str(i): text for i, text in enumerate(QUERIES)}, documents, relevance, **options)  # type: ignore[arg-type]


def test_dense_scores_are_those_of_the_retrieval_evaluator():
    (scores,) = RANKING.scores(np.arange(12), [None])
    np.testing.assert_allclose(scores, evaluator()(Table()).items, atol=1e-9)


def test_hybrid_scores_are_those_of_the_retrieval_evaluator():
    (scores,) = RANKING.scores(np.arange(12), [None], Lexical(0.35, "english"))
    items = evaluator(retrieval="hybrid", bm25_weight=0.35)(Table()).items
    np.testing.assert_allclose(scores, items, atol=1e-9)
    (dense,) = RANKING.scores(np.arange(12), [None])
    assert (scores != dense).any()


def test_a_map_changes_both_sides_and_rows_choose_queries():
    weight = np.diag([0.0] * 4 + [-1.0] * 4).astype(np.float32)  # leaves the first four dimensions
    halved = Ranking("a test", VECTORS[:12, :4], VECTORS[12:, :4], RELEVANT, np.arange(12))
    found = RANKING.scores(np.array([5, 2]), [None, weight])
    np.testing.assert_allclose(found[1], halved.scores(np.array([5, 2]), [None])[0], atol=1e-6)
    np.testing.assert_allclose(found[0], RANKING.scores(np.arange(12), [None])[0][[5, 2]])


def test_near_duplicates_of_the_document_are_not_in_the_way():
    queries, documents = np.eye(4, dtype=np.float32)[:1], np.eye(4, dtype=np.float32)[[0, 0, 0, 1]]
    documents[2, 1] = 0.1  # the target, a little off, behind two near-duplicates of it
    relevant, units = [{2: 1.0}], np.array([0])
    alone = Ranking("a test", queries, documents, relevant, units)
    together = Ranking("a test", queries, documents, relevant, units, alike=np.array([7, 7, 7, 8]))
    assert alone.scores(units, [None]).tolist() == [[50.0]]  # rank 3: 1 / log2(4)
    assert together.scores(units, [None]).tolist() == [[100.0]]


def test_the_threshold_is_the_lowest_with_95_percent_right():
    same = np.array([0.9] * 30 + [0.5] * 8 + [0.2])
    assert threshold(same, np.array([0.1] * 50)) == 0.2
    assert threshold(same, np.array([0.5] * 2 + [0.1] * 50)) == 0.2  # 39 of 41
    assert threshold(same, np.array([0.5] * 3 + [0.1] * 50)) == 0.9  # 38 and 39 of 41 and 42
    assert threshold(same, np.array([0.95] * 9)) == float("inf")


def test_a_copy_is_recognised_if_it_is_nearer_than_other_texts_are():
    generator = np.random.default_rng(3)
    texts = generator.normal(size=(60, 16)).astype(np.float32)
    copies = texts.copy()
    copies[:15] = generator.normal(size=(15, 16))  # a quarter of the copies have nothing of their texts
    evidence = Edits(texts, copies, np.arange(60))
    (scores,) = evidence.scores(np.arange(60), [None])
    assert set(scores) == {0.0, 100.0}
    assert scores[15:].all()
    assert scores[:15].mean() < 20
    # with all texts in one group nothing else is compared
    assert Edits(texts, copies, np.zeros(60, int)).scores(np.arange(60), [None]).min() == 100


def test_each_kind_of_edit_changes_the_text_in_its_own_way():
    texts = [f"the {word} of number {i} is long and quiet" for i, word in enumerate(WORDS * 8)]
    copies = edited(texts)
    assert copies == edited(texts)
    assert all(copy != text for copy, text in zip(copies, texts, strict=True))
    kinds = {"case": 0, "order": 0, "more": 0, "typo": 0}
    for text, copy in zip(texts, copies, strict=True):
        if copy.casefold() == text:
            kinds["case"] += 1
        elif sorted(copy.split()) == sorted(text.split()):
            kinds["order"] += 1
        elif copy.startswith(text):
            kinds["more"] += 1
        elif sorted(copy) == sorted(text):
            kinds["typo"] += 1
    assert sum(kinds.values()) == len(texts)
    assert min(kinds.values()) >= 10


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 20)


def test_labels_that_vectors_separate_are_right_and_a_map_that_separates_is_better():
    generator = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], 60)
    vectors = generator.normal(size=(180, 6)).astype(np.float32)
    vectors[:, 3:] *= 12  # noise that hides the classes
    vectors[np.arange(180), labels] += 6
    hidden = Labels(vectors, labels, "")
    weight = np.diag([0.0] * 3 + [-1.0] * 3).astype(np.float32)  # takes the noise away
    assert hidden.right(np.arange(180), weight).mean() > 95
    judged, comparison = hidden.judge([np.zeros((6, 6), np.float32), weight])
    assert judged.chosen == [1, 1]
    assert comparison.before < 80 < 95 < comparison.after
    assert comparison.low > 0
    same = compare_vectors(hidden, hidden)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_classes_that_are_matched_are_those_that_fit_best():
    vectors = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]], np.float32)
    assert Labels(vectors, np.array([1, 1, 0, 0, 0]), "").right(np.arange(5), None).tolist() == [100, 100, 0, 100, 100]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_labels_show_no_difference(seed: int):
    generator = np.random.default_rng(seed)
    labels = Labels(generator.normal(size=(80, 5)).astype(np.float32), generator.integers(3, size=80), "")
    maps = [0.1 * generator.normal(size=(5, 5)).astype(np.float32) for _ in range(3)]
    _, comparison = labels.judge(maps)
    assert comparison.p_value > 0.01
