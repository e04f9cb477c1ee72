"""Files: what is there is never lost, what is torn or damaged is passed over, two processes lose nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
import transformers
from support.command import environment
from support.disk import files_limited, small_disk
from support.process_pool import ProcessPool

from textcl.encoder.export import MODEL_FILE
from textcl.errors import DiskFull, InputError, disk_full
from textcl.files import (
    append_result,
    atomic_directory,
    atomic_write,
    check_output,
    check_replaceable,
    clear_leftovers,
    machine,
    make_folder,
    read_results,
    target_of,
    write_json,
)
from textcl.model_files import is_model
from textcl.vectors.shards import is_vectors


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
        dist.barrier()  # both write at the same moment, whichever process began first
        append_result(path, {"rank": rank, "number": number, "text": "é" * 20_000})


def test_two_processes_write_one_file_and_nothing_is_lost_or_mixed(tmp_path: Path, two_processes: ProcessPool) -> None:
    path = tmp_path / "results.jsonl"
    two_processes(write_hundred, path)
    lines = read_results(path)
    assert len(lines) == 200
    for number in range(100):
        pair = lines[2 * number : 2 * number + 2]
        assert [(line["number"], line["text"]) for line in pair] == [(number, "é" * 20_000)] * 2
        assert {line["rank"] for line in pair} == {0, 1}


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


ONE = re.compile(r"\w+\.safetensors")


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def replace(path: Path | str, known: re.Pattern[str] = ONE) -> None:
    with atomic_directory(path, known) as folder:
        (folder / "new.safetensors").write_text("new")


def test_a_directory_is_replaced_only_if_all_in_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "old.safetensors").write_text("old")
    (tmp_path / "hidden" / ".git").write_text("keep")
    (tmp_path / "deep" / "x.safetensors").mkdir(parents=True)
    (tmp_path / "deep" / "x.safetensors" / "thesis.safetensors").write_text("keep")
    (tmp_path / "file.csv").write_text("keep")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "only.txt").write_text("keep")
    before = tree(tmp_path)
    for name, message in [
        ("mine", "has notes.txt, which textcl did not write"),
        ("hidden", "has .git, which textcl did not write"),
        ("deep", "has x.safetensors/thesis.safetensors"),
        ("file.csv", "is a file; name a new directory"),
        ("file.csv/x", "Not a directory"),
    ]:
        with pytest.raises((InputError, OSError), match=message):
            replace(tmp_path / name)
    with pytest.raises(InputError, match="has no model, so it is not replaced"):
        replace(tmp_path / "text", re.compile(r".*"))
    monkeypatch.chdir(tmp_path / "hidden")
    for name in (".", "..", tmp_path):
        with pytest.raises(InputError, match="is the current folder, or has it inside"):
            replace(name)
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden" / ".git").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("hidden")
    for name in ("empty", "link", "new/one"):
        replace(name)
        assert tree(tmp_path / name) == {"new.safetensors": "new"}
    assert (tmp_path / "link").is_symlink(), "the directory behind the link was replaced, not the link"
    assert [path.name for path in tmp_path.rglob(".*")] == []


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("config.json", True),
        ("1_Pooling/config.json", True),
        ("3_Dense/model.safetensors", True),
        ("report.html", True),
        ("model-00001-of-00002.safetensors", True),
        ("additional_chat_templates/tools.jinja", True),
        ("my-config.json", False),
        ("my_lora.safetensors", False),
        ("1_Notes/config.json", False),
        ("1_Pooling/deeper/config.json", False),
        ("train.csv", False),
        (".git/config", False),
        ("onnx/model.onnx", False),
        ("checkpoint.bin", False),
    ],
)
def test_the_files_of_a_model(name: str, known: bool) -> None:
    assert (MODEL_FILE.fullmatch(name) is not None) == known


def test_the_files_of_every_tokenizer_are_those_of_a_model() -> None:
    """As transformers names them, but those of models that translate, speak or listen."""
    no_encoders = {"marian", "fsmt", "whisper", "speecht5", "bartpho", "prophetnet"}
    named = {}
    for source in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for table in re.findall(r"^VOCAB_FILES_NAMES = \{(.*?)\}", source.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            named |= dict.fromkeys(re.findall(r':\s*"([^"]+)"', table), source.parent.name)
    assert len(named) > 15
    unknown = {name: model for name, model in named.items() if not MODEL_FILE.fullmatch(name)}
    assert set(unknown.values()) <= no_encoders, unknown


@pytest.mark.parametrize("failing", [1, 2])
def test_a_directory_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """As on a disk that fails between the two renames."""
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "old.safetensors").write_text("old")
    calls, real = [], os.replace

    def fails(*paths: object) -> None:
        calls.append(paths)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        real(*paths)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="Input/output error"):
        replace(tmp_path / "at")
    assert tree(tmp_path) == {"at/old.safetensors": "old"}


DIES = """
import os, signal, sys
from textcl import files
import re
real, calls = os.replace, []
def dies(*paths):
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(paths)
    real(*paths)
