"""Two real gloo processes, started once for all tests that need more than one rank."""

import multiprocessing
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.command import forking

SECONDS = 600  # only a call that hangs takes so long, however busy the machine is


class ProcessPool:
    """Calls a function on all ranks of a process group that stays up between calls.

    ``pool(function, *args)`` runs ``function(rank, *args)`` on every rank and returns the results in rank order.
    Function, arguments and results travel pickled, so the function must be importable: top level of a test module.
    A call that fails on any rank raises here with that rank's traceback, and the next call starts new processes.
    """

    def __init__(self, ranks: int = 2) -> None:
        self.ranks = ranks
        self._workers: list[tuple[Any, Connection]] = []
        self._folder = ""

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        if not self._workers:
            self._start()
        message = pickle.dumps((function, args))
        for _, connection in self._workers:
            connection.send_bytes(message)
        results, errors = [], []
        for number, (_, connection) in enumerate(self._workers):
            # once a rank has failed the others may wait for it in vain
            if not connection.poll(5 if errors else SECONDS):
                errors.append(f"rank {number} gave no answer")
                continue
            try:
                good, result = pickle.loads(connection.recv_bytes())
            except EOFError:
                good, result = False, "the process died"
            if good:
                results.append(result)
            else:
                errors.append(f"rank {number}:\n{result}")
        if errors:
            self.close()
            raise RuntimeError("\n".join(errors))
        return results

    def close(self) -> None:
        for process, connection in self._workers:
            connection.close()
            process.kill()
            process.join()
        self._workers = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp()
        meeting_point = Path(self._folder) / "meeting-point"
        for number in range(self.ranks):
            here, there = multiprocessing.Pipe()
            process = forking().Process(
                target=_serve, args=(number, self.ranks, str(meeting_point), there), daemon=True
            )
            process.start()
            there.close()
            self._workers.append((process, here))


def _serve(number: int, ranks: int, meeting_point: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point}",
        rank=number,
        world_size=ranks,
        timeout=timedelta(seconds=SECONDS // 2),
    )
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, args = pickle.loads(message)
            answer = pickle.dumps((True, function(number, *args)))
        except Exception:
            answer = pickle.dumps((False, traceback.format_exc()))
        connection.send_bytes(answer)
