"""Linear maps and blends of trained encoders, all trained and scored on the same parts of the texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textcl.adaptation.blend import blended
from textcl.adaptation.cross_fit import PULLS
from textcl.adaptation.labels import Labels
from textcl.adaptation.material import Material
from textcl.adaptation.rows import Rows, crop_rows, half_rows, mined_rows, pair_rows, text_rows
from textcl.adaptation.split import Exams, Side
from textcl.adaptation.trained import Candidate, trained_once
from textcl.adaptation.trial import Trial, Work, texts_of
from textcl.encoder import Encoder
from textcl.errors import InputError, disk_full
from textcl.seals import read_sealed, write_sealed

FIRST_ALPHA, BELOW, ABOVE = 0.5, (0.25,), (0.75, 1.0)


@dataclass
class Entrant:
    """A candidate with one blend, where candidates are selected.

    Attributes:
        name: The name of the candidate.
        scores: The score of each query that selects, (queries,).
        pull: The pull of a linear map to the start; None: layers were trained.
        alpha: The share of the trained weights.
        side: Makes what is judged; with True it is trained on all texts.
    """

    name: str
    scores: np.ndarray
    side: Callable[[bool], Side]
    pull: float | None = None
    alpha: float = 0.0


@dataclass
class Contest:
    """What all candidates share.

    Attributes:
        trial: Where results go.
        material: The start's vectors.
        work: What to work with.
        exams: What selects and judges.
        before: The start's score of each query that selects, (queries,).
    """

    trial: Trial
    material: Material
    work: Work
    exams: Exams
    before: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.before = self._scores(Side(self.work.encoder))

    def maps(self) -> list[Entrant]:
        """The linear maps, trained on the half that trains."""
        found = []
        for pull in PULLS:
            begin = time.perf_counter()
            half = self.material.fit(pull, self.exams.allowed, seed=self.work.settings.seed)
            seconds = time.perf_counter() - begin
            scores = self._scores(Side(self.work.encoder, half))
            found.append(Entrant(f"linear map, pull {pull:g}", scores, partial(self._mapped, pull, half), pull))
            self._record(found[-1].name, seconds, [], pull=pull, after=float(scores.mean()))
        return found

    def blends(self, number: int, candidate: Candidate) -> list[Entrant]:
        """The blends of a trained candidate; none if it fails, which is recorded with the reason.

        Args:
            number: The number of the candidate in the plan, which names its folder.
            candidate: The candidate.
        """
        folder = self.work.place.folder / f"candidate-{number}"
        try:
            found = read_sealed(folder / "scores.json")
        except (FileNotFoundError, InputError):
            try:
                found = self._train_and_score(candidate, folder)
            except Exception as error:  # whatever it is, the other candidates are tried
                if disk_full(error):
                    raise
                found = {"failed": reason_of(error)}
            write_sealed(folder / "scores.json", found)
        if "failed" in found:
            self._record(candidate.name, None, [], failed=found["failed"])
            return []
        entrants = [
            Entrant(candidate.name, np.array(scores), partial(self._blended, candidate, folder, alpha), alpha=alpha)
            for alpha, scores in found["scores"]
        ]
        means = [[each.alpha, float(each.scores.mean())] for each in entrants]
        self._record(candidate.name, found["seconds"], means, after=max(mean for _, mean in means))
        return entrants

    def _mapped(self, pull: float, half: np.ndarray, whole: bool) -> Side:
        """A linear map: `half`, or the one that all texts train."""
        weight = self.material.fit(pull, seed=self.work.settings.seed) if whole else half
        return Side(self.work.encoder, weight)

    def _blended(self, candidate: Candidate, folder: Path, alpha: float, whole: bool) -> Side:
        """A blend of the start and the candidate that the half, or all texts, trained."""
        return Side(blended(self.work.encoder, self._trained(candidate, folder, whole)[0], alpha))

    def _scores(self, side: Side) -> np.ndarray:
        """The score of each query that selects, (queries,)."""
        return self.exams.selects.scores(side, self.work.settings.words)

    def _train_and_score(self, candidate: Candidate, folder: Path) -> dict[str, Any]:
        """Trains a candidate and scores its blends: 0.5; if that is worse than the start 0.25, else 0.75 and 1."""
        trained, seconds = self._trained(candidate, folder, whole=False)
        begin = time.perf_counter()

        def score(alpha: float) -> tuple[float, np.ndarray]:
            return alpha, self._scores(Side(blended(self.work.encoder, trained, alpha)))

        first = score(FIRST_ALPHA)
        others = BELOW if first[1].mean() < self.before.mean() else ABOVE
        scores = [(alpha, each.tolist()) for alpha, each in (first, *map(score, others))]
        return {"seconds": seconds + time.perf_counter() - begin, "scores": scores}

    def _trained(self, candidate: Candidate, folder: Path, whole: bool) -> tuple[Encoder, float]:
        """A candidate, trained once on the half that trains or on all texts, and the seconds that it took."""
        allowed = self.exams.allowed
        if whole and not allowed.all():
            folder, allowed = folder.with_name(f"{folder.name}-all"), np.ones_like(allowed)
        steps, seed = self.trial.plan["steps"], self.work.settings.seed
        rows = partial(self._rows, candidate, allowed, steps)
        clusters = None
        if candidate.kind == "SCCL":
            labels = self.exams.selects.make(self.work.encoder)
            assert isinstance(labels, Labels)
            clusters = int(labels.labels.max()) + 1
        return trained_once(self.work.encoder, candidate, rows, steps, folder, clusters=clusters, seed=seed)

    def _rows(self, candidate: Candidate, allowed: np.ndarray, steps: int) -> Rows:
        view, groups, seed = self.material.views[0], self.material.groups, self.work.settings.seed
        texts = texts_of(view, self.work.corpus)
        if candidate.kind == "pairs":
            return pair_rows(view, groups, allowed, steps, seed)
        if candidate.kind == "hard negatives":
            return mined_rows(self.material, allowed, steps, seed)
        if candidate.kind == "SCCL":
            return text_rows(texts, groups, allowed)
        return (crop_rows if candidate.kind == "crops" else half_rows)(texts, groups, allowed, steps, seed)

    def _record(self, name: str, seconds: float | None, alphas: list[list[float]], **more: Any) -> None:
        entry = {"name": name, "seconds": seconds, "alphas": alphas, "before": float(self.before.mean()), **more}
        self.trial.candidates.append(entry)
        if "failed" in more:
            self.trial.say(f"{name}: failed: {more['failed']}")
        else:
            curve = "".join(f", α {alpha:g} {score:.1f}" for alpha, score in alphas) or f", {more['after']:.1f}"
            self.trial.say(f"{name}: untouched {entry['before']:.1f}{curve}")


def reason_of(error: Exception) -> str:
    """Why something failed, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
