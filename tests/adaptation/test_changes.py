"""The queries that changed most: which they are, and that their ranks are those that the scores come from."""

import json
from collections.abc import Sequence
from math import log2
from pathlib import Path

import numpy as np
import pytest

from textcl.adaptation.changes import MOST, WIDTH, by_fold, by_rank, count_changes, describe_changes, most_changed
from textcl.adaptation.cross_fit import FOLDS, Judged, folds_of
from textcl.adaptation.evidence import Lexical, Ranking, under
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.evaluation import Retrieval
from textcl.evaluation.retrieval import score_ranking
from textcl.vectors.compress import unit

GENERATOR = np.random.default_rng(0)
WORDS = ["wing", "flow", "heat", "shock", "plate", "layer", "jet", "body", "speed", "cone"]
DOCUMENTS = [" ".join(GENERATOR.choice(WORDS, 6)) + f" number{i}" for i in range(60)]
QUERIES = [" ".join(GENERATOR.choice(WORDS, 3)) + f" query{i}" for i in range(50)]
VECTORS = GENERATOR.normal(size=(110, 8)).astype(np.float32)
RELEVANT = [
    {int(d): float(g) for d, g in zip(GENERATOR.choice(60, 3, replace=False), (3, 1, 1), strict=True)} for _ in QUERIES
]
RANKING = Ranking("a test", VECTORS[:50], VECTORS[50:], RELEVANT, np.arange(50), (QUERIES, DOCUMENTS))
MAP = GENERATOR.normal(0, 0.4, (8, 8)).astype(np.float32)
HYBRID = Lexical(0.35, "english")


def test_the_most_changed_are_those_with_the_largest_differences_and_ties_go_by_row():
    before = np.full(40, 50.0)
    after = before.copy()
    after[[30, 3, 7]] = 60, 90, 60
    after[[5, 20, 1]] = 10, 40, 40
    assert most_changed(before, after) == [3, 7, 30, 5, 1, 20]
    assert count_changes(before, after) == {"gained": 3, "lost": 3, "unchanged": 34}
    every = most_changed(np.zeros(40), np.where(np.arange(40) % 2, 1.0, -1.0))
    assert every == [*range(1, 2 * MOST, 2), *range(0, 2 * MOST, 2)]
    assert most_changed(before, before) == []
    assert describe_changes(before, before, lambda rows: pytest.fail("nothing changed")) == []


def test_texts_are_in_one_line_and_cut():
    found = describe_changes(
        np.zeros(1), np.ones(1), lambda rows: [{"query": "a\n b", "document": "x " * 300, "rank_before": None}]
    )
    assert found == [
        {"row": 0, "before": 0.0, "after": 1.0, "query": "a b", "document": found[0]["document"], "rank_before": None}
    ]
    assert len(found[0]["document"]) <= WIDTH
    assert found[0]["document"].endswith("x…")


@pytest.mark.parametrize("weight", [None, MAP])
def test_ranks_are_the_places_in_the_sorted_documents(weight: np.ndarray | None):
    cosines = unit(under(VECTORS[:50], weight)) @ unit(under(VECTORS[50:], weight)).T
    for row, found in enumerate(RANKING.ranks(range(50), weight)):
        order = sorted(range(60), key=lambda document: (-cosines[row, document], document))
        assert found == {document: order.index(document) + 1 for document in RELEVANT[row]}


@pytest.mark.parametrize("lexical", [None, HYBRID])
@pytest.mark.parametrize("weight", [None, MAP])
def test_ranks_give_the_scores(weight: np.ndarray | None, lexical: Lexical | None):
    (scores,) = RANKING.scores(np.arange(50), [weight], lexical)
    for row, found in enumerate(RANKING.ranks(range(50), weight, lexical)):
        gains = sum(RELEVANT[row][d] / log2(r + 1) for d, r in found.items() if r is not None and r <= 10)
        assert scores[row] == pytest.approx(100 * gains / (3 + 1 / log2(3) + 1 / 2))


def test_near_duplicates_of_the_document_are_not_ranked_before_it():
    documents = np.array([[1, 0], [1, 0.01], [0.9, 0.1], [0, 1]], np.float32)
    alike = np.array([0, 0, 1, 2])
    ranking = Ranking("a test", documents[:1], documents, [{1: 1.0}], np.zeros(1, int), ((), ()), alike)
    assert ranking.ranks([0], None) == [{1: 1}]
    apart = Ranking("a test", documents[:1], documents, [{1: 1.0}], np.zeros(1, int), ((), ()))
    assert apart.ranks([0], None) == [{1: 2}]


