"""Several evaluators in one call: no result overwrites another, and averages are over all tasks of a kind."""

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.tiny import HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.errors import InputError
from textcl.evaluation import (
    Clustering,
    LabelFree,
    LabelledPairs,
    Result,
    Retrieval,
    STSSuite,
    Transfer,
    cluster_texts,
    evaluate,
    overlap,
)
from textcl.evaluation.results import join, numbered, short_name
from textcl.evaluation.transductive import mark_transductive


class Table:
    """Embeds each text as the row that it has in a table."""

    def __init__(self, rows: dict[str, Sequence[float]]) -> None:
        self.rows = rows

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.rows[text] for text in texts], dtype=float)


WORDS = ["cat", "dog", "car", "bus"]
PLANE = Table({"cat": (1, 0), "dog": (0.9, 0.1), "car": (0, 1), "bus": (0.1, 0.9)})


def test_the_average_of_two_clusterings_is_the_mean_of_both() -> None:
    """By hand: k-means finds {cat, dog} and {car, bus}, which are the classes of a, and half right for b."""
    a, b = Clustering({"a": (WORDS * 5, [0, 0, 1, 1] * 5)}), Clustering({"b": (WORDS * 5, [0, 1, 0, 1] * 5)})
    result = evaluate(PLANE, "", evaluators=[a, b])
    assert {task: entry["accuracy"] for task, entry in result.results.items()} == {"a": 100.0, "b": 50.0}
    assert result.average["accuracy"] == result.primary == 75.0
    assert result.table().splitlines()[1].split() == ["accuracy", "100.00", "50.00", "75.00"]
    assert result.average["nmi"] == pytest.approx(50.0)
    assert set(result.provenance["tasks"]) == {"a", "b"}


def write_pairs(path: Path, scores: Sequence[float]) -> Path:
    """Pairs with the cosines of 80, 60, 40 and 20 degrees."""
    path.write_text("".join(f"0\t{angle}\t{score}\n" for angle, score in zip((80, 60, 40, 20), scores, strict=True)))
    return path


