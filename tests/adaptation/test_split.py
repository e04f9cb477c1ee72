"""The split keeps groups apart; what is searched where candidates are selected; the exam is that of the rankings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.judged import judged_titles
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation import schedule, searched
from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.evidence import Ranking
from textcl.adaptation.known_items import known_items
from textcl.adaptation.material import Material, make_material
from textcl.adaptation.searched import some
from textcl.adaptation.split import JUDGES, SELECTS, TRAINS, Exams, Side, exam_of, make_exams, split_of
from textcl.adaptation.trial import Settings, Work
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.from_pretrained(tiny_encoder_directory(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def material(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Texts of which pairs are near-duplicates, with two views."""
    bodies = [f"{TEXTS[i]}. {TEXTS[i + 60]}. {TEXTS[i + 120]}." for i in range(60)]
    views = known_items(bodies, ["" if i in (0, 2, 4) else TEXTS[i] for i in range(60)])  # 57 ask for their title
    groups = np.arange(60) // 2
    return make_material(encoder, views, Workplace(tmp_path_factory.mktemp("vectors")), groups)


def test_half_trains_a_quarter_selects_and_a_quarter_judges():
    assert np.bincount(split_of(103)).tolist() == pytest.approx([52, 26, 25], abs=1)
    assert np.bincount(split_of(103, trains=False), minlength=3).tolist() == [0, 52, 51]
    assert (split_of(103) == split_of(103)).all()
    assert (split_of(103) != split_of(103, seed=1)).any()


def test_no_group_is_on_two_sides(encoder: Encoder, material: Material, tmp_path: Path):
    work = Work(encoder, read_corpus(TEXTS[:60]), Workplace(tmp_path), Settings(train=True))
    exams = make_exams(material, material.views, work)
    parts = split_of(material.units)
    sides = [set(exam.make(encoder).units.tolist()) for exam in (exams.selects, exams.judges)]
    assert exams.second is not None
    assert sides[0] == set(np.flatnonzero(parts == SELECTS))
    assert sides[1] == set(exams.second.make(encoder).units.tolist()) == set(np.flatnonzero(parts == JUDGES))
    assert (exams.allowed == (parts == TRAINS)).all()
    assert not exams.second_of_export  # all texts are trained on then, those of its queries too
    assert len(exams.judges.make(encoder).documents) == 60  # type: ignore[attr-defined]


def test_no_labelled_text_judged_query_or_edit_both_selects_and_judges(
    encoder: Encoder, material: Material, tmp_path: Path
):
    def exams(name: str, **settings: Any) -> Exams:
        corpus = read_corpus(TEXTS[:60])
        work = Work(encoder, corpus, Workplace(tmp_path / name), Settings(train=True, **settings))
        return make_exams(material, material.views, work)

    (tmp_path / "labels.csv").write_text(
        "text,label\n" + "".join(f"{text},{i % 3}\n" for i, text in enumerate(TEXTS[:41]))
    )
    found = exams("labels", purpose="clusters", dev=f"labels:{tmp_path / 'labels.csv'}")
    sides = [list(exam.make(encoder).texts) for exam in (found.selects, found.judges)]  # type: ignore[attr-defined]
    assert sorted(map(len, sides)) == [20, 21]
    assert sorted([*sides[0], *sides[1]]) == sorted(TEXTS[:41])
    assert found.second_of_export
    assert found.second is not None
    assert len(found.second.make(encoder).units) == 60  # no query is held back

    found = exams("pairs", dev="pairs:mine.csv")
    assert found.second_of_export
    assert found.second is not None
    assert len(found.second.make(encoder).units) == 60

    folder = judged_titles(
        [{"name": f"query {i}", "text": text} for i, text in enumerate(TEXTS[:41])], tmp_path / "beir"
    )
    with (folder / "qrels" / "test.tsv").open("a") as judged:  # a second one that is relevant, and one that is not
        judged.writelines(f"q{i}\t{(i + 1) % 41}\t2\nq{i}\t{(i + 2) % 41}\t0\n" for i in range(41))
    found = exams("judged", dev=f"beir:{folder}")
    made = found.selects.make(encoder)
    assert isinstance(made, Ranking)
    for query, grades in zip(made.texts[0], made.relevant, strict=True):
        number = int(query.split()[1])
        answers = {TEXTS[number]: 1.0, TEXTS[(number + 1) % 41]: 2.0}
        assert {made.texts[1][place]: grade for place, grade in grades.items()} == answers
    asked = set(made.texts[0])
    assert found.judges.rows is not None
    judging = {f"query {i}" for i in found.judges.rows}
    assert (len(asked) + len(judging), asked & judging) == (41, set())

    found = exams("edits", purpose="duplicates")
    parts = split_of(material.units)[material.groups]
    assert found.selects.rows is not None
    assert found.judges.rows is not None
    assert found.selects.rows.tolist() == np.flatnonzero(parts == SELECTS).tolist()
    assert found.judges.rows.tolist() == np.flatnonzero(parts == JUDGES).tolist()


