"""Choosing without labels: closed forms, encoders made worse on purpose, and runs that a criterion chooses for."""

import copy
import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from support.command import environment
from support.runs import run_until_killed, small_run
from support.tiny import TEXTS, tiny_encoder_directory

from benchmarks.label_free import figures, read_runs, report
from textcl import Encoder, InputError, LabelFree, hold_out, load_texts
from textcl.data.corpora import load_triplets, read_texts
from textcl.evaluation import TfidfEncoder
from textcl.evaluation.encoding import cosine
from textcl.evaluation.label_free import (
    CRITERIA,
    LEAST_TEXTS,
    MOST_WORDS,
    alignment_uniformity,
    contrastive_loss,
    retrieval,
)
from textcl.files import append_result, file_hash
from textcl.runs.recipe import resolve
from textcl.runs.run import make_trainer, run_recipe

# effective rank sees a collapse alone, and what is left of a collapsed encoder may still weigh words well
BLIND = {("shuffled", "effective_rank"), ("collapsed", "word_weights")}


class Placed:
    """Puts each text where a function says; counts what it is asked for."""

    def __init__(self, place):
        self.place, self.asked = place, []

    def encode(self, texts):
        self.asked.append(list(texts))
        return np.array([self.place(text) for text in texts], dtype=np.float32)


def numbered(count, words=12):
    """Texts whose words bear the text's number, so that any part of one says which it is."""
    return [" ".join(f"w{number}x{place}" for place in range(words)) for number in range(count)]


def of_number(count):
    return lambda text: np.eye(count)[int(text.split()[0].removeprefix("w").split("x")[0])]


def shares_of(evaluator):
    """What share of its words each shortened text has kept."""
    pairs = zip(evaluator._views["text"], evaluator._views["shortened"], strict=True)
    return [len(some.split()) / len(text.split()) for text, some in pairs]


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


# -- closed forms -----------------------------------------------------------------------------------------------------


def test_retrieval_is_that_of_a_loop_over_ranks():
    generator = torch.Generator().manual_seed(0)
    first, second = (unit(torch.randn(1100, 6, generator=generator)) for _ in range(2))  # more rows than a chunk
    second = unit(first + 0.7 * second)
    cosines = (first @ second.T).numpy()
    found = []
    for side in (cosines, cosines.T):
        for number, row in enumerate(side):
            found.append(1 / (1 + sum(value > row[number] for value in row)))
    assert retrieval(first, second) == pytest.approx(100 * np.mean(found), rel=1e-3)


@pytest.mark.parametrize("count", [10, 40])
def test_perfect_and_collapsed_rows_have_the_scores_that_theory_says(count):
    eye, same = torch.eye(count), unit(torch.ones(count, count))
    assert retrieval(eye, eye) == 100
    assert retrieval(same, same) == pytest.approx(200 / (count + 1)), "ties share their mean rank"
    turned = eye.roll(1, dims=0)  # another's place: one row above the own, the others level with it
    assert retrieval(eye, turned) == pytest.approx(100 / (2 + (count - 2) / 2))
    assert contrastive_loss(eye, eye) == pytest.approx(-math.log1p((2 * count - 2) * math.exp(-20)), abs=1e-6)
    assert contrastive_loss(same, same) == pytest.approx(-math.log(2 * count - 1), rel=1e-5)
    assert alignment_uniformity(same, same) == pytest.approx(0, abs=1e-5)
    pairs, far = 2 * count * (2 * count - 1) / 2, math.exp(-4)
    expected = math.log((count + (pairs - count) * far) / pairs)  # each row's other view is at distance 0
    assert alignment_uniformity(eye, eye) == pytest.approx(-expected, rel=1e-5)


def test_an_encoder_that_knows_each_text_is_perfect_and_one_that_knows_none_is_at_chance():
    count = 30
    names = ["halves", "unlike_halves", "dropped_words", "neighbours", "loss", "effective_rank"]
    knows = LabelFree(numbered(count), names)(Placed(of_number(count))).scores
    assert [knows[name] for name in names[:3]] == [100, 100, 100]
    assert knows["effective_rank"] == pytest.approx(count, rel=1e-4)
    assert knows["neighbours"] == pytest.approx(200 / (count / 2 + 1)), "it knows nothing of the order"
    topics = LabelFree(numbered(count), "neighbours")(Placed(lambda text: of_number(count)(text).reshape(-1, 2).sum(1)))
    assert topics.primary == 100
    blind = LabelFree(numbered(count), names)(Placed(lambda text: np.ones(5))).scores
    assert [blind[name] for name in names[:3]] == pytest.approx([200 / (count + 1)] * 3)
    assert blind["effective_rank"] == pytest.approx(1, rel=1e-4)


