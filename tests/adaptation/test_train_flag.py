"""`textcl adapt --train` from the command to the export: verdicts, failures, kills, and evidence of all kinds."""

import csv
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from support.command import DIES, TEXTCL, Forked
from support.judged import judged_titles
from support.ranks import check_ranks
from support.tiny import TEXTS, VERBS, tiny_encoder_directory

import textcl
from textcl.adaptation import by_training, enough, guard, linear_map, schedule, trial, verdict
from textcl.adaptation.adapt import adapt
from textcl.adaptation.blend import blended
from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.known_items import known_items
from textcl.adaptation.material import make_material
from textcl.adaptation.rows import pair_rows
from textcl.adaptation.trained import Candidate, train
from textcl.adaptation.workplace import Workplace
from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError

COUNT = 240
ORDER = np.random.default_rng(0).permutation(len(TEXTS))[:COUNT]
FAST = Candidate("pairs", "all layers", 1e-2)
STEPS = 30


def cipher(text: str) -> str:
    """The same text with another verb, always the same one for this verb: what training can learn and words cannot."""
    following = dict(zip(VERBS, [*VERBS[3:], *VERBS[:3]], strict=True))
    return " ".join(following.get(word, word) for word in text.split())


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder whose vectors are mostly the words of a text."""
    folder = tmp_path_factory.mktemp("models")
    encoder = Encoder.from_pretrained(tiny_encoder_directory(folder / "random")).with_(normalize=True)
    with torch.no_grad():
        encoder.word_embeddings.weight.mul_(20)
    return encoder.save(folder / "start")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Titles, and texts that have the same words but for the verb."""
    path = tmp_path_factory.mktemp("data") / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["name", "text"], *([TEXTS[i], cipher(TEXTS[i])] for i in ORDER)])
    return path