def test_an_exam_scores_as_the_whole_ranking_does(encoder: Encoder, material: Material, tmp_path: Path):
    asked = np.array([3, 8, 40, 41])
    exam = exam_of(material.views[0], material.groups, Workplace(tmp_path), asked=asked)
    weight = np.random.default_rng(0).normal(0, 0.1, (encoder.dimension, encoder.dimension)).astype(np.float32)
    for each in (None, weight):
        np.testing.assert_allclose(exam.scores(Side(encoder, each)), material.ranking().scores(asked, [each])[0])
    fewer = np.array(sorted({*material.views[0].targets[asked].tolist(), 5, 6, 7, 9, 20}))
    part = exam_of(material.views[0], material.groups, Workplace(tmp_path), asked=asked, documents=fewer)
    assert (part.scores(Side(encoder)) >= exam.scores(Side(encoder))).all()  # fewer others can only help
    whole, place = material.ranking(), {int(document): number for number, document in enumerate(fewer)}
    answers = [{place[int(material.views[0].targets[row])]: 1.0} for row in asked]
    alike = material.groups[fewer]  # of these documents, in their order
    alone = Ranking("", whole.queries[asked], whole.documents[fewer], answers, np.arange(4), alike=alike)
    np.testing.assert_allclose(part.scores(Side(encoder)), alone.scores(np.arange(4), [None])[0])
    made = part.make(encoder)
    assert isinstance(made, Ranking)
    assert made.alike is not None
    assert made.alike.tolist() == alike.tolist()


def test_those_to_be_found_hard_ones_and_others_are_searched(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(searched, "MOST_SEARCHED", 40)
    monkeypatch.setattr(searched, "_AT_ONCE", 3)
    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(4, 6)), generator.normal(size=(500, 6))
    own = [7, 8, 400, 499]
    found = searched.searched(queries, documents, own)
    assert len(found) == len(set(found.tolist())) == 40
    assert {*own} <= {*found.tolist()}
    cosines = (queries @ documents.T) / np.linalg.norm(documents, axis=1)
    hard = {*np.argsort(-cosines, axis=1)[:, :10].ravel().tolist()} - {*own}
    assert len(hard & {*found.tolist()}) >= 18  # half of the room of 36
    assert len({*found.tolist()} - hard - {*own}) >= 12  # and others, of which few are hard
    assert searched.searched(queries, documents[:40], own[:2]).tolist() == list(range(40))
    assert schedule.MOST_SEARCHED == 3000


def test_some_are_drawn_in_their_order():
    assert some(np.array([5, 3, 9]), 9).tolist() == [5, 3, 9]
    found = some(np.arange(100), 10)
    assert (np.diff(found) > 0).all()
    assert len(found) == 10
