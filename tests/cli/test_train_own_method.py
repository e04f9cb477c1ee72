"""An own method by package.module:ClassName, from a folder outside the repository: trained, and compared."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import python, textcl
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.errors import InputError
from textcl.files import read_results
from textcl.methods import MoCo
from textcl.methods.find import find_method, imported_method
from textcl.runs.card import papers
from textcl.runs.recipe import load_recipe

OWN = '''\
"""The methods of somebody else."""
import pathlib

from textcl.methods import Method
from textcl.metrics.geometry import alignment, uniformity

pathlib.Path("imported").touch()


class MyMethod(Method):
    """Views of a text are near, and texts are spread evenly.

    Args:
        encoder: The encoder.
        spread: How much texts are spread.
    """

    paper = "Nobody (2026). A paper."

    def __init__(self, encoder, spread: float = 1.0) -> None:
        super().__init__(encoder)
        self.spread = spread

    def objective(self, embeddings, batch):
        first, second = embeddings.chunk(2)
        return {"loss": alignment(first, second) + self.spread * uniformity(first)}


class Untyped(Method):
    def __init__(self, encoder, spread=1.0) -> None:
        super().__init__(encoder)


class NotOne:
    pass
'''
FLAGS = ["--max-steps", "2", "--per-device-train-batch-size", "8", "--dev", "none"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an own method, a tiny model, texts and a recipe."""
    (tmp_path / "mymethods.py").write_text(OWN)
    tiny_encoder_directory(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:48]) + "\n")
    (tmp_path / "own.yaml").write_text("method: mymethods:MyMethod\nmodel: model\ndata: texts.txt\nspread: 0.5\n")
    return tmp_path


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as the current one of this process, which forgets afterwards what it imported there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    sys.modules.pop("mymethods", None)


def test_an_own_method_is_trained(folder: Path) -> None:
    run = textcl(
        *("train", "mymethods:MyMethod", "--data", "texts.txt", "--model", "model", "--spread", "0.25", *FLAGS),
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("48 rows, 2 steps")
    output = folder / "runs" / "mymethods-MyMethod"
    record = json.loads((output / "run.json").read_text())
    assert (record["recipe"]["method"], record["recipe"]["spread"]) == ("mymethods:MyMethod", 0.25)
    assert record["command"].startswith("textcl train mymethods:MyMethod ")
    assert "--per-device-train-batch-size=8" in record["command"]
    card = (output / "export" / "README.md").read_text()
    assert "Nobody (2026). A paper." in card
    assert "- spread: `0.25`" in card

    shown = textcl("train", "mymethods:MyMethod", "--help", cwd=folder).stdout
    assert "--spread 1.0" in shown
    assert "How much texts are spread." in shown


@pytest.mark.slow
def test_a_recipe_that_names_one_is_refused_without_allow_code_and_then_compared(folder: Path, few_sets: Path) -> None:
    compare = ("compare", "own.yaml", "--seeds", "1", "--tasks", "sts16", "--baselines", "none", *FLAGS)
    for command in (("train", "own.yaml"), compare, ("train", "own.yaml", "--help")):
        run = textcl(*command, cwd=folder)
        assert run.returncode == 2
        assert "own.yaml names the method mymethods:MyMethod, whose code would be run" in run.stderr
        assert "--allow-code" in run.stderr
        assert not (folder / "imported").exists()  # nothing of it was run
        assert not (folder / "runs").exists()
    run = textcl(*compare, "--allow-code", "--json", "-", cwd=folder, TEXTCL_DATA=str(few_sets))
    assert run.returncode == 0, run.stderr
    assert "own" in json.dumps(json.loads(run.stdout))

    # another code is another run
    again = textcl(*compare, "--allow-code", cwd=folder, TEXTCL_DATA=str(few_sets))
    assert "finished earlier" in again.stderr
    (only,) = read_results(folder / "runs" / "compare" / "results.jsonl")
    assert planned(folder) == only["fingerprint"]
    (folder / "mymethods.py").write_text(OWN.replace("self.spread *", "2 * self.spread *"))
    assert planned(folder) != only["fingerprint"]


def planned(folder: Path) -> str:
    """The fingerprint by which `compare` knows the run of the recipe."""
    code = "import sys; from textcl.runs.compare import _plan;"
    code += "print(*(row.fingerprint for row in _plan(['own.yaml'], 1, sys.argv[1:], [], allow_code=True)))"
    run = python(code, *FLAGS, cwd=folder)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_recipe_cannot_allow_its_own_code(folder: Path) -> None:
    (folder / "own.yaml").write_text("method: mymethods:MyMethod\nallow_code: true\ndata: texts.txt\n")
    with pytest.raises(InputError, match="--allow-code"):
        load_recipe(folder / "own.yaml")
    (folder / "sly.yaml").write_text("method: simcse\nallow_code: true\ndata: texts.txt\n")
    assert main(["train", str(folder / "sly.yaml")]) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing:MyMethod", "no module nothing, neither in"),
        ("mymethods:MyMethd", "mymethods has no class 'MyMethd'. Did you mean 'MyMethod'?"),
        ("mymethods:NotOne", "mymethods:NotOne is not a method: it must be a subclass"),
        ("mymethods:Untyped", "The parameter spread of mymethods:Untyped has no type"),
        ("my methods:X", "An own method is named as package.module:ClassName"),
        ("mymethods:", "An own method is named as package.module:ClassName"),
    ],
)
def test_an_own_method_that_cannot_be_found(
    name: str, message: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["train", name, "--data", "texts.txt"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_missing_inside_a_module_is_not_taken_for_the_module(inside: Path) -> None:
    (inside / "broken.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        find_method("broken:X")


def test_a_report_does_not_import_the_method_of_a_run(inside: Path) -> None:
    assert papers({"method": "mymethods:MyMethod"}) == []
    assert not (inside / "imported").exists()
    assert imported_method("os:path") is None
    assert imported_method("textcl.methods.moco:MoCo") is find_method("moco") is MoCo
