"""`textcl env`: what a bug report should say, and what will be used."""

import os
import platform
from collections.abc import Sequence

from textcl.cli.main import Parser


def main(arguments: Sequence[str]) -> None:
    Parser(prog="textcl env", description="Versions, device, bf16 support, cores, data found.").parse_args(arguments)

    import torch

    from textcl.data import data_directory, verify
    from textcl.device import has_bf16
    from textcl.encoder import BUNDLED
    from textcl.evaluation.results import library_versions
    from textcl.training.arguments import bf16_speed

    for name, version in library_versions().items():
        print(f"{name:<22}{version}")
    cuda = torch.cuda.is_available()
    device = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else "cpu"
    print(f"{'platform':<22}{platform.platform()}")
    print(f"{'device':<22}{device}")
    print(f"{'cores':<22}{os.cpu_count()} ({torch.get_num_threads()} threads)")
    if has_bf16():
        speed = bf16_speed()
        advice = "used in training" if speed > 1 else "used in training; --bf16 false is faster here"
        print(f"{'bf16':<22}yes, {advice} ({speed:.1f} times the speed of float32)")
    else:
        print(f"{'bf16':<22}not here; training computes in float32")
    print(f"{'bundled encoder':<22}{BUNDLED if BUNDLED.is_dir() else 'not in this installation'}")
    found = [status.name for status in verify() if status.usable]
    print(f"{'data':<22}{data_directory()}: {', '.join(found) or 'no sets; see textcl data --help'}")
