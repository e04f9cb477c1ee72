"""`adapt --train`: linear maps and trained encoders are tried side by side, on one split in place of folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from textcl.adaptation.advice import advise
from textcl.adaptation.changes import shown_of
from textcl.adaptation.contest import Contest, Entrant, reason_of
from textcl.adaptation.cross_fit import select
from textcl.adaptation.evidence import Lexical, compare_scores, scores_of_all
from textcl.adaptation.guard import compare_guards
from textcl.adaptation.known_items import View
from textcl.adaptation.labels import Labels, compare_vectors
from textcl.adaptation.material import Material
from textcl.adaptation.split import Exam, Exams, Side, make_exams
from textcl.adaptation.trained import CANDIDATES
from textcl.adaptation.trial import Trial, Work, too_low
from textcl.adaptation.verdict import Comparison
from textcl.errors import disk_full


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
        trial.why = too_low(float(scores_of_all(ranking, [None], work.settings.words).mean()), ranking.task)
    if trial.why:
        return
    exams = make_exams(material, views, work)
    trial.held_out = exams.held_out
    if exams.content is not None:
        trial.evidence = work.settings.hashed(**exams.content)
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
        trial.main = compare_vectors(evidence, cast(Labels, other).under(judged.weight), settings.seed)
    else:
        trial.main = compare_scores(evidence, before, after, settings.seed, rows)
    if settings.purpose == "search" and kind != "judgements":  # two texts for each query are no ranking
        one, two = (exams.judges.scores(side, settings.other.words) for side in (start, judged))
        values: dict[str, tuple[np.ndarray, np.ndarray]] = {settings.retrieval: (before, after)}
        values[settings.other.retrieval] = one, two
        in_order = {name: values[name] for name in ("dense", "hybrid")}
        trial.advice = advise(in_order, evidence.units[rows], evidence.unit, known_items=kind is None)
    shown = shown_of(evidence, other, judged.weight, settings.words)
    trial.show_changes(before, after, lambda places: shown([int(rows[place]) for place in places]))
    if exams.second is not None:
        trial.second = _compare(exams.second, start, whole if exams.second_of_export else judged, settings.words)
    trial.guards = compare_guards(work.encoder, whole.encoder, work.place, whole.weight)


def _compare(exam: Exam, before: Side, after: Side, words: Lexical | None) -> Comparison:
    evidence = exam.make(before.encoder)
    return compare_scores(evidence, exam.scores(before, words), exam.scores(after, words))
