"""Softmax classification, for the supervised term of ConSERT."""

import torch
import torch.nn.functional as F
from torch import Tensor


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, summed over the rows; half precision is computed in float32.

    Args:
        logits: ``(batch, classes)``.
        labels: ``(batch,)``, class indices.

    Returns:
        Scalar, the sum over the rows.
    """
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="sum")
