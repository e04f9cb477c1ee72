"""Files of results: what is torn is passed over, and two processes that write at the same time lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command import environment
from support.process_pool import ProcessPool

from textcl.errors import InputError
from textcl.files import append_result, read_results, write_json


def without_schema(path: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "schema"} for line in read_results(path)]


def test_lines_come_back_in_their_order_and_carry_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    assert read_results(path) == []
    append_result(path, {"row": "a", "text": "line\nend, é and \u2028"})
    append_result(path, {"row": "b"})
    assert read_results(path) == [
        {"row": "a", "text": "line\nend, é and \u2028"},
        {"row": "b"},
    ]
    written = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    assert [(line["schema"], line["row"]) for line in written] == [(1, "a"), (1, "b")]


@pytest.mark.parametrize("torn", [b'{"schema": 1, "row": "b", "se', b'{"schema": 1, "row": "\xc3', b"{"])
def test_a_torn_line_is_passed_over_with_a_warning_and_joins_no_other(
    torn: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, {"row": "a"})
    complete = path.read_bytes()
    path.write_bytes(complete + torn)
    assert without_schema(path) == [{"row": "a"}]
    append_result(path, {"row": "c"})
    caplog.clear()
    assert without_schema(path) == [{"row": "a"}, {"row": "c"}]
    assert "is incomplete and was skipped" in caplog.text
    assert path.read_bytes().startswith(complete + torn), "what is there is never rewritten"


@pytest.mark.parametrize("wrong", [b'{"schema": 2, "row": "b"}\n', b'{"row": "b"}\n', b"[]\n", b"7\n"])
def test_another_schema_is_refused(wrong: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, {"row": "a"})
    path.write_bytes(path.read_bytes() + wrong)
    with pytest.raises(InputError, match=r"results\.jsonl, line 3 has results of schema .* reads schema 1"):
        read_results(path)


def write_hundred(rank: int, path: Path) -> None:
    for number in range(100):
        append_result(path, {"rank": rank, "number": number, "text": "é" * 20_000})


def test_two_processes_write_one_file_and_nothing_is_lost_or_mixed(tmp_path: Path, two_processes: ProcessPool) -> None:
    path = tmp_path / "results.jsonl"
    two_processes(write_hundred, path)
    lines = read_results(path)
    assert len(lines) == 200
    for rank in (0, 1):
        assert [line["number"] for line in lines if line["rank"] == rank] == list(range(100))
    assert {line["text"] for line in lines} == {"é" * 20_000}
    ranks = [line["rank"] for line in lines]
    assert ranks != sorted(ranks), "they wrote one after the other, so that nothing was tried"


WRITES = """
import sys
from textcl.files import append_result
number = 0
while True:
    append_result(sys.argv[1], {"writer": sys.argv[2], "number": number, "text": "x" * 3_000_000})
    number += 1
"""


def test_a_writer_that_is_killed_costs_the_other_nothing(tmp_path: Path) -> None:
    """Ten are killed, one after the other, while this process writes to the same file."""
    path = tmp_path / "results.jsonl"
    written = 0
    for victim in range(10):
        process = subprocess.Popen([sys.executable, "-c", WRITES, str(path), str(victim)], env=environment())
        deadline = time.monotonic() + 60
        size = path.stat().st_size if path.exists() else 0
        while (path.stat().st_size if path.exists() else 0) < size + 1000 and time.monotonic() < deadline:
            time.sleep(0.005)
        for _ in range(2):
            append_result(path, {"writer": "mine", "number": written})
            written += 1
        os.kill(process.pid, signal.SIGKILL)
        append_result(path, {"writer": "mine", "number": written})
        written += 1
        process.wait()
    lines = read_results(path)
    assert [line["number"] for line in lines if line["writer"] == "mine"] == list(range(written))
    for victim in range(10):
        numbers = [line["number"] for line in lines if line["writer"] == str(victim)]
        assert numbers == list(range(len(numbers)))


def test_names_of_files_that_are_not_utf8_are_read_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.txt")
    write_json(tmp_path / "a.json", {"name": name, "text": "Größe"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": name, "text": "Größe"}
    append_result(tmp_path / "a.jsonl", {"name": name})
    assert read_results(tmp_path / "a.jsonl") == [{"name": name}]