def test_overlap_is_perfect_for_tfidf_and_weights_are_its_lead_over_counts(shared_data):
    texts = list(islice(read_texts(shared_data / "wiki100k_like.txt.xz"), 200))
    evaluator = LabelFree(texts, ["overlap", "word_weights"])
    tfidf = TfidfEncoder(evaluator.texts)
    weighs = evaluator(tfidf).scores
    assert weighs["overlap"] == pytest.approx(100)
    whole, shortened, shares = evaluator._views["text"], evaluator._views["shortened"], shares_of(evaluator)
    by_words = cosine(tfidf.encode(whole), tfidf.encode(shortened))
    assert weighs["word_weights"] == pytest.approx(100 - 100 * spearmanr(by_words, shares).statistic)
    assert 2 < weighs["word_weights"] < 50
    turned = dict(zip(shortened, shares, strict=True))

    def counts(text):  # its cosine with the whole text is the share of the words
        angle = math.acos(turned.get(text, 1.0))
        return math.cos(angle), math.sin(angle)

    assert evaluator(Placed(counts)).scores["word_weights"] == pytest.approx(-weighs["word_weights"], abs=0.2)
    assert evaluator(Placed(lambda text: np.ones(5))).scores == {"overlap": 0, "word_weights": 0}


# -- what is compared -------------------------------------------------------------------------------------------------


def test_only_the_views_asked_for_are_encoded_once_and_together():
    encoder = Placed(of_number(20))
    texts = numbered(20)
    alone = LabelFree(texts, "halves")(encoder)
    assert len(encoder.asked) == 1
    halves = [" ".join(part) for text in texts for part in (text.split()[:6], text.split()[6:])]
    assert sorted(encoder.asked[0]) == sorted(halves)
    together = LabelFree(texts, CRITERIA)(encoder)
    assert len(encoder.asked) == 2
    assert len(set(encoder.asked[1])) == len(encoder.asked[1])
    assert list(together.scores) == list(CRITERIA)
    assert together.primary == together.scores["halves"] == alone.primary


def test_the_same_seed_asks_the_same_and_another_does_not():
    def asked(seed):
        encoder = Placed(of_number(20))
        LabelFree(numbered(20), ["dropped_words", "word_weights"], seed)(encoder)
        return encoder.asked

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)


def test_views_are_what_they_are_called():
    texts = ["The cat sat, and THE dog sat down there", *numbered(20), *numbered(1, 500), "three words only"]
    evaluator = LabelFree([*texts, *texts], CRITERIA)
    assert len(evaluator.texts) == 22
    views = evaluator._views
    assert (views["first_half"][0], views["second_half"][0]) == ("The cat sat, and", "THE dog sat down there")
    assert views["unlike_half"][0] == "dog down there"
    assert len(evaluator.texts[-1].split()) == MOST_WORDS
    assert (views["even"], views["odd"]) == (evaluator.texts[::2], evaluator.texts[1::2])
    for text, some in zip(evaluator.texts, views["some_words"], strict=True):
        kept = iter(text.split())
        assert all(word in kept for word in some.split()), "in their order"
        assert len(some.split()) == round(len(text.split()) / 3)
    assert all(left != right for left, right in zip(views["left"], views["right"], strict=True))
    shares = shares_of(evaluator)
    assert min(shares) < 0.4
    assert 0.7 < max(shares) <= 1


@pytest.mark.parametrize(
    ("texts", "criterion", "message"),
    [
        (numbered(20), "halfs", "no criterion 'halfs'.*Did you mean 'halves'"),
        (numbered(LEAST_TEXTS - 1), "halves", "needs at least 10 different texts of at least 4 words, but only 9"),
        (["the same text again"] * 50, "halves", "only 1 of the held-out texts"),
        (["three words only"] * 50, "halves", "only 0 of the held-out texts"),
    ],
)
def test_what_cannot_be_scored_is_refused(texts, criterion, message):
    with pytest.raises(InputError, match=message):
        LabelFree(texts, criterion)