os.replace = dies
with files.atomic_directory(sys.argv[1] + "/at", re.compile(r".*")) as folder:
    (folder / "new.safetensors").write_text("new")
"""


@pytest.mark.parametrize("moment", [0, 1])
def test_a_kill_between_the_two_renames_loses_no_directory(tmp_path: Path, moment: int) -> None:
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "old.safetensors").write_text("old")
    run = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), str(moment)], env=environment())
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "at").exists() == (moment == 0)
    clear_leftovers(tmp_path)
    assert tree(tmp_path) == {"at/old.safetensors": "old"}


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    """safetensors, mkstemp and others make files that only their owner can read."""
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "one") as temporary:
            temporary.unlink()
            temporary.touch(0o600)
        with atomic_directory(tmp_path / "many", ONE) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a.safetensors").touch(0o600)
        append_result(tmp_path / "results", {"a": 1})
        (tmp_path / "one").chmod(0o604)
        with atomic_write(tmp_path / "one") as temporary:
            temporary.write_text("again")
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("many/sub/a.safetensors", "results", "one")}
    assert modes == {"many/sub/a.safetensors": 0o640, "results": 0o640, "one": 0o604}


def test_a_link_a_device_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a file"),
        ("/dev/null", "is not a file"),
    ]:
        for call in (check_output, lambda path: atomic_write(path).__enter__()):
            with pytest.raises(InputError, match=message):
                call(path)
    assert Path("/dev/null").is_char_device()


def test_an_output_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, folder in [("new.json", False), ("a/b/new.json", False), ("file", False), ("a/b", True), (".", True)]:
        check_output(tmp_path / path, folder=folder)
    for path, folder, message in [
        (tmp_path / "file" / "x", False, "x cannot be written: Not a directory"),
        (tmp_path / "file", True, "file is not a directory"),
        ("/proc/x.json", False, "/proc/x.json cannot be written: No such file"),
        ("/proc/x", True, "/proc/x cannot be written: No such file"),
        (tmp_path / ("x" * 300), False, "File name too long"),
    ]:
        with pytest.raises(InputError, match=message):
            check_output(path, folder=folder)
    assert tree(tmp_path) == {"file": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def of_a_dead_process(machine: str) -> str:
    """The part of a temporary name that names the process: one that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return f"{machine}.{process.pid}"


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path: Path) -> None:
    dead, alive, elsewhere = of_a_dead_process(machine()), f"{machine()}.{os.getpid()}", of_a_dead_process("other-1")
    (tmp_path / f".c.tsv.{dead}.0.tmp").touch()
    check_output(tmp_path / "c.tsv")
    assert not list(tmp_path.iterdir()), "what is never written again would keep it for ever"
    for owner in (dead, alive, elsewhere):
        (tmp_path / f".a.json.{owner}.0.tmp").touch()
        (tmp_path / f".b.{owner}.3.tmp").mkdir()
    (tmp_path / ".hidden.tmp").touch()
    with atomic_write(tmp_path / "b") as temporary:
        temporary.touch()
    assert not (tmp_path / f".b.{dead}.3.tmp").exists()
    assert (tmp_path / f".a.json.{dead}.0.tmp").exists(), "it is of another file"
    clear_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - {".hidden.tmp", "b"}
    assert left == {
        f".{name}.{owner}.{number}.tmp" for owner in (alive, elsewhere) for name, number in (("a.json", 0), ("b", 3))
    }