@pytest.fixture(scope="module")
def few_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of texts, with the number of words that they share."""
    path = tmp_path_factory.mktemp("pairs") / "few.tsv"
    pairs = [(TEXTS[i], TEXTS[-1 - i]) for i in range(80)]
    path.write_text("".join(f"{one}\t{two}\t{len({*one.split()} & {*two.split()})}\n" for one, two in pairs))
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, few_pairs: Path) -> None:
    """Linear maps that change nothing, a guard that stops nothing, and one fast candidate whatever the clock says."""
    monkeypatch.setattr(linear_map, "STEPS", 1)
    monkeypatch.setattr(linear_map, "LEARNING_RATE", 0.0)
    monkeypatch.setattr(guard, "GRADED_PAIRS", few_pairs)
    monkeypatch.setattr(verdict, "MOST_LOST", 200.0)
    monkeypatch.setenv("TEXTCL_DATA", str(few_pairs.parent))
    plan(monkeypatch, FAST)


def plan(monkeypatch: pytest.MonkeyPatch, *candidates: Candidate, steps: int = STEPS) -> None:
    """Lets the plan be these candidates."""
    monkeypatch.setattr(by_training, "CANDIDATES", candidates)
    names = [each.name for each in candidates]
    planned = {"candidates": names, "left_out": ["all layers, crops, 1e-5"], "steps": steps, "seconds": 1.0}
    monkeypatch.setattr(trial, "schedule", lambda *_: planned)


def run(model: Path | str, data: Path, output: Path, *flags: str) -> dict[str, object]:
    ledger = output.parent / f"{output.name}-ledger" / "looks.jsonl"
    words = ["adapt", str(model), "--data", str(data), "--output", str(output), "--ledger", str(ledger), "--train"]
    assert main([*words, *flags]) == 0
    return dict(json.loads((output / "adapt.json").read_text()))


def entry(record: dict[str, object], name: str) -> dict[str, object]:
    return next(each for each in record["candidates"] if each["name"] == name)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_helps_is_exported_and_the_export_is_the_blend_of_what_all_texts_trained(
    start: Path, table: Path, tmp_path: Path
):
    record = run(start, table, tmp_path / "better", "--column", "name,text")
    assert record["lines"][-2].startswith("VERDICT: better at finding a body by its title: nDCG@10 ")  # type: ignore[index]
    assert f"with trained layers ({FAST.name}, α " in record["lines"][-1]  # type: ignore[index]
    found = entry(record, FAST.name)
    assert [alpha for alpha, _ in found["alphas"]] == [0.5, 0.75, 1.0]  # type: ignore[attr-defined]
    assert found["selected"]
    assert found["seconds"] > 0  # type: ignore[operator]
    names = [f"linear map, pull {pull}" for pull in ("1", "0.3", "0.1")]
    assert [each["name"] for each in record["candidates"]] == [*names, FAST.name]  # type: ignore[attr-defined]
    assert record["main"]["units"] == pytest.approx(COUNT / 4, abs=3)  # type: ignore[index]
    check_ranks(record)
    assert sum(record["changed"].values()) == pytest.approx(COUNT / 4, abs=3)  # type: ignore[attr-defined]
    assert str(record["held_out"]).startswith("One split")
    assert FAST.name in (tmp_path / "better" / "report.html").read_text(encoding="utf-8")

    corpus, encoder = read_corpus(table, ("name", "text")), Encoder.from_pretrained(start)
    view = known_items(corpus.bodies, corpus.titles)[0]
    groups = make_material(encoder, [view], Workplace(tmp_path / "own")).groups
    rows = pair_rows(view, groups, np.ones(groups.max() + 1, bool), STEPS)
    alpha = float(str(record["chosen"]).rpartition(" ")[2])
    expected = blended(encoder, train(encoder, FAST, rows, STEPS, tmp_path / "run"), alpha)
    exported = Encoder.from_pretrained(tmp_path / "better")
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, exported.state_dict()[name]), name
    theirs = SentenceTransformer(str(tmp_path / "better"), device="cpu").encode(TEXTS[:5])
    np.testing.assert_allclose(theirs, exported.encode(TEXTS[:5]), atol=1e-6)
    assert "VERDICT: better" in (tmp_path / "better" / "README.md").read_text()
    assert not (tmp_path / ".better.adapt").exists()


@pytest.mark.slow
def test_where_training_changes_nothing_there_is_no_difference_and_a_failure_is_told(
    start: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    idle, wild = Candidate("pairs", "last two layers", 1e-9), Candidate("pairs", "all layers", 1e30)
    plan(monkeypatch, wild, idle, steps=3)
    record = run(start, table, tmp_path / "same", "--column", "name,text")
    assert record["lines"][-2].startswith("VERDICT: no difference at finding a body by its title")  # type: ignore[index]
    assert record["lines"][-1] == f"EXPORT: {tmp_path / 'same'} holds the untouched encoder"  # type: ignore[index]
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (start / "model.safetensors").read_bytes()
    failed = entry(record, wild.name)
    assert "The loss became" in str(failed["failed"])
    assert failed["alphas"] == []
    assert "failed" not in entry(record, idle.name)
    assert any(line.startswith(f"{wild.name}: failed: ") for line in record["looked"])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_candidate_that_makes_things_worse_is_blended_less_and_is_not_chosen(
    start: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    harmful = Candidate("pairs", "all layers", 1.0)
    plan(monkeypatch, harmful, steps=3)
    record = run(start, table, tmp_path / "same", "--column", "name,text")
    found = entry(record, harmful.name)
    assert [alpha for alpha, _ in found["alphas"]] == [0.5, 0.25]  # type: ignore[attr-defined]
    assert not found["selected"]
    assert record["lines"][-1].endswith("holds the untouched encoder")  # type: ignore[index]


@pytest.mark.slow
def test_without_time_for_training_the_folds_judge_linear_maps(
    start: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan(monkeypatch)
    record = run(start, table, tmp_path / "none", "--column", "name,text")
    assert any("no trained candidate" in line for line in record["looked"])  # type: ignore[attr-defined]
    said = "Not trained, because 20 minutes do not allow it: all layers, crops, 1e-5. Give more with --minutes."
    assert said in record["looked"]  # type: ignore[operator]
    assert sum(each["chosen_in_folds"] for each in record["candidates"]) == 5  # type: ignore[attr-defined]


def test_several_models_are_not_trained(start: Path, table: Path, tmp_path: Path):
    with pytest.raises(InputError, match="leave out --train"):
        adapt(f"{start},bundled", table, tmp_path / "out", columns=("name", "text"), train=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_plan_is_made_from_the_clock_and_all_candidates_are_tried(
    start: Path, table: Path, tmp_path: Path, few_pairs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path))
    monkeypatch.setattr(schedule, "STEPS", (3,))
    monkeypatch.setattr(guard, "GRADED_PAIRS", few_pairs)
    record = run(start, table, tmp_path / "all", "--column", "name,text", "--minutes", "300")
    views = known_items(*[getattr(read_corpus(table, ("name", "text")), name) for name in ("bodies", "titles")], 200)
    names = [each.name for each in schedule.possible(views[:2], [], "search")]
    assert [each["name"] for each in record["candidates"]][3:] == names  # type: ignore[attr-defined]
    assert not any("failed" in each for each in record["candidates"])  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "beir", "labels", "duplicates", "hybrid"])
def test_evidence_of_all_kinds_judges_trained_candidates(
    kind: str, start: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("textcl.adaptation.labels.SAMPLES", 10)
    rows = list(csv.DictReader(table.open()))
    flags, said = [], ""
    if kind == "pairs":
        own = tmp_path / "pairs.csv"
        with own.open("w", newline="") as handle:
            csv.writer(handle).writerows([["q", "a"], *([row["name"], row["text"]] for row in rows)])
        flags, said = ["--dev", f"pairs:{own}"], "finding the second text of a pair by the first"
    elif kind == "beir":
        own = judged_titles(rows, tmp_path / "mine")
        flags, said = ["--dev", f"beir:{own}"], "finding the judged documents of mine"
    elif kind == "labels":
        own = tmp_path / "labels.csv"
        with own.open("w", newline="") as handle:
            csv.writer(handle).writerows([["text", "label"], *([TEXTS[i], str(i // 48)] for i in ORDER[:120])])
        flags, said = ["--for", "clusters", "--dev", f"labels:{own}"], "separating your labelled texts by k-means"
        plan(monkeypatch, FAST, Candidate("SCCL", "all layers", 5e-5), steps=5)
    elif kind == "duplicates":
        monkeypatch.setattr(enough, "LEAST_GROUPS", 10)  # the halves of these texts repeat
        flags, said = ["--for", "duplicates"], "recognising texts with a planted edit"
    else:
        flags, said = ["--retrieval", "hybrid"], "finding a body by its title"
    record = run(start, table, tmp_path / "out", "--column", "name,text", *flags)
    assert f" at {said}" in record["lines"][-2]  # type: ignore[index]
    assert not any("failed" in each for each in record["candidates"])  # type: ignore[attr-defined]
    if kind in ("labels", "duplicates"):
        shown = {"labels": {"text"}, "duplicates": {"text", "copy"}}[kind]
        assert all({*each} == {"row", "before", "after", *shown} for each in record["changes"])  # type: ignore[attr-defined]
    else:
        check_ranks(record)
    assert (record["retrieval"] is not None) == (kind in ("pairs", "beir", "hybrid"))
    if kind in ("beir", "labels"):
        assert record["main"]["units"] == pytest.approx({"beir": COUNT, "labels": 120}[kind] / 2, abs=1)  # type: ignore[index]


@pytest.mark.slow
def test_killed_again_and_again_the_same_command_goes_on_to_the_same_export(
    start: Path, table: Path, tmp_path: Path, few_pairs: Path
):
    """While it trains or scores either candidate or trains on all texts, and at the end."""
    setup = f"""
