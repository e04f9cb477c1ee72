"""Transfer: the readers, SentEval's training against a slow loop, the optimum against scikit-learn, the cache."""

import copy
import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from support.command import python, textcl, without_progress
from support.process_pool import ProcessPool
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory
from torch.utils._python_dispatch import TorchDispatchMode

from textcl.cli.main import main
from textcl.data.catalogue import load_manifest
from textcl.data.transfer import CLASSIFICATIONS, PROBING_TASKS, TRANSFER_TASKS, Examples, read_transfer
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Transfer, evaluate, logistic, transfer
from textcl.evaluation.cache import FINISHED, cache_folder
from textcl.evaluation.logistic import Fold, Training, predict, solve, train, with_ones
from textcl.files import read_results
from textcl.report.tables import comparison, comparison_table

DECAYS = (1e-5, 1e-2, 0.1, 1.0)  # SentEval's are so small that on a hundred rows one is as good as another
COUNTS = {  # issue and ecosystem.md, section 3: written out, so that the readers are checked against something
    "MR": {"all": 10662},
    "CR": {"all": 3775},
    "SUBJ": {"all": 10000},
    "MPQA": {"all": 10606},
    "SST2": {"train": 67349, "dev": 872, "test": 1821},
    "SST5": {"train": 8544, "dev": 1101, "test": 2210},
    "TREC": {"train": 5452, "test": 500},
    "MRPC": {"train": 4076, "test": 1725},
    "SICKEntailment": {"train": 4500, "dev": 500, "test": 4927},
    "SICKRelatedness-regression": {"train": 4500, "dev": 500, "test": 4927},
    "STSBenchmark-regression": {"train": 5749, "dev": 1500, "test": 1379},
}
ODD = ["<script>alert(1)</script>", "🙂 👩‍👩‍👧", "\u202eשלום עולם", "a\x00b", ""]


class Points:
    """Embeds "7" as row 7 of a matrix; counts what it is given."""

    def __init__(self, rows: np.ndarray, name: str = "points") -> None:
        self.rows, self.name = rows, name
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], **arguments: object) -> np.ndarray:
        self.texts += texts
        return self.rows[[int(text) for text in texts]]

    def fingerprint(self) -> str:
        return self.name


def noise(count: int, classes: int, dim: int = 12, spread: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around overlapping centres, in float32, and the class of each."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % classes)
    centres = generator.normal(size=(classes, dim))
    return (centres[labels] + spread * generator.normal(size=(count, dim))).astype(np.float32), labels


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]


def examples(labels: Sequence[int], start: int = 0) -> Examples:
    return Examples(numbers(len(labels), start), [], list(labels))


# SentEval's training, one problem after the other, with PyTorch's own layer and optimizers


def slow_fit(
    rows: np.ndarray, labels: np.ndarray, dev: tuple[np.ndarray, np.ndarray] | None, decay: float, how: Training
) -> tuple[torch.nn.Module, float]:
    """One classifier, as SentEval trains it."""
    np.random.seed(1111)
    torch.manual_seed(1111)
    layer = torch.nn.Linear(rows.shape[1], int(labels.max()) + 1).double()
    kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[how.optimizer]
    optimizer = kind(layer.parameters(), weight_decay=decay)
    if dev is None:
        order = np.random.permutation(len(rows))
        cut = int(0.05 * len(rows))
        dev = rows[order[:cut]], labels[order[:cut]]
        rows, labels = rows[order[cut:]], labels[order[cut:]]
    x, y = torch.as_tensor(rows).double(), torch.as_tensor(labels)
    dev_x, dev_y = torch.as_tensor(dev[0]).double(), torch.as_tensor(dev[1])
    best, kept, misses, passes = -1.0, copy.deepcopy(layer), 0, 0
    while passes <= how.most_passes:
        for _ in range(how.passes):
            for batch in torch.as_tensor(np.random.permutation(len(x))).split(how.batch_size):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(layer(x[batch]), y[batch]).backward()
                optimizer.step()
        passes += how.passes
        accuracy = (layer(dev_x).argmax(1) == dev_y).sum().item() / len(dev_y)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(layer)
            continue
        misses += 1
        if misses > how.tenacity:
            break
    return kept, best


def slow_score(layer: torch.nn.Module, rows: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    found = layer(torch.as_tensor(rows).double()).argmax(1).numpy()
    return round(100 * float((found == labels).mean()), 2), found


def slow_choice(rows: np.ndarray, labels: np.ndarray, folds: int, how: Training) -> tuple[float, float]:
    """The weight decay with the best rounded mean accuracy over folds, and that accuracy."""
    means = []
    for decay in DECAYS:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=1111)
        each = [
            slow_fit(rows[i], labels[i], (rows[j], labels[j]), decay, how)[1] for i, j in splitter.split(rows, labels)
        ]
        means.append(round(100 * float(np.mean(each)), 2))
    return DECAYS[int(np.argmax(means))], max(means)


