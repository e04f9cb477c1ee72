"""Any terminal, locale, user and rank: what is printed is harmless, and what the system refuses is one sentence."""

import csv
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.command import REPOSITORY, environment
from support.tiny import TEXTS, tiny_encoder_directory

import textcl.cli
from textcl import files
from textcl.cli.main import COMMANDS, main
from textcl.environment import cache_directory, launched
from textcl.errors import InputError
from textcl.terminal import json_escaped, printable

HOSTILE = "red \x1b[31mtext\x1b]0;owned\x07 \x9b2J \u202eesrever \r over"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    tiny_encoder_directory(folder / "model")
    texts = [*TEXTS[:30], HOSTILE, "an emoji 👩‍🚀, a dash – and שלום"]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(folder: Path) -> Path:
    assert main(["encode", str(folder / "model"), str(folder / "texts.jsonl"), "--output", str(folder / "v")]) == 0
    return folder / "v"


def is_harmless(shown: str) -> bool:
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_what_controls_a_terminal_is_replaced_and_all_else_stays() -> None:
    assert printable("a\x1b[31m\x9b\u202e\x00\ud800\r") == "a\ufffd[31m\ufffd\ufffd\ufffd\ufffd\ufffd"
    assert printable("a\tb\n👩‍🚀 שלום e\u0301") == "a\tb\n👩‍🚀 שלום e\u0301"
    assert json.loads(json_escaped(json.dumps([HOSTILE], ensure_ascii=False))) == [HOSTILE]


def test_escape_sequences_of_texts_do_not_reach_the_terminal(
    here: Path, vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "v", HOSTILE.split("\r")[0], "--top", "32"]) == 0
    shown = capsys.readouterr().out
    assert "red" in shown
    assert is_harmless(shown)
    assert main(["search", "v", "red text", "--top", "32", "--json", "-"]) == 0
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert HOSTILE in [hit["text"] for hit in json.loads(shown)]  # JSON loses nothing
    command = ["cluster", "model", "texts.jsonl", "--clusters", "2", "--nearest", "32", "--output", "c.csv"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "red" in shown
    assert is_harmless(shown)


def test_nor_do_those_of_names_in_errors_and_log_messages(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["encode", "model", "no\x1b[2Jfile.txt", "--output", "w"]) == 2
    assert main(["train", "\x9b\u202enothing"]) == 2
    assert main(["env", "--\x1b[1m"]) == 2
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    (here / "blank\x1b[2J.txt").write_text("one\n\n\ntwo\n")
    assert main(["encode", "model", "blank\x1b[2J.txt", "--output", "w"]) == 0
    shown = capfd.readouterr()
    assert "blank\ufffd[2J.txt: 2 rows are blank" in shown.err
    assert is_harmless(shown.err)
    assert is_harmless(shown.out)


def test_commands_print_by_one_function_only() -> None:
    for command in COMMANDS:
        source = (Path(textcl.cli.__path__[0]) / f"{command}.py").read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])print\(|stdout|stderr", source), command


def test_formulas_in_a_csv_are_texts_unless_they_are_wanted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formulas = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "-2+3", "a plain text"]
    (here / "formulas.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in formulas))
    command = ["cluster", "model", "formulas.jsonl", "--clusters", "2"]
    assert main([*command, "--output", "plain.csv", "--raw-csv"]) == 0
    assert main([*command, "--output", "safe.csv"]) == 0
    files = [Path(f"{name}.csv").read_text().splitlines() for name in ("plain", "safe")]
    plain, safe = ([row[0] for row in csv.reader(lines)][1:] for lines in files)
    assert plain == formulas  # the texts as they are
    assert safe == [*(f"'{text}" for text in formulas[:-1]), formulas[-1]]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_stream_with_few_characters_takes_all_texts(
    encoding: str, here: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirected console of Windows, a latin-1 locale, and LC_ALL=C."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(["search", "v", "an emoji", "--top", "32"]) == 0
    assert b"an emoji ?" in written.getvalue()
    read = len(written.getvalue())
    assert main(["search", "v", "an emoji", "--top", "32", "--json", "-"]) == 0
    found = json.loads(written.getvalue()[read:])
    assert "an emoji 👩‍🚀, a dash – and שלום" in [each["text"] for each in found], "JSON loses nothing"
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding=encoding))
    assert main(["search", "a folder with שלום", "an emoji"]) == 2
    sys.stderr.flush()
    assert b"a folder with ????" in written.getvalue()