def test_of_equal_documents_the_first_one_is_ranked_higher_and_both_that_answer_a_query_are_ranked():
    documents = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    query, units = documents[1:2], np.zeros(1, int)
    for place, document in enumerate((1, 2, 3), start=1):
        ranking = Ranking("a test", query, documents, [{document: 1.0}], units)
        assert ranking.ranks([0], None) == [{document: place}]
        assert ranking.scores(units, [None]).tolist() == [[pytest.approx(100 / log2(place + 1))]]
    both = Ranking("a test", query, documents, [{2: 1.0, 3: 1.0}], units, alike=np.array([0, 1, 1, 1]))
    assert both.ranks([0], None) == [{2: 1, 3: 2}]  # 1 is like them, and neither right nor wrong
    assert both.scores(units, [None]).tolist() == [[pytest.approx(100)]]


def test_the_map_of_the_fold_that_a_query_was_judged_in_gives_its_rank():
    folds = folds_of(50)
    maps = [GENERATOR.normal(0, 0.4, (8, 8)).astype(np.float32) for _ in range(FOLDS)]
    rows = np.arange(50)
    before, after = RANKING.scores(rows, [None])[0], np.empty(50)
    for fold, each in enumerate(maps):
        (after[folds == fold],) = RANKING.scores(np.flatnonzero(folds == fold), [each])
    judged = Judged(before, after, np.empty((0, 50)), [], np.empty(0), folds, maps)
    found = describe_changes(before, after, by_fold(RANKING, judged, None))
    assert len(found) == 2 * MOST
    for each in found:
        row = each["row"]
        document = DOCUMENTS.index(each["document"])
        assert each["query"] == QUERIES[row]
        assert each["rank_before"] == RANKING.ranks([row], None)[0][document]
        assert each["rank_after"] == RANKING.ranks([row], maps[folds[row]])[0][document]
        rises = each["after"] > each["before"]
        assert (each["rank_after"] < each["rank_before"]) == rises


def test_of_several_documents_the_one_that_changed_the_score_most_is_shown():
    one = Ranking("", np.eye(3, dtype=np.float32)[:1], _documents(0.9, 0.8, 0.7), [{1: 1.0, 2: 1.0}], np.zeros(1, int))
    two = Ranking("", np.eye(3, dtype=np.float32)[:1], _documents(0.6, 0.8, 0.7), [{1: 1.0, 2: 1.0}], np.zeros(1, int))
    for each in (one, two):
        object.__setattr__(each, "texts", (["query"], ["a", "b", "c"]))
    (found,) = by_rank(one, two, lambda row: None, None)([0])
    assert found == {"query": "query", "document": "b", "rank_before": 2, "rank_after": 1}  # c: from 3 to 2
    (found,) = by_rank(two, one, lambda row: None, None)([0])
    assert found == {"query": "query", "document": "b", "rank_before": 1, "rank_after": 2}


def _documents(*cosines: float) -> np.ndarray:
    return np.array([[each, (1 - each**2) ** 0.5, 0] for each in cosines], np.float32)


class Table:
    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        rows = {text: row for row, text in enumerate([*QUERIES, *DOCUMENTS])}
        return VECTORS[[rows[text] for text in texts]]


@pytest.mark.parametrize("kind", ["dense", "bm25", "hybrid"])
def test_rankings_of_the_evaluator_give_its_scores(kind: str):
    queries = {f"q{i}": text for i, text in enumerate(QUERIES)}
    documents = {f"d{i}": text for i, text in enumerate(DOCUMENTS)}
    relevance = {f"q{i}": {f"d{d}": g for d, g in grades.items()} for i, grades in enumerate(RELEVANT)}
    retrieval = Retrieval(queries, documents, relevance, retrieval=kind)
    found = [
        100 * score_ranking(ranking, relevance[query])["ndcg@10"]
        for query, ranking in retrieval.rankings(Table()).items()
    ]
    np.testing.assert_allclose(found, retrieval(Table()).items)


def test_ranks_of_judged_documents_are_their_places(tmp_path: Path):
    (tmp_path / "qrels").mkdir()
    for name, texts, letter in (("corpus", DOCUMENTS, "d"), ("queries", QUERIES, "q")):
        lines = [json.dumps({"_id": f"{letter}{i}", "text": text}) for i, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    judged = "".join(f"q{i}\td{d}\t{int(g)}\n" for i, grades in enumerate(RELEVANT) for d, g in grades.items())
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}q0\tmissing\t1\n")
    encoder = Encoder.from_pretrained("bundled")
    weight = GENERATOR.normal(0, 0.02, (encoder.dimension, encoder.dimension)).astype(np.float32)
    judgements = Judgements(str(tmp_path), encoder, Workplace(tmp_path / "place"))
    vectors = unit(under(encoder.encode([*QUERIES, *DOCUMENTS]), weight))
    cosines = vectors[:50] @ vectors[50:].T
    found = judgements.ranks(range(50), weight)
    assert found[0].keys() == {f"d{d}" for d in RELEVANT[0]}, "a judged document that is not there has no rank"
    for row, ranks in enumerate(found):
        for document, rank in ranks.items():
            own = cosines[row, int(document[1:])]
            assert (cosines[row] > own + 1e-5).sum() < rank <= (cosines[row] > own - 1e-5).sum()
    assert judgements.texts_of(3, "d7") == (QUERIES[3], DOCUMENTS[7])
