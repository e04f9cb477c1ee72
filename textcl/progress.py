"""How far long work is: one tidy line on a terminal, and without one a log line every 15 seconds."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar

logger = logging.getLogger("textcl")
T = TypeVar("T")

EVERY = 15.0  # seconds between two lines without a terminal
FIRST = 10.0  # seconds until the first of them
DELAY = 2.0  # work that takes less shows nothing
REFRESH = 0.5  # seconds between two versions of the line on a terminal

_lock = threading.Lock()
_stack: list["Progress"] = []  # the last one shows its line
_due: float | None = None  # when the next line may be logged, whatever work is going on then


class Progress:
    """Shows how far some work is, until it is closed.

    Work within other work shows its own line only if the outer work allows it (`gives_way`).

    Args:
        title: What is done, such as "Encoding".
        total: The number of units in all; None: it is not known.
        unit: The name of a unit, in the plural.
        show: False: show nothing. True: show the line of a terminal, also without one. None: as it is needed.
        start: The number of units that were done earlier.
        counted: A function that returns the number of units done; without it, `update` counts.
        figures: A function that returns further parts of the line, such as "loss 0.01".
        at_once: Show a line even if nothing is done yet; otherwise only from the first `update` after two seconds on.
        gives_way: Whether work within this work shows its own line in place of this one.

    Example:
        >>> with Progress("Encoding", total=3) as progress:
        ...     progress.update(2)
        ...     str(progress)
        'Encoding: 2 of 3 texts, 0 s left'
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "texts",
        *,
        show: bool | None = None,
        start: int = 0,
        counted: Callable[[], int] | None = None,
        figures: Callable[[], list[str]] | None = None,
        at_once: bool = False,
        gives_way: bool = False,
    ) -> None:
        global _due
        self.title, self.total, self.unit = title, total, unit
        self.done = self._start = start
        self.gives_way = gives_way
        self._counted = counted
        self._figures = figures or list
        self._terminal = bool(show) or sys.stderr.isatty()
        self._silent = show is False
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if _due is None:
            _due = self._begun + FIRST
        if at_once:
            self._speak_up()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __str__(self) -> str:
        if self._counted is not None:
            self.done = self._counted()
        seconds, done = time.monotonic() - self._begun, self.done - self._start
        of = f" of {self.total:,}" if self.total is not None else ""
        parts = [f"{self.done:,}{of} {self.unit}"] if self.total is not None or self.done else []
        parts += self._figures()
        if self.total is not None and done > 0:
            parts.append(f"{_duration(seconds / done * (self.total - self.done))} left")
        else:
            parts.append(f"{_duration(seconds)} so far")
        return f"{self.title}: {', '.join(parts)}"

    def update(self, more: int = 1) -> None:
        """Counts further units."""
        self.done += more
        if self._thread is None and not self._silent and time.monotonic() - self._begun > DELAY:
            self._speak_up()

    def skip(self, more: int) -> None:
        """Counts units that were done earlier. The time left is estimated from the other units."""
        self._start += more
        self.update(more)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of which is counted once it was used; then closes."""
        with self:
            for item in items:
                yield item
                self.update()

    def close(self) -> None:
        """Ends the line."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with _lock:
            if self in _stack:
                _stack.remove(self)

    def _speak_up(self) -> None:
        with _lock:
            if self._silent or (_stack and not _stack[-1].gives_way):
                self._silent = True
                return
            _stack.append(self)
        self._thread = threading.Thread(target=self._speak, name="progress", daemon=True)
        self._thread.start()

    def _speak(self) -> None:
        global _due
        shown = ""
        while not self._ended.wait(REFRESH):
            if _stack[-1:] != [self]:
                continue
            if self._terminal:
                line = str(self)
                sys.stderr.write(f"\r{line.ljust(len(shown))}")
                sys.stderr.flush()
                shown = line
            elif _due is not None and time.monotonic() >= _due:
                logger.info("%s", self)
                _due = time.monotonic() + EVERY
        if shown:
            sys.stderr.write("\r" + " " * len(shown) + "\r")
            sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
