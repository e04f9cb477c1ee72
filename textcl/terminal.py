"""What a terminal shows and what is typed there: text without characters that control it, and keys without Enter."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

# Control characters (ESC among them, and the C1 codes), embeddings and overrides of direction, halves of surrogate
# pairs. Line breaks and tabs stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Replaces characters that control a terminal, or that HTML must not contain, by U+FFFD.

    Everything that textcl prints goes through this function: results, tables, errors, log messages, file names.

    Example:
        >>> printable("a\\x1b[31mb\\u202e")
        'a�[31mb�'
    """
    return _CONTROL.sub("\ufffd", text)


def json_escaped(text: str) -> str:
    """JSON with those characters written as escapes such as \\u009b, so that nothing of a value is lost."""
    return _CONTROL.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """Yields a function that waits for a key and returns it in lower case, "" at the end of the input.

    Arrows are "left", "right", "up" and "down". Without a terminal, or on Windows, the first character of a line is the
    key.
    """
    stream = sys.stdin
    if stream is None:
        yield lambda: ""
    elif termios is None or not stream.isatty():
        yield lambda: (line := stream.readline()) and (line.strip()[:1].lower() or " ")
    else:
        handle = stream.fileno()
        before = termios.tcgetattr(handle)
        try:
            tty.setcbreak(handle, termios.TCSADRAIN)  # keeps what was typed ahead
            yield lambda: _key(handle)
        finally:
            termios.tcsetattr(handle, termios.TCSADRAIN, before)


_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}


def _key(handle: int) -> str:
    typed = os.read(handle, 1).decode("latin-1")
    if typed == "\x1b" and os.read(handle, 1) in (b"[", b"O"):  # an arrow is three characters
        return _ARROWS.get(os.read(handle, 1).decode("latin-1"), " ")
    return "" if typed == "\x04" else typed.lower()
