"""Finds the sub-command, runs it, and turns an `InputError` into one line and exit code 2."""

import argparse
import atexit
import errno
import gc
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from typing import Any, NoReturn

from textcl.environment import cache_directory, home, launched
from textcl.errors import InputError, UnknownFlag, disk_full, nearest
from textcl.files import target_of
from textcl.ranges import range_of, with_values_attached
from textcl.terminal import printable
from textcl.version import __version__

# Each is a module of this folder with `main(arguments) -> None`, imported only when it is called.
COMMANDS = {
    "train": "train an encoder by a method or a recipe, and export it",
    "methods": "list the methods that train can use",
    "recipes": "list the recipes that textcl ships",
    "compare": "train several recipes with several seeds; one table of mean ± sd",
    "adapt": "look for an encoder that is better for your own texts, with a verdict",
    "judge": "compare two systems by your own blind answers, without judgements",
    "eval": "score an encoder on STS, clustering, SentEval's transfer tasks or retrieval, or describe its geometry",
    "encode": "turn a file of texts into vectors; resumes after an interruption",
    "distill": "make a small, fast student of an encoder, from texts without labels",
    "search": "find the texts nearest to a query, in what encode wrote",
    "explore": "take a first look at a file of texts: near-duplicates, clusters and a map on one page",
    "cluster": "group a file of texts by meaning",
    "map": "write one HTML page on which texts are points, to look at and to search",
    "duplicates": "find near-duplicates in a file of texts or in what encode wrote, and say which texts to keep",
    "results": "list past runs and comparisons, export them, and say which of two is better",
    "report": "write one HTML page on a run, a comparison or an adaptation",
    "data": "list, fetch, import and verify the evaluation sets",
    "demo": "train and score on bundled data, offline, in minutes",
    "env": "show versions, device, bf16 support and data",
}

# Their work is shared by the processes that torchrun starts.
SHARED = ("train", "demo", "cluster", "encode")


class Parser(argparse.ArgumentParser):
    """The parser of every command.

    A flag may be spelt with - or _ between its words, but may not be shortened. Errors are `InputError`s: one sentence,
    without usage text above it. The error for an unknown flag names the nearest one.

    Args:
        passes_on: Unknown flags are no error here, because the command passes them on to each run.
        options: See `argparse.ArgumentParser`.
    """

    def __init__(self, *, passes_on: bool = False, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.passes_on = passes_on

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+): (?=must be)", r"\1 ", message)
        raise InputError(f"{message[0].upper()}{message[1:]} (see {self.prog} --help).")

    @property
    def flags(self) -> list[str]:
        """The flags that this parser knows, as its usage names them."""
        return ["--help", *re.findall(r"--[a-z][\w-]*", self.format_usage())]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments = [*with_values_attached([*_dashed(sys.argv[1:] if args is None else args)])]
        if not self.passes_on:
            end = arguments.index("--") if "--" in arguments else len(arguments)
            for flag in (argument.split("=")[0] for argument in arguments[:end] if argument.startswith("--")):
                if flag not in self.flags and " " not in flag:  # with a space it is a text
                    raise UnknownFlag(flag, self.flags, self.prog)
        return super().parse_known_args(arguments, namespace)

    def parse_with_optional(self, name: str, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses arguments whose last positional may be missing, or stand behind a flag, where argparse overlooks it.

        Args:
            name: The name of this positional. If it takes several values, all that are left are its own.
            arguments: The arguments.
        """
        given, rest = self.parse_known_args(arguments)
        rest = [each for each in rest if each != "--"]
        if isinstance(value := getattr(given, name), list):
            value += rest
            return given
        if rest and value is None:
            setattr(given, name, rest.pop(0))
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return given

    @contextmanager
    def passing_on(self) -> Iterator[None]:
        """Where flags are passed on: the answer to an unknown one considers the flags of this parser as well."""
        try:
            yield
        except UnknownFlag as error:
            raise UnknownFlag(error.flag, [*error.known, *self.flags], self.prog) from None


def within(kind: Any) -> Callable[[str], float]:
    """The `type` of a flag whose value is a number with a range, such as `Count` of `textcl.ranges`."""
    allowed = range_of(kind)
    assert allowed is not None

    def read(text: str) -> float:
        try:
            return allowed.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _dashed(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with dashes in the names of flags: --max_length=32 becomes --max-length=32."""
    names = True
    for argument in arguments:
        names = names and argument != "--"
        flag, equals, value = argument.partition("=")
        if names and re.fullmatch(r"--\w[\w-]*", flag):
            yield flag.replace("_", "-") + equals + value
        else:
            yield argument


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, or 2 if the user has to change something."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    try:
        for argument in arguments:
            _check_characters(argument)
        if not arguments:
            _parser().print_help()
            return 2
        _run(arguments)
        sys.stdout.flush()
    except InputError as error:
        return _fail(2, error)
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    except BrokenPipeError:  # `textcl eval ... | head`
        _close_output()
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:  # standard output itself cannot be written; Python would try it again at its exit
            _close_output()
        return _fail(2, reason(error))
    except Exception as error:  # each library has its own for a full disk; all others are bugs
        if not disk_full(error):
            raise
        return _fail(2, _full(error))
    return 0


def _open_streams() -> None:
    """Makes standard output and standard error take any text, also where the locale has few characters.

    A stream that was closed (`textcl ... 2>&-`) is None in Python; then everything is written to nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _close_output() -> None:
    with suppress(io.UnsupportedOperation):  # it is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_characters(argument: str) -> None:
    """Raises an InputError if an argument is not valid UTF-8: texts and names are written to files as UTF-8."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The argument {argument!r} is not UTF-8 from character {error.start + 1} on. Type it in a terminal that "
            "uses UTF-8, or rename the file."
        ) from None


