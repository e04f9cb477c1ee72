"""Whether there are enough units and queries to train, select and judge, which is asked before any text is encoded."""

from __future__ import annotations

import numpy as np

from textcl.adaptation.known_items import View
from textcl.adaptation.labels import labels_of
from textcl.adaptation.workplace import Workplace
from textcl.data.retrieval import read_beir
from textcl.vectors.near_duplicates import near_duplicate_groups

LEAST_UNITS = 20  # groups, queries or labelled texts: four for each fold, or ten that select and ten that judge
LEAST_GROUPS = 40  # where layers are trained: a quarter of them selects, and a quarter judges
LEAST_OF_LABEL = 4  # labelled texts for each label, at the mean: two in each half


def too_few_groups(view: View, trains: bool = False) -> str:
    """Why known items or pairs cannot judge; empty if they can.

    Args:
        view: The view that judges.
        trains: Whether layers are trained.
    """
    sizes = np.bincount(view.groups)
    asked = len(np.unique(view.groups[view.targets]))
    least = LEAST_GROUPS if trains else LEAST_UNITS
    if 2 * sizes.max() > len(view.documents):
        return (
            f"{sizes.max():,} of {len(view.documents):,} texts are near-duplicates of each other, such as texts of one "
            "template, and count as one text"
        )
    if asked < least:
        return f"there are {asked} groups of texts with a query, and {least} are needed"
    return ""


def too_few_of_user(kind: str | None, path: str, place: Workplace) -> str:
    """Why the user's own judged queries or labelled texts cannot judge; empty if they can.

    Args:
        kind: The kind of the evidence, see `Settings.evidence`.
        path: The file or the folder that holds the evidence.
        place: Where labelled texts, once read, are kept.
    """
    if kind == "beir":
        collection = read_beir(path)
        known = [
            query
            for query in collection.answered
            if any(grade > 0 and name in collection.documents for name, grade in collection.relevance[query].items())
        ]
        units = int(near_duplicate_groups(None, [collection.queries[query] for query in known]).max(initial=-1)) + 1
        if units < LEAST_UNITS:
            different = "" if units == len(known) else "different "
            return f"there are {units} {different}queries with a relevant document, and {LEAST_UNITS} are needed"
    if kind == "labels":
        _, labels, groups = place.once(path, labels_of)
        classes, units = int(labels.max()) + 1, int(groups.max()) + 1
        if classes < 2:
            return "all labelled texts have the same label, and two are needed"
        if units < max(LEAST_UNITS, LEAST_OF_LABEL * classes):
            different = "" if units == len(labels) else "different "
            return (
                f"there are {units} {different}labelled texts with {classes} labels, and {LEAST_UNITS} texts are "
                f"needed, {LEAST_OF_LABEL} for each label"
            )
    return ""
