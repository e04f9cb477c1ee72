"""`textcl explore`: what it makes, how it goes on after a kill, what it leaves out, and its page in a browser."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.browser import CHROMIUM, Browser
from support.command import environment, textcl, without_progress
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.errors import InputError
from textcl.evaluation.clusters import cluster_vectors
from textcl.report.explore import explore
from textcl.report.explored import printed_lines
from textcl.report.map_file import read_map_file
from textcl.seals import read_sealed
from textcl.vectors.encode import encode_corpus

HOSTILE = ["<script>document.title = 'owned'</script>", "</iframe><img src=x onerror=alert(1)>", "=1+1", "\x1b[31mred"]
ROWS = [*HOSTILE, *HOSTILE, *TEXTS[:140:3], TEXTS[3].upper()]
FILES = {"clusters.centres.json", "clusters.csv", "explore.json", "groups.csv", "index.html", "map.html", "vectors"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explore")
    tiny_encoder_directory(folder / "model")
    with (folder / "mine.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("id", "text", "day"), *((f"k{n}", text, n % 7) for n, text in enumerate(ROWS))])
    explore(folder / "mine.csv", folder / "out", folder / "model", column="text", id_column="id", columns=["day"])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files that must be the same whenever and wherever they were made."""
    names = ("clusters.csv", "groups.csv", "map.html", "vectors/part-00000.parquet")
    return {name: (folder / name).read_bytes() for name in names}


def test_the_same_call_in_python_goes_on_whatever_kinds_its_arguments_have(work: Path, tmp_path: Path) -> None:
    """Numbers of numpy, and columns as a tuple or those of a data frame."""
    vectors, asked = tmp_path / "out" / "vectors", {"column": "text", "clusters": np.int64(3), "seed": np.int64(1)}
    for columns in (("id", "day"), pd.Index(["id", "day"]), ["id", "day"]):
        record = explore(work / "mine.csv", tmp_path / "out", work / "model", columns=columns, **asked)
        assert len(record["clusters"]["clusters"]) == 3
    assert record["settings"]["columns"] == ["id", "day"]
    encode_corpus(work / "model", work / "mine.csv", vectors, column="text", columns=pd.Index(["id", "day"]))


def test_the_files_agree_with_each_other_and_with_the_page(work: Path) -> None:
    assert {path.name for path in (work / "out").iterdir()} == FILES
    record = json.loads((work / "out" / "explore.json").read_text())
    assert printed_lines(record, "out", 61.4)[-1].endswith("open it in a browser (61 s in all).")
    moved = {**record, "vectors": {**record["vectors"], "path": "my tickets/vectors"}}
    assert "textcl search 'my tickets/vectors' \"a query\"" in printed_lines(moved, "my tickets", 1.0)[-2]
    with (work / "out" / "clusters.csv").open(newline="") as handle:
        clusters = list(csv.DictReader(handle))
    with (work / "out" / "groups.csv").open(newline="") as handle:
        groups = list(csv.DictReader(handle))
    assert [row["id"] for row in clusters] == [row["id"] for row in groups] == [f"k{n}" for n in range(len(ROWS))]
    assert groups[-1]["duplicate_of"] in ("k9", groups[9]["duplicate_of"])
    assert [row["day"] for row in groups] == [str(n % 7) for n in range(len(ROWS))]
    assert sum(each["size"] for each in record["clusters"]["clusters"]) == len(ROWS)
    head = read_map_file(work / "out" / "map.html").head
    assert {each["name"] for each in head["clusters"]} == {row["name"] for row in clusters}
    assert record["map"]["duplicates"] == sum(int(row["size"]) > 1 for row in groups)
    page = (work / "out" / "index.html").read_text()
    for each in record["clusters"]["clusters"]:
        assert f"{each['name']}: {each['size']} text" in page
    assert record["duplicates"]["copies"] == sum(row["why"] == "copy" for row in groups) > 0
    assert "mine.csv: a first look" in page
    agreement = cluster_vectors(work / "out" / "vectors").stability
    assert agreement is not None
    assert record["clusters"]["agreement"] == agreement.of_best
    assert f"agree to {agreement.of_best:.2f} on which texts" in page


