"""Progress: one line a time, every 15 seconds without a terminal, and rewritten in place on one."""

import io
import json
import logging
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl import progress as module
from textcl.cli.main import main
from textcl.progress import Progress


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is a hundredth of one."""
    for name in ("EVERY", "FIRST", "DELAY", "REFRESH"):
        monkeypatch.setattr(module, name, getattr(module, name) / 100)
    monkeypatch.setattr(module, "_due", None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_first_line_comes_within_15_seconds_and_then_one_every_15(
    fast: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert module.FIRST + module.REFRESH < module.EVERY == 0.15
    with caplog.at_level(logging.INFO, "textcl"), Progress("Working", 1000, "steps", at_once=True) as shown:
        deadline = time.monotonic() + 30
        while len(caplog.messages) < 3 and time.monotonic() < deadline:
            shown.update()
            time.sleep(0.005)
    assert len(caplog.messages) >= 3
    times = [record.created for record in caplog.records]
    assert times[1] - times[0] >= 0.15
    assert re.fullmatch(r"Working: \d+ of 1,000 steps, .+ (left|so far)", caplog.messages[0])


def test_on_a_terminal_one_line_is_rewritten_and_removed(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("Working", 10, "steps", figures=lambda: ["loss 0.5"], at_once=True) as shown:
        shown.update(5)
        deadline = time.monotonic() + 30
        while screen.getvalue().count("5 of 10") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert "\n" not in screen.getvalue()
    assert re.search(r"\rWorking: 5 of 10 steps, loss 0\.5, [^\r]+ left *\r", screen.getvalue())
    assert screen.getvalue().endswith(" \r")


def test_work_within_work_is_silent_unless_the_outer_gives_way(fast: None, caplog: pytest.LogCaptureFixture) -> None:
    for gives_way, heard in ((False, "Outer"), (True, "Inner")):
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, "textcl"),
            Progress("Outer", at_once=True, gives_way=gives_way),
            Progress("Inner", at_once=True),
        ):
            deadline = time.monotonic() + 30
            while len(caplog.messages) < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
        assert {message.split(":")[0] for message in caplog.messages} == {heard}
    assert module._stack == []


def test_what_was_done_earlier_does_not_shorten_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 1.0, 10.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    shown = Progress("Working", 1000, "steps")
    shown.skip(900)
    shown.update(10)
    assert str(shown) == "Working: 910 of 1,000 steps, 1 min 30 s left"


def test_short_work_shows_nothing_and_starts_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "textcl"), Progress("Encoding", 3) as shown:
        shown.update(3)
        assert shown._thread is None
    assert caplog.messages == []
    assert list(Progress("Counting", 3).over("abc")) == ["a", "b", "c"]


def test_a_piped_training_says_step_loss_score_and_time_left_and_logs_twenty_times(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_encoder_directory("model")
    Path("texts.txt").write_text("\n".join(TEXTS))
    Path("pairs.tsv").write_text("".join(f"{a}\t{b}\t{i % 5}\n" for i, (a, b) in enumerate(pairwise(TEXTS))))
    run = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", "run", "--dev", "pairs.tsv"]
    run += ["--max-steps", "45", "--per-device-train-batch-size", "8", "--eval-steps", "10"]
    with caplog.at_level(logging.INFO, "textcl"):
        assert main(run) == 0
    lines = [message for message in caplog.messages if message.startswith("Training:")]
    assert any(re.fullmatch(r"Training: \d+ of 45 steps, loss \S+, pairs\S* \S+, .+ left", line) for line in lines)
    assert not any("{" in line for line in lines)
    log = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [*range(2, 45, 2)]
    caplog.clear()
    assert main([*run, "--output", "other", "--logging-steps", "30", "--dev", "none"]) == 0
    log = [json.loads(line) for line in Path("other/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [30]
