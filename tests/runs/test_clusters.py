"""When training for clusters stops, what the pages say of it, and how its clusters differ from those before it."""

import re
import subprocess
import sys

import numpy as np
import pytest
from support.command import REPOSITORY, environment

from textcl.evaluation.clusters import ClusteredTexts, cluster_texts, embed
from textcl.report.clusters import adapted_sentences
from textcl.runs.clusters import UNCHANGED, compare_with_untouched
from textcl.runs.recipe import load_recipe


def test_the_page_names_the_rule_by_which_training_stops() -> None:
    """At most one text in twenty has changed its cluster: 95 % are unchanged."""
    page = (REPOSITORY / "docs" / "how-to" / "cluster-your-texts.md").read_text(encoding="utf-8")
    assert UNCHANGED == 100 * (1 - 1 / 20)
    assert "stops when at most one text in twenty has changed its cluster" in page
    assert [float(value) for value in re.findall(r"--target-score ([\d.]+)", page)] == [UNCHANGED, UNCHANGED]
    for name in ("agnews", "searchsnippets", "stackoverflow"):
        assert load_recipe(f"standard-sccl-{name}")["target_score"] == UNCHANGED


class Places:
    """An encoder that puts text n to a place, which is a line with three heaps."""

    def __init__(self, places: np.ndarray) -> None:
        self.places = places

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.places, np.arange(len(self.places)) / 1e3], axis=1)[[int(text) for text in texts]]


def in_three(places: np.ndarray) -> tuple[ClusteredTexts, np.ndarray]:
    texts = [str(number) for number in range(len(places))]
    return cluster_texts(Places(places), texts, 3), embed(Places(places), texts)


def test_texts_in_another_cluster_are_counted_whatever_the_numbers_of_the_clusters_are() -> None:
    before = np.repeat([0.0, 10.0, 20.0], [40, 30, 20])
    found, vectors = in_three(before)
    assert compare_with_untouched(vectors, found).changed == 0
    moved = np.repeat([20.0, 0.0, 10.0], [40, 30, 20])  # the same clusters in another order
    moved[:6], moved[45] = 0.0, 10.0
    found, _ = in_three(moved)
    difference = compare_with_untouched(vectors, found)
    assert difference.changed == 7
    assert difference.before == difference.after == 1.0
    noise = np.random.default_rng(0).normal(size=(90, 2))  # k-means on halves of it does not agree
    difference = compare_with_untouched(noise, found)
    assert difference.before < 0.9 < difference.after == 1.0


def test_what_is_said_of_trained_clusters_is_no_verdict() -> None:
    said = adapted_sentences(7, 90, 0.5, 0.75)
    assert said[0].startswith("Whether --adapt made the clusters better cannot be said without labels.")
    assert "7 of 90 texts (7.8 %) are in another cluster." in said[0]
    assert "agreed to 0.50 before and 0.75 after" in said[1]
    assert said[2].endswith("textcl adapt MODEL,DIR --data FILE --for clusters --dev labels:LABELLED")
    assert len(adapted_sentences(7, 90, None, None)) == 2


GROWTH = """
import resource, tempfile
from textcl import Encoder
from textcl.runs.clusters import train_for_clusters
encoder = Encoder.from_pretrained("bundled")
texts = [f"number {n} of {' and '.join(str(n * k % 97) for k in range(1, 20))}" for n in range(200)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with tempfile.TemporaryDirectory() as run:
    train_for_clusters(encoder, texts, 4, run=run, steps=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_the_memory_of_a_large_batch_is_that_of_one_slice() -> None:
    """200 texts with two views have activations of 1.6 GB; one slice has half of that, whatever the batch."""
    done = subprocess.run([sys.executable, "-c", GROWTH], env=environment(), capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) / 1024 < 1000
