"""Groups of texts that are equal or nearly equal.

All texts are compared with all centres of groups, in tiles; nothing is approximate. To compare a million texts takes
little longer than half a million million products of short vectors: a sketch of each vector (its largest principal
components, and the length of what remains) bounds the cosine from above, and only pairs whose bound reaches the
threshold are compared whole.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from scipy.sparse import csr_matrix

from textcl.errors import InputError
from textcl.progress import Progress
from textcl.ranges import PositiveShare, checked
from textcl.texts import as_texts, bare
from textcl.vectors.compress import unit
from textcl.words import words_of

COSINE, WORDS = 0.95, 0.8
_ROWS, _TILE = 1024, 2048  # texts and centres that are compared at once: 8 MiB of cosines
_PAIRS = 2**18  # pairs of texts whose words are compared at once
_GATHERED = 2**14  # pairs of texts whose whole vectors are compared at once
_CANDIDATES = 2**23  # pairs of texts with a rare word in common that are in memory at once
_SKETCH = 64  # numbers in the sketch of a vector


@checked
def near_duplicate_groups(
    vectors: np.ndarray | None,
    texts: Iterable[str],
    cosine: PositiveShare | None = COSINE,
    words: PositiveShare | None = WORDS,
) -> np.ndarray:
    """The number of the group of each text; near-equal texts are in one group.

    Two texts are near-equal if their vectors have at least the cosine `cosine`, or their sets of words have at least
    the overlap `words`: the words of both, divided by the words of either (Jaccard); where no spaces separate words, as
    in Chinese, pairs of characters are words. Texts that differ only in case and spaces count as one text, with the
    vector of the first of them, so they are always in one group.

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
    searches: list[Callable[[np.ndarray, np.ndarray], Iterator[Pairs]]] = []
    if vectors is not None and cosine is not None:
        searches.append(_ByCosine(unit(vectors[rows]), cosine))
    if words is not None:
        searches.append(_ByWords(list(firsts), words))

    def near(some: np.ndarray, others: np.ndarray) -> Iterator[Pairs]:
        return chain.from_iterable(search(some, others) for search in searches)

    group = np.empty(len(rows), np.int64)
    centres = np.empty(0, np.int64)
    with Progress("Looking for near-duplicates", len(rows)) as bar:
        for start in range(0, len(rows), _ROWS):
            block = np.arange(start, min(start + _ROWS, len(rows)))
            found = np.full(len(block), len(centres))
            for one, two in near(block, centres):
                np.minimum.at(found, one, two)  # the first group that has room for the text
            left = np.flatnonzero(found == len(centres))
            among = np.zeros((len(left), len(left)), bool)
            for one, two in near(block[left], block[left]):
                among[one, two] = True
            new: list[int] = []  # the centres of this block, as places in `left`
            for place in range(len(left)):
                earlier = np.flatnonzero(among[place, new])
                found[left[place]] = len(centres) + (earlier[0] if len(earlier) else len(new))
                if not len(earlier):
                    new.append(place)
            centres = np.concatenate((centres, block[left[new]]))
            group[block] = found
            bar.update(len(block))
    return group[distinct]


def overlaps(texts: Iterable[str], others: Iterable[str]) -> np.ndarray:
    """The overlap of the words of each text with those of its partner: the words of both, divided by those of either.

    Example:
        >>> overlaps(["two cats sleep"], ["Two cats."]).round(2).tolist()
        [0.67]
    """
    pairs = [(set(words_of(bare(one))), set(words_of(bare(two)))) for one, two in zip(texts, others, strict=True)]
    return np.array([len(one & two) / max(1, len(one | two)) for one, two in pairs])


Pairs = tuple[np.ndarray, np.ndarray]
"""Pairs of near-equal texts, as places among the texts on either side, each (pairs,)."""


class _ByCosine:
    """Finds the pairs of texts whose vectors, of length 1, have at least a cosine."""

    def __init__(self, vectors: np.ndarray, cosine: float) -> None:
        self.vectors, self.sketches = vectors, _sketches(vectors)
        self.least = np.float32(cosine - 1e-6)  # rounding must not part equal vectors from a threshold of 1

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> Iterator[Pairs]:
        """Yields the pairs of texts `rows` and texts `others`."""
        for start in range(0, len(others), _TILE):
            one, two = self._in_tile(rows, others[start : start + _TILE])
            yield one, start + two

    def _in_tile(self, rows: np.ndarray, others: np.ndarray) -> Pairs:
        bounds, bound = self.sketches[rows] @ self.sketches[others].T, self.least - np.float32(1e-5)
        # to look for pairs only in these rows takes a third of the time
        some = np.flatnonzero(bounds.max(axis=1) >= bound)
        one, two = np.nonzero(bounds[some] >= bound)
        one = some[one]
        if len(one) > 0.02 * len(rows) * len(others):
            return np.nonzero(self.vectors[rows] @ self.vectors[others].T >= self.least)  # type: ignore[return-value]
        near = np.zeros(len(one), bool)
        for start in range(0, len(one), _GATHERED):
            part = slice(start, start + _GATHERED)
            first, second = self.vectors[rows[one[part]]], self.vectors[others[two[part]]]
            near[part] = np.einsum("ij,ij->i", first, second) >= self.least
        return one[near], two[near]


