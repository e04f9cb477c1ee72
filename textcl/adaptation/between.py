"""Several encoders side by side: which of them is best for a user's texts, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textcl.adaptation.edits import Edits
from textcl.adaptation.evidence import Evidence
from textcl.adaptation.guard import compare_cosines, guards
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.labels import compare_vectors, read_labels
from textcl.adaptation.material import make_material
from textcl.adaptation.trial import LEAST_SCORE, Trial, Work, prepare
from textcl.adaptation.verdict import Comparison, compare
from textcl.encoder import Encoder
from textcl.files import content_hash
from textcl.vectors.planted_edits import edited


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
    if kind == "labels":
        labels = [read_labels(path, encoder, work.place) for encoder in encoders]
        trial.evidence = content_hash({"labels": labels[0].content, "purpose": work.settings.purpose})
        found = [compare_vectors(labels[0], other, work.settings.seed) for other in labels[1:]]
    else:
        materials = [make_material(encoders[0], views, work.place)]
        materials += [make_material(other, views, work.place, materials[0].groups) for other in others]
        evidence: list[Evidence] = []
        for encoder, material in zip(encoders, materials, strict=True):
            if kind == "beir":
                evidence.append(judgements := Judgements(path, encoder, work.place))
                trial.evidence = content_hash({"judgements": judgements.content, "purpose": work.settings.purpose})
            elif work.settings.purpose == "duplicates":
                texts = work.corpus.texts
                vectors = [work.place.vectors(encoder, each, encoder.prompt_text()) for each in (texts, edited(texts))]
                evidence.append(Edits(vectors[0], vectors[1], material.groups))
            else:
                evidence.append(material.ranking())
        found = _against_first(evidence, work)
        if kind is None and work.settings.purpose == "search" and found[0].before < LEAST_SCORE:
            trial.why = f"the first encoder has nDCG@10 {found[0].before:.1f}, and {LEAST_SCORE:g} are needed"
            return trial
        if len(views) > 1:
            seconds = _against_first([material.ranking(1) for material in materials], work)
    trial.candidates = [{"model": other.name, **each.record()} for other, each in zip(others, found, strict=True)]
    trial.best = int(np.argmax([each.after for each in found]))
    trial.main = found[trial.best]
    if kind != "labels" and len(views) > 1:
        trial.second = seconds[trial.best]
    sides = [guards(encoder, work.place) for encoder in (encoders[0], others[trial.best])]
    trial.guards = [
        compare_cosines(one.name, one.gold, one.cosines(), two.cosines()) for one, two in zip(*sides, strict=True)
    ]
    return trial


def _against_first(evidence: Sequence[Evidence], work: Work) -> list[Comparison]:
    """Each evidence but the first beside the first, which is the same evidence with the first encoder's vectors."""
    first, rows = evidence[0], np.arange(len(evidence[0].units))
    before, *others = (each.scores(rows, [None], work.settings.words)[0] for each in evidence)
    return [compare(before, after, first.units, first.task, first.measure, work.settings.seed) for after in others]
