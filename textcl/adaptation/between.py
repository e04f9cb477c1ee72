"""Several encoders side by side: which of them is best for a user's texts, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from textcl.adaptation.changes import Ranked, Shown, by_rank
from textcl.adaptation.edits import Planted
from textcl.adaptation.evidence import Evidence, compare_scores, scores_of_all
from textcl.adaptation.guard import compare_guards
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.labels import compare_vectors, read_labels
from textcl.adaptation.material import make_material
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
    kind, path = work.settings.evidence()
    encoders = [work.encoder, *others]
    trial.held_out = NOTHING_TRAINED
    if kind == "labels":
        labels = [read_labels(path, encoder, work.place) for encoder in encoders]
        trial.evidence = work.settings.hashed(labels=labels[0].content)
        found = [compare_vectors(labels[0], other, work.settings.seed) for other in labels[1:]]
        scores = [each.right(np.arange(len(each.labels)), None) for each in labels]
    else:
        materials = [make_material(encoder, views, work.place) for encoder in encoders]
        planted = Planted(work.corpus.texts) if work.settings.purpose == "duplicates" else None
        evidence: list[Evidence] = []
        for encoder, material in zip(encoders, materials, strict=True):
            if kind in ("beir", "judgements"):
                read = Judgements if kind == "beir" else Preferences
                evidence.append(judgements := read(path, encoder, work.place))
                trial.evidence = work.settings.hashed(judgements=judgements.content)
            elif planted is not None:
                evidence.append(planted.evidence(encoder, work.place, material.groups))
            else:
                evidence.append(material.ranking())
        scores = _scores(evidence, work)
        found = _against_first(evidence[0], scores, work)
        if kind is None and work.settings.purpose == "search":
            trial.why = too_low(found[0].before, found[0].task, "the first")
            if trial.why:
                return trial
        if len(views) > 1:
            rankings = [material.ranking(1) for material in materials]
            seconds = _against_first(rankings[0], _scores(rankings, work), work)
    trial.candidates = [{"model": other.name, **each.record()} for other, each in zip(others, found, strict=True)]
    trial.best = int(np.argmax([each.after for each in found]))
    trial.main = found[trial.best]
    before, after = scores[0], scores[1 + trial.best]
    if kind == "labels":
        shown: Shown = labels[0].shown
    elif planted is not None:
        shown = planted.shown
    else:
        first, best = cast(Ranked, evidence[0]), cast(Ranked, evidence[1 + trial.best])
        shown = by_rank(first, best, lambda row: None, work.settings.words)
    trial.show_changes(before, after, shown)
    if kind != "labels" and len(views) > 1:
        trial.second = seconds[trial.best]
    trial.guards = compare_guards(encoders[0], others[trial.best], work.place)
    return trial


def _scores(evidence: Sequence[Evidence], work: Work) -> list[np.ndarray]:
    """The score of each query, once for each encoder's vectors."""
    return [scores_of_all(each, [None], work.settings.words)[0] for each in evidence]


def _against_first(evidence: Evidence, scores: Sequence[np.ndarray], work: Work) -> list[Comparison]:
    """The scores of each encoder but the first beside those of the first."""
    before, *others = scores
    return [compare_scores(evidence, before, after, work.settings.seed) for after in others]
