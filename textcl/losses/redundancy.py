"""Redundancy reduction: the dimensions of an embedding become uncorrelated (Barlow Twins, VICReg, SimCSE++).

Statistics are computed over the given rows. On several ranks these must be the rows of all ranks, gathered with
gradient: each rank then computes the same loss, and the averaged gradient is that of one process.
"""

import torch
from torch import Tensor

from textcl.losses.info_nce import info_nce


def barlow_twins(first: Tensor, second: Tensor, off_diagonal_weight: float = 0.0051, epsilon: float = 1e-5) -> Tensor:
    r"""The distance of the cross-correlation matrix of two views from the identity matrix.

    .. math:: \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \neq i} C_{ij}^2

    Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230), eq. 1 and 2; each dimension is standardised over the rows by
    its population standard deviation, as the authors' batch norm does. The loss grows with the dimension.

    Args:
        first: ``(rows, dim)``, the first view's projections of all ranks, not normalised.
        second: ``(rows, dim)``, the second view's projections of the same rows.
        off_diagonal_weight: lambda; 0.0051 in the authors' code, 0.005 in the paper.
        epsilon: added to the variances.

    Returns:
        Scalar, float32 or float64.

    Example:
        >>> rows = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> barlow_twins(rows, -rows, epsilon=0.0)      # 4 a dimension
        tensor(8.)
    """
    first, second = _full_precision(first, second)
    with torch.autocast(first.device.type, enabled=False):
        first, second = _standardised(first, epsilon), _standardised(second, epsilon)
        correlation = first.T @ second / len(first)
        on_diagonal = (1 - correlation.diagonal()).square().sum()
        return on_diagonal + off_diagonal_weight * _off_diagonal(correlation).square().sum()


def vicreg(first: Tensor, second: Tensor, epsilon: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    r"""Invariance, variance and covariance of two views, each unweighted.

    .. math:: \frac1{nd} \sum_i \lVert z_i - z'_i \rVert^2, \qquad
        \frac12 \sum_{v} \frac1d \sum_j \max\left(0, 1 - \sqrt{\mathrm{Var}(z^v_j) + \epsilon}\right), \qquad
        \sum_v \frac1d \sum_{i \neq j} \mathrm{Cov}(z^v)_{ij}^2

    VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906), eq. 1 to 6. Variance and covariance are unbiased. The paper
    sums the variance term over both views and averages the invariance term over rows only. The authors' code halves the
    variance term and averages the invariance term over dimensions too. The weights 25, 25 and 1 belong to the code's
    scales, so we follow the code.

    Args:
        first: ``(rows, dim)``, the first view's projections of all ranks, not normalised.
        second: ``(rows, dim)``, the second view's projections of the same rows.
        epsilon: added to the variances.

    Returns:
        Invariance, variance and covariance, three scalars, float32 or float64.

    Example:
        >>> ones = torch.ones(4, 3)
        >>> [round(float(term), 2) for term in vicreg(ones, ones)]      # collapsed
        [0.0, 0.99, 0.0]
    """
    first, second = _full_precision(first, second)
    with torch.autocast(first.device.type, enabled=False):
        invariance = (first - second).square().mean()
        variance = covariance = first.new_zeros(())
        for view in (first, second):
            centred = view - view.mean(dim=0)
            matrix = centred.T @ centred / (len(view) - 1)
            deviation = (matrix.diagonal() + epsilon).sqrt()
            variance = variance + (1 - deviation).clamp(min=0).mean() / 2
            covariance = covariance + _off_diagonal(matrix).square().sum() / view.shape[1]
        return invariance, variance, covariance


def dimension_contrast(first: Tensor, second: Tensor, temperature: float = 5.0, epsilon: float = 1e-5) -> Tensor:
    r"""InfoNCE between dimensions: each dimension of one view must find itself among all dimensions of the other.

    .. math:: -\frac1d \sum_i \log \frac{e^{C_{ii}/\tau}}{\sum_j e^{C_{ij}/\tau}}

    SimCSE++ (Xu et al. 2023, arXiv 2305.13192), section 4, as in the authors' code. C is the cross-correlation matrix
    of Barlow Twins: each dimension is standardised over the rows by its population standard deviation.

    Args:
        first: ``(rows, dim)``, the first view's embeddings of all ranks, not normalised.
        second: ``(rows, dim)``, the second view's embeddings of the same rows.
        temperature: softmax temperature tau, which divides the correlations: lower makes the dimensions less
            correlated. In the authors' code 5 with negatives without dropout, and 10 without.
        epsilon: added to the variances.

    Returns:
        Scalar, float32 or float64.

    Example:
        >>> rows = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> dimension_contrast(rows, rows, temperature=1.0, epsilon=0.0)      # ln(1 + 1 / e)
        tensor(0.3133)
    """
    first, second = _full_precision(first, second)
    with torch.autocast(first.device.type, enabled=False):
        first, second = _standardised(first, epsilon), _standardised(second, epsilon)
        total = info_nce(first.T, second.T, temperature=temperature * len(first), similarity="dot")
        return total / first.shape[1]


def _full_precision(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(first.dtype, torch.float32)
    return first.to(dtype), second.to(dtype)


def _standardised(rows: Tensor, epsilon: float) -> Tensor:
    return (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + epsilon).sqrt()


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix - matrix.diagonal().diag()
