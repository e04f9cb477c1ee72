"""A map of the texts of a directory of vectors: one HTML page that needs no network."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.formats import check_file
from textcl.errors import InputError
from textcl.files import check_output
from textcl.ranges import Seed, checked
from textcl.report.layout import KINDS, NEIGHBOURS, Kind, Layout, among, choose_kind, lay_out, project
from textcl.report.map_file import MapFile, read_map_file, write_map_file
from textcl.terminal import printable
from textcl.texts import json_value
from textcl.vectors.columns import plain
from textcl.vectors.neighbours import nearest_rows
from textcl.vectors.vectors import Vectors
from textcl.version import __version__

logger = logging.getLogger("textcl")

MOST = 200_000  # texts of a map
LENGTH = 500  # characters of a text that the page holds
NEAREST = 5  # nearest texts that the page shows
COLOURS = 9  # values of a column with a colour of their own
EXACT = 2**53 - 1  # JavaScript rounds whole numbers above it
_MISSING = 255


@dataclass(frozen=True)
class Map:
    """What a map shows.

    Attributes:
        path: The page.
        texts: The number of texts.
        new: The number of texts that an update added; 0 without one.
        gone: The number of texts of the updated map that are no longer in the directory.
        layout: "umap" or "pca".
        why: Why it is this layout, as the end of a sentence.
        kept: For "pca" the share of the variance of the unit vectors that the map keeps; else None.
        clusters: The number of clusters with names on the map.
        duplicates: The number of texts that are in groups of near-duplicates.
        cut: The number of texts of which the page holds only the beginning.
        bytes: The size of the page.
    """

    path: Path
    texts: int
    new: int
    gone: int
    layout: Kind
    why: str
    kept: float | None
    clusters: int
    duplicates: int
    cut: int
    bytes: int


@checked
def write_map(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    clusters: str | os.PathLike[str] | None = None,
    duplicates: str | os.PathLike[str] | None = None,
    color: str | None = None,
    update: str | os.PathLike[str] | None = None,
    layout: Kind | None = None,
    seed: Seed = 0,
    name: str | None = None,
) -> Map:
    """Writes an HTML page on which each text of a directory of vectors is a point.

    The page is one file and needs no network. It has a search box, the names of clusters, the text under the pointer,
    and, for a text that is clicked, its nearest texts: the true nearest by cosine of the vectors, not on the map.

    Args:
        directory: A directory that `encode_corpus` wrote, with at most 200,000 texts.
        output: The page.
        clusters: A file that `textcl cluster` wrote for these vectors.
        duplicates: A file that `textcl duplicates` wrote for these vectors.
        color: A column of the directory that colours the points; default: the cluster.
        update: A map of an earlier state of the directory. Texts that it has stay where they are. New texts get their
            place by the same projection ("pca"), or as the weighted mean of the places of the five nearest old texts
            ("umap").
        layout: "umap" or "pca"; default: that of `update`, else UMAP if it is installed.
        seed: The seed of UMAP.
        name: What the title of the page calls the texts; default: the name of the directory.

    Raises:
        InputError: The directory is not complete, has parts of long texts or too many rows; a file does not fit it; the
            updated map was made with another model; or the page cannot be written.

    Example:
        >>> write_map("vectors", "map.html", clusters="clusters.csv")  # doctest: +SKIP
    """
    check_output(output)
    if layout is not None and layout not in KINDS:
        raise InputError(f"layout must be 'umap' or 'pca', not {layout!r}.")
    source = Vectors(directory)
    source.check_whole("textcl map")
    if len(source) > MOST:
        raise InputError(
            f"{directory} holds {len(source):,} texts, and a map shows at most {MOST:,}: encode fewer of them, with "
            "--limit, to another directory."
        )
    before = None if update is None else read_map_file(update)
    if before is not None:
        _check_update(before, source, layout)
    texts = source.texts()
    ids = [plain(each) for each in source.own_ids() or source.ids().tolist()]
    head: dict[str, Any] = {
        "textcl": __version__,
        "model": {"name": printable(source.name), "sha256": source.space},
    }
    blocks: dict[str, Any] = {"texts": [_shown(text) for text in texts], "ids": [_shown(each) for each in ids]}
    _add_duplicates(blocks, duplicates, ids, texts)
    found = None if clusters is None else _matched(clusters, ("cluster", "name"), ids, texts, "textcl cluster")
    _add_colours(head, blocks, source, color)

    vectors = source.vectors()
    kind: Kind = "pca"
    if before is None:
        kind, why = choose_kind(layout, len(source))
    else:
        why = f"as in {before.path}"
    near = nearest_rows(vectors, NEIGHBOURS - 1 if kind == "umap" else NEAREST)
    new = gone = 0
    if before is not None:
        placed, new, gone = _updated(before, vectors, blocks)
    else:
        placed = lay_out(vectors, kind, near, seed)
    _add_clusters(head, blocks, found, placed.positions)
    cut = sum(len(text) > LENGTH for text in texts)
    head |= {
        "texts": len(source),
        "layout": placed.kind,
        "kept": placed.kept,
        "length": LENGTH if cut else None,
        "nearest": min(NEAREST, near[0].shape[1]),
        "name": printable(name or Path(directory).resolve().name),
    }
    blocks["positions"] = placed.positions
    blocks["neighbours"] = near[0][:, :NEAREST]
    blocks["cosines"] = (100 * near[1][:, :NEAREST]).round().clip(0, 100).astype(np.uint8)
    if placed.projection is not None:
        blocks["projection"] = placed.projection
    write_map_file(output, f"Map of {head['name']}", head, blocks)
    return Map(
        path=Path(output),
        texts=len(source),
        new=new,
        gone=gone,
        layout=placed.kind,
        why=why,
        kept=placed.kept,
        clusters=len(head["clusters"]),
        duplicates=int((blocks["groups"] >= 0).sum()),
        cut=cut,
        bytes=Path(output).stat().st_size,
    )


def _shown(value: Any) -> Any:
    """A value as the page holds it: inert, not too long, and text if it is a number that JavaScript cannot hold."""
    if isinstance(value, int) and abs(value) > EXACT:
        return str(value)
    if not isinstance(value, str):
        return value
    return printable(value if len(value) <= LENGTH else value[: LENGTH - 1] + "…")


def _check_update(before: MapFile, source: Vectors, layout: Kind | None) -> None:
    if before.head["model"]["sha256"] != source.space:
        raise InputError(
            f"{before.path} was made with another model than {source.directory}, so new texts have no place on it; "
            "make a new map, without --update."
        )
    if layout is not None and layout != before.head["layout"]:
        raise InputError(
            f"The layout of {before.path} is {before.head['layout']}, and an update keeps it: leave --layout out."
        )


def _numbers(values: Sequence[Any]) -> list[float]:
    """Numbers, dates and times as numbers, also where all of them are texts; empty if a value is something else."""
    try:
        if all(isinstance(each, str) for each in values):
            return _of_texts(values)
        return [_number(each) for each in values]
    except (ValueError, TypeError, OverflowError):
        return []


def _of_texts(texts: Sequence[str]) -> list[float]:
    if any(each.strip().lower() == "nan" for each in texts):
        raise ValueError
    try:
        return [float(each) for each in texts]
    except ValueError:
        return [_number(datetime.fromisoformat(each.strip())) for each in texts]


def _number(value: float | date) -> float:
    if isinstance(value, (bool, str)):
        raise TypeError
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    return value.toordinal() if isinstance(value, date) else value


def _updated(before: MapFile, vectors: np.ndarray, blocks: dict[str, Any]) -> tuple[Layout, int, int]:
    """The layout with the old rows where they were, the number of new rows, and of those that are gone."""
    positions = before.array("positions", "<f4", 2)
    keys = zip(map(str, before.values("ids")), before.values("texts"), strict=True)
    places: dict[tuple[str, str], deque[int]] = {}
    for row, key in enumerate(keys):
        places.setdefault(key, deque()).append(row)
    now = zip(map(str, blocks["ids"]), blocks["texts"], strict=True)
    # rows that are alike are taken in their order
    old = np.array([queue.popleft() if (queue := places.get(key)) else -1 for key in now])
    is_new = old < 0
    if is_new.all():
        raise InputError(
            f"No text of {before.path} is among these vectors. An update needs the old texts too: add the new ones to "
            "their directory with textcl encode --append."
        )
    placed = np.empty((len(old), 2), np.float32)
    placed[~is_new] = positions[old[~is_new]]
    projection = None
    if before.head["layout"] == "pca":
        projection = before.array("projection", "<f4", vectors.shape[1])
        placed[is_new] = project(vectors[is_new], projection)
    elif is_new.any():
        placed[is_new] = among(vectors[is_new], vectors[~is_new], placed[~is_new])
    layout = Layout(before.head["layout"], placed, projection, before.head["kept"])
    return layout, int(is_new.sum()), len(positions) - int((~is_new).sum())


def _matched(
    path: str | os.PathLike[str], wanted: Sequence[str], ids: Sequence[Any], texts: Sequence[str], command: str
) -> list[tuple[str, ...] | None]:
    """For each row of the directory the wanted cells of the row of a csv file with its id and its text.

    A file without the column "id" or "text" is matched by the other one. The last of the wanted columns may be missing;
    its cells are empty then.

    Raises:
        InputError: The file cannot be read, is not of this command, or has no row of the directory.
    """
    columns = _read_columns(path, ("id", "text", *wanted))
    keys = [name for name in ("id", "text") if name in columns]
    if lost := [name for name in (*wanted[:-1], *(keys or ["text"])) if name not in columns]:
        raise InputError(f"{path} has no column {lost[0]!r}; give a file that {command} wrote for these vectors.")
    given = {"id": ids, "text": texts}
    own = list(zip(*(map(_key, given[name]) for name in keys), strict=True))
    theirs = list(zip(*(map(_key, columns[name]) for name in keys), strict=True))
    cells = list(zip(*(columns.get(name, [""] * len(theirs)) for name in wanted), strict=True))
    if own == theirs:
        return [*cells]
    by_key: dict[tuple[str, ...], tuple[str, ...]] = {}
    for each, values in zip(theirs, cells, strict=True):
        if by_key.setdefault(each, values) != values:
            raise InputError(
                f"{path} has the {keys[0]} {each[0][:60]!r} more than once, with different values, and its rows are "
                f"not those of the vectors; make it again with {command}."
            )
    found = [by_key.get(each) for each in own]
    missing = found.count(None)
    if missing == len(found):
        raise InputError(f"No row of {path} is among these vectors; make it with {command} from the same directory.")
    if missing:
        logger.warning("%s has no row for %s of the %s texts.", path, f"{missing:,}", f"{len(own):,}")
    return found


def _key(value: Any) -> str:
    """A cell as rows are compared by it, without the apostrophe that `spreadsheet_safe` may have put before it."""
    return " ".join(str(value).split()).lstrip("'")


def _read_columns(path: str | os.PathLike[str], wanted: Sequence[str]) -> dict[str, list[str]]:
    """Those of the wanted columns that a csv file has, as texts."""
    import pyarrow
    from pyarrow import csv

    check_file(Path(path))
    read = csv.ReadOptions(block_size=1 << 26)  # a text is one cell, and a cell must be in one block
    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        with csv.open_csv(path, csv.ReadOptions(block_size=1 << 26), parse) as reader:
            kept = [name for name in wanted if name in reader.schema.names]
        types = dict.fromkeys(kept, pyarrow.large_string())
        convert = csv.ConvertOptions(include_columns=kept, column_types=types, strings_can_be_null=False)
        table = csv.read_csv(path, read, parse, convert)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowKeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as csv: {str(error).splitlines()[0]}.") from None
    return {name: table.column(name).to_pylist() for name in kept}


def _add_clusters(
    head: dict[str, Any], blocks: dict[str, Any], found: list[tuple[str, ...] | None] | None, positions: np.ndarray
) -> None:
    """Clusters by size, each with its name, the place of the name, and the box that holds nine tenths of its texts."""
    rows: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for row, cells in enumerate(found or ()):
        if cells is not None and not cells[0].startswith("-"):  # -1 are the outliers of hdbscan
            rows.setdefault(cells[0], []).append(row)
            names[cells[0]] = cells[1]
    numbers = np.full(len(positions), -1, np.int32)
    head["clusters"] = []
    for place, (number, members) in enumerate(sorted(rows.items(), key=lambda each: -len(each[1]))):
        numbers[members] = place
        low, middle, high = np.quantile(positions[members], (0.05, 0.5, 0.95), axis=0)
        name = printable(names[number].strip()) or f"cluster {printable(number)}"
        box = [round(float(each), 6) for each in (*low, *high)]
        at = [round(float(each), 6) for each in middle]
        head["clusters"].append({"name": name[:80], "size": len(members), "at": at, "box": box})
    head["clustered"] = found is not None
    blocks["clusters"] = numbers


def _add_duplicates(
    blocks: dict[str, Any], path: str | os.PathLike[str] | None, ids: Sequence[Any], texts: Sequence[str]
) -> None:
    """The group of each row that is one of several near-duplicates, else -1."""
    groups = np.full(len(ids), -1, np.int32)
    if path is not None:
        found = _matched(path, ("group", "kept"), ids, texts, "textcl duplicates")
        sizes = Counter(cells[0] for cells in found if cells is not None)
        numbers = {group: place for place, (group, size) in enumerate(sizes.most_common()) if size > 1}
        groups[:] = [-1 if cells is None else numbers.get(cells[0], -1) for cells in found]
    blocks["groups"] = groups


def _add_colours(head: dict[str, Any], blocks: dict[str, Any], source: Vectors, name: str | None) -> None:
    """The colour of each row by a column: a scale for numbers and dates, else a colour for each frequent value.

    The cells of a csv are text. They are numbers or dates if all are such; a blank one is missing.
    """
    head["color"] = None
    if name is None:
        return
    values = source.column(name)
    shades = np.full(len(values), _MISSING, np.uint8)
    blank = (value is None or (isinstance(value, str) and not value.strip()) for value in values)
    there = np.array([row for row, missing in enumerate(blank) if not missing], np.int64)
    given = [values[row] for row in there]
    numbers = _numbers(given)
    finite = {number: value for number, value in zip(numbers, given, strict=False) if math.isfinite(number)}
    if len(finite) > COLOURS:
        low, high = min(finite), max(finite)
        scale = np.array(numbers, np.float64).clip(low, high)  # infinities have the colours of the ends
        scale /= max(float(np.abs(scale).max()), 1e-300)  # so that no difference is infinite
        shades[there] = np.round(100 * (scale - scale.min()) / max(float(np.ptp(scale)), 1e-300))
        ends = {end: str(plain(finite[number])) for end, number in (("low", low), ("high", high))}
        head["color"] = {"name": printable(name), **ends}
    else:
        names = [str(json_value(plain(each))) for each in given]
        counts = Counter(names)
        frequent = [value for value, _ in counts.most_common(COLOURS)]
        places = {value: place for place, value in enumerate(frequent)}
        shades[there] = [places.get(each, COLOURS) for each in names]
        listed = [{"value": _shown(value)[:80], "size": counts[value]} for value in frequent]
        others = sum(counts.values()) - sum(each["size"] for each in listed)
        head["color"] = {"name": printable(name), "values": listed, "others": others}
    blocks["shades"] = shades
    blocks["values"] = [_shown(plain(each)) for each in values]
