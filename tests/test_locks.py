"""A folder in use is taken by one process, however that process ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.command import environment

from textcl.errors import InputError
from textcl.locks import taken

HOLDS = """
import os, sys, time
from textcl.locks import taken
with taken(sys.argv[1]):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(60)  # as a worker of a data loader, which may outlive its parent
    print("taken", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *more: str, **variables: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *more],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_a_second_process_is_told_which_one_holds_the_folder(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(InputError, match=rf"run is in use by process {process.pid}; wait until"),
            taken(tmp_path / "run"),
        ):
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("forks", [False, True])
def test_the_lock_of_a_killed_process_is_free_even_if_its_children_live(tmp_path: Path, forks: bool) -> None:
    process = holder(tmp_path, *["fork"] * forks)
    process.kill()
    process.wait()
    assert (tmp_path / ".lock").exists()
    with taken(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    if forks:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_is_taken_once_within_a_process_and_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with taken(tmp_path / "a" / "b"):
            (tmp_path / "link").symlink_to(tmp_path / "a")
            with pytest.raises(InputError, match="in use"), taken(tmp_path / "link" / "b"):
                pass
            (tmp_path / "link").unlink()
        assert list(tmp_path.iterdir()) == [], "a folder that was made for the lock alone goes with it"
    with pytest.raises(FileExistsError), taken(tmp_path / "c"):
        [(tmp_path / "c" / "mine.txt").touch(exist_ok=False) for _ in range(2)]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["mine.txt"]


def test_of_threads_that_ask_at_the_same_moment_one_takes_the_folder(tmp_path: Path) -> None:
    """The kernel gives a process its own lock again, so that only `taken` itself can tell them apart."""
    barrier, inside, most = threading.Barrier(8), [0], [0]

    def take(folder: Path) -> None:
        barrier.wait()
        with suppress(InputError), taken(folder):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(60):
            threads = [threading.Thread(target=take, args=(tmp_path / str(number),)) for _ in range(8)]
            [each.start() for each in threads]
            [each.join() for each in threads]
    finally:
        sys.setswitchinterval(interval)
    assert most == [1]


def test_ranks_of_one_job_do_not_exclude_each_other_and_those_of_another_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path, RANK="0")
    try:
        monkeypatch.setenv("RANK", "1")
        with taken(tmp_path):
            monkeypatch.setenv("RANK", "0")
            with pytest.raises(InputError, match="in use"), taken(tmp_path):
                pass
    finally:
        process.kill()
        process.wait()


TAKES = """
import sys, time
from textcl.errors import InputError
from textcl.locks import taken
deadline, inside = time.monotonic() + 2, 0
while time.monotonic() < deadline:
    try:
        with taken(sys.argv[1]):
            open(sys.argv[1] + "/one", "x").close()  # an error if another process is inside
            inside += 1
            import os; os.unlink(sys.argv[1] + "/one")
    except InputError as error:
        assert "in use" in str(error), error
print(inside)
"""


def test_never_two_at_a_time_although_the_lock_file_comes_and_goes(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES, str(tmp_path / "f")], env=environment(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(count > 10 for count in counts) >= 2, "they did not compete"


def test_what_cannot_be_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file is a file; name a directory"), taken(tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="cannot be written: Not a directory"), taken(tmp_path / "file" / "x"):
        pass
    with pytest.raises(InputError, match="/proc/x cannot be written"), taken("/proc/x"):
        pass
