"""The catalogue of public sets: where they are found, fetched from, imported from disk and verified.

What each set consists of, with row counts and SHA-256, stands in `manifest.json` beside this file. Nothing that is
downloaded or unpacked is trusted: an archive's member names are only ever compared with the manifest's, its bytes go
to the manifest's paths in a temporary folder, and a set takes its place by a rename once its counts are right.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from textcl.errors import InputError, nearest

logger = logging.getLogger("textcl")

State = Literal["ok", "hash differs", "not verified", "wrong count", "incomplete", "missing"]
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class SetInfo:
    """What the manifest says of one set.

    Attributes:
        name: For example "STS12" or "MR".
        kind: "sts", "transfer", "probing", "clustering", "lexicon" or "corpus".
        folder: Its folder under the data directory.
        rows: Expected rows of each split; empty where they are not known.
        licence: As its publisher states it.
        origin: Addresses of the original release.
        files: Paths under the data directory.
    """

    name: str
    kind: str
    folder: str
    rows: dict[str, int]
    licence: str
    origin: list[str]
    files: list[str]


@dataclass(frozen=True)
class SetStatus:
    """How one set stands in a data directory.

    Attributes:
        name: The set.
        state: "ok"; "hash differs" (counts are right, bytes are not those known: another tokeniser version, say);
            "not verified" (it is there, and nothing is known to compare it with); "wrong count"; "incomplete" (some
            files are missing); "missing".
        rows: Rows found in each split.
        expected: Rows expected in each split.
        notes: Sentences about what differs.
    """

    name: str
    state: State
    rows: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether scores on it can be trusted to be scores on that set."""
        return self.state in ("ok", "hash differs", "not verified")


@cache
def load_manifest() -> dict[str, Any]:
    """The manifest that ships with textcl."""
    return json.loads(Path(__file__).with_name("manifest.json").read_text(encoding="utf-8"))


def data_directory() -> Path:
    """Where the public sets are: $TEXTCL_DATA, else ./senteval_data if it holds a set, else the user's cache folder.

    The folder need not exist; `import_archive` and `fetch` make it.
    """
    if chosen := os.environ.get("TEXTCL_DATA"):
        return Path(chosen)
    local = Path("senteval_data")
    if any(
        (local / entry["folder"] / file["name"]).is_file()
        for entry in load_manifest()["sets"].values()
        for file in entry["files"]
    ):
        return local
    return cache_directory()


def list_sets(*, manifest: Mapping[str, Any] | None = None) -> list[SetInfo]:
    """All sets of the manifest, in its order."""
    return [
        SetInfo(
            name=name,
            kind=entry["kind"],
            folder=entry["folder"],
            rows=_expected(entry),
            licence=entry["licence"],
            origin=list(entry["origin"]),
            files=[f"{entry['folder']}/{file['name']}" for file in entry["files"]],
        )
        for name, entry in _sets(manifest).items()
    ]


