"""Objectives: tensors in, scalar out."""

from textcl.losses.geometry import (
    alignment,
    effective_rank,
    mean_cosine,
    negative_cosine,
    positive_cosine,
    uniformity,
)
from textcl.losses.info_nce import info_nce, nt_xent

__all__ = [
    "alignment",
    "effective_rank",
    "info_nce",
    "mean_cosine",
    "negative_cosine",
    "nt_xent",
    "positive_cosine",
    "uniformity",
]
