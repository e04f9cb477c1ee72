"""Geometry: how an encoder's embeddings of STS-B are distributed, independent of how well they rank pairs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textcl.data.sts import hash_subsets, read_sts
from textcl.errors import InputError
from textcl.evaluation.encoding import ROUNDING, encode_distinct, made_with
from textcl.evaluation.kinds import GEOMETRY
from textcl.evaluation.results import Result
from textcl.metrics import geometry

logger = logging.getLogger("textcl")

NEIGHBOURS = 10
LEAST_SCORE = 4.0  # pairs with a human score above this are positives (Gao et al. 2021, footnote 3)


class Geometry:
    """Alignment, uniformity, effective rank, anisotropy and hubness of an encoder on STS-B.

    - alignment: the mean squared distance of pairs that people score above 4; low is good (Wang and Isola 2020).
    - uniformity: how evenly all sentences fill the sphere; low is good (Wang and Isola 2020).
    - effective_rank: how many directions the embeddings use (Roy and Vetterli 2007).
    - anisotropy: the mean cosine of two different sentences; 0 means isotropic (Ethayarajh 2019).
    - hubness: the skewness of how often a sentence is among the ten nearest neighbours of others; 0 without hubs
      (Radovanović, Nanopoulos and Ivanović 2010).

    Of a collapsed encoder, with one embedding for all sentences, hubness is undefined and counts as 0, with a warning.

    All are computed on embeddings scaled to length 1. The human scores are used only to choose the positives.

    Args:
        data_dir: The data directory; default: `textcl.data.data_directory()`.
        split: A split of STS-B; the default is "dev", because models selected on "test" could not be reported on it.

    Raises:
        InputError: STS-B is not installed.

    Example:
        >>> Geometry()(encoder).results["geometry"]["alignment"]  # doctest: +SKIP
    """

    name = "geometry"

    def __init__(self, data_dir: str | os.PathLike[str] | None = None, split: str = "dev") -> None:
        self.split = split
        self.subsets = read_sts("STSBenchmark", None if data_dir is None else Path(data_dir), split=split)

    @property
    def data_hashes(self) -> dict[str, str]:
        """The hash of the scored pairs."""
        return {self.name: hash_subsets(self.subsets)}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates any object with `.encode(list[str])`.

        Raises:
            InputError: The encoder did not return one row per text, or returned NaN, infinite values or only zero
                vectors.
        """
        pairs = [pair for s in self.subsets for pair in zip(s.first, s.second, s.scores, strict=True)]
        texts = (text for first, second, _ in pairs for text in (first, second))
        found, row_of = encode_distinct(encoder, texts, **encode_arguments)
        rows = torch.as_tensor(found.toarray() if hasattr(found, "toarray") else found)
        if not rows.any():
            raise InputError("The encoder returns the zero vector for every sentence; a zero vector has no direction.")
        rows = torch.nn.functional.normalize(rows, dim=1)
        positives = [(row_of[first], row_of[second]) for first, second, score in pairs if score > LEAST_SCORE]
        first, second = torch.tensor(positives).unbind(dim=1)
        values = {
            "alignment": geometry.alignment(rows[first], rows[second]),
            "uniformity": geometry.uniformity(rows),
            "effective_rank": geometry.effective_rank(rows),
            "anisotropy": geometry.mean_cosine(rows),
            "hubness": hubness(rows),
        }
        collapsed = bool(values["anisotropy"] >= 1 - ROUNDING)
        if collapsed:
            logger.warning(
                "All sentences have the same embedding: the encoder has collapsed, and hubness, which is undefined, "
                "counts as 0."
            )
            values["hubness"] = torch.zeros(())
        scores = {name: float(values[name]) for name in GEOMETRY.rows}
        provenance = {
            "tasks": {
                self.name: {
                    "split": self.split,
                    "pairs": len(positives),
                    "sentences": len(rows),
                    "data_sha256": self.data_hashes[self.name],
                }
            },
            "undefined": [self.name] if collapsed else [],
            **made_with(encoder),
        }
        return Result({self.name: {"kind": GEOMETRY.name, **scores}}, scores, provenance)


def hubness(rows: Tensor, neighbours: int = NEIGHBOURS, chunk_size: int = 1024) -> Tensor:
    """The skewness of how often each row is among the nearest neighbours of the other rows, by cosine.

    Args:
        rows: (rows, dim), of length 1.
        neighbours: The number of nearest neighbours of each row.
        chunk_size: The number of rows whose cosines are in memory at once.

    Returns:
        Scalar; 0 if all rows are neighbours equally often.
    """
    times = torch.zeros(len(rows), dtype=torch.double)
    for start in range(0, len(rows), chunk_size):
        cosines = rows[start : start + chunk_size] @ rows.T
        itself = torch.arange(start, start + len(cosines))[:, None]
        cosines.scatter_(1, itself, -torch.inf)
        nearest = cosines.topk(min(neighbours, len(rows) - 1), dim=1).indices
        times += torch.bincount(nearest.flatten(), minlength=len(rows))
    centred = times - times.mean()
    deviation = centred.square().mean().sqrt()
    return centred.pow(3).mean() / deviation.pow(3) if deviation > 0 else deviation
