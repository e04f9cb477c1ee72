"""Texts whose parts do not belong together: a part of them says so, and never says it of texts that can be measured."""

import csv
from pathlib import Path

import numpy as np
import pytest

import textcl
from textcl.adaptation import trial
from textcl.adaptation.corpus import Corpus
from textcl.adaptation.known_items import BY_TITLE, known_items
from textcl.adaptation.material import make_material
from textcl.adaptation.trial import LEAST_SCORE, Settings, Work, prepare, too_low
from textcl.adaptation.workplace import Workplace
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder

GLOSSES = BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained("bundled").with_(normalize=True)


@pytest.fixture(scope="module")
def titles(evaluation_sets: Path) -> list[str]:
    """600 titles of questions; halves of them do not find each other."""
    with (evaluation_sets / "clustering" / "stackoverflow.csv").open(encoding="utf-8", newline="") as handle:
        return list(dict.fromkeys(row["text"] for row in csv.DictReader(handle)))[:600]


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MANY_DOCUMENTS", 500)
    monkeypatch.setattr(trial, "PROBED", 300)


def why(encoder: Encoder, corpus: Corpus, folder: Path, **settings: object) -> str:
    work = Work(encoder, corpus, Workplace(folder), Settings(**settings))  # type: ignore[arg-type]
    return prepare(work, "some identity")[0].why


def corpus_of(bodies: list[str], titles: list[str] | None = None) -> Corpus:
    return Corpus("texts", bodies, titles, len(bodies), 0, 0)


def test_a_query_finds_its_document_among_some_at_least_as_easily_as_among_all(
    encoder: Encoder, titles: list[str], tmp_path: Path
):
    whole = corpus_of(titles)
    part = whole.part(300)
    sides = []
    for corpus in (whole, part):
        (view,) = known_items(corpus.bodies, None, 200)
        ranking = make_material(encoder, [view], Workplace(tmp_path)).ranking()
        scores = ranking.scores(np.arange(len(view.queries)), [None])[0]
        texts = [corpus.bodies[target] for target in view.targets]
        sides.append(dict(zip(texts, scores, strict=True)))
    among_all, among_some = sides
    assert len(among_some) > 240
    assert all(score >= among_all[text] for text, score in among_some.items())
    assert np.mean([*among_all.values()]) < np.mean([*among_some.values()]) < LEAST_SCORE


def test_short_texts_are_refused_from_a_part_as_they_are_from_all(
    encoder: Encoder, titles: list[str], tmp_path: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    model = encoder.save(tmp_path / "model")
    of_part = textcl.adapt(model, titles, ledger=tmp_path / "looks").lines[-2]
    assert of_part.startswith("VERDICT: not measured: the untouched encoder has nDCG@10 ")
    assert "the second half of a text by the first among 300 of the texts, and less among all, and 10 are" in of_part
    assert len(encoded) < 700  # halves of 300, and those whose encoding was timed
    monkeypatch.setattr(trial, "MANY_DOCUMENTS", len(titles))
    of_all = textcl.adapt(model, titles, ledger=tmp_path / "looks").lines[-2]
    assert of_all.startswith("VERDICT: not measured: the untouched encoder has nDCG@10 ")
    assert "by the first, and 10 are needed: the parts of these texts do not belong together" in of_all


@pytest.mark.slow
def test_several_models_are_refused_too(
    encoder: Encoder, titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models = [str(encoder.with_(max_length=length).save(tmp_path / str(length))) for length in (32, 24)]
    of_part = textcl.adapt(",".join(models), titles, ledger=tmp_path / "looks").lines[-2]
    monkeypatch.setattr(trial, "MANY_DOCUMENTS", len(titles))
    of_all = textcl.adapt(",".join(models), titles, ledger=tmp_path / "looks").lines[-2]
    for line, among in ((of_part, " among 300 of the texts, and less among all"), (of_all, "")):
        assert line.startswith("VERDICT: not measured: the first encoder has nDCG@10 ")
        assert f"by the first{among}, and 10 are needed" in line


def test_what_words_or_evidence_of_ones_own_could_find_is_not_refused_from_a_part(
    encoder: Encoder, titles: list[str], tmp_path: Path
):
    corpus, pairs = corpus_of(titles), tmp_path / "pairs.csv"
    pairs.write_text("one,two\n" + "".join(f"question {i},answer {i}\n" for i in range(300)))
    assert "among 300 of the texts" in why(encoder, corpus, tmp_path / "dense")
    assert why(encoder, corpus, tmp_path / "hybrid", retrieval="hybrid") == ""
    assert why(encoder, corpus, tmp_path / "duplicates", purpose="duplicates") == ""
    assert why(encoder, corpus, tmp_path / "pairs", dev=f"pairs:{pairs}") == ""


def test_texts_with_titles_go_on(encoder: Encoder, tmp_path: Path):
    glosses = [text for text in GLOSSES if len(text.split()) >= 8]
    names = [" ".join(text.split()[2:6]) for text in glosses[:600]]
    bodies = [f"{one}. {two}" for one, two in zip(glosses[:600], glosses[600:1200], strict=True)]
    assert why(encoder, corpus_of(bodies, names), tmp_path / "titles") == ""
    shuffled = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    assert "finding a body by its title among 300" in why(encoder, corpus_of(bodies, shuffled), tmp_path / "shuffled")


def test_advice_is_about_what_was_not_given() -> None:
    of_halves, of_titles = (too_low(3.4, task) for task in ("finding the second half of a text by the first", BY_TITLE))
    assert "Give bodies too (--column title,body), pairs of your own" in of_halves
    assert "the titles do not tell these texts apart" in of_titles
    assert "Give pairs of your own" in of_titles
    assert "bodies too" not in of_titles
    assert too_low(30.0, BY_TITLE) == ""
