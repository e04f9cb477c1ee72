"""Many logistic regressions at once: one for each fold and strength of regularisation, on rows of one matrix.

`train` is SentEval's own training (Conneau and Kiela 2018), which stops early; `solve` goes on to the optimum. Both
leave behind weights `(folds, grid, classes, dim + 1)`, of which the last column is the intercept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

_CACHE_BYTES = 1 << 20  # of a step's rows: what a processor keeps close; a GPU takes all folds in one slice
_SOLVED = 1e-3  # of the first gradient's length, by the metric of the preconditioner
_ITERATIONS = 200


@dataclass(frozen=True)
class Training:
    """How SentEval trains.

    Attributes:
        optimizer: "adam" or "rmsprop", both as PyTorch has them by default.
        batch_size: Rows in a step.
        tenacity: Checks without a better score that are forgiven, all in all; the next one ends the training.
        passes: Passes over the data between two checks.
        most_passes: No further check is begun after so many.
    """

    optimizer: str
    batch_size: int
    tenacity: int
    passes: int
    most_passes: int = 200


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to score, and the generator that orders the batches; of no use a second time."""

    train: np.ndarray
    dev: np.ndarray
    generator: np.random.RandomState

    @classmethod
    def split(cls, train: np.ndarray, dev: np.ndarray, seed: int) -> Fold:
        """Both parts given."""
        return cls(train, dev, np.random.RandomState(seed))

    @classmethod
    def held_out(cls, rows: np.ndarray, share: float, seed: int) -> Fold:
        """A random share of the rows, not stratified, to score; the rest to train on."""
        generator = np.random.RandomState(seed)
        order = generator.permutation(len(rows))
        count = int(share * len(rows))
        return cls(rows[order[count:]], rows[order[:count]], generator)


