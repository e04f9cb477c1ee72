"""The guard: whether an adapted encoder still knows what sentences mean in general."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textcl.adaptation.evidence import under
from textcl.adaptation.verdict import Comparison
from textcl.adaptation.workplace import Workplace
from textcl.data import verify
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.evaluation.encoding import cosine
from textcl.evaluation.significance import NORMAL, over_pairs, spearman
from textcl.evaluation.sts import LabelledPairs, STSBenchmark

GRADED_PAIRS = BUNDLED_TEXTS.parent / "similarity.tsv"


@dataclass(frozen=True)
class Guard:
    """Scored pairs of sentences that have nothing to do with the user's texts, in English.

    Attributes:
        name: The name of the pairs.
        first: The vectors of the first sentences, (pairs, dim).
        second: The vectors of the second sentences, (pairs, dim).
        gold: The human scores, (pairs,).
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    gold: np.ndarray

    def cosines(self, weight: np.ndarray | None = None) -> np.ndarray:
        """The cosine of each pair under a linear map, (pairs,); None: untouched."""
        return cosine(under(self.first, weight), under(self.second, weight))


def guards(encoder: Encoder, place: Workplace) -> list[Guard]:
    """The pairs with an encoder's vectors: graded pairs of WordNet glosses, which textcl brings, and STS-B dev if it is
    installed.

    Args:
        encoder: The encoder.
        place: Stores the vectors, so that a repeated call reads them.
    """
    tasks = {"graded pairs of WordNet": LabelledPairs(GRADED_PAIRS).tasks["pairs"]}
    if verify(names=["STSBenchmark"])[0].usable:
        tasks["STS-B dev"] = STSBenchmark("dev").tasks["STSBenchmark-dev"]
    found = []
    for name, subsets in tasks.items():
        first, second = ([text for each in subsets for text in getattr(each, side)] for side in ("first", "second"))
        gold = np.array([score for each in subsets for score in each.scores])
        vectors = place.vectors(encoder, [*first, *second], encoder.prompt_text())
        found.append(Guard(name, vectors[: len(first)], vectors[len(first) :], gold))
    return found


def compare_guards(
    start: Encoder, other: Encoder, place: Workplace, weight: np.ndarray | None = None
) -> list[Comparison]:
    """Shows whether an encoder, or a linear map behind it, has forgotten what sentences mean in general.

    Args:
        start: The untouched encoder.
        other: The encoder that may have forgotten; for a linear map the untouched one.
        place: Stores the vectors.
        weight: The linear map behind `other`; None: no map.
    """
    before = guards(start, place)
    after = before if other is start else guards(other, place)
    return [
        compare_cosines(one.name, one.gold, one.cosines(), two.cosines(weight))
        for one, two in zip(before, after, strict=True)
    ]


def compare_cosines(name: str, gold: np.ndarray, before: np.ndarray, after: np.ndarray) -> Comparison:
    """The Spearman correlation × 100 of two encoders' cosines with human scores, with the bootstrap over pairs."""
    found = over_pairs([gold.tolist()], [before.tolist()], [after.tolist()])
    start = 100 * float(spearman(before, gold))
    error = (found.high - found.low) / (2 * NORMAL)
    return Comparison(
        f"similarity on {name}", "Spearman", start, start + found.mean, found.low, found.high, found.p_value,
        len(gold), error, "pairs of sentences",
    )  # fmt: skip
