"""The command line as a process of its own, and as a call for what needs no process."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def environment(**variables: str) -> dict[str, str]:
    """One thread a process, no model hub, the package of this repository, and no data unless it is named."""
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TEXTCL_DATA": "/nonexistent", "PYTHONPATH": paths}
    return {**os.environ, **fixed, **variables}


def textcl(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `textcl ARGUMENTS` in a process, with its output captured."""
    return subprocess.run(
        [sys.executable, "-m", "textcl", *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