def with_ones(features: np.ndarray | Tensor) -> Tensor:
    """The features with a last column of ones, `(n, dim + 1)`, on the device that computes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.as_tensor(features, device=device)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def predict(rows: Tensor, weights: Tensor) -> np.ndarray:
    """The class of each row: `(n, dim + 1)` and `(..., classes, dim + 1)` give `(..., n)`."""
    return (rows @ weights.transpose(-1, -2)).argmax(-1).cpu().numpy()


def train(
    rows: Tensor,
    targets: Tensor,
    folds: Sequence[Fold],
    decay: np.ndarray,
    training: Training,
    seed: int,
    *,
    gold: np.ndarray | None = None,
    title: str = "",
) -> tuple[Tensor, np.ndarray]:
    """Trains a softmax layer for each fold and weight decay as SentEval does it, each as if it were alone.

    Each starts from the same weights (PyTorch's for a linear layer, drawn with `seed`) and has a stream of batches and
    an end of its own. What they share is a matrix product: those of one fold see the same batches, since SentEval
    seeds each anew.

    Args:
        rows: `with_ones(features)`, (n, dim + 1).
        targets: The distribution over classes that each row is to have, (n, classes).
        folds: The rows of each problem.
        decay: The weight decay, (folds, grid).
        training: The optimizer and when it stops.
        seed: Of the first weights.
        gold: None to minimise the cross entropy and to stop by accuracy. Else scores, (n,): then the squared error of
            the distribution is minimised, and the correlation (Pearson) of the expected class (from 1) with these
            scores stops it.
        title: Of the progress bar.

    Returns:
        The weights at the best check, (folds, grid, classes, dim + 1), and its score, (folds, grid).
    """
    alike: dict[int, list[int]] = defaultdict(list)  # the number of steps in a pass -> folds
    for number, fold in enumerate(folds):
        alike[-(-len(fold.train) // training.batch_size)].append(number)
    weights = rows.new_empty(*decay.shape, targets.shape[1], rows.shape[1])
    scores = np.empty(decay.shape)
    step_bytes = training.batch_size * rows.shape[1] * rows.element_size()
    size = len(folds) if rows.is_cuda else max(1, _CACHE_BYTES // step_bytes)
    with tqdm(total=len(folds), desc=title, unit=" folds", delay=2, disable=None, leave=False) as bar:
        for members in alike.values():
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                slice_ = _Slice(rows, targets, [folds[i] for i in chosen], decay[chosen], training, seed, gold)
                weights[chosen], scores[chosen] = slice_.run(bar)
    return weights, scores


class _Slice:
    """Folds whose passes have the same number of steps, trained together."""

    def __init__(
        self,
        rows: Tensor,
        targets: Tensor,
        folds: Sequence[Fold],
        decay: np.ndarray,
        training: Training,
        seed: int,
        gold: np.ndarray | None,
    ) -> None:
        self.rows, self.targets, self.training, self.gold = rows, targets, training, gold
        self.labels = targets.argmax(1)
        self.grid, self.classes = decay.shape[1], targets.shape[1]
        self.folds = list(folds)
        self.steps = 0
        start = first_weights(rows.shape[1] - 1, self.classes, seed).to(rows)
        # of folds that still train, one row a grid point and class: (folds, grid · classes, dim + 1)
        self.weights = start.repeat(len(folds), self.grid, 1)
        self.decay = torch.as_tensor(decay).to(rows).repeat_interleave(self.classes, dim=1).unsqueeze(2)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)

    def run(self, bar: tqdm) -> tuple[Tensor, np.ndarray]:
        best = self.weights.unflatten(1, (self.grid, self.classes)).clone()
        scores = np.full((len(self.folds), self.grid), -1.0)
        misses = np.zeros(scores.shape, dtype=int)
        running = np.ones(scores.shape, dtype=bool)
        alive = np.arange(len(self.folds))
        passes = 0
        while len(alive) and passes <= self.training.most_passes:
            for _ in range(self.training.passes):
                self._one_pass()
            passes += self.training.passes
            found = np.stack([self._score(number) for number in range(len(alive))])
            better = running[alive] & (found > scores[alive])
            worse = running[alive] & ~better
            where = np.nonzero(better)
            best[alive[where[0]], where[1]] = self.weights.unflatten(1, (self.grid, self.classes))[where]
            scores[alive] = np.where(better, found, scores[alive])
            running[alive] &= ~(worse & (misses[alive] >= self.training.tenacity))
            misses[alive] += worse
            going = running[alive].any(axis=1)
            if not going.all():
                bar.update(int((~going).sum()))
                alive = alive[going]
                self._keep(np.flatnonzero(going))
            bar.set_postfix(passes=passes, refresh=False)
        bar.update(len(alive))
        return best, scores

    def _keep(self, numbers: np.ndarray) -> None:
        self.folds = [self.folds[number] for number in numbers]
        kept = torch.as_tensor(numbers, device=self.rows.device)
        for name in ("weights", "decay", "mean", "square"):
            setattr(self, name, getattr(self, name)[kept])

    def _one_pass(self) -> None:
        count, size = len(self.folds), self.training.batch_size
        lengths = [len(fold.train) for fold in self.folds]
        batches = -(-lengths[0] // size)
        order = np.zeros((count, batches * size), dtype=np.int64)
        share = np.zeros((count, batches * size))
        for number, (fold, length) in enumerate(zip(self.folds, lengths, strict=True)):
            order[number, :length] = fold.train[fold.generator.permutation(length)]
            share[number, :length] = 1 / size
            share[number, (batches - 1) * size : length] = 1 / (length - (batches - 1) * size)
        # (batches, folds · size), so that a step's rows lie together
        places = torch.as_tensor(order.reshape(count, batches, size).swapaxes(0, 1).reshape(batches, -1))
        places = places.to(self.rows.device)
        shares = torch.as_tensor(share.reshape(count, batches, size, 1, 1).swapaxes(0, 1)).to(self.rows)
        batch = self.rows.new_empty(count * size, self.rows.shape[1])
        for place, weight in zip(places, shares, strict=True):
            torch.index_select(self.rows, 0, place, out=batch)
            self._step(batch.view(count, size, -1), self.targets[place].view(count, size, 1, -1), weight)

    def _step(self, batch: Tensor, targets: Tensor, share: Tensor) -> None:
        logits = torch.bmm(batch, self.weights.transpose(1, 2)).unflatten(2, (self.grid, self.classes))
        found = logits.softmax(-1)
        error = found - targets
        if self.gold is not None:
            error = error * (2 / self.classes)
            error = found * (error - (found * error).sum(-1, keepdim=True))
        gradient = torch.bmm((error * share).flatten(2).transpose(1, 2), batch)
        gradient.addcmul_(self.decay, self.weights)
        self.steps += 1
        if self.training.optimizer == "adam":
            self.mean.lerp_(gradient, 1 - 0.9)
            self.square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
            root = self.square.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
            self.weights.addcdiv_(self.mean, root, value=-1e-3 / (1 - 0.9**self.steps))
        else:
            self.square.mul_(0.99).addcmul_(gradient, gradient, value=1 - 0.99)
            self.weights.addcdiv_(gradient, self.square.sqrt().add_(1e-8), value=-1e-2)

    def _score(self, number: int) -> np.ndarray:
        dev = torch.as_tensor(self.folds[number].dev, device=self.rows.device)
        logits = (self.rows[dev] @ self.weights[number].T).unflatten(1, (self.grid, self.classes))
        if self.gold is None:
            right = logits.argmax(-1) == self.labels[dev].unsqueeze(1)
            return right.sum(0).cpu().numpy() / len(dev)
        from scipy.stats import pearsonr

        expected = expected_class(logits)
        return np.array([pearsonr(column, self.gold[self.folds[number].dev]).statistic for column in expected.T])


def first_weights(dim: int, classes: int, seed: int) -> Tensor:
    """What `torch.nn.Linear` starts from after `torch.manual_seed(seed)`, intercept last: (classes, dim + 1)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(dim, classes)
    return torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()


def expected_class(logits: Tensor) -> np.ndarray:
    """The mean class, counted from 1, by the softmax over the last dimension."""
    return (logits.softmax(-1) @ torch.arange(1, logits.shape[-1] + 1).to(logits)).cpu().numpy()