def verify(
    directory: str | os.PathLike[str] | None = None,
    names: Iterable[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> list[SetStatus]:
    """Counts the rows and hashes the files of the sets in `directory` (default: `data_directory()`).

    Raises:
        InputError: A name is not in the manifest (the nearest one is suggested).
    """
    root = Path(directory) if directory is not None else data_directory()
    sets = _sets(manifest)
    return [_status(name, sets[name], root / sets[name]["folder"]) for name in _chosen(names, sets)]


def import_archive(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> list[SetStatus]:
    """Brings the sets found in an archive or folder into `directory` (default: `data_directory()`).

    The files may lie under any leading folders, as long as they keep the SentEval layout below. A set that lacks a
    file is left out with a warning. Sets already there are replaced, each by a rename; after an error nothing has
    changed.

    Args:
        path: A .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip file, or a folder.
        directory: Where to put the sets.
        manifest: Another catalogue than the one that ships with textcl.

    Returns:
        The status of each set that was brought in.

    Raises:
        InputError: The archive does not exist, is damaged, has a member that would leave the folder (an absolute
            path, "..", a link, a device), holds no complete set, or a set has a wrong count.

    Example:
        >>> import_archive("senteval_downstream.tar.xz", "senteval_data")  # doctest: +SKIP
    """
    source = Path(path)
    root = Path(directory) if directory is not None else data_directory()
    sets = _sets(manifest)
    with _staging(root) as stage:
        try:
            found = _copy_known(source, stage, sets)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{source} cannot be unpacked: {error}. It may be damaged, or only partly there."
            ) from error
        if not found:
            raise InputError(f"{source} holds no file of the sets that textcl knows ({', '.join(sets)}).")
        return _install(stage, root, {name: sets[name] for name in sets if name in found}, str(source))


def fetch(
    names: Iterable[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> list[SetStatus]:
    """Downloads public sets into `directory` (default: `data_directory()`), verifies and installs them.

    A download that was cut goes on where it stopped when the same command is run again. The prepared archive that the
    SimCSE repository publishes serves all SentEval sets; where it cannot be had, sets whose files SentEval's script
    takes as they are (SST2, SST5, MRPC) come from there. Sets that are in place already are not fetched again.

    Args:
        names: Sets to fetch; by default all that encoders are scored on and that have a public address, without the
            training corpora.
        directory: Where to put them.
        manifest: Another catalogue than the one that ships with textcl.

    Returns:
        The status of each set asked for.

    Raises:
        InputError: An unknown name, a set without a public address, no connection, a download that was cut, a wrong
            hash or count.
    """
    root = Path(directory) if directory is not None else data_directory()
    catalogue = load_manifest() if manifest is None else manifest
    sets = catalogue["sets"]
    if names is not None:
        wanted = _chosen(names, sets)
    else:
        wanted = [n for n, e in sets.items() if e["kind"] != "corpus" and _has_address(e)]
    missing = [status.name for status in verify(root, wanted, manifest=catalogue) if not status.usable]
    for name in missing:
        if not _has_address(sets[name]):
            raise InputError(
                f"{name} has no public address to fetch it from. Once you have it by other means "
                f"({', '.join(sets[name]['origin'])}), bring it in with `textcl data import FILE`."
            )
    downloads = root / "downloads"
    from_files = [name for name in missing if "archive" not in sets[name]]
    for archive in dict.fromkeys(sets[name]["archive"] for name in missing if "archive" in sets[name]):
        served = [name for name in missing if sets[name].get("archive") == archive]
        entry = catalogue["archives"][archive]
        file = downloads / PurePosixPath(entry["url"]).name
        try:
            download(entry["url"], file, sha256=entry.get("sha256"))
        except InputError as error:
            if not all("url" in file for name in served for file in sets[name]["files"]):
                raise
            logger.warning("%s The files are taken one by one instead.", error)
            from_files.extend(served)
            continue
        try:
            import_archive(file, root, manifest={**catalogue, "sets": {name: sets[name] for name in served}})
        finally:
            file.unlink()
    for name in from_files:
        with _staging(root) as stage:
            for file_entry in sets[name]["files"]:
                file = downloads / name / file_entry["name"]
                download(file_entry["url"], file)
                target = stage / sets[name]["folder"] / file_entry["name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
            _install(stage, root, {name: sets[name]}, sets[name]["files"][0]["url"])
        shutil.rmtree(downloads / name)
    if downloads.is_dir() and not any(downloads.iterdir()):
        downloads.rmdir()
    return verify(root, wanted, manifest=catalogue)


def download(url: str, target: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
    """Downloads `url` to `target` through `target`.part, going on after what an earlier attempt left there.

    Raises:
        InputError: The server cannot be reached or refuses, the connection was cut (what came is kept), or the
            content has another SHA-256 than expected (it is thrown away).
    """
    from tqdm.auto import tqdm

    path = Path(target)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    had = part.stat().st_size if part.exists() else 0
    cut = False
    request = urllib.request.Request(url, headers={"User-Agent": "textcl"})
    if had:
        request.add_header("Range", f"bytes={had}-")
    advice = "Once you have the file by other means, bring it in with `textcl data import FILE`."
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if response.status != 206:  # the server begins anew, so do we
                had = 0
            length = response.headers.get("Content-Length")
            total = had + int(length) if length is not None else None
            bar = tqdm(total=total, initial=had, unit="B", unit_scale=True, desc=path.name)
            with part.open("ab" if had else "wb") as handle, bar:
                try:
                    while chunk := response.read(_CHUNK):
                        handle.write(chunk)
                        bar.update(len(chunk))
                except (http.client.IncompleteRead, ConnectionError, TimeoutError):
                    cut = True  # what came is kept
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise InputError(f"{url} answered {error.code} ({error.reason}). {advice}") from None
        # 416: there is nothing after what we have; whether that is the whole file, its size tells
        total = int((error.headers.get("Content-Range") or "*/-1").rpartition("/")[2])
        if total != had:
            part.unlink()
            raise InputError(f"The partial download {part} did not fit {url} and was removed. Try again.") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{url} could not be downloaded: {reason}. {advice}") from None
    size = part.stat().st_size
    if cut or (total is not None and size != total):
        whole = "an unknown number of" if total is None else f"{total:,}"
        raise InputError(
            f"The download of {url} stopped after {size:,} of {whole} bytes. "
            f"Run the same command again: it goes on where it stopped."
        )
    if sha256 is not None and (found := _sha256(part)) != sha256:
        part.unlink()
        raise InputError(f"{url} has the SHA-256 {found} where {sha256} is expected; the download was thrown away.")
    os.replace(part, path)
    return path


def require(name: str, file: str, directory: Path) -> Path:
    """The path of one file of a set, which must be there.

    Raises:
        InputError: It is not; the message says how to get it.
    """
    entry = load_manifest()["sets"][name]
    path = directory / entry["folder"] / file
    if not path.is_file():
        fetching = f"`textcl data fetch {name}`, or " if _has_address(entry) else ""
        archive = "an archive of SentEval's sets" if fetching else "an archive or folder that has it"
        raise InputError(
            f"{name} is not installed: there is no file {path}. Run {fetching}`textcl data import FILE` with "
            f"{archive}, or set TEXTCL_DATA to the folder that has them."
        )
    return path


# the manifest


def _sets(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    return (load_manifest() if manifest is None else manifest)["sets"]


def _chosen(names: Iterable[str] | None, sets: Mapping[str, Any]) -> list[str]:
    if names is None:
        return list(sets)
    lowered = {name.lower(): name for name in sets}
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        if name.lower() not in lowered:
            raise InputError(f"There is no set '{name}'; there are {', '.join(sets)}.{nearest(name, sets)}")
        chosen.append(lowered[name.lower()])
    return chosen


def _has_address(entry: Mapping[str, Any]) -> bool:
    return "archive" in entry or all("url" in file for file in entry["files"])


def _expected(entry: Mapping[str, Any]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for file in entry["files"]:
        if "rows" in file:
            rows[file["split"]] = rows.get(file["split"], 0) + file["rows"]
    return rows


def cache_directory() -> Path:
    """textcl's folder in the user's cache; it need not exist."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "textcl"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "textcl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textcl"


# verifying


def _status(name: str, entry: Mapping[str, Any], folder: Path) -> SetStatus:
    expected = _expected(entry)
    absent = [file["name"] for file in entry["files"] if not (folder / file["name"]).is_file()]
    if len(absent) == len(entry["files"]):
        return SetStatus(name, "missing", {}, expected, [f"There is no {folder / absent[0]}."])
    if absent:
        return SetStatus(name, "incomplete", {}, expected, [f"There is no {folder / file}." for file in absent])
    rows: dict[str, int] = {}
    wrong, differing, known = [], [], True
    for file in entry["files"]:
        path = folder / file["name"]
        if "rows" in file:
            found = _count_rows(path, header=file.get("header", False), blank_counts=entry["kind"] != "sts")
            rows[file["split"]] = rows.get(file["split"], 0) + found
            if found != file["rows"]:
                wrong.append(f"{path} has {found:,} rows where {file['rows']:,} are expected.")
        if "sha256" not in file:
            known = False
        elif _sha256(path) != file["sha256"]:
            differing.append(f"{path} has other bytes than the file that textcl knows.")
    if wrong:
        return SetStatus(name, "wrong count", rows, expected, wrong)
    if differing:
        return SetStatus(name, "hash differs", rows, expected, differing)
    return SetStatus(name, "ok" if known else "not verified", rows, expected)


def _count_rows(path: Path, *, header: bool, blank_counts: bool) -> int:
    with path.open("rb") as handle:
        return sum(1 for line in handle if blank_counts or line.strip()) - header


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# importing


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A temporary folder on the same file system as `root`; `root` itself goes again if nothing was put there."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".import-", dir=root))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()


def _copy_known(source: Path, stage: Path, sets: Mapping[str, Any]) -> set[str]:
    """Copies the manifest's files from the archive or folder to the stage; returns the sets they belong to."""
    owners = {}  # path in the layout -> set
    for name, entry in sets.items():
        for file in (*(file["name"] for file in entry["files"]), *entry.get("notices", ())):
            owners[f"{entry['folder']}/{file}"] = name
    found: dict[str, int] = {}  # path in the layout -> number of leading folders it was found under
    for parts, opened in _members(source):
        for start in range(len(parts)):
            known = "/".join(parts[start:])
            if known in owners:
                if start < found.get(known, sys.maxsize):  # of two copies, the one nearer the top
                    found[known] = start
                    target = stage / known
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened() as content, target.open("wb") as copy:
                        shutil.copyfileobj(content, copy, _CHUNK)
                break
    return {owners[known] for known in found}


def _members(source: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (parts of the member's name, a function that opens it), after all members were found to be harmless."""
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
                kind = (info.external_attr >> 16) & 0o170000  # the Unix file type, 0 where none was stored
                _check_member(source, info.orig_filename, plain=kind in (0, 0o100000, 0o040000))
            for info in infos:
                if not info.is_dir():
                    yield PurePosixPath(info.filename).parts, lambda info=info: bundle.open(info)
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as tape:
            for member in tape:
                _check_member(source, member.name, plain=member.isreg() or member.isdir())
        with tarfile.open(source) as tape:
            for member in tape:
                if member.isreg():
                    yield PurePosixPath(member.name).parts, lambda member=member: _extract(tape, member)
    else:
        raise InputError(f"{source} is neither a folder nor a tar or zip archive (.tar, .tar.gz, .tar.xz, .zip).")


def _extract(tape: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tape.extractfile(member)
    assert content is not None  # it is a regular file
    return content


def _check_member(source: Path, name: str, *, plain: bool) -> None:
    """Refuses what could leave the folder: a second lock, since only names from the manifest are written to."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(f"{source} has the member '{name}', which would leave the folder. Nothing was imported.")
    if not plain:
        raise InputError(f"{source} has the member '{name}', which is a link or a device. Nothing was imported.")


def _install(stage: Path, root: Path, sets: Mapping[str, Any], source: str) -> list[SetStatus]:
    """Verifies the staged sets, and only when all are right, moves each into place."""
    complete = []
    for name, entry in sets.items():
        status = _status(name, entry, stage / entry["folder"])
        if status.state == "wrong count":
            raise InputError(f"{name} in {source}: {_first(status, stage)} Nothing was imported.")
        if not status.usable:
            logger.warning("%s in %s is incomplete and was left out: %s", name, source, _first(status, stage))
            continue
        if status.state == "hash differs":
            logger.warning("%s: the counts are right, the bytes are not those known. %s", name, _first(status, stage))
        complete.append(name)
    if not complete:
        raise InputError(f"{source} holds no complete set. Nothing was imported.")
    for name in complete:
        entry = sets[name]
        place = entry["folder"]
        if entry["kind"] == "clustering":  # one file each, in one folder: what others put there stays
            place = f"{place}/{entry['files'][0]['name']}"
        target = root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.replace(target, stage / f"replaced-{name}")  # goes with the stage
        os.replace(stage / place, target)
    return [_status(name, sets[name], root / sets[name]["folder"]) for name in complete]


def _first(status: SetStatus, stage: Path) -> str:
    return status.notes[0].replace(f"{stage}{os.sep}", "")
