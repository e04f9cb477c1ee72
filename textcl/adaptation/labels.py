"""Evidence for clusters: a user's labelled texts, which k-means has to separate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np
from scipy.optimize import linear_sum_assignment

from textcl.adaptation.cross_fit import Judged, select
from textcl.adaptation.evidence import Lexical, under
from textcl.adaptation.verdict import Comparison, least_error
from textcl.adaptation.workplace import Workplace
from textcl.data.corpora import load_labelled
from textcl.data.reading import Reading, check_size
from textcl.data.rows import open_table
from textcl.encoder import Encoder
from textcl.evaluation.significance import CONFIDENCE
from textcl.files import content_hash
from textcl.metrics.clustering import cluster
from textcl.progress import Progress
from textcl.texts import bare, counted
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.near_duplicates import near_duplicate_groups

logger = logging.getLogger("textcl")

STARTS = 2  # of `cluster`, which itself has ten
SAMPLES = 100  # of the bootstrap; each fits k-means anew
MOST = 4000  # texts; k-means is fitted to them hundreds of times


@dataclass(frozen=True)
class Labels:
    """Vectors of labelled texts.

    Attributes:
        vectors: The vectors of the texts, (texts, dim).
        labels: The class of each text, a number from 0, (texts,).
        content: A hash of texts and labels.
        texts: The texts, which only readers need.
        groups: The group of near-duplicates of each text, (texts,); None: there are none.
    """

    vectors: np.ndarray
    labels: np.ndarray
    content: str
    texts: Sequence[str] = ()
    groups: np.ndarray | None = None

    task = "separating your labelled texts by k-means"
    measure = "accuracy"

    @cached_property
    def units(self) -> np.ndarray:
        """The group of near-duplicates of each text, which is split and resampled, a number from 0, (texts,)."""
        given = np.arange(len(self.labels)) if self.groups is None else self.groups
        return np.unique(given, return_inverse=True)[1]

    @property
    def unit(self) -> str:
        """What the units are."""
        return "labelled texts" if self.units.max() + 1 == len(self.units) else "different labelled texts"

    def part(self, rows: np.ndarray) -> Labels:
        """Some of the texts."""
        texts = [self.texts[row] for row in rows] if self.texts else ()
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, vectors=self.vectors[rows], labels=self.labels[rows], texts=texts, groups=groups)

    def under(self, weight: np.ndarray | None) -> Labels:
        """The same texts with their vectors under a linear map."""
        return replace(self, vectors=under(self.vectors, weight))

    def scores(self, rows: np.ndarray, maps: Sequence[np.ndarray | None], lexical: Lexical | None = None) -> np.ndarray:
        """What `right` finds under some linear maps, (maps, rows); words do not count."""
        return np.array([self.right(rows, each) for each in maps])

    def right(self, rows: np.ndarray, weight: np.ndarray | None, seed: int = 0) -> np.ndarray:
        """100 for each text in the cluster of its class, else 0, (rows,); k-means (20 starts) on these texts alone."""
        vectors, labels = under(self.vectors[rows], weight), self.labels[rows]
        classes = int(self.labels.max()) + 1
        found = [cluster(vectors, classes, seed=STARTS * seed + start) for start in range(STARTS)]
        clusters = min(found, key=lambda each: each.inertia).assignments
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (clusters, labels), 1)
        own = dict(zip(*linear_sum_assignment(-table), strict=True))
        return 100.0 * (np.array([own[number] for number in clusters]) == labels)

    def shown(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """What a reader is shown of some texts."""
        return [{"text": self.texts[row]} for row in rows]

    def judge(self, maps: Sequence[np.ndarray], seed: int = 0) -> tuple[Judged, Comparison]:
        """Judges "select one candidate": each half of the texts selects the candidate that the other half judges.

        The standard error is that of the bootstrap over the units of each half, with k-means fitted anew for each
        sample and side; the interval and the p-value are those of the normal distribution with this error.

        Args:
            maps: The candidates, the strongest pull first.
            seed: The seed of halves, k-means and bootstrap.
        """
        generator = np.random.default_rng(seed)
        folds = (generator.permutation(int(self.units.max()) + 1) % 2)[self.units]
        halves = [np.flatnonzero(folds == half) for half in (0, 1)]
        before, after, each = np.empty(len(folds)), np.empty(len(folds)), np.empty((len(maps), len(folds)))
        for rows in halves:
            before[rows] = self.right(rows, None)
            each[:, rows] = [self.right(rows, weight) for weight in maps]
        chosen = [select(each[:, halves[1 - half]]) for half in (0, 1)]
        drawn = np.zeros(SAMPLES)
        for sample in Progress("Resampling the labelled texts", SAMPLES, "samples").over(range(SAMPLES)):
            for half, rows in enumerate(halves):
                again = _resampled(rows, self.units, generator)
                gain = self.right(again, maps[chosen[half]], sample) - self.right(again, None, sample)
                drawn[sample] += gain.mean() * len(rows) / len(folds)
        for half, rows in enumerate(halves):
            after[rows] = each[chosen[half]][rows]
        gains = np.array([(each[:, halves[1 - half]] - before[halves[1 - half]]).mean(axis=1) for half in (0, 1)])
        judged = Judged(before, after, each, chosen, gains, folds, [maps[number] for number in chosen])
        return judged, _comparison(self, before, after, float(drawn.std(ddof=1)))


def read_labels(path: str, encoder: Encoder, place: Workplace) -> Labels:
    """The labelled texts of a file, at most 4,000 of them, drawn at random, with the vectors of `textcl cluster`.

    Args:
        path: A file with the columns "text" and "label".
        encoder: The encoder.
        place: Where vectors are kept.

    Raises:
        InputError: The file cannot be read, or no text has a label.
    """
    texts, numbers, groups = place.once(path, labels_of)
    content = content_hash({"texts": texts, "labels": numbers.tolist()})
    return Labels(place.vectors(encoder, texts, corpus_prompt(encoder)), numbers, content, texts, groups)


def check_labels(path: str) -> None:
    """Reads the labelled texts once, and says nothing yet of what was found.

    Raises:
        InputError: The file cannot be read, or no text has a label.
    """
    reading = Reading(open_table(path, txt_has_tabs=True), ["text"], None, "label", True)
    for _ in reading:
        pass
    check_size(reading.found, path)


def labels_of(path: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The distinct texts of `read_labels` that have a label, the number of the label of each, and its group, (texts,).

    Near-duplicates, by their words, are one group: copies would look like further evidence.
    """
    rows = load_labelled(path, drop_unlabelled=True)
    texts, labels = list(rows["text"]), np.array(rows["label"])
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(bare(text), row)
    if repeated := len(texts) - len(first):
        are = counted(repeated, "text is", "texts are")
        logger.warning("%s: %s equal to an earlier one but for case and spaces; each counts once.", path, are)
    kept = np.array([*first.values()])[np.sort(np.random.default_rng(0).permutation(len(first))[:MOST])]
    several = [texts[row] for row in kept]
    groups = near_duplicate_groups(None, several)
    if near := len(several) - int(groups.max()) - 1:
        are = counted(near, "text is", "texts are")
        logger.warning("%s: %s nearly equal to an earlier one; such texts count as one.", path, are)
    return several, np.unique(labels[kept], return_inverse=True)[1], groups


