"""Outputs that cannot be written are refused before the work, and a result is printed whatever becomes of its file."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import DIES, Forked, textcl
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.cli.output import show, show_line
from textcl.errors import InputError
from textcl.locks import taken

MODEL = "no-such-model"  # so that an error about the output shows that nothing was loaded
UNWRITABLE = {
    "eval": ["eval", MODEL, "--json", "folder"],
    "encode to an array": ["encode", MODEL, "t.txt", "--output", "/proc/x.npy"],
    "encode to a directory below a file": ["encode", MODEL, "t.txt", "--output", "t.txt/x"],
    "encode to a directory": ["encode", MODEL, "t.txt", "--output", "/proc/x"],
    "encode --json": ["encode", MODEL, "t.txt", "--output", "v", "--json", "t.txt/x"],
    "cluster": ["cluster", MODEL, "t.txt", "--output", "/proc/c.csv"],
    "cluster --save-encoder": ["cluster", MODEL, "t.txt", "--adapt", "--output", "c.csv", "--save-encoder", "t.txt/x"],
    "cluster --run": ["cluster", MODEL, "t.txt", "--adapt", "--output", "c.csv", "--run", "t.txt"],
    "cluster --json": ["cluster", MODEL, "t.txt", "--output", "c.csv", "--json", "/dev/null"],
    "search": ["search", "v", "a query", "--json", "folder"],
    "compare": ["compare", "demo", "--output", "t.txt"],
    "compare --json": ["compare", "demo", "--output", "c", "--json", "t.txt/x"],
    "report": ["report", "folder", "--output", "/proc/r.html"],
    "results": ["results", "folder", "--output", "folder"],
    "results --json": ["results", "folder", "--json", "t.txt/x"],
    "train": ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "t.txt"],
    "train below a file": ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "t.txt/x"],
    "train in /proc": ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "/proc/x"],
}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRIAL = "out/.trial."  # the file that shows whether a folder can be written
TRAIN = "train simcse --model model --data t.txt --output out --dev none --max-steps 1 --per-device-train-batch-size 9"
KILLED = {
    "adapt": (TRIAL, "adapt model --data t.txt --output out --ledger looks"),
    "adapt, its page": ("out/.report.html.", "adapt model --data t.txt --output out --ledger looks"),
    "cluster": (TRIAL, "cluster model t.txt --adapt --clusters 2 --steps 1 --output c.csv --save-encoder out"),
    "cluster, its run": (TRIAL, "cluster model t.txt --adapt --clusters 2 --steps 1 --output c.csv --run out"),
    "distill": (TRIAL, "distill model --data t.txt --static 8 --epochs 1 --output out"),
    "encode": ("out/.manifest.json.", "encode model t.txt --output out"),
    "explore": (TRIAL, "explore t.txt --model model --output out"),
    "explore, its vectors": ("out/vectors/.manifest.json.", "explore t.txt --model model --output out"),
    "explore, its record": ("out/.explore.json.", "explore t.txt --model model --output out"),
    "train, its export": ("out/export/.overlap.json.", TRAIN),
    "train, its card": ("out/export/.README.md.", TRAIN),
}


@pytest.mark.parametrize("case", KILLED)
def test_killed_before_its_first_file_is_there_the_same_command_works(case: str, inside: Path) -> None:
    """What the killed command leaves in its output is not taken for a file of the user."""
    tiny_encoder_directory(inside / "model")
    place, words = KILLED[case][0], KILLED[case][1].split()
    with Forked(DIES, place, *words, cwd=inside) as process:
        assert process.wait().returncode == -signal.SIGKILL
    assert [path for path in (inside / "out").rglob("*") if str(path.relative_to(inside)).startswith(place)]
    again = textcl(*words, *(["--resume"] if words[0] == "train" else []), cwd=inside)
    assert again.returncode == 0, again.stderr
    assert {path.name for path in (inside / "out").rglob(".*")} <= {".lock"}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    case: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(inside.rglob("*"))
    assert main(UNWRITABLE[case]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    said = ("cannot be written: ", "is a folder; name a file", "is a file; name a dir", "is not a ")
    assert any(part in error for part in said), error
    assert MODEL not in error
    assert sorted(inside.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "out"],
        ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "out", "--resume"],
        ["train", "simcse", "--model", MODEL, "--data", "t.txt", "--output", "out", "--overwrite"],
        ["encode", MODEL, "t.txt", "--output", "out"],
        ["compare", "demo", "--output", "out"],
    ],
)
def test_a_folder_in_use_is_said_before_anything_is_loaded(
    arguments: list[str], inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with taken("out"):
        assert main(arguments) == 2
        assert (inside / "out" / ".lock").exists()
    assert "out is in use by process" in capsys.readouterr().err


def test_a_result_is_printed_whatever_becomes_of_its_file(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways: list[Callable[[], None]] = [
        lambda: show({"a": 1}, "the table", "folder"),
        lambda: show({"a": 1}, "the table", "t.txt/x"),
    ]
    for way in ways:
        with pytest.raises((InputError, OSError)):
            way()
        assert capsys.readouterr().out == "the table\n"


KEPT = {
    "the input": ["encode", MODEL, "t.txt", "--output", "v", "--json", "t.txt"],
    "the input by another path": ["encode", MODEL, "t.txt", "--output", "v", "--json", "folder/../t.txt"],
    "another output": ["cluster", MODEL, "t.txt", "--output", "c.csv", "--json", "./c.csv"],
    "a file behind a kind": ["adapt", MODEL, "--data=t.txt", "--output=o", "--dev=pairs:p.json", "--json", "p.json"],
    "one of several": ["results", "--compare", "p.json", "q.json", "--output", "q.json"],
    "a file of the other output": ["encode", MODEL, "t.txt", "--output", "v", "--json", "v/manifest.json"],
    "a page of the other output": ["explore", "t.txt", "--output", "v", "--json", "v/index.html"],
    "a text": ["eval", MODEL, "--json", "notes.txt"],
    "a text, by a command without arguments": ["env", "--json", "notes.txt"],
    "a text, by a page": ["report", "folder", "--output", "notes.txt"],
    "the model, by adapt": ["adapt", "m", "--data", "t.txt", "--output", "m"],
    "a folder that holds the texts": ["adapt", MODEL, "--data", "m/t.txt", "--output", "m"],
    "a table, by a comparison": ["compare", "demo", "--output", "m", "--baselines", "none", "--seeds", "1"],
    "a table, by the demo": ["demo", "--output", "m", "--limit", "2"],
    "a file of a model": ["eval", "m", "--json", "m/config.json"],
    "a file of a model, under another name": ["eval", "./m", "--json", "m/tokenizer.json"],
}


@pytest.mark.parametrize("case", KEPT)
def test_no_output_takes_the_place_of_a_file_of_the_user(
    case: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inside / "m").mkdir()
    for name in ("p.json", "q.json", "m/config.json", "m/tokenizer.json"):
        (inside / name).write_text('{"mine": 1}')
    for name in ("notes.txt", "m/model.safetensors", "m/table.md"):
        (inside / name).write_text("mine")
    (inside / "m" / "t.txt").write_text("\n".join(TEXTS))
    before = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    assert main(KEPT[case]) == 2
    assert re.search("name another (file|directory)", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("words", [["adapt", MODEL], ["distill", MODEL, "--static", "8"]])
def test_a_result_in_the_model_directory_that_is_written_is_refused(
    words: list[str], inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be a file that textcl does not know, so that the next run would not replace the directory."""
    assert main([*words, "--data", "t.txt", "--output", "out", "--json", "out/r.json"]) == 2
    assert "--json out/r.json is in out, which" in capsys.readouterr().err
    assert not (inside / "out").exists()


