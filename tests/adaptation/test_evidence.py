"""Evidence: rankings equal those of the retrieval evaluator, planted edits and labels score as counted by hand."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from textcl.adaptation.edits import Edits, Planted
from textcl.adaptation.enough import too_few_of_user
from textcl.adaptation.evidence import Lexical, Ranking
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.labels import Labels, compare_vectors, read_labels
from textcl.adaptation.trial import Settings
from textcl.adaptation.workplace import Workplace
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Retrieval
from textcl.evaluation.clusters import embed
from textcl.vectors.calibration import calibrate
from textcl.vectors.compress import unit
from textcl.vectors.planted_edits import KINDS, edit, edited

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


def test_judgements_score_as_the_retrieval_evaluator_does_also_of_a_document_without_text(tmp_path: Path):
    (tmp_path / "qrels").mkdir()
    documents = [{"_id": f"d{i}", "text": "" if i == 7 else text} for i, text in enumerate(DOCUMENTS)]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{i}\td{d}\t{g:.0f}\n" for i, grades in enumerate(RELEVANT) for d, g in grades.items())
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    encoder = Encoder.from_pretrained("bundled", max_length=16)
    (scores,) = Judgements(str(tmp_path), encoder, Workplace(tmp_path / "place")).scores(np.arange(12), [None])
    np.testing.assert_allclose(scores, Retrieval.from_folder(tmp_path)(encoder).items, atol=1e-9)


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


def in_letters(count: int) -> list[str]:
    """Texts of six random words, of which no two have a word in common."""
    letters = np.random.default_rng(5).integers(97, 123, size=(count, 6, 9)).astype(np.uint8)
    return [" ".join(word.tobytes().decode() for word in text) for text in letters]


def backwards(texts: Sequence[str]) -> Planted:
    """Texts with copies that share no word with them, so that only cosines find them."""
    return Planted(texts, [text[::-1] for text in texts])


def near_vectors(count: int, dim: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    texts = unit(generator.normal(size=(count, dim)).astype(np.float32))
    return texts, unit(texts + noise * generator.normal(size=texts.shape).astype(np.float32))


def test_copies_are_recognised_with_the_lowest_threshold_that_takes_one_text_in_a_hundred_for_a_copy():
    """Counted by hand: the words of every second copy suffice, the others need a cosine that two texts reach."""
    texts = in_letters(200)
    some = edited(texts)
    planted = Planted(texts, [some[row] if row % 2 else text[::-1] for row, text in enumerate(texts)])
    vectors, copies = near_vectors(200, 16, 0.15)
    (scores,) = Edits(vectors, copies, np.arange(200), planted).scores(np.arange(200), [None])
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    threshold = next(t for t in np.arange(500, 1001) / 1000 if (cosines.max(axis=1) >= t).sum() <= 2)
    near = (vectors * copies).sum(axis=1) >= threshold - 1e-6
    assert 0.2 < near.mean() < 0.95
    np.testing.assert_array_equal(scores, 100.0 * (near | (np.arange(200) % 2 == 1)))


def test_only_words_count_for_an_encoder_to_which_all_texts_are_one():
    texts, ones = in_letters(200), np.ones((200, 4), np.float32)
    (scores,) = Edits(ones, ones, np.arange(200), Planted(texts)).scores(np.arange(200), [None])
    assert (scores == 100).all()  # each kind of edit leaves five of seven words
    unlike = Planted(texts, [text[::-1] if row % 2 else text.upper() for row, text in enumerate(texts)])
    (scores,) = Edits(ones, ones, np.arange(200), unlike).scores(np.arange(200), [None])
    np.testing.assert_array_equal(scores, 100.0 * (np.arange(200) % 2 == 0))


def test_a_copy_without_words_that_differs_in_case_and_spaces_alone_is_recognised():
    """As `near_duplicate_groups` puts such texts together, whatever their vectors are."""
    texts = [*in_letters(198), "!!! :)", "?"]
    copies = [text[::-1] for text in texts[:198]]
    vectors, far = near_vectors(200, 16, 0.0)[0], -near_vectors(200, 16, 0.0)[0]
    (scores,) = Edits(vectors, far, np.arange(200), Planted(texts, [*copies, " !!!  :)", "? "])).scores(
        np.arange(200), [None]
    )
    assert scores.tolist() == [0.0] * 198 + [100.0] * 2


def test_the_thresholds_are_those_of_the_map_and_of_the_asked_rows():
    vectors, copies = near_vectors(300, 8, 0.1)
    weight = np.diag([0.0] * 4 + [-0.9] * 4).astype(np.float32)
    every, rows, planted = np.arange(300), np.arange(0, 300, 3), backwards(in_letters(300))
    evidence = Edits(vectors, copies, every, planted)
    before, after = evidence.scores(rows, [None, weight])
    mapped = Edits(vectors + vectors @ weight, copies + copies @ weight, every, planted)
    np.testing.assert_array_equal(after, mapped.scores(rows, [None])[0])
    assert (before != after).any()
    assert (before != evidence.scores(every, [None])[0][rows]).any()


def test_copies_that_are_in_the_texts_do_not_raise_the_threshold():
    texts, (vectors, copies) = in_letters(150), near_vectors(150, 16, 0.3)
    twins = [edit(text, "", "typo") for text in texts]
    rows, twice = np.arange(150), [np.concatenate((each, each)) for each in (vectors, copies)]
    alone = Edits(vectors, copies, rows, backwards(texts)).scores(rows, [None])
    both = Edits(*twice, np.arange(300), backwards([*texts, *twins])).scores(rows, [None])
    assert 0 < alone.mean() < 100
    np.testing.assert_array_equal(alone, both)


def test_the_evidence_of_adapt_is_what_textcl_duplicates_finds():
    """The share of recognised copies, by `calibrate` on halves of a sample and by the evidence on all texts."""
    lines = dict.fromkeys(BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines())
    texts = [text for text in lines if 4 <= len(text.split()) <= 12][:1000]
    encoder = Encoder.from_pretrained("small")
    found = calibrate(encoder.encode(texts), texts, encoder.encode)
    assert found is not None
    planted = Planted(texts)
    vectors = (encoder.encode(each) for each in (texts, planted.copies))
    (scores,) = Edits(*vectors, np.arange(1000), planted).scores(np.arange(1000), [None])
    for number, kind in enumerate(KINDS):
        assert scores[planted.kinds == number].mean() == pytest.approx(100 * found.found[kind], abs=10), kind
    assert 50 < scores.mean() < 99


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


def test_labelled_texts_have_the_vectors_that_textcl_cluster_makes(tmp_path: Path):
    prompts = {"query": "query: ", "document": "a passage about machines: "}
    encoder = Encoder.from_pretrained("bundled", max_length=24, prompts=prompts)
    (tmp_path / "labels.csv").write_text(
        "text,label\n" + "".join(f"{text},{i % 3}\n" for i, text in enumerate(DOCUMENTS))
    )
    found = read_labels(str(tmp_path / "labels.csv"), encoder, Workplace(tmp_path / "place"))
    np.testing.assert_allclose(found.vectors, embed(encoder, found.texts), atol=1e-5)


def test_rows_without_a_label_are_left_out_which_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder, file = Encoder.from_pretrained("bundled", max_length=24), tmp_path / "labels.csv"
    file.write_text("text,label\na cat,animal\nno label,\n,animal\na car,thing\n")
    with caplog.at_level(logging.INFO, logger="textcl"):
        Settings("clusters", f"labels:{file}").check()
        assert caplog.messages == []
        place = Workplace(tmp_path / "place")
        found = [read_labels(str(file), encoder, place) for _ in range(2)]
    assert [list(each.texts) for each in found] == [["a cat", "a car"]] * 2
    assert [each.removeprefix(f"{file}: ") for each in caplog.messages if each.startswith(str(file))] == [
        "1 blank row was dropped.",
        "1 row without a label was dropped.",
        "2 labels, animal, thing.",
    ]
    file.write_text("text,label\na cat,\na car,\n")
    with pytest.raises(InputError, match="holds no text"):
        Settings("clusters", f"labels:{file}").check()


@pytest.mark.parametrize(
    ("purpose", "dev", "end"),
    [
        ("search", "labels:l.csv", "not 'labels:l.csv'. labels: is for --for clusters."),
        ("duplicates", "pairs:p.csv", "not 'pairs:p.csv'. pairs: is for --for search."),
        ("clusters", "labels:", "not 'labels:'."),
        ("search", "l.csv", "not 'l.csv'."),
    ],
)
def test_evidence_for_another_purpose_is_refused_with_that_purpose(purpose: str, dev: str, end: str):
    with pytest.raises(InputError) as refused:
        Settings(purpose, dev).evidence()
    assert str(refused.value).endswith(end)


def test_a_labelled_text_that_is_repeated_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder, file, texts = Encoder.from_pretrained("bundled", max_length=24), tmp_path / "labels.csv", DOCUMENTS[:24]
    rows = [f"{text},{number % 3}\n" for number, text in enumerate(texts)]
    file.write_text("text,label\n" + "".join(rows))
    once = read_labels(str(file), encoder, Workplace(tmp_path / "once"))
    file.write_text("text,label\n" + "".join([*rows, *(row.upper().replace(" ", "  ") for row in rows), *rows * 6]))
    again = read_labels(str(file), encoder, Workplace(tmp_path / "again"))
    assert (list(again.texts), again.labels.tolist()) == (list(once.texts), once.labels.tolist())
    assert (
        f"{file}: 168 texts are equal to an earlier one but for case and spaces; each counts once." in caplog.messages
    )


def test_rows_that_repeat_others_would_make_the_error_of_labelled_texts_look_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 60)
    generator, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 30)
    vectors = (1.6 * generator.normal(size=(90, 6))).astype(np.float32)
    vectors[np.arange(90), labels] += 4
    weight = np.diag([0, 0, 0, 0.6, 0.6, 0.6]).astype(np.float32)
    once, six = Labels(vectors, labels, ""), Labels(np.repeat(vectors, 6, axis=0), np.repeat(labels, 6), "")
    errors = [compare_vectors(each, each.under(weight)).error for each in (once, six)]
    assert errors[0] > 1.5 * errors[1]


def test_judged_queries_are_read_once_in_a_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder, place = Encoder.from_pretrained("bundled", max_length=24), Workplace(tmp_path / "place")
    lines = [{"_id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({**x, "text": x["text"][:9]}) + "\n" for x in lines[:12])
    )
    judged = "".join(f"{i}\t{i}\t1\n" for i in range(12))
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    with caplog.at_level(logging.WARNING, logger="textcl"):
        evidence = [Judgements(str(tmp_path), encoder, place) for _ in range(2)]
        dense, hybrid = (evidence[0].scores(np.arange(12), [None], each) for each in (None, Lexical(0.35, "english")))
        again = evidence[1].scores(np.arange(12), [None])
    assert len([each for each in caplog.messages if "have the id of a document with another text" in each]) == 1
    assert np.array_equal(dense, again)
    assert not np.array_equal(dense, hybrid)
    own = Retrieval.from_folder(tmp_path, retrieval="hybrid", bm25_weight=0.35)(encoder)
    np.testing.assert_allclose(hybrid[0], own.items, atol=1e-3)


class Told(Labels):
    """Labels whose scores under a map are what the map says of each text."""

    def right(self, rows: np.ndarray, weight: np.ndarray | None, seed: int = 0) -> np.ndarray:
        return np.zeros(len(rows)) if weight is None else weight[rows]


def test_each_half_is_judged_by_the_map_that_the_other_half_selects():
    labels = Told(np.zeros((60, 1)), np.zeros(60, int), "")
    folds = labels.judge([np.ones(60)])[0].folds
    assert np.bincount(folds).tolist() == [30, 30]
    flattering = np.where(folds == 0, 50.0, 0.0)  # good at one half only, which must not select it for itself
    judged, _ = labels.judge([np.ones(60), flattering])
    assert judged.chosen == [0, 1]
    assert judged.after.tolist() == np.where(folds == 0, 1.0, 0.0).tolist()


def test_error_interval_and_p_value_of_labelled_texts_are_those_of_the_normal_distribution(monkeypatch):
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 400)
    gains = np.random.default_rng(6).normal(2, 20, 100)
    labels = Told(np.zeros((100, 1)), np.zeros(100, int), "")
    _, found = labels.judge([gains])
    assert found.difference == pytest.approx(gains.mean())
    assert found.error == pytest.approx(gains.std() / 10, rel=0.15)  # 400 samples: 3.5 %
    assert (found.low, found.high) == pytest.approx(norm.interval(0.95, gains.mean(), found.error))
    assert found.p_value == pytest.approx(2 * norm.sf(abs(gains.mean()) / found.error))
    assert 0.05 < found.p_value < 0.95


def test_some_of_the_labelled_texts_are_shown_with_their_own_texts():
    labels = Labels(np.arange(4.0)[:, None], np.array([0, 1, 0, 1]), "", ["a", "b", "c", "d"])
    some = labels.part(np.array([3, 1]))
    assert (some.vectors.ravel().tolist(), some.labels.tolist()) == ([3, 1], [1, 1])
    assert some.shown([0, 1]) == [{"text": "d"}, {"text": "b"}]


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


COPIES = ("{}", "{} ?", "Please: {}")  # of one question or text, as a log has it under several ids


def test_a_judged_query_under_several_ids_is_one_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder, place = Encoder.from_pretrained("bundled", max_length=24), Workplace(tmp_path / "place")
    (tmp_path / "qrels").mkdir()
    lines = [{"_id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [(f"q{i}-{n}", copy.format(DOCUMENTS[i])) for i in range(8) for n, copy in enumerate(COPIES)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps({"_id": k, "text": t}) + "\n" for k, t in asked))
    judged = "".join(f"{name}\td{name[1:-2]}\t1\n" for name, _ in asked)
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    with caplog.at_level(logging.WARNING, logger="textcl"):
        evidence = [Judgements(str(tmp_path), encoder, place) for _ in range(2)][1]
    assert evidence.units.tolist() == np.repeat(np.arange(8), 3).tolist()
    assert evidence.unit == "different judged queries"
    assert (
        len([each for each in caplog.messages if "16 judged queries are nearly equal to an earlier one" in each]) == 1
    )
    assert too_few_of_user("beir", str(tmp_path), place).startswith("there are 8 different queries with a relevant")


def test_near_duplicates_among_labelled_texts_are_one_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    encoder, place = Encoder.from_pretrained("bundled", max_length=24), Workplace(tmp_path / "place")
    rows = [f'"{copy.format(DOCUMENTS[i])}",{i % 2}\n' for i in range(10) for copy in COPIES]
    file = tmp_path / "labels.csv"
    file.write_text("text,label\n" + "".join(rows))
    with caplog.at_level(logging.WARNING, logger="textcl"):
        found = read_labels(str(file), encoder, place)
    assert found.units.tolist() == np.repeat(np.arange(10), 3).tolist()
    assert any("20 texts are nearly equal to an earlier one" in each for each in caplog.messages)
    assert too_few_of_user("labels", str(file), place).startswith("there are 10 different labelled texts with 2 labels")
    assert found.part(np.arange(3, 9)).units.tolist() == [0, 0, 0, 1, 1, 1]


def test_near_duplicates_of_labelled_texts_are_in_one_half_and_do_not_make_the_error_small(monkeypatch):
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 60)
    generator, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 30)
    vectors = (1.6 * generator.normal(size=(90, 6))).astype(np.float32)
    vectors[np.arange(90), labels] += 4
    weight = np.diag([0, 0, 0, 0.6, 0.6, 0.6]).astype(np.float32)
    many = np.repeat(np.arange(90), 6)
    once, six = Labels(vectors, labels, ""), Labels(vectors[many], labels[many], "", groups=many)
    errors = [compare_vectors(each, each.under(weight)) for each in (once, six)]
    assert [each.units for each in errors] == [90, 90]
    assert errors[1].error == pytest.approx(errors[0].error, rel=0.5)
    judged, comparison = six.judge([weight])
    assert comparison.units == 90
    assert all(len({*judged.folds[many == each]}) == 1 for each in range(90))
