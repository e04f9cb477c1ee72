"""The geometry of the last batch, which the log shows, and warnings of a collapse."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from textcl.encoder.batching import on_host
from textcl.metrics import geometry

logger = logging.getLogger("textcl")

LEAST_RANK_SHARE = 0.05
LARGEST_MEAN_COSINE = 0.99
LEAST_DEVIATION = 0.05


def diagnostics(outputs: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """The geometry of a batch's embeddings and projections; warns of a collapse.

    Args:
        outputs: The method's outputs without loss and keys, and the batch's `view` and `group`.
        step: The current step, for the warnings.
    """
    seen = dict(outputs)
    group, embeddings = seen.pop("group"), seen.pop("embeddings").float()
    view = on_host(seen.pop("view")).to(group.device)
    first, second = _positives(embeddings, view, group)
    watched = {"embeddings": first}
    if "projections" in seen:
        watched["projections"] = seen.pop("projections").float()
    parts = {name: float(value) for name, value in seen.items()}
    if len(first) < 2:
        return parts
    ranks = {name: float(geometry.effective_rank(rows)) for name, rows in watched.items()}
    cosines = {name: float(geometry.mean_cosine(rows)) for name, rows in watched.items()}
    for name, rows in watched.items():
        rank, cosine = ranks[name], cosines[name]
        if rank < LEAST_RANK_SHARE * min(rows.shape) or cosine > LARGEST_MEAN_COSINE:
            logger.warning(
                "The %s are collapsing at step %d: effective rank %.1f of %d, mean cosine %.3f.",
                name,
                step,
                rank,
                min(rows.shape),
                cosine,
            )
    if parts.get("deviation", 1.0) < LEAST_DEVIATION:
        logger.warning(
            "The projections are collapsing at step %d: their standard deviation is %.3f of the loss's target.",
            step,
            parts["deviation"],
        )
    if "projections" in watched:
        parts["projection_rank"] = ranks["projections"]
        parts["projection_cosine"] = cosines["projections"]
    return {
        **parts,
        "alignment": float(geometry.alignment(first, second)),
        "uniformity": float(geometry.uniformity(first)),
        "positive_cosine": float(geometry.positive_cosine(first, second)),
        "negative_cosine": float(geometry.negative_cosine(first, second)),
        "effective_rank": ranks["embeddings"],
    }


def _positives(embeddings: Tensor, view: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of view 0 that have a positive in view 1, and these positives in the same order; each (pairs, dim)."""
    first, second = (view == 0).nonzero()[:, 0], (view == 1).nonzero()[:, 0]
    first = first[torch.isin(group[first], group[second])]
    second = second[torch.isin(group[second], group[first])]
    return embeddings[first[group[first].argsort()]], embeddings[second[group[second].argsort()]]
