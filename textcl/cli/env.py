"""`textcl env [--json PATH|-]`: what a bug report should say, and what will be used."""

import os
import platform
from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.cli.output import parsed, show


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl env", description="Versions, device, bf16 support, cores and the data that is found.")
    given = parsed(parser, arguments)

    from textcl.data import data_directory, verify
    from textcl.encoder.load import BUNDLED

    lines = describe()
    lines["bundled encoder"] = str(BUNDLED) if BUNDLED.is_dir() else "not in this installation"
    found = [status.name for status in verify() if status.usable]
    lines["data"] = f"{data_directory()}: {', '.join(found) or 'no sets; see textcl data --help'}"
    show(lines, "\n".join(f"{name:<22}{value}" for name, value in lines.items()), given.json)


def describe() -> dict[str, str]:
    """The machine: versions, platform, device, cores, bf16."""
    import torch

    from textcl.device import bf16_speed, has_bf16
    from textcl.version import library_versions

    cuda = torch.cuda.is_available()
    device = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else "cpu"
    if has_bf16():
        speed = bf16_speed()
        advice = "used in training" if speed > 1 else "used in training; --bf16 false is faster here"
        bf16 = f"yes, {advice} ({speed:.1f} times the speed of float32)"
    else:
        bf16 = "not supported here; training computes in float32"
    return {
        **library_versions(),
        "platform": platform.platform(),
        "device": device,
        "cores": f"{os.cpu_count()} ({torch.get_num_threads()} threads)",
        "bf16": bf16,
    }
