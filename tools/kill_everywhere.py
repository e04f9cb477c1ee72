"""Kills a command before each of its changes to the disk, gives it again from there, and compares the files.

The command runs in a temporary folder that has a tiny model, `model`, and texts, `t.txt`. It runs once with a copy of
the folder before each change, and then once from each copy that differs. What a state ends with is printed: the exit
code and the files that are not those of a run that was not killed. Files that hold times always differ.

    python tools/kill_everywhere.py "explore t.txt --model model --output out"
    python tools/kill_everywhere.py "train simcse ... --output out" --again "train simcse ... --output out --resume"
"""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TEXTCL_DATA="/nonexistent")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pyarrow.parquet  # noqa: F401 (what commands import is imported once, before the processes are forked)
import sentence_transformers  # noqa: F401
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.files import file_hash

CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "shutil.rmtree")


def files_in(folder: Path) -> dict[str, str]:
    """The folders and files below a folder, with the hash of each file."""
    return {
        str(path.relative_to(folder)): file_hash(path) if path.is_file() else "" for path in sorted(folder.rglob("*"))
    }


def forked(words: list[str], folder: Path, hook: Callable[[str, Any], None] | None = None) -> tuple[int, str]:
    """Runs the command in a forked process; its exit code and what it printed."""
    with tempfile.TemporaryFile() as printed:
        if not (process := os.fork()):
            code = 1
            try:
                os.chdir(folder)
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                if hook is not None:
                    sys.addaudithook(hook)
                code = main(words)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        printed.seek(0)
        return code, printed.read().decode()


def copied(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(source, target, symlinks=True)


def states_of(words: list[str], folder: Path, kept: Path) -> list[Path]:
    """The distinct states of a folder before each change that the command makes."""
    seen: set[str] = set()
    busy = False

    def look(event: str, given: Any) -> None:
        nonlocal busy
        writes = event != "open" or (isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if busy or event not in CHANGES or not writes:
            return
        busy = True
        state = str(files_in(folder))
        if state not in seen:
            shutil.copytree(folder, kept / f"{len(seen):04}", symlinks=True)
            (kept / f"{len(seen):04}.txt").write_text(f"before {event} {given[:2]}")
            seen.add(state)
        busy = False

    code, printed = forked(words, folder, look)
    if code:
        sys.exit(printed)
    return sorted(path for path in kept.iterdir() if path.is_dir())


def run() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", help="the words behind textcl, in quotes")
    parser.add_argument("--again", help="the command that goes on (default: the same)")
    parser.add_argument("--before", default=[], action="append", help="a command that runs first")
    given = parser.parse_args()
    words, again = shlex.split(given.command), shlex.split(given.again or given.command)
    with tempfile.TemporaryDirectory() as temporary:
        start, now, kept = (Path(temporary, name) for name in ("start", "now", "kept"))
        tiny_encoder_directory(start / "model")
        (start / "t.txt").write_text("\n".join(TEXTS))
        for each in given.before:
            forked(shlex.split(each), start)
        code, printed = forked(words, copied(start, now))
        if code:
            sys.exit(printed)
        whole = files_in(now)
        kept.mkdir()
        ends: dict[tuple[int, tuple[str, ...]], list[str]] = {}
        for state in states_of(words, copied(start, now), kept):
            code, printed = forked(again, copied(state, now))
            found = files_in(now)
            other = tuple(sorted(name for name in {*whole, *found} if whole.get(name) != found.get(name)))
            ends.setdefault((code, other), []).append(state.name)
            if code:
                print(state.name, state.with_suffix(".txt").read_text(), "->", code, printed[-500:], flush=True)
        for (code, other), states in ends.items():
            print(f"exit code {code}, other files: {', '.join(other) or 'none'}: {len(states)} states, {states[:5]}")


if __name__ == "__main__":
    run()
