"""The notebooks: what is stored of them, and that each runs from its first cell to its last without an error."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.command import REPOSITORY, environment

FOLDER = REPOSITORY / "docs" / "notebooks"
NOTEBOOKS = ("adapt", "compare", "learn")
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def stored(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def execute(content: dict[str, Any], folder: Path) -> list[str]:
    """Runs a notebook in a folder, and returns the printed text of its code cells; an error is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(json.dumps(content), as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(each.text for each in cell.outputs if each.output_type == "stream") for cell in cells]


def test_each_notebook_is_in_the_list_and_on_the_page() -> None:
    assert {path.name for path in REPOSITORY.glob("docs/**/*.ipynb")} == {f"{name}.ipynb" for name in NOTEBOOKS}
    assert {path.parent for path in REPOSITORY.glob("docs/**/*.ipynb")} == {FOLDER}
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert all(f"({name}.ipynb)" in page for name in NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_without_outputs_errors_and_traces_of_a_machine(name: str) -> None:
    import nbformat

    content = stored(name)
    nbformat.validate(content)
    assert content["metadata"] == {**KERNEL, "language_info": {"name": "python"}}
    for cell in content["cells"]:
        assert cell["metadata"] == {}, "a tag such as raises-exception would allow errors"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and the environment of a user without evaluation sets and without a network."""
    for name, value in environment(XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_without_errors(name: str, machine: Path) -> None:
    printed = "\n".join(execute(stored(name), machine))
    said = {"adapt": "VERDICT: ", "compare": "(95 %, over pairs).", "learn": "by hand "}
    assert said[name] in printed
    assert not list(machine.glob("*.ipynb"))


@pytest.mark.slow
def test_an_error_in_a_notebook_is_not_passed_over(machine: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    content = stored("learn")
    cell = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute({**content, "cells": [{**cell, "source": "1 / 0"}]}, machine)
