"""What importing costs, and what the package promises to be there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
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
        ["map", "--help"],
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
    assert extras.pop("all") == [f"{project['name']}[aug,search,mteb,viz,map,onnx]"]
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


def test_the_wheel_is_below_forty_megabytes() -> None:
    """Its files before compression are."""
    files = [path for path in (REPOSITORY / "textcl").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 40_000_000


def test_the_package_under_test_is_that_of_this_folder() -> None:
    """Also in an unpacked source distribution, where another copy may be installed."""
    assert Path(textcl.__file__).parent == REPOSITORY / "textcl"


def test_the_distribution_has_its_own_name_its_licences_and_no_addresses() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["name"] == "textcl-embeddings"  # "textcl" on PyPI is another package
    assert "urls" not in project
    licences = {path for pattern in project["license-files"] for path in REPOSITORY.glob(pattern)}
    assert licences == {REPOSITORY / "LICENSE", *(REPOSITORY / "textcl").rglob("LICENSE")}
    assert len(licences) == 4


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == textcl.__version__
    assert citation["authors"] == [{"name": "The textcl authors"}]


def test_the_readme_can_be_read_outside_the_repository() -> None:
    """Its links lead to anchors of the page itself, or to public addresses. Elsewhere a picture is its description."""
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page)
    assert all(description and (REPOSITORY / path).is_file() for description, path in pictures)
    targets = set(re.findall(r"\]\(([^)\s]+)\)", page)) - {path for _, path in pictures}
    assert [target for target in targets if not target.startswith(("#", "https://"))] == []


def test_no_message_or_page_installs_the_strangers_package() -> None:
    """`pip install textcl`, with an extra or without, would bring the package that has this name on PyPI."""
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    sources = [path for folder in ("textcl", "benchmarks", "examples") for path in (REPOSITORY / folder).rglob("*.py")]
    for path in (*pages, *sources, *(REPOSITORY / "textcl" / "recipes").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"textcl\[|pip install [^`\"\n]*\btextcl\b(?!-)", text), path


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    """What `make test-lowest` installs."""
    run = subprocess.run(
        [sys.executable, "tools/lowest.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = [pin.replace("==", ">=") for pin in run.stdout.split()]
    assert [pin.split(">=")[0] for pin in lowest] == ["torch", "transformers", "sentence-transformers", "datasets"]
    assert set(lowest) <= {requirement.split(",")[0] for requirement in declared}
