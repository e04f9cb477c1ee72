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


@dataclass(frozen=True)
class Material:
    """One encoder's vectors of the views of a corpus.

    Attributes:
        views: The views; the first one is trained on and judged.
        queries: The vectors of each view's queries.
        documents: The vectors of each view's documents.
        groups: The group of near-duplicates of each document of the first view, a number from 0, (documents,).
    """

    views: Sequence[View]
    queries: Sequence[np.ndarray]
    documents: Sequence[np.ndarray]
    groups: np.ndarray

    @property
    def units(self) -> int:
        """The number of groups."""
        return int(self.groups.max()) + 1

    def groups_of(self, number: int) -> np.ndarray:
        """The group of each document of a view. Views of the same texts share groups; a user's pairs have their own."""
        return self.views[number].groups if number and self.views[0].name == "pair" else self.groups

    def ranking(self, number: int = 0) -> Ranking:
        """The evidence of a view: each query has to find the document that it was cut out of."""
        view, groups = self.views[number], self.groups_of(number)
        return Ranking(
            view.task,
            self.queries[number],
            self.documents[number],
            [{int(target): 1.0} for target in view.targets],
            groups[view.targets],
            (view.queries, view.documents),
            groups,
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
        groups: The groups of near-duplicates; None: those of the first view.
    """
    documents = [place.vectors(encoder, view.documents, corpus_prompt(encoder)) for view in views]
    queries = [place.vectors(encoder, view.queries, query_prompt(encoder)) for view in views]
    return Material(views, queries, documents, views[0].groups if groups is None else groups)


def query_prompt(encoder: Encoder) -> str:
    """The prompt of queries: that named "query" if the encoder has one, else its default prompt."""
    return encoder.prompts.get("query", encoder.prompt_text())
