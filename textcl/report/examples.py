"""Examples for a report: a sample of texts with their map and neighbours, and pairs that the model ranks wrongly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.corpus_files import CorpusFiles
from textcl.data.sts import Subset
from textcl.data.training import READING_OPTIONS, classes_of, find_corpus, training_rows
from textcl.encoder import Encoder
from textcl.encoder.layers import FirstDimensions, with_first_dimensions
from textcl.errors import InputError
from textcl.evaluation.encoding import encode_distinct
from textcl.metrics.clustering import cluster
from textcl.runs.identity import weights_of
from textcl.vectors.topics import keywords_and_names

SAMPLE = 2000
QUERIES = 8
NEIGHBOURS = 3
CLUSTERS = 8
SHOWN_LABELS = 9  # the most frequent labels have a colour each; all others share one


def untouched(recipe: dict[str, Any], after: Encoder, weights: list[str] | None = None) -> Encoder:
    """The model that a recipe starts from, with what the trained encoder has but did not learn.

    That is its pooling, maximal length, prompts, weights of tokens and number of dimensions.

    Args:
        recipe: The recipe.
        after: The trained encoder.
        weights: What `weights_of` found when the run started; None: it is not known.

    Raises:
        InputError: The model cannot be loaded, or its weights are others now.
    """
    before = Encoder.from_pretrained(
        recipe["model"],
        pooling=after.pooling,
        max_length=after.max_length,
        prompts=after.prompts,
        default_prompt_name=after.default_prompt_name,
    )
    if weights and weights_of(before) != weights:
        raise InputError(f"{recipe['model']} has other weights now than when the run started.")
    if after.token_weights is not None:
        before.token_weights = after.token_weights
    cuts = [layer.count for layer in after.layers if isinstance(layer, FirstDimensions)]
    return with_first_dimensions(before, min(cuts)) if cuts and min(cuts) < before.dimension else before


@dataclass(frozen=True)
class Sample:
    """A random sample of distinct texts, the same at each call, in the order of their source.

    Attributes:
        texts: The texts, at most `SAMPLE`.
        labels: The label of each text; None if the source has no labels.
        source: A phrase that names the source.
    """

    texts: list[str]
    labels: list[str] | None
    source: str


def sample_corpus(recipe: dict[str, Any], sha256: str | None = None) -> Sample:
    """A sample of the corpus that a recipe trains on.

    Args:
        recipe: The recipe.
        sha256: The hash of the corpus when it was trained on; None if it is not known.

    Raises:
        InputError: The corpus no longer exists, cannot be read, or has another hash.
    """
    files = CorpusFiles(find_corpus(recipe["data"]))
    if sha256 not in (None, files.sha256):
        raise InputError(f"{files} has other content than when it was trained on.")
    options = {key: recipe[key] for key in READING_OPTIONS if key in recipe}
    rows, labels = training_rows(files, **options), None
    if recipe.get("label_column"):
        options.pop("dedup", None)
        classes = classes_of(files, **options)
        labels = [str(classes[number]) for number in rows["label"]]
    return _draw(list(rows["text"]), labels, f"the training corpus, {Path(str(files)).name}")


def sample_pairs(pairs: Subset) -> Sample:
    """A sample of the texts of scored pairs."""
    return _draw([*pairs.first, *pairs.second], None, "STS-B dev, because the training corpus cannot be read")


def _draw(texts: Sequence[str], labels: Sequence[str] | None, source: str) -> Sample:
    first = {text: row for row, text in reversed(list(enumerate(texts))) if text.strip()}
    places = sorted(first.values())
    if len(places) > SAMPLE:
        places = sorted(np.random.default_rng(0).choice(places, SAMPLE, replace=False).tolist())
    chosen = [texts[place] for place in places]
    return Sample(chosen, [labels[place] for place in places] if labels else None, source)


def embed(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of length 1, (texts, dim)."""
    rows, row_of = encode_distinct(encoder, texts)
    rows = rows[[row_of[text] for text in texts]]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def project(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components, (texts, 2), and the share of the variance that they keep."""
    from sklearn.decomposition import PCA

    analysis = PCA(2, svd_solver="full")
    points = analysis.fit_transform(rows)
    return points, float(analysis.explained_variance_ratio_.sum())


def grouping(sample: Sample, rows: np.ndarray, words: bool = True) -> tuple[list[str], str]:
    """The group (label or cluster) that colours each text of a map, and a sentence that explains the colours.

    With `words`, a cluster is named by its two best keywords, see `cluster_names`.
    """
    if sample.labels is not None:
        names, counts = np.unique(sample.labels, return_counts=True)
        shown = set(names[np.argsort(-counts, kind="stable")][:SHOWN_LABELS])
        groups = [f"label {label}" if label in shown else "other labels" for label in sample.labels]
        return groups, "The colour is the label in the corpus; labels were not used to place the points."
    number = min(CLUSTERS, len(np.unique(rows, axis=0)))
    if number < 2:
        return ["all texts"] * len(rows), "All embeddings are equal."
    found = cluster(rows, number).assignments
    how = f"The colour is one of {number} clusters of k-means on the embeddings after training"
    if not words:
        return [f"cluster {each}" for each in found], f"{how}."
    _, named = keywords_and_names(sample.texts, found)
    return [named[each] for each in found], f"{how}, named by words that are frequent in it and not elsewhere."


def neighbours(rows: np.ndarray, query: int) -> list[tuple[int, float]]:
    """The texts nearest to text `query`, without itself, and their cosines."""
    cosines = rows @ rows[query]
    cosines[query] = -np.inf
    return [(int(place), float(cosines[place])) for place in np.argsort(-cosines, kind="stable")[:NEIGHBOURS]]


def changed(before: np.ndarray, after: np.ndarray) -> list[int]:
    """The indices of the texts whose nearest texts differ between two encoders, (texts, dim) each."""
    found = [
        [{place for place, _ in neighbours(rows, query)} for query in range(len(rows))] for rows in (before, after)
    ]
    return [query for query, (one, other) in enumerate(zip(*found, strict=True)) if one != other]


def spaced(places: Sequence[int]) -> list[int]:
    """At most `QUERIES` of some indices, evenly spaced among them, so not selected by result."""
    if not places:
        return []
    chosen = np.linspace(0, len(places) - 1, QUERIES).round().astype(int).tolist()
    return [places[each] for each in dict.fromkeys(chosen)]


def disagreements(gold: Sequence[float], cosines: np.ndarray, most: int = 10) -> list[tuple[int, float, float]]:
    """The pairs whose rank by the model differs most from their rank by people.

    Returns:
        For each pair its index and its ranks by people and by the model, from 0 (least similar) to 100; ties get their
        mean rank. First the `most` pairs that the model ranks too similar, then the `most` that it ranks too different.
    """
    from scipy.stats import rankdata

    if len(gold) < 2:
        raise InputError("Disagreements can be found only among at least two pairs.")
    ranks = [100 * (rankdata(values) - 1) / (len(gold) - 1) for values in (gold, cosines)]
    ordered = np.argsort(ranks[0] - ranks[1], kind="stable")
    chosen = [*ordered[:most], *ordered[::-1][:most]]
    return [(int(pair), float(ranks[0][pair]), float(ranks[1][pair])) for pair in dict.fromkeys(chosen)]
