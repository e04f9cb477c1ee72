"""The geometry of a set of embeddings: alignment, uniformity, effective rank, mean cosines.

Pure functions of ``(rows, dim)`` tensors. They normalise rows to length 1, compute in float32 or wider, also under
autocast, and never hold a ``(rows, rows)`` matrix.
"""

import math

import torch
from torch import Tensor


def alignment(first: Tensor, second: Tensor, alpha: float = 2.0) -> Tensor:
    r"""The mean distance of positive pairs, :math:`E \lVert x - y \rVert_2^\alpha`; 0 is best.

    Wang & Isola 2020 (arXiv 2005.10242), section 4.1.

    Args:
        first: ``(rows, dim)``.
        second: ``(rows, dim)``, row i is the positive of row i of ``first``.
        alpha: the power of the distance.

    Returns:
        Scalar.

    Example:
        >>> alignment(torch.eye(3), -torch.eye(3))
        tensor(4.)
    """
    return (_unit(first) - _unit(second)).norm(dim=1).pow(alpha).mean()


def uniformity(embeddings: Tensor, t: float = 2.0, chunk_size: int = 1024) -> Tensor:
    r"""How evenly embeddings fill the sphere, :math:`\log E_{i<j} e^{-t \lVert x_i - x_j \rVert_2^2}`; lower is better.

    Wang & Isola 2020 (arXiv 2005.10242), section 4.1. It is between 0 (all equal) and about ``-2 t`` (all orthogonal).

    Args:
        embeddings: ``(rows, dim)``, at least two.
        t: the sharpness of the kernel.
        chunk_size: number of rows and columns whose scores are in memory at a time.

    Returns:
        Scalar.

    Raises:
        ValueError: if there are fewer than two rows, so that there is no pair.

    Example:
        >>> uniformity(torch.eye(3))
        tensor(-4.)
    """
    rows = _unit(embeddings)
    count = _at_least_two(rows)
    parts = []
    for start in range(0, count, chunk_size):
        block = rows[start : start + chunk_size]
        for other in range(start, count, chunk_size):
            # on the sphere -t |x - y|^2 = 2t (x.y - 1)
            with torch.autocast(rows.device.type, enabled=False):
                exponent = 2 * t * (block @ rows[other : other + chunk_size].T - 1)
            if other == start:
                here = torch.ones_like(exponent, dtype=torch.bool).tril()  # each pair once, and no row with itself
                exponent = exponent.masked_fill(here, -torch.inf)
            parts.append(exponent.flatten().logsumexp(0))
    return torch.stack(parts).logsumexp(0) - math.log(count * (count - 1) / 2)


def effective_rank(embeddings: Tensor) -> Tensor:
    r"""How many directions the embeddings use, :math:`\exp H(\sigma / \sum \sigma)` of their singular values.

    Roy & Vetterli 2007 (The effective rank: a measure of effective dimensionality), definition 1, of the matrix whose
    rows are the normalised embeddings, not centred. It is from 1 (all on one line) to ``min(rows, dim)``.

    Args:
        embeddings: ``(rows, dim)``.

    Returns:
        Scalar.

    Example:
        >>> effective_rank(torch.eye(3))
        tensor(3.)
    """
    values = torch.linalg.svdvals(_unit(embeddings))
    return torch.special.entr(values / values.sum()).sum().exp()


def mean_cosine(embeddings: Tensor) -> Tensor:
    """The mean cosine of two different rows: 0 is isotropic, 1 is collapsed.

    It is computed from the sum of the rows, so time and memory are linear in the number of rows.

    Args:
        embeddings: ``(rows, dim)``, at least two.

    Returns:
        Scalar.

    Raises:
        ValueError: if there are fewer than two rows, so that there is no pair.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
        tensor(0.3333)
    """
    return negative_cosine(embeddings, embeddings)


def positive_cosine(first: Tensor, second: Tensor) -> Tensor:
    """The mean cosine of row i of ``first`` ``(rows, dim)`` and row i of ``second`` ``(rows, dim)``; a scalar."""
    return (_unit(first) * _unit(second)).sum(1).mean()


def negative_cosine(first: Tensor, second: Tensor) -> Tensor:
    """The mean cosine of row i of ``first`` and row j of ``second`` over all i ≠ j, in linear time.

    Args:
        first: ``(rows, dim)``, at least two.
        second: ``(rows, dim)``.

    Returns:
        Scalar.

    Raises:
        ValueError: if there are fewer than two rows, so that there is no such pair.
    """
    first, second = _unit(first), _unit(second)
    count = _at_least_two(first)
    with torch.autocast(first.device.type, enabled=False):
        everything = first.sum(0) @ second.sum(0)
    return (everything - (first * second).sum()) / (count * (count - 1))


def _unit(embeddings: Tensor) -> Tensor:
    rows = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / lengths.masked_fill(lengths == 0, 1)  # a row of zeros has a finite gradient


def _at_least_two(rows: Tensor) -> int:
    if rows.shape[0] < 2:
        raise ValueError(f"Pairs of different rows are needed, but there are {rows.shape[0]} rows: give two or more.")
    return rows.shape[0]
