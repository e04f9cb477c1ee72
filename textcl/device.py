"""What this machine can do: bfloat16, copies to a GPU, and the memory that a process keeps."""

import ctypes
import logging
import math
import os
import platform
import sys
import time
from collections import deque
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

logger = logging.getLogger("textcl")


@cache
def has_bf16() -> bool:
    """Whether this machine computes in bfloat16 natively: on its GPU, or else on its CPU (x86 or Arm)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo")
    if flags.is_file():
        words = set(flags.read_text().split())
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    return sys.platform == "darwin" and platform.machine() == "arm64" and torch.backends.mps.is_available()


@cache
def halves_float32() -> bool:
    """Whether torch's float32 products reach only half of the speed of this CPU, because MKL does not use AVX-512.

    MKL uses it on Intel's CPUs only. This is read from the name of the vendor and not measured, so that a resumed run
    computes the same bits.
    """
    flags = Path("/proc/cpuinfo")
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # what torch.compile uses; not documented
    by_mkl = wide and there and torch.backends.mkl.is_available()
    return by_mkl and flags.is_file() and "AuthenticAMD" in flags.read_text()


def product_by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (…, in) · weightᵀ (in, out) + bias (out,), to (…, out), computed by oneDNN; no gradient."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))


@cache
def can_order_weights() -> bool:
    """Whether torch can order a weight once for the products of oneDNN; else oneDNN orders it in each product."""
    there = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")  # what torch.compile uses; not documented
    return there and torch.backends.mkldnn.is_available() and platform.machine().lower() in ("x86_64", "amd64")


def bf16_if_there(wanted: bool) -> bool:
    """Whether to compute in bfloat16: if it is wanted and the machine has it. Logs a warning if it does not."""
    if wanted and not has_bf16():
        logger.warning("This machine has no bfloat16, and emulating it is many times slower; float32 is used.")
        return False
    return wanted


def bf16_speed() -> float:
    """How many times faster a matrix product is in bfloat16 than in float32 on this device, now.

    The product has the size of a small encoder's. Some CPUs have the instructions and are slower with them. The
    measurement takes a tenth of a second.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(5):
        for dtype in seconds:
            rows, weight = torch.ones(1024, 384, dtype=dtype, device=device), torch.ones(384, 1536, device=device)
            weight = weight.to(dtype)
            by_onednn = dtype == torch.float32 and device == "cpu" and halves_float32()  # as encoder/linear.py
            start = time.perf_counter()
            product = product_by_onednn(rows, weight.t()) if by_onednn else rows @ weight
            product.sum().item()
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def keep_few_products() -> None:
    """Makes torch and oneDNN keep the code of 128 products in place of 1,024; settings of the user are not changed.

    oneDNN compiles each product for its shape, and texts of many lengths give hundreds of shapes, so that `encode`
    grew by 15 MiB for every 1,000 texts. Both variables are read at the first product that oneDNN computes.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")


@cache
def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for later tensors, on a CPU; settings of the user are not changed.

    By default glibc returns the memory of large tensors to the system, which clears each page before it gives it out
    again. If glibc keeps the memory, a step is a tenth faster.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or torch.cuda.is_available() or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # the numbers of these options in malloc.h
    glibc = ctypes.CDLL(None)
    glibc.mallopt(mmap_threshold, 2**30)
    glibc.mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Returns the memory that glibc keeps to the system, also free pieces between used ones.

    Tensors of changing sizes leave free pieces that later tensors do not fit into, so that a process that never returns
    them grows for hours.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class KeptMemory:
    """Limits what glibc keeps: returns it to the system when the process has grown by `most` bytes since the last time.

    Tensors of changing sizes, such as those of slices of changing lengths, leave free pieces that later tensors do not
    fit into.
    """

    def __init__(self, most: int = 1 << 29) -> None:
        self.most = most
        self.before = _resident()

    def look(self) -> None:
        """Returns freed memory to the system if the process has grown by more than `most` since the last return."""
        if _resident() > self.before + self.most:
            give_back_freed_memory()
            self.before = _resident()


class SteadyMemory:
    """Keeps the size of a process that trains steady: what glibc keeps beyond the need of a step goes to the system.

    Tensors of changing sizes leave free pieces that later tensors do not fit into, so that the process grows over
    hundreds of steps. The size at the first look after a return is taken as the need. The limit comes from the smallest
    need of several returns, because a need that was measured too high would otherwise stay: the process rarely exceeds
    it, so it is rarely measured again.

    Args:
        growth: The share by which the process may grow beyond the need.
        returns: How many of the last returns count. If a step really needs more memory than before, this is accepted
            after so many returns.
    """

    def __init__(self, growth: float = 0.03, returns: int = 8) -> None:
        self.growth = growth
        self.needs: deque[int] = deque(maxlen=returns)
        self.returned = True

    def look(self) -> None:
        """Returns freed memory to the system if the process has grown; call it after each step, or after every few."""
        resident = _resident()
        if self.returned:
            self.needs.append(resident)
            self.returned = False
        elif resident > min(self.needs) * (1 + self.growth):
            give_back_freed_memory()
            self.returned = True


def _resident() -> int:
    """The resident memory of this process in bytes; 0 if the system is not Linux."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.is_file() else 0


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without waiting until a GPU has finished its work, unless it is Apple's."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    # Apple's GPU (MPS) would read the memory of a tensor that is gone by then: pytorch/pytorch issue 189690
    return tensor.to(device, non_blocking=device.type != "mps")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the memory of the device or of the machine ran out."""
    # torch has its own error only for accelerators; the CPU allocator raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
