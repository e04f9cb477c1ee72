"""Reader of the short-text sets for clustering: texts, each with its class."""

from __future__ import annotations

from pathlib import Path

from textcl.data.catalogue import check_count, data_directory, load_manifest, require
from textcl.data.formats import csv_records
from textcl.errors import InputError, nearest

CLUSTERING_SETS = ("AgNews", "SearchSnippets", "StackOverflow")


def load_clustering(name: str, directory: str | Path | None = None) -> tuple[list[str], list[int]]:
    """Reads one of `CLUSTERING_SETS`, with the texts that SCCL (Zhang et al. 2021) uses.

    Args:
        name: "AgNews" (8,000 texts in 4 classes), "SearchSnippets" (12,340 in 8) or "StackOverflow" (20,000 in 20);
            upper and lower case are equal.
        directory: The data directory; default: `data_directory()`.

    Returns:
        The texts and their labels, which are integers from 0.

    Raises:
        InputError: An unknown name, a missing file, a malformed line, or a wrong number of texts.

    Example:
        >>> texts, labels = load_clustering("StackOverflow")  # doctest: +SKIP
    """
    known = {each.lower(): each for each in CLUSTERING_SETS}
    if name.lower() not in known:
        raise InputError(
            f"There is no clustering set '{name}'; there are {', '.join(CLUSTERING_SETS)}."
            f"{nearest(name, CLUSTERING_SETS)}"
        )
    name = known[name.lower()]
    (file,) = load_manifest()["sets"][name]["files"]
    path = require(name, file["name"], Path(directory) if directory is not None else data_directory())
    texts: list[str] = []
    labels: list[int] = []
    for row, (number, cells) in enumerate(csv_records(path, tabs=False)):
        if row == 0:  # the header
            continue
        if len(cells) != 2 or not cells[0].isdecimal():
            raise InputError(f"{path}, line {number}: the line must have two cells, a label (0, 1, ...) and a text.")
        labels.append(int(cells[0]))
        texts.append(cells[1])
    check_count(name, path, len(texts), "texts")
    return texts, labels