from pathlib import Path
from textcl.adaptation import by_training, guard, linear_map, schedule, verdict
from textcl.adaptation.trained import Candidate
linear_map.STEPS = 1
verdict.MOST_LOST = 200.0
guard.GRADED_PAIRS = Path({str(few_pairs)!r})
tried = (Candidate("pairs", "all layers", 1e-2), Candidate("hard negatives", "last two layers", 1e-2))
by_training.CANDIDATES = schedule.CANDIDATES = tried
schedule.STEPS = (30,)
"""

    def run(code: str, name: str, *place: str) -> subprocess.CompletedProcess[str]:
        words = ["adapt", start, "--data", table, "--column", "name,text", "--output", tmp_path / name]
        words += ["--ledger", tmp_path / f"{name}-looks" / "l.jsonl", "--train", "--minutes", "600"]
        with Forked(setup + code, *place, *words, cwd=tmp_path) as process:
            return process.wait()

    whole = run(TEXTCL, "whole")
    assert whole.returncode == 0, whole.stderr
    plans = set()
    places = ["candidate-0/.trained.json.", "candidate-0/.scores.json.", "candidate-1/.trained.safetensors."]
    for place in (*places, "candidate-0-all/.trained.json.", "/.adapt.json."):
        killed = run(DIES, "killed", place)
        assert killed.returncode == -signal.SIGKILL, (place, killed.stderr)
        plans.add((tmp_path / ".killed.adapt" / "plan.json").read_text())
    assert len(plans) == 1  # made once
    last = run(TEXTCL, "killed")
    assert last.returncode == 0, last.stderr
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file() and path.name not in ("adapt.json", "report.html", "README.md"):
            assert (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path
    one, two = (json.loads((tmp_path / name / "adapt.json").read_text()) for name in ("whole", "killed"))
    assert one["lines"][:-1] == two["lines"][:-1]
    assert [each["alphas"] for each in one["candidates"]] == [each["alphas"] for each in two["candidates"]]


@pytest.mark.slow
def test_in_python_nothing_is_written_without_output(
    start: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    adapted = textcl.adapt(start, table, columns=("name", "text"), ledger=tmp_path / "looks" / "l.jsonl", train=True)
    assert adapted.verdict.outcome == "better"
    assert adapted.encoder.fingerprint() != Encoder.from_pretrained(start).fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["looks"]
