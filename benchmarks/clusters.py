"""Do clusters find the classes of labelled texts? k-means and HDBSCAN of textcl versus BERTopic's pipeline.

BERTopic's defaults are UMAP to five dimensions and HDBSCAN with clusters of at least ten texts. All get the same
vectors, whose SHA-256 is in the notes. Outliers count as one more cluster.
"""

import hashlib
import time
from typing import Any

import numpy as np

from benchmarks.measure import FASTER, Options, Row
from textcl.data.clustering import CLUSTERING_SETS, load_clustering
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.clusters import smallest_size
from textcl.metrics.clustering import (
    adjusted_rand_index,
    cluster,
    clustering_accuracy,
    normalized_mutual_information,
)
from textcl.metrics.density import density_clusters
from textcl.metrics.stability import cluster_stability

METRICS = {"accuracy": clustering_accuracy, "NMI": normalized_mutual_information, "ARI": adjusted_rand_index}


def run(options: Options) -> list[Row]:
    try:
        import bertopic  # noqa: F401
        import umap  # noqa: F401
    except ImportError:
        raise InputError(
            "BERTopic is not here: pip install bertopic umap-learn, in an environment of its own."
        ) from None
    count, rounds = options.size(2000, 300), options.turns()
    encoder = Encoder.from_pretrained(options.encoder())
    rows = []
    for name in CLUSTERING_SETS:
        texts, labels = load_clustering(name)
        drawn = np.random.default_rng(0).permutation(len(texts))[:count]
        texts, labels = [texts[row] for row in drawn], [labels[row] for row in drawn]
        vectors = np.asarray(encoder.encode(texts, normalize=True), np.float32)
        digest = hashlib.sha256(vectors.tobytes()).hexdigest()[:12]
        peer, told = _measured(lambda seed, v=vectors, t=texts: _bertopic(t, v, seed), labels, rounds)
        classes, smallest = len(set(labels)), smallest_size(len(texts))
        ours = {
            f"k-means, {classes} clusters": lambda seed, v=vectors, k=classes: cluster(v, k, seed).assignments,
            "k-means, auto": lambda seed, v=vectors: cluster(v, cluster_stability(v, seed=seed).best, seed).assignments,
            "hdbscan": lambda seed, v=vectors, m=smallest: density_clusters(v, m, seed=seed),
        }
        for side, action in ours.items():
            found, said = _measured(action, labels, rounds)
            notes = f"{len(texts):,} texts, vectors {digest}. textcl: {said}. BERTopic: {told}"
            rows += [
                Row.of(
                    f"clusters, {name}, {side}: {metric}",
                    {"textcl": found[metric], "peer": peer[metric]},
                    "points",
                    FASTER,
                    notes,
                )
                for metric in METRICS
            ]
    return rows


def _measured(action: Any, labels: list[int], rounds: int) -> tuple[dict[str, list[float]], str]:
    """The scores of the clusters with each seed, and what else is to be said about them."""
    scores: dict[str, list[float]] = {metric: [] for metric in METRICS}
    told = []
    for seed in range(rounds):
        started = time.process_time()
        found = np.asarray(action(seed))
        seconds = time.process_time() - started
        for metric, score in METRICS.items():
            scores[metric].append(100 * score(labels, found))
        outliers = 100 * np.mean(found < 0)
        told.append(f"{found.max() + 1} clusters, {outliers:.1f} % outliers, {seconds:.0f} s of the CPU")
    return scores, "; ".join(told)


def _bertopic(texts: list[str], vectors: np.ndarray, seed: int) -> list[int]:
    from bertopic import BERTopic
    from umap import UMAP

    reduce = UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", low_memory=False, random_state=seed)
    return BERTopic(umap_model=reduce).fit_transform(texts, vectors)[0]
