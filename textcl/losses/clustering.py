"""Deep embedded clustering (SCCL, Zhang et al. 2021): soft assignments of a batch, and sharpened ones as targets."""

import torch
from torch import Tensor


def log_assignments(embeddings: Tensor, centres: Tensor, alpha: float = 1.0) -> Tensor:
    r"""The logarithm of the probability that each row belongs to each centre, under a Student-t kernel.

    .. math:: q_{ik} = \frac{(1 + \lVert e_i - \mu_k \rVert^2 / \alpha)^{-(\alpha + 1)/2}}
        {\sum_{k'} (1 + \lVert e_i - \mu_{k'} \rVert^2 / \alpha)^{-(\alpha + 1)/2}}

    SCCL (Zhang et al. 2021, arXiv 2103.12953), eq. 3. Half precision is computed in float32.

    Args:
        embeddings: ``(rows, dim)``.
        centres: ``(clusters, dim)``.
        alpha: degrees of freedom.

    Returns:
        ``(rows, clusters)``; the exponentials of a row sum to 1.

    Example:
        >>> log_assignments(torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]])).exp()
        tensor([[0.6667, 0.3333]])
    """
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        rows, middles = embeddings.to(dtype), centres.to(dtype)
        # Matrix products give the distances, because differences would need (rows, clusters, dim) memory. An origin
        # among the centres does not change the distances, and makes small ones precise.
        origin = middles.detach().mean(dim=0)
        rows, middles = rows - origin, middles - origin
        squared = (rows**2).sum(dim=1, keepdim=True) + (middles**2).sum(dim=1) - 2 * rows @ middles.T
        squared = squared.clamp(min=0)
        kernel = -(alpha + 1) / 2 * torch.log1p(squared / alpha)
        return kernel - kernel.logsumexp(dim=1, keepdim=True)


def target_distribution(assignments: Tensor, mass: Tensor) -> Tensor:
    r"""Sharpens assignments and gives large clusters less weight; the result carries no gradient.

    .. math:: p_{ik} = \frac{q_{ik}^2 / f_k}{\sum_{k'} q_{ik'}^2 / f_{k'}}, \qquad f_k = \sum_i q_{ik}

    SCCL, eq. 4.

    Args:
        assignments: ``(rows, clusters)``.
        mass: ``(clusters,)``, the sum f of assignments over the mini-batch of all ranks (DEC sums over the corpus).

    Returns:
        ``(rows, clusters)``; rows sum to 1.
    """
    sharpened = assignments.detach() ** 2 / mass.detach().clamp(min=torch.finfo(assignments.dtype).tiny)
    return sharpened / sharpened.sum(dim=1, keepdim=True)


def clustering_divergence(log_assignments: Tensor, target: Tensor) -> Tensor:
    r"""KL(p ‖ q), summed over the rows (SCCL, eq. 5).

    Args:
        log_assignments: ``(rows, clusters)``, log q.
        target: ``(rows, clusters)``, p.

    Returns:
        Scalar, the sum over the rows.
    """
    return (torch.xlogy(target, target) - target * log_assignments).sum()
