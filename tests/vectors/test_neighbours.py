"""Nearest rows beside a slow search by plain loops."""

import numpy as np
import pytest

from textcl.vectors import neighbours
from textcl.vectors.neighbours import nearest_rows


def slow(vectors: np.ndarray, queries: np.ndarray | None, count: int) -> list[list[int]]:
    found = []
    for number, query in enumerate(vectors if queries is None else queries):
        cosines = [
            (-float(row @ query / (np.linalg.norm(row) * np.linalg.norm(query))), place)
            for place, row in enumerate(vectors)
            if queries is not None or place != number
        ]
        found.append([place for _, place in sorted(cosines)[:count]])
    return found


@pytest.mark.parametrize("apart", [False, True])
def test_nearest_rows_are_those_of_a_slow_search(apart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_CELLS", 300)  # several blocks, the last one smaller
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 8)) * generator.uniform(0.1, 9, size=(40, 1))
    queries = generator.normal(size=(11, 8)) if apart else None
    rows, cosines = nearest_rows(vectors, 5, queries)
    assert rows.tolist() == slow(vectors, queries, 5)
    assert np.all(np.diff(cosines, axis=1) <= 0)


def test_there_may_be_fewer_rows_than_wanted() -> None:
    assert nearest_rows(np.ones((1, 3)), 5)[0].shape == (1, 0)
    assert nearest_rows(np.ones((3, 3)), 5)[0].shape == (3, 2)
    assert nearest_rows(np.eye(3), 5, np.ones((2, 3)))[0].shape == (2, 3)
