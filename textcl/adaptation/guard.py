"""The guard: whether an adapted encoder still knows what sentences mean in general."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textcl.adaptation.linear_map import mapped
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

    def compare(self, weight: np.ndarray) -> Comparison:
        """Spearman correlation × 100 of the cosines with the human scores, untouched and under a linear map."""
        after = cosine(mapped(self.first, weight), mapped(self.second, weight))
        return compare_cosines(self.name, self.gold, self.cosines(), after)

    def cosines(self) -> np.ndarray:
        """The cosine of each pair, (pairs,)."""
        return cosine(self.first, self.second)


def guards(encoder: Encoder, place: Workplace) -> list[Guard]:
    """The scored pairs that show whether an encoder forgets: graded pairs of WordNet glosses, which textcl brings, and
    STS-B dev if it is installed.

    Args:
        encoder: The encoder before adaptation; its vectors of the pairs are computed here.
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


def compare_cosines(name: str, gold: np.ndarray, before: np.ndarray, after: np.ndarray) -> Comparison:
    """The Spearman correlation × 100 of two encoders' cosines with human scores, with the bootstrap over pairs."""
    found = over_pairs([gold.tolist()], [before.tolist()], [after.tolist()])
    start = 100 * float(spearman(before, gold))
    error = (found.high - found.low) / (2 * NORMAL)
    return Comparison(
        f"similarity on {name}", "Spearman", start, start + found.mean, found.low, found.high, found.p_value,
        len(gold), error, "pairs of sentences",
    )  # fmt: skip
