"""Rows among centres, and the hierarchy of clusters: closed forms and oracles."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from textcl.metrics.clustering import cluster, mean_silhouette, merge_clusters, place

ROWS = np.random.default_rng(0).normal(size=(60, 3))


def within(rows: np.ndarray, clusters: np.ndarray) -> float:
    return sum(((rows[clusters == n] - rows[clusters == n].mean(axis=0)) ** 2).sum() for n in set(clusters.tolist()))


def test_each_merge_adds_the_least_variance_of_all_pairs() -> None:
    """The oracle joins each pair and computes the sum of squares of the rows themselves."""
    means = cluster(ROWS, 6)
    merges = merge_clusters(means.centres, np.bincount(means.assignments))
    now, sums = means.assignments.copy(), [within(ROWS, means.assignments)]
    for merge in merges:
        numbers = sorted(set(now.tolist()))
        costs = {(a, b): within(ROWS, np.where(now == b, a, now)) for a in numbers for b in numbers if a < b}
        assert min(costs, key=costs.__getitem__) == (merge.first, merge.second)
        now = np.where(np.isin(now, [merge.first, merge.second]), merge.merged, now)
        assert merge.size == (now == merge.merged).sum()
        sums.append(within(ROWS, now))
    between = sums[-1] - sums[0]
    assert [merge.height for merge in merges] == pytest.approx(np.diff(sums) / between)
    assert sums[-1] == pytest.approx(((ROWS - ROWS.mean(axis=0)) ** 2).sum())
    assert [merge.merged for merge in merges] == list(range(6, 11))


def test_one_cluster_has_no_merge() -> None:
    assert merge_clusters(np.ones((1, 3)), [5]) == []
    assert sum(merge.height for merge in merge_clusters(np.ones((3, 2)), [1, 1, 1])) == 0


def test_rows_are_placed_where_k_means_placed_them() -> None:
    means = cluster(ROWS, 5)
    again = place(ROWS, means.centres)
    assert np.array_equal(again.clusters, means.assignments)
    given = place(ROWS, means.centres, means.assignments)
    assert np.array_equal(again.confidence, given.confidence)
    assert np.array_equal(again.second, given.second)
    assert (again.second != again.clusters).all()
    for number in range(5):
        assert sorted(again.rank[again.clusters == number]) == list(range(1, (again.clusters == number).sum() + 1))


def test_placing_by_hand() -> None:
    centres = np.array([[0.0], [10.0], [100.0]])
    found = place(np.array([[1.0], [9.0], [5.0], [70.0]]), centres, reach=np.array([2.0, 1.0, 20.0]))
    assert found.clusters.tolist() == [0, 1, -1, -1]
    assert found.second.tolist() == [1, 0, 0, 2]  # of an outlier: the nearest
    assert found.confidence == pytest.approx([8 / 9, 8 / 9, 0, 0])
    assert found.rank.tolist() == [1, 1, 1, 2]
    alone = place(np.array([[1.0], [3.0]]), centres[:1])
    assert (alone.clusters.tolist(), alone.second.tolist(), alone.confidence.tolist()) == ([0, 0], [-1, -1], [0, 0])


def test_the_silhouette_is_the_mean_without_outliers() -> None:
    clusters = cluster(ROWS, 4).assignments.copy()
    clusters[::7] = -1
    inside = clusters >= 0
    assert mean_silhouette(ROWS, clusters) == pytest.approx(silhouette_samples(ROWS[inside], clusters[inside]).mean())
    assert mean_silhouette(ROWS, np.zeros(60, int)) is None
    assert mean_silhouette(ROWS, np.arange(60)) is None


def test_clusters_without_rows_are_joined_first_and_add_no_variance():
    merges = merge_clusters(np.array([[0.0], [4.0], [9.0], [20.0]]), [5, 0, 0, 5])
    assert [round(each.height, 6) for each in merges] == [0, 0, 1]
    assert {merges[0].first, merges[0].second} == {1, 2}
    assert merges[-1].size == 10