def slow_nested(rows: np.ndarray, labels: np.ndarray, folds: int, how: Training) -> dict:
    chosen, dev, test = [], [], []
    for i, j in StratifiedKFold(folds, shuffle=True, random_state=1111).split(rows, labels):
        decay, best = slow_choice(rows[i], labels[i], folds, how)
        layer, _ = slow_fit(rows[i], labels[i], None, decay, how)
        chosen.append(decay)
        dev.append(best)
        test.append(slow_score(layer, rows[j], labels[j])[0])
    return {
        "accuracy": round(float(np.mean(test)), 2),
        "dev_accuracy": round(float(np.mean(dev)), 2),
        "by_fold": test,
        "chosen": chosen,
    }


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no text lies on the border by rounding, and equal means equal; and decays that make a difference."""
    monkeypatch.setattr(transfer, "_WEIGHT_DECAYS", np.array(DECAYS))
    monkeypatch.setattr(transfer, "with_ones", lambda rows: with_ones(rows.astype(np.float64)))


QUICK = Training("adam", batch_size=16, tenacity=2, passes=2, most_passes=30)
QUICK_RMSPROP = Training("rmsprop", batch_size=32, tenacity=1, passes=1, most_passes=20)


@pytest.mark.parametrize("how", [QUICK, QUICK_RMSPROP], ids=["adam", "rmsprop"])
@pytest.mark.parametrize("classes", [2, 4])
def test_each_problem_is_trained_as_if_it_were_alone(classes: int, how: Training) -> None:
    """193 rows: 128 or 129 in a fold, so that the folds differ in their number of batches."""
    rows, labels = noise(193, classes)
    pairs = list(StratifiedKFold(3, shuffle=True, random_state=1111).split(rows, labels))
    assert {len(i) for i, _ in pairs} == {128, 129}
    folds = [Fold.split(*pair, 1111) for pair in pairs]
    folds += [Fold.held_out(i, 0.05, 1111) for i, _ in pairs]
    everything = with_ones(rows.astype(np.float64))
    targets = torch.nn.functional.one_hot(torch.as_tensor(labels), classes).to(everything)
    weights, scores = train(everything, targets, folds, np.tile(DECAYS, (6, 1)), how, 1111)
    for number, (i, j) in enumerate([*pairs, *pairs]):
        for place, decay in enumerate(DECAYS):
            dev = (rows[j], labels[j]) if number < 3 else None
            layer, best = slow_fit(rows[i], labels[i], dev, decay, how)
            expected = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()
            assert scores[number, place] == best
            assert torch.allclose(weights[number, place], expected, rtol=0, atol=1e-9)
            assert (predict(everything, weights[number, place]) == slow_score(layer, rows, labels)[1]).all()


def test_problems_end_at_their_own_time() -> None:
    """The oracle test would show little if all problems stopped together."""
    rows, labels = noise(193, 2)
    stops = set()
    original = torch.nn.Linear.forward
    for i, j in StratifiedKFold(3, shuffle=True, random_state=1111).split(rows, labels):
        checks = 0

        def counted(layer: torch.nn.Linear, x: torch.Tensor, size: int = len(j)) -> torch.Tensor:
            nonlocal checks
            checks += len(x) == size
            return original(layer, x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.Linear, "forward", counted)
            slow_fit(rows[i], labels[i], (rows[j], labels[j]), 1e-3, QUICK)
        stops.add(checks)
    assert len(stops) > 1


@pytest.mark.parametrize("setting", ["test", "dev"])
def test_nested_folds_equal_the_slow_loop(setting: str, in_float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folds, how = {"test": (3, QUICK), "dev": (3, QUICK_RMSPROP)}[setting]
    monkeypatch.setitem(transfer.SETTINGS, setting, (folds, how))
    rows, labels = noise(150, 2, dim=30, spread=3)
    order = np.argsort(labels, kind="stable")  # all texts have one word
    result = Transfer({"mine": (numbers(150), labels.tolist())}, setting=setting)(Points(rows)).results["mine"]
    expected = slow_nested(rows[order], labels[order], folds, how)
    if setting == "test":
        assert result == {"kind": "transfer", **expected}
        assert len(set(expected["chosen"])) > 1
    else:
        assert result["accuracy"] == result["dev_accuracy"] == expected["dev_accuracy"]
        assert result["chosen"] == expected["chosen"]


def test_folds_of_the_train_split_equal_the_slow_loop(in_float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.SETTINGS, "test", (3, QUICK))
    rows, labels = noise(160, 2, dim=8)
    task = Transfer({"mine": (numbers(160), labels.tolist())})
    task.tasks = {"MRPC": {"train": examples(labels[:100]), "test": examples(labels[100:], 100)}}
    decay, best = slow_choice(rows[:100], labels[:100], 3, QUICK)
    layer, _ = slow_fit(rows[:100], labels[:100], None, decay, QUICK)
    accuracy, found = slow_score(layer, rows[100:], labels[100:])
    f1 = round(100 * f1_score(labels[100:], found), 2)
    result = task(Points(rows))
    assert result.results["MRPC"] == {
        "kind": "transfer",
        "accuracy": accuracy,
        "dev_accuracy": best,
        "f1": f1,
        "chosen": decay,
    }
    assert f"MRPC: F1 {f1:.2f}" in result.table()


def test_a_dev_split_equals_the_slow_loop(in_float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.SETTINGS, "test", (10, QUICK))
    rows, labels = noise(200, 3, dim=8)
    task = Transfer({"mine": (numbers(200), labels.tolist())})
    parts = (slice(0, 120), slice(120, 150), slice(150, 200))
    task.tasks = {
        "mine": dict(zip(("train", "dev", "test"), (examples(labels[p], p.start) for p in parts), strict=True))
    }
    (x, y), dev, test = ((rows[p], labels[p]) for p in parts)
    fits = [slow_fit(x, y, dev, decay, QUICK) for decay in DECAYS]
    best = int(np.argmax([round(100 * accuracy, 2) for _, accuracy in fits]))
    layer, _ = slow_fit(x, y, dev, DECAYS[best], QUICK)  # trained once more, as SentEval does
    assert task(Points(rows)).results["mine"] == {
        "kind": "transfer",
        "accuracy": slow_score(layer, *test)[0],
        "dev_accuracy": round(100 * fits[best][1], 2),
        "chosen": DECAYS[best],
    }


def test_what_is_equal_to_two_decimals_is_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(rows: torch.Tensor, targets: torch.Tensor, folds: list[Fold], grid: np.ndarray, *_, **__) -> tuple:
        accuracy = np.tile([0.8, 0.90001, 0.90002, 0.7], (len(folds), 1))[:, : grid.shape[1]]
        return rows.new_zeros(*grid.shape, 2, rows.shape[1]), accuracy

    monkeypatch.setattr(transfer, "train", trained)
    rows, labels = noise(100, 2)
    task = Transfer({"mine": (numbers(100), labels.tolist())}, setting="dev")
    assert task(Points(rows)).results["mine"]["chosen"] == [1e-4] * 5
    for splits in ("train", "test"), ("train", "dev", "test"):
        task.tasks = {"mine": {split: examples(labels) for split in splits}}
        entry = task(Points(rows)).results["mine"]
        assert entry == {"kind": "transfer", "accuracy": 90.0, "dev_accuracy": 90.0, "chosen": 1e-4}


class Counted(TorchDispatchMode):
    """Counts the operations of torch, which take the time here: the tensors are small."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.slow  # a hundred thousand operations
