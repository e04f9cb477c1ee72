"""Near-duplicates with planted edits: `textcl duplicates --threshold auto` versus SemHash, and versus cosines alone.

For each kind of edit, copies of some StackOverflow titles are planted among all titles. textcl chooses its thresholds
itself; the threshold of the other side is the one at which it reports as many pairs. Both sides have the same vectors.
A pair is right if it is a title and its copy; titles that repeat each other by nature count as wrong for both sides.
SemHash (Minish Lab) takes part if it is installed; "cosine alone" is textcl without words.
"""

import hashlib
from collections.abc import Callable
from copy import copy
from importlib.util import find_spec

import numpy as np

from benchmarks.measure import EQUAL, FASTER, Options, Row
from textcl.data import load_clustering
from textcl.encoder import Encoder
from textcl.texts import bare
from textcl.vectors.calibration import calibrate
from textcl.vectors.near_duplicates import near_duplicate_groups
from textcl.vectors.planted_edits import KINDS, edit

TITLES, COPIES = 20_000, 1000
LOWEST, STEPS = 0.7, 12  # the lowest threshold, and the halvings of the range above it
Pairs = list[tuple[int, int]]  # a row, and the row that it repeats
Side = Callable[[float], Pairs]  # the pairs at a threshold of the cosine


def run(options: Options) -> list[Row]:
    """Precision and recall for each kind of edit, at the same number of reported pairs."""
    titles = list({bare(text): text.strip() for text in load_clustering("StackOverflow")[0]}.values())
    titles = titles[: options.size(TITLES, 300)]
    encoder = Encoder.from_pretrained(options.encoder())
    of_titles = encoder.encode(titles, normalize=True)
    rows = []
    for kind in KINDS:
        texts, vectors, copy_of = planted(kind, titles, of_titles, encoder, options.size(COPIES, 60))
        chosen = calibrate(vectors, texts, lambda some: encoder.encode(some, normalize=True))
        assert chosen is not None
        ours = repeats(near_duplicate_groups(vectors, texts, chosen.cosine, chosen.words))
        recall, precision = quality(ours, copy_of)
        notes = f"textcl: cosine {chosen.cosine}, words {chosen.words}; {len(copy_of):,} copies in {len(texts):,} texts"
        notes += f"; SHA-256 of the vectors {hashlib.sha256(vectors.tobytes()).hexdigest()[:16]}"
        for peer, side in sides(vectors, texts).items():
            name = f"{kind}, {peer}"
            threshold, theirs = with_as_many(side, len(ours))
            their_recall, their_precision = quality(theirs, copy_of)
            rows += [
                Row(f"{name}: reported", len(ours), len(theirs), "pairs", 1, EQUAL, notes),
                Row(f"{name}: recall", recall, their_recall, "%", 1, FASTER, f"{peer} at cosine {threshold:.4f}"),
                Row(f"{name}: precision", precision, their_precision, "%", 1, FASTER),
            ]
    return rows


def planted(
    kind: str, titles: list[str], vectors: np.ndarray, encoder: Encoder, copies: int
) -> tuple[list[str], np.ndarray, dict[int, int]]:
    """Titles with copies of some of them in a random order, their vectors, and the title of each copy."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(len(titles))[:copies]
    made = [edit(titles[row], titles[other], kind) for row, other in zip(chosen, np.roll(chosen, 1), strict=True)]
    # an edit may change nothing, or give the text of another title
    there = set(map(bare, titles)) if kind != "case" else set()
    changed = [place for place, text in enumerate(made) if bare(text) not in there]
    made, chosen = [made[place] for place in changed], chosen[changed]
    order = generator.permutation(len(titles) + len(made))
    place = np.argsort(order)
    texts = [*titles, *made]
    every = np.concatenate((vectors, encoder.encode(made, normalize=True)))
    copy_of = {int(place[len(titles) + number]): int(place[row]) for number, row in enumerate(chosen)}
    return [texts[row] for row in order], every[order], copy_of


def sides(vectors: np.ndarray, texts: list[str]) -> dict[str, Side]:
    """The other sides."""
    found: dict[str, Side] = {
        "cosine alone": lambda threshold: repeats(near_duplicate_groups(vectors, texts, threshold, None))
    }
    if find_spec("semhash") is not None:
        from semhash import SemHash

        rows = {text: row for row, text in enumerate(texts)}
        # its neighbours are looked up once; each threshold selects among them
        all_pairs = SemHash.from_embeddings(vectors, texts, model=None).self_deduplicate(LOWEST)

        def semhash(threshold: float) -> Pairs:
            selected = copy(all_pairs)
            selected.rethreshold(threshold)
            return [(rows[each.record], rows[each.duplicate_of]) for each in selected.filtered]

        found["SemHash"] = semhash
    return found


def repeats(groups: np.ndarray) -> Pairs:
    """Each row that is not the first of its group, with the first one."""
    first = np.unique(groups, return_index=True)[1][groups]
    return [(int(row), int(first[row])) for row in np.flatnonzero(first != np.arange(len(groups)))]


def with_as_many(side: Side, wanted: int) -> tuple[float, Pairs]:
    """The highest threshold at which a side reports at least so many pairs, and these."""
    low, high = LOWEST, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if len(side(middle)) >= wanted else (low, middle)
    return low, side(low)


def quality(pairs: Pairs, copy_of: dict[int, int]) -> tuple[float, float]:
    """Recall and precision in percent."""
    right = sum(copy_of.get(one) == two or copy_of.get(two) == one for one, two in pairs)
    return 100 * right / len(copy_of), 100 * right / max(1, len(pairs))
