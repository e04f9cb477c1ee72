"""The command line as a process of its own."""

import multiprocessing
import multiprocessing.forkserver
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).resolve().parents[2]


def environment(**variables: str) -> dict[str, str]:
    """One thread a process, no model hub, the package of this repository, and no data unless it is named."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TEXTCL_DATA": "/nonexistent", "PYTHONPATH": paths}
    return {**os.environ, **fixed, **variables}


@cache
def forking() -> multiprocessing.context.ForkServerContext:
    """The server that has imported torch and transformers, which takes seconds; a process forked from it has them.

    Python 3.11 does not hand `sys.path` to the server, and the server says nothing of an import that fails. So the
    folder of the tests is in its environment, and in that of no other process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.preloaded"])
    kept = dict(os.environ)
    os.environ.update(environment())
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY / "tests"), os.environ["PYTHONPATH"]])
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return context


def textcl(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `textcl ARGUMENTS` in a process, with its output captured.

    The process is forked from one that has imported textcl already. Where the imports matter (the interpreter's
    settings, variables that libraries read when they are imported), start `python -m textcl` instead.
    """
    with Forked(TEXTCL, *arguments, cwd=cwd, **variables) as process:
        return process.wait()


def without_progress(stderr: str) -> str:
    """What a command wrote to standard error, without the lines of progress, which only a slow machine sees."""
    return re.sub(r"^[A-Z].*: (.*, )?[\d hmins]+ (left|so far)\n", "", stderr, flags=re.MULTILINE)


def python(
    code: str, *arguments: object, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -c CODE ARGUMENTS` in a process that is forked as those of `textcl` are."""
    with Forked(code, *arguments, cwd=cwd, **variables) as process:
        return process.wait()


class Forked:
    """A process that is forked from the server, with its output captured: `textcl ARGUMENTS`, or code.

    Args:
        code: What the process runs, with `arguments` in `sys.argv`.
        arguments: The arguments, as they would be typed.
        cwd: The directory in which it runs.
        variables: Variables of its environment, beside those of `environment`.
    """

    def __init__(self, code: str, *arguments: object, cwd: Path | None = None, **variables: str) -> None:
        self.arguments = list(map(str, arguments))
        self.folder = tempfile.TemporaryDirectory()
        given = (code, self.arguments, cwd or Path.cwd(), environment(**variables), Path(self.folder.name))
        self.process = forking().Process(target=_run, args=given)
        self.process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.folder.cleanup()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        return self.process.exitcode

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Waits for the end of the process."""
        self.process.join(600)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.arguments, 600)
        out, err = (Path(self.folder.name, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, out, err)


TEXTCL = """
import sys
from textcl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

# The beginning of a program that is killed when it is about to rename or remove a path with PLACE, its first argument,
# in it. So a kill hits the same moment on every machine, however busy that is.
KILLED_AT = """
import os, signal, sys
def hook(event, arguments):
    if event in ("os.remove", "os.rename") and sys.argv[1] in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""

# `textcl ARGUMENTS` that is killed there; its arguments are PLACE and those of textcl.
DIES = f"""
{KILLED_AT}
from textcl.cli.main import main
main(sys.argv[2:])
"""


def _run(code: str, arguments: list[str], cwd: Path, variables: dict[str, str], folder: Path) -> None:
    for descriptor, path, mode in ((0, Path(os.devnull), "r"), (1, folder / "out", "w"), (2, folder / "err", "w")):
        with path.open(mode) as opened:
            os.dup2(opened.fileno(), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))  # as `python -m` and `python -c` do
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})
