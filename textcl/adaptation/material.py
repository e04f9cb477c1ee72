"""What evidence and training are made of: the views of the texts, and one encoder's vectors of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textcl.adaptation.evidence import Ranking
from textcl.adaptation.known_items import View
from textcl.adaptation.linear_map import fit_linear_map
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.near_duplicates import near_duplicate_groups


@dataclass(frozen=True)
class Material:
    """One encoder's vectors of the views of a corpus.

    Attributes:
        views: The views; the first one is trained on and judged.
        queries: The vectors of each view's queries.
        documents: The vectors of each view's documents.
        groups: The group of near-duplicates of each document, a number from 0, (documents,).
    """

    views: Sequence[View]
    queries: Sequence[np.ndarray]
    documents: Sequence[np.ndarray]
    groups: np.ndarray

    @property
    def units(self) -> int:
        """The number of groups."""
        return int(self.groups.max()) + 1

    def ranking(self, number: int = 0) -> Ranking:
        """The evidence of a view: each query has to find the document that it was cut out of."""
        view = self.views[number]
        return Ranking(
            view.task,
            self.queries[number],
            self.documents[number],
            [{int(target): 1.0} for target in view.targets],
            self.groups[view.targets],
            (view.queries, view.documents),
            self.groups,
        )

    def fit(self, pull: float, allowed: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
        """A linear map, trained on the queries and documents of the first view.

        Args:
            pull: The pull to the start, see `fit_linear_map`.
            allowed: Whether the documents of a group may be seen, (groups,) bool; None: all may.
            seed: The seed of the batches.
        """
        allowed = np.ones(self.units, bool) if allowed is None else allowed
        targets = self.views[0].targets
        rows = np.flatnonzero(allowed[self.groups[targets]])
        seen = targets[rows]
        queries, documents = self.queries[0][rows], self.documents[0][seen]
        return fit_linear_map(queries, documents, pull, groups=self.groups[seen], seed=seed)


def make_material(
    encoder: Encoder, views: Sequence[View], place: Workplace, groups: np.ndarray | None = None
) -> Material:
    """Encodes views.

    Args:
        encoder: The encoder.
        views: The views.
        place: Where vectors are kept.
        groups: The groups of near-duplicates; None: they are found by the vectors of the first view's documents.
    """
    documents = [place.vectors(encoder, view.documents, corpus_prompt(encoder)) for view in views]
    queries = [place.vectors(encoder, view.queries, query_prompt(encoder)) for view in views]
    if groups is None:
        groups = near_duplicate_groups(documents[0], views[0].documents)
    return Material(views, queries, documents, groups)


def query_prompt(encoder: Encoder) -> str:
    """The prompt of queries: that named "query" if the encoder has one, else its default prompt."""
    return encoder.prompts.get("query", encoder.prompt_text())
