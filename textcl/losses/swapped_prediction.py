"""SwAV's objective: the code of one view is predicted from another."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Soft assignments of rows to prototypes under which all prototypes get the same share.

    .. math:: Q = \mathrm{Diag}(u) \exp(S / \epsilon) \mathrm{Diag}(v)

    SwAV (Caron et al. 2020, arXiv 2006.09882), eq. 3 to 5, in the log domain: at the default epsilon the exponential
    overflows half types, and at smaller ones float32 too. A row sums to 1 exactly; the prototypes' shares are equal in
    the limit of many iterations only.

    Args:
        scores: ``(rows, prototypes)``, cosines, of all ranks and of a queue if there is one.
        epsilon: the entropy's weight; small ones give sharp codes.
        iterations: 3 in the paper.

    Returns:
        ``(rows, prototypes)``, float32 or float64, without gradient.

    Example:
        >>> sinkhorn(torch.eye(3), epsilon=0.01).round()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    log_codes = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    rows, prototypes = scores.shape
    for _ in range(iterations):
        log_codes = log_codes - log_codes.logsumexp(dim=0, keepdim=True) + math.log(rows / prototypes)
        log_codes = log_codes - log_codes.logsumexp(dim=1, keepdim=True)
    return log_codes.exp()


def swapped_prediction(codes: Tensor, scores: Tensor, temperature: float = 0.1) -> Tensor:
    r"""The cross-entropy of one view's softmax over prototypes with another view's codes, summed over the rows.

    .. math:: \ell(z_t, q_s) = -\sum_k q_s^{(k)} \log \frac{e^{z_t^\top c_k / \tau}}{\sum_{k'} e^{z_t^\top c_{k'}/\tau}}

    SwAV, eq. 2.

    Args:
        codes: ``(rows, prototypes)``, of the view that assigns.
        scores: ``(rows, prototypes)``, cosines of the view that predicts.
        temperature: tau.

    Returns:
        Scalar, float32 or float64.

    Example:
        >>> swapped_prediction(torch.full((1, 4), 0.25), torch.zeros(1, 4))      # ln 4
        tensor(1.3863)
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return -(codes * F.log_softmax(scores / temperature, dim=1)).sum()