def _full(error: Exception) -> str:
    return f"The disk is full; what was complete before is kept ({error})."


def reason(error: OSError) -> str:
    """An error of the operating system as a sentence: the file, and what is wrong with it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(error)
    what = error.strerror or str(error) or type(error).__name__
    return f"{target_of(os.fsdecode(error.filename))}: {what}." if error.filename else f"{what}."


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="textcl",
        usage="textcl COMMAND ... | --help | --version",
        description=f"Better sentence encoders by contrastive learning.\n\ncommands:\n{listed}\n\n"
        "textcl COMMAND --help lists the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"textcl {__version__}")
    return parser


def _run(arguments: list[str]) -> None:
    command = _parser().parse_args(arguments[:1]).command
    if command not in COMMANDS:
        raise InputError(f"There is no command {command!r}.{nearest(command, COMMANDS)} See textcl --help.")
    quieten()
    atexit.register(gc.freeze)  # else Python's exit looks for garbage among all objects: half a second
    other = launched().rank > 0  # under torchrun one process does what cannot be shared, and prints
    if other and command not in SHARED:
        return
    muted = other and command != "encode"
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere if muted else sys.stdout):
        import_module(f"textcl.cli.{command}").main(arguments[1:])


@contextmanager
def without_collector() -> Iterator[None]:
    """Large packages are imported faster in here, because Python does not look for garbage meanwhile.

    Packages such as torch and transformers make hundreds of thousands of objects and hardly any garbage. Python looks
    through them again and again while they are made. They are not looked through later either.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()


def quieten() -> None:
    """One line for each message, on standard error; of other libraries, errors only.

    This has to happen before those libraries are imported, since they read these variables then.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("textcl").setLevel(logging.INFO)
    if not sys.warnoptions:  # python -W shows them
        warnings.simplefilter("ignore")
    if home() is None:  # else the libraries make a folder that is named ~
        os.environ.setdefault("HF_HOME", str(cache_directory() / "huggingface"))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")


class _Handler(logging.StreamHandler[Any]):
    def emit(self, record: logging.LogRecord) -> None:
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")  # removes the line of `Progress`, which comes again below
        super().emit(record)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(" ".join(super().format(record).split()))


def _fail(code: int, message: object) -> int:
    print("textcl:", printable(" ".join(str(message).split())), file=sys.stderr)
    return code
