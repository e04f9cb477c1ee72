"""Writes files so that an interruption at any moment leaves either the old or the new content, never half of it.

Each file is written under a temporary name next to its target, flushed to the disk and renamed. What a killed process
leaves is removed by the next process that writes to the same place.

Results are lines of JSON: several processes may add to one file at the same time, and a line that an interruption left
incomplete, or that was damaged later, is skipped.
"""

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from textcl.errors import DiskFull, InputError, disk_full

logger = logging.getLogger("textcl")

SCHEMA = 1  # the version of the format of a line of results
_numbers = count()  # several threads may write to one target at the same time
_LEFTOVER = re.compile(  # `of`: what was being written, if the target is a leftover itself
    r"\.(?P<target>\.(?P<of>.+)\.[^.]+\.\d+\.\d+\.tmp|.+)\.(?P<machine>[^.]+)\.(?P<process>\d+)\.\d+\.(?P<kind>tmp|old)"
)
_WEIGHTS = (".safetensors", ".bin")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path`. If the block ends without an error, the file there is renamed to `path`.

    A new file gets the permissions that the umask gives, whatever library wrote it; a replaced file keeps its own.

    Raises:
        DiskFull: A library met a full disk in the block.
        InputError: There is something at `path` that cannot be replaced, such as a folder or a device.

    Example:
        >>> with atomic_write("scores.json") as temporary:
        ...     _ = temporary.write_text("{}")
    """
    target = _replaceable_file(path)
    make_folder(target.parent)
    clear_leftovers(target.parent, target.name)
    temporary = _beside(target, "tmp")
    try:
        with said_if_full(path):
            mode = _create(temporary)
            yield temporary
            _settle(temporary, stat.S_IMODE(target.stat().st_mode) if target.exists() else mode)
            os.replace(temporary, target)
            _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], known: re.Pattern[str]) -> Iterator[Path]:
    """Yields a temporary directory, which is renamed to `path` like the file of `atomic_write`.

    An existing directory is replaced if textcl can have written it, see `check_replaceable`. If it cannot be replaced
    in the end, it stays as it was.

    Args:
        path: The directory.
        known: Matches the path, relative to the directory, of every file that may be in it.

    Raises:
        DiskFull: A library met a full disk in the block.
        InputError: What is at `path` must not be replaced.
    """
    check_replaceable(path, known)
    target = Path(path).resolve()
    make_folder(target.parent)
    temporary, replaced = _beside(target, "tmp"), _beside(target, "old")
    try:
        with said_if_full(path):
            temporary.mkdir()
            yield temporary
            settle(temporary)
            if target.exists():
                os.replace(target, replaced)
            os.replace(temporary, target)
            _sync(target.parent)
    finally:
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def settle(folder: Path) -> None:
    """Gives the files of a folder the permissions that the folder's own imply, and flushes all to the disk.

    safetensors and others make files that only their owner can read.
    """
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync(path)
        else:
            _settle(path, mode)
    _sync(folder)


def check_replaceable(path: str | os.PathLike[str], known: re.Pattern[str]) -> None:
    """Raises an error unless a directory can be written at `path` without a loss.

    This is so if there is nothing, an empty directory, or a directory with weights in which every file is known. What
    a killed process left there is removed first, and a directory that it was replacing is put back.

    Args:
        path: The directory.
        known: Matches the path, relative to the directory, of every file that may be in it.

    Raises:
        InputError: There is something else at `path`, or the current folder is in it.
    """
    target = Path(path).resolve()
    clear_leftovers(target.parent, target.name)
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{path} is a file; name a new directory.")
    here = Path.cwd()
    if target == here or target in here.parents:
        raise InputError(f"{path} is the current folder, or has it inside; name a new directory.")
    if (name := unknown_file(target, known)) is not None:
        raise InputError(f"{path} has {name}, which textcl did not write, so it is not replaced; name a new directory.")
    files = list(target.rglob("*"))
    if files and not any(file.suffix in _WEIGHTS or file.name == "modules.json" for file in files):
        raise InputError(f"{path} is not empty and has no model, so it is not replaced; name a new directory.")


def check_new(path: str | os.PathLike[str]) -> None:
    """Raises an InputError if `path` is a file or a directory with files, or is or contains the current folder.

    What a killed process left in the directory does not count. Call it where nothing is to be replaced.
    """
    target, here = Path(path).resolve(), Path.cwd()
    clear_leftovers(target)
    if target in (here, *here.parents) or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{path} exists already; remove it or name another directory.")


def unknown_file(folder: Path, known: re.Pattern[str]) -> str | None:
    """The first file below a folder whose relative path is not known; None if there is none.

    What a killed process left in the folder is removed first.
    """
    clear_leftovers(folder)
    files = (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if not _plain_folder(file))
    return next((file for file in files if not known.fullmatch(file)), None)


def check_output(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Raises an error if a file, or with `folder` a directory, cannot be written at `path`; leaves nothing there.

    Call it before long work whose result is written to `path`.

    Raises:
        InputError: It cannot be written there; the message says why.
    """
    if not os.fspath(path):
        raise InputError("The name of an output is empty; name a file or a directory.")
    target = Path(path)
    try:
        if not folder:
            target = _replaceable_file(path)
            clear_leftovers(target.parent, target.name)
        elif target.exists() and not target.is_dir():
            raise InputError(f"{path} is not a directory; name a directory.")
        else:
            clear_leftovers(target)
        with provisional(target if folder else target.parent):
            trial = _beside(target / "trial" if folder else target, "tmp")
            _create(trial)
            trial.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


def check_same_kind(path: str | os.PathLike[str], beginning: str = "<!doctype html>") -> None:
    """Raises an InputError if there is a file at `path` that does not begin as what replaces it, by default a page."""
    target, wanted = Path(path), beginning.encode()
    if target.is_file():
        with target.open("rb") as there:
            if (begins := there.read(len(wanted))) and begins.lower() != wanted.lower():
                raise InputError(f"{path} exists already and holds something else; remove it or name another file.")


def check_not_read(path: str | os.PathLike[str], sources: Iterable[object]) -> None:
    """Raises an InputError if the directory that is to be replaced is, or holds, one of the sources of the work."""
    for each in sources:
        source = Path(each).resolve() if isinstance(each, (str, os.PathLike)) and os.path.exists(each) else None
        if source and Path(path).resolve() in (source, *source.parents):
            raise InputError(f"{path} cannot be replaced by what is made from {each}; name another directory.")


def make_folder(folder: Path) -> None:
    """Makes a folder with its parents, although another process may remove any of them at the same moment.

    Raises:
        OSError: There is a file at one of these paths, or the file system does not allow it.
    """
    until = time.monotonic() + 2  # /proc refuses in the same way, and for ever
    while True:
        try:
            return folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            nearest = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(nearest.stat().st_mode):  # one call, so that the answer is of one moment
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
            if time.monotonic() > until:
                raise


@contextmanager
def provisional(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents. At the end those that it made are removed if they are empty."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # one of them is in use now
            for each in made:
                each.rmdir()


def clear_leftovers(folder: Path, target: str | None = None) -> None:
    """Removes what a killed process of this machine has left in a folder, and puts back what it was replacing.

    Args:
        folder: The folder; it does not have to exist.
        target: Only what was left while the file or directory of this name was written; default: all.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        found = _LEFTOVER.fullmatch(path.name)
        if not found or (target is not None and target != (found["of"] or found["target"])):
            continue
        if found["machine"] != machine() or is_alive(int(found["process"])):
            continue
        with suppress(FileNotFoundError):  # another process does the same
            if found["kind"] == "old" and not found["of"] and not (whole := folder / found["target"]).exists():
                os.replace(path, whole)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextmanager
def said_if_full(path: str | os.PathLike[str], advice: str = "") -> Iterator[None]:
    """Turns the error of a library that met a full disk in the block into a `DiskFull`; other errors pass.

    Args:
        path: What was being written.
        advice: What to do, after making room; default: to give the same command again.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises a bare Exception
        if (isinstance(error, DiskFull) and not advice) or not disk_full(error):
            raise
        reason = error.reason if isinstance(error, DiskFull) else error
        raise DiskFull(path, reason, advice) from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        content = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_bytes(content.encode("utf-8", "backslashreplace"))  # names of files may not be UTF-8


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def content_hash(value: dict[str, Any]) -> str:
    """SHA-256 of a dictionary as JSON holds it, without its key "sha256"; the order of the keys does not matter."""
    content = json.loads(json.dumps({key: each for key, each in value.items() if key != "sha256"}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def append_result(path: str | os.PathLike[str], line: dict[str, Any]) -> None:
    """Adds a line to a file of results, with the SHA-256 of its content, and waits until it is on disk.

    The line is written in one call at the end of the file, after a line break, so that it does not mix with the line of
    another process or with an incomplete line.

    Raises:
        DiskFull: The disk is full.
    """
    line = {"schema": SCHEMA, **line}
    text = json.dumps({**line, "sha256": content_hash(line)}, ensure_ascii=False)
    content = b"\n" + text.encode("utf-8", "backslashreplace") + b"\n"
    target = Path(path)
    make_folder(target.parent)
    with said_if_full(path):
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            os.fsync(handle)
        finally:
            os.close(handle)


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a file of results, without incomplete and damaged ones; an empty list if there is no file.

    Raises:
        InputError: If the file was written by a version of textcl whose results have another schema.
    """
    file = Path(path)
    lines = []
    for number, raw in enumerate(file.read_bytes().split(b"\n") if file.exists() else [], start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            logger.warning("%s, line %d is incomplete and was skipped.", file, number)
            continue
        if isinstance(line, dict) and line.pop("sha256", hashed := content_hash(line)) != hashed:
            logger.warning("%s, line %d is damaged and was skipped.", file, number)
            continue
        schema = line.pop("schema", None) if isinstance(line, dict) else None
        if schema != SCHEMA:
            raise InputError(
                f"{file}, line {number} has results of schema {schema}, and this version of textcl reads schema "
                f"{SCHEMA}. Move the file away, or name another folder."
            )
        lines.append(line)
    return lines


def target_of(path: str) -> str:
    """The path whose temporary name this is, for messages; another path unchanged."""
    named = _LEFTOVER.fullmatch(Path(path).name)
    return str(Path(path).with_name(named["of"] or named["target"])) if named else path


@cache
def machine() -> str:
    """A name for this machine and its numbering of processes, since containers may have the name of their host."""
    spaces = Path("/proc/self/ns/pid")
    return f"{platform.node().replace('.', '-')}-{spaces.stat().st_ino if spaces.exists() else 0}"


def is_alive(process: int) -> bool:
    """Whether a process of this machine is running."""
    if os.name == "nt":  # there, os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _beside(target: Path, kind: str) -> Path:
    """A hidden name next to the target that only this call uses, even if several machines share a disk."""
    return target.with_name(f".{target.name}.{machine()}.{os.getpid()}.{next(_numbers)}.{kind}")


def _replaceable_file(path: str | os.PathLike[str]) -> Path:
    """The file that `path` names, through links.

    Raises:
        InputError: There is something else than a file.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise InputError(f"{path} is a folder; name a file.")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a file that can be replaced; name another file.")
    return target


def _plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _create(path: Path) -> int:
    """Makes an empty file and returns its permissions, which are those that the umask gives to a new file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _settle(file: Path, mode: int) -> None:
    """Sets the permissions of a file, which a library may have made for its owner only, and flushes it to the disk."""
    if stat.S_IMODE(file.stat().st_mode) != mode:
        file.chmod(mode)
    _sync(file)


def _sync(path: Path) -> None:
    """Waits until a file is on the disk, or the names in a folder."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it
            raise
    finally:
        os.close(handle)
