"""Options that change nothing as the others are: a run says so, and still trains."""

import inspect
import logging
from pathlib import Path

import pytest
from support.runs import small_run, write_inputs

from textcl.methods import METHODS
from textcl.methods.find import find_method
from textcl.runs.idle import warn_of_idle
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "changes nothing" in record.message]


def test_a_run_says_which_of_its_flags_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_inputs(tmp_path)
    flags = small_run(tmp_path, tmp_path / "run", method="simcse-plus", max_steps=1, queue_momentum=0.5)
    with caplog.at_level(logging.WARNING):
        record = run_recipe(resolve(flags)[0]).record
    assert said(caplog) == ["--queue-momentum 0.5 changes nothing, because it needs --queue-size."]
    assert record.steps == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"method": "consert", "classes": 5}, "--classes 5 changes nothing, because it needs --objective supervised or "
         "--objective joint."),
        ({"method": "simcse-plus", "ranking_temperature": 1}, "--ranking-temperature 1.0 changes nothing, because it "
         "needs --ranking-weight or --consistency-weight."),
        ({"method": "simcse-plus", "ranking_temperature": 1, "consistency_weight": 1}, None),
        ({"method": "consert", "classes": 5, "objective": "joint"}, None),
        ({"method": "byol", "asymmetric": False, "target_dropout": False}, "--target-dropout False changes nothing, "
         "because it needs --asymmetric."),
        ({"method": "byol", "target_dropout": False}, None),
        ({"method": "simcse", "mlm_probability": 0.15}, None),  # the default, written out as a recipe may have it
    ],
)  # fmt: skip
def test_an_option_needs_one_of_those_it_belongs_to(
    flags: dict[str, object], message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = resolve(flags)[0]
    warn_of_idle(find_method(recipe.method), recipe.flags)
    assert said(caplog) == ([message] if message else [])


def test_what_options_need_are_options_of_the_method() -> None:
    for method in map(find_method, METHODS):
        needed = (each.split("=")[0] for alternatives in method.option_needs.values() for each in alternatives)
        assert {*method.option_needs, *needed} <= set(inspect.signature(method).parameters), method.name
