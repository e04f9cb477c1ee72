"""HDBSCAN on reduced rows: shapes that k-means cannot find, outliers, equal rows, samples, and wrong input."""

import numpy as np
import pytest

from textcl.errors import InputError
from textcl.metrics.clustering import cluster, clustering_accuracy
from textcl.metrics.density import density_clusters


def blobs(sizes: list[int], noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around random directions, and rows in no direction."""
    generator = np.random.default_rng(0)
    centres = np.repeat(generator.normal(size=(len(sizes), 24)), sizes, axis=0)
    rows = np.concatenate([centres + 0.35 * generator.normal(size=centres.shape), generator.normal(size=(noise, 24))])
    labels = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(noise, -1)])
    return rows.astype(np.float32), labels


def test_dense_groups_are_found_and_numbered_by_size() -> None:
    rows, labels = blobs([40, 90, 60])
    found = density_clusters(rows, 10)
    assert found.max() == 2
    inside = found >= 0
    assert inside.mean() > 0.9
    assert clustering_accuracy(labels[inside], found[inside]) == 1
    sizes = np.bincount(found[inside]).tolist()
    assert sizes == sorted(sizes, reverse=True)


def test_rows_in_no_group_are_outliers() -> None:
    rows, labels = blobs([80, 80], noise=40)
    found = density_clusters(rows, 20)
    assert (found[labels < 0] == -1).mean() > 0.6
    assert (found[labels >= 0] == -1).mean() < 0.2
    assert (cluster(rows, 2).assignments >= 0).all(), "the negative control: k-means has none"


def test_a_shape_that_k_means_cuts_is_one_cluster() -> None:
    """Two long parallel stripes: k-means cuts both across. The points are random, so that no distances are equal."""
    generator, labels = np.random.default_rng(0), np.repeat([0, 1], 200)
    along, across = generator.normal(0, 0.5, 400), 0.6 * labels + generator.normal(0, 0.05, 400)
    rows = np.stack([np.ones(400), along, across - 0.3], axis=1)
    found = density_clusters(rows, 100)
    inside = found >= 0
    assert inside.mean() > 0.8
    assert set(found[inside]) == {0, 1}
    assert clustering_accuracy(labels[inside], found[inside]) == 1
    assert clustering_accuracy(labels, cluster(rows, 2).assignments) < 0.7


def test_equal_rows_are_together_and_count_once() -> None:
    rows, _ = blobs([60, 50])
    found = density_clusters(np.concatenate([rows, rows[:30], rows[:30]]), 10)
    assert np.array_equal(found[:30], found[110:140])
    assert np.array_equal(found[:30], found[140:])
    with pytest.raises(InputError, match=r"at least 10 different texts, and there are fewer \(1 distinct embedding\)"):
        density_clusters(np.repeat(rows[:1], 50, axis=0), 10)


def test_of_many_rows_a_sample_is_clustered_and_the_others_follow() -> None:
    rows, labels = blobs([150, 150])
    found = density_clusters(rows, 30, sample=120)
    inside = found >= 0
    assert inside.sum() > 200
    assert clustering_accuracy(labels[inside], found[inside]) > 0.99


def test_the_smallest_size_is_that_among_all_rows_and_not_in_the_sample() -> None:
    rows, labels = blobs([100, 100, 100])
    found = density_clusters(rows, 60, sample=120)  # about 40 rows of each are in the sample
    inside = found >= 0
    assert found.max() == 2
    assert clustering_accuracy(labels[inside], found[inside]) > 0.99


def test_what_is_refused() -> None:
    rows, _ = blobs([30])
    for wrong, message in (({"min_size": 1}, "from 2 on"), ({"min_size": 31}, "at least 31 different texts")):
        with pytest.raises(InputError, match=message):
            density_clusters(rows, **wrong)
    for wrong in (4, 16):
        with pytest.raises(InputError, match="from 5 to 15"):
            density_clusters(rows, 5, dimensions=wrong)
    with pytest.raises(InputError, match="all texts would be outliers"):
        density_clusters(np.random.default_rng(0).normal(size=(40, 24)), 30)
