"""What this machine can do, and how it says that it cannot."""

import ctypes
import logging
import math
import os
import platform
import sys
import time
from functools import cache
from pathlib import Path

import torch

logger = logging.getLogger("textcl")


@cache
def has_bf16() -> bool:
    """Whether this machine computes in bfloat16 natively: its GPU, or its processor (x86 or Arm)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        words = set(flags.read_text().split())
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    return sys.platform == "darwin" and platform.machine() == "arm64" and torch.backends.mps.is_available()


def bf16_if_there(wanted: bool) -> bool:
    """Whether to compute in bfloat16: if it is wanted and the machine has it; a warning says where it has not."""
    if wanted and not has_bf16():
        logger.warning("This processor has no bfloat16; encoding goes on in float32.")
        return False
    return wanted


def bf16_speed() -> float:
    """How many times as fast as float32 a bfloat16 matrix product of a small encoder's size is on this device, now.

    Some processors have the instructions and are slower with them; it takes a tenth of a second to know.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(5):
        for dtype in seconds:
            rows, weight = torch.ones(1024, 384, dtype=dtype, device=device), torch.ones(384, 1536, device=device)
            weight = weight.to(dtype)
            start = time.perf_counter()
            (rows @ weight).sum().item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


@cache
def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for what comes next, on a processor; what the user has set there remains.

    By itself it gives the memory of large tensors back to the system, which clears each page before it hands it out
    again. Kept, a step is a tenth faster.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or torch.cuda.is_available() or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    glibc = ctypes.CDLL(None)
    glibc.mallopt(mmap_threshold, 2**30)
    glibc.mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Gives back to the system what glibc keeps, also in pieces between what is in use, which pile up in hours."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class KeptMemory:
    """Bounds what glibc keeps: gives it back whenever the process has grown by `most` bytes since it last did.

    Tensors of ever other sizes, such as those of slices of ever other lengths, leave pieces behind that fit none of the
    next ones.
    """

    def __init__(self, most: int = 1 << 29) -> None:
        self.most = most
        self.before = _resident()

    def look(self) -> None:
        """Costs nothing where the process has not grown."""
        if _resident() > self.before + self.most:
            give_back_freed_memory()
            self.before = _resident()


def _resident() -> int:
    """Bytes of the machine's memory that this process has, where Linux says so."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else 0


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device, or that of the machine, did not suffice."""
    # torch has a type for accelerators alone; the allocator of the processor raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
