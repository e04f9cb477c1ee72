"""When training for clusters stops, and what the pages say of it."""

import re
import subprocess
import sys

import pytest
from support.command import REPOSITORY, environment

from textcl.runs.clusters import UNCHANGED
from textcl.runs.recipe import load_recipe


def test_the_page_names_the_rule_by_which_training_stops() -> None:
    """At most one text in twenty has changed its cluster: 95 % are unchanged."""
    page = (REPOSITORY / "docs" / "how-to" / "cluster-your-texts.md").read_text(encoding="utf-8")
    assert UNCHANGED == 100 * (1 - 1 / 20)
    assert "stops when at most one text in twenty has changed its cluster" in page
    assert [float(value) for value in re.findall(r"--target-score ([\d.]+)", page)] == [UNCHANGED, UNCHANGED]
    for name in ("agnews", "searchsnippets", "stackoverflow"):
        assert load_recipe(f"standard-sccl-{name}")["target_score"] == UNCHANGED


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
