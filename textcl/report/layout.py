"""The places of texts on a map: two numbers for each vector, and how a new vector gets a place among old ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textcl.errors import InputError
from textcl.progress import Progress
from textcl.vectors.compress import unit
from textcl.vectors.neighbours import nearest_rows

Kind = Literal["umap", "pca"]
KINDS: tuple[Kind, ...] = ("umap", "pca")
LEAST = 50  # rows that UMAP needs; fewer are placed by PCA
NEIGHBOURS = 15  # of each row, for UMAP
ANCHORS = 5  # nearest old rows that give a new row its place


@dataclass(frozen=True)
class Layout:
    """Where the rows are, and what places further rows.

    Attributes:
        kind: "umap" or "pca".
        positions: (rows, 2) float32.
        projection: For "pca" the mean of the unit vectors and the two axes, (3, dim) float32; else None.
        kept: For "pca" the share of the variance of the unit vectors that the two axes keep; else None.
    """

    kind: Kind
    positions: np.ndarray
    projection: np.ndarray | None
    kept: float | None


def choose_kind(wanted: Kind | None, rows: int) -> tuple[Kind, str]:
    """The kind of layout, and the reason as the end of a sentence.

    Args:
        wanted: The kind that was asked for; None: UMAP if it is installed.
        rows: The number of rows.

    Raises:
        InputError: UMAP was asked for and is not installed.
    """
    if wanted == "pca":
        return "pca", "as asked"
    if rows < LEAST:
        return "pca", f"because UMAP needs at least {LEAST} texts"
    try:
        import umap  # noqa: F401
    except ImportError as error:
        if wanted == "umap":
            raise InputError(
                f"UMAP cannot be loaded ({error}): pip install umap-learn. Or leave --layout out, for PCA."
            ) from error
        return "pca", "because UMAP, which separates groups better, is not installed: pip install umap-learn"
    return "umap", "as asked" if wanted else "because it is installed"


def lay_out(vectors: np.ndarray, kind: Kind, near: tuple[np.ndarray, np.ndarray], seed: int = 0) -> Layout:
    """Places the rows of a map.

    Args:
        vectors: The vectors, (rows, dim).
        kind: "pca": the first two principal components of the unit vectors, which keep large distances. "umap": UMAP
            (McInnes et al. 2018) on the cosine distances to the nearest rows, from PCA on, which keeps neighbours.
        near: For "umap" what `nearest_rows` returned for at least `NEIGHBOURS` − 1 rows.
        seed: The seed of UMAP.

    Example:
        >>> lay_out(np.eye(3)[[0, 1, 1]], "pca", (np.empty((3, 0)), np.empty((3, 0)))).kept
        1.0
    """
    projection, kept = _principal(unit(vectors))
    positions = project(vectors, projection)
    if kind == "pca":
        return Layout("pca", positions, projection, kept)
    import torch
    import umap

    own = np.arange(len(vectors), dtype=np.int32)[:, None]
    rows = np.hstack([own, near[0][:, : NEIGHBOURS - 1]])
    distances = np.hstack([np.zeros_like(own, np.float32), (1 - near[1][:, : NEIGHBOURS - 1]).clip(0)])
    start = 10 * positions / np.abs(positions).max().clip(1e-12)  # the size of UMAP's own first positions
    # the noise of UMAP's own first positions: without it equal vectors get one place, and if all are equal, NaN
    start += np.random.default_rng(seed).normal(scale=1e-4, size=start.shape).astype(np.float32)
    threads = torch.get_num_threads()
    with warnings.catch_warnings(), Progress("Placing the texts by UMAP", at_once=True):
        warnings.simplefilter("ignore")  # that a seed means one thread, and that new rows cannot be transformed
        found = umap.UMAP(
            n_neighbors=NEIGHBOURS, metric="cosine", precomputed_knn=(rows, distances, None), init=start,
            random_state=seed,
        ).fit_transform(unit(vectors))  # fmt: skip
    torch.set_num_threads(threads)  # UMAP sets the number of threads of the whole process to that of the cores
    return Layout("umap", np.ascontiguousarray(found, np.float32), None, None)


def project(vectors: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """The places of vectors (rows, dim) by a projection of "pca", (rows, 2) float32."""
    mean, axes = projection[0], projection[1:]
    return np.ascontiguousarray((unit(vectors) - mean) @ axes.T, np.float32)


def among(new: np.ndarray, old: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The places of new vectors among old ones, for a layout without a projection, (new, 2) float32.

    Each is the mean of the places of its nearest old rows, weighted by 1 / cosine distance: a vector that equals an old
    one has its place.

    Args:
        new: (new, dim).
        old: (old, dim).
        positions: Where the old rows are, (old, 2).
    """
    rows, cosines = nearest_rows(old, ANCHORS, new)
    weights = 1 / (1 - cosines.astype(np.float64)).clip(1e-6)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("rn,rnd->rd", weights, positions[rows]).astype(np.float32)


def _principal(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean and the first two principal axes of rows, (3, dim) float32, and the share of the variance they keep."""
    mean = rows.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096] - mean
        covariance += block.T @ block
    values, axes = np.linalg.eigh(covariance)
    axes = axes.T[::-1][:2]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]  # else the sign is arbitrary
    if len(axes) < 2:  # vectors of one number
        axes = np.vstack([axes, np.zeros_like(axes)])
    total = float(values.clip(0).sum())
    kept = float(values[::-1][:2].clip(0).sum()) / total if total > 1e-12 * len(rows) else 1.0
    return np.vstack([mean[None], axes]).astype(np.float32), kept
