"""One split in place of folds: half of the groups train, a quarter selects, a quarter judges.

A trained candidate needs all texts encoded anew, so that five folds would take too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from textcl.adaptation.edits import Planted
from textcl.adaptation.evidence import Evidence, Lexical, Ranking
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.known_items import View
from textcl.adaptation.labels import read_labels
from textcl.adaptation.material import Material, make_material, query_prompt
from textcl.adaptation.preferences import Preferences
from textcl.adaptation.schedule import MOST_ASKED, MOST_SEARCHED
from textcl.adaptation.searched import searched, some
from textcl.adaptation.trial import Work
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.vectors.bm25 import Bm25
from textcl.vectors.encode import corpus_prompt

TRAINS, SELECTS, JUDGES = range(3)
ONE_SPLIT = (
    "One split of the groups of near-duplicates: half of them train the candidates, a quarter selects one of them, and "
    "a quarter judges it. What is exported is the same candidate, trained on all groups."
)
OF_USER = (
    "The candidates are trained on the texts. Half of the {} selects one of the candidates, and the other half judges "
    "it."
)


@dataclass(frozen=True)
class Side:
    """An encoder, and a linear map behind its vectors; None: no map."""

    encoder: Encoder
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Exam:
    """Evidence for any encoder.

    Attributes:
        make: Makes the evidence with the vectors of an encoder.
        rows: The queries that count; None: all.
    """

    make: Callable[[Encoder], Evidence]
    rows: np.ndarray | None = None

    def scores(self, side: Side, lexical: Lexical | None = None) -> np.ndarray:
        """The score × 100 of each query that counts, (queries,)."""
        evidence = self.make(side.encoder)
        rows = np.arange(len(evidence.units)) if self.rows is None else self.rows
        return evidence.scores(rows, [side.weight], lexical)[0]


@dataclass(frozen=True)
class Exams:
    """What selects and what judges, and what may be trained on.

    Attributes:
        allowed: Whether the documents of a group may be trained on, (groups,) bool.
        selects: Selects a candidate, among at most 3,000 documents.
        judges: Judges the selected one, among all documents.
        second: Judges on queries of another kind; None: the texts allow none.
        second_of_export: Whether `second` judges what is trained on all texts, because all its queries are asked.
        content: What the user's own evidence holds, to be hashed; None: it is made of the texts.
        held_out: Says which part trains, which selects and which judges.
    """

    allowed: np.ndarray
    selects: Exam
    judges: Exam
    second: Exam | None = None
    second_of_export: bool = False
    content: dict[str, str] | None = None
    held_out: str = ONE_SPLIT


def split_of(units: int, trains: bool = True, seed: int = 0) -> np.ndarray:
    """What each of `units` units does, (units,): TRAINS, SELECTS or JUDGES.

    Args:
        units: The number of units.
        trains: Whether half of them train; if not, half select and half judge.
        seed: The seed of the split.
    """
    parts = np.array([TRAINS, TRAINS, SELECTS, JUDGES] if trains else [SELECTS, JUDGES])
    return parts[np.random.default_rng(seed).permutation(units) % len(parts)]


def make_exams(material: Material, views: Sequence[View], work: Work) -> Exams:
    """The exams for what the user asks for.

    Args:
        material: The start's vectors; its first view is trained on.
        views: The views of the trial.
        work: What to work with.
    """
    kind, path = work.settings.evidence()
    seed, place, groups = work.settings.seed, work.place, material.groups
    parts = split_of(material.units, seed=seed)
    second = None
    if len(views) > 1:
        asked = np.arange(len(views[1].queries))
        if kind is None:  # the second view is of the same texts, of which those that trained or selected may not judge
            asked = np.flatnonzero(parts[groups[views[1].targets]] == JUDGES)
        second = exam_of(views[1], material.groups_of(1), place, asked=asked)
    of_user = {"beir": _of_judgements, "judgements": _of_preferences, "labels": _of_labels}
    if kind in of_user:
        selects, judges, content, unit = of_user[kind](path, work)
        return Exams(np.ones(material.units, bool), selects, judges, second, True, content, OF_USER.format(unit))
    allowed = parts == TRAINS
    if work.settings.purpose == "duplicates":
        return Exams(allowed, *_of_edits(groups, parts, work), second)
    role = parts[groups[views[0].targets]]
    asked = some(np.flatnonzero(role == SELECTS), MOST_ASKED, seed)
    kept = searched(material.queries[0][asked], material.documents[0], views[0].targets[asked], seed)
    selects = exam_of(views[0], groups, place, asked=asked, documents=kept)
    judges = exam_of(views[0], groups, place, asked=np.flatnonzero(role == JUDGES))
    return Exams(allowed, selects, judges, second, second_of_export=kind is not None)


def exam_of(
    view: View, groups: np.ndarray, place: Workplace, *, asked: np.ndarray, documents: np.ndarray | None = None
) -> Exam:
    """Some queries of a view, which search its documents or some of them.

    Args:
        view: The view.
        groups: The group of each document, (documents,).
        place: Where vectors are kept.
        asked: The queries.
        documents: The documents that are searched, those of the queries among them; None: all.
    """
    kept = np.arange(len(view.documents)) if documents is None else documents
    number = {int(document): new for new, document in enumerate(kept)}
    part = View(
        view.name,
        view.task,
        [view.queries[i] for i in asked],
        [view.documents[i] for i in kept],
        np.array([number[int(view.targets[i])] for i in asked], dtype=np.int64),
    )
    words: dict[str, Bm25] = {}  # the words of all encoders' rankings are indexed once

    def make(encoder: Encoder) -> Ranking:
        return replace(make_material(encoder, [part], place, groups[kept]).ranking(), _words=words)

    return Exam(make)


def _of_edits(groups: np.ndarray, parts: np.ndarray, work: Work) -> tuple[Exam, Exam]:
    """Texts with planted edits: what selects, among at most 3,000 of the texts, and what judges, among all."""
    planted, seed = Planted(work.corpus.texts), work.settings.seed
    asked = some(np.flatnonzero(parts[groups] == SELECTS), MOST_ASKED, seed)
    vectors = work.place.vectors(work.encoder, planted.texts, corpus_prompt(work.encoder))
    kept = searched(vectors[asked], vectors, asked, seed)
    part = planted.part(kept)
    selects = Exam(
        lambda encoder: part.evidence(encoder, work.place, groups[kept]), np.flatnonzero(np.isin(kept, asked))
    )
    judges = Exam(
        lambda encoder: planted.evidence(encoder, work.place, groups), np.flatnonzero(parts[groups] == JUDGES)
    )
    return selects, judges


def _halves(units: np.ndarray, work: Work) -> np.ndarray:
    """What each query or text of the user's own evidence does, SELECTS or JUDGES, the same for all of a unit."""
    return split_of(int(units.max()) + 1, trains=False, seed=work.settings.seed)[units]


