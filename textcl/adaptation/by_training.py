"""`adapt --train`: linear maps and trained encoders are tried side by side, on one split in place of folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from textcl.adaptation.advice import advise
from textcl.adaptation.changes import Ranked, Shown, by_rank
from textcl.adaptation.contest import Contest, Entrant, reason_of
from textcl.adaptation.cross_fit import select
from textcl.adaptation.edits import Edits
from textcl.adaptation.evidence import Lexical
from textcl.adaptation.guard import compare_cosines, guards
from textcl.adaptation.known_items import View
from textcl.adaptation.labels import Labels, compare_vectors
from textcl.adaptation.material import Material
from textcl.adaptation.split import Exam, Exams, Side, make_exams
from textcl.adaptation.trained import CANDIDATES
from textcl.adaptation.trial import Trial, Work, too_low
from textcl.adaptation.verdict import Comparison, compare
from textcl.errors import disk_full
from textcl.files import content_hash


def try_trained(trial: Trial, material: Material, views: Sequence[View], work: Work) -> None:
    """Trains the candidates of the plan and the linear maps, selects one of all, judges it, and trains it on all texts.

    Selection is as in `select`. From the strongest pull to the start to the weakest, the order is: linear maps by their
    pull, then blends by their α, and in the order of the plan.

    Args:
        trial: Where results go; it has the plan.
        material: The start's vectors.
        views: The views; the first one is trained on.
        work: What to work with.
    """
    kind, _ = work.settings.evidence()
    if kind in (None, "pairs") and work.settings.purpose == "search":
        ranking = material.ranking()
        start = float(ranking.scores(np.arange(len(ranking.units)), [None], work.settings.words).mean())
        trial.why = too_low(start, ranking.task)
    if trial.why:
        return
    exams = make_exams(material, views, work)
    trial.held_out = exams.held_out
    if exams.content is not None:
        trial.evidence = content_hash({**exams.content, "purpose": work.settings.purpose})
    contest = Contest(trial, material, work, exams)
    entrants = contest.maps()
    known = {candidate.name: candidate for candidate in CANDIDATES}
    trained: list[Entrant] = []
    for number, name in enumerate(trial.plan["candidates"]):
        trained += contest.blends(number, known[name])
    entrants += sorted(trained, key=lambda each: each.alpha)  # is stable
    chosen, whole = _train_on_all(entrants, trial)
    trial.chosen, trial.pull, trial.weight = chosen.name, chosen.pull, whole.weight
    if chosen.pull is None:
        trial.chosen, trial.encoder = f"{chosen.name}, α {chosen.alpha:g}", whole.encoder
    _judge(trial, exams, chosen.side(False), whole, work)


def _train_on_all(entrants: list[Entrant], trial: Trial) -> tuple[Entrant, Side]:
    """The selected candidate, and what is exported; one that cannot be trained on all texts is passed over."""
    left = list(entrants)
    while True:
        chosen = left[select(np.array([each.scores for each in left]))]
        try:
            whole = chosen.side(True)
        except Exception as error:  # linear maps come first and cannot fail
            if disk_full(error) or chosen.pull is not None:
                raise
            left = [each for each in left if each.name != chosen.name]
            entry = next(each for each in trial.candidates if each["name"] == chosen.name)
            entry["failed"] = f"on all texts: {reason_of(error)}"
            continue
        for entry in trial.candidates:
            entry["selected"] = entry["name"] == chosen.name
        return chosen, whole


def _judge(trial: Trial, exams: Exams, judged: Side, whole: Side, work: Work) -> None:
    """The comparisons that the verdict rests on, of the candidate that has not seen what judges it."""
    settings, start = work.settings, Side(work.encoder)
    kind, _ = settings.evidence()
    evidence, other = (exams.judges.make(side.encoder) for side in (start, judged))
    before, after = (exams.judges.scores(side, settings.words) for side in (start, judged))
    rows = np.arange(len(before)) if exams.judges.rows is None else exams.judges.rows
    if isinstance(evidence, Labels):
        assert isinstance(other, Labels)
        trial.main = compare_vectors(evidence, other.under(judged.weight), settings.seed)
        shown: Shown = evidence.shown
    else:
        units = evidence.units[rows]
        if isinstance(evidence, Edits):
            shown = evidence.planted.shown
        else:
            shown = by_rank(cast(Ranked, evidence), cast(Ranked, other), lambda row: judged.weight, settings.words)
        trial.main = compare(before, after, units, evidence.task, evidence.measure, settings.seed, evidence.unit)
        if settings.purpose == "search" and kind != "judgements":  # two texts for each query are no ranking
            other_kind = "hybrid" if settings.retrieval == "dense" else "dense"
            words = Lexical(settings.bm25_weight, settings.language) if other_kind == "hybrid" else None
            others = tuple(exams.judges.scores(side, words) for side in (start, judged))
            values = {settings.retrieval: (before, after), other_kind: (others[0], others[1])}
            trial.advice = advise(
                {name: values[name] for name in ("dense", "hybrid")}, units, evidence.unit, known_items=kind is None
            )
    trial.show_changes(before, after, lambda places: shown([int(rows[place]) for place in places]))
    if exams.second is not None:
        trial.second = _compare(exams.second, start, whole if exams.second_of_export else judged, settings.words)
    if whole.weight is not None:
        trial.guards = [guard.compare(whole.weight) for guard in guards(work.encoder, work.place)]
    else:
        sides = [guards(encoder, work.place) for encoder in (work.encoder, whole.encoder)]
        trial.guards = [
            compare_cosines(one.name, one.gold, one.cosines(), two.cosines()) for one, two in zip(*sides, strict=True)
        ]


def _compare(exam: Exam, before: Side, after: Side, words: Lexical | None) -> Comparison:
    evidence = exam.make(before.encoder)
    scores = exam.scores(before, words), exam.scores(after, words)
    return compare(*scores, evidence.units, evidence.task, evidence.measure, unit=evidence.unit)