def compare_vectors(first: Labels, second: Labels, seed: int = 0) -> Comparison:
    """Compares two encoders on the same labelled texts, see `Labels.judge` for the error."""
    generator, every = np.random.default_rng(seed), np.arange(len(first.labels))
    drawn = np.empty(SAMPLES)
    for sample in Progress("Resampling the labelled texts", SAMPLES, "samples").over(range(SAMPLES)):
        again = _resampled(every, first.units, generator)
        drawn[sample] = (second.right(again, None, sample) - first.right(again, None, sample)).mean()
    return _comparison(first, first.right(every, None), second.right(every, None), float(drawn.std(ddof=1)))


def _resampled(rows: np.ndarray, units: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many units as some texts are of, drawn with replacement; the texts of these units among `rows`."""
    names, place = np.unique(units[rows], return_inverse=True)
    texts = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])  # of each unit
    return rows[np.concatenate([texts[unit] for unit in generator.choice(len(names), len(names))])]


def _comparison(labels: Labels, before: np.ndarray, after: np.ndarray, error: float) -> Comparison:
    normal, difference = NormalDist(), float((after - before).mean())
    sizes = np.bincount(labels.units)
    error = max(error, least_error(np.bincount(labels.units, after - before) / sizes.mean()))
    half = normal.inv_cdf((1 + CONFIDENCE) / 2) * error
    p_value = 2 * normal.cdf(-abs(difference) / error) if error else float(difference == 0)
    return Comparison(
        Labels.task,
        Labels.measure,
        float(before.mean()),
        float(after.mean()),
        difference - half,
        difference + half,
        p_value,
        len(sizes),
        error,
        labels.unit,
    )
