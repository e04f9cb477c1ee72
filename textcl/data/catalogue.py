"""The catalogue of public sets: which sets there are, where they are on disk, and whether they are complete.

`manifest.json`, in the folder of this file, lists the files of each set with their row counts and SHA-256. Downloads
and archives are not trusted: the names of an archive's members are only compared with those in the manifest, the files
are written to the manifest's paths in a temporary folder, and a set is moved into place by a rename once its row counts
are right.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from textcl.environment import cache_directory
from textcl.errors import InputError, nearest
from textcl.files import file_hash

logger = logging.getLogger("textcl")

VARIABLE = "TEXTCL_DATA"
_HUB_DATASET = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)/")

State = Literal["ok", "hash differs", "not verified", "wrong count", "incomplete", "missing"]


@dataclass(frozen=True)
class SetInfo:
    """What the manifest says about one set.

    Attributes:
        name: The name of the set, for example "STS12" or "MR".
        kind: "sts", "transfer", "probing", "clustering", "lexicon" or "corpus".
        folder: The set's folder under the data directory.
        rows: The expected number of rows of each split; empty if it is not known.
        licence: The licence, as the publisher states it.
        origin: The addresses of the original release.
        files: The paths of the set's files under the data directory.
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
    """Whether one set is present and right in a data directory.

    Attributes:
        name: The name of the set.
        state: "ok"; "hash differs" (the row counts are right but the hash is another one, e.g. because of another
            tokeniser version); "not verified" (the files are present, but the manifest has no hash for them); "wrong
            count"; "incomplete" (some files are missing); "missing".
        rows: The number of rows found in each split.
        expected: The number of rows expected in each split.
        notes: Sentences that say what differs.
    """

    name: str
    state: State
    rows: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the set is complete, so that its scores can be compared with other scores on this set."""
        return self.state in ("ok", "hash differs", "not verified")


@cache
def load_manifest() -> dict[str, Any]:
    """The manifest that comes with textcl."""
    return json.loads(Path(__file__).with_name("manifest.json").read_text(encoding="utf-8"))


@contextmanager
def sets_in(directory: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within the block, `data_directory()` is this folder, also in processes that are started; None: it stays."""
    before = os.environ.get(VARIABLE)
    if directory is not None:
        os.environ[VARIABLE] = os.path.abspath(os.path.expanduser(directory))
    try:
        yield
    finally:
        if directory is not None:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


def data_directory() -> Path:
    """The folder of the public sets: $TEXTCL_DATA, else ./senteval_data if it has a set, else the user's cache folder.

    The folder may not exist yet; `import_archive` and `fetch` create it.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(os.path.expanduser(chosen))  # the shell leaves "~" as it is if the variable comes from a file
    local = Path("senteval_data")
    if any(
        (local / entry["folder"] / file["name"]).is_file()
        for entry in load_manifest()["sets"].values()
        for file in entry["files"]
    ):
        return local
    return cache_directory()


def list_sets() -> list[SetInfo]:
    """All sets of the manifest, in the manifest's order."""
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
        for name, entry in load_manifest()["sets"].items()
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
    sets = sets_of(manifest)
    return [status_of(name, sets[name], root / sets[name]["folder"]) for name in chosen_names(names, sets)]


def require(name: str, file: str, directory: Path) -> Path:
    """The path of one file of a set. A warning is logged, once for each set, if its bytes are not the known ones.

    Raises:
        InputError: The file does not exist; the message says how to get it.
    """
    entry = load_manifest()["sets"][name]
    path = directory / entry["folder"] / file
    if not path.is_file():
        fetching = f"`textcl data fetch {name}`, or " if has_address(entry) else ""
        archive = "an archive of SentEval's sets" if fetching else "an archive or folder that contains it"
        raise InputError(
            f"{name} is not installed: there is no file {path}. Run {fetching}`textcl data import FILE` with "
            f"{archive}, or set TEXTCL_DATA to the folder that contains the sets."
        )
    known = next((each.get("sha256") for each in entry["files"] if each["name"] == file), None)
    if known is not None and file_hash(path) != known:
        _say_unknown(name, path.parent)
    return path


def check_count(name: str, path: Path, found: int, what: str) -> None:
    """Raises an InputError if a file of a set holds another number of texts (`what`, in the message) than it should."""
    entry = load_manifest()["sets"][name]
    expected = next(file.get("rows", found) for file in entry["files"] if file["name"] == path.name)
    if found != expected:
        fetching = f"`textcl data fetch {name}` or " if has_address(entry) else ""
        raise InputError(
            f"{path} has {found:,} {what}, but {expected:,} are expected: scores could not be compared with others on "
            f"this set. Get it again with {fetching}`textcl data import FILE`."
        )


@cache
def _say_unknown(name: str, folder: Path) -> None:
    """Logs, once for each set, that a file of it is not the known one."""
    logger.warning(
        "%s: a file in %s is not the known one (its SHA-256 differs), so scores on this set may differ from published "
        "ones. `textcl data verify %s` names the file.",
        name,
        folder,
        name,
    )


# the manifest
def sets_of(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    return (load_manifest() if manifest is None else manifest)["sets"]


def chosen_names(names: Iterable[str] | None, sets: Mapping[str, Any]) -> list[str]:
    if names is None:
        return list(sets)
    lowered = {name.lower(): name for name in sets}
    chosen = []
    for name in [names] if isinstance(names, str) else names:
        if name.lower() not in lowered:
            raise InputError(f"There is no set '{name}'; there are {', '.join(sets)}.{nearest(name, sets)}")
        chosen.append(lowered[name.lower()])
    return chosen


def has_address(entry: Mapping[str, Any]) -> bool:
    return "archive" in entry or all("url" in file for file in entry["files"])


def hub_dataset(path: str | os.PathLike[str]) -> str | None:
    """The name on the Hugging Face hub of a corpus in a data directory; None for every other file.

    Example:
        >>> hub_dataset("senteval_data/corpora/wiki1m/wiki1m_for_simcse.txt")
        'princeton-nlp/datasets-for-simcse'
    """
    for info in list_sets():
        known = any(Path(path).as_posix().endswith(f"/{file}") for file in info.files)
        if known and (found := _HUB_DATASET.match(info.origin[0])):
            return found[1]
    return None


def _expected(entry: Mapping[str, Any]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for file in entry["files"]:
        if "rows" in file:
            rows[file["split"]] = rows.get(file["split"], 0) + file["rows"]
    return rows


# verifying
def status_of(name: str, entry: Mapping[str, Any], folder: Path) -> SetStatus:
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
                wrong.append(f"{path} has {found:,} rows, but {file['rows']:,} are expected.")
        if "sha256" not in file:
            known = False
        elif file_hash(path) != file["sha256"]:
            differing.append(f"{path} has another SHA-256 than the file in textcl's catalogue.")
    if wrong:
        return SetStatus(name, "wrong count", rows, expected, wrong)
    if differing:
        return SetStatus(name, "hash differs", rows, expected, differing)
    return SetStatus(name, "ok" if known else "not verified", rows, expected)


def _count_rows(path: Path, *, header: bool, blank_counts: bool) -> int:
    with path.open("rb") as handle:
        return sum(1 for line in handle if blank_counts or line.strip()) - header
