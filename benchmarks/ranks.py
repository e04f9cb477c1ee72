"""Training on one process and on two (gloo), at the same global batch size, versus sentence-transformers."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.measure import EQUAL, FASTER, Options, Row, take_turns
from benchmarks.simcse import SIDES, Job, without_dropout
from textcl.device import has_bf16

COUNTS = (1, 2)


def run(options: Options) -> list[Row]:
    """Sentences per second of both sides on one and on two processes, and their losses."""
    batch, steps = options.size(64, 8), options.size(12, 4)
    job = Job(options.encoder(), options.texts(batch * steps), batch, steps, bf16=has_bf16())
    sides = {
        f"{name}, {_processes(count)}": lambda name=name, count=count: batch / launched(name, job, count)["seconds"]
        for name in SIDES
        for count in COUNTS
    }
    found = take_turns(sides, options.turns())
    peer = "sentence-transformers"
    rows = [
        Row.of(
            f"ranks, {_processes(count)}",
            {name: found[f"{name}, {_processes(count)}"] for name in ("textcl", peer)},
            "sentences/s",
            FASTER,
            f"global batch {batch}; the cores shared out" + (", gather_across_devices=True" if count > 1 else ""),
        )
        for count in COUNTS
    ]
    for name in SIDES:
        one, two = (found[f"{name}, {_processes(count)}"] for count in COUNTS)
        notes = "this row has no peer: two processes versus one, of the same side"
        rows.append(Row(f"ranks, {name}, 2 : 1", median(two), median(one), "sentences/s", len(one), "near 1", notes))
    losses = {count: launched("textcl", without_dropout(job), count)["losses"][-1] for count in COUNTS}
    rows.append(Row("ranks, textcl, 2 : 1, no dropout", losses[2], losses[1], "loss", 1, EQUAL))
    return rows


def launched(side: str, job: Job, processes: int) -> dict[str, Any]:
    """The seconds of a step and the losses, measured under torchrun. `job.batch` is the global batch size."""
    cores = max(1, torch.get_num_threads() // processes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "job.json").write_text(json.dumps(asdict(replace(job, batch=job.batch // processes))))
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        subprocess.run(
            [sys.executable, *launch, "-m", "benchmarks.ranks", side, folder],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(cores), "TRANSFORMERS_VERBOSITY": "error"},
        )
        return json.loads((path / "result.json").read_text())


def worker(side: str, folder: Path) -> None:
    """Trains as one rank; rank 0 writes the result."""
    job = Job(**json.loads((folder / "job.json").read_text()))
    clock, _ = SIDES[side](job)
    if os.environ["RANK"] == "0":
        (folder / "result.json").write_text(json.dumps({"seconds": clock.step_seconds(job), "losses": clock.losses}))


def _processes(count: int) -> str:
    return f"{count} process" + "es" * (count > 1)


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]))
