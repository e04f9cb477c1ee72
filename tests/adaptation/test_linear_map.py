"""The linear map: its loss by slow loops, what pull and groups do, and its export."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation import linear_map
from textcl.adaptation.known_items import View
from textcl.adaptation.linear_map import fit_linear_map, mapped, with_linear_map
from textcl.adaptation.material import Material
from textcl.encoder import Encoder
from textcl.vectors.compress import unit

GENERATOR = np.random.default_rng(0)


def pairs(count: int, dimension: int = 16, noise: float = 0.3, distortion: float = 1.0) -> tuple[np.ndarray, ...]:
    """Queries and documents of length 1 that agree but for noise, with a few directions that say nothing."""
    generator = np.random.default_rng(1)
    shared = generator.normal(size=(count, dimension))
    sides = [shared + noise * generator.normal(size=shared.shape) for _ in range(2)]
    for side in sides:
        side[:, :4] += distortion * 4 * generator.normal(size=(count, 4))
    return tuple(unit(side).astype(np.float32) for side in sides)


def found(queries: np.ndarray, documents: np.ndarray) -> float:
    """The share of queries that find their own document first."""
    return float(((unit(queries) @ unit(documents).T).argmax(axis=1) == np.arange(len(queries))).mean())


def slow_loss(queries: np.ndarray, documents: np.ndarray, weight: np.ndarray, pull: float, groups: list[int]) -> float:
    sides = [[row + weight @ row for row in side.astype(np.float64)] for side in (queries, documents)]
    sides = [[row / math.sqrt(sum(row**2)) for row in side] for side in sides]
    total = 0.0
    for one, two in (sides, sides[::-1]):
        for i, row in enumerate(one):
            scores = [float(row @ other) / 0.05 for j, other in enumerate(two) if j == i or groups[j] != groups[i]]
            total += math.log(sum(map(math.exp, scores))) - float(row @ two[i]) / 0.05
    return total / (2 * len(queries)) + pull * float((weight**2).sum())


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 3]])
def test_the_first_step_goes_against_the_gradient_of_the_loss(groups: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear_map, "STEPS", 1)
    queries, documents = pairs(6, dimension=5)
    step = fit_linear_map(queries, documents, 0.1, groups=np.array(groups))
    # the first step of Adam is the learning rate against the sign of the gradient, here by differences
    for i in range(5):
        for j in range(5):
            change = np.zeros((5, 5))
            change[i, j] = 1e-5
            slope = slow_loss(queries, documents, change, 0.1, groups) - slow_loss(
                queries, documents, -change, 0.1, groups
            )
            if abs(slope) > 1e-8:
                assert step[i, j] == pytest.approx(-math.copysign(1e-3, slope), rel=1e-3)


def test_the_steps_are_those_of_adam_in_double_precision_over_all_pairs_in_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear_map, "STEPS", 5)
    monkeypatch.setattr(linear_map, "BATCH", 4)
    queries, documents = pairs(10, dimension=5)
    generator, order = torch.Generator().manual_seed(3), torch.empty(0, dtype=torch.long)
    weight = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=1e-3)
    for _ in range(5):
        if len(order) < 4:  # two batches, then all pairs anew
            order = torch.randperm(10, generator=generator)
        rows, order = order[:4], order[4:]
        sides = (torch.from_numpy(side)[rows].double() for side in (queries, documents))
        one, two = (torch.nn.functional.normalize(side + side @ weight.T, dim=1) for side in sides)
        scores = one @ two.T / 0.05
        losses = [torch.nn.functional.cross_entropy(each, torch.arange(4)) for each in (scores, scores.T)]
        adam.zero_grad()
        (sum(losses) / 2 + 300.0 * weight.square().sum()).backward()
        adam.step()
    found = fit_linear_map(queries, documents, 300.0, seed=3)
    np.testing.assert_allclose(found, weight.detach().numpy(), atol=2e-6)


def test_it_learns_to_leave_out_what_says_nothing_and_a_stronger_pull_learns_less():
    queries, documents = pairs(1200)
    train, test = slice(0, 800), slice(800, 1200)
    before = found(queries[test], documents[test])
    maps = [fit_linear_map(queries[train], documents[train], pull) for pull in (100.0, 1.0, 0.1)]
    after = [found(mapped(queries[test], each), mapped(documents[test], each)) for each in maps]
    assert after[0] == pytest.approx(before, abs=0.03)
    assert min(after[1:]) > before + 0.1
    assert np.linalg.norm(maps[0]) < np.linalg.norm(maps[1]) < np.linalg.norm(maps[2])


def test_pairs_that_do_not_belong_together_teach_nothing():
    queries, documents = pairs(1200, distortion=0.0)
    wrong = fit_linear_map(queries[:800], documents[np.random.default_rng(2).permutation(800)], 0.1)
    test = slice(800, 1200)
    after = found(mapped(queries[test], wrong), mapped(documents[test], wrong))
    assert after <= found(queries[test], documents[test])


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear_map, "STEPS", 3)
    monkeypatch.setattr(linear_map, "BATCH", 8)
    queries, documents = pairs(20)
    one, two, other = (fit_linear_map(queries, documents, 0.1, seed=seed) for seed in (0, 0, 1))
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.parametrize("normalize", [True, False])
def test_the_export_is_the_map_behind_the_frozen_vectors(normalize: bool, tmp_path: Path):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "tiny")).with_(normalize=normalize)
    before = encoder.encode(TEXTS[:8])
    weight = 0.3 * GENERATOR.normal(size=(32, 32)).astype(np.float32)
    adapted = with_linear_map(encoder, weight)
    expected = mapped(before, weight)
    expected = unit(expected) if normalize else expected
    np.testing.assert_allclose(adapted.encode(TEXTS[:8]), expected, atol=1e-6)
    adapted.save(tmp_path / "adapted")
    theirs = SentenceTransformer(str(tmp_path / "adapted"), device="cpu").encode(TEXTS[:8])
    np.testing.assert_allclose(theirs, expected, atol=1e-6 * max(1.0, np.abs(expected).max()))
    np.testing.assert_allclose(Encoder.from_pretrained(tmp_path / "adapted").encode(TEXTS[:8]), theirs, atol=2e-6)
    assert (encoder.encode(TEXTS[:8]) == before).all()  # the untouched encoder stays as it was
    assert not any(parameter.requires_grad for parameter in adapted.layers.parameters())


def test_the_map_acts_on_columns():
    weight = np.array([[0.0, 1.0], [0.0, 0.0]], np.float32)
    assert mapped(np.array([[0.0, 2.0]], np.float32), weight).tolist() == [[2.0, 2.0]]
    assert mapped(torch.tensor([[0.0, 2.0]]), torch.from_numpy(weight)).tolist() == [[2.0, 2.0]]


def test_the_map_of_a_material_is_trained_on_the_groups_that_may_be_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear_map, "STEPS", 3)
    generator = np.random.default_rng(7)
    queries, documents = (generator.normal(size=(count, 6)).astype(np.float32) for count in (20, 24))
    targets, groups = generator.permutation(24)[:20], np.arange(24) // 2  # documents of a group are no negatives
    view = View("half", "a test", [""] * 20, [""] * 24, targets)
    material = Material([view], [queries], [documents], groups)
    allowed = np.arange(12) % 3 != 0
    rows = np.flatnonzero(allowed[groups[targets]])
    seen = targets[rows]
    expected = fit_linear_map(queries[rows], documents[seen], 0.3, groups=groups[seen], seed=5)
    assert (material.fit(0.3, allowed, seed=5) == expected).all()
    apart = fit_linear_map(queries[rows], documents[seen], 0.3, seed=5)
    assert (apart != expected).any()
