"""The geometry evaluator on the real STS-B, against loops and what theory says of a cloud."""

import numpy as np
import pytest
import torch
from scipy.stats import skew

from textcl.data.sts import read_sts
from textcl.evaluation import Geometry, Suite
from textcl.evaluation.geometry import hubness
from textcl.report.tables import comparison, comparison_table


class Words:
    """Counts of hashed letters and a constant: an encoder of our own that needs no model."""

    def __init__(self, shift=0.0, turn=None):
        self.shift, self.turn = shift, turn

    def encode(self, texts):
        rows = np.zeros((len(texts), 24))
        for row, text in zip(rows, texts, strict=True):
            for letter in text.lower():
                row[ord(letter) % 24] += 1
        rows += self.shift
        return rows if self.turn is None else rows @ self.turn


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_figures_are_those_of_loops_over_the_dev_pairs(evaluation_sets):
    found = Geometry(evaluation_sets)(Words()).results["geometry"]
    (subset,) = read_sts("STSBenchmark", evaluation_sets, split="dev")
    close = [(a, b) for a, b, score in zip(subset.first, subset.second, subset.scores, strict=True) if score > 4]
    first, second = (unit(Words().encode(list(side))) for side in zip(*close, strict=True))
    assert found["alignment"] == pytest.approx(np.mean(((first - second) ** 2).sum(axis=1)))
    rows = unit(Words().encode(sorted({*subset.first, *subset.second})))
    upper = np.triu_indices(len(rows), 1)
    cosines = (rows @ rows.T)[upper]
    assert found["anisotropy"] == pytest.approx(cosines.mean())
    assert found["uniformity"] == pytest.approx(np.log(np.exp(-2 * (2 - 2 * cosines)).mean()))
    values = np.linalg.svd(rows, compute_uv=False)
    shares = values / values.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_hubness_is_the_skewness_of_neighbour_counts():
    rows = unit(np.random.default_rng(0).standard_normal((60, 5)))
    times = np.zeros(60)
    for number, row in enumerate(rows):
        cosines = rows @ row
        cosines[number] = -np.inf
        times[np.argsort(-cosines)[:10]] += 1
    assert float(hubness(torch.as_tensor(rows), chunk_size=7)) == pytest.approx(skew(times))
    ring = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    circle = torch.tensor(np.stack([np.cos(ring), np.sin(ring)], axis=1))
    assert float(hubness(circle, neighbours=2)) == 0.0, "each is a neighbour twice"


def test_a_rotation_changes_nothing_and_a_narrow_cone_is_seen(evaluation_sets):
    evaluator = Geometry(evaluation_sets)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((24, 24)))[0]
    plain, turned = (evaluator(Words(turn=each)).results["geometry"] for each in (None, turn))
    assert turned.pop("kind") == plain.pop("kind") == "geometry"
    assert turned == pytest.approx(plain, rel=1e-3)  # of neighbours at the same distance either may count
    cone = evaluator(Words(shift=1000.0)).results["geometry"]
    assert cone["anisotropy"] > 0.99 > plain["anisotropy"]
    assert cone["effective_rank"] < plain["effective_rank"]
    assert cone["uniformity"] > plain["uniformity"]


def test_a_collapse_is_said_and_its_hubs_are_no_figure(evaluation_sets, caplog):
    class Collapsed:
        def encode(self, texts):
            return 0.3 + 1e-9 * np.random.default_rng(0).normal(size=(len(texts), 8))

    result = Geometry(evaluation_sets)(Collapsed())
    assert result.average["hubness"] == 0
    assert result.average["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert "All sentences have the same embedding" in caplog.text
    assert result.provenance["undefined"] == ["geometry"]


def test_it_stands_beside_other_tasks_in_results_and_comparisons(evaluation_sets):
    suite = Suite("stsb,geometry", evaluation_sets)
    assert suite.tasks == ["STSBenchmark", "geometry"]
    result = suite(Words())
    assert "Geometry" in result.table()
    assert result.primary == result.average["all"]
    assert Geometry(evaluation_sets)(Words()).primary == result.results["geometry"]["effective_rank"]
    line = {"row": "a", "seed": None, "average": result.average["all"], "dev": 1.0, "results": result.results}
    figures = comparison([line])
    assert figures["rows"]["a"]["columns"]["eff. rank"]["mean"] == result.results["geometry"]["effective_rank"]
    assert "alignment, uniformity and effective rank on STS-B dev" in comparison_table(figures)
