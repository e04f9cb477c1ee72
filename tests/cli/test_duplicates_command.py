"""`textcl duplicates` and `textcl train --dedup`: what they print and write, odd corpora, and what they refuse."""

import csv
import json
from pathlib import Path

import pytest
from support.command import textcl, without_progress
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.runs.recipe import resolve
from textcl.runs.run import make_trainer
from textcl.vectors.encode import encode_corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("duplicates")
    tiny_encoder_directory(folder / "model")
    lines = [*TEXTS[:130], *(text.title() for text in TEXTS[:9]), "\x1b[31mhostile", "=1+1", "\x1b[31mHOSTILE"]
    (folder / "mine.txt").write_text("".join(f"{line}\n" for line in lines))
    encode_corpus(folder / "model", folder / "mine.txt", folder / "v")
    return folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def test_a_folder_of_vectors_becomes_groups(work: Path) -> None:
    run = textcl("duplicates", "v", "--output", "groups.csv", "--json", "groups.json", cwd=work)
    assert run.returncode == 0, run.stderr
    assert without_progress(run.stderr) == ""
    assert "\x1b" not in run.stdout
    result = json.loads((work / "groups.json").read_text())
    with (work / "groups.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == result["texts"] == 142
    assert sum(row["kept"] == "yes" for row in rows) == result["kept"]
    assert rows[140]["text"] == "'=1+1"
    assert rows[141]["duplicate_of"] == "139"
    for kind, share in result["calibration"]["found"].items():
        assert f"{kind:<12}  {100 * share:.1f} %" in run.stdout
    assert f"no edit       {100 * result['calibration']['false']:.1f} %" in run.stdout
    assert result["notes"][0] in run.stdout
    assert f"{result['kept']} kept" in run.stdout


def test_a_file_of_the_kept_rows_alone(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every, unique = tmp_path / "groups.csv", tmp_path / "unique.csv"
    flags = ["--threshold", "1", "--output", str(every), "--unique", str(unique)]
    assert main(["duplicates", "v", *flags]) == 0
    lines = every.read_text().splitlines()
    with every.open(newline="") as handle:
        kept = [number for number, row in enumerate(csv.DictReader(handle), 1) if row["kept"] == "yes"]
    assert unique.read_text().splitlines() == [lines[0], *(lines[number] for number in kept)]
    assert len(kept) == 132
    assert f"{unique}: the 132 kept rows" in capsys.readouterr().out
    assert main(["duplicates", "v", *flags]) == 2
    both = ["--output", str(tmp_path / "x.csv"), "--unique", str(tmp_path / "x.csv")]
    assert main(["duplicates", "v", *both]) == 2
    assert "names too; name another file" in capsys.readouterr().err


def test_near_duplicates_of_unknown_words_are_shown_without_a_cosine(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "unknown.txt"
    file.write_text("\n".join([*TEXTS[:9], "发票 开错 了", "了 开错 发票"]), encoding="utf-8")
    assert main(["duplicates", str(file), "--model", "model", "--threshold", "0.9", "--words", "0.8"]) == 0
    shown = capsys.readouterr().out
    assert "  near, words 1.00  10  了 开错 发票" in shown
    assert "0.000" not in shown


def test_json_alone_and_the_same_groups_by_a_given_threshold(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["duplicates", "mine.txt", "--model", "model", "--threshold", "1", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["words"] is result["calibration"] is result["output"] is None
    assert result["copies"] == 10
    assert main(["duplicates", "v", "--threshold", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == result


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["one text"], "1 text. 0 copies"),
        (["a cat", "a dog", "A  CAT"], "1 copy (equal to an earlier text but for case and spaces) and "),
        (["again"] * 300, "299 copies"),
        ([f"word{n}" for n in range(120)], "120 texts"),
        ([*TEXTS[:198], "long " * 10_000, "long " * 9_999], "2 texts are longer than the model reads"),
    ],
)
def test_odd_corpora_have_a_result(
    lines: list[str], said: str, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.txt").write_text("\n".join(lines))
    arguments = ["duplicates", str(tmp_path / "odd.txt"), "--model", "model", "--output", str(tmp_path / "groups.csv")]
    assert main(arguments) == 0
    assert said in capsys.readouterr().out
    with (tmp_path / "groups.csv").open(newline="") as handle:
        assert len(list(csv.DictReader(handle))) == len(lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty.txt"], "empty.txt holds no text."),
        (["none.txt"], "none.txt"),
        (["v", "--output", "mine.txt"], "mine.txt exists already; remove it or name another file."),
        (["v", "--raw-csv"], "--raw-csv is about the files of --output and --unique; add one, or leave --raw-csv out."),
        (["v", "--threshold", "2"], "--threshold must be auto or a finite number above 0 and at most 1, not 2"),
        (["v", "--words", "x"], "--words must be a finite number above 0 and at most 1, not x"),
        (["v", "--column", "text"], "column was settled when v was encoded; leave it out."),
        (["v", "--output", "mine.txt/groups.csv"], "mine.txt"),
        (["v", "--treshold", "1"], "Did you mean --threshold?"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty.txt").write_text(" \n\n")
    assert main(["duplicates", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_training_leaves_out_copies_if_asked(here: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flags = ["--data", "mine.txt", "--model", "model", "--output", str(tmp_path / "run"), "--dev", "none"]
    whole, deduplicated = (resolve({"method": "simcse"}, [*flags, *more])[0] for more in ([], ["--dedup"]))
    assert "dedup" not in whole.command()
    assert whole.fingerprint() != deduplicated.fingerprint()
    assert len(make_trainer(whole)[0].train_dataset) == 142
    caplog.clear()
    texts = make_trainer(deduplicated)[0].train_dataset["text"][:]
    assert texts == [*TEXTS[:130], "\x1b[31mhostile", "=1+1"]
    assert "dedup: 10 rows were left out that repeat earlier ones." in caplog.text