def test_it_takes_a_tenth_of_the_operations_of_the_loop_at_most() -> None:
    rows, labels = noise(400, 2, dim=64)
    how = Training("adam", batch_size=64, tenacity=5, passes=4)
    pairs = list(StratifiedKFold(3, shuffle=True, random_state=1111).split(rows, labels))
    everything = with_ones(rows)
    targets = torch.nn.functional.one_hot(torch.as_tensor(labels), 2).to(everything)
    with Counted() as together:
        train(everything, targets, [Fold.split(*pair, 1111) for pair in pairs], np.tile(DECAYS, (3, 1)), how, 1111)
    with Counted() as loop:
        for i, j in pairs:
            for decay in DECAYS:
                slow_fit(rows[i], labels[i], (rows[j], labels[j]), decay, how)
    assert 0 < together.count < loop.count / 10


def test_settings_are_simcses() -> None:
    assert transfer._WEIGHT_DECAYS.tolist() == [1e-5, 1e-4, 1e-3, 1e-2]
    simcse = {
        "test": (10, Training("adam", batch_size=64, tenacity=5, passes=4, most_passes=200)),
        "dev": (5, Training("rmsprop", batch_size=128, tenacity=3, passes=2, most_passes=200)),
    }
    assert simcse == transfer.SETTINGS


def test_folds_are_sentevals(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Fold]] = []

    def recorded(rows: torch.Tensor, targets: torch.Tensor, folds: list[Fold], grid: np.ndarray, *_, **__) -> tuple:
        asked.append(folds)
        return rows.new_zeros(*grid.shape, 2, rows.shape[1]), np.zeros(grid.shape)

    monkeypatch.setattr(transfer, "train", recorded)
    rows, labels = noise(307, 2)
    Transfer({"mine": (numbers(307), labels.tolist())})(Points(rows))
    labels = np.sort(labels)
    inner, final = asked
    assert (len(inner), len(final)) == (100, 10)
    splitter = StratifiedKFold(10, shuffle=True, random_state=1111)
    for number, (i, j) in enumerate(splitter.split(labels, labels)):
        for place, (train_, dev) in enumerate(splitter.split(i, labels[i])):
            fold = inner[10 * number + place]
            assert np.array_equal(fold.train, i[train_])
            assert np.array_equal(fold.dev, i[dev])
        for group in (inner[10 * number : 10 * number + 10], [final[number]]):
            for fold in group:
                assert sorted([*fold.train, *fold.dev]) == sorted(i)
                assert not set(fold.train) & set(fold.dev)
                assert not {*fold.train, *fold.dev} & set(j)
        assert len(final[number].dev) == int(0.05 * len(i))
    tested = [row for _, j in splitter.split(labels, labels) for row in j]
    assert sorted(tested) == list(range(307))


def test_labels_may_be_of_mixed_types() -> None:
    rows, labels = noise(200, 3)
    scores = [
        Transfer({"mine": (numbers(200), [names[label] for label in labels])}, mode="fast", setting="dev")(Points(rows))
        for names in ((0, 1, 2), (0, 1, "other"))
    ]
    assert scores[0].primary == scores[1].primary


# the optimum


@pytest.mark.parametrize("classes", [2, 4])
def test_the_optimum_is_scikit_learns(classes: int) -> None:
    rows, labels = noise(200, classes)
    rows = rows * 3 + 10  # neither centred nor of length 1
    pairs = list(StratifiedKFold(3, shuffle=True, random_state=1111).split(rows, labels))
    strengths = np.array([0.01, 1.0, 8.0])
    everything = with_ones(rows.astype(np.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "_SOLVED", 1e-7)
        folds = [Fold.split(*pair, 1) for pair in pairs]
        weights, scores = solve(everything, labels, classes, folds, np.tile(strengths, (3, 1)), columns=5)
    for number, (i, j) in enumerate(pairs):
        for place, strength in enumerate(strengths):
            reference = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000).fit(
                rows[i].astype(float), labels[i]
            )
            found = everything.numpy() @ weights[number, place].numpy().T
            expected = reference.predict_proba(rows.astype(float))
            found = np.exp(found - found.max(axis=1, keepdims=True))
            assert np.allclose(found / found.sum(axis=1, keepdims=True), expected, atol=1e-5)
            assert scores[number, place] == pytest.approx(reference.score(rows[j].astype(float), labels[j]))


def test_fast_is_scikit_learns_nested_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.SETTINGS, "test", (5, QUICK))
    rows, labels = noise(300, 2)
    result = Transfer({"mine": (numbers(300), labels.tolist())}, mode="fast")(Points(rows)).results["mine"]
    order = np.argsort(labels, kind="stable")
    x, y = rows[order].astype(float), labels[order]
    splitter = StratifiedKFold(5, shuffle=True, random_state=1111)
    strengths = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

    def score(i: np.ndarray, j: np.ndarray, strength: float) -> float:
        return LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(x[i], y[i]).score(x[j], y[j])

    test, chosen = [], []
    for i, j in splitter.split(x, y):
        means = [
            round(100 * np.mean([score(i[a], i[b], strength) for a, b in splitter.split(i, y[i])]), 2)
            for strength in strengths
        ]
        chosen.append(strengths[int(np.argmax(means))])
        test.append(round(100 * score(i, j, chosen[-1]), 2))
    assert result["chosen"] == chosen
    assert result["by_fold"] == test
    assert result["accuracy"] == round(float(np.mean(test)), 2)


# closed cases


@pytest.mark.parametrize("mode", ["senteval", "fast"])
def test_separable_classes_give_100_and_permuted_labels_chance(mode: str) -> None:
    rows, labels = noise(300, 3, spread=0.05)
    assert Transfer({"mine": (numbers(300), labels.tolist())}, mode=mode, setting="dev")(Points(rows)).primary == 100
    shuffled = np.random.default_rng(5).permutation(labels)
    found = Transfer({"mine": (numbers(300), shuffled.tolist())}, mode=mode)(Points(rows)).primary
    assert found == pytest.approx(100 / 3, abs=8.2)  # three standard errors


