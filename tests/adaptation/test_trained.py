"""One trained candidate: which layers change, that it is trained once, and the plan of which there is time for."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation import schedule, trained
from textcl.adaptation.known_items import View, known_items
from textcl.adaptation.rows import Rows, in_batches
from textcl.adaptation.trained import CANDIDATES, Candidate, blocks, read_trained, train, trained_once
from textcl.encoder import Encoder

PAIRS = Candidate("pairs", "last two layers", 1e-3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.from_pretrained(tiny_encoder_directory(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def rows() -> Rows:
    order, batch = in_batches(np.arange(64), 3)
    return Rows({"text": [TEXTS[i] for i in order], "positive": [TEXTS[i + 64] for i in order]}, batch)


def changed(one: Encoder, two: Encoder) -> set[str]:
    """The names of the weights that differ."""
    return {name for name, value in one.state_dict().items() if not torch.equal(value, two.state_dict()[name])}


def test_only_the_named_layers_change_and_the_start_never(encoder: Encoder, rows: Rows, tmp_path: Path):
    before = encoder.fingerprint()
    last = changed(encoder, train(encoder, PAIRS, rows, 3, tmp_path / "run"))
    own = {id(weight) for block in blocks(encoder)[-2:] for weight in block.parameters()}
    expected = {name for name, weight in encoder.named_parameters() if id(weight) in own}
    assert last <= expected
    assert len(last) > 0.8 * len(expected)  # the key's bias has no gradient
    every = changed(encoder, train(encoder, Candidate("pairs", "all layers", 1e-3), rows, 3, tmp_path / "run"))
    assert {"backbone.embeddings.word_embeddings.weight"} | last <= every
    assert encoder.fingerprint() == before


def test_texts_are_cut_in_training_and_the_length_of_the_encoder_stays(
    encoder: Encoder, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trained, "LENGTH", 5)
    long = Rows(
        {name: [f"{text} {'boat ' * 20}" for text in texts] for name, texts in rows.columns.items()}, rows.batch
    )
    longer = Rows({name: [f"{text} and a door" for text in texts] for name, texts in long.columns.items()}, rows.batch)
    one, other = (train(encoder, PAIRS, each, 2, tmp_path / "run") for each in (long, longer))
    assert one.fingerprint() == other.fingerprint() != encoder.fingerprint()
    assert one.max_length == encoder.max_length > 30


def test_it_is_trained_once_and_again_if_its_weights_are_damaged(encoder: Encoder, rows: Rows, tmp_path: Path):
    calls: list[int] = []

    def counted() -> Rows:
        calls.append(1)
        return rows

    first, seconds = trained_once(encoder, PAIRS, counted, 3, tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {trained.WEIGHTS, trained.SEAL}
    again, same = trained_once(encoder, PAIRS, counted, 3, tmp_path / "one")
    assert (len(calls), same) == (1, seconds)
    assert not changed(first, again)
    content = bytearray((tmp_path / "one" / trained.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (tmp_path / "one" / trained.WEIGHTS).write_bytes(content)
    assert read_trained(encoder, tmp_path / "one") is None
    third, _ = trained_once(encoder, PAIRS, counted, 3, tmp_path / "one")
    assert len(calls) == 2
    assert not changed(first, third)  # the same seed gives the same weights


def test_names_are_plain_and_differ():
    assert Candidate("crops", "last two layers", 2e-5).name == "last two layers, crops, 2e-5"
    assert len({candidate.name for candidate in CANDIDATES}) == len(CANDIDATES)


def test_the_texts_and_the_purpose_decide_which_candidates_are_possible():
    long = [f"{TEXTS[i]}. {TEXTS[i + 1]}. {TEXTS[i + 2]}. {TEXTS[i + 3]}." for i in range(240)]
    short = [f"{text} at the old house near the river" for text in TEXTS[:240]]

    def kinds(bodies: list[str], titles: list[str] | None, purpose: str) -> set[str]:
        views = known_items(bodies, titles, least=200)[:2]
        return {candidate.kind for candidate in schedule.possible(views, bodies, purpose)}

    assert kinds(long, TEXTS[:240], "search") == {"pairs", "crops", "halves", "hard negatives"}
    assert kinds(long, None, "search") == {"pairs", "crops", "hard negatives"}  # halves are the second view
    assert kinds(short, None, "search") == {"pairs", "hard negatives"}
    assert kinds(short, None, "clusters") == {"pairs", "SCCL"}


def test_the_plan_takes_what_the_time_allows(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "_rates", lambda *_: {"last two layers": 1.0, "all layers": 2.0})
    view = View("half", "a test", TEXTS[:280], TEXTS[:280], np.arange(280))
    views, texts = [view], TEXTS[:280]

    def planned(seconds: float) -> dict[str, object]:
        return schedule.schedule(encoder, views, texts, "search", 280, seconds, each=0.01)

    whole = planned(1e6)
    assert whole["candidates"] == [each.name for each in schedule.possible(views, texts, "search")]
    assert whole["left_out"] == []
    assert whole["steps"] == 10 * 140 // 32  # ten passes over the half that trains
    assert float(str(whole["seconds"])) > 5 * 43
    one = planned(43 + 3 * 0.01 * 350 + 43 + 1)  # training, scoring, training again on all texts
    assert one["candidates"] == ["last two layers, pairs, 2e-5"]
    assert one["left_out"] == [each.name for each in schedule.possible(views, texts, "search")][1:]
    assert planned(43 + 3 * 0.01 * 350 + 43 - 1)["candidates"] == []
    seconds = 43 + 3 * 0.01 * 350 + 1  # a user's judgements or labels hold no texts back, so nothing is trained again
    once = schedule.schedule(encoder, views, texts, "search", 280, seconds, 0.01, again=False)
    assert once["candidates"] == ["last two layers, pairs, 2e-5"]


def test_sccl_is_planned_first_for_clusters(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """It helps clusters most, so it is not what is left out where time is short."""
    monkeypatch.setattr(schedule, "_rates", lambda *_: {"last two layers": 1.0, "all layers": 2.0})
    view = View("half", "a test", TEXTS[:280], TEXTS[:280], np.arange(280))

    def planned(seconds: float) -> list[str]:
        return schedule.schedule(encoder, [view], TEXTS[:280], "clusters", 280, seconds, each=0.01)["candidates"]

    training = 43 * 2.0 * 8 + 2 * 0.01 * 280  # of it, two looks at the clusters of all texts
    least = 2 * training + 3 * 0.01 * 350  # again on all texts; the scoring of three blends
    assert planned(least + 1) == ["all layers, SCCL, 5e-5"]
    assert "all layers, SCCL, 5e-5" not in planned(least - 1)
    assert planned(1e6)[:2] == ["all layers, SCCL, 5e-5", "last two layers, pairs, 2e-5"]


def test_a_step_is_timed_without_the_making_of_the_trainer(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    view = View("half", "a test", TEXTS[:280], TEXTS[:280], np.arange(280))
    clock = iter([0.0, 100.0, 101.0, 103.0, 104.0])  # the beginning, and the ends of four steps
    monkeypatch.setattr(schedule, "time", SimpleNamespace(perf_counter=clock.__next__))
    assert schedule._rates(encoder, view, [PAIRS]) == {"last two layers": 1.0}


def test_a_backbone_that_cannot_be_trained_does_not_stop_the_plan(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(encoder.backbone.config, "num_hidden_layers", 99)
    view = View("half", "a test", TEXTS[:280], TEXTS[:280], np.arange(280))
    found = schedule.schedule(encoder, [view], TEXTS[:280], "search", 280, 1e6, 0.01)
    assert "last two layers, pairs, 2e-5" in found["candidates"]
