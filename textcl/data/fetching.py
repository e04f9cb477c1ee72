"""Downloading public sets. An interrupted download is resumed."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from textcl.data.archives import import_archive, install, staging
from textcl.data.catalogue import SetStatus, chosen_names, data_directory, has_address, load_manifest, verify
from textcl.errors import InputError
from textcl.files import file_hash
from textcl.progress import Progress

logger = logging.getLogger("textcl")

_CHUNK = 1 << 20

_TIMEOUT = 60.0  # seconds without receiving anything


def fetch(
    names: Iterable[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    manifest: Mapping[str, Any] | None = None,
) -> list[SetStatus]:
    """Downloads public sets into `directory` (default: `data_directory()`), verifies and installs them.

    An interrupted download is resumed when the same command is run again. All SentEval sets come from the prepared
    archive that the SimCSE repository publishes. If this archive cannot be downloaded, the sets whose original files
    SentEval's script uses unchanged (SST2, SST5, MRPC) are downloaded file by file from the addresses in that script.
    Sets that are already installed are not downloaded again.

    Args:
        names: The sets to fetch; default: all evaluation sets that have a public address, without the training corpora.
        directory: The data directory to install into.
        manifest: A catalogue to use instead of the one that comes with textcl.

    Returns:
        The status of each wanted set.

    Raises:
        InputError: A name is unknown, a set has no public address, there is no connection, the download was
            interrupted, or a hash or row count is wrong.
    """
    root = Path(directory) if directory is not None else data_directory()
    catalogue = load_manifest() if manifest is None else manifest
    sets = catalogue["sets"]
    if names is not None:
        wanted = chosen_names(names, sets)
    else:
        wanted = [n for n, e in sets.items() if e["kind"] != "corpus" and has_address(e)]
    missing = [status.name for status in verify(root, wanted, manifest=catalogue) if not status.usable]
    for name in missing:
        if not has_address(sets[name]):
            raise InputError(
                f"{name} cannot be fetched because it has no public address. Get it from its origin "
                f"({', '.join(sets[name]['origin'])}) and import it with `textcl data import FILE`."
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
            logger.warning("%s Its files are downloaded one by one instead.", error)
            from_files.extend(served)
            continue
        try:
            import_archive(file, root, manifest={**catalogue, "sets": {name: sets[name] for name in served}})
        finally:
            file.unlink()
    for name in from_files:
        with staging(root) as stage:
            for file_entry in sets[name]["files"]:
                file = downloads / name / file_entry["name"]
                download(file_entry["url"], file)
                target = stage / sets[name]["folder"] / file_entry["name"]
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
            install(stage, root, {name: sets[name]}, sets[name]["files"][0]["url"])
        shutil.rmtree(downloads / name)
    if downloads.is_dir() and not any(downloads.iterdir()):
        downloads.rmdir()
    return verify(root, wanted, manifest=catalogue)


def download(url: str, target: str | os.PathLike[str], *, sha256: str | None = None) -> Path:
    """Downloads `url` to `target`, by way of `target`.part; a `.part` file of an earlier attempt is continued.

    Raises:
        InputError: The server cannot be reached or refuses, the connection was interrupted (the part that arrived is
            kept), or the SHA-256 is not the expected one (the file is deleted).
    """
    path = Path(target)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    had = part.stat().st_size if part.exists() else 0
    cut = False
    request = urllib.request.Request(url, headers={"User-Agent": "textcl"})
    if had:
        request.add_header("Range", f"bytes={had}-")
    advice = "If you can get the file in another way, import it with `textcl data import FILE`."
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if response.status != 206:  # the server sends the file from the beginning
                had = 0
            length = response.headers.get("Content-Length")
            total = had + int(length) if length is not None else None
            bar = Progress(path.name, total, "bytes", start=had)
            with part.open("ab" if had else "wb") as handle, bar:
                try:
                    while chunk := response.read(_CHUNK):
                        handle.write(chunk)
                        bar.update(len(chunk))
                except (http.client.IncompleteRead, ConnectionError, TimeoutError):
                    cut = True  # the part that arrived is kept
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise InputError(f"{url} answered {error.code} ({error.reason}). {advice}") from None
        # 416: the server has nothing after the bytes we have; compare sizes to see if they are the whole file
        total = had if (error.headers.get("Content-Range") or "").endswith(f"/{had}") else None
        if total is None:
            part.unlink()
            raise InputError(
                f"The partial download {part} was not a part of {url} and was removed. Run the command again."
            ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error)).strip()
        raise InputError(f"{url} could not be downloaded: {reason}. {advice}") from None
    size = part.stat().st_size
    if cut or (total is not None and size != total):
        whole = "an unknown number of" if total is None else f"{total:,}"
        raise InputError(
            f"The download of {url} stopped after {size:,} of {whole} bytes. Run the same command again to resume it."
        )
    if sha256 is not None and (found := file_hash(part)) != sha256:
        part.unlink()
        raise InputError(f"{url} has the SHA-256 {found}, but {sha256} is expected; the download was deleted.")
    os.replace(part, path)
    return path
