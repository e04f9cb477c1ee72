"""Several encoders side by side: which of them is best for a user's texts, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from textcl.adaptation.changes import shown_of
from textcl.adaptation.edits import Planted
from textcl.adaptation.evidence import Evidence, compare_scores, scores_of_all
from textcl.adaptation.guard import compare_guards
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.labels import Labels, compare_vectors, read_labels
from textcl.adaptation.material import Material, make_material
from textcl.adaptation.preferences import Preferences
from textcl.adaptation.trial import Trial, Work, prepare, too_low
from textcl.adaptation.verdict import Comparison
from textcl.encoder import Encoder

NOTHING_TRAINED = "Nothing is trained, so nothing is held out: everything that was measured judges all encoders."


def try_encoders(work: Work, others: Sequence[Encoder], identity: str) -> Trial:
    """Compares other encoders with the first one; nothing is trained.

    Args:
        work: What to work with; its encoder is the first.
        others: The other encoders.
        identity: A hash of all that decides the result.
    """
    trial, work, views = prepare(work, identity, 1 + len(others))
    if trial.why:
        return trial
    kind, _ = work.settings.evidence()
    encoders = [work.encoder, *others]
    materials = [] if kind == "labels" else [make_material(encoder, views, work.place) for encoder in encoders]
    evidence = _evidence(encoders, materials, work)
    hashed_as = {"labels": "labels", "beir": "judgements", "judgements": "judgements"}
    if kind in hashed_as:
        trial.evidence = work.settings.hashed(**{hashed_as[kind]: cast(Any, evidence[0]).content})
    trial.held_out = NOTHING_TRAINED
    scores = _scores(evidence, work)
    found = _against_first(evidence, scores, work)
    if kind is None and work.settings.purpose == "search":
        trial.why = too_low(found[0].before, found[0].task, "the first")
        if trial.why:
            return trial
    trial.candidates = [{"model": other.name, **each.record()} for other, each in zip(others, found, strict=True)]
    best = trial.best = int(np.argmax([each.after for each in found]))
    trial.main = found[best]
    shown = shown_of(evidence[0], evidence[1 + best], None, work.settings.words)
    trial.show_changes(scores[0], scores[1 + best], shown)
    if materials and len(views) > 1:
        seconds = [materials[number].ranking(1) for number in (0, 1 + best)]
        (trial.second,) = _against_first(seconds, _scores(seconds, work), work)
    trial.guards = compare_guards(encoders[0], others[best], work.place)
    return trial


def _evidence(encoders: Sequence[Encoder], materials: Sequence[Material], work: Work) -> list[Evidence]:
    """What judges each encoder: the user's own evidence, planted edits, or known items."""
    kind, path = work.settings.evidence()
    readers: dict[str | None, Any] = {"labels": read_labels, "beir": Judgements, "judgements": Preferences}
    if kind in readers:
        return [readers[kind](path, encoder, work.place) for encoder in encoders]
    if work.settings.purpose == "duplicates":
        planted = Planted(work.corpus.texts)
        groups = materials[0].groups
        return [planted.evidence(encoder, work.place, groups) for encoder in encoders]
    return [material.ranking() for material in materials]


def _scores(evidence: Sequence[Evidence], work: Work) -> list[np.ndarray]:
    """The score of each query, once for each encoder's vectors."""
    return [scores_of_all(each, [None], work.settings.words)[0] for each in evidence]


def _against_first(evidence: Sequence[Evidence], scores: Sequence[np.ndarray], work: Work) -> list[Comparison]:
    """Each encoder but the first beside the first one."""
    first, seed = evidence[0], work.settings.seed
    if isinstance(first, Labels):
        return [compare_vectors(first, cast(Labels, other), seed) for other in evidence[1:]]
    return [compare_scores(first, scores[0], after, seed) for after in scores[1:]]