def _sketches(vectors: np.ndarray) -> np.ndarray:
    """Short vectors (texts, 65) whose products are at least the cosines of vectors of length 1 (texts, dim).

    With an orthogonal basis, a vector is a part a in its first 64 directions and a rest b. Of two vectors, b · b' is at
    most |b| |b'| (Cauchy and Schwarz), so (a, |b|) · (a', |b'|) is at least their cosine. The basis is that in which
    the rests are shortest. Vectors of few dimensions are their own sketches.
    """
    if vectors.shape[1] <= 2 * _SKETCH or not len(vectors):
        return vectors
    some = vectors[:: max(1, len(vectors) // 20_000)]
    basis = np.linalg.eigh(some.T @ some)[1][:, -_SKETCH:]
    part = vectors @ basis
    squares = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", part, part)
    # 1e-6 is more than the rounding of the squares, so that no rest is too short
    rest = np.sqrt(np.maximum(squares, 0) + 1e-6)
    return np.concatenate((part, rest[:, None]), axis=1, dtype=np.float32)


class _ByWords:
    """Finds the pairs of texts whose sets of words have at least an overlap.

    Only pairs that share a rare word are compared, see `_rarest`, and of these only those that can still reach the
    overlap, see `_may_overlap`.

    Attributes:
        sets: The words of each text, see `sets_of_words`.
        sizes: The number of words of each text.
        rare: The rare words of each text.
        last: The last, least rare of these; -1: the text has no word.
        rest: How many other words each text has.
        candidates: At most so many texts share a rare word with each text.
    """

    def __init__(self, texts: list[str], overlap: float) -> None:
        self.overlap = overlap
        self.sets = sets_of_words(texts)
        self.rare = _rarest(self.sets, overlap)
        self.sizes, counts = np.diff(self.sets.indptr), np.diff(self.rare.indptr)
        self.last = np.full(len(texts), -1)
        self.last[counts > 0] = self.rare.indices[self.rare.indptr[1:][counts > 0] - 1]
        self.rest = self.sizes - counts
        self.candidates = self.rare @ np.bincount(self.rare.indices, minlength=self.rare.shape[1])

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> Iterator[Pairs]:
        """Yields the pairs of texts `rows` and texts `others`."""
        if not len(rows) or not len(others):
            return
        rare = self.rare[others].T.tocsr()
        steps = np.cumsum(self.candidates[rows]) // _CANDIDATES
        for several in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(steps)) + 1):
            shared_rare = (self.rare[rows[several]] @ rare).tocoo()
            for start in range(0, shared_rare.nnz, _PAIRS):
                part = slice(start, start + _PAIRS)
                one, two = several[shared_rare.row[part]], shared_rare.col[part]
                possible = self._may_overlap(rows[one], others[two], shared_rare.data[part])
                one, two = one[possible], two[possible]
                shared = np.asarray(self.sets[rows[one]].multiply(self.sets[others[two]]).sum(axis=1)).ravel()
                either = self.sizes[rows[one]] + self.sizes[others[two]] - shared
                near = shared >= self.overlap * either - 1e-9
                yield one[near], two[near]

    def _may_overlap(self, rows: np.ndarray, others: np.ndarray, rare: np.ndarray) -> np.ndarray:
        """Whether pairs with so many rare words in common can reach the overlap, (pairs,); most cannot.

        Two sets overlap by t only if they share t / (1 + t) of the sum of their sizes (Xiao et al. 2008). Of two sets,
        take the one whose last rare word is the rarer: a shared word that is not rare in both is after that word, so
        it is one of the other words of this set.
        """
        rest = np.where(self.last[rows] <= self.last[others], self.rest[rows], self.rest[others])
        needed = self.overlap / (1 + self.overlap) * (self.sizes[rows] + self.sizes[others])
        return rare + rest >= needed - 1e-6


def sets_of_words(texts: Iterable[str]) -> csr_matrix:
    """The words of each text as rows of 0 and 1, (texts, words); the words that are rarest in all texts come first.

    Args:
        texts: Texts that `bare` gave.
    """
    sets = [set(words_of(text)) for text in texts]
    frequency = Counter(word for each in sets for word in each)
    by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
    place = {word: number for number, word in enumerate(by_rarity)}
    indices = np.fromiter((number for each in sets for number in sorted(place[word] for word in each)), np.int32)
    ends = np.cumsum([0, *map(len, sets)])
    return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=(len(sets), len(place)))


def _rarest(sets: csr_matrix, threshold: float) -> csr_matrix:
    """Of each set the words of which near-equal sets must share one.

    Of two sets with at least the overlap t, those of their n words that are rarest in all texts share a word, if n −
    ⌈t n⌉ + 1 of each are taken (Chaudhuri et al. 2006, Bayardo et al. 2007). So few pairs have to be compared whole.
    """
    sizes = np.diff(sets.indptr)
    counts = np.minimum(sizes, sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1)
    kept = np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], sizes) < np.repeat(counts, sizes)
    return csr_matrix((sets.data[kept], sets.indices[kept], np.cumsum([0, *counts])), shape=sets.shape)