def test_what_a_killed_replacement_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """Also where a directory was being written into one that was itself not finished, as an export is."""
    dead = of_a_dead_process(machine())
    for name in (f".at.{dead}.0.tmp", f"..at.{dead}.0.tmp.{dead}.1.tmp", f"..at.{dead}.0.tmp.{dead}.2.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.safetensors").touch()
    old = tmp_path / f".at.{dead}.3.old"
    old.mkdir()
    (old / "a.safetensors").write_text("whole")
    (old / f".report.html.{dead}.4.tmp").touch()
    check_replaceable(tmp_path / "at", ONE)
    assert {name: each for name, each in tree(tmp_path).items() if each} == {"at/a.safetensors": "whole"}
    assert [path.name for path in tmp_path.iterdir()] == ["at"]
    assert target_of(str(tmp_path / f"..at.{dead}.0.tmp.{dead}.1.tmp")) == str(tmp_path / "at")


def test_a_damaged_line_is_passed_over_wherever_the_damage_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, {"row": "a", "score": 81.25, "nested": {"b": [1, None, "é"]}})
    append_result(path, {"row": "b", "score": 7.5})
    expected, whole = read_results(path), path.read_bytes()
    places = whole.index(b"81.25"), whole.index(b"81.25") + 1, whole.index(b"nested"), whole.index(b'"row"') + 8
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_results(path) == expected[1:], place
        assert "line 2 is damaged and was skipped" in caplog.text


def write_with(library: str, path: Path) -> None:
    import faiss
    import numpy as np
    import pyarrow
    import torch
    from safetensors.numpy import save_file
    from support.tiny import tiny_tokenizer

    rows = np.random.default_rng(0).random((600, 64), dtype=np.float32)
    if library == "numpy":
        with path.open("wb") as handle:
            np.save(handle, rows)
    elif library == "faiss":
        index = faiss.IndexFlatIP(64)
        index.add(rows)
        faiss.write_index(index, str(path))
    elif library == "torch":
        torch.save({str(number): torch.from_numpy(row) for number, row in enumerate(rows)}, path)
    elif library == "safetensors":
        save_file({"rows": rows}, path)
    elif library == "tokenizers":
        tiny_tokenizer().backend_tokenizer.save(str(path))
    elif library == "arrow":
        with pyarrow.OSFile(str(path), "wb") as file:
            file.write(rows.tobytes())
    else:
        path.write_bytes(rows.tobytes())


@pytest.mark.parametrize("library", ["numpy", "faiss", "torch", "safetensors", "tokenizers", "arrow", "Python"])
@pytest.mark.parametrize("kind", ["limit", "disk"])
def test_a_full_disk_is_one_sentence_whichever_library_meets_it(library: str, kind: str, tmp_path: Path) -> None:
    write_with(library, tmp_path / "whole")  # imports what it needs, while there is room
    path = tmp_path / "disk" / "file"
    full = small_disk(path.parent, "4k") if kind == "disk" else files_limited(2000)
    with full:
        path.parent.mkdir(exist_ok=True)
        with (
            pytest.raises(DiskFull, match=r"file could not be written, because the disk is full \(.*\)"),
            atomic_write(path) as temporary,
        ):
            write_with(library, temporary)
        assert list(path.parent.iterdir()) == []


def test_an_error_that_is_no_full_disk_passes(tmp_path: Path) -> None:
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(5, "Input/output error"),
        KeyError(),
    ):
        with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "x"):
            raise error
        assert caught.value is error
    assert not disk_full(MemoryError())


REMOVES = """
import os, sys, time
print("ready", flush=True)
while True:
    time.sleep(0.0005)  # without a pause no folder lives long enough on a machine with slow system calls
    for folder in (sys.argv[1] + "/b", sys.argv[1]):
        try:
            os.rmdir(folder)
        except OSError:
            pass
"""


def test_a_folder_is_made_although_another_process_removes_it_all_the_time(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", REMOVES, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        for _ in range(5_000):
            make_folder(tmp_path / "a" / "b")
    finally:
        process.kill()
        process.wait()
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["config.json", "modules.json", "adapter_config.json"])
def test_a_folder_with_a_model_is_known_everywhere(tmp_path: Path, name: str):
    assert not is_model(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert is_vectors(tmp_path)
    (tmp_path / name).write_text("{}")
    assert is_model(tmp_path)
    assert not is_vectors(tmp_path)