def test_its_directory_stands_for_its_vectors(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, again = str(work / "out"), str(tmp_path / "again")
    said = []
    for folder in (out, f"{out}/vectors"):
        assert main(["search", folder, "a query", "--retrieval", "bm25"]) == 0
        assert main(["duplicates", folder, "--threshold", "0.9", "--json", "-"]) == 0
        said.append(capsys.readouterr().out)
        assert main(["map", folder, "--output", f"{tmp_path}/{len(said)}.html"]) == 0
        capsys.readouterr()
    assert said[0] == said[1]
    assert main(["cluster", out, "--clusters", "3", "--output", f"{tmp_path}/c.csv"]) == 0
    assert main(["explore", out, "--output", again]) == 0
    assert (tmp_path / "again" / "groups.csv").read_bytes() == (work / "out" / "groups.csv").read_bytes()
    (tmp_path / "other" / "vectors").mkdir(parents=True)
    capsys.readouterr()
    assert main(["search", str(tmp_path / "other"), "a query"]) == 2
    assert "other holds no vectors" in capsys.readouterr().err


def test_the_same_call_does_no_step_again_and_mends_what_is_lost(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, record = contents(work / "out"), (work / "out" / "explore.json").read_text()
    times = {name: (work / "out" / name).stat().st_mtime_ns for name in before}
    arguments = ["explore", str(work / "mine.csv"), "--model", str(work / "model"), "--column", "text"]
    arguments += ["--id-column", "id", "--columns", "day", "--output", str(work / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"{work}/out/groups.csv: " in said
    assert f"{work}/out/index.html" in said
    assert {name: (work / "out" / name).stat().st_mtime_ns for name in before} == times
    for name in ("groups.csv", "map.html"):
        (work / "out" / name).unlink()
    assert main([*arguments, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert contents(work / "out") == before
    assert (work / "out" / "clusters.csv").stat().st_mtime_ns == times["clusters.csv"]
    assert result["clusters"] == json.loads(record)["clusters"]


@pytest.mark.parametrize("name", ["groups.csv", "clusters.csv", "clusters.centres.json", "map.html", "index.html"])
def test_a_file_that_the_user_changed_is_never_replaced(
    name: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode_corpus(work / "model", TEXTS[:40], tmp_path / "v")
    command = ["explore", str(tmp_path / "v"), "--output", str(tmp_path / "out"), "--clusters", "3"]
    assert main(command) == 0
    changed, written = tmp_path / "out" / name, (tmp_path / "out" / name).read_bytes()
    changed.write_text("mine")
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err.startswith(f"textcl: {changed} is not as textcl explore wrote it; move it")
    encode_corpus(work / "model", TEXTS[40:44], tmp_path / "v", append=True)
    assert main(command) == 2
    assert changed.read_text() == "mine"
    changed.rename(tmp_path / "mine")
    assert main(command) == 0
    assert (tmp_path / "out" / name).read_bytes() not in (b"mine", written)
    assert main(command) == 0


def test_after_a_change_of_the_vectors_the_page_has_only_new_facts(work: Path, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("".join(f"{text}\n" for text in TEXTS[:30]))
    first = explore(tmp_path / "v.txt", tmp_path / "out", work / "model", clusters=3)
    assert explore(tmp_path / "v.txt", tmp_path / "out", work / "model", clusters=3) == first  # with its seconds
    encode_corpus(work / "model", TEXTS[30:60], tmp_path / "out" / "vectors", append=True)
    second = explore(tmp_path / "v.txt", tmp_path / "out", work / "model", clusters=3)
    assert (second["vectors"]["texts"], second["map"]["texts"]) == (60, 60)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "60 texts, encoded by" in page
    assert "30 texts" not in page

    encode_corpus(work / "model", TEXTS[:40], tmp_path / "v")
    explore(tmp_path / "v", tmp_path / "given", clusters=3)
    tiny_encoder_directory(tmp_path / "another", seed=1)
    shutil.rmtree(tmp_path / "v")
    encode_corpus(tmp_path / "another", TEXTS[:40], tmp_path / "v")
    third = explore(tmp_path / "v", tmp_path / "given", clusters=3)
    assert third["vectors"]["model"] == str(tmp_path / "another")
    assert f"encoded by {tmp_path.name}/another" in (tmp_path / "given" / "index.html").read_text()


def test_clusters_that_the_user_adds_where_there_were_none_are_kept(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode_corpus(work / "model", TEXTS[:3], tmp_path / "v")
    command = ["explore", str(tmp_path / "v"), "--output", str(tmp_path / "out")]
    assert main(command) == main(command) == 0
    (tmp_path / "out" / "clusters.csv").write_text("mine")
    assert main(command) == 2
    assert (tmp_path / "out" / "clusters.csv").read_text() == "mine"


@pytest.mark.slow
def test_killed_after_each_step_it_ends_like_a_call_that_was_not(work: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "textcl", "explore", str(work / "mine.csv"), "--model", str(work / "model")]
    command += ["--column", "text", "--id-column", "id", "--columns", "day", "--output", str(tmp_path / "out")]
    for awaited in ("vectors/manifest.json", "groups.csv", "map.html"):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / "out" / awaited).exists() and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert contents(tmp_path / "out") == contents(work / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".lock")} == FILES


def test_vectors_are_taken_as_they_are(work: Path, tmp_path: Path) -> None:
    encode_corpus(work / "model", work / "mine.csv", tmp_path / "v", column="text", id_column="id", columns=["day"])
    explore(tmp_path / "v", tmp_path / "out")
    assert not (tmp_path / "out" / "vectors").exists()
    assert (tmp_path / "out" / "groups.csv").read_bytes() == (work / "out" / "groups.csv").read_bytes()
    with pytest.raises(InputError, match="column was settled when"):
        explore(tmp_path / "v", tmp_path / "out-2", column="text")


@pytest.mark.parametrize(
    ("texts", "clusters"),
    [
        (["one"], False),
        (["one", "two", "three"], False),
        (["the same"] * 50, False),
        (TEXTS[:9], True),
        ([text.split()[number % 4] for number, text in enumerate(TEXTS[:45])], True),
        ([*TEXTS[:45], " ".join(f"word{number}" for number in range(10_000))], True),
    ],
    ids=["one", "three", "repeated", "nine", "of one word", "with a long one"],
)
def test_odd_texts_give_what_they_allow(work: Path, tmp_path: Path, texts: list[str], clusters: bool) -> None:
    (tmp_path / "few.txt").write_text("".join(f"{text}\n" for text in texts))
    run = textcl("explore", "few.txt", "--model", str(work / "model"), "--output", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert without_progress(run.stderr) == ""
    assert (tmp_path / "out" / "index.html").exists()
    assert (tmp_path / "out" / "map.html").exists()
    assert ("No clusters: The number of clusters cannot be estimated" in run.stdout) == (not clusters)
    assert (tmp_path / "out" / "clusters.csv").exists() == clusters
    shown = read_sealed(tmp_path / "out" / "explore.json")["clusters"].get("shown", True)
    assert ("they show no clear groups" in run.stdout) == (not shown)
    assert ("These texts show no clear groups" in (tmp_path / "out" / "index.html").read_text()) == (not shown)


def test_no_text_is_a_sentence_and_leaves_nothing(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.txt").write_text("\n \n")
    assert main(["explore", str(tmp_path / "none.txt"), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"textcl: {tmp_path}/none.txt holds no text.\n"
    assert not (tmp_path / "out").exists()


def test_hostile_texts_are_inert_in_every_file_and_on_the_terminal(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("clusters.csv", "groups.csv"):
        with (work / "out" / name).open(newline="") as handle:
            cells = [cell for row in csv.reader(handle) for cell in row]
        assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []
        assert cells.count("'=1+1") == 2
    for name in ("index.html", "map.html", "explore.json"):
        assert "\x1b" not in (work / "out" / name).read_text()
    page = (work / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    # in the list of near-duplicates, as text
    assert "&lt;script&gt;document.title" in page
    vectors = str(work / "out" / "vectors")
    assert main(["duplicates", vectors, "--model", str(work / "model"), "--largest", "9"]) == 0
    said = capsys.readouterr().out
    assert "red" in said
    assert "\x1b" not in said


def test_what_is_there_is_not_touched(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "map.html").write_text("mine")
    source = str(work / "mine.csv")
    assert main(["explore", source, "--column", "text", "--output", str(tmp_path / "out")]) == 2
    assert "holds map.html, which textcl explore did not write" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["map.html"]
    model = ["--model", str(work / "model")]
    assert main(["explore", source, *model, "--column", "id", "--output", str(work / "out")]) == 2
    assert "was made with column 'text', not 'id'" in capsys.readouterr().err
    assert (
        main(["explore", source, *model, "--column", "text", "--clusters", "999", "--output", str(tmp_path / "n")]) == 2
    )
    assert "999" in capsys.readouterr().err
    encoded = (tmp_path / "n" / "vectors" / "part-00000.parquet").stat().st_mtime_ns
    again = ["explore", source, *model, "--column", "text", "--output", str(tmp_path / "n"), "--clusters"]
    assert main([*again, "3"]) == 0  # what was encoded is not lost
    assert (tmp_path / "n" / "vectors" / "part-00000.parquet").stat().st_mtime_ns == encoded
    assert read_sealed(tmp_path / "n" / "explore.json")["settings"]["clusters"] == 3
    assert main([*again, "4"]) == 2
    assert "was made with clusters 3, not 4" in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "missing.csv"), "--output", str(tmp_path / "m")]) == 2
    assert "missing.csv" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


if CHROMIUM:

    @pytest.mark.parametrize(("width", "touch"), [(1200, False), (390, True)])
    def test_the_page_shows_the_map_and_runs_no_text(work: Path, width: int, touch: bool) -> None:
        with Browser(width, 800, dark=touch, touch=touch) as browser:
            browser.open(work / "out" / "index.html")
            # a page from disk may not look into its frame; what the frame loads and complains of is seen from outside
            browser.wait_for("document.querySelector('iframe') !== null")
            assert browser.evaluate("document.title") == "mine.csv: a first look"
            assert HOSTILE[0] in browser.evaluate("document.body.innerText")
            assert browser.evaluate("document.querySelectorAll('script, img').length") == 0
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert set(browser.evaluate("[...document.querySelectorAll('main p a')].map(a => a.textContent)")) == {
                "groups.csv",
                "clusters.csv",
                "map.html",
            }
            assert browser.requests == [(work / "out" / "map.html").as_uri()]
            assert browser.complaints == []
