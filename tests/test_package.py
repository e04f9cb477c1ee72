"""What importing costs, and what the package promises to be there."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.command import REPOSITORY, environment

import textcl

HEAVY = ["torch", "transformers", "datasets", "sentence_transformers", "scipy", "sklearn", "numpy", "nlpaug", "pandas"]


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after running some code."""
    report = f"\nimport sys; print('LOADED', *(set({HEAVY!r}) & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", code + report], env=environment(), capture_output=True, text=True, check=True
    )
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


def test_importing_textcl_loads_nothing_heavy() -> None:
    assert loaded_after("import textcl") == set()


def test_the_check_above_can_fail() -> None:
    assert "torch" in loaded_after("import textcl; textcl.Encoder")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["eval", "--help"],
        ["data", "--help"],
        ["cluster", "--help"],
        ["encode", "--help"],
        ["search", "--help"],
        ["results", "--help"],
        ["methods", "--help"],
        ["recipes", "--help"],
        ["compare", "--help"],
        ["env", "--help"],
        ["data", "list", "--help"],
        ["data", "list", "--jsno"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"from textcl.cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    assert loaded_after(code) == set()


def test_every_public_name_is_there() -> None:
    for name in textcl.__all__:
        assert getattr(getattr(textcl, name), "__name__", "METHODS") == name
    assert set(textcl.__all__) <= set(dir(textcl))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SimCES'"):
        _ = textcl.SimCES


def test_type_checkers_see_every_public_name() -> None:
    source = (REPOSITORY / "textcl" / "__init__.py").read_text()
    typed = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    assert all(name in typed for name in textcl.__all__)
    assert (REPOSITORY / "textcl" / "py.typed").is_file()


def test_constraints_pin_every_dependency_exactly() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(each for extra in extras.values() for each in extra)]:
        name = requirement.lower()
        for sign in "<>=;[":
            name = name.split(sign)[0]
        assert name in pins or name.replace("-", "_") in pins, f"{requirement} is not pinned"
    assert pins["torch"] == "2.13.0"


def test_package_data_matches_what_is_there() -> None:
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "textcl"
    ]
    package = REPOSITORY / "textcl"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    loose = {p for p in package.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert {Path(p) for p in loose} <= packed
