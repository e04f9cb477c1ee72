"""Fine-tuning: GLUE's files, a plain loop of transformers, the metrics, the cache, and what a difference is worth."""

import copy
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from support.tiny import HashedWords, tiny_encoder_directory
from transformers import AutoModel, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from textcl.cli.main import main
from textcl.data.glue import LAYOUTS, FinetuneTask, part, read_finetune
from textcl.data.transfer import Examples
from textcl.encoder import Encoder
from textcl.encoder.load import BUNDLED
from textcl.errors import InputError
from textcl.evaluation import Finetune, Result, evaluate, finetune
from textcl.evaluation.predictions import METRICS, over_examples, scores
from textcl.evaluation.significance import over_seeds
from textcl.evaluation.tuning import train_and_predict
from textcl.files import read_results

SKLEARN = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews": matthews_corrcoef,
    "pearson": lambda gold, found: stats.pearsonr(gold, found).statistic,
    "spearman": lambda gold, found: stats.spearmanr(gold, found).statistic,
}
MESSAGES = ("good", "bad")


# GLUE's files


def write_tsv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_glue(folder: Path, count: int = 60) -> Path:
    """All tasks in GLUE's columns, with texts whose label a word gives away."""
    labels = [i % 2 for i in range(count)]
    one = [f"a {MESSAGES[label]} film {i}" for i, label in enumerate(labels)]
    two = [f"it is {MESSAGES[label]}" for label in labels]
    entailment = ["not_entailment" if label else "entailment" for label in labels]
    three = [("contradiction", "neutral", "entailment")[i % 3] for i in range(count)]
    each = list(zip(range(count), labels, one, two, entailment, three, strict=True))
    tables: dict[str, tuple[list[str], list[list[object]]]] = {
        "CoLA": ([], [["gj04", y, "*" * (1 - y), a] for _, y, a, *_ in each]),
        "SST-2": (["sentence", "label"], [[a, y] for _, y, a, *_ in each]),
        "MRPC": (
            ["\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
            [[y, i, i, a, b] for i, y, a, b, *_ in each],
        ),
        "STS-B": (
            [
                "index",
                "genre",
                "filename",
                "year",
                "old_index",
                "source1",
                "source2",
                "sentence1",
                "sentence2",
                "score",
            ],
            [[i, "g", "f", 2012, i, "x", "y", a, b, f"{4.5 * y + 0.25:.3f}"] for i, y, a, b, *_ in each],
        ),
        "QQP": (
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            [[i, i, i, a, b, y] for i, y, a, b, *_ in each],
        ),
        "MNLI": (
            ["index", "promptID", "genre", "sentence1", "sentence2", "label1", "gold_label"],
            [[i, i, "g", a, b, "x", t] for i, _, a, b, _, t in each],
        ),
        "QNLI": (["index", "question", "sentence", "label"], [[i, a, b, e] for i, _, a, b, e, _ in each]),
        "RTE": (["index", "sentence1", "sentence2", "label"], [[i, a, b, e] for i, _, a, b, e, _ in each]),
    }
    for name, (header, rows) in tables.items():
        for split in ("train", *(("dev_matched", "dev_mismatched") if name == "MNLI" else ("dev",))):
            shown = rows if split == "train" else rows[:30]
            write_tsv(folder / name / f"{split}.tsv", [*([header] if header else []), *shown])
    return folder


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glue(tmp_path_factory.mktemp("GLUE"))


def test_every_task_of_glue_is_read(glue: Path) -> None:
    tasks = {task.name: task for task in read_finetune(f"glue:{glue}")}
    assert {name: (task.metrics, task.classes) for name, task in tasks.items()} == {
        "cola": (("matthews",), 2),
        "sst2": (("accuracy",), 2),
        "mrpc": (("accuracy", "f1"), 2),
        "stsb": (("pearson", "spearman"), 1),
        "qqp": (("accuracy", "f1"), 2),
        "mnli": (("accuracy",), 3),
        "qnli": (("accuracy",), 2),
        "rte": (("accuracy",), 2),
    }
    for name, task in tasks.items():
        assert task.train.first == [f"a {MESSAGES[i % 2]} film {i}" for i in range(60)], name
        single = name in ("cola", "sst2")
        assert task.train.second == ([] if single else [f"it is {MESSAGES[i % 2]}" for i in range(60)]), name
        assert list(task.scored) == (["dev_matched", "dev_mismatched"] if name == "mnli" else ["dev"])
        assert all(len(each) == 30 for each in task.scored.values())
    assert tasks["cola"].train.labels[:3] == tasks["mrpc"].train.labels[:3] == [0, 1, 0]
    assert tasks["stsb"].train.labels[:3] == [0.25, 4.75, 0.25]
    assert tasks["mnli"].train.labels[:4] == [0, 1, 2, 0]
    assert tasks["rte"].train.labels[:3] == [1, 0, 1]
    assert [task.name for task in read_finetune([f"glue:{glue / 'RTE'}"])] == ["rte"]
    assert len(tasks) == len(LAYOUTS)


def test_incomplete_lines_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_glue(tmp_path, 300)
    with (tmp_path / "QQP" / "train.tsv").open("a") as file:
        file.write("300\t1\t1\ta question that goes on\nin the next line\t1\n")
    (task,) = read_finetune(f"glue:{tmp_path / 'QQP'}")
    assert len(task.train) == 300
    assert "QQP/train.tsv: 2 lines have too few cells and are left out" in caplog.text


@pytest.mark.parametrize(
    ("task", "file", "content", "message"),
    [
        ("RTE", "dev.tsv", None, r"There is no file .*RTE/dev\.tsv"),
        ("RTE", "train.tsv", "sentence1\tsentence2\nx\ty\n", r"train\.tsv has no column 'label' in its first line"),
        (
            "RTE",
            "dev.tsv",
            "sentence1\tsentence2\tlabel\nx\ty\tmaybe\n",
            r"dev\.tsv, line 2: the label is 'maybe', but",
        ),
        (
            "STS-B",
            "dev.tsv",
            "sentence1\tsentence2\tscore\nx\ty\thigh\n",
            r"line 2: the label is 'high', but must be a n",
        ),
        ("STS-B", "dev.tsv", "sentence1\tsentence2\tscore\nx\ty\t1\n", "all scores of the dev split are equal"),
        ("CoLA", "train.tsv", "x\t1\n", r"train\.tsv: 1 of 1 lines have too few cells; it is damaged"),
        ("SST-2", "dev.tsv", "sentence\tlabel\nx\t1\n", "sst2: the dev split has no example of class 0"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, task: str, file: str, content: str | None, message: str) -> None:
    path = write_glue(tmp_path) / task / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_finetune(f"glue:{tmp_path / task}")


def test_wrong_tasks_are_refused(glue: Path, tmp_path: Path) -> None:
    for given, message in (
        ("mrcp", r"no task 'mrcp' to fine-tune on; there are mrpc, sst2 and glue:FOLDER\. Did you mean 'mrpc'\?"),
        (f"glue:{tmp_path}", "has no task of GLUE: it needs a folder CoLA"),
        (f"glue:{glue},glue:{glue / 'RTE'}", "The task rte was given twice"),
        ("mrpc", "MRPC is not installed"),
    ):
        with pytest.raises(InputError, match=message):
            read_finetune(given, tmp_path)
    for arguments, message in (
        ({"seeds": 0}, "seeds must be a whole number of at least 1"),
        ({"max_length": 1.5}, "max_length must be a whole number"),
        ({"examples": 20}, "rte has 20 examples to train on, but fine-tuning needs at least 50"),
    ):
        with pytest.raises(InputError, match=message):
            Finetune(f"glue:{glue / 'RTE'}", **arguments)


def test_some_of_the_examples_are_random_ones_in_their_order(glue: Path) -> None:
    (task,) = read_finetune(f"glue:{glue / 'MNLI'}")
    few, again, other = task.limited(20), task.limited(20), task.limited(20, seed=1)
    assert few == again != other
    rows = [task.train.first.index(text) for text in few.train.first]
    assert rows == sorted(np.random.default_rng(0).permutation(60)[:20].tolist())
    assert few.train == part(task.train, rows)
    assert few.scored == task.scored
    assert task.limited(60) is task


def test_the_sets_of_senteval(evaluation_sets: Path) -> None:
    mrpc, sst2 = read_finetune("mrpc, sst2", evaluation_sets)
    assert (len(mrpc.train), {split: len(each) for split, each in mrpc.scored.items()}) == (4076, {"test": 1725})
    assert (len(sst2.train), {split: len(each) for split, each in sst2.scored.items()}) == (5000, {"dev": 872})
    (again,) = read_finetune("sst2", evaluation_sets)
    (few,) = read_finetune("sst2", evaluation_sets, 100)
    (whole,) = read_finetune("sst2", evaluation_sets, 10**6)
    assert again == sst2
    assert (len(few.train), len(whole.train)) == (100, 67349)
    assert set(few.train.first) <= set(sst2.train.first) < set(whole.train.first)
    assert 0.5 < np.mean(sst2.train.labels) < 0.6  # of all sentences 55.8 % are positive
    assert len({task.data_sha256() for task in (mrpc, sst2, few, whole)}) == 4


# the training


class Plain(torch.nn.Module):
    """A backbone as transformers loads it, the mean over its tokens, dropout, and a linear layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.backbone = AutoModel.from_pretrained(
            BUNDLED, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, dtype=torch.float32
        )
        set_seed(1)
        self.layer = torch.nn.Linear(self.backbone.config.hidden_size, outputs)
        torch.nn.init.normal_(self.layer.weight, std=0.02)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, labels: Any = None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        tokens = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        mask = attention_mask[..., None]
        logits = self.layer((tokens * mask).sum(1) / mask.sum(1))
        if logits.shape[1] == 1:
            return {"loss": torch.nn.functional.mse_loss(logits[:, 0], labels), "logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def plain_predictions(train: Examples, scored: Examples, outputs: int, rate: float, folder: Path) -> np.ndarray:
    """A plain loop of transformers, without textcl: seed 1, three passes, batches of 32, rows of at most 40 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)

    def rows(examples: Examples) -> list[dict[str, Any]]:
        return [
            {**tokenizer(first, second, truncation=True, max_length=40), "labels": float(y) if outputs == 1 else y}
            for first, second, y in zip(examples.first, examples.second, examples.labels, strict=True)
        ]

    arguments = TrainingArguments(
        folder,
        seed=1,
        learning_rate=rate,
        num_train_epochs=3,
        per_device_train_batch_size=32,
        warmup_steps=1,  # a tenth of 6 steps
        weight_decay=0.01,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(
        Plain(outputs), arguments, train_dataset=rows(train), data_collator=DataCollatorWithPadding(tokenizer)
    )
    trainer.train()
    found: Any = trainer.predict(rows(scored)).predictions
    return found[:, 0] if outputs == 1 else found.argmax(axis=1)


@pytest.fixture(scope="module")
def short_pairs(evaluation_sets: Path) -> FinetuneTask:
    """The 64 shortest pairs of MRPC to train on, and 60 to score."""
    (task,) = read_finetune("mrpc", evaluation_sets)
    return FinetuneTask(
        "mrpc", task.metrics, 2, part(task.train, range(64)), {"test": part(task.scored["test"], range(60))}
    )


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [2, 1], ids=["classification", "regression"])
def test_a_plain_loop_of_transformers_gives_the_same(short_pairs: FinetuneTask, outputs: int, tmp_path: Path) -> None:
    """Without dropout, because textcl draws its own masks. A regression shows small differences."""
    train, scored = short_pairs.train, short_pairs.scored["test"]
    rate = 5e-5 if outputs == 1 else 5e-4  # with the higher rate both classes are predicted often
    encoder = Encoder.from_pretrained("bundled", dropout=0)
    found = train_and_predict(encoder, outputs, train, {"test": scored}, rate=rate, seed=1, max_length=40)["test"]
    expected = plain_predictions(train, scored, outputs, rate, tmp_path)
    if outputs == 1:
        assert np.allclose(found, expected, rtol=0, atol=2e-6)
        assert np.std(found) > 1e-2
    else:
        assert found == expected.tolist()
        assert 0 < np.mean(found) < 1
        once = scores(["accuracy", "f1"], scored.labels, found)
        assert once["accuracy"] == pytest.approx(100 * accuracy_score(scored.labels, expected))
        assert once["f1"] == pytest.approx(100 * f1_score(scored.labels, expected))


@pytest.fixture(scope="module")
def tuned(glue: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path, Result]:
    """The bundled encoder fine-tuned on GLUE's SST-2 of these tests with two seeds: encoder, cache and result."""
    cache = tmp_path_factory.mktemp("cache")
    encoder = Encoder.from_pretrained("bundled")
    return encoder, cache, Finetune(f"glue:{glue / 'SST-2'}", seeds=2, cache=cache)(encoder)


def test_the_result(tuned: tuple[Encoder, Path, Result]) -> None:
    _, _, result = tuned
    entry = result.results["finetune-sst2"]
    each = [accuracy_score(entry["labels"], found) * 100 for found in entry["predictions"].values()]
    assert list(entry["by_seed"]) == list(entry["predictions"]) == ["0", "1"]
    assert [scored["accuracy"] for scored in entry["by_seed"].values()] == pytest.approx(each)
    assert entry["score"] == result.primary == result.average["finetune"] == pytest.approx(np.mean(each))
    assert entry["over_seeds"]["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    by_rate = entry["chosen"]["by_rate"]
    assert list(by_rate) == ["2e-05", "3e-05", "5e-05"]
    assert entry["chosen"]["rate"] == float(max(by_rate, key=lambda rate: by_rate[rate]))
    lines = result.table().splitlines()
    assert lines[0].split() == ["Fine-tuning", "finetune", "sst2", "Avg."]
    rate = f"{entry['chosen']['rate']:g}"
    assert lines[-1].startswith(f"finetune sst2: accuracy {entry['score']:.2f} ± ")
    assert lines[-1].endswith(f"(mean ± sd of 2 seeds; rate {rate})")
    assert result.provenance["tasks"]["finetune-sst2"]["texts"] == {"train": 60, "dev": 30}
    json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_a_rate_is_chosen_on_a_tenth_that_is_not_trained_on(
    tuned: tuple[Encoder, Path, Result], glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _, _ = tuned
    seen: list[tuple[set[str], set[str], float, int]] = []

    def watched(_: Any, classes: int, train: Examples, scored: Any, *, rate: float, seed: int, **__: Any) -> Any:
        seen.append((set(train.first), {text for each in scored.values() for text in each.first}, rate, seed))
        right = rate == 3e-5  # only this rate predicts anything
        return {name: each.labels if right else [0] * len(each) for name, each in scored.items()}

    monkeypatch.setattr(finetune, "train_and_predict", watched)
    entry = Finetune(f"glue:{glue / 'SST-2'}", seeds=2)(encoder).results["finetune-sst2"]
    (task,) = read_finetune(f"glue:{glue / 'SST-2'}")
    everything = set(task.train.first)
    assert [(rate, seed) for *_, rate, seed in seen] == [(2e-5, 0), (3e-5, 0), (5e-5, 0), (3e-5, 0), (3e-5, 1)]
    for train, held_out, *_ in seen[:3]:
        assert (len(train), len(held_out)) == (54, 6)
        assert train | held_out == everything
        assert not train & held_out
    assert all(train == everything for train, *_ in seen[3:])
    assert entry["score"] == 100


def test_of_rates_with_equal_scores_the_lowest_is_chosen(glue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def right(*given: Any, **_: Any) -> dict[str, list[Any]]:
        return {name: each.labels for name, each in given[3].items()}

    monkeypatch.setattr(finetune, "train_and_predict", right)
    result = Finetune(f"glue:{glue / 'SST-2'}", seeds=1)(Encoder.from_pretrained("bundled"))
    chosen = result.results["finetune-sst2"]["chosen"]
    assert chosen == {"rate": 2e-5, "by_rate": {"2e-05": 100, "3e-05": 100, "5e-05": 100}}


def test_a_word_is_learnt_and_permuted_labels_are_not(glue: Path) -> None:
    """A word gives the label away. The negative control, with labels at random, is at chance on other examples."""
    (task,) = read_finetune(f"glue:{glue / 'SST-2'}")
    permuted = np.random.default_rng(1).permutation(task.train.labels).tolist()
    encoder = Encoder.from_pretrained("bundled")
    found = []
    for labels in (task.train.labels, permuted):
        train = Examples(task.train.first, [], labels)
        predicted = train_and_predict(encoder, 2, train, task.scored, rate=5e-4, seed=0, max_length=128)["dev"]
        found.append(scores(["accuracy"], task.scored["dev"].labels, predicted)["accuracy"])
    assert found[0] > 90
    assert 10 < found[1] < 90


@pytest.mark.slow
def test_neither_the_encoder_nor_the_users_generators_are_changed(glue: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "bert"))
    before, fingerprint = copy.deepcopy(encoder.state_dict()), encoder.fingerprint()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    entry = Finetune(f"glue:{glue / 'RTE'}", seeds=1)(encoder).results["finetune-rte"]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert encoder.fingerprint() == fingerprint
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.training
    torch.manual_seed(9)
    (task,) = read_finetune(f"glue:{glue / 'RTE'}")
    rate = entry["chosen"]["rate"]
    again = train_and_predict(encoder, 2, task.train, task.scored, rate=rate, seed=0, max_length=66)["dev"]
    assert again == entry["predictions"]["0"]


@pytest.mark.slow
def test_each_kind_of_task_is_trained(glue: Path, tmp_path: Path) -> None:
    """One text and two, two classes and three, a regression, and two dev sets."""
    directory = tiny_encoder_directory(tmp_path / "bert")
    for name in ("CoLA", "MRPC", "STS-B", "MNLI"):
        (tmp_path / "some").mkdir(exist_ok=True)
        (tmp_path / "some" / name).symlink_to(glue / name)
    own = Finetune(f"glue:{tmp_path / 'some'}", seeds=1, max_length=24)
    result = evaluate(directory, "", evaluators=[own])
    figures = {name: list(entry["over_seeds"])[1:] for name, entry in result.results.items()}
    assert figures == {
        "finetune-cola": ["matthews"],
        "finetune-mrpc": ["accuracy", "f1"],
        "finetune-stsb": ["pearson", "spearman"],
        "finetune-mnli": ["accuracy"],
        "finetune-mnli-mm": ["accuracy"],
    }
    stsb = result.results["finetune-stsb"]
    assert stsb["score"] == pytest.approx(
        50 * sum(SKLEARN[name](stsb["labels"], stsb["predictions"]["0"]) for name in ("pearson", "spearman"))
    )
    assert result.average["finetune"] == pytest.approx(np.mean([entry["score"] for entry in result.results.values()]))
    assert "finetune mnli-mm: accuracy" in result.table()
    assert "(one seed; rate " in result.table()
    assert result.provenance["tasks"]["finetune-mnli-mm"]["split"] == "dev_mismatched"


def test_what_cannot_be_fine_tuned_is_refused(glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Finetune(f"glue:{glue / 'RTE'}")
    with pytest.raises(InputError, match=r"Only a textcl\.Encoder can be fine-tuned, not HashedWords"):
        own(HashedWords())
    directory = tiny_encoder_directory(tmp_path / "bert")
    with pytest.raises(InputError, match="uses no prompt, which pooling mask_token needs"):
        own(Encoder.from_pretrained(directory, pooling="mask_token"))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="start it without torchrun"):
        own(Encoder.from_pretrained(directory))


# the cache


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, int]]]:
    """The rates and seeds that are trained, while they are."""
    seen: list[tuple[float, int]] = []

    def watched(*given: Any, **named: Any) -> Any:
        seen.append((named["rate"], named["seed"]))
        return train_and_predict(*given, **named)

    monkeypatch.setattr(finetune, "train_and_predict", watched)
    return seen


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_next_training(
    glue: Path, tmp_path: Path, trained: list[tuple[float, int]]
) -> None:
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "bert"))

    def run(seeds: int, **more: Any) -> dict[str, Any]:
        result = Finetune(f"glue:{glue / 'RTE'}", seeds=seeds, cache=tmp_path / "cache", **more)(encoder)
        return result.results["finetune-rte"]

    first = run(2)
    assert len(trained) == 5
    assert run(2) == first
    assert len(trained) == 5
    (file,) = (tmp_path / "cache").rglob("results.jsonl")
    file.write_bytes(file.read_bytes().rstrip(b"\n").rpartition(b"\n")[0] + b'\n{"task": "fi')  # the last is lost
    assert len(read_results(file)) == 4
    assert run(2) == first
    rate = first["chosen"]["rate"]
    assert trained[5:] == [(rate, 1)]
    more = run(3)
    assert trained[6:] == [(rate, 2)]
    assert {seed: more["predictions"][seed] for seed in ("0", "1")} == first["predictions"]
    run(1, examples=55)  # other data
    assert len(trained) == 7 + 4


