"""Locks: a folder or a file that a process writes to is taken by it alone."""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from textcl.errors import InputError
from textcl.files import machine, make_folder, provisional

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("textcl")

_taken: set[Path] = set()  # by this process, to which the kernel would give its own lock again
_threads = threading.Lock()  # two threads must not both find a folder free
_waits = threading.Lock()  # for the same reason as `_taken`


@contextmanager
def taken(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Takes a folder for this process until the block ends; a missing folder is made, and removed if it stays empty.

    The lock is on a hidden file and belongs to the process, so that it ends with the process, whatever ends it. Each
    rank of one job (`torchrun`) has a lock of its own: a job excludes another job, and not itself.

    Raises:
        InputError: Another process uses the folder, or the folder cannot be written.
    """
    place = Path(folder).resolve()
    rank = os.environ.get("RANK", "0")
    path = place / (".lock" if rank == "0" else f".lock-{rank}")
    if place.exists() and not place.is_dir():
        raise InputError(f"{folder} is a file; name a directory.")
    with _threads:
        if path in _taken:
            raise InputError(_in_use(folder, os.getpid()))
        _taken.add(path)
    with ExitStack() as stack:
        stack.callback(_taken.discard, path)
        try:
            stack.enter_context(provisional(place))
            handle = _lock(folder, path)
            stack.callback(_release, path, handle)
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()} {machine()}\n".encode())
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from None
        yield


@contextmanager
def waited_for(file: str | os.PathLike[str]) -> Iterator[None]:
    """Takes one file, which need not exist, until the block ends; waits while another thread or process has it.

    The folder of the file is not taken: other files in it may be written meanwhile.

    Raises:
        InputError: Nothing can be written beside the file.
    """
    place = Path(file).resolve()
    path = place.with_name(f".{place.name}.lock")
    with _waits, provisional(path.parent):
        try:
            handle = _lock(file, path, wait=True)
        except OSError as error:
            raise InputError(f"{file} cannot be written: {error.strerror or error}.") from None
        try:
            yield
        finally:
            _release(path, handle)


def _lock(folder: str | os.PathLike[str], path: Path, wait: bool = False) -> int:
    """The open lock file of a folder or a file, locked."""
    while True:
        make_folder(path.parent)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, NotADirectoryError):  # another process had made the folder, and has just removed it
            continue
        try:
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace").split()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(handle)
                raise InputError(_in_use(folder, *holder[:2])) from None
            logger.warning("%s is on a file system without locks: do not let two processes write to it.", folder)
            return handle
        # another process may have removed the file, at the end of its work, between the two calls
        if _is_at(path, handle):
            return handle
        os.close(handle)


def _release(path: Path, handle: int) -> None:
    if _is_at(path, handle):  # else the folder was removed meanwhile
        path.unlink()  # before it is unlocked, so that nothing else holds a lock on a removed file
    os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is the one at this path, which another process may remove at any moment."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _in_use(folder: str | os.PathLike[str], process: object = "?", place: str = "") -> str:
    where = "" if place in ("", machine()) else f" of {place.rpartition('-')[0]}"
    return f"{folder} is in use by process {process}{where}; wait until it ends, or name another directory."
