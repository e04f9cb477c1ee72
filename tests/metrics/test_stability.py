"""The number of clusters by stability: blobs are found, one long cloud has none, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from textcl.errors import InputError
from textcl.metrics.clustering import cluster
from textcl.metrics.stability import Stability, cluster_stability, found_again


def blobs(count: int, size: int) -> np.ndarray:
    """Rows around centres that all have the same distance, so that fewer clusters join them in many ways."""
    noise = np.random.default_rng(0).normal(size=(count * size, 8))
    return np.repeat(8 * np.eye(8)[:count], size, axis=0) + noise


@pytest.mark.parametrize("count", [4, 7])
def test_the_number_of_blobs_is_found(count: int) -> None:
    found = cluster_stability(blobs(count, 140 // count), largest=10)
    assert found.best == count
    assert found.shown
    place = found.numbers.tolist().index(count)
    assert found.agreement[place] == pytest.approx(1, abs=0.05)
    assert found.agreement[place] - found.null[place] == (found.agreement - found.null).max()


def test_a_long_cloud_has_no_clusters_though_two_are_stable() -> None:
    """The negative control: its two halves come back on other rows, as those of the permuted values do."""
    rows = np.random.default_rng(0).normal(size=(400, 4)) * [10, 1, 1, 1]
    found = cluster_stability(rows, largest=6)
    assert found.numbers[0] == 2
    assert found.agreement[0] > 0.8
    assert found.null[0] > 0.8
    assert not found.shown
    difference = found.agreement - found.null
    error = max(found.error[difference.argmax()], np.median(found.error))
    within = difference >= difference.max() - 2 * error
    assert within.sum() > 1
    assert found.best == found.numbers[within][0], "the smallest number within two standard errors of the largest"


def test_a_number_is_shown_by_three_errors_of_which_none_is_below_the_median() -> None:
    numbers, agreement, null = np.array([2, 3, 4]), np.array([0.5, 0.9, 0.6]), np.full(3, 0.4)
    for error, shown in (([0.1] * 3, True), ([0.16] * 3, True), ([0.17] * 3, False), ([0.17, 0.01, 0.17], False)):
        found = Stability(numbers, agreement, null, np.array(error), best=3)
        assert (found.of_best, found.shown) == (0.9, shown)


def test_equal_rows_count_once_and_the_same_seed_gives_the_same() -> None:
    rows = blobs(3, 20)
    one, repeated = (cluster_stability(each, largest=5) for each in (rows, np.repeat(rows, 4, axis=0)))
    assert one.best == repeated.best == 3
    again = cluster_stability(rows, largest=5)
    assert np.array_equal(one.agreement, again.agreement)
    assert np.array_equal(one.null, again.null)


@pytest.mark.parametrize("rows", [np.ones((50, 4)), np.eye(5)])
def test_too_few_different_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"cannot be estimated from [15] distinct embeddings?; give the number"):
        cluster_stability(rows)
    assert cluster_stability(np.eye(6)).best == 2


def test_a_data_frame_and_a_list_count_as_their_array() -> None:
    rows = blobs(3, 20)
    expected = cluster_stability(rows).agreement.tolist()
    for given in (pd.DataFrame(rows), rows.tolist(), torch.tensor(rows)):
        assert cluster_stability(given).agreement.tolist() == expected
    for wrong in (rows[:, 0], np.array([["a", "b"]] * 20)):
        with pytest.raises(InputError, match="must be numbers of the shape"):
            cluster_stability(wrong)


def test_blobs_are_found_again_and_a_cluster_of_what_is_left_is_not() -> None:
    """Three blobs, and a wide cloud that k-means with six clusters cuts into three, elsewhere each time."""
    cloud = np.random.default_rng(1).normal(size=(180, 8)) * [0, 0, 0, 3, 3, 3, 3, 3]
    rows = np.concatenate((blobs(3, 60), cloud))
    assignments = cluster(rows, 6).assignments
    found = found_again(rows, assignments)
    assert found is not None
    for number in range(6):
        of_cloud = (assignments[180:] == number).sum() > (assignments[:180] == number).sum()
        assert (found.overlap[number] < 0.75) == of_cloud, found.overlap
    alone = found_again(blobs(3, 60), np.repeat([0, 1, 2], 60))
    assert alone is not None
    assert alone.agreement == pytest.approx(1, abs=0.03)
    assert alone.overlap == pytest.approx([1, 1, 1], abs=0.03)
    assert alone.agreement > found.agreement


def test_clusters_that_are_drawn_at_random_are_not_found_again() -> None:
    """The negative control: the agreement is of k-means alone, the overlap is of the clusters that were given."""
    numbers = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], 60))
    found = found_again(blobs(3, 60), numbers)
    assert found is not None
    assert found.overlap.max() < 0.5
    assert found_again(blobs(3, 60)[:8], numbers[:8]) is None  # two rows for three clusters in a half
    few = found_again(blobs(3, 60), np.where(np.arange(180) == 5, 3, numbers), sample=100)
    assert few is not None
    assert np.isnan(few.overlap[3]) or few.overlap[3] < 0.5


def test_a_cluster_without_rows_has_no_overlap():
    rows = np.repeat(np.eye(3), 40, axis=0) + np.random.default_rng(0).normal(scale=0.05, size=(120, 3))
    found = found_again(rows, np.repeat([0, 1, 3], 40))
    assert np.isnan(found.overlap).tolist() == [False, False, True, False]
