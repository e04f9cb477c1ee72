"""SwAV's objective: the code of one view is predicted from another view."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Soft assignments of rows to prototypes that give all prototypes the same share.

    .. math:: Q = \mathrm{Diag}(u) \exp(S / \epsilon) \mathrm{Diag}(v)

    SwAV (Caron et al. 2020, arXiv 2006.09882), eq. 3 to 5. The computation is in the log domain, because the
    exponential overflows half precision at the default epsilon, and float32 too at smaller ones. A row sums to exactly
    1; the prototypes' shares become equal only in the limit of many iterations.

    Args:
        scores: ``(rows, prototypes)``, cosines, of all ranks and of a queue if there is one.
        epsilon: weight of the entropy; a smaller one gives sharper codes.
        iterations: number of iterations; 3 in the paper.

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
    r"""The cross-entropy between one view's softmax over prototypes and another view's codes, summed over the rows.

    .. math:: \ell(z_t, q_s) = -\sum_k q_s^{(k)} \log \frac{e^{z_t^\top c_k / \tau}}{\sum_{k'} e^{z_t^\top c_{k'}/\tau}}

    SwAV, eq. 2.

    Args:
        codes: ``(rows, prototypes)``, the codes of one view.
        scores: ``(rows, prototypes)``, the cosines of the other view, which predicts them.
        temperature: softmax temperature tau: lower makes the predictions sharper.

    Returns:
        Scalar, float32 or float64.

    Example:
        >>> swapped_prediction(torch.full((1, 4), 0.25), torch.zeros(1, 4))      # ln 4
        tensor(1.3863)
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return -(codes * F.log_softmax(scores / temperature, dim=1)).sum()
