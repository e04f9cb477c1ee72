"""What clusters of texts are about: their keywords, and a name for each cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textcl.errors import InputError
from textcl.texts import as_texts
from textcl.words import words_of

MORE_FREQUENT = 3.0  # in a cluster than outside of it, at least, for a word to be a keyword
FEW = 0.1  # of the other clusters may have a word of a name among their keywords
LONGEST = 50  # characters of a keyword; longer runs are encoded files, keys and the like, or many words without spaces
COMMON = 30  # the most frequent words of all texts; outside of a cluster the words of its name are rarer than these


def cluster_keywords(texts: Sequence[str], clusters: Sequence[int] | np.ndarray, most: int = 10) -> list[list[str]]:
    """The words that tell each cluster from the others, by class-based TF-IDF (Grootendorst 2022).

    The weight of a word in a cluster is the share of the cluster's texts that have the word, times ln(1 + A / f), with
    f the number of all texts that have it, and A the mean over clusters of the sum of these numbers. A word counts once
    in a text, so that one long text cannot decide. A keyword is at least three times as frequent in its cluster as in
    all other texts; so no list of stop words is needed, in any language. It is in two texts of the cluster or more, if
    the cluster has at least four. Words are runs of 2 to 50 letters, digits and underscores, but not numbers; where no
    spaces separate words, as in Chinese, pairs of characters. Of two words with the same beginning and different
    endings, such as query and queries, only the better one is given.

    Args:
        texts: The texts.
        clusters: The cluster of each text, (texts,), counted from 0; −1: an outlier, which counts as another text.
        most: The largest number of keywords of a cluster.

    Returns:
        The keywords of each cluster, the best first. A cluster may have fewer, or none.

    Raises:
        InputError: There are not as many clusters as texts, a cluster is not a whole number, or a text is not a string.

    Example:
        >>> cluster_keywords(["a red cat", "the red cat", "a big dog", "the big dog"], [0, 0, 1, 1])
        [['cat', 'red'], ['big', 'dog']]
    """
    return _keywords(_counted(texts, clusters), most)


def cluster_names(
    keywords: Sequence[Sequence[str]], texts: Sequence[str] = (), clusters: Sequence[int] | np.ndarray = ()
) -> list[str]:
    """A name for each cluster: its two best keywords that tell it from the other clusters and texts.

    At most a tenth of the other clusters have such a word among their keywords, not counting those in which it is at
    most half as frequent. And outside of the cluster the word is rarer than the 30 most frequent words of all texts:
    "he" can be three times as frequent in a cluster as elsewhere, and is still frequent elsewhere. If a cluster has
    fewer than two such words, its best other keywords follow. Names are unique: if a name is taken, the next keyword
    takes the place of the second. Two names with the same words in another order count as one.

    Args:
        keywords: The keywords of each cluster, the best first.
        texts: The texts; without them, only the keywords of the other clusters decide.
        clusters: The cluster of each text, as in `cluster_keywords`.

    Returns:
        The names, such as "excel, vba"; "cluster 3" if cluster 3 has no keyword.

    Raises:
        InputError: As in `cluster_keywords`.

    Example:
        >>> cluster_names([["file", "excel", "vba"], ["file", "bash", "shell"], []])
        ['excel, vba', 'bash, shell', 'cluster 2']
    """
    return _names(keywords, _counted(texts, clusters, len(keywords)))


def keywords_and_names(
    texts: Sequence[str], clusters: Sequence[int] | np.ndarray, most: int = 10
) -> tuple[list[list[str]], list[str]]:
    """What `cluster_keywords` and `cluster_names` give for the same texts, whose words are counted once for both."""
    counts = _counted(texts, clusters)
    keywords = _keywords(counts, most)
    return keywords, _names(keywords, counts)


@dataclass(frozen=True)
class _Counts:
    """Words in texts.

    Attributes:
        texts: The number of texts.
        inside: For each cluster the number of its texts that have each word.
        everywhere: The number of all texts that have each word.
        sizes: The number of texts of each cluster.
    """

    texts: int
    inside: list[Counter[str]]
    everywhere: Counter[str]
    sizes: list[int]


def _keywords(counts: _Counts, most: int) -> list[list[str]]:
    average = sum(map(Counter.total, counts.inside)) / max(len(counts.inside), 1)
    found = []
    for size, own in zip(counts.sizes, counts.inside, strict=True):
        weights = {
            word: times / size * np.log1p(average / counts.everywhere[word])
            for word, times in own.items()
            if times >= (2 if size >= 4 else 1)
            and times * (counts.texts - size) >= MORE_FREQUENT * size * (counts.everywhere[word] - times)
        }
        ordered = sorted(weights, key=lambda word: (-weights[word], word))
        found.append(_different(ordered, most))
    return found


def _names(keywords: Sequence[Sequence[str]], counts: _Counts) -> list[str]:
    few = int(FEW * (len(keywords) - 1))
    names: list[str] = []
    for number, (each, weak) in enumerate(zip(keywords, _not_its_own(keywords, counts, few), strict=True)):
        ordered = sorted(each, key=weak.__contains__)
        name = ", ".join(ordered[:2]) or f"cluster {number}"
        free = (
            f"{ordered[0]}, {word}"
            for word in ordered[1:]
            if not {f"{ordered[0]}, {word}", f"{word}, {ordered[0]}"} & {*names}
        )
        names.append(next(free, f"{name} ({number})" if name in names else name))
    return names


def _not_its_own(keywords: Sequence[Sequence[str]], counts: _Counts, few: int) -> list[set[str]]:
    """The keywords of each cluster that more than `few` other clusters have, or that other texts have as often."""
    texts, inside, everywhere, sizes = counts.texts, counts.inside, counts.everywhere, counts.sizes
    frequent = everywhere.most_common(COMMON)
    least = frequent[-1][1] / texts if len(frequent) == COMMON else 1.0  # of few words none is frequent
    shares: dict[str, list[float]] = {}  # of the texts of each cluster that has the keyword; 1 if no texts are known
    for number, each in enumerate(keywords):
        for word in set(each):
            shares.setdefault(word, []).append(inside[number][word] / max(sizes[number], 1) if texts else 1)

    def weak(word: str, number: int) -> bool:
        own, size = (inside[number][word], max(sizes[number], 1)) if texts else (1, 1)
        rivals = sum(share > own / size / 2 for share in shares[word]) - 1
        return rivals > few or everywhere[word] - own > least * max(texts - size, 0)

    return [{word for word in each if weak(word, number)} for number, each in enumerate(keywords)]


def _counted(texts: Sequence[str], clusters: Sequence[int] | np.ndarray, least: int = 0) -> _Counts:
    """The words of the texts; `least`: the number of clusters, if the last ones may have no text."""
    texts, given = as_texts(texts), np.asarray(clusters)
    if given.size and (given.dtype.kind not in "iuf" or not np.array_equal(given, np.round(given))):
        raise InputError("The clusters must be whole numbers, one for each text, counted from 0; −1 is an outlier.")
    numbers = given.astype(np.int64)
    if len(texts) != len(numbers):
        raise InputError(f"There are {len(texts):,} texts and {len(numbers):,} clusters; each text needs one.")
    inside: list[Counter[str]] = [Counter() for _ in range(max(int(numbers.max(initial=-1)) + 1, least))]
    everywhere: Counter[str] = Counter()
    for text, number in zip(texts, numbers.tolist(), strict=True):
        words = _words(text)
        everywhere.update(words)
        if number >= 0:
            inside[number].update(words)
    sizes = np.bincount(numbers[numbers >= 0], minlength=len(inside)).tolist()
    return _Counts(len(texts), inside, everywhere, sizes)


def _words(text: str) -> set[str]:
    # not `casefold`, which spells "Größe" as "grösse": people read these words
    return {word for word in words_of(text.lower(), least=2) if not word.isdigit() and len(word) <= LONGEST}


def _different(ordered: Sequence[str], most: int) -> list[str]:
    """The first `most` words, without those that differ from an earlier one in the ending only."""
    kept: list[str] = []
    for word in ordered:
        if len(kept) == most:
            break
        if not any(_same_stem(word, other) for other in kept):
            kept.append(word)
    return kept


def _same_stem(one: str, other: str) -> bool:
    """Whether two words have at least four letters in common at their beginning, and then at most three each."""
    shared = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared >= 4 and max(len(one), len(other)) - shared <= 3