# -- negative controls ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controls(shared_data):
    """Every criterion of the bundled encoder, of one whose words are exchanged, and of one that has collapsed."""
    texts = list(islice(read_texts(shared_data / "wiki100k_like.txt.xz"), 60_000, 60_080))
    evaluator = LabelFree(texts, CRITERIA)
    sound = Encoder.from_pretrained("bundled", max_length=32, device="cpu")
    shuffled = copy.deepcopy(sound)
    with torch.no_grad():
        weight = shuffled.word_embeddings.weight
        weight.copy_(weight[torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))])

    class Collapsed:
        def encode(self, texts):
            rows = sound.encode(texts)
            return rows.mean(axis=0) + 1e-3 * (rows - rows.mean(axis=0)) * (np.arange(rows.shape[1]) < 4)

    return {"sound": evaluator(sound), "shuffled": evaluator(shuffled), "collapsed": evaluator(Collapsed())}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("control", ["shuffled", "collapsed"])
def test_an_encoder_made_worse_scores_worse(controls, control, criterion):
    worse = controls[control].scores[criterion] < controls["sound"].scores[criterion]
    assert worse or (control, criterion) in BLIND


# -- held-out rows ----------------------------------------------------------------------------------------------------


def test_held_out_are_the_last_rows_that_training_does_not_hold():
    rows = [*TEXTS[:20], TEXTS[3], TEXTS[30], TEXTS[31], TEXTS[30]]
    train, held_out = hold_out(load_texts(rows), 4)
    assert train["text"] == TEXTS[:20]
    assert held_out == [TEXTS[30], TEXTS[31]]
    pairs = load_triplets([{"a": TEXTS[n], "b": TEXTS[n + 2]} for n in range(20)], columns=("a", "b"))
    assert hold_out(pairs, 3)[1] == [TEXTS[19]]  # two texts are positives of rows to train on
    assert len(hold_out(load_texts(TEXTS[:200]))[1]) == 20
    with pytest.raises(InputError, match="24 rows cannot be held out: the corpus has 24 rows"):
        hold_out(load_texts(rows), 24)
    with pytest.raises(InputError, match="0 rows cannot"):
        hold_out(load_texts(TEXTS[:9]))
    with pytest.raises(InputError, match="also occur in the rows to train on"):
        hold_out(load_texts(rows[:21]), 1)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_free")
    tiny_encoder_directory(folder / "bert")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    pairs = [f"{a}\t{b}" for a, b in zip(TEXTS[:100], TEXTS[100:200], strict=True)]
    (folder / "pairs.tsv").write_text("\n".join(["text\tpositive", *pairs]) + "\n")
    return folder


def recipe_of(work, output, **more):
    own = {
        "per_device_train_batch_size": 16,
        "dev": "halves",
        "held_out": 40,
        "max_steps": 12,
        "eval_steps": 4,
        "save_steps": 4,
        "learning_rate": 1e-3,
    }
    flags = small_run(work, output, **{**own, **more})
    return resolve({key: value for key, value in flags.items() if value is not None})[0]


