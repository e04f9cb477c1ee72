"""Answers of blind judging as evidence for `adapt`: an encoder agrees with its own first results, always."""

import json
from pathlib import Path

import numpy as np
import pytest

from textcl.adaptation import guard, linear_map
from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.guard import GRADED_PAIRS
from textcl.adaptation.judging import draw_pairs
from textcl.adaptation.known_items import known_items
from textcl.adaptation.linear_map import with_linear_map
from textcl.adaptation.material import make_material
from textcl.adaptation.preferences import Preferences, read_triplets
from textcl.adaptation.split import Side, make_exams
from textcl.adaptation.trial import Settings, Work
from textcl.adaptation.workplace import Workplace
from textcl.cli.main import main
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.errors import InputError

GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, the same with eight directions that are too long, texts, and judgements that prefer the first one."""
    folder = tmp_path_factory.mktemp("preferences")
    encoder = Encoder.from_pretrained("bundled").with_(normalize=True)
    encoder.save(folder / "good")
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(encoder.dimension, 8)))[0]
    with_linear_map(encoder, (6 * axes @ axes.T).astype(np.float32)).save(folder / "spoilt")
    (folder / "texts.txt").write_text("\n".join(dict.fromkeys(GLOSSES[:220])), encoding="utf-8")
    (folder / "few").mkdir()
    pairs = GRADED_PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:300]
    (folder / "few" / "pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    drawn = draw_pairs(str(folder / "good"), str(folder / "spoilt"), folder / "texts.txt", folder / "j.tsv")
    drawn.write(["neither", "equal", *("left" if left else "right" for left in drawn.before_is_left()[2:])])
    return folder


@pytest.fixture
def quick(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_map, "STEPS", 10)
    monkeypatch.setattr(guard, "GRADED_PAIRS", work / "few" / "pairs.tsv")
    monkeypatch.setenv("TEXTCL_DATA", str(work / "few"))


def adapted(work: Path, models: str, output: Path) -> dict:
    command = ["adapt", models, "--data", str(work / "texts.txt"), "--dev", f"judgements:{work / 'j.tsv'}"]
    assert main([*command, "--output", str(output), "--ledger", str(output) + "-looks"]) == 0
    record = json.loads((output / "adapt.json").read_text())
    assert isinstance(record, dict)
    return record


def test_triplets_score_as_by_hand_under_each_map(work: Path, tmp_path: Path):
    good = Encoder.from_pretrained(work / "good")
    found, evidence = read_triplets(str(work / "j.tsv")), Preferences(str(work / "j.tsv"), good, Workplace(tmp_path))
    assert len(found.queries) == 48  # without "neither" and "equal"
    weight = np.random.default_rng(1).normal(size=(good.dimension, good.dimension)).astype(np.float32) / 8
    queries, preferred, others = (good.encode(texts) for texts in (found.queries, found.preferred, found.others))
    for number, under in enumerate((np.eye(good.dimension), np.eye(good.dimension) + weight)):
        one, two, three = (
            rows / np.linalg.norm(rows, axis=1, keepdims=True)
            for rows in (side @ under.T for side in (queries, preferred, others))
        )
        expected = 100.0 * ((one * two).sum(1) > (one * three).sum(1))
        assert evidence.scores(np.arange(48), [None, weight])[number].tolist() == expected.tolist()
    assert evidence.scores(np.array([5, 2]), [None]).tolist() == [[100.0, 100.0]]
    assert "so biased towards these" in evidence.task


def test_a_tie_is_half_right(work: Path, tmp_path: Path):
    evidence = Preferences(str(work / "j.tsv"), Encoder.from_pretrained(work / "good"), Workplace(tmp_path))
    nothing = -np.eye(evidence._queries.shape[1], dtype=np.float32)  # maps every vector to zero
    assert set(evidence.scores(np.arange(48), [nothing])[0]) == {50.0}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_of_two_encoders_the_one_that_was_preferred_is_better(work: Path, tmp_path: Path):
    record = adapted(work, f"{work / 'spoilt'},{work / 'good'}", tmp_path / "out")
    assert (record["main"]["before"], record["main"]["after"], record["main"]["units"]) == (0.0, 100.0, 48)
    assert "at choosing the text that you preferred (of the first results of" in record["lines"][-2]
    assert "biased towards these" in record["lines"][-2]
    assert "right choices 0.0 → 100.0" in record["lines"][-2]
    assert "; 48 answers, enough to show a difference of " in record["lines"][-2]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_candidates_are_judged_and_no_retrieval_is_advised(work: Path, tmp_path: Path):
    record = adapted(work, str(work / "good"), tmp_path / "out")
    assert record["main"]["before"] == 100.0
    assert len(record["candidates"]) == 3
    assert record["verdict"]["outcome"] != "better"
    assert record["retrieval"] is None
    assert {each["unit"] for each in (record["main"], *record["candidates"])} == {"answers"}
    assert {each["unit"] for each in record["guards"]} == {"pairs of sentences"}
    assert "not on the answers" in record["held_out"]


@pytest.mark.slow
def test_where_candidates_are_trained_half_of_the_answers_selects_and_the_other_half_judges(work: Path, tmp_path: Path):
    good, path = Encoder.from_pretrained(work / "good"), str(work / "j.tsv")
    asked = Settings(dev=f"judgements:{path}")
    task = Work(good, read_corpus(work / "texts.txt"), Workplace(tmp_path), asked)
    exams = make_exams(make_material(good, known_items(task.corpus.bodies), task.place), [], task)
    assert exams.allowed.all()
    assert "Half of the answers selects one of the candidates" in exams.held_out
    assert exams.selects.rows is not None
    assert exams.judges.rows is not None
    assert sorted([*exams.selects.rows, *exams.judges.rows]) == list(range(48))
    for exam in (exams.selects, exams.judges):
        assert exam.scores(Side(good)).tolist() == [100.0] * 24
        assert not exam.scores(Side(Encoder.from_pretrained(work / "spoilt"))).any()


def test_what_says_nothing_is_refused(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["adapt", "bundled", "--data", str(work / "texts.txt"), "--output", str(tmp_path / "out"), "--dev"]
    given = f"judgements:{work / 'j.tsv'}"
    assert main([*command, given, "--retrieval", "hybrid"]) == 2
    assert "hybrid search needs a ranking of all" in capsys.readouterr().err
    assert main([*command, given, "--for", "clusters"]) == 2
    assert "--for clusters takes labels:PATH" in capsys.readouterr().err
    assert main([*command, f"judgements:{tmp_path / 'nothing.tsv'}"]) == 2
    assert "There is no file" in capsys.readouterr().err
    pairs = draw_pairs("bm25", "tfidf", work / "texts.txt", tmp_path / "few.tsv")
    pairs.write(["left"] * 19 + ["equal"] * 31)
    with pytest.raises(InputError, match=r"has 1[0-9] answers that prefer one text to another, and 20 are needed"):
        read_triplets(str(tmp_path / "few.tsv"))
    assert not (tmp_path / "out").exists()
