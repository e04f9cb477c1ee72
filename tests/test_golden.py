"""What users rely on is what it was: recipes, flags, state-dict keys, exit codes, as tests/golden.json has them.

A deliberate change is a commit of its own: `python tools/golden.py --write`, and a message that says what and why.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
import transformers

THEIR_FLAGS = {each.name for each in dataclasses.fields(transformers.TrainingArguments)}
TOOL = Path(__file__).parents[1] / "tools" / "golden.py"
EXPECTED = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden():
    specification = importlib.util.spec_from_file_location("golden", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", ["recipes", "flags", "state", "exit_codes"])
def test_nothing_differs(golden, part):
    found, expected = json.loads(json.dumps(getattr(golden, part)())), EXPECTED[part]
    if transformers.__version__ != EXPECTED["transformers"]:  # whose flags and defaults are others then
        expected, found = known_to_both(expected, found), known_to_both(found, expected)
    assert list(golden.differences(expected, found)) == []


def known_to_both(one, other):
    """The part of nested dictionaries whose keys the other has as well, without the flags of transformers' trainer."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one
    keys = [key for key in one if key in other and key not in THEIR_FLAGS]
    return {key: known_to_both(one[key], other[key]) for key in keys}


def test_a_difference_is_found(golden):
    assert list(golden.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 2}})) == [
        '/a/c: 2 -> "(absent)"',
        '/a/d: "(absent)" -> 2',
    ]