def test_a_run_is_chosen_by_a_criterion_and_says_so(work, tmp_path):
    result = run_recipe(recipe_of(work, tmp_path / "run"))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [line["eval_halves"] for line in log if "eval_halves" in line]
    assert len(scores) == 4
    dev = result.record.dev
    assert (dev.set, dev.before, dev.highest) == ("halves", scores[0], max(scores[1:]))
    assert dev.score == scores[dev.step // 4]
    assert "halves follows neither clusters nor search" in dev.sentence()
    assert (result.record.data.rows, result.record.data.held_out) == (len(TEXTS) - 40, 40)
    again = LabelFree(TEXTS[-40:], "halves")(Encoder.from_pretrained(result.export, device="cpu")).primary
    assert again == pytest.approx(dev.score, abs=1e-4)


def test_early_stopping_waits_for_the_criterion(work, tmp_path):
    """At a ruinous rate the untouched encoder is the best, whichever way it is measured."""
    recipe = recipe_of(work, tmp_path / "run", learning_rate=0.5, max_steps=40, early_stopping_patience=2)
    record = run_recipe(recipe).record
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scores = [line["eval_halves"] for line in log if "eval_halves" in line]
    assert record.steps == 4 * (len(scores) - 1) < 40
    assert len(scores) - 1 - scores.index(max(scores)) == 2


def test_held_out_rows_are_never_trained_on(work, tmp_path):
    trainer, held_out = make_trainer(recipe_of(work, tmp_path / "a", limit=100, held_out=20))
    assert trainer.train_dataset["text"] == TEXTS[:80], "the limit comes first"
    assert held_out == trainer.evaluators[0].texts == [" ".join(text.split()) for text in TEXTS[80:100]]
    trainer, held_out = make_trainer(
        recipe_of(work, tmp_path / "b", data=str(work / "pairs.tsv"), column="text,positive", held_out=None)
    )
    assert trainer.train_dataset["positive"] == TEXTS[100:190]
    assert held_out == TEXTS[90:100]
    trainer, _ = make_trainer(recipe_of(work, tmp_path / "c", text_view="crop"))
    assert len(trainer.train_dataset) == len(TEXTS) - 40
    with pytest.raises(InputError, match=r"--held-out can be used only if --dev is one of halves"):
        make_trainer(recipe_of(work, tmp_path / "d", dev="none"))
    with pytest.raises(InputError, match=r"halfs is neither a file of labelled pairs, nor beir:FOLDER, nor one of"):
        make_trainer(recipe_of(work, tmp_path / "e", dev="halfs", held_out=None))


def test_the_criterion_and_its_texts_decide_the_fingerprint(work, tmp_path):
    prints = [
        recipe_of(work, tmp_path, **more).fingerprint()
        for more in ({}, {"dev": "loss"}, {"held_out": 41}, {"dev": "none", "held_out": None})
    ]
    assert len(set(prints)) == 4


def test_resume_keeps_the_choice(work, tmp_path, monkeypatch):
    """Stopped after the best encoder, which is the untouched one, and gone on with to the same choice and weights."""
    options = {"learning_rate": 0.5, "bf16": False}
    whole = run_recipe(recipe_of(work, tmp_path / "whole", **options))
    recipe = recipe_of(work, tmp_path / "run", **options)
    run_until_killed(recipe, 6, monkeypatch)
    resumed = run_recipe(recipe, resume=True)
    assert resumed.record.resumed
    assert json.loads((tmp_path / "run" / "best" / "best.json").read_text())["step"] == 0
    assert resumed.record.dev == whole.record.dev
    assert file_hash(resumed.export / "model.safetensors") == file_hash(whole.export / "model.safetensors")


# -- the benchmark ----------------------------------------------------------------------------------------------------


def checkpoints(**scores):
    averages = scores.pop("average")
    rows = [dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)]
    return [{"average": average, "scores": row} for average, row in zip(averages, rows, strict=True)]


def test_figures_of_the_benchmark_are_those_worked_out_by_hand():
    runs = {
        "a": checkpoints(average=[50, 52, 51], dev=[1, 3, 2], odd=[3, 1, 2]),
        "b": checkpoints(average=[50, 54, 53], dev=[1, 5, 6], odd=[3, 4, 5]),
    }
    found = figures(runs)
    assert found["dev"]["within"] == pytest.approx([100, 50])
    assert found["odd"]["within"] == pytest.approx([-100, 50])
    assert found["dev"]["chosen"] == [52, 53]
    assert found["odd"]["chosen"] == [50, 53]
    assert (found["last"]["chosen"], found["best"]["chosen"]) == ([51, 53], [52, 54])
    assert found["dev"]["pooled"] == pytest.approx(90), "of five: the untouched encoder counts once"
    assert "52.50" in report(runs)


def test_figures_of_other_criteria_are_not_mixed_in(tmp_path):
    line = {"recipe": "a", "fingerprint": "f", "step": 0, **checkpoints(average=[50], dev=[1])[0]}
    append_result(tmp_path / "checkpoints.jsonl", line)
    with pytest.raises(InputError, match="other criteria"):
        read_runs(tmp_path / "checkpoints.jsonl")


@pytest.mark.slow
def test_the_benchmark_measures_every_checkpoint_and_does_nothing_twice(work, evaluation_sets, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    flags = ["--model", work / "bert", "--data", "texts.txt", "--limit", "160", "--eval_steps", "5", "--max_steps", "8"]
    flags += ["--per_device_train_batch_size", "16", "--texts", "texts.txt", "--output", "out"]
    command = [sys.executable, "-m", "benchmarks.label_free", "standard-simcse", *map(str, flags)]

    def output():
        variables = environment(TEXTCL_DATA=str(evaluation_sets))
        return subprocess.run(command, cwd=tmp_path, env=variables, check=True, stdout=subprocess.PIPE).stdout

    first = output()
    (steps,) = ([c["step"] for c in each] for each in read_runs(tmp_path / "out" / "checkpoints.jsonl").values())
    assert steps == [0, 5, 8]
    lines = (tmp_path / "out" / "checkpoints.jsonl").read_text()
    assert output() == first
    assert (tmp_path / "out" / "checkpoints.jsonl").read_text() == lines
    assert not any(Path(tmp_path / "out" / "runs").iterdir())
