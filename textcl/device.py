"""What this machine can do, and how it says that it cannot."""

import logging
import platform
import sys
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


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory of the device, or that of the machine, did not suffice."""
    # torch has a type for accelerators alone; the allocator of the processor raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