class Angles:
    """Embeds "35" as the unit vector at 35 degrees."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[math.cos(math.radians(float(t))), math.sin(math.radians(float(t)))] for t in texts])


def test_two_files_of_pairs_are_two_results(tmp_path: Path) -> None:
    """By hand: ranks 1 2 3 4 beside 1 2 4 3, and beside 4 3 2 1."""
    files = [write_pairs(tmp_path / "a.tsv", (1, 2, 4, 3)), write_pairs(tmp_path / "b.tsv", (4, 3, 2, 1))]
    result = evaluate(Angles(), "", evaluators=[LabelledPairs(file) for file in files])
    assert {task: entry["all"] for task, entry in result.results.items()} == pytest.approx(
        {"pairs": 80.0, "pairs-2": -100.0}
    )
    assert result.average == pytest.approx({"all": -10.0, "mean": -10.0, "wmean": -10.0})
    assert list(result.results["pairs"]["subsets"]) == ["a.tsv"]
    assert list(result.results["pairs-2"]["subsets"]) == ["b.tsv"]
    hashes = [result.provenance["tasks"][task]["data_sha256"] for task in ("pairs", "pairs-2")]
    assert hashes[0] != hashes[1]
    assert result.table().splitlines()[0].split() == ["Spearman", "pairs", "pairs", "2", "Avg."]


def test_tasks_and_own_pairs_are_averaged_together(evaluation_sets: Path, tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("a cat\ta kitten\t5\na cat\tthe stock market\t0\nrain\tsnow\t3\n")
    pairs = LabelledPairs(tmp_path / "p.tsv")
    result = evaluate(HashedWords(), "stsb-dev,sickr-dev", evaluators=[pairs], data_dir=evaluation_sets)
    assert len(result.results) == 3
    for name in ("all", "mean", "wmean"):
        assert result.average[name] == pytest.approx(sum(entry[name] for entry in result.results.values()) / 3)


def test_two_retrievals_keep_their_own_scores_and_provenance(caplog: pytest.LogCaptureFixture) -> None:
    documents = {"a": "cat", "b": "car"}
    found = Retrieval({"q": "dog"}, documents, {"q": {"a": 1}})
    missed = Retrieval({"q": "dog"}, documents, {"q": {"b": 1}})
    flat = Retrieval({"q": "dog"}, {"x": "bus", "y": "bus"}, {"q": {"x": 1}})
    result = evaluate(PLANE, "", evaluators=[found, missed, flat])
    assert {task: entry["mrr@10"] for task, entry in result.results.items()} == {
        "retrieval": 100.0,
        "retrieval-2": 50.0,
        "retrieval-3": 0.0,
    }
    assert result.average["mrr@10"] == 50.0
    assert result.provenance["undefined"] == ["retrieval-3 1 of 1 queries"]
    assert [facts["documents"] for facts in result.provenance["tasks"].values()] == [2, 2, 2]
    several = evaluate(PLANE, "", evaluators=[flat, flat, found]).provenance["undefined"]
    assert several == ["retrieval 1 of 1 queries", "retrieval-2 1 of 1 queries"]


def test_the_provenance_of_each_result_is_kept() -> None:
    own = {"mine": (WORDS * 20, [0, 0, 1, 1] * 20)}
    slow, fast = Transfer(own, setting="dev"), Transfer(own, mode="fast", setting="dev")
    tasks = evaluate(PLANE, "", evaluators=[slow, fast]).provenance
    assert tasks["transfer"]["mode"] == "senteval"
    assert "transfer" not in tasks["tasks"]["mine"]
    assert tasks["tasks"]["mine-2"]["transfer"]["mode"] == "fast"
    assert tasks["tasks"]["mine-2"]["convention"]["mode"] == "fast"


def test_a_numbered_task_is_marked_like_the_task_itself() -> None:
    entry = {"kind": "transfer", "accuracy": 70.0, "dev_accuracy": 70.0}
    parts = [Result({"TREC": dict(entry)}, {}, {"transfer": {"setting": setting}}) for setting in ("test", "dev")]
    clean, seen = {"found": 0, "total": 10}, {"found": 10, "total": 10}
    marked = mark_transductive(join(parts), {"TREC": {"train": seen, "test": clean}})
    assert [marked.results[task]["transductive"] for task in ("TREC", "TREC-2")] == [False, True]


def test_results_of_own_evaluators_are_kept_too() -> None:
    own = [Result({"mine": {"points": value}}, {"points": value}) for value in (1.0, 3.0)]
    result = join([Result({"AgNews": {"kind": "clustering", "accuracy": 1.0, "nmi": 2.0, "ari": 3.0}}, {}), *own])
    assert result.results["mine"] == {"points": 1.0}
    assert result.results["mine-2"] == {"points": 3.0}
    assert result.average == {"accuracy": 1.0, "nmi": 2.0, "ari": 3.0, "points": 1.0, "points-2": 3.0}
    assert "100" not in result.table()


def test_what_returns_no_result_is_refused() -> None:
    texts = [f"the number {number} of some texts" for number in range(12)]
    clusters = Clustering({"a": (WORDS, [0, 0, 1, 1])})
    for wrong, kind in ((LabelFree(texts), "Scores"), (lambda encoder: {"accuracy": 3.0}, "dict")):
        with pytest.raises(InputError, match=f"returned an object of type {kind}"):
            evaluate(HashedWords(), "", evaluators=[clusters, wrong])


def test_equal_names_are_numbered() -> None:
    assert numbered(["pairs", "pairs", "pairs-2", "pairs"]) == ["pairs", "pairs-2", "pairs-2-2", "pairs-3"]
    assert short_name("STSBenchmark-2") == "STS-B 2"


def test_a_set_with_other_bytes_is_scored_with_a_line(
    evaluation_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """500 human scores are set to 0. The number of pairs is right, so the set can be scored."""
    model = tiny_encoder_directory(tmp_path / "model")
    folder = tmp_path / "sets" / "STS" / "STSBenchmark"
    shutil.copytree(evaluation_sets / "STS" / "STSBenchmark", folder)
    command = ["eval", str(model), "--tasks", "stsb-dev", "--data-dir", str(tmp_path / "sets"), "--max-length", "8"]
    assert main(command) == 0
    right = capsys.readouterr().out
    assert not [line for line in caplog.messages if "SHA-256" in line]
    lines = (folder / "sts-dev.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    cells = [line.split("\t") for line in lines[:500]]
    damaged = ["\t".join([*row[:4], "0.0", *row[5:]]) for row in cells]
    (folder / "sts-dev.csv").write_text("".join([*damaged, *lines[500:]]), encoding="utf-8")
    assert main(command) == 0
    assert capsys.readouterr().out != right
    (said,) = (line for line in caplog.messages if "SHA-256" in line)
    assert said.startswith(f"STSBenchmark: a file in {folder} is not the known one (its SHA-256 differs)")


@pytest.mark.parametrize("evaluator", [Clustering, Transfer])
def test_labels_that_are_fractions_are_classes_without_warnings(evaluator: type) -> None:
    own = {"mine": (WORDS * 10, [0.5, 0.5, 1.5, 1.5] * 10)}
    options = {"mode": "fast", "setting": "dev"} if evaluator is Transfer else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluator(own, **options)(PLANE).primary == 100


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda count: "a text", "must return rows of real numbers of one length: could not convert"),
        (lambda count: {"vectors": 1}, "must return rows of real numbers of one length"),
        (lambda count: [[1.0, 2.0]] + [[1.0]] * (count - 1), "must return rows of real numbers of one length"),
        (lambda count: np.ones((count, 3)) * 1j, "must return rows of real numbers of one length"),
        (lambda count: np.ones((count, 0)), r"returned an array of shape \(\d+, 0\)"),
        (lambda count: np.full((count, 3), 1e200), "returned NaN or infinite values"),
    ],
)
def test_rows_that_are_no_vectors_are_refused_by_every_evaluator(output: object, message: str, tmp_path: Path) -> None:
    class Encoder:
        def encode(self, texts: Sequence[str]) -> object:
            return output(len(texts))

    pairs = write_pairs(tmp_path / "p.tsv", (1, 2, 4, 3))
    for evaluator in (
        LabelledPairs(pairs),
        Clustering({"a": (WORDS, [0, 0, 1, 1])}),
        Retrieval({"q": "x", "r": "y"}, {"a": "cat", "b": "dog"}, {"q": {"a": 1}, "r": {"b": 1}}),
        Transfer({"a": (WORDS * 5, [0, 0, 1, 1] * 5)}, mode="fast", setting="dev"),
        LabelFree([f"the number {number} of some texts" for number in range(12)]),
    ):
        with pytest.raises(InputError, match=message):
            evaluator(Encoder())


def test_zero_vectors_are_no_even_spread() -> None:
    """Zero vectors have no distance to each other and uniformity's kernel of orthogonal ones: the best of both."""

    class Zeros:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), 4))

    criterion = LabelFree([f"the number {number} of some texts" for number in range(12)], "alignment_uniformity")
    with pytest.raises(InputError, match="the zero vector for every text"):
        criterion(Zeros())


