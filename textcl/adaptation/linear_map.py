"""The cheapest way to adapt an encoder: a linear map behind its frozen vectors, held close to the identity."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from textcl.encoder import Encoder
from textcl.encoder.layers import Dense, UnitLength
from textcl.losses.info_nce import info_nce

TEMPERATURE = 0.05
STEPS = 300
BATCH = 256
LEARNING_RATE = 1e-3

Vectors = TypeVar("Vectors", np.ndarray, Tensor)


def fit_linear_map(
    queries: np.ndarray, documents: np.ndarray, pull: float, *, groups: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    r"""The matrix W of a map x + W x that brings queries near to their documents.

    Both sides are mapped and scaled to length 1. W starts at 0 and minimises

    .. math:: \tfrac{1}{2}\left(\ell(q \to d) + \ell(d \to q)\right) + \lambda \lVert W \rVert_F^2

    where :math:`\ell` is the mean InfoNCE (van den Oord et al. 2018, eq. 4) over a batch with temperature 0.05; 300
    steps of Adam (Kingma and Ba 2015) with learning rate 1e-3 and 256 pairs each.

    Args:
        queries: The vectors of the queries, (pairs, dim).
        documents: The vectors of their documents, (pairs, dim).
        pull: λ, the pull to the start: the larger, the closer the map stays to the identity.
        groups: A number for each pair, (pairs,); pairs with the same number are not each other's negatives.
        seed: The seed of the batches.

    Returns:
        W, (dim, dim) float32.
    """
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)) for rows in (queries, documents))
    ids = torch.arange(len(left)) if groups is None else torch.from_numpy(np.asarray(groups, dtype=np.int64))
    weight = torch.zeros(left.shape[1], left.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=LEARNING_RATE)
    size = min(BATCH, len(left))
    order = torch.randperm(len(left), generator=generator)
    for _ in range(STEPS):
        if len(order) < size:
            order = torch.randperm(len(left), generator=generator)
        rows, order = order[:size], order[size:]
        one, two = mapped(left[rows], weight), mapped(right[rows], weight)
        own = ids[rows]
        there = info_nce(one, two, temperature=TEMPERATURE, query_ids=own, key_ids=own)
        back = info_nce(two, one, temperature=TEMPERATURE, query_ids=own, key_ids=own)
        loss = (there + back) / (2 * size) + pull * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.asarray(weight.detach())


def mapped(vectors: Vectors, weight: Vectors) -> Vectors:
    """x + W x for each vector x, (rows, dim)."""
    return vectors + vectors @ weight.T


def with_linear_map(encoder: Encoder, weight: np.ndarray) -> Encoder:
    """A copy of an encoder with the map behind its vectors; it shares all other weights.

    The map acts on the vectors that `Encoder.encode` returns: if they have length 1, it stands behind this scaling, and
    is followed by another. It is exported as a dense layer, which sentence-transformers loads.

    Args:
        encoder: The encoder.
        weight: W of the map, (dim, dim).
    """
    dimension = len(weight)
    dense = Dense(dimension, dimension, bias=False, activation="Identity").requires_grad_(False)
    dense.linear.weight.copy_(torch.eye(dimension) + torch.from_numpy(weight))
    adapted = encoder.with_()
    scaled = [UnitLength()] if encoder.normalize else []
    adapted.layers = nn.ModuleList([*encoder.layers, *scaled, dense.to(encoder.device)])
    return adapted