def test_closed_streams_are_no_error(here: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for closed in (["stdout"], ["stderr"], ["stdout", "stderr"]):
        with monkeypatch.context() as patch:
            for name in closed:
                patch.setattr(sys, name, None)
            assert main(["search", "v", "nothing"]) == 0
            assert main(["search", "no folder", "nothing"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_standard_output_is_a_sentence(folder: Path) -> None:
    run = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m textcl recipes > /dev/full"],
        cwd=folder,
        env=environment(),
        capture_output=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(b"textcl: The disk is full")
    assert run.stderr.count(b"\n") == 1


def test_bytes_that_are_not_utf_8_are_refused_before_anything_is_written(
    here: Path, vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = os.fsdecode(b"caf\xe9")
    for command in (
        ["search", "v", wrong],
        ["encode", "model", "texts.jsonl", "--output", "x", "--prompt", wrong],
        ["encode", "model", wrong, "--output", "x"],
        ["encode", "model", "texts.jsonl", "--output", wrong],
        ["train", "simcse", "--data", wrong],
    ):
        assert main(command) == 2
        assert "is not UTF-8 from character 4 on" in capsys.readouterr().err
    assert not (here / "x").exists()
    assert not any("caf" in name for name in os.listdir(here))


@pytest.mark.parametrize(
    ("command", "said"),
    {
        "below a file": (["encode", "model", "texts.jsonl", "--output", "texts.jsonl/x"], "Not a directory"),
        "a long name": (["encode", "model", "texts.jsonl", "--output", "x" * 300], "File name too long"),
        "a place that takes no files": (["encode", "model", "texts.jsonl", "--output", "/proc/x"], "No such file"),
        "a report there": (["report", "run", "--output", "/proc/x.html"], ""),
    }.values(),
)
def test_what_the_system_refuses_is_a_sentence_with_the_path(
    command: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("textcl: ")
    assert shown.count("\n") == 1
    assert said in shown
    assert ".tmp" not in shown


def test_the_error_names_the_file_and_not_its_temporary_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: str, *args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    (here / "closed").mkdir(exist_ok=True)
    monkeypatch.setattr("textcl.cli.output.write_json", lambda path, value: refuse(f"{path}"))
    assert main(["env", "--json", "closed/x.json"]) == 2
    assert capsys.readouterr().err == "textcl: closed/x.json: Permission denied.\n"
    beside = str(files._beside(Path("closed/x.json"), "tmp"))
    monkeypatch.setattr("textcl.cli.output.write_json", lambda path, value: refuse(beside))
    assert main(["env", "--json", "closed/x.json"]) == 2
    assert capsys.readouterr().err == "textcl: closed/x.json: Permission denied.\n"


@pytest.mark.parametrize(
    "variables",
    [
        *({"RANK": "x"}, {"RANK": "3"}, {"RANK": "-1"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "0"}),
        *({"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "one"}, {"RANK": "1"}),
    ],
    ids=str,
)
def test_a_rank_that_cannot_be_is_refused_by_every_command(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in COMMANDS:
        assert main([command]) == 2
        shown = capsys.readouterr()
        assert f"The environment has {', '.join('='.join(each) for each in variables.items())}, but" in shown.err
        assert shown.out == ""
    with pytest.raises(InputError):
        launched()


def test_one_process_of_several_prints_and_does_what_cannot_be_shared(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for command in (["env"], ["methods"], ["eval", "nothing"], ["encode", "model", "texts.jsonl", "--output", "a.npy"]):
        assert main(command) == 0
        assert capsys.readouterr().out == ""
    assert not (here / "a.npy").exists()
    monkeypatch.setenv("RANK", "0")
    assert main(["methods"]) == 0
    assert "simcse" in capsys.readouterr().out
    assert main(["compare", "demo"]) == 2
    assert "start it without torchrun" in capsys.readouterr().err


def test_without_a_home_the_cache_is_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/.cache/textcl")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_directory().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_directory() == Path("/elsewhere/textcl")


def test_the_data_folder_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    from textcl.data import data_directory

    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("TEXTCL_DATA", "~/data")
    assert data_directory() == Path("/somewhere/data")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("home", ["none", "closed"])
def test_a_user_without_a_home_can_train(home: str, folder: Path) -> None:
    """As with `docker run -u 12345`: a text view and the tokens need the caches of datasets and of textcl."""
    with tempfile.TemporaryDirectory() as name:  # other users can be let into it, unlike into `tmp_path`
        data = Path(name) / "data"
        shutil.copytree(folder, data)
        subprocess.run(["chmod", "-R", "a+rwX", name], check=True)
        variables = environment(TMPDIR=name, HOME="/proc")
        if home == "none":
            del variables["HOME"]
        variables.pop("XDG_CACHE_HOME", None)
        flags = ["--output", "run", "--dev", "none", "--max-steps", "1", "--per-device-train-batch-size", "8"]
        command = ["train", "simcse", "--model", "model", "--data", "texts.jsonl", "--text-view", "deletion", *flags]
        user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", sys.executable, "-m", "textcl"]
        run = subprocess.run([*user, *command], cwd=data, env=variables, capture_output=True, text=True)
        if "No module named" in run.stderr or run.returncode == 126:
            pytest.skip(f"another user cannot read {REPOSITORY}")
        assert run.returncode == 0, run.stderr
        assert not (data / "~").exists()


def test_vectors_that_are_no_numbers_are_not_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textcl.encoder import Encoder

    encode = Encoder.encode

    def broken(self: Encoder, texts: Any, **options: Any) -> Any:
        vectors = encode(self, texts, **options)
        vectors[2, 0] = float("nan")
        return vectors

    monkeypatch.setattr(Encoder, "encode", broken)
    for output in ("nan.npy", "nan"):
        assert main(["encode", "model", "texts.jsonl", "--output", output]) == 2
        assert (
            "The model gives NaN or infinite numbers for 1 of 32 texts, first for number 3" in capsys.readouterr().err
        )
    assert not (here / "nan.npy").exists()
    assert not (here / "nan" / "complete.json").exists()