@pytest.mark.parametrize("mode", ["senteval", "fast"])
def test_it_draws_nothing_from_the_users_generators(mode: str) -> None:
    rows, labels = noise(120, 2)
    task = Transfer({"mine": (numbers(120), labels.tolist())}, mode=mode, setting="dev")
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = task(Points(rows)).to_dict()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    torch.manual_seed(9)
    np.random.seed(9)
    assert task(Points(rows)).to_dict() == first


def test_a_pair_is_its_difference_and_its_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(transfer, "with_ones", lambda rows: seen.append(rows) or with_ones(rows))
    rows, _ = noise(90, 2)
    task = Transfer({"mine": (numbers(60), [0, 1] * 30)}, mode="fast", setting="dev")
    task.tasks = {"mine": {"all": Examples(numbers(60), numbers(60, 30), [0, 1] * 30)}}
    encoder = Points(rows)
    task(encoder)
    assert np.array_equal(seen[0], np.c_[np.abs(rows[:60] - rows[30:]), rows[:60] * rows[30:]])
    assert sorted(encoder.texts) == sorted(numbers(90))  # each distinct text once


# regressors


def test_the_regressor_equals_the_slow_loop(in_float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Training("adam", batch_size=16, tenacity=1, passes=5, most_passes=60)
    monkeypatch.setattr(transfer, "_REGRESSION", how)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(150, 6)).astype(np.float32)
    scores = np.clip(2.5 + rows @ generator.normal(size=6) + generator.normal(size=150), 0, 5).round(1)
    assert scores.min() == 0
    assert scores.max() == 5
    name = "STSBenchmark-regression"
    task = Transfer({"mine": (numbers(2), [0, 1])})
    parts = {"train": slice(0, 90), "dev": slice(90, 120), "test": slice(120, 150)}
    task.tasks = {name: {split: examples(scores[p].tolist(), p.start) for split, p in parts.items()}}

    targets = np.zeros((150, 5))
    for row, score in enumerate(scores):
        for label in range(1, 6):
            if label == np.floor(score) + 1:
                targets[row, label - 1] = score - np.floor(score)
            if label == np.floor(score):
                targets[row, label - 1] = np.floor(score) - score + 1
    np.random.seed(1111)
    torch.manual_seed(1111)
    layer = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Softmax(dim=1)).double()
    optimizer = torch.optim.Adam(layer.parameters())
    x, y = torch.as_tensor(rows).double(), torch.as_tensor(targets)

    def expected(split: str) -> np.ndarray:
        return layer(x[parts[split]]).detach().numpy() @ np.arange(1, 6)

    best, misses, passes, found = -1.0, 0, 0, np.zeros(30)
    while misses <= how.tenacity and passes <= how.most_passes:
        for _ in range(how.passes):
            for batch in torch.as_tensor(np.random.permutation(90)).split(16):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(layer(x[batch]), y[batch]).backward()
                optimizer.step()
        passes += how.passes
        correlation = np.corrcoef(expected("dev"), scores[parts["dev"]])[0, 1]
        if correlation > best:
            best, found = correlation, expected("test")
        else:
            misses += 1
    result = task(Points(rows))
    entry = result.results[name]
    assert entry["dev_pearson"] == pytest.approx(100 * best, abs=1e-6)
    assert entry["pearson"] == pytest.approx(100 * np.corrcoef(found, scores[parts["test"]])[0, 1], abs=1e-6)
    assert result.primary == entry["pearson"]
    assert [line.split()[0] for line in result.table().splitlines()] == ["Regression", "pearson", "spearman"]
    assert "STS-B regression" in result.table()


# SNLI


