"""Ranking distillation: a student learns to rank the texts of a batch as its teacher does (RankCSE).

Half precision is computed in float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def list_mle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The negative log-likelihood of the teacher's order under the student's scores, summed over the rows.

    .. math:: -\sum_k \log \frac{e^{s_{\pi(k)}}}{\sum_{l \ge k} e^{s_{\pi(l)}}}

    where pi lists the columns by decreasing teacher score. RankCSE (Liu et al. 2023, arXiv 2305.16726), section 3.3,
    after Xia et al. 2008.

    Args:
        student: ``(rows, columns)``, the student's scores divided by their temperature.
        teacher: ``(rows, columns)``, the teacher's scores; only their order counts.

    Returns:
        Scalar, the sum over the rows.

    Example:
        >>> scores = torch.tensor([[1.0, 0.0]])
        >>> list_mle(scores, scores)      # ln(1 + 1 / e)
        tensor(0.3133)
    """
    ordered = _wide(student).gather(1, teacher.argsort(dim=1, descending=True, stable=True))
    from_here_on = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (from_here_on - ordered).sum()


def list_net(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The cross-entropy between the teacher's and the student's softmax over the columns, summed over the rows.

    .. math:: -\sum_j \mathrm{softmax}(t)_j \log \mathrm{softmax}(s)_j

    RankCSE, section 3.3, after Cao et al. 2007.

    Args:
        student: ``(rows, columns)``, the student's scores divided by their temperature.
        teacher: ``(rows, columns)``, the teacher's scores divided by their temperature.

    Returns:
        Scalar, the sum over the rows.

    Example:
        >>> list_net(torch.zeros(1, 4), torch.zeros(1, 4))      # ln 4
        tensor(1.3863)
    """
    return -(F.softmax(_wide(teacher), dim=1) * F.log_softmax(_wide(student), dim=1)).sum()


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    r"""The Jensen-Shannon divergence between the softmax of two sets of scores, summed over the rows.

    .. math:: \tfrac12 \mathrm{KL}(p \Vert m) + \tfrac12 \mathrm{KL}(q \Vert m), \qquad m = \tfrac12 (p + q)

    RankCSE, section 3.2: both views should give the other texts the same scores. The divergence of a row is from 0
    (equal distributions) to ln 2.

    Args:
        first: ``(rows, columns)``, the first view's scores divided by their temperature.
        second: ``(rows, columns)``, the second view's scores divided by their temperature.

    Returns:
        Scalar, the sum over the rows.

    Example:
        >>> jensen_shannon(torch.zeros(1, 4), torch.zeros(1, 4))
        tensor(0.)
    """
    p, q = F.log_softmax(_wide(first), dim=1), F.log_softmax(_wide(second), dim=1)
    mixture = torch.logaddexp(p, q) - math.log(2)
    return (p.exp() * (p - mixture) + q.exp() * (q - mixture)).sum() / 2


def _wide(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
