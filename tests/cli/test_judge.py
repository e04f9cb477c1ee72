"""`textcl judge` in the terminal: keys, stops, kills, what is printed, and what is refused."""

import html
import io
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from support.command import environment

from textcl.adaptation.judging import read_blind_pairs
from textcl.cli.main import main
from textcl.data.training import BUNDLED_TEXTS
from textcl.report.judge import judging_page

GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]
START = ["judge", "bm25", "tfidf", "--data", "texts.jsonl"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    texts = [f"{text} \x1b[31m" for text in dict.fromkeys(GLOSSES[:160])]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
    assert main(START) == 0


def test_the_command_that_is_printed_can_be_pasted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin", io.StringIO("l\n" * 50))
    assert main([*START, "--output", "my answers.tsv"]) == 0
    command = capsys.readouterr().out.rpartition("The result: ")[2]
    assert main(shlex.split(command)[1:]) == 0
    page = html.unescape(judging_page(read_blind_pairs("my answers.tsv")))
    assert "textcl judge --finish 'my answers.tsv'" in page


def test_a_judging_that_is_stopped_goes_on_and_is_resolved(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    typed("lx?rbq", monkeypatch)
    shown = capsys.readouterr().out
    assert "50 decided answers show a true 71 : 29" in shown
    assert "'equal' and 'neither' leave the test and cost power" in shown
    assert "judgements.tsv: 1 of 50 answers. The same command goes on." in shown
    assert re.findall(r"Pair (\d+) of 50", shown) == ["1", "2", "3", "2"]
    assert shown.count("Which fits better?") == 4 + 2  # once more for each key that is none
    assert "\x1b" not in shown
    assert not re.search(r"bm25|tfidf|p =|VERDICT", shown)  # neither systems nor a tally
    assert main(["judge", "--finish", "judgements.tsv"]) == 2
    assert "has 1 of 50 answers" in capsys.readouterr().err
    typed("E" * 9 + "n" + "r" * 39, monkeypatch)
    shown = capsys.readouterr().out
    assert "all 50 answers. The result: textcl judge --finish judgements.tsv" in shown
    assert not re.search(r"bm25|tfidf|p =|VERDICT", shown)
    assert read_blind_pairs("judgements.tsv").answers() == ["left", *["equal"] * 9, "neither", *["right"] * 39]
    assert main(["judge", "--finish", "judgements.tsv", "--json", "result.json"]) == 0
    shown = capsys.readouterr().out
    result = json.loads((here / "result.json").read_text())
    assert result["before"] + result["after"] == result["decided"] == 40
    assert f"{result['after']} for tfidf, {result['before']} for bm25, 9 equal, 1 neither" in shown
    assert re.search(r"DIFFERENT FIRST RESULTS: \d+ of 160 queries \(\d+ %\)", shown)
    assert shown.splitlines()[-1].startswith("VERDICT: ")
    assert main(["judge", "--finish", "judgements.tsv", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == result


def test_a_page_is_written_in_place_of_questions(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["judge", "--html", "page.html", *START[1:], "--output", "mine.tsv"]) == 0  # systems behind a flag
    shown = capsys.readouterr().out
    assert "page.html: open it in a browser, give the answers, and save them as mine.tsv." in shown
    assert "Pair 1" not in shown
    assert 'download="mine.tsv"' in (here / "page.html").read_text()
    assert sorted(path.name for path in here.iterdir()) == ["mine.tsv.pairs.json", "page.html", "texts.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "nothing": ([], "Name two systems and the texts"),
        "one system": (["bm25", "--data", "texts.jsonl"], "Name two systems and the texts"),
        "three systems": (["bm25", "tfidf", "bundled", "--data", "texts.jsonl"], "Name two systems and the texts"),
        "no texts": (["bm25", "tfidf"], "Name two systems and the texts"),
        "the same": (["bm25", "bm25", "--data", "texts.jsonl"], "are the same system"),
        "another length": ([*START[1:], "--answers", "30"], "invalid choice: 30"),
        "no such language": ([*START[1:], "--language", "klingon"], "no stemmer for 'klingon'"),
        "no such model": (["bm25", "hybrid:no-such", "--data", "texts.jsonl"], "no-such"),
        "a tally": ([*START[1:], "--json", "-"], "--json is for --finish"),
        "both": (["--finish", "j.tsv", "--seed", "1"], "leave out --seed"),
        "systems to finish": (["bm25", "tfidf", "--finish", "j.tsv"], "leave out two systems"),
        "no such file": (["--finish", "j.tsv"], "There is no file j.tsv"),
        "a folder of answers": ([*START[1:], "--output", "/proc/j.tsv"], "/proc"),
        "one text": (["bundled", "bm25", "--data", "one.txt"], "50 queries are needed, and there are 1."),
        "a page in place of the texts": ([*START[1:], "--html", "texts.jsonl"], "is what texts.jsonl names too"),
        "a page in place of notes": ([*START[1:], "--html", "one.txt"], "one.txt exists already"),
        "a folder as page": ([*START[1:], "--html", "/proc/p.html"], "/proc"),
    }.values(),
)
def test_what_is_refused_writes_nothing(
    arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
):
    (here / "one.txt").write_text("one text alone\n")
    assert main(["judge", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert sorted(path.name for path in here.iterdir()) == ["one.txt", "texts.jsonl"]
    assert (here / "one.txt").read_text() == "one text alone\n"


class Terminal:
    """`textcl judge` in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.theirs = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)
        command = [sys.executable, "-m", "textcl", *START]
        self.process = subprocess.Popen(command, cwd=folder, env=environment(), **streams)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def read_until(self, sign: str) -> None:
        end = time.monotonic() + 300
        while sign.encode() not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.ours], [], [], 1)[0]:
                self.seen += os.read(self.ours, 1 << 16)
        self.seen = self.seen.partition(sign.encode())[2]

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)


def test_single_keys_of_a_terminal_are_answers_and_it_is_left_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = pty.openpty()

    def type_soon(keys: bytes) -> None:
        while termios.tcgetattr(theirs)[3] & termios.ICANON:
            time.sleep(0.01)
        os.write(ours, keys)

    with open(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        before = termios.tcgetattr(theirs)
        for keys in (b"l\x1b[CEnx\x1b[Abr\x1b[Dq", b"e\x04"):  # up is no answer
            thread = threading.Thread(target=type_soon, args=(keys,), daemon=True)
            thread.start()
            assert main(START) == 0
            thread.join()
        assert read_blind_pairs("judgements.tsv").answers() == ["left", "right", "equal", "right", "left", "equal"]
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


@pytest.mark.slow
def test_a_kill_loses_no_answer(here: Path):
    with Terminal(here) as terminal:
        terminal.read_until("Pair 1 of 50")
        for number, key in enumerate((b"l", b"r", b"e", b"n"), start=2):
            terminal.type(key)
            terminal.read_until(f"Pair {number} of 50")
    assert read_blind_pairs(here / "judgements.tsv").answers() == ["left", "right", "equal", "neither"]
