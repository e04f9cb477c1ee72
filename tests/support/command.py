"""The command line as a process of its own."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# A server that has imported torch and transformers, which takes seconds, and forks a process for each command.
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["support.preloaded"])


def environment(**variables: str) -> dict[str, str]:
    """One thread a process, no model hub, the package of this repository, and no data unless it is named."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TEXTCL_DATA": "/nonexistent", "PYTHONPATH": paths}
    return {**os.environ, **fixed, **variables}


def textcl(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `textcl ARGUMENTS` in a process, with its output captured.

    The process is forked from one that has imported textcl already. Where the imports matter (the interpreter's
    settings, variables that libraries read when they are imported), start `python -m textcl` instead.
    """
    command = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _forking.Process(target=_run, args=(command, cwd, environment(**variables), out, err))
        process.start()
        process.join(600)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, 600)
        return subprocess.CompletedProcess(command, process.exitcode, out.read_text(), err.read_text())


def _run(command: list[str], cwd: Path, variables: dict[str, str], out: Path, err: Path) -> None:
    for descriptor, path, mode in ((0, os.devnull, "r"), (1, out, "w"), (2, err, "w")):
        with open(path, mode) as opened:
            os.dup2(opened.fileno(), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))  # as `python -m` does

    from textcl.cli.main import main

    sys.exit(main(command))
