"""Scores beside definitions written a second time, on random input with ties, gaps and degenerate sizes."""

import logging
import math
import random
import warnings
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from textcl.errors import InputError
from textcl.evaluation import Retrieval
from textcl.evaluation.retrieval import score_ranking
from textcl.evaluation.significance import spearman
from textcl.metrics.clustering import adjusted_rand_index, clustering_accuracy, normalized_mutual_information


def by_definition(ranking: Sequence[str], grades: dict[str, float]) -> dict[str, float]:
    relevant = {name: grade for name, grade in grades.items() if grade > 0}
    gain = ideal = reciprocal = 0.0
    for rank, name in enumerate(ranking[:10], start=1):
        gain += relevant.get(name, 0) / math.log(rank + 1, 2)
        if name in relevant and reciprocal == 0:
            reciprocal = 1 / rank
    for rank, grade in enumerate(sorted(relevant.values(), reverse=True)[:10], start=1):
        ideal += grade / math.log(rank + 1, 2)
    recalls = {f"recall@{k}": len(set(ranking[:k]) & set(relevant)) / len(relevant) for k in (10, 100)}
    return {"ndcg@10": gain / ideal, "mrr@10": reciprocal, **recalls}


def test_metrics_of_random_rankings() -> None:
    """Graded judgements, more relevant documents than ranks, judged documents that are not ranked."""
    generator = random.Random(0)
    for _ in range(300):
        documents = [f"d{i}" for i in range(generator.choice([1, 3, 9, 10, 11, 50, 150]))]
        ranking = generator.sample(documents, len(documents))
        judged = generator.sample(documents, generator.randint(1, len(documents)))
        grades = {name: generator.choice([-1.0, 0.0, 0.5, 1.0, 3.0]) for name in judged}
        grades |= {f"missing{i}": generator.choice([0.0, 1.0, 2.0]) for i in range(generator.choice([0, 1, 20]))}
        grades |= {generator.choice(documents): 1.0}
        assert score_ranking(ranking, grades) == pytest.approx(by_definition(ranking, grades), abs=1e-12)


class Grid:
    """Vectors of small whole numbers, so that ties, equal and zero vectors are many."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([random.Random(f"{self.seed} {text}").choices((0, 1, 2), k=3) for text in texts], dtype=float)


@pytest.mark.parametrize("policy", ["drop", "keep", None])
def test_random_collections_with_ties(policy: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Repeated texts, ids shared by queries and documents, missing documents, queries that see no order."""
    caplog.set_level(logging.ERROR, "textcl")
    generator = random.Random(str(policy))
    for seed in range(25):
        encoder = Grid(seed)
        size = generator.choice([1, 2, 5, 30, 130])
        documents = {str(i): f"text {i % max(1, size * 2 // 3)}" for i in range(size)}
        queries = {str(i): generator.choice([f"query {i}", f"Text  {i}"]) for i in range(generator.choice([1, 3, 8]))}
        relevance = {
            query: {generator.choice([*documents, "gone"]): generator.choice([0, 1, 2]) for _ in range(4)} | {"0": 1}
            for query in queries
        }
        retrieval = Retrieval(
            queries, documents, relevance, chunk_size=generator.choice([1, 3, 999]), identical_ids=policy
        )
        scored = []
        for query, text in queries.items():
            same = query in documents and documents[query].lower().split() == text.lower().split()
            left_out = query in documents and (policy == "drop" or (policy is None and same))
            candidates = [name for name in documents if not (left_out and name == query)]
            cosines = {name: cosine(encoder, text, documents[name]) for name in candidates}
            flat = len(candidates) > 1 and max(cosines.values()) - min(cosines.values()) < 1e-6
            ranking = [] if flat else sorted(candidates, key=lambda name, c=cosines: (-c[name], name))
            scored.append(by_definition(ranking, relevance[query]))
        expected = {metric: 100 * sum(each[metric] for each in scored) / len(scored) for metric in scored[0]}
        assert retrieval(encoder).average == pytest.approx(expected, abs=1e-9)


def cosine(encoder: Grid, first: str, second: str) -> float:
    (a,), (b,) = encoder.encode([first]).tolist(), encoder.encode([second]).tolist()
    length = math.hypot(*a) * math.hypot(*b)
    return round(sum(x * y for x, y in zip(a, b, strict=True)) / length, 9) if length else 0.0


def test_spearman_with_ties_constants_and_few_pairs() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        size = generator.choice([2, 3, 5, 30])
        first, second = generator.integers(3, size=size).astype(float), generator.integers(4, size=size).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = spearmanr(first, second).statistic
        assert spearman(first, second) == pytest.approx(0 if math.isnan(expected) else expected, abs=1e-12)
    assert spearman(np.array([1.0]), np.array([2.0])) == 0
    with pytest.raises(InputError, match="A value is NaN"):
        spearman(np.array([1.0, math.nan, 2.0]), np.array([1.0, 2.0, 3.0]))


def test_scores_of_clusters_of_any_number_and_size() -> None:
    """One class, one cluster, a cluster for each text, more clusters than classes and the reverse."""
    generator = random.Random(1)
    for _ in range(200):
        size = generator.choice([1, 2, 5, 30])
        labels = [generator.randrange(generator.choice([1, 2, 4])) for _ in range(size)]
        clusters = [generator.randrange(generator.choice([1, 2, 5])) for _ in range(size)]
        found = normalized_mutual_information(labels, clusters)
        assert found == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=1e-12)
        assert adjusted_rand_index(labels, clusters) == pytest.approx(adjusted_rand_score(labels, clusters), abs=1e-12)
        counts = contingency_matrix(labels, clusters)
        square = np.zeros((5, 5))
        square[: counts.shape[0], : counts.shape[1]] = counts
        best = max(sum(square[i, j] for i, j in enumerate(order)) for order in permutations(range(5)))
        assert clustering_accuracy(labels, clusters) == pytest.approx(best / size)
    assert clustering_accuracy([0, 0, 1], [0, 0, 0]) == pytest.approx(2 / 3)
    assert normalized_mutual_information([0, 0, 1], [0, 0, 0]) == 0
    assert adjusted_rand_index([0, 0, 1], [0, 0, 0]) == 0
