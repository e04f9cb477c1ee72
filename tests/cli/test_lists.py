"""`textcl methods` and `textcl recipes`, and --json in every command that prints results."""

import json
from pathlib import Path

import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.cli.methods import list_methods
from textcl.cli.recipes import list_recipes
from textcl.methods import METHODS
from textcl.runs.recipe import RECIPES, load_recipe

FAMILIES = {"negatives", "clustering", "asymmetry", "redundancy reduction"}


def test_methods_are_a_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*METHODS]
    for line, method in zip(lines, METHODS.values(), strict=True):
        assert method.family in FAMILIES
        assert f"  {method.family}  " in line
        assert f"  {method.needs}  " in line
    simclr = next(line for line in lines if line.startswith("simclr"))
    assert simclr.split("  ")[-1] == "standard-simclr"
    assert METHODS["declutr"].needs == "documents"


def test_recipes_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted(RECIPES.glob("*.yaml"), key=lambda path: path.stem)
    assert [line.split()[0] for line in lines] == [file.stem for file in files]
    for line, file in zip(lines, files, strict=True):
        content = load_recipe(file)
        assert line.split()[1:4] == [content["method"], content["model"], content["data"]]
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert line.endswith(first.removeprefix("# "))
        assert first.startswith("# ")
        assert first.endswith("."), f"the first line of {file.name} is not a sentence"


def test_every_recipe_is_named_with_its_method() -> None:
    named = {recipe: each["name"] for each in list_methods() for recipe in each["recipes"]}
    assert named == {recipe["name"]: recipe["method"] for recipe in list_recipes()}
    assert named["standard-moco"] == "moco"


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_misspelt_recipe_is_answered_with_the_nearest(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "standard-simsce"]) == 2
    assert "Did you mean 'standard-simcse'?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, texts and their vectors."""
    folder = tmp_path_factory.mktemp("lists")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:48]) + "\n")
    assert main(["encode", str(folder / "model"), str(folder / "texts.txt"), "--output", str(folder / "vectors")]) == 0
    return folder


PRINTING = {
    "methods": ["methods"],
    "recipes": ["recipes"],
    "env": ["env"],
    "data list": ["data", "list"],
    "search": ["search", "vectors", "a boat", "--top", "3"],
    "cluster": ["cluster", "model", "texts.txt", "--clusters", "3", "--output", "OUT/c.csv"],
    "encode, an array": ["encode", "model", "texts.txt", "--output", "OUT/v.npy"],
    "encode, a directory": ["encode", "model", "texts.txt", "--output", "OUT/v"],
}
KEYS = {
    "data list": {"folder", "sets"},
    "cluster": {
        *("output", "algorithm", "texts", "estimated", "outliers", "silhouette", "stability", "clusters", "hierarchy"),
        *("agreement", "far", "adapted"),
    },
    "encode, an array": {"output", "texts", "dimension", "cut", "bytes_per_vector"},
}


@pytest.mark.parametrize("case", PRINTING)
def test_json_alone_is_on_standard_output(
    case: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "nothing"))
    results = []
    for place in ("-", str(tmp_path / "result.json")):
        (folder := tmp_path / f"out{len(results)}").mkdir()
        arguments = [argument.replace("OUT", str(folder)) for argument in PRINTING[case]]
        capfd.readouterr()
        assert main([*arguments, "--json", place]) == 0
        out = capfd.readouterr().out
        if place != "-":
            with pytest.raises(ValueError, match=r"Expecting|Extra"):  # the text for people
                json.loads(out)
            assert out.strip()
        results.append(json.loads(out if place == "-" else Path(place).read_text(encoding="utf-8")))
    printed, written = results
    if case == "env":  # a speed is measured
        printed.pop("bf16"), written.pop("bf16")
    if "output" in printed:
        printed.pop("output"), written.pop("output")
    assert printed == written
    if case in KEYS:
        assert {*printed} == KEYS[case] - {"output"}


def test_json_is_what_python_gives(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from textcl.vectors.index import CorpusIndex

    def printed(*arguments: str) -> object:
        capfd.readouterr()
        assert main([*arguments, "--json", "-"]) == 0
        return json.loads(capfd.readouterr().out)

    monkeypatch.chdir(work)
    assert printed("methods") == list_methods()
    assert printed("recipes") == list_recipes()
    hits = CorpusIndex("vectors").search("a boat", 3)
    assert [(hit["id"], hit["text"]) for hit in printed("search", "vectors", "a boat", "--top", "3")] == [
        (hit.id, hit.text) for hit in hits
    ]
    clusters = printed("cluster", "model", "texts.txt", "--clusters", "3", "--output", str(tmp_path / "c.csv"))
    assert sum(each["size"] for each in clusters["clusters"]) == clusters["texts"] == 48


def test_results_as_json(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    flags = [
        "--max-steps",
        "2",
        "--dev",
        "none",
        "--per-device-train-batch-size",
        "8",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main(["train", "simcse", "--model", "model", "--data", "texts.txt", *flags]) == 0
    capfd.readouterr()
    assert main(["results", str(tmp_path), "--json", "-"]) == 0
    first = json.loads(capfd.readouterr().out)
    assert main(["results", str(tmp_path), "--format", "json"]) == 0
    assert first == json.loads(capfd.readouterr().out)
    assert [each["method"] for each in first] == ["simcse"]
    assert main(["results", str(tmp_path), "--json", "-", "--compare", "a", "b"]) == 2
    assert "--format and --json are for the list of results" in capfd.readouterr().err