def write_snli(folder: Path, splits: dict[str, list[tuple[str, str, str]]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """SentEval's files of SNLI with few pairs, and a catalogue that expects as many."""
    for split, pairs in splits.items():
        for name, lines in zip(("s1", "s2", "labels"), zip(*pairs, strict=True), strict=True):
            path = folder / "SNLI" / f"{name}.{split}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes("".join(f"{line}\n" for line in lines).encode("latin-1"))
    for file in load_manifest()["sets"]["SNLI"]["files"]:
        if "rows" in file:
            monkeypatch.setitem(file, "rows", len(splits[file["split"]]))
    return folder


def snli_of(labels: np.ndarray, parts: dict[str, slice]) -> dict[str, list[tuple[str, str, str]]]:
    """Pairs of the numbers 2 i and 2 i + 1, which `Points` embeds, with the class of each pair."""
    names = ("entailment", "neutral", "contradiction")
    pairs = [(str(2 * i), str(2 * i + 1), names[label]) for i, label in enumerate(labels)]
    return {split: pairs[places] for split, places in parts.items()}


def test_snli_is_read_in_sentevals_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the words of the second sentence, then of the first, then by the name of the class; equal keys keep theirs."""
    pairs = [
        ("a  b c", "one two", "neutral"),
        ("a b\u0085 d", "three four", "entailment"),
        ("caf\u00e9", "five six seven", "contradiction"),
        ("e", "eight nine", "neutral"),
        ("f g h", "ten eleven", "contradiction"),
        ("i j k", "x y", "neutral"),
    ]
    folder = write_snli(tmp_path, {"train": pairs, "dev": pairs[:1], "test": pairs[1:2]}, monkeypatch)
    splits = read_transfer("SNLI", folder)
    assert {split: len(each) for split, each in splits.items()} == {"train": 6, "dev": 1, "test": 1}
    train = splits["train"]
    assert train.first == ["e", "f g h", "a b d", "a b c", "i j k", "caf\u00e9"]
    assert train.second == ["eight nine", "ten eleven", "three four", "one two", "x y", "five six seven"]
    assert train.labels == [1, 2, 0, 1, 1, 2]


def test_wrong_files_of_snli_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"SNLI is not installed: there is no file .*s1\.train\. Run `textcl data imp"):
        read_transfer("SNLI", tmp_path)
    pairs = [("a", "b", "neutral")] * 3
    with pytest.MonkeyPatch.context() as patch:
        write_snli(tmp_path, dict.fromkeys(("train", "dev", "test"), pairs), patch)
        (tmp_path / "SNLI" / "s2.dev").write_text("b\nb\n")
        with pytest.raises(InputError, match=r"s1\.dev, s2\.dev, labels\.dev have 3, 2 and 3 lines"):
            read_transfer("SNLI", tmp_path)
        (tmp_path / "SNLI" / "labels.train").write_text("neutral\n-\nneutral\n")
        with pytest.raises(InputError, match=r"labels\.train, line 2: this is not a valid line of SNLI: '-'"):
            read_transfer("SNLI", tmp_path)
    (tmp_path / "SNLI" / "labels.train").write_text("neutral\n" * 3)
    with pytest.raises(
        InputError, match=r"labels\.train has 3 texts, but 549,367 are expected.*again with `textcl data i"
    ):
        read_transfer("SNLI", tmp_path)  # there is no address from which `textcl data fetch` could get it


def test_snli_equals_the_slow_loop(tmp_path: Path, in_float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parts of a pair, no regularisation, and a check after each of at most 16 passes."""
    rows, _ = noise(480, 2, dim=4)
    generator = np.random.default_rng(3)
    u, v = rows[::2].astype(np.float64), rows[1::2].astype(np.float64)
    pairs = np.c_[u, v, u * v, np.abs(u - v)]
    labels = (pairs @ generator.normal(size=(16, 3)) + generator.normal(size=(240, 3)) * 3).argmax(axis=1)
    parts = {"train": slice(0, 160), "dev": slice(160, 200), "test": slice(200, 240)}
    folder = write_snli(tmp_path, snli_of(labels, parts), monkeypatch)
    names = np.array(["entailment", "neutral", "contradiction"])
    # all sentences have one word, so that only the name of the class orders them
    order = {split: places.start + np.argsort(names[labels[places]], kind="stable") for split, places in parts.items()}
    for tenacity in (5, 100):  # stopped early, and by the number of passes
        monkeypatch.setitem(transfer.SETTINGS, "test", (10, Training("adam", 4, tenacity, passes=4)))
        task = Transfer(["SNLI"], folder)
        how = Training("adam", 4, tenacity, passes=1, most_passes=15)
        dev = pairs[order["dev"]], labels[order["dev"]]
        layer, best = slow_fit(pairs[order["train"]], labels[order["train"]], dev, 1e-9, how)
        result = task(Points(rows))
        entry = result.results["SNLI"]
        assert entry["dev_accuracy"] == round(100 * best, 2)
        assert entry["accuracy"] == slow_score(layer, pairs[order["test"]], labels[order["test"]])[0]
        assert 40 < entry["accuracy"] < 95
        assert entry["chosen"] == 1e-9
        convention = result.provenance["tasks"]["SNLI"]["convention"]
        assert (convention["passes"], convention["most_passes"], convention["weight_decay"]) == (1, 15, [1e-9])
    assert evaluate(Points(rows), "snli", data_dir=folder).results["SNLI"].keys() == entry.keys()


def test_fast_snli_is_scikit_learns_without_a_penalty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = noise(1200, 3, dim=3, spread=6)
    labels = labels[:600]
    parts = {"train": slice(0, 400), "dev": slice(400, 500), "test": slice(500, 600)}
    folder = write_snli(tmp_path, snli_of(labels, parts), monkeypatch)
    u, v = rows[::2].astype(float), rows[1::2].astype(float)
    pairs = np.c_[u, v, u * v, np.abs(u - v)]
    reference = LogisticRegression(C=1e9, tol=1e-8, max_iter=100_000).fit(pairs[:400], labels[:400])
    entry = Transfer(["SNLI"], folder, mode="fast")(Points(rows)).results["SNLI"]
    assert entry["accuracy"] == pytest.approx(100 * reference.score(pairs[500:], labels[500:]), abs=1.01)
    assert entry["chosen"] == 1e9


# the real files


def test_counts_classes_and_order_of_the_real_files(evaluation_sets: Path) -> None:
    classes = {"TREC": 6, "SST5": 5, "SICKEntailment": 3}
    for name, counts in COUNTS.items():
        splits = read_transfer(name, evaluation_sets)
        assert {split: len(each) for split, each in splits.items()} == counts, name
        for each in splits.values():
            pairs = name in ("MRPC", "SICKEntailment") or name.endswith("-regression")
            assert len(each.first) == len(each)
            assert len(each.second) == (len(each) if pairs else 0)
            assert all(text == " ".join(text.split()) for text in (*each.first, *each.second))
            words = [[len(text.split()) for text in side] for side in (each.first, each.second) if side]
            keys = list(zip(*words, each.labels, strict=True))
            assert keys == sorted(keys), name
            if not name.endswith("-regression"):
                assert set(each.labels) == set(range(classes.get(name, 2))), name


def test_labels_of_the_real_files(evaluation_sets: Path) -> None:
    for name, text, label in (
        ("MR", "it 's so laddish and juvenile , only teenage boys could possibly find it funny .", 0),
        ("CR", "im a more happier person after discovering the i/p button ! .", 1),
        ("SUBJ", "smart and alert , thirteen conversations about one thing is a small gem .", 0),
        ("SUBJ", "the movie begins in the past where a young boy named sam attempts to save celebi from a hunter .", 1),
        ("MPQA", "failing to support", 0),
        ("TREC", "How did serfdom develop in and then leave Russia ?", 1),
        (
            "MRPC",
            'Amrozi accused his brother , whom he called " the witness " , of deliberately distorting his evidence .',
            1,
        ),
        ("SST2", "contains no wit , only labored gags", 0),
        ("SST5", "apparently reassembled from the cutting-room floor of any given daytime soap .", 1),
    ):
        first = next(iter(read_transfer(name, evaluation_sets).values()))
        assert first.labels[first.first.index(text)] == label, name
    (dev,) = [each for split, each in read_transfer("SICKEntailment", evaluation_sets).items() if split == "dev"]
    place = dev.first.index("The young boys are playing outdoors and the man is smiling nearby")
    assert dev.labels[place] == 0  # a contradiction


def test_real_tasks_beside_the_others(evaluation_sets: Path) -> None:
    result = evaluate(HashedWords(), "cr,sick-e,agnews,sts16", data_dir=evaluation_sets, mode="fast", setting="dev")
    assert list(result.results) == ["STS16", "AgNews", "CR", "SICKEntailment"]
    assert 63.8 < result.results["CR"]["accuracy"] < 75  # 63.8 % are positive
    assert result.average["transfer"] == pytest.approx(
        np.mean([result.results[task]["accuracy"] for task in ("CR", "SICKEntailment")])
    )
    assert result.primary == result.average["all"]
    alone = Transfer(["CR"], evaluation_sets, mode="fast", setting="dev")
    assert alone.name == "transfer-cr"
    assert alone(HashedWords()).results["CR"] == result.results["CR"]
    blocks = result.table().split("\n\n")
    assert [block.split()[0] for block in blocks] == ["Spearman", "Clustering", "Transfer"]
    assert blocks[2].splitlines()[0].split() == ["Transfer", "CR", "SICK-E", "Avg."]
    assert [line.split()[0] for line in blocks[2].splitlines()[1:]] == ["accuracy", "dev_accuracy"]
    provenance = result.provenance["tasks"]["CR"]
    assert provenance["texts"] == {"all": 3775}
    assert provenance["convention"]["folds"] == 5
    assert provenance["convention"]["seed"] == 1111
    json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_the_dev_setting_sees_no_test_text() -> None:
    rows, labels = noise(200, 2)
    task = Transfer({"mine": (numbers(200), labels.tolist())}, mode="fast", setting="dev")
    task.tasks = {"mine": {"train": examples(labels[:150]), "test": examples(labels[150:], 150)}}
    encoder = Points(rows)
    entry = task(encoder).results["mine"]
    assert sorted(encoder.texts, key=int) == numbers(150)
    assert entry["accuracy"] == entry["dev_accuracy"]


def test_probing_tasks_are_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Probing is not installed: there is no file .*sentence_length\.txt"):
        evaluate(HashedWords(), "probing", data_dir=tmp_path)
    folder = tmp_path / "probing"
    folder.mkdir()
    rows = [f"{split}\t{label}\t{TEXTS[i]} {label.lower()} .\n" for split in ("tr", "va", "te") for i in range(30)
            for label in ("PAST", "PRES")]  # fmt: skip
    (folder / "past_present.txt").write_text("".join(rows), encoding="utf-8")
    splits = read_transfer("Tense", tmp_path)
    assert {split: len(each) for split, each in splits.items()} == {"train": 60, "dev": 60, "test": 60}
    assert {label for text, label in zip(splits["dev"].first, splits["dev"].labels, strict=True) if "past" in text} == {
        0
    }
    result = evaluate(HashedWords(), "probing", data_dir=tmp_path, mode="fast")
    assert list(result.results) == ["Tense"]
    assert result.primary == 100
    (folder / "past_present.txt").write_text("tr\tPAST\tone\nva\tFUTURE\ttwo\n")
    with pytest.raises(InputError, match="'FUTURE' occurs in no training sentence"):
        read_transfer("Tense", tmp_path)
    (folder / "past_present.txt").write_text("tr\tPAST\tone\nxx\tPAST\ttwo\n")
    with pytest.raises(InputError, match="line 2: the line must have three cells"):
        read_transfer("Tense", tmp_path)
    assert len(PROBING_TASKS) == 10


# refusals


def broken(rows: np.ndarray, value: float) -> np.ndarray:
    rows = rows.copy()
    rows[3, 1] = value
    return rows


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Transfer({"mine": (numbers(5), [0, 1])}), "mine has 5 texts and 2 labels; each text needs one"),
        (lambda: Transfer({"mine": (numbers(2), [1, 1])}), "mine has 1 classes"),
        (lambda: Transfer({}), "no transfer task to evaluate"),
        (lambda: Transfer(["MRCP"]), r"no transfer task 'MRCP'.*Did you mean 'MRPC'\?"),
        (lambda: Transfer({}, mode="fats"), r"no mode 'fats'; there are senteval, fast\. Did you mean 'fast'\?"),
        (lambda: Transfer({}, setting="tset"), r"no setting 'tset'.*Did you mean 'test'\?"),
        (
            lambda: Transfer({"mine": (numbers(60), [0] * 55 + [1] * 5)})(Points(noise(60, 2)[0])),
            "mine: class 1 has 5 of 60 texts, so one of 10 folds would have no text of this class",
        ),
        (
            lambda: Transfer({"mine": (numbers(60), ["1"] * 50 + ["4"] * 5 + ["3"] * 5)})(Points(noise(60, 2)[0])),
            "mine: class '3' has 5 of 60 texts",  # of equally rare ones the first
        ),
        (
            lambda: Transfer({"mine": (numbers(60), [0] * 50 + [1] * 10)})(Points(noise(60, 2)[0])),
            "mine: class 1 has 9 of 54 texts",  # an inner fold would be without it
        ),
        (
            lambda: Transfer({"mine": (numbers(60), [0, 1] * 30)})(Points(np.ones((60, 4)))),
            "the same embedding for all 60 texts of mine",
        ),
        (
            lambda: Transfer({"mine": (numbers(60), [0, 1] * 30)})(Points(broken(noise(60, 2)[0], np.nan))),
            "NaN or infinite values for 1 of 60 texts",
        ),
        (
            lambda: Transfer({"mine": (numbers(60), [0, 1] * 30)}, cache="x")(HashedWords()),
            r"HashedWords has no method fingerprint\(\)",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_split_without_a_class_is_refused() -> None:
    rows, _ = noise(90, 3)
    for missing in ("train", "dev", "test"):
        task = Transfer({"mine": (numbers(90), [0, 1, 2] * 30)}, mode="fast")
        task.tasks = {"mine": {split: examples([0, 1, 2 * (split != missing)] * 10, 30 * place)
                               for place, split in enumerate(("train", "dev", "test"))}}  # fmt: skip
        with pytest.raises(InputError, match=f"class 2 has 0 of 30 texts, so the {missing} split"):
            task(Points(rows))
    task.tasks = {"mine": {"train": examples([0, 1, 2] * 20), "test": examples([0, 1] * 10, 60)}}
    with pytest.raises(InputError, match="class 2 has 0 of 20 texts, so the test split"):
        task(Points(rows))


def test_a_split_of_one_embedding_is_refused_though_others_differ() -> None:
    """The classifier is trained on one split: texts of another split do not help it."""
    task = Transfer({"mine": (numbers(60), [0, 1] * 30)}, mode="fast")
    examples = task.tasks["mine"]["all"]
    parts = {"train": slice(0, 30), "test": slice(30, 60)}
    task.tasks = {
        "mine": {name: Examples(examples.first[part], [], examples.labels[part]) for name, part in parts.items()}
    }
    places = [int(text) for text in examples.first]
    for name, part in parts.items():
        rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        rows[places[part]] = 0.5
        with pytest.raises(InputError, match=f"the same embedding for all 30 texts of mine, {name}: it has collapsed"):
            task(Points(rows))


def test_few_texts_are_said_to_be_too_few_for_sentevals_training(caplog: pytest.LogCaptureFixture) -> None:
    """Two classes that one dimension separates: its training stops before it has learnt them."""
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    rows[:, 0] = np.where(np.arange(100) % 2, 1, -1)
    data = {"mine": (numbers(100), [number % 2 for number in range(100)])}
    assert Transfer(data, mode="fast")(Points(rows)).primary == 100
    assert caplog.messages == []
    assert Transfer(data)(Points(rows)).primary < 95
    (said,) = caplog.messages
    assert said.startswith("mine has 100 texts. SentEval's training, made for thousands of texts, may stop")
    assert "mode='fast' finds the optimum" in said


def test_damaged_files_are_refused(evaluation_sets: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TREC is not installed"):
        Transfer(["TREC"], tmp_path)
    for folder, file, line, name in (
        ("TREC", "TREC_10.label", b"NMU:dist How far ?\n", "TREC"),
        ("MRPC", "msr_paraphrase_train.txt", b"1\t2\t3\n", "MRPC"),
        ("SST/binary", "sentiment-dev", b"no label\n", "SST2"),
    ):
        shutil.copytree(evaluation_sets / folder, tmp_path / folder)
        path = tmp_path / folder / file
        content = path.read_bytes()
        path.write_bytes(content + line)
        with pytest.raises(InputError, match=rf"{file}, line \d+: this is not a valid line of {name}"):
            Transfer([name], tmp_path)
        path.write_bytes(content[: content.rstrip(b"\n").rfind(b"\n") + 1])
        with pytest.raises(InputError, match=r"texts, but .* are expected"):
            Transfer([name], tmp_path)


# the cache


def test_a_rerun_encodes_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = noise(200, 2)
    tasks = {"one": (numbers(100), labels[:100].tolist()), "two": (numbers(150, 50), labels[50:].tolist())}
    encoder = Points(rows)
    plain = Transfer(tasks, setting="dev")(Points(rows)).to_dict()
    first = Transfer(tasks, setting="dev", cache=tmp_path)(encoder, batch_size=8)
    assert first.to_dict() == plain
    assert sorted(encoder.texts, key=int) == numbers(200)  # the second task encodes only what is new
    with monkeypatch.context() as patch:
        patch.delattr(transfer, "train")
        again = Transfer(tasks, setting="dev", cache=tmp_path)(encoder, batch_size=16)
    assert again.to_dict() == plain
    fast = Transfer(tasks, setting="dev", mode="fast", cache=tmp_path)(encoder)
    assert fast.to_dict() == Transfer(tasks, setting="dev", mode="fast")(Points(rows)).to_dict()
    assert len(encoder.texts) == 200
    other = {**tasks, "one": (numbers(100), labels[100:].tolist())}  # the same texts, other labels
    assert (
        Transfer(other, setting="dev", cache=tmp_path)(encoder).to_dict()
        == Transfer(other, setting="dev")(Points(rows)).to_dict()
    )
    assert len(encoder.texts) == 200
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]


def test_models_and_arguments_do_not_share_a_cache(tmp_path: Path) -> None:
    rows, labels = noise(100, 2)
    tasks = {"one": (numbers(100), labels.tolist())}
    Transfer(tasks, setting="dev", cache=tmp_path)(Points(rows))
    for encoder, arguments in ((Points(-rows, "other"), {}), (Points(rows), {"prompt_name": "query"})):
        Transfer(tasks, setting="dev", cache=tmp_path)(encoder, **arguments)
        assert len(encoder.texts) == 100
    assert len(list(tmp_path.iterdir())) == 3
    asked = [{}, {"prompt": "a: "}, {"prompt": "b: "}, {"prompt": "b: ", "batch_size": 8}, {"batch_size": 9}]
    folders = [cache_folder(tmp_path, Points(rows), each) for each in asked]
    assert folders[0] == folders[4]  # the size of batches changes no embedding
    assert folders[2] == folders[3]
    assert len(set(folders)) == 3


def test_results_of_another_schema_are_refused_and_damaged_embeddings_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, labels = noise(100, 2)
    task = Transfer({"one": (numbers(100), labels.tolist())}, setting="dev", cache=tmp_path)
    scores = task(Points(rows)).results
    folder = cache_folder(tmp_path, Points(rows), {})
    results = folder / "results.jsonl"
    written = results.read_bytes()
    for wrong in (b'{"schema": 2, "task": "one"}\n', b'{"task": "one"}\n', b"[]\n"):
        results.write_bytes(written + wrong)
        with pytest.raises(InputError, match=r"results\.jsonl, line 3 has results of schema .* reads schema 1"):
            task(Points(rows))
    (embeddings,) = folder.glob("*.safetensors")
    whole = embeddings.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 64]) + whole[-8:]  # in the exponent of a number
    for damaged in (whole[:100], b"", flipped, whole[:-64] + bytes(64), b"x" * 500):
        results.unlink()
        embeddings.write_bytes(damaged)
        caplog.clear()
        assert task(Points(rows)).results == scores
        assert f"{embeddings} is damaged and is removed" in caplog.text
        assert embeddings.read_bytes() == whole


