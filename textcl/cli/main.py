"""Finds the sub-command, runs it, and turns what a user can put right into one line and exit code 2."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from textcl.errors import InputError, nearest
from textcl.version import __version__

# Each is a module of this folder with `main(arguments) -> None`, imported only when it is called.
COMMANDS = {
    "train": "train an encoder by a method or a recipe, and export it",
    "compare": "train several recipes with several seeds; one table of mean ± sd",
    "eval": "score an encoder on STS12-16, STS-B and SICK-R, on clustering, on SentEval's transfer, or its geometry",
    "encode": "turn a file of texts into vectors; goes on after a kill",
    "search": "the texts nearest to a query, among those that encode wrote",
    "cluster": "group a file of texts by meaning",
    "results": "list past runs and comparisons, export them, and say which of two is better",
    "report": "one HTML page on a run or a comparison",
    "data": "list, fetch, import and verify the evaluation sets",
    "demo": "train, score and show, offline on bundled data, in minutes",
    "env": "what is here: versions, device, bf16, data",
}


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are `InputError`s: one sentence, no usage text above it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].upper()}{message[1:]} (see {self.prog} --help).")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, or 2 for what a user can put right."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _run(arguments)
    except InputError as error:
        return _fail(2, error)
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:  # `textcl eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _fail(2, f"The disk is full; what was complete before is kept ({error}).")
    return 0


def _run(arguments: list[str]) -> None:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="textcl",
        usage="textcl COMMAND ... (textcl COMMAND --help says more)",
        description=f"Better sentence encoders by contrastive learning.\n\ncommands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"textcl {__version__}")
    command = parser.parse_args(arguments[:1]).command
    if command not in COMMANDS:
        raise InputError(f"There is no command {command!r}.{nearest(command, COMMANDS)} See textcl --help.")
    quieten()
    import_module(f"textcl.cli.{command}").main(arguments[1:])


def quieten() -> None:
    """One line a message on standard error; from other libraries only what matters.

    Set before they are imported, since they read these variables then.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("textcl").setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")


def _fail(code: int, message: object) -> int:
    print("textcl:", " ".join(str(message).split()), file=sys.stderr)
    return code