def test_an_earlier_result_and_an_empty_file_are_replaced(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "empty.json").touch()
    (inside / "config.json").write_text("{}")  # of something else, in the folder where the user works
    for name in ("new.json", "new.json", "empty.json"):
        assert main(["methods", "--json", name]) == 0
        assert json.loads((inside / name).read_text())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "."], "is a folder; name a file."),
        (["--output", "/"], "is a folder; name a file."),
        (["--output", ""], "The name of an output is empty"),
        (["--output", "c.csv", "--hierarchy", ""], "The name of an output is empty"),
        (["--output", "c.csv", "--adapt", "--run", ""], "The name of an output is empty"),
    ],
)
def test_clusters_need_names_of_outputs(
    flags: list[str], said: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", MODEL, "t.txt", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["c.txt", "c.TSV", "c.jsonl", "c.parquet", "c.csv.gz"])
def test_csv_is_not_written_under_the_name_of_another_format(name: str, inside: Path, capsys) -> None:
    """The next command would read its lines as texts, with the header as the first one."""
    for words in (
        ["duplicates", "t.txt", "--unique", name],
        ["duplicates", "t.txt", "--output", name],
        ["cluster", MODEL, "t.txt", "--output", name],
        ["cluster", MODEL, "t.txt", "--output", "c.csv", "--hierarchy", name],
    ):
        assert main(words) == 2
        assert f"{words[-2]} {name} would hold csv" in capsys.readouterr().err


def test_json_has_neither_nan_nor_infinities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"found": [{"columns": {"ratio": float("inf")}, "score": float("nan")}, (float("-inf"), 0.5)]}
    expected = {"found": [{"columns": {"ratio": "Infinity"}, "score": None}, ["-Infinity", 0.5]]}

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    show(result, "", "-")
    show_line(result)
    show(result, "", str(tmp_path / "r.json"))
    printed, line = capsys.readouterr().out.rsplit("\n", 3)[:2]
    for text in (printed, line, (tmp_path / "r.json").read_text()):
        assert json.loads(text, parse_constant=refused) == expected
