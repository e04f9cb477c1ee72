"""Groups of texts that are equal or nearly equal."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from scipy.sparse import csr_matrix

from textcl.errors import InputError
from textcl.progress import Progress
from textcl.ranges import Range, checked
from textcl.texts import as_texts, bare
from textcl.vectors.vectors import unit

COSINE, WORDS = 0.95, 0.8
_CELLS = 2**24  # pairs of texts whose cosines are in memory at once: 64 MiB
_PAIRS = 2**18  # pairs of texts whose words are compared at once

Threshold = Annotated[float, Range(above=0, at_most=1)]


@checked
def near_duplicate_groups(
    vectors: np.ndarray | None,
    texts: Iterable[str],
    cosine: Threshold | None = COSINE,
    words: Threshold | None = WORDS,
) -> np.ndarray:
    """The number of the group of each text; near-equal texts are in one group.

    Two texts are near-equal if their vectors have at least the cosine `cosine`, or their sets of words have at least
    the overlap `words`: the words of both, divided by the words of either (Jaccard). Texts that differ only in case and
    spaces count as one text, with the vector of the first of them, so they are always in one group.

    Groups do not chain: the texts are taken in their order, and each one joins the first group whose centre it is
    near-equal to, or becomes the centre of a new group. So each member is within a threshold of the centre, which is
    the first text of its group. Two texts that are near-equal to each other, but not to one centre, can therefore be in
    different groups.

    The defaults are for encoders that were trained for similarity, whose cosine of 0.95 means a paraphrase in nearly
    the same words. With another encoder, whose cosines are all high, set `cosine` to None or higher.

    Args:
        vectors: The vectors of the texts, (texts, dim); None: only words count.
        texts: The texts.
        cosine: The threshold of the cosine; None: it does not count.
        words: The threshold of the overlap of words; None: it does not count.

    Returns:
        Numbers from 0 in the order of the centres, (texts,) int64.

    Raises:
        InputError: A threshold is outside its range, or there are not as many vectors as texts.

    Example:
        >>> near_duplicate_groups(None, ["Two cats sleep.", "a dog", "two  cats sleep."]).tolist()
        [0, 1, 0]
    """
    plain = [bare(text) for text in as_texts(texts)]
    if vectors is not None and len(vectors) != len(plain):
        raise InputError(f"There are {len(vectors):,} vectors for {len(plain):,} texts; each text needs one.")
    firsts: dict[str, int] = {}  # from each distinct text to its number among them
    distinct = np.array([firsts.setdefault(text, len(firsts)) for text in plain], np.int64)
    rows = np.unique(distinct, return_index=True)[1]
    compare = _Comparison(
        None if vectors is None or cosine is None else unit(vectors[rows]), cosine or 1.0, list(firsts), words
    )
    group = np.empty(len(rows), np.int64)
    centres: list[int] = []
    size = max(1, min(1024, _CELLS // max(1, len(rows))))
    with Progress("Looking for near-duplicates", len(rows)) as bar:
        for start in range(0, len(rows), size):
            block = np.arange(start, min(start + size, len(rows)))
            old = compare(block, np.array(centres, np.int64))
            found = np.where(old.any(axis=1), old.argmax(axis=1), -1) if centres else np.full(len(block), -1)
            left = block[found < 0]
            among = compare(left, left)
            new: list[int] = []  # the centres of this block, as places in `left`
            for place in range(len(left)):
                near = [number for number, centre in enumerate(new) if among[place, centre]]
                if near:
                    found[left[place] - start] = len(centres) + near[0]
                else:
                    found[left[place] - start] = len(centres) + len(new)
                    new.append(place)
            centres += left[new].tolist()
            group[block] = found
            bar.update(len(block))
    return group[distinct]


class _Comparison:
    """Which of some texts are near-equal to which of others.

    Args:
        vectors: Vectors of length 1, or None.
        cosine: Their threshold.
        texts: The texts.
        words: The threshold of their words, or None.
    """

    def __init__(self, vectors: np.ndarray | None, cosine: float, texts: list[str], words: float | None) -> None:
        self.vectors, self.cosine, self.words = vectors, cosine, words
        if words is not None:
            self.sets, self.prefixes = _sets_of_words(texts, words)
            self.sizes = np.diff(self.sets.indptr)

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of the texts `rows` is near-equal to each of the texts `others`, (rows, others)."""
        near = np.zeros((len(rows), len(others)), bool)
        if self.vectors is not None:
            # rounding must not part equal vectors from a threshold of 1
            near |= self.vectors[rows] @ self.vectors[others].T >= self.cosine - 1e-6
        if self.words is not None and near.size:
            pairs = np.stack((self.prefixes[rows] @ self.prefixes[others].T).nonzero())
            for start in range(0, pairs.shape[1], _PAIRS):
                one, two = pairs[:, start : start + _PAIRS]
                shared = np.asarray(self.sets[rows[one]].multiply(self.sets[others[two]]).sum(axis=1)).ravel()
                either = self.sizes[rows[one]] + self.sizes[others[two]] - shared
                near[one, two] |= shared >= self.words * either - 1e-9
        return near


def _sets_of_words(texts: list[str], threshold: float) -> tuple[csr_matrix, csr_matrix]:
    """The words of each text as rows of 0 and 1, and of each row the words that near-equal texts must share.

    Of two sets with at least the overlap t, those of their n words that are rarest in all texts share a word, if n −
    ⌈t n⌉ + 1 of each are taken (Chaudhuri et al. 2006, Bayardo et al. 2007). So few pairs have to be compared whole.
    """
    sets = [set(re.findall(r"\w+", text)) for text in texts]
    frequency = Counter(word for each in sets for word in each)
    by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
    place = {word: number for number, word in enumerate(by_rarity)}
    rows = [sorted(place[word] for word in each) for each in sets]
    kept = [row[: len(row) - int(np.ceil(threshold * len(row) - 1e-9)) + 1] for row in rows]
    return _matrix(rows, len(place)), _matrix(kept, len(place))


def _matrix(rows: list[list[int]], columns: int) -> csr_matrix:
    indices = np.array([column for row in rows for column in row], np.int32)
    ends = np.cumsum([0, *map(len, rows)])
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(rows), columns))