OWN = {"q": "x"}, {"a": "cat", "b": "dog"}, {"q": {"a": 1}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(PLANE, "", evaluators="abc"), "evaluators must be a list of evaluators, not 'abc'"),
        (lambda: evaluate(PLANE, "", evaluators=[None]), "evaluators must be a list of evaluators"),
        (lambda: evaluate(PLANE, "", evaluators=Retrieval(*OWN)), "evaluators must be a list of evaluators"),
        (lambda: evaluate(PLANE, None), "tasks must be names, .* not None"),
        (lambda: evaluate(PLANE, [3]), r"tasks must be names, .* not \[3\]"),
        (lambda: evaluate(None, "sts"), "must be a name, a path or an object"),
        (lambda: Clustering({}), "at least one set and one seed"),
        (lambda: Clustering({"a": (WORDS, [0, 1, 0, 1])}, seeds=()), "at least one set and one seed"),
        (
            lambda: Clustering({"AgNews": (WORDS, [0, 1, 0, 1])}),
            "cannot be called 'AgNews', because AgNews is a public",
        ),
        (lambda: Transfer({"MRPC": (WORDS, [0, 1, 2, 1])}), "another name, such as 'own MRPC'"),
        (lambda: Transfer({"TREC-6": (WORDS, [0, 1, 0, 1])}), "cannot be called 'TREC-6', because TREC is a public"),
        (lambda: Transfer({"STSBenchmark-regression": (WORDS, [0, 1, 0, 1])}), "is a public set"),
        (lambda: Clustering({"a": WORDS}), r"a must be a pair: \(texts, labels\)"),
        (lambda: Transfer({"a": WORDS}), r"a must be a pair: \(texts, labels\)"),
        (lambda: LabelFree(WORDS, []), "Name at least one criterion"),
        (lambda: cluster_texts(PLANE, WORDS, 2.5), "must be a whole number, not 2.5"),
        (lambda: Retrieval(*OWN, chunk_size=-1), "chunk_size must be at least 1, not -1"),
        (lambda: Retrieval(["x"], *OWN[1:]), "Each query needs an id"),
        (lambda: Retrieval(pd.Series(OWN[0]), *OWN[1:]), "Each query needs an id: .*, not a Series"),
        (lambda: Retrieval(OWN[0], np.array(["cat", "dog"]), OWN[2]), "Each document needs an id: .*, not a ndarray"),
        (lambda: Retrieval(*OWN[:2], pd.DataFrame({"q": ["a"]})), "The relevance must be a dictionary"),
        (lambda: Retrieval(*OWN, titles=pd.Series({"a": "c"})), "Each title needs an id"),
        (
            lambda: Retrieval({0: "x"}, {0: "cat"}, {"0": {0: 1}}),
            "query '0', which is not among the queries, such as 0",
        ),
        (lambda: Retrieval({0: "x"}, {0: "cat"}, {0: {"0": 1}}), "such as '0', is among the documents, such as 0;"),
        (lambda: Clustering({"a": (WORDS, [0, 1, 0, 1])}, seeds=5), "seeds must be several whole numbers, .* not 5"),
        (lambda: Retrieval(*OWN[:2], {"q": ["a"]}), "The relevance must be a dictionary"),
        (lambda: Retrieval(*OWN[:2], {"q": {"a": "1"}}), "is not a finite number"),
        (lambda: Retrieval(OWN[0], {1: "cat", "b": "dog"}, OWN[2]), "must all be words or all be numbers"),
    ],
)
def test_arguments_of_another_kind_are_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_ids_and_seeds_of_numpy_are_saved_as_numbers(tmp_path: Path) -> None:
    ids = np.arange(3)
    texts = {each: f"text {each}" for each in ids}
    asked = Retrieval(texts, texts, {each: {each: 1} for each in ids})(HashedWords())
    clusters = Clustering({"a": (WORDS, [0, 0, 1, 1])}, seeds=np.arange(2))(HashedWords())
    for result in (asked, clusters):
        content = json.loads(result.save(tmp_path / "result.json").read_text(encoding="utf-8"))
        assert content["average"] == result.average


def test_one_name_is_not_read_letter_by_letter(evaluation_sets: Path) -> None:
    assert list(STSSuite("STS12, STSBenchmark-dev", evaluation_sets).tasks) == ["STS12", "STSBenchmark-dev"]
    assert list(Transfer("TREC", evaluation_sets).tasks) == ["TREC"]
    assert list(Clustering("AgNews", evaluation_sets).sets) == ["AgNews"]
    assert list(overlap(["a text"], "STS16", evaluation_sets)) == ["STS16"]