_OfUser = tuple[Exam, Exam, dict[str, str], str]
"""For a user's own evidence: what selects, what judges, the content to be hashed, and what the units are."""


def _of_judgements(path: str, work: Work) -> _OfUser:
    """Judged queries. Those that select search at most 3,000 documents, and those that judge search all."""
    whole = Judgements(path, work.encoder, work.place)
    parts = _halves(whole.units, work)
    collection, answered = whole.collection, whole.collection.answered
    documents, places = list(collection.documents.values()), {name: i for i, name in enumerate(collection.documents)}
    grades = [{places[name]: float(grade) for name, grade in whole.answers(row).items()} for row in range(len(parts))]
    asked = np.array([row for row in np.flatnonzero(parts == SELECTS) if grades[row]], dtype=np.int64)
    asked = some(asked, MOST_ASKED, work.settings.seed)
    queries, wanted = [collection.queries[answered[row]] for row in asked], [grades[row] for row in asked]

    def vectors(encoder: Encoder, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        one = work.place.vectors(encoder, queries, query_prompt(encoder))
        return one, work.place.vectors(encoder, texts, corpus_prompt(encoder))

    own = list(dict.fromkeys(document for each in wanted for document in each))[: MOST_SEARCHED // 2]
    kept = searched(*vectors(work.encoder, documents), own, work.settings.seed)
    number = {int(document): new for new, document in enumerate(kept)}
    relevant = [{number[i]: grade for i, grade in each.items() if i in number} for each in wanted]
    texts, words = [documents[i] for i in kept], dict[str, Bm25]()

    def make(encoder: Encoder) -> Ranking:
        units = np.arange(len(queries))
        return Ranking(whole.task, *vectors(encoder, texts), relevant, units, (queries, texts), _words=words)

    selects = Exam(make, np.array([i for i, each in enumerate(relevant) if each], dtype=np.int64))
    judges = Exam(lambda encoder: Judgements(path, encoder, work.place), np.flatnonzero(parts == JUDGES))
    return selects, judges, {"judgements": whole.content}, whole.unit


def _of_preferences(path: str, work: Work) -> _OfUser:
    whole = Preferences(path, work.encoder, work.place)
    parts = _halves(whole.units, work)

    def make(encoder: Encoder) -> Preferences:
        return Preferences(path, encoder, work.place)

    selects, judges = (Exam(make, np.flatnonzero(parts == role)) for role in (SELECTS, JUDGES))
    return selects, judges, {"judgements": whole.content}, whole.unit


def _of_labels(path: str, work: Work) -> _OfUser:
    """Labelled texts, which are clustered on each side alone."""
    labels = read_labels(path, work.encoder, work.place)
    parts = _halves(labels.units, work)

    def make(role: int, encoder: Encoder) -> Evidence:
        return read_labels(path, encoder, work.place).part(np.flatnonzero(parts == role))

    selects, judges = (Exam(partial(make, role)) for role in (SELECTS, JUDGES))
    return selects, judges, {"labels": labels.content}, labels.unit
