"""When training for clusters stops, and what the pages say of it."""

import re

from support.command import REPOSITORY

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
