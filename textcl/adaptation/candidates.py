"""The candidates that are trained on a user's texts, and all that is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from textcl.adaptation.advice import advise
from textcl.adaptation.by_training import try_trained
from textcl.adaptation.changes import Ranked, by_fold
from textcl.adaptation.cross_fit import PULLS, Judged, choose, cross_fit, scores_by_fold
from textcl.adaptation.edits import Planted
from textcl.adaptation.evidence import Evidence, Lexical, compare_scores, scores_of_all
from textcl.adaptation.guard import compare_guards
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.labels import read_labels
from textcl.adaptation.material import Material, make_material
from textcl.adaptation.preferences import Preferences
from textcl.adaptation.trial import Settings, Trial, Work, prepare, too_low

CROSS_FITTED = (
    "Five folds of groups of near-duplicates. For each fold the candidates are trained on three of the others, the "
    "fourth selects one of them, and the fold is judged by that choice, trained anew on all four. So every group is "
    "judged once, by what was neither trained nor selected with it."
)
NOT_TRAINED_ON = (
    "The candidates are trained on the texts, and not on the {}. For each fifth of these the other four select one of "
    "the candidates, which judges the fifth. So each of them is judged once."
)
LABELLED = (
    "The candidates are trained on the texts without labels. Each half of the labelled texts selects the candidate "
    "that the other half judges."
)


def try_candidates(work: Work, identity: str) -> Trial:
    """Trains the candidates, selects one and measures what this procedure gains.

    Args:
        work: What to work with.
        identity: A hash of all that decides the result.
    """
    trial, work, views = prepare(work, identity)
    if trial.why:
        return trial
    material = make_material(work.encoder, views, work.place)
    if trial.plan.get("candidates"):
        try_trained(trial, material, views, work)
        return trial
    if work.settings.train:
        trial.say("The minutes allow no trained candidate; linear maps alone are tried, by folds.")
    {"search": _search, "clusters": _clusters, "duplicates": _duplicates}[work.settings.purpose](trial, material, work)
    if trial.weight is None:
        return trial
    trial.guards = compare_guards(work.encoder, work.encoder, work.place, trial.weight)
    return trial


def _search(trial: Trial, material: Material, work: Work) -> None:
    settings = work.settings
    kind, path = settings.evidence()
    if kind in ("beir", "judgements"):
        read = Judgements if kind == "beir" else Preferences
        evidence: Ranked = (judgements := read(path, work.encoder, work.place))
        trial.held_out = NOT_TRAINED_ON.format(evidence.unit)
        trial.evidence = settings.hashed(judgements=judgements.content)
        maps = [material.fit(pull, seed=settings.seed) for pull in PULLS]
        judged = choose(evidence, maps, settings.words, settings.seed)
        trial.weight = maps[judged.choice]
    else:
        evidence = material.ranking()
        trial.held_out = CROSS_FITTED
        trial.why = too_low(float(scores_of_all(evidence, [None], settings.words).mean()), evidence.task)
        if trial.why:
            return
        fit = partial(material.fit, seed=settings.seed)
        judged = cross_fit(evidence, material.units, fit, settings.words, settings.seed)
        trial.weight = fit(PULLS[judged.choice])
    _decide(trial, evidence, judged, settings)
    trial.show_changes(judged.before, judged.after, by_fold(evidence, judged, settings.words))
    if len(material.views) > 1:
        _compare_second(trial, material.ranking(1), judged if kind is None else None, settings.words)
    if kind == "judgements":  # two texts for each query are no ranking, which words would need
        return
    before, after = scores_by_fold(evidence, judged, settings.other.words)
    values: dict[str, tuple[np.ndarray, np.ndarray]] = {settings.retrieval: (judged.before, judged.after)}
    values[settings.other.retrieval] = before, after
    trial.advice = advise(values, evidence.units, evidence.unit, known_items=kind is None)


def _clusters(trial: Trial, material: Material, work: Work) -> None:
    _, path = work.settings.evidence()
    labels = read_labels(path, work.encoder, work.place)
    trial.evidence = work.settings.hashed(labels=labels.content)
    maps = [material.fit(pull, seed=work.settings.seed) for pull in PULLS]
    judged, trial.main = labels.judge(maps, work.settings.seed)
    trial.held_out = LABELLED
    trial.show_changes(judged.before, judged.after, labels.shown)
    trial.pull, trial.weight = PULLS[judged.choice], maps[judged.choice]
    trial.candidates = _candidates(judged, [{"accuracy": float(each.mean())} for each in judged.by_candidate])
    if len(material.views) > 1:
        _compare_second(trial, material.ranking(1), None, work.settings.words)


def _duplicates(trial: Trial, material: Material, work: Work) -> None:
    evidence = Planted(work.corpus.texts).evidence(work.encoder, work.place, material.groups)
    trial.held_out = CROSS_FITTED
    fit = partial(material.fit, seed=work.settings.seed)
    judged = cross_fit(evidence, material.units, fit, None, work.settings.seed)
    trial.weight = fit(PULLS[judged.choice])
    _decide(trial, evidence, judged, work.settings)
    trial.show_changes(judged.before, judged.after, evidence.shown)
    if len(material.views) > 1:
        _compare_second(trial, material.ranking(1), judged, work.settings.words)


def _decide(trial: Trial, evidence: Evidence, judged: Judged, settings: Settings) -> None:
    """Makes the comparison that decides, and records the candidates."""
    trial.pull = PULLS[judged.choice]
    trial.main = compare_scores(evidence, judged.before, judged.after, settings.seed)
    measured = (compare_scores(evidence, judged.before, after, settings.seed).record() for after in judged.by_candidate)
    gains = ({"gains_on_selecting_parts": each.tolist()} for each in judged.gains.T)
    trial.candidates = _candidates(judged, [one | two for one, two in zip(gains, measured, strict=True)])


def _compare_second(trial: Trial, evidence: Evidence, judged: Judged | None, words: Lexical | None) -> None:
    """Compares on queries that were not trained on: by the maps of the folds, or by the one that is exported."""
    if judged is not None:
        before, after = scores_by_fold(evidence, judged, words)
    else:
        before, after = scores_of_all(evidence, [None, trial.weight], words)
    trial.second = compare_scores(evidence, before, after)


def _candidates(judged: Judged, measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured of each candidate where it could be selected, and how often it was."""
    return [
        {
            "name": f"linear map, pull {pull:g}",
            "pull": pull,
            "alphas": [],
            "chosen_in_folds": judged.chosen.count(number),
            **each,
        }
        for number, (pull, each) in enumerate(zip(PULLS, measured, strict=True))
    ]