KILLED = """
import os, signal, sys
import numpy as np
from textcl.evaluation import Transfer

class Dies:
    def encode(self, texts):
        if "60" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.default_rng(0).normal(size=(120, 5))[[int(text) for text in texts]]
    def fingerprint(self):
        return "points"

labels = [0, 1] * 30
tasks = {"one": ([str(i) for i in range(60)], labels), "two": ([str(i) for i in range(60, 120)], labels)}
Transfer(tasks, setting="dev", cache=sys.argv[1])(Dies())
"""


def test_a_killed_run_goes_on_with_the_next_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert python(KILLED, tmp_path).returncode == -signal.SIGKILL
    trained: list[str] = []
    monkeypatch.setattr(transfer, "train", lambda *a, title, **k: trained.append(title) or train(*a, title=title, **k))
    encoder = Points(np.random.default_rng(0).normal(size=(120, 5)))
    labels = [0, 1] * 30
    tasks = {"one": (numbers(60), labels), "two": (numbers(60, 60), labels)}
    result = Transfer(tasks, setting="dev", cache=tmp_path)(encoder)
    assert trained == ["two"]
    assert sorted(encoder.texts, key=int) == numbers(60, 60)
    assert result.results == Transfer(tasks, setting="dev")(encoder).results


def score_two_tasks(rank: int, folder: Path) -> None:
    rows, labels = noise(100, 2)
    tasks = {f"task {rank}": (numbers(100), labels.tolist()), "both": (numbers(100), labels.tolist())}
    Transfer(tasks, mode="fast", setting="dev", cache=folder)(Points(rows))