# the command


def test_the_command_and_the_comparison(
    tuned: tuple[Encoder, Path, Result], glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, cache, result = tuned
    flags = ["--finetune", f"glue:{glue / 'SST-2'}", "--finetune-seeds", "2", "--cache", str(cache)]
    assert main(["eval", "bundled", *flags, "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["results"] == result.results
    after = copy.deepcopy(printed)
    entry = after["results"]["finetune-sst2"]
    entry["predictions"] = {"0": [1] * 30, "1": entry["labels"], "2": [0] * 20 + entry["labels"][20:]}
    entry["by_seed"] = {
        seed: scores(["accuracy"], entry["labels"], found) for seed, found in entry["predictions"].items()
    }
    entry["score"] = float(np.mean([each["score"] for each in entry["by_seed"].values()]))
    files = [str(tmp_path / name) for name in ("before.json", "after.json")]
    for file, content in zip(files, (printed, after), strict=True):
        Path(file).write_text(json.dumps(content))
    assert main(["results", "--compare", *files]) == 0
    said = capsys.readouterr().out
    one, two = printed["results"]["finetune-sst2"], entry
    found = over_examples(
        ["accuracy"], one["labels"], list(one["predictions"].values()), list(two["predictions"].values())
    )
    again = over_seeds(*({int(s): each["score"] for s, each in side["by_seed"].items()} for side in (one, two)))
    assert said.splitlines() == [
        found.sentence(*files),
        f"accuracy of finetune sst2, 30 examples: {one['score']:.2f} and {two['score']:.2f}; bootstrap: "
        f"{found.low:+.2f} to {found.high:+.2f}, p = {found.p_value:.4f}.",
        f"Trained again with other seeds: {again.sentence(*files)} p = {again.p_value:.4f}.",
    ]
    other = copy.deepcopy(after)
    other["provenance"]["tasks"]["finetune-sst2"]["data_sha256"] = "x"
    Path(files[1]).write_text(json.dumps(other))
    assert main(["results", "--compare", *files]) == 2
    assert "The task finetune-sst2 of" in capsys.readouterr().err
    after["results"] = {"finetune-rte": entry}
    Path(files[1]).write_text(json.dumps(after))
    assert main(["results", "--compare", *files]) == 2
    assert "have no fine-tuned task in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "stsb", "--finetune-seeds", "2"], "--finetune-seeds is for --finetune; give it, or leave it out."),
        (["--finetune-examples", "9"], "--finetune-examples is for --finetune; give it, or leave it out."),
        (
            ["--finetune", "mrpc", "--batch-size", "9"],
            "--batch-size has no effect on fine-tuning, which trains in float32",
        ),
        (["--finetune", "mrpc", "--mode", "fast"], "--mode is for transfer tasks"),
        (["--finetune", "mnli"], "There is no task 'mnli' to fine-tune on; there are mrpc, sst2 and glue:FOLDER."),
        (["--finetune", "mrpc", "--finetune-seeds", "0"], "--finetune-seeds"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "bundled", *flags]) == 2
    assert message in capsys.readouterr().err


# metrics and differences


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_scikit_learn_and_scipy(name: str) -> None:
    """On whole sets, and on bootstrap samples written out."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        labels = generator.integers(2, size=40)
        found = np.where(generator.random(40) < 0.3, 1 - labels, labels)
        if name in ("pearson", "spearman"):
            labels, found = labels + generator.normal(size=40).round(1), found + generator.normal(size=40)
        assert scores([name], labels, found)[name] == pytest.approx(100 * SKLEARN[name](labels, found))
        rows = generator.integers(40, size=(3, 40))
        counts = np.stack([np.bincount(each, minlength=40) for each in rows])
        expected = [SKLEARN[name](labels[each], found[each]) for each in rows]
        assert METRICS[name](labels, found, counts) == pytest.approx(expected)
    assert scores([name], [0, 1, 1], [0, 0, 0])[name] == pytest.approx(100 / 3 if name == "accuracy" else 0)


def test_the_score_is_the_mean_of_the_metrics() -> None:
    found = scores(["accuracy", "f1"], [0, 0, 1, 1], [0, 1, 1, 1])
    assert found == {"score": pytest.approx((75 + 80) / 2), "accuracy": 75.0, "f1": pytest.approx(80.0)}


@pytest.mark.parametrize("metrics", [["matthews"], ["accuracy", "f1"]], ids="+".join)
def test_the_bootstrap_over_examples_is_the_slow_one(metrics: list[str]) -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(2, size=80)
    one, two = ([np.where(generator.random(80) < wrong, 1 - labels, labels) for _ in range(2)] for wrong in (0.4, 0.2))
    found = over_examples(metrics, labels.tolist(), one, two, draws=60, seed=4)

    def difference(rows: np.ndarray) -> float:
        before, after = (
            np.mean([SKLEARN[name](labels[rows], each[rows]) for each in side for name in metrics])
            for side in (one, two)
        )
        return 100 * float(after - before)

    rows = np.random.default_rng(4).integers(80, size=(60, 80))
    drawn = [difference(each) for each in rows]
    low, high = np.quantile(drawn, [0.025, 0.975], method="weibull")
    assert found.mean == pytest.approx(difference(np.arange(80)))
    assert (found.low, found.high) == pytest.approx((low, high))
    tail = min(np.mean(np.array(drawn) <= 0), np.mean(np.array(drawn) >= 0))
    assert found.p_value == pytest.approx(2 * (tail + 1 / 60))
    assert found.basis == "examples"
    opposite = over_examples(metrics, labels.tolist(), two, one, draws=60, seed=4)
    assert (opposite.mean, opposite.low) == pytest.approx((-found.mean, -found.high))
    assert over_examples(metrics, labels.tolist(), one, one, draws=50).p_value == 1
    with pytest.raises(InputError, match="at least ten"):
        over_examples(metrics, labels.tolist(), one, [two[0][:-1]])
    with pytest.raises(InputError, match="at least one draw"):
        over_examples(metrics, labels.tolist(), one, two, draws=0)


def test_equal_models_differ_one_time_in_twenty() -> None:
    generator = np.random.default_rng(0)
    shown = 0
    for _ in range(200):
        labels = generator.integers(2, size=150)
        one, two = (np.where(generator.random(150) < 0.25, 1 - labels, labels) for _ in range(2))
        shown += over_examples(["matthews"], labels, [one], [two], draws=200).shown
    assert 1 <= shown <= 20  # 10 are expected, with a standard error of 3.1
