"""Many logistic regressions at once: one for each fold and each strength of regularisation, on rows of one matrix.

`train` is SentEval's training with early stopping (Conneau and Kiela 2018); `solve` computes the optimum. Both return
weights `(folds, grid, classes, dim + 1)`, whose last column is the intercept.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from textcl.progress import Progress

logger = logging.getLogger("textcl")

_CACHE_BYTES = 1 << 20  # on a CPU the rows of a slice's step must fit into the cache; on a GPU one slice has all folds
_SOLVED = 3e-4  # converged at this share of the first gradient's norm, in the metric of the preconditioner
_ITERATIONS = 500


@dataclass(frozen=True)
class Training:
    """The settings of SentEval's training.

    Attributes:
        optimizer: "adam" or "rmsprop", both with PyTorch's defaults.
        batch_size: The number of rows in a step.
        tenacity: The number of checks without a better score that are allowed in total; one more ends the training.
        passes: The number of passes over the data between two checks.
        most_passes: After more passes than this, training ends.
    """

    optimizer: str
    batch_size: int
    tenacity: int
    passes: int
    most_passes: int = 200


@dataclass(frozen=True)
class Fold:
    """Rows to train on, rows to score, and the generator that orders the batches.

    A fold can be used only once, because training advances its generator.
    """

    train: np.ndarray
    dev: np.ndarray
    generator: np.random.RandomState

    @classmethod
    def split(cls, train: np.ndarray, dev: np.ndarray, seed: int) -> Fold:
        """A fold from given rows."""
        return cls(train, dev, np.random.RandomState(seed))

    @classmethod
    def held_out(cls, rows: np.ndarray, share: float, seed: int) -> Fold:
        """A fold that scores a random share of the rows, not stratified, and trains on the rest."""
        generator = np.random.RandomState(seed)
        order = generator.permutation(len(rows))
        count = int(share * len(rows))
        return cls(rows[order[count:]], rows[order[:count]], generator)


def with_ones(features: np.ndarray | Tensor) -> Tensor:
    """The features with a last column of ones, `(n, dim + 1)`, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.as_tensor(features, device=device)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def predict(rows: Tensor, weights: Tensor) -> np.ndarray:
    """The predicted class of each row, `(..., n)`, from rows `(n, dim + 1)` and weights `(..., classes, dim + 1)`."""
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
    """Trains a softmax layer for each fold and weight decay, as SentEval does. The trainings do not affect each other.

    All start from the same weights (PyTorch's initial weights of a linear layer, drawn with `seed`). Each fold has its
    own batches, and each training stops on its own. The trainings of one fold see the same batches, as in SentEval,
    which resets the seed for each; so they are computed in one matrix product.

    Args:
        rows: `with_ones(features)`, (n, dim + 1).
        targets: The target distribution over classes of each row, (n, classes).
        folds: The rows of each problem.
        decay: The weight decay, (folds, grid).
        training: The optimizer and the stopping rule.
        seed: The seed of the initial weights.
        gold: None: the cross entropy is minimised, and accuracy decides when to stop. Else human scores, (n,): the
            squared error of the distribution is minimised, and the Pearson correlation of the expected class (from 1)
            with these scores decides when to stop.
        title: The title of the progress bar.

    Returns:
        The weights at the best check, (folds, grid, classes, dim + 1), and the score of that check, (folds, grid).
    """
    alike: dict[int, list[int]] = defaultdict(list)  # the number of steps in a pass -> folds
    for number, fold in enumerate(folds):
        alike[-(-len(fold.train) // training.batch_size)].append(number)
    weights = rows.new_empty(*decay.shape, targets.shape[1], rows.shape[1])
    scores = np.empty(decay.shape)
    step_bytes = training.batch_size * rows.shape[1] * rows.element_size()
    size = len(folds) if rows.is_cuda else max(1, _CACHE_BYTES // step_bytes)
    with Progress(title, len(folds), "folds") as bar:
        for members in alike.values():
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                slice_ = _Slice(rows, targets, [folds[i] for i in chosen], decay[chosen], training, seed, gold)
                weights[chosen], scores[chosen] = slice_.run(bar)
    return weights, scores


class _Slice:
    """Folds that are trained together; their passes have the same number of steps.

    Attributes:
        folds: The folds that still train.
        weights: Their weights, (folds, grid · classes, dim + 1); `decay`, `mean` and `square` belong to them.
        mean: The running mean of the gradient, for Adam.
        square: The running mean of the squared gradient.
        steps: The number of steps so far.
    """

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
        self.weights = first_weights(rows.shape[1] - 1, self.classes, seed).to(rows).repeat(len(folds), self.grid, 1)
        self.decay = torch.as_tensor(decay).to(rows).repeat_interleave(self.classes, dim=1).unsqueeze(2)
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)

    def run(self, bar: Progress) -> tuple[Tensor, np.ndarray]:
        """The weights at the best check, (folds, grid, classes, dim + 1), and its score, (folds, grid)."""
        best = self.weights.unflatten(1, (self.grid, self.classes)).clone()
        scores = np.full((len(self.folds), self.grid), -1.0)
        misses = np.zeros(scores.shape, dtype=int)
        running = np.ones(scores.shape, dtype=bool)
        alive = np.arange(len(self.folds))  # the folds that still train: those in which a weight decay is running
        passes = 0
        while len(alive) and passes <= self.training.most_passes:
            for _ in range(self.training.passes):
                self._one_pass()
            passes += self.training.passes
            found = np.full(scores.shape, -np.inf)
            found[alive] = [self._score(number) for number in range(len(alive))]
            better = running & (found > scores)
            scores[better] = found[better]
            best[np.nonzero(better)] = self.weights.unflatten(1, (self.grid, self.classes))[np.nonzero(better[alive])]
            misses += running & ~better
            running &= misses <= self.training.tenacity
            going = running[alive].any(axis=1)
            if not going.all():
                bar.update(int((~going).sum()))
                alive = alive[going]
                self._keep(np.flatnonzero(going))
        bar.update(len(alive))
        return best, scores

    def _keep(self, numbers: np.ndarray) -> None:
        """Goes on with some of the folds."""
        self.folds = [self.folds[number] for number in numbers]
        kept = torch.as_tensor(numbers, device=self.rows.device)
        for name in ("weights", "decay", "mean", "square"):
            setattr(self, name, getattr(self, name)[kept])

    def _one_pass(self) -> None:
        """One step for each batch of the rows that train, in a new random order."""
        count, size = len(self.folds), self.training.batch_size
        batches = -(-len(self.folds[0].train) // size)
        order = np.zeros((count, batches * size), dtype=np.int64)
        share = np.zeros((count, batches * size))  # of each row in the mean of its batch; 0 behind the last row
        for number, fold in enumerate(self.folds):
            length, last = len(fold.train), (batches - 1) * size
            order[number, :length] = fold.train[fold.generator.permutation(length)]
            share[number, :last] = 1 / size
            share[number, last:length] = 1 / (length - last)
        # (batches, folds · size): the indices of a step's rows are contiguous
        places = torch.as_tensor(order.reshape(count, batches, size).swapaxes(0, 1).reshape(batches, -1))
        places = places.to(self.rows.device)
        shares = torch.as_tensor(share.reshape(count, batches, size, 1, 1).swapaxes(0, 1)).to(self.rows)
        batch = self.rows.new_empty(count * size, self.rows.shape[1])
        for place, weight in zip(places, shares, strict=True):
            torch.index_select(self.rows, 0, place, out=batch)
            self._step(batch.view(count, size, -1), self.targets[place].view(count, size, 1, -1), weight)

    def _step(self, batch: Tensor, targets: Tensor, share: Tensor) -> None:
        """A step of all folds and weight decays.

        Args:
            batch: The rows of each fold, (folds, size, dim + 1).
            targets: Their target distributions, (folds, size, 1, classes).
            share: Their shares in the mean, (folds, size, 1, 1).
        """
        logits = torch.bmm(batch, self.weights.transpose(1, 2)).unflatten(2, (self.grid, self.classes))
        found = logits.softmax(-1)
        error = found - targets  # the gradient of the cross entropy by the logits
        if self.gold is not None:  # that of the squared error
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
        """The score of each weight decay on the rows of a fold that are held out, (grid,)."""
        dev = torch.as_tensor(self.folds[number].dev, device=self.rows.device)
        logits = (self.rows[dev] @ self.weights[number].T).unflatten(1, (self.grid, self.classes))
        if self.gold is None:
            right = logits.argmax(-1) == self.labels[dev].unsqueeze(1)
            return right.sum(0).cpu().numpy() / len(dev)
        from scipy.stats import pearsonr

        expected = expected_class(logits)
        return np.array([pearsonr(column, self.gold[self.folds[number].dev]).statistic for column in expected.T])


def first_weights(dim: int, classes: int, seed: int) -> Tensor:
    """The initial weights of `torch.nn.Linear` after `torch.manual_seed(seed)`, (classes, dim + 1), intercept last."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not that of a GPU, which a training may be drawing from
        layer = torch.nn.Linear(dim, classes)
    return torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()


def expected_class(logits: Tensor) -> np.ndarray:
    """The expected class, counted from 1, under the softmax over the last dimension of `logits`."""
    return (logits.softmax(-1) @ torch.arange(1, logits.shape[-1] + 1).to(logits)).cpu().numpy()


def solve(
    rows: Tensor,
    labels: np.ndarray,
    classes: int,
    folds: Sequence[Fold],
    strength: np.ndarray,
    *,
    columns: int = 256,
    title: str = "",
) -> tuple[Tensor, np.ndarray]:
    """Finds the optimum of L2-regularised logistic regression for each fold and strength. Nothing is random.

    As in scikit-learn, the sum of the losses plus |w|² / (2 C) is minimised, and the intercept is not regularised. Two
    classes have one weight vector, more classes have one each. The solver is conjugate gradients (Polak and Ribière
    1969) in the basis of the principal components. Each component is scaled as for a loss of constant curvature
    (preconditioning), so that few steps are enough. One matrix product with all rows serves all problems; rows outside
    a fold have weight 0.

    Args:
        rows: `with_ones(features)`, (n, dim + 1).
        labels: The classes, (n,), from 0.
        classes: The number of classes.
        folds: The rows of each problem.
        strength: C, the inverse strength of regularisation, (folds, grid).
        columns: How many weight vectors are computed together.
        title: The title of the progress bar.

    Returns:
        The weights, (folds, grid, classes, dim + 1), and the accuracy on the dev rows, (folds, grid).
    """
    n, width = rows.shape[0], rows.shape[1]
    centre = rows[:, :-1].double().mean(0)
    centred = rows[:, :-1].double() - centre
    spread, axes = torch.linalg.eigh(centred.T @ centred / n)
    turned = torch.cat([(centred @ axes).to(rows), rows[:, -1:]], dim=1)
    spread = torch.cat([spread.clamp_min(0), spread.new_ones(1)]).to(rows)

    outputs = 1 if classes == 2 else classes
    target = torch.as_tensor(labels, device=rows.device)
    wanted = target.to(rows).unsqueeze(1) if classes == 2 else torch.nn.functional.one_hot(target, classes).to(rows)
    grid = strength.shape[1]
    inside = rows.new_zeros(len(folds), n)
    for number, fold in enumerate(folds):
        inside[number, torch.as_tensor(fold.train, device=rows.device)] = 1
    weights = rows.new_empty(len(folds), grid, outputs, width)
    size = max(1, columns // (grid * outputs))
    with Progress(title, len(folds), "folds") as bar:
        for start in range(0, len(folds), size):
            chosen = slice(start, start + size)
            mask = inside[chosen].T.repeat_interleave(grid, dim=1)  # (n, problems)
            penalty = 1 / torch.as_tensor(strength[chosen]).to(rows).flatten()
            found = _conjugate_gradients(turned, wanted, mask, penalty, spread)
            weights[chosen] = found.permute(2, 1, 0).unflatten(0, (-1, grid))
            bar.update(len(folds[chosen]))
    back = weights[..., :-1].double() @ axes.T
    intercept = weights[..., -1:].double() - (back @ centre).unsqueeze(-1)
    weights = torch.cat([back, intercept], dim=-1).to(rows)
    if classes == 2:
        weights = torch.cat([-weights / 2, weights / 2], dim=2)
    accuracy = np.array(
        [
            (predict(rows[torch.as_tensor(fold.dev, device=rows.device)], each) == labels[fold.dev]).mean(axis=-1)
            for fold, each in zip(folds, weights, strict=True)
        ]
    )
    return weights, accuracy


def _conjugate_gradients(rows: Tensor, wanted: Tensor, mask: Tensor, penalty: Tensor, spread: Tensor) -> Tensor:
    """The optimal weights, (dim + 1, outputs, problems), found by starting from zero.

    Args:
        rows: (n, dim + 1); the last column is one, the others have mean 0 and are uncorrelated.
        wanted: The target of each row, (n, outputs).
        mask: 1 for the rows of a problem, else 0, (n, problems).
        penalty: 1 / C of each problem, (problems,).
        spread: The mean square of each column of `rows`, (dim + 1,).
    """
    (n, width), outputs, problems = rows.shape, wanted.shape[1], mask.shape[1]
    sizes = mask.sum(0)
    share = wanted.T @ mask / sizes  # the share of each class, (outputs, problems)
    mask, wanted = mask.unsqueeze(1), wanted.unsqueeze(2)
    pull = penalty.repeat(width, 1, 1)
    pull[-1] = 0
    scale = 1 / (spread.view(-1, 1, 1) * (share * (1 - share) / 2 * sizes) + pull)

    def errors(logits: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities, and by how much those of a problem's own rows are wrong."""
        found = logits.sigmoid() if outputs == 1 else logits.softmax(1)
        return found, (found - wanted).mul_(mask)

    def inner(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum((0, 1))

    weights = rows.new_zeros(width, outputs, problems)
    logits = rows.new_zeros(n, outputs, problems)
    direction, scaled, length = torch.zeros_like(weights), torch.zeros_like(weights), rows.new_ones(problems)
    first = None
    for _ in range(_ITERATIONS):
        found, error = errors(logits)
        gradient = (rows.T @ error.flatten(1)).view_as(weights) + pull * weights
        before, scaled = scaled, scale * gradient
        now = inner(gradient, scaled)
        first = now if first is None else first
        if bool((now <= _SOLVED**2 * first).all()):
            return weights
        keep = ((now - inner(gradient, before)) / length).clamp_min(0)
        direction = keep * direction - scaled
        length = now
        slope = (rows @ direction.flatten(1)).view_as(logits)
        stiffness = inner(pull * direction, direction)
        for again in (True, False):  # two steps of Newton's method along the line
            rise = inner(error, slope) + inner(pull * weights, direction)
            weighted = found * slope
            bend = inner(weighted * mask, slope) - (weighted.sum(1).square() * mask.squeeze(1)).sum(0)
            step = -rise / (bend + stiffness).clamp_min(1e-30)
            weights = weights + step * direction
            logits = logits + step * slope
            if again:
                found, error = errors(logits)
    logger.warning(
        "A logistic regression has not converged after %d iterations; its score is close to the optimum's.", _ITERATIONS
    )
    return weights
