"""The floor: the untouched encoder is scored first, and a checkpoint must be better by more than the error."""

import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from safetensors.torch import load_file
from scipy.stats import spearmanr
from support.comparison import line, record_of
from support.runs import run_until_killed, small_run
from support.tiny import OBJECTS, SUBJECTS, TEXTS, VERBS, HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import LabelFree, LabelledPairs, STSSuite
from textcl.evaluation.label_free import CRITERIA
from textcl.evaluation.retrieval import Retrieval
from textcl.evaluation.significance import SAMPLES, resamples
from textcl.files import file_hash
from textcl.methods import SCCL, SimCSE
from textcl.report.tables import comparison, comparison_table
from textcl.runs.recipe import resolve
from textcl.runs.record import RunRecord
from textcl.runs.run import run_recipe
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.selection import Selection, select
from textcl.training.trainer import ContrastiveTrainer


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, rows whose positives have the same object, and pairs that are scored by that."""
    folder = tmp_path_factory.mktemp("floor")
    tiny_encoder_directory(folder / "bert")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    same = [
        f"{a} {v} {o}\t{b} {w} {o}"
        for a, b in zip(SUBJECTS, SUBJECTS[1:] + SUBJECTS[:1], strict=True)
        for v, w in zip(VERBS, VERBS[1:] + VERBS[:1], strict=True)
        for o in OBJECTS
    ]
    (folder / "rows.tsv").write_text("\n".join(["text\tpositive", *same]) + "\n")
    texts = [f"{SUBJECTS[i % 6]} {VERBS[i % 8]} {OBJECTS[(i // 2) % 6]}" for i in range(24)]
    pairs = [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    scored = [f"{a}\t{b}\t{5 * (a.split()[-2:] == b.split()[-2:])}" for a, b in pairs]
    (folder / "pairs.tsv").write_text("\n".join(scored) + "\n")
    return folder


def recipe_of(work: Path, output: Path, **more: object):
    own = {
        "dev": str(work / "pairs.tsv"),
        "per_device_train_batch_size": 12,
        "max_steps": 12,
        "eval_steps": 4,
        "save_steps": 4,
        "learning_rate": 3e-3,
        "bf16": False,
    }
    flags = small_run(work, output, **{**own, **more})
    return resolve({key: value for key, value in flags.items() if value is not None})[0]


def helpful(work: Path) -> dict[str, object]:
    return {"data": str(work / "rows.tsv"), "column": "text,positive", "max_steps": 24}


RUINOUS = {"learning_rate": 0.5}


# -- what is exported -------------------------------------------------------------------------------------------------


def test_training_that_makes_things_worse_exports_the_untouched_encoder_bit_for_bit(work, tmp_path, capsys, caplog):
    untouched = Encoder.from_pretrained(work / "bert", device="cpu")
    untouched.save(tmp_path / "untouched")
    flags = [f"--{key}={value}" for key, value in recipe_of(work, tmp_path / "run", **RUINOUS).flags.items()
             if key in ("model", "data", "output", "dev", "per_device_train_batch_size", "max_steps", "eval_steps",
                        "learning_rate")]  # fmt: skip
    assert main(["train", "simcse", *flags]) == 0
    export = tmp_path / "run" / "export"
    assert file_hash(export / "model.safetensors") == file_hash(tmp_path / "untouched" / "model.safetensors")
    exported = Encoder.from_pretrained(export, device="cpu")
    assert (exported.encode(TEXTS[:20]) == untouched.encode(TEXTS[:20])).all()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    before = LabelledPairs(work / "pairs.tsv")(untouched).primary
    assert last.startswith(f"pairs: {before:.1f} before, {before:.1f} after (the untouched encoder: no checkpoint was")
    assert "Training did not help" in caplog.text
    assert last.removesuffix(".") in (export / "README.md").read_text()
    record = RunRecord.read(tmp_path / "run")
    assert (record.dev.step, record.dev.score, record.dev.before) == (0, record.dev.before, pytest.approx(before))
    assert record.dev.highest <= before + record.dev.error
    assert json.loads((tmp_path / "run" / "best" / "best.json").read_text())["step"] == 0


def test_training_that_helps_exports_the_best_checkpoint(work, tmp_path):
    result = run_recipe(recipe_of(work, tmp_path / "run", **helpful(work)))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    scored = {entry["step"]: entry for entry in log if "eval_pairs" in entry}
    scores = {step: entry["eval_pairs"] for step, entry in scored.items()}
    dev = result.record.dev
    assert next(iter(scores)) == 0
    assert dev.before == scores[0] < scores[0] + scored[dev.step]["eval_pairs_error"] < dev.score
    assert (dev.score, dev.highest) == (max(scores.values()), max(scores.values()))
    assert scores[dev.step] == dev.score
    assert (
        dev.sentence()
        == f"pairs: {dev.before:.1f} before, {dev.score:.1f} after (step {dev.step}, chosen on these data)"
    )
    exported = Encoder.from_pretrained(result.export, device="cpu")
    assert LabelledPairs(work / "pairs.tsv")(exported).primary == pytest.approx(dev.score, abs=1e-4)
    assert f"{dev.sentence()}." in (result.export / "README.md").read_text()


def test_without_a_choice_the_trained_encoder_is_exported_and_harm_is_visible(work, tmp_path):
    result = run_recipe(recipe_of(work, tmp_path / "run", select_best=False, max_steps=4, **RUINOUS))
    dev = result.record.dev
    assert dev.step == 4
    assert dev.score < dev.before
    assert dev.sentence().endswith("after (step 4, the last one: nothing was chosen)")
    unmeasured = run_recipe(recipe_of(work, tmp_path / "none", dev="none", max_steps=4, **RUINOUS))
    assert unmeasured.record.dev is None
    assert unmeasured.record.verdict().startswith("Nothing was measured")
    assert file_hash(unmeasured.export / "model.safetensors") == file_hash(result.export / "model.safetensors")


@pytest.mark.parametrize("options", [{"test_pooling": "mean"}, {"head": "keep", "pooling": "pooler"}])
def test_the_start_is_scored_as_it_would_be_exported(options, work, tmp_path):
    options = {"pooling": "cls", **options}
    result = run_recipe(recipe_of(work, tmp_path / "run", max_steps=4, **options, **RUINOUS))
    exported = Encoder.from_pretrained(result.export, device="cpu")
    assert result.record.dev.step == 0
    assert LabelledPairs(work / "pairs.tsv")(exported).primary == pytest.approx(result.record.dev.before, abs=1e-6)
    assert result.record.encoder["pooling"] == options.get("test_pooling", options.get("pooling"))


@pytest.mark.parametrize("method", ["bert-ct", "moco"])
def test_every_kind_of_method_has_the_floor(method, work, tmp_path):
    sizes = {"moco": {"queue_size": 24}, "bert-ct": {"per_device_train_batch_size": 16}}
    options = {**sizes[method], **RUINOUS, "max_steps": 4}
    record = run_recipe(recipe_of(work, tmp_path / "run", method=method, **options)).record
    assert record.dev.step == 0
    # loaded, because transformers 5.4 writes the names LayerNorm.gamma and LayerNorm.beta
    weights = Encoder.from_pretrained(tmp_path / "run" / "export").backbone.state_dict()
    start = load_file(work / "bert" / "model.safetensors")
    assert all((value == start[f"bert.{name}"]).all() for name, value in weights.items() if "pooler" not in name)


def test_sccl_scores_how_training_goes_on_and_has_no_floor(work, tmp_path):
    encoder = Encoder.from_pretrained(work / "bert", device="cpu")
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"), per_device_train_batch_size=16, max_steps=4, eval_steps=2
    )
    trainer = ContrastiveTrainer(SCCL(encoder, clusters=3), args, Dataset.from_dict({"text": TEXTS}))
    trainer.train()
    steps = [entry["step"] for entry in trainer.state.log_history if "eval_unchanged" in entry]
    assert steps[0] == 2
    assert trainer.selection.before is None
    assert trainer.selection.sentence().startswith("unchanged: ")
    assert "the untouched encoder was not scored" in trainer.selection.sentence()


# -- the rule ---------------------------------------------------------------------------------------------------------


def entries(*scores, errors=None):
    log = [{"eval_pairs": score, "step": 4 * number} for number, score in enumerate(scores)]
    for entry, error in zip(log[1:], errors or [], strict=False):
        entry["eval_pairs_error"] = error
    return [{"loss": 1.0, "step": 1}, *log]


@pytest.mark.parametrize(
    ("scores", "errors", "step"),
    [
        ((50, 51, 52), [0.5, 0.5], 8),
        ((50, 50.4, 50.5), [0.5, 0.5], 0),  # better, but not by more than the error
        ((50, 51, 52), [0.5, 3.0], 4),  # the higher one is not better by more than its own error
        ((50, 52, 51.9), [0.5, 0.1], 4),
        ((50, 52, 52), [0.5, 0.5], 4),  # the first of equal ones
        ((50, math.nan, 49), [0.5, 0.5], 0),
        ((math.nan, 1, 2), [0.5, 0.5], 8),
        ((50, 50.001), None, 4),  # an evaluator without an error
        ((50, 50), None, 0),
        ((50,), None, 0),
    ],
)
def test_a_checkpoint_replaces_the_start_only_by_more_than_the_error(scores, errors, step):
    found = select(entries(*scores, errors=errors), "eval_pairs")
    assert (found.step, found.set) == (step, "pairs")
    assert found.score == scores[step // 4] or math.isnan(found.score)


def test_sentences():
    stsb = Selection("stsb-dev", 80.12, 400, before=78.9, highest=80.12, error=0.4)
    assert stsb.sentence() == "stsb: 78.9 before, 80.1 after (step 400, chosen on these data)"
    kept = Selection("stsb-dev", 78.9, 0, before=78.9, highest=79.1, error=0.34)
    assert kept.sentence() == (
        "stsb: 78.9 before, 78.9 after (the untouched encoder: no checkpoint was better by more than the error of the "
        "difference, 0.34; the highest score was 79.1)"
    )
    halves = Selection("halves", 3.44, 300, before=3.60, chosen=False)
    assert halves.sentence() == (
        "halves: 3.60 before, 3.44 after (step 300, the last one: nothing was chosen); halves follows neither clusters "
        "nor search"
    )
    assert "80.12 before, 80.14 after" in Selection("pairs", 80.14, 4, before=80.12).sentence()


def test_early_stopping_counts_the_start(work, tmp_path):
    record = run_recipe(recipe_of(work, tmp_path / "run", max_steps=40, early_stopping_patience=2, **RUINOUS)).record
    assert record.steps == 8  # the evaluations at 4 and 8 were not better than that at 0
    assert record.dev.step == 0


def test_an_evaluator_without_a_score_is_refused_before_the_first_step(work, tmp_path):
    def scored(encoder):
        return {"primary": 1.0}

    scored.name = "mine"
    args = ContrastiveTrainingArguments(str(tmp_path / "run"), per_device_train_batch_size=8, max_steps=2)
    encoder = Encoder.from_pretrained(work / "bert", device="cpu")
    trainer = ContrastiveTrainer(SimCSE(encoder), args, Dataset.from_dict({"text": TEXTS[:32]}), evaluators=[scored])
    with pytest.raises(InputError, match=r"The evaluator mine returned dict; .* attribute `primary` is a number"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_table_says_which_rows_are_the_untouched_encoder():
    """Else a recipe that harms would look like one that does nothing."""
    devs = [
        {"set": "stsb-dev", "score": 66.5, "before": 66.5, "step": 0, "chosen": True},
        {"set": "stsb-dev", "score": 67.5, "before": 66.5, "step": 100, "chosen": True},
        {"set": "stsb-dev", "score": 50.0, "before": 66.5, "step": 0, "chosen": False},
    ]
    lines = [line("untouched", None, 60.0)]
    lines += [{**line("a", seed, 60.0 + seed), "run": record_of(seed, dev=dev)} for seed, dev in enumerate(devs)]
    lines += [{**line("b", seed, 61.0), "run": record_of(seed, dev=devs[1])} for seed in range(2)]
    figures = comparison(lines)
    assert [row["untouched"] for row in figures["rows"].values()] == [[], [0], []]
    assert "whose scores are those of the untouched encoder: a (1 of 3). --select-best false" in comparison_table(
        figures
    )


# -- the error of a difference ----------------------------------------------------------------------------------------


class Rows:
    """Encodes each text by the rows of a table."""

    def __init__(self, seed: int, noise: float = 0.5) -> None:
        self.seed, self.noise = seed, noise

    def encode(self, texts):
        words = HashedWords().encode(texts)
        noise = [np.random.default_rng([self.seed, *text.encode()]).normal(size=words.shape[1]) for text in texts]
        return (words + self.noise * np.array(noise)).astype(np.float32)


def drawn(count: int) -> list[np.ndarray]:
    """The items of each bootstrap sample, drawn as the definition says."""
    generator = np.random.default_rng(0)
    return [generator.integers(count, size=count) for _ in range(SAMPLES)]


def test_the_error_of_pairs_is_that_of_a_loop_over_samples(work):
    evaluator = LabelledPairs(work / "pairs.tsv")
    before, after = evaluator(Rows(1)), evaluator(Rows(2, noise=0.1))
    gold = np.array(evaluator.tasks["pairs"][0].scores)
    differences = [
        100 * (spearmanr(after.items[rows], gold[rows]).statistic - spearmanr(before.items[rows], gold[rows]).statistic)
        for rows in drawn(len(gold))
    ]
    assert evaluator.error_of_difference(before.items, after.items) == pytest.approx(np.std(differences, ddof=1))
    assert evaluator.error_of_difference(before.items, before.items) == 0
    assert before.primary == pytest.approx(100 * spearmanr(before.items, gold).statistic)


def test_the_error_of_several_tasks_is_that_of_their_average(evaluation_sets):
    suite = STSSuite(["STS14", "STSBenchmark-dev"], evaluation_sets)
    before, after = suite(HashedWords()), suite(Rows(3))
    parts = np.split(before.items, [3750]), np.split(after.items, [3750])
    golds = [np.concatenate([subset.scores for subset in subsets]) for subsets in suite.tasks.values()]
    total = np.zeros(10)
    for gold, first, second in zip(golds, *parts, strict=True):
        for number, rows in enumerate(drawn(len(gold))[:10]):
            by = [spearmanr(side[rows], gold[rows]).statistic for side in (first, second)]
            total[number] += 100 * (by[1] - by[0]) / 2
    error = suite.error_of_difference(before.items, after.items)
    assert 0.1 < error < 2
    assert np.std(total, ddof=1) == pytest.approx(error, rel=0.8)  # ten of the samples


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_error_of_a_label_free_criterion(criterion):
    """The same texts in every sample give the score itself; the error of a mean is sd / √n."""
    texts = [f"{text} and {other} again" for text, other in zip(TEXTS[:60], TEXTS[100:160], strict=True)]
    evaluator = LabelFree(texts, criterion)
    before, after = evaluator(HashedWords()), evaluator(Rows(1))
    given = evaluator._given.get(criterion, ())
    for found in (before, after):
        once = np.ones((1, len(found.items) // (2 if criterion == "overlap" else 1)), dtype=int)
        assert CRITERIA[criterion].of_samples(found.items, once, *given) == pytest.approx(found.primary, rel=1e-3)
    error = evaluator.error_of_difference(before.items, after.items)
    assert error > 0
    assert evaluator.error_of_difference(after.items, after.items) == 0
    if before.items.ndim == 1 and criterion not in ("overlap", "word_weights"):
        differences = after.items - before.items
        assert error == pytest.approx(np.std(differences) / math.sqrt(len(differences)), rel=0.2)
        exact = np.std([differences[rows].mean() for rows in drawn(len(differences))], ddof=1)
        assert error == pytest.approx(exact)


@pytest.mark.parametrize("criterion", ["overlap", "word_weights"])
def test_a_text_is_drawn_with_all_its_pairs(criterion):
    """The pairs of overlap are those with random texts, then those with the nearest ones."""
    texts = [f"{text} and {other} again" for text, other in zip(TEXTS[:60], TEXTS[100:160], strict=True)]
    evaluator = LabelFree(texts, criterion)
    before, after = evaluator(HashedWords()).items, evaluator(Rows(1)).items
    by_words, *share = evaluator._given[criterion]

    def score(items, rows):
        found = spearmanr(items[rows], by_words[rows]).statistic
        return 100 * (found - spearmanr(items[rows], share[0][rows]).statistic if share else found)

    rounds = len(before) // 60
    samples = [np.concatenate([rows + 60 * number for number in range(rounds)]) for rows in drawn(60)]
    assert len(samples[0]) == len(before) == 60 * (2 if criterion == "overlap" else 1)
    exact = np.std([score(after, rows) - score(before, rows) for rows in samples], ddof=1)
    assert evaluator.error_of_difference(before, after) == pytest.approx(exact)


def test_effective_rank_and_uniformity_in_a_sample_are_those_of_repeated_rows():
    rows = np.random.default_rng(0).normal(size=(12, 2, 5))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    counts = resamples(12)[:4]
    ranks = CRITERIA["effective_rank"].of_samples(rows[:, :1], counts)
    evenness = CRITERIA["alignment_uniformity"].of_samples(rows, counts)
    for rank, even, count in zip(ranks, evenness, counts, strict=True):
        repeated = np.repeat(np.arange(12), count)
        values = np.linalg.svd(rows[repeated, 0], compute_uv=False)
        shares = values[values > 1e-9] / values.sum()
        assert rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        flat, which = np.concatenate(rows[repeated].transpose(1, 0, 2)), np.concatenate([repeated, repeated + 12])
        kernel = [
            math.exp(-2 * ((flat[i] - flat[j]) ** 2).sum())
            for i in range(24)
            for j in range(24)
            if which[i] != which[j]
        ]
        alignment = ((rows[repeated, 0] - rows[repeated, 1]) ** 2).sum(axis=1).mean()
        assert even == pytest.approx(-(alignment + math.log(np.mean(kernel))))


def test_the_error_of_retrieval_is_over_queries():
    documents = {str(number): text for number, text in enumerate(TEXTS[:60])}
    queries = {f"q{number}": " ".join(text.split()[1:]) for number, text in enumerate(TEXTS[:30])}
    evaluator = Retrieval(queries, documents, {f"q{number}": {str(number): 1} for number in range(30)})
    before, after = evaluator(HashedWords()), evaluator(Rows(1))
    assert after.items.mean() == pytest.approx(after.primary)
    exact = np.std([(after.items - before.items)[rows].mean() for rows in drawn(30)], ddof=1)
    assert exact > 0
    assert evaluator.error_of_difference(before.items, after.items) == pytest.approx(exact)


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ruinous", "helpful"])
def test_a_killed_run_that_is_resumed_selects_as_an_uninterrupted_one(kind, work, tmp_path, monkeypatch):
    options = RUINOUS if kind == "ruinous" else helpful(work)
    whole = run_recipe(recipe_of(work, tmp_path / "whole", **options))
    recipe = recipe_of(work, tmp_path / "run", **options)
    run_until_killed(recipe, 6, monkeypatch)
    resumed = run_recipe(recipe, resume=True)
    assert resumed.record.resumed
    assert resumed.record.dev == whole.record.dev
    assert (resumed.record.dev.step == 0) == (kind == "ruinous")
    assert file_hash(resumed.export / "model.safetensors") == file_hash(whole.export / "model.safetensors")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "eval_pairs" in entry].count(0) == 1


def test_a_run_that_goes_on_elsewhere_takes_the_best_encoder_along(work, tmp_path):
    dev = run_recipe(recipe_of(work, tmp_path / "run", **RUINOUS)).record.dev
    checkpoint = tmp_path / "run" / "checkpoint-8"
    elsewhere = recipe_of(work, tmp_path / "other", resume_from_checkpoint=str(checkpoint), **RUINOUS)
    result = run_recipe(elsewhere)
    assert (result.record.dev.step, result.record.dev.before) == (0, dev.before)
    assert file_hash(result.export / "model.safetensors") == file_hash(
        tmp_path / "run" / "best" / "encoder" / "model.safetensors"
    )
    shutil.rmtree(tmp_path / "run" / "best")  # the checkpoint has it too
    again = run_recipe(recipe_of(work, tmp_path / "third", resume_from_checkpoint=str(checkpoint), **RUINOUS))
    assert again.record.dev == result.record.dev
    assert file_hash(again.export / "model.safetensors") == file_hash(result.export / "model.safetensors")


# -- nothing to learn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "warned"), [(1e-4, True), (0.5, False)])
def test_a_loss_of_zero_from_the_first_step_on_is_said(temperature, warned, work, tmp_path, caplog):
    """At temperature 0.0001 and without dropout each text finds itself at once."""
    encoder = Encoder.from_pretrained(work / "bert", dropout=0.0, device="cpu")
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"), per_device_train_batch_size=4, max_steps=11, learning_rate=1e-9, bf16=False
    )
    rows = Dataset.from_dict({"text": TEXTS[:6] * 8, "positive": TEXTS[:6] * 8})
    method = SimCSE(encoder, temperature=temperature, mask_duplicates=True)
    with caplog.at_level(logging.WARNING, "textcl"):
        ContrastiveTrainer(method, args, rows).train()
    assert ("nothing to teach it" in caplog.text) == warned
    assert caplog.text.count("nothing to teach it") == int(warned)
