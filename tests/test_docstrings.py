"""The examples in docstrings give what they say."""

import doctest
import pkgutil
from importlib import import_module

import numpy as np
import pytest
import torch

import textcl

MODULES = [
    each.name for each in pkgutil.walk_packages(textcl.__path__, "textcl.") if not each.name.endswith("__main__")
]
ROOMS = sorted({name.split(".")[1] for name in MODULES})


@pytest.mark.parametrize("room", ROOMS)
def test_the_examples_of_a_room(room, tmp_path, monkeypatch, capsys):
    """An example may use the public names, numpy and torch, and what its own module has."""
    monkeypatch.chdir(tmp_path)
    known = {name: getattr(textcl, name) for name in textcl.__all__} | {"np": np, "torch": torch, "textcl": textcl}
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options)
    for name in (each for each in MODULES if each.split(".")[1] == room):
        module = import_module(name)
        for example in doctest.DocTestFinder().find(module, globs={**known, **vars(module)}):
            runner.run(example)
    assert runner.failures == 0, capsys.readouterr().out
