"""The metrics of predictions on labelled examples, and whether two sets of predictions differ.

Each metric is a function of the labels (examples,), the predictions (examples,) and how often each example is in each
bootstrap sample, (samples, examples); it returns the score of each sample, (samples,), from -1 or 0 to 1. A score that
is undefined, because a class or all variation is missing, is 0.
"""

from collections.abc import Callable, Sequence

import numpy as np

from textcl.errors import InputError
from textcl.evaluation.significance import Difference, bootstrap_difference, draw_counts, spearman_of_samples

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_CELLS = 400_000  # samples × examples that are in memory at a time


def accuracy(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The share of predictions that are right."""
    return counts @ (labels == predictions) / counts.sum(axis=1)


def f1(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """F1 of class 1: the harmonic mean of precision and recall."""
    both = counts @ ((labels == 1) & (predictions == 1))
    return _ratio(2 * both, counts @ (labels == 1) + counts @ (predictions == 1))


def pearson(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation."""
    x, y = (np.asarray(side, dtype=float) - np.mean(side) for side in (labels, predictions))
    total = counts.sum(axis=1)
    mean_x, mean_y = counts @ x / total, counts @ y / total
    spread_x, spread_y = (counts @ side**2 / total - mean**2 for side, mean in ((x, mean_x), (y, mean_y)))
    product = np.where((spread_x > 1e-12) & (spread_y > 1e-12), spread_x * spread_y, 0)
    return _ratio(counts @ (x * y) / total - mean_x * mean_y, np.sqrt(product))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": pearson,  # Matthews' coefficient of two classes is Pearson's correlation of labels and predictions
    "pearson": pearson,
    "spearman": spearman_of_samples,
}
"""The metrics by name."""


def scores(metrics: Sequence[str], labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Each metric × 100, and under "score" their mean, as GLUE averages them.

    Example:
        >>> scores(["accuracy"], [0, 1, 1, 1], [0, 1, 1, 0])
        {'score': 75.0, 'accuracy': 75.0}
    """
    once = np.ones((1, len(labels)))
    found = {name: 100 * float(METRICS[name](np.asarray(labels), np.asarray(predictions), once)[0]) for name in metrics}
    return {"score": float(np.mean(list(found.values()))), **found}


def over_examples(
    metrics: Sequence[str],
    labels: Sequence[float],
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of two models' scores on the same examples, by the paired bootstrap over the examples.

    A model's score is the mean over its seeds of the mean of the metrics. Each draw resamples the examples with
    replacement, the same ones for all predictions (Efron and Tibshirani 1993, chapter 16).

    Args:
        metrics: Names from `METRICS`.
        labels: The label of each example, (examples,).
        first: The first model's predictions with each seed, (seeds, examples).
        second: The second model's, (seeds, examples); it may have another number of seeds.
        draws: The number of bootstrap draws.
        seed: The seed of the draws.

    Returns:
        The difference in points.

    Raises:
        InputError: There are fewer than ten examples, the numbers of labels and predictions differ, or there is no
            draw.

    Example:
        >>> over_examples(["accuracy"], [0, 1] * 10, [[0] * 20], [[0, 1] * 10]).mean
        50.0
    """
    gold = np.asarray(labels)
    models = [[np.asarray(each) for each in model] for model in (first, second)]
    if len(gold) < 10 or not all(models) or any(len(each) != len(gold) for model in models for each in model):
        raise InputError("A bootstrap over examples needs a prediction of both models for each, and at least ten.")
    if draws < 1:
        raise InputError("A bootstrap needs at least one draw.")

    def difference(counts: np.ndarray) -> np.ndarray:
        one, two = (
            np.mean([METRICS[name](gold, each, counts) for each in model for name in metrics], axis=0)
            for model in models
        )
        return two - one

    drawn = list(map(difference, draw_counts(np.random.default_rng(seed), len(gold), draws, _CELLS)))
    return bootstrap_difference(float(difference(np.ones((1, len(gold))))[0]), np.concatenate(drawn), "examples")


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient; 0 where the denominator is."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
