"""The rows that candidates are trained on: pairs, crops, halves, and pairs with mined hard negatives."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textcl.adaptation.known_items import View, halves, sentences
from textcl.adaptation.material import Material
from textcl.vectors.compress import unit

BATCH = 32
WINDOW = 2  # sentences of a crop
FIRST_RANK, LAST_RANK = 10, 50  # of the start's ranking, from which hard negatives are taken
MOST_SIMILAR = 0.95  # of the positive's similarity; documents above it may be relevant themselves
_AT_ONCE = 512  # queries whose similarities are in memory at once


@dataclass(frozen=True)
class Rows:
    """Training rows in the order in which they are trained on.

    Attributes:
        columns: "text" and, with them, "positive" and "negative": the texts of all rows.
        batch: The number of rows in a batch.
    """

    columns: dict[str, list[str]]
    batch: int

    def __len__(self) -> int:
        return len(self.columns["text"])

    def __getitem__(self, number: int) -> dict[str, str]:
        return {name: texts[number] for name, texts in self.columns.items()}


def in_batches(groups: np.ndarray, steps: int, seed: int = 0) -> tuple[np.ndarray, int]:
    """Items in a random order, pass after pass, so that no batch has two items of one group.

    Near-duplicates would otherwise be each other's negatives. An item whose group is in the batch already comes in the
    next one.

    Args:
        groups: The group of each item, (items,).
        steps: The number of batches.
        seed: The seed of the order.

    Returns:
        The items of all batches, one after the other, and the number of items in a batch: 32, or all groups if there
        are fewer.
    """
    generator = np.random.default_rng(seed)
    size = min(BATCH, len(np.unique(groups)))
    queue: deque[int] = deque()
    order: list[int] = []
    for _ in range(steps):
        used: set[int] = set()
        later: list[int] = []
        while len(used) < size:
            if not queue:
                queue.extend(generator.permutation(len(groups)).tolist())
            item = queue.popleft()
            if int(groups[item]) in used:
                later.append(item)
            else:
                used.add(int(groups[item]))
                order.append(item)
        queue.extendleft(reversed(later))
    return np.array(order, dtype=np.int64), size


def pair_rows(view: View, groups: np.ndarray, allowed: np.ndarray, steps: int, seed: int = 0) -> Rows:
    """The queries of a view and their documents.

    Args:
        view: The view.
        groups: The group of each document, (documents,).
        allowed: Whether the documents of a group may be seen, (groups,) bool.
        steps: The number of batches.
        seed: The seed of their order.
    """
    pairs = np.flatnonzero(allowed[groups[view.targets]])
    order, batch = in_batches(groups[view.targets[pairs]], steps, seed)
    asked = pairs[order]
    queries, documents = [view.queries[i] for i in asked], [view.documents[view.targets[i]] for i in asked]
    return Rows({"text": queries, "positive": documents}, batch)


def crops(text: str, generator: np.random.Generator) -> tuple[str, str] | None:
    """Two windows of two consecutive sentences of a text, drawn at random; they do not overlap.

    Each possible pair of windows is equally likely, in either order.

    Args:
        text: The text.
        generator: Draws the windows.

    Returns:
        The two windows; None if the text has fewer than four sentences.

    Example:
        >>> sorted(crops("One a. Two b. Three c. Four d.", np.random.default_rng(0)))
        ['One a. Two b.', 'Three c. Four d.']
    """
    found = sentences(text)
    free = len(found) - 2 * WINDOW  # sentences in neither window
    if free < 0:
        return None
    # two windows among `free` other sentences: choose their places among free + 2 things, then give each its length
    first, second = sorted(generator.choice(free + 2, 2, replace=False).tolist())
    starts = [first, second + WINDOW - 1]
    generator.shuffle(starts)
    one, two = (" ".join(found[start : start + WINDOW]) for start in starts)
    return one, two


def crop_rows(texts: Sequence[str], groups: np.ndarray, allowed: np.ndarray, steps: int, seed: int = 0) -> Rows:
    """Crops of the texts that have four sentences, drawn anew in each pass; for the arguments see `pair_rows`."""
    kept = np.array(
        [i for i in np.flatnonzero(allowed[groups]).tolist() if len(sentences(texts[i])) >= 2 * WINDOW], np.int64
    )
    order, batch = in_batches(groups[kept], steps, seed)
    generator = np.random.default_rng([seed, 1])
    drawn = [crops(texts[i], generator) or ("", "") for i in kept[order].tolist()]
    return Rows({"text": [one for one, _ in drawn], "positive": [two for _, two in drawn]}, batch)


def half_rows(texts: Sequence[str], groups: np.ndarray, allowed: np.ndarray, steps: int, seed: int = 0) -> Rows:
    """First and second halves of the texts that are long enough; for the arguments see `pair_rows`."""
    parts = [halves(text) for text in texts]
    kept = np.array([i for i in np.flatnonzero(allowed[groups]).tolist() if parts[i] is not None], np.int64)
    order, batch = in_batches(groups[kept], steps, seed)
    drawn = [parts[i] or ("", "") for i in kept[order].tolist()]
    return Rows({"text": [one for one, _ in drawn], "positive": [two for _, two in drawn]}, batch)


def text_rows(texts: Sequence[str], groups: np.ndarray, allowed: np.ndarray) -> Rows:
    """Texts alone, for SCCL, which draws its batches itself."""
    return Rows({"text": [texts[i] for i in np.flatnonzero(allowed[groups]).tolist()]}, BATCH)


def mined(material: Material, allowed: np.ndarray) -> list[np.ndarray]:
    """The documents that may be hard negatives of each query of the first view.

    They have ranks 10 to 50 (from 1) in the start's ranking of the documents that may be seen, without those of the
    query's own group, and at most 95 % of the similarity of the query's document, since nearer ones may answer the
    query as well (Moreira et al. 2024, arXiv 2407.15831).

    Args:
        material: The start's vectors.
        allowed: Whether the documents of a group may be seen, (groups,) bool.

    Returns:
        For each query the numbers of documents, in the order of the ranking; none for queries that may not be seen.
    """
    view, groups = material.views[0], material.groups
    queries, documents = unit(material.queries[0]), unit(material.documents[0])
    seen = np.flatnonzero(allowed[groups])
    found = [np.array([], dtype=np.int64)] * len(queries)
    asked = np.flatnonzero(allowed[groups[view.targets]])
    for begin in range(0, len(asked), _AT_ONCE):
        part = asked[begin : begin + _AT_ONCE]
        cosines = queries[part] @ documents[seen].T
        for row, own in zip(part, cosines, strict=True):
            target = view.targets[row]
            other = groups[seen] != groups[target]
            order = np.argsort(-own[other], kind="stable")[FIRST_RANK - 1 : LAST_RANK]
            least = MOST_SIMILAR * float(queries[row] @ documents[target])
            found[row] = seen[other][order][own[other][order] <= least]
    return found


def mined_rows(material: Material, allowed: np.ndarray, steps: int, seed: int = 0) -> Rows:
    """Pairs of the first view with one of their mined negatives, drawn anew in each pass; pairs without one are left
    out. For the arguments see `mined` and `pair_rows`."""
    view = material.views[0]
    choices = mined(material, allowed)
    pairs = np.array([i for i, each in enumerate(choices) if len(each)], np.int64)
    order, batch = in_batches(material.groups[view.targets[pairs]], steps, seed)
    generator = np.random.default_rng([seed, 2])
    asked = pairs[order]
    columns = {
        "text": [view.queries[i] for i in asked],
        "positive": [view.documents[view.targets[i]] for i in asked],
        "negative": [view.documents[generator.choice(choices[i])] for i in asked],
    }
    return Rows(columns, batch)
