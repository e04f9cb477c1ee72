"""One view predicts the other: the objective of BYOL and SimSiam."""

import torch
from torch import Tensor

from textcl.losses.info_nce import unit_rows


def cosine_regression(predictions: Tensor, targets: Tensor) -> Tensor:
    r"""The squared distance between normalised predictions and targets, summed over the rows.

    .. math:: \lVert \bar p_i - \bar z_i \rVert^2 = 2 - 2 \cos(p_i, z_i)

    BYOL (Grill et al. 2020, arXiv 2006.07733), eq. 2. SimSiam's loss (Chen and He 2021, arXiv 2011.10566, eq. 1) is
    minus the cosine, which is half of this value minus 1.

    Args:
        predictions: ``(rows, dim)``.
        targets: ``(rows, dim)``; detach them to stop their gradient.

    Returns:
        Scalar, from 0 to 4 per row, float32 or float64.

    Example:
        >>> cosine_regression(torch.eye(3), -torch.eye(3))
        tensor(12.)
    """
    dtype = torch.promote_types(torch.promote_types(predictions.dtype, targets.dtype), torch.float32)
    with torch.autocast(predictions.device.type, enabled=False):
        return (2 - 2 * (unit_rows(predictions.to(dtype)) * unit_rows(targets.to(dtype))).sum(dim=1)).sum()