def test_two_runs_share_one_cache(tmp_path: Path, two_processes: ProcessPool) -> None:
    two_processes(score_two_tasks, tmp_path)
    shared = read_results(cache_folder(tmp_path, Points(np.zeros((1, 1))), {}) / FINISHED)
    assert {line["task"] for line in shared} == {"task 0", "task 1", "both"}
    rows, labels = noise(100, 2)
    encoder = Points(rows)
    Transfer({"both": (numbers(100), labels.tolist())}, setting="dev", cache=tmp_path)(encoder)
    assert encoder.texts == []


def test_odd_texts(tmp_path: Path) -> None:
    class Lengths:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[len(text), text.count("x"), sum(map(ord, text)) % 7] for text in texts], dtype=float)

        def fingerprint(self) -> str:
            return "lengths"

    texts = [f"{odd}{'x' * number}" for odd in ODD for number in range(20)]
    labels = [number % 20 > 9 for number in range(len(texts))]
    for mode in ("senteval", "fast"):
        task = Transfer({"<b>odd</b>": (texts, labels)}, mode=mode, setting="dev", cache=tmp_path)
        result = task(Lengths())
        assert result.primary > 75
        assert task(Lengths()).to_dict() == result.to_dict()
        assert result.save(tmp_path / "result.json").exists()


