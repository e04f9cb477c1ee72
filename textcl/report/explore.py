"""A first look at a file of texts: its vectors, near-duplicates, clusters and map, in one directory with an index page.

    vectors/               what `encode_corpus` wrote, for search and further commands; absent if the source is one
    groups.csv             every text with its group of near-duplicates
    clusters.csv           every text with its cluster; clusters.centres.json beside it
    map.html               the map
    explore.json           the settings and the result of each step; written again after each step
    index.html             what was found, with the map; written last

A killed call is repeated: steps whose files are as they were written are not done again. A file that is not as it was
written may hold work of the user, and is never replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from textcl.device import give_back_freed_memory
from textcl.errors import InputError, disk_full
from textcl.evaluation.clusters import cluster_vectors
from textcl.files import clear_leftovers, file_hash
from textcl.locks import taken
from textcl.ranges import Seed, checked
from textcl.report.explored import explored_page
from textcl.report.map import write_map
from textcl.seals import differs, read_sealed, seal, write_sealed
from textcl.texts import in_one_line
from textcl.vectors.columns import plain
from textcl.vectors.duplicates import near_duplicates
from textcl.vectors.encode import encode_corpus
from textcl.vectors.shards import is_vectors, vectors_folder
from textcl.vectors.vectors import Vectors
from textcl.version import __version__

RECORD = "explore.json"
INDEX = "index.html"
FILES = {
    "duplicates": ("groups.csv",),
    "clusters": ("clusters.csv", "clusters.centres.json"),
    "map": ("map.html",),
    "index": (INDEX,),
}
"""The files of each entry of the record."""
GROUPS = 320  # groups of near-duplicates on the page
MEMBERS = 6  # texts of a group
CENTRAL = 3  # texts of a cluster
WIDTH = 160  # longest text on the page, in characters

Record = dict[str, Any]


@checked
def explore(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    column: str | None = None,
    id_column: str | None = None,
    columns: Any = None,
    limit: int | None = None,
    clusters: int | None = None,
    seed: Seed = 0,
) -> Record:
    """Encodes texts, finds near-duplicates and clusters, draws a map, and writes one page that shows all of it.

    A step that these texts do not allow is left out, such as clusters if there are only three texts, and the page says
    why. After an interruption, call it again with the same arguments: it goes on where it was.

    Args:
        source: A corpus as a file, see `load_texts`; or a directory that `encode_corpus` wrote.
        output: The directory to write; `index.html` in it is the page.
        model: A name or path that `Encoder.from_pretrained` takes; default: for a file "small", for a
            directory the model that made it.
        column: The column of the texts, as in `load_texts`.
        id_column: A column of ids of your own.
        columns: Further columns to keep, as in `encode_corpus`.
        limit: Read only the first `limit` texts.
        clusters: The number of clusters; default: estimated, see `cluster_stability`.
        seed: The seed of samples, of k-means and of the layout.

    Returns:
        What `explore.json` holds: `settings`, and an entry for each step (`vectors`, `duplicates`, `clusters`,
        `map`, `index`). An entry holds the result, the `seconds` and a seal of the files, or, if the step was left
        out, the reason as `failed`.

    Raises:
        InputError: The texts cannot be read or encoded, or `output` is in use, or holds files of something else
            or a file that was changed.

    Example:
        >>> explore("tickets.csv", "tickets", column="subject")  # doctest: +SKIP
    """
    folder = Path(output)
    if columns is not None and not isinstance(columns, str):
        columns = list(columns)  # as JSON gives it back, with which the same call is compared
    given = {"column": column, "id_column": id_column, "columns": columns, "limit": limit}
    encoded = is_vectors(source)
    if encoded and any(value is not None for value in given.values()):
        name = next(name for name, value in given.items() if value is not None)
        raise InputError(f"{name} was settled when {source} was encoded; leave it out.")
    settings = {"source": str(source), "model": None if model is None else str(model), **given}
    settings |= {"clusters": clusters, "seed": seed}
    with taken(folder):
        record = _begun(folder, settings)
        _check_unchanged(folder, record)
        vectors = vectors_folder(source) if encoded else folder / "vectors"
        found = _encoded(vectors, None if encoded else source, model, given)
        made_from = file_hash(vectors / "complete.json")
        before = record.get("vectors", {})
        if before.get("made_from") == made_from:
            found["seconds"] = before["seconds"]  # of the first time
        record["vectors"] = {**found, "made_from": made_from}
        record.pop("index", None)  # it is written again
        write_sealed(folder / RECORD, record)  # not before: texts that cannot be read leave nothing behind
        done = _Steps(folder, record, made_from)
        done.step("duplicates", lambda: _duplicates(vectors, folder / "groups.csv", model, seed))
        done.step(
            "clusters", lambda: _clusters(vectors, folder / "clusters.csv", clusters, seed), optional=clusters is None
        )
        done.step("map", lambda: _map(vectors, folder, record, seed), optional=True)
        explored_page(record).save(folder / INDEX)
        record["index"] = {"files": seal(folder, FILES["index"])}
        write_sealed(folder / RECORD, record)
    return record


class _Steps:
    """Does the steps that are not done, and keeps the record up to date.

    Args:
        folder: The directory.
        record: The record; it is changed.
        made_from: The hash of the vectors that all steps read.
    """

    def __init__(self, folder: Path, record: Record, made_from: str) -> None:
        self.folder, self.record, self.made_from = folder, record, made_from

    def step(self, name: str, do: Callable[[], Record], optional: bool = False) -> None:
        """Does a step, unless the record and its files say that it is done.

        An optional one that is refused, because the texts are too few or too many for it, is left out with the reason.
        """
        before = self.record.get(name)
        if before and before.get("made_from") == self.made_from and differs(self.folder, before.get("files")) is None:
            return
        if self.record.pop(name, None):  # if this call is killed, new files must not be compared with an old seal
            write_sealed(self.folder / RECORD, self.record)
        for file in FILES[name]:
            (self.folder / file).unlink(missing_ok=True)
        start = time.monotonic()
        try:
            found = do()
            found |= {"files": seal(self.folder, FILES[name])}
        except InputError as error:
            if not optional or disk_full(error):
                raise
            found = {"failed": str(error)}
        give_back_freed_memory()  # the next step needs pieces of other sizes
        self.record[name] = {**found, "made_from": self.made_from, "seconds": round(time.monotonic() - start, 1)}
        write_sealed(self.folder / RECORD, self.record)


def _begun(folder: Path, settings: Record) -> Record:
    """The record of an interrupted call with these settings, or a new one."""
    clear_leftovers(folder)
    path = folder / RECORD
    if path.is_file():
        record = read_sealed(path)
        then = record.get("settings", {})
        unused = () if "clusters" in record else ("clusters",)  # the last call may have asked for too many
        if other := [name for name in settings if then.get(name) != settings[name] and name not in unused]:
            name = other[0]
            raise InputError(
                f"{folder} was made with {name} {then.get(name)!r}, not {settings[name]!r}; name another directory, or "
                "give the same settings again."
            )
        return {**record, "settings": settings}
    inside = folder / "vectors"  # a call may have been killed while it encoded them, or before their first file
    clear_leftovers(inside)
    ours = ["vectors"] if is_vectors(inside) or not _other_files(inside) else []
    if others := [name for name in _other_files(folder) if name not in ours]:
        raise InputError(
            f"{folder} holds {sorted(others)[0]}, which textcl explore did not write; name a new directory."
        )
    return {"textcl": __version__, "settings": settings}


def _other_files(folder: Path) -> list[str]:
    """The names in a folder that are not locks; none if it does not exist."""
    return [each.name for each in folder.iterdir() if not each.name.startswith(".lock")] if folder.is_dir() else []


def _check_unchanged(folder: Path, record: Record) -> None:
    """Raises an error if a file is there and is not as its step wrote it; a step that failed wrote none.

    Raises:
        InputError: There is one, and it would be lost if the step were done again.
    """
    for name, files in FILES.items():
        if (entry := record.get(name)) is None:  # a call that was killed may have written them
            continue
        sealed = entry.get("files") or {}
        for file in files:
            if (folder / file).exists() and differs(folder, {file: sealed.get(file)}):
                raise InputError(
                    f"{folder / file} is not as textcl explore wrote it; move it to another folder and repeat the "
                    "command, which makes it again, or name another directory."
                )


def _encoded(vectors: Path, source: Any, model: Any, given: Record) -> Record:
    start = time.monotonic()
    if source is not None:
        encode_corpus(model or "small", source, vectors, **{k: v for k, v in given.items() if v is not None})
    found = Vectors(vectors)
    found.check_whole("textcl explore")
    give_back_freed_memory()
    return {
        "path": str(vectors),
        "texts": len(found),
        "model": found.name,
        "seconds": round(time.monotonic() - start, 1),
    }


def _duplicates(vectors: Path, output: Path, model: Any, seed: int) -> Record:
    found = near_duplicates(vectors, model, seed=seed)
    found.save(output)
    # the surest first: of each group the least cosine with the kept text counts
    members = sorted(found.members(), key=lambda rows: -round(float(found.cosines[rows].min()), 4))
    listed = [
        {
            "group": int(found.groups[rows[0]]),
            "size": len(rows),
            "cosine": round(float(found.cosines[rows].min()), 4),
            "texts": [[str(plain(found.ids[row])), _short(found.texts[row])] for row in rows[:MEMBERS]],
        }
        for rows in members[:GROUPS]
    ]
    return {
        "copies": found.why.count("copy"),
        "near": found.why.count("near"),
        "groups": len(members),
        "cosine": found.cosine,
        "words": found.overlap,
        "notes": found.notes,
        "surest": listed,
    }


def _clusters(vectors: Path, output: Path, clusters: int | None, seed: int) -> Record:
    found = cluster_vectors(vectors, clusters, seed=seed)
    found.save(output)
    named = zip(found.names, found.about.keywords, found.groups(CENTRAL), strict=True)
    listed = [
        {"name": name, "size": size, "found_again": again, "keywords": keywords, "texts": list(map(_short, texts))}
        for (name, keywords, (size, texts)), again in zip(named, found.found_again, strict=True)
    ]
    shown = found.stability is None or found.stability.shown
    said = {"estimated": found.estimated, "shown": shown, "silhouette": found.silhouette, "agreement": found.agreement}
    return {"clusters": listed, **said}


def _map(vectors: Path, folder: Path, record: Record, seed: int) -> Record:
    clusters = None if "failed" in record["clusters"] else folder / "clusters.csv"
    groups, name = folder / "groups.csv", Path(record["settings"]["source"]).name
    made = write_map(vectors, folder / "map.html", clusters=clusters, duplicates=groups, seed=seed, name=name)
    return {**asdict(made), "path": "map.html"}


def _short(text: str) -> str:
    return in_one_line(text, WIDTH)
