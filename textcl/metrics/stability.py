"""How many clusters are there? The stability of k-means on halves of the rows, beside that on rows without clusters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textcl.errors import InputError
from textcl.progress import Progress
from textcl.texts import counted

logger = logging.getLogger("textcl")

DIMENSIONS = 50  # principal components: k-means on all dimensions takes ten times as long and finds the same
FEWEST = 6  # distinct rows
_STARTS, _STEPS = 2, 50  # of each k-means, at most


@dataclass(frozen=True)
class Stability:
    """How stable k-means is with each number of clusters.

    Attributes:
        numbers: The numbers of clusters that were tried, in ascending order, (numbers,).
        agreement: For each, how well two k-means on different halves of the rows agree, (numbers,): the adjusted Rand
            index, 1 if they put the same rows together, 0 by chance.
        null: The same agreement on the column-permuted rows, (numbers,).
        error: The standard error of `agreement` − `null`, (numbers,).
        best: The smallest number whose difference between agreement and null is the largest within two standard errors.
    """

    numbers: np.ndarray
    agreement: np.ndarray
    null: np.ndarray
    error: np.ndarray
    best: int

    @property
    def of_best(self) -> float:
        """The agreement at the best number."""
        return float(self.agreement[int(np.flatnonzero(self.numbers == self.best)[0])])

    @property
    def shown(self) -> bool:
        """Whether the best number is more stable than the null, by more than three standard errors.

        Three, because the best of many numbers is looked at. The error is at least the median of all errors, because
        each comes from a few pairs.
        """
        place = int(np.flatnonzero(self.numbers == self.best)[0])
        error = max(self.error[place], np.median(self.error))
        return bool(self.agreement[place] - self.null[place] > 3 * error)


def cluster_stability(
    embeddings: np.ndarray, *, largest: int = 100, sample: int = 3000, pairs: int = 3, seed: int = 0
) -> Stability:
    """Finds the number of clusters at which k-means is most stable, compared with rows that have no clusters.

    A number of clusters is right if other texts of the same kind give the same clusters (Ben-Hur, Elisseeff and Guyon
    2002). So the rows are split into two halves, k-means is fitted to each half, and both put all rows into clusters;
    their agreement is the adjusted Rand index. A small number of clusters is stable even if there are none: two
    clusters cut any long cloud in the middle. Therefore the same is done with a null, in which the values of each
    principal component are permuted over the rows (Tibshirani, Walther and Hastie 2001 draw such a null). The null has
    the variances of the rows in all directions, but no clusters. The best number is the smallest one whose agreement is
    above that of the null by as much as the largest difference, within two standard errors. Numbers from 2 on are tried
    in growing steps, then those around the one with the largest difference.

    Equal rows count once, and rows are reduced to 50 principal components. The result is a suggestion, because topics
    have sub-topics.

    Args:
        embeddings: (rows, dim).
        largest: The largest number to try; at most a quarter of the distinct rows in a half is tried.
        sample: The number of rows to use, drawn at random.
        pairs: How often the rows are split for each number.
        seed: The seed of sample, halves, permutation and k-means.

    Raises:
        InputError: There are fewer than six distinct rows, or the embeddings are not numbers in two dimensions.

    Example:
        >>> rows = np.repeat(8 * np.eye(8)[:4], 35, axis=0) + np.random.default_rng(0).normal(size=(140, 8))
        >>> cluster_stability(rows).best
        4
    """
    from threadpoolctl import threadpool_limits

    vectors = np.asarray(embeddings)  # a data frame would be indexed by its columns
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError(
            f"The embeddings must be numbers of the shape (rows, dim), not {vectors.dtype} {vectors.shape}."
        )
    generator = np.random.default_rng(seed)
    points = np.unique(vectors[generator.permutation(len(vectors))[:sample]], axis=0)
    if len(points) < FEWEST:
        raise InputError(
            f"The number of clusters cannot be estimated from {counted(len(points), 'distinct embedding')}; give the "
            f"number, or at least {FEWEST} different texts."
        )
    points = _principal(points[generator.permutation(len(points))])
    permuted = np.stack([generator.permutation(column) for column in points.T], axis=1)
    halves = [np.array_split(generator.permutation(len(points)), 2) for _ in range(pairs)]
    largest = max(2, min(largest, len(points) // 8))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def best_of(numbers: Sequence[int]) -> int:
        new = [number for number in numbers if number not in found]
        with threadpool_limits(1):  # thousands of small steps: on a busy machine threads would mostly wait
            for number in Progress("Estimating the number of clusters", len(new), "numbers").over(new):
                agreements = [[_agreement(rows, half, number, seed) for half in halves] for rows in (points, permuted)]
                found[number] = np.array(agreements[0]), np.array(agreements[1])
        return max(found, key=lambda number: found[number][0].mean() - found[number][1].mean())

    steps = [2]
    while steps[-1] < largest:
        steps.append(min(largest, max(steps[-1] + 1, round(1.2 * steps[-1]))))
    place = steps.index(best_of(steps))
    top = best_of(range(steps[max(place - 1, 0)], steps[min(place + 1, len(steps) - 1)] + 1))
    numbers = sorted(found)
    agreement, null = (np.array([found[number][side].mean() for number in numbers]) for side in (0, 1))
    spread = [(found[number][0] - found[number][1]).std(ddof=1) if pairs > 1 else 0.0 for number in numbers]
    errors = np.array(spread) / np.sqrt(pairs)
    difference, error = agreement - null, max(errors[numbers.index(top)], np.median(errors))
    best = numbers[int(np.flatnonzero(difference >= difference.max() - 2 * error)[0])]
    return Stability(np.array(numbers), agreement, null, errors, best)


@dataclass(frozen=True)
class FoundAgain:
    """How far clusters are found again in other texts of the same kind.

    Attributes:
        agreement: How well two k-means on different halves of the rows agree, as in `Stability`.
        overlap: For each cluster, the mean overlap (Jaccard) with its match in k-means on half of the rows,
            (clusters,); NaN for a cluster without a row in the sample.
    """

    agreement: float
    overlap: np.ndarray


def found_again(
    embeddings: np.ndarray, clusters: np.ndarray, *, sample: int = 3000, pairs: int = 3, seed: int = 0
) -> FoundAgain | None:
    """Looks for each cluster of k-means in k-means on halves of the rows (Hennig 2007, with halves as samples).

    The overlap of two clusters is the number of rows of both, divided by the number of rows of either. The match of a
    cluster is the one with the largest overlap. A cluster below 0.5 is dissolved rather than found again; from about
    0.75 on it is stable.

    Args:
        embeddings: (rows, dim).
        clusters: The cluster of each row, (rows,), counted from 0.
        sample: The number of rows to use, drawn at random.
        pairs: How often the rows are split.
        seed: The seed of sample, halves and k-means.

    Returns:
        What was found; None if there are too few distinct rows for as many clusters in a half.

    Example:
        >>> rows = np.repeat(np.eye(3), 40, axis=0) + np.random.default_rng(0).normal(scale=0.05, size=(120, 3))
        >>> found_again(rows, np.repeat([0, 1, 2], 40)).overlap.tolist()
        [1.0, 1.0, 1.0]
    """
    from threadpoolctl import threadpool_limits

    generator, number = np.random.default_rng(seed), int(clusters.max()) + 1
    drawn = generator.permutation(len(embeddings))[:sample]
    points, places = np.unique(embeddings[drawn], axis=0, return_index=True)
    if len(points) < max(FEWEST, 4 * number):
        return None
    points, own = _principal(points), np.eye(number)[clusters[drawn][places]]
    agreements, overlaps = [], []
    with threadpool_limits(1):
        for _ in range(pairs):
            both = _fitted(points, np.array_split(generator.permutation(len(points)), 2), number, seed)
            agreements.append(_same(*both))
            for found in both:
                shared = own.T @ np.eye(number)[found]
                either = own.sum(axis=0)[:, None] + np.bincount(found, minlength=number) - shared
                overlaps.append((shared / np.maximum(either, 1)).max(axis=1))
    there = own.sum(axis=0) > 0
    return FoundAgain(float(np.mean(agreements)), np.where(there, np.mean(overlaps, axis=0), np.nan))


def _principal(points: np.ndarray) -> np.ndarray:
    """The rows in the directions of their largest variances, at most `DIMENSIONS`, (rows, directions) float32."""
    centred = (points - points.mean(axis=0)).astype(np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ directions[:, ::-1][:, :DIMENSIONS], dtype=np.float32)


def _agreement(rows: np.ndarray, halves: Sequence[np.ndarray], number: int, seed: int) -> float:
    """How well k-means on each of two halves agree about all rows."""
    return _same(*_fitted(rows, halves, number, seed))


def _fitted(rows: np.ndarray, halves: Sequence[np.ndarray], number: int, seed: int) -> list[np.ndarray]:
    """The cluster of each row by k-means on each half, (rows,) each."""
    from sklearn.cluster import KMeans

    return [
        KMeans(number, n_init=_STARTS, max_iter=_STEPS, random_state=seed + part).fit(rows[half]).predict(rows)
        for part, half in enumerate(halves)
    ]


def _same(one: np.ndarray, two: np.ndarray) -> float:
    """The adjusted Rand index of two clusterings."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, two))