# the encoder's fingerprint and the command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("transfer") / "model")


def test_the_fingerprint_is_of_what_decides_the_vectors(model: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(model)
    mark = encoder.fingerprint()
    encoder.encode(TEXTS[:5])  # the tokenizer remembers how it padded
    shutil.copytree(model, tmp_path / "copy")
    assert encoder.fingerprint() == Encoder.from_pretrained(tmp_path / "copy").fingerprint() == mark
    others = {mark}
    others.add(Encoder.from_pretrained(model, pooling="cls").fingerprint())
    others.add(Encoder.from_pretrained(model, max_length=5).fingerprint())
    others.add(Encoder.from_pretrained(model, dtype=torch.bfloat16).fingerprint())
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-3
    others.add(encoder.fingerprint())
    assert len(others) == 5


def test_the_command(
    model: Path,
    evaluation_sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--tasks", "cr", "--mode", "fast", "--setting", "dev"]
    variables = {"TEXTCL_DATA": str(evaluation_sets), "XDG_CACHE_HOME": str(tmp_path / "home")}
    run = textcl("eval", model, *flags, cwd=tmp_path, **variables)
    assert (run.returncode, without_progress(run.stderr)) == (0, "")
    assert run.stdout.splitlines()[0].split() == ["Transfer", "CR", "Avg."]
    files = sorted(path.suffix for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert files == [".jsonl", ".safetensors"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        Encoder, "encode", lambda *_, **__: pytest.fail("the task was finished: there is nothing to encode")
    )
    assert main(["eval", str(model), *flags, "--json", "-"]) == 0
    assert f"{json.loads(capsys.readouterr().out)['results']['CR']['accuracy']:.2f}" in run.stdout
    assert main(["eval", str(model), "--tasks", "cr", "--mode", "slow"]) == 2
    assert capsys.readouterr().err == "textcl: There is no mode 'slow'; there are senteval, fast.\n"


def test_comparisons_have_a_column_for_each_task() -> None:
    def line(row: str, accuracy: float) -> dict:
        results = {
            "MR": {"accuracy": accuracy, "dev_accuracy": 1.0},
            "SICKEntailment": {"accuracy": 70.0, "dev_accuracy": 1.0},
            "SICKRelatedness-regression": {"pearson": 60.0, "spearman": 1.0, "dev_pearson": 1.0},
        }
        return {"row": row, "seed": 0, "average": (accuracy + 70) / 2, "dev": None, "results": results}

    figures = comparison([line("a", 80.0), line("b", 82.0)])
    assert figures["columns"] == ["MR", "SICK-E", "Avg. transfer", "SICK-R regression"]
    assert figures["rows"]["b"]["columns"]["Avg. transfer"]["mean"] == 76
    assert figures["rows"]["b"]["difference"]["mean"] == 1
    table = comparison_table(figures)
    assert "Avg. transfer − a" in table
    assert "transfer tasks: test accuracy × 100; regressions: Pearson × 100" in table


def test_every_task_has_a_name_on_the_command_line() -> None:
    from textcl.evaluation import TASKS

    assert TASKS["transfer"] == TRANSFER_TASKS == ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")
    named = {name for names in TASKS.values() for name in names}
    assert set(CLASSIFICATIONS) <= named
    names = {"mr", "cr", "subj", "mpqa", "sst2", "sst5", "trec", "mrpc", "sick-e", "snli", "probing"}
    assert names | {"sickr-regression", "stsb-regression"} <= set(TASKS)
