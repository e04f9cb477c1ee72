"""Importing sets from an archive or a folder on disk.

An archive is not trusted. The names of its members are only compared with those in the manifest; the files are written
to the manifest's paths in a temporary folder; and a set is moved into place by a rename once its row counts are right.
"""

from __future__ import annotations

import errno
import glob
import gzip
import logging
import lzma
import os
import platform
import shutil
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from textcl.data.catalogue import SetStatus, data_directory, sets_of, status_of
from textcl.errors import InputError
from textcl.files import is_alive

logger = logging.getLogger("textcl")

# What the libraries raise for a damaged archive. Damaged headers give the last four.
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, UnicodeError, OverflowError, struct.error),
)
_MOST_UNKNOWN = 1 << 30  # bytes of a file whose size the manifest does not name
_CHUNK = 1 << 20


def import_archive(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> list[SetStatus]:
    """Imports the sets found in an archive or folder into `directory` (default: `data_directory()`).

    The files may be under any leading folders, as long as they keep the SentEval layout below these. A set that lacks a
    file is left out with a warning. A set that is already installed is replaced by a rename; other files in its folder
    stay. After an error nothing has changed.

    Args:
        path: A .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip file, or a folder.
        directory: The data directory to import into.
        manifest: A catalogue to use instead of the one that comes with textcl.

    Returns:
        The status of each set that was imported.

    Raises:
        InputError: The archive does not exist, is damaged or encrypted, has a member that would be written outside the
            folder (an absolute path, "..", a link, a device), holds no complete set, or a set has a wrong row count or
            a file of more than twice the known size.

    Example:
        >>> import_archive("senteval_downstream.tar.xz", "senteval_data")  # doctest: +SKIP
    """
    source = Path(path)
    root = Path(directory) if directory is not None else data_directory()
    sets = sets_of(manifest)
    with staging(root) as stage:
        try:
            found = _copy_known(source, stage, sets)
        except _DAMAGED as error:
            raise InputError(f"{source} cannot be unpacked: {error}. It may be damaged or incomplete.") from error
        except OSError as error:
            if error.errno not in (None, errno.EINVAL):  # of a disk, which may be full; EINVAL: an impossible offset
                raise
            raise InputError(f"{source} cannot be unpacked: {error}. It may be damaged or incomplete.") from error
        if not found:
            raise InputError(f"{source} holds no file of the sets in textcl's catalogue ({', '.join(sets)}).")
        return install(stage, root, {name: sets[name] for name in sets if name in found}, str(source))


# importing
@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A temporary folder in `root`. If `root` was created for it and is empty at the end, `root` is removed too.

    Those that processes of this machine left there when they were killed are removed first.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    own = f".import-{platform.node()}-"
    for left in root.glob(f"{glob.escape(own)}*"):
        if _is_dead(left.name.removeprefix(own).split("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f"{own}{os.getpid()}-", dir=root))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()


def _is_dead(process: str) -> bool:
    """Whether this is the id of a process of this machine that no longer runs."""
    try:
        return not is_alive(int(process))
    except ValueError:  # not an id
        return False


def _copy_known(source: Path, stage: Path, sets: Mapping[str, Any]) -> set[str]:
    """Copies the files that the manifest names to the temporary folder; returns the names of the sets found."""
    owners, most = {}, {}  # path in the layout -> set, largest size
    for name, entry in sets.items():
        known_sizes = {file["name"]: file.get("bytes") for file in entry["files"]}
        for file in (*known_sizes, *entry.get("notices", ())):
            owners[f"{entry['folder']}/{file}"] = name
            size = known_sizes.get(file)
            most[f"{entry['folder']}/{file}"] = _MOST_UNKNOWN if size is None else 2 * size
    found: dict[str, int] = {}  # path in the layout -> number of leading folders it was found under
    for parts, opened in _members(source):
        for start in range(len(parts)):
            known = "/".join(parts[start:])
            if known in owners:
                if start < found.get(known, sys.maxsize):  # if a file occurs twice, take the one in the higher folder
                    found[known] = start
                    target = stage / known
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened() as content, target.open("wb") as copy:
                        _copy(content, copy, most[known], f"{known} in {source}")
                break
    return {owners[known] for known in found}


def _copy(content: IO[bytes], target: IO[bytes], most: int, name: str) -> None:
    """Copies bytes; more than `most` of them are an error, so that a small archive cannot fill the disk."""
    while chunk := content.read(min(_CHUNK, most + 1)):
        most -= len(chunk)
        if most < 0:
            raise InputError(f"{name} is much larger than the known file. Nothing was imported.")
        target.write(chunk)


def _members(source: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (parts of the member's name, a function that opens it); all members of an archive are checked first."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(source).parts, lambda path=path: path.open("rb")
    elif not source.is_file():
        raise InputError(f"There is no file {source} to import.")
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as bundle:
            infos = bundle.infolist()
            for info in infos:
                kind = (info.external_attr >> 16) & 0o170000  # the Unix file type, 0 if none was stored
                _check_member(source, info.orig_filename, plain=kind in (0, 0o100000, 0o040000))
            for info in infos:
                if not info.is_dir() and not info.filename.endswith("\\"):
                    yield _parts(info.filename), lambda info=info: _open(bundle, info)
    elif _is_tar(source):
        with tarfile.open(source) as tape:
            for member in _headers(tape):
                _check_member(source, member.name, plain=member.isreg() or member.isdir())
                if member.issparse():
                    raise InputError(f"{source} has the sparse member '{member.name}'. Nothing was imported.")
        with tarfile.open(source) as tape:
            for member in _headers(tape):
                if member.isreg():
                    yield _parts(member.name), lambda member=member: _extract(tape, member)
    else:
        raise InputError(f"{source} is neither a folder nor a tar or zip archive (.tar, .tar.gz, .tar.xz, .zip).")


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except ValueError as error:  # a number in the first header
        raise tarfile.ReadError(str(error)) from error


def _headers(tape: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    members = iter(tape)
    while True:
        try:
            member = next(members, None)
        except ValueError as error:  # a number in a header
            raise tarfile.ReadError(str(error)) from error
        if member is None:
            return
        yield member


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts  # some programs for Windows write backslashes


def _open(bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return bundle.open(info)
    except (RuntimeError, NotImplementedError) as error:  # it is encrypted, or compressed in a way that Python lacks
        raise InputError(
            f"{bundle.filename} cannot be unpacked: {error}. Pack it again without a password, as .zip or .tar.xz."
        ) from error


def _extract(tape: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tape.extractfile(member)
    assert content is not None  # None only for a member that is not a regular file
    return content


def _check_member(source: Path, name: str, *, plain: bool) -> None:
    """Refuses a member that could be written outside the folder. Only the manifest's names are written in any case."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(
            f"{source} has the member '{name}', which would be written outside the folder. Nothing was imported."
        )
    if not plain:
        raise InputError(f"{source} has the member '{name}', which is a link or a device. Nothing was imported.")


def install(stage: Path, root: Path, sets: Mapping[str, Any], source: str) -> list[SetStatus]:
    """Verifies the sets in the temporary folder and, if no row count is wrong, moves each complete one into place."""
    complete = []
    for name, entry in sets.items():
        status = status_of(name, entry, stage / entry["folder"])
        if status.state == "wrong count":
            raise InputError(f"{name} in {source}: {_first(status, stage)} Nothing was imported.")
        if not status.usable:
            logger.warning("%s in %s is incomplete and was left out: %s", name, source, _first(status, stage))
            continue
        if status.state == "hash differs":
            logger.warning("%s: the row counts are right, but a hash differs. %s", name, _first(status, stage))
        complete.append(name)
    if not complete:
        raise InputError(f"{source} holds no complete set. Nothing was imported.")
    for name in complete:
        entry = sets[name]
        place = entry["folder"]
        if entry["kind"] == "clustering":  # these sets share one folder, so only the set's own file is replaced
            place = f"{place}/{entry['files'][0]['name']}"
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if target.is_dir() and not target.is_symlink():
                _keep_others(target, stage / place)
            os.replace(target, stage / f"replaced-{name}")  # removed with the temporary folder
        os.replace(stage / place, target)
    return [status_of(name, sets[name], root / sets[name]["folder"]) for name in complete]


def _keep_others(folder: Path, replacement: Path) -> None:
    """Puts what else is in the folder of a set, such as a user's notes, into the folder that replaces it."""

    def there(inside: str, names: list[str]) -> list[str]:
        return [name for name in names if (replacement / Path(inside).relative_to(folder) / name).is_file()]

    shutil.copytree(folder, replacement, symlinks=True, ignore=there, copy_function=_linked, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _first(status: SetStatus, stage: Path) -> str:
    return status.notes[0].replace(f"{stage}{os.sep}", "")
