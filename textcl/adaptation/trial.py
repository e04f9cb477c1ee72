"""One trial: what a user asks for, what the texts allow, and all that is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from textcl.adaptation.advice import Advice
from textcl.adaptation.changes import Shown, count_changes, describe_changes
from textcl.adaptation.corpus import MOST_DOCUMENTS, Corpus
from textcl.adaptation.cross_fit import FOLDS, PULLS
from textcl.adaptation.enough import LEAST_UNITS, too_few_groups, too_few_of_user
from textcl.adaptation.evidence import Lexical, scores_of_all
from textcl.adaptation.known_items import BY_TITLE, View, known_items, read_pairs
from textcl.adaptation.labels import check_labels
from textcl.adaptation.material import make_material
from textcl.adaptation.preferences import read_triplets
from textcl.adaptation.schedule import schedule
from textcl.adaptation.verdict import Comparison
from textcl.adaptation.workplace import Workplace
from textcl.data.retrieval import read_beir
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import content_hash
from textcl.ranges import Positive, Seed, Share, ranges_of
from textcl.vectors.bm25 import check_language
from textcl.vectors.fusion import WEIGHT

logger = logging.getLogger("textcl")

Purpose = Literal["search", "clusters", "duplicates"]
Retrieval = Literal["dense", "hybrid"]

LEAST_DOCUMENTS = 200
LEAST_SCORE = 10.0  # nDCG@10 of the untouched encoder; below it, queries and documents do not belong together
MANY_DOCUMENTS = 5000  # if there are more, a part of them is scored before all are encoded
PROBED = 2000  # the documents of this part
ENCODING_SHARE = 0.6  # of the minutes
ENCODING_SHARE_OF_TRAINING = 0.2  # of the minutes, where the selected candidate encodes all texts once more
FITS, SECONDS_OF_FIT = FOLDS * (len(PULLS) + 1) + 1, 2.5  # with 384 dimensions on one core
_TIMED = 64  # texts whose encoding is timed


@dataclass(frozen=True)
class Settings:
    """What a user asks `textcl.adapt` for; see there."""

    purpose: Purpose = "search"
    dev: str | None = None
    retrieval: Retrieval = "dense"
    bm25_weight: Share = WEIGHT
    language: str = "english"
    minutes: Positive = 20.0
    seed: Seed = 0
    train: bool = False

    def evidence(self) -> tuple[str | None, str]:
        """The kind of the user's own evidence and its path; (None, ""): there is none.

        Raises:
            InputError: There is no such kind, or it says nothing about the purpose.
        """
        if self.dev is None:
            return None, ""
        kind, _, path = self.dev.partition(":")
        kinds_for = {"search": ("beir", "pairs", "judgements"), "clusters": ("labels",), "duplicates": ()}
        kinds = kinds_for[self.purpose]
        if kind not in kinds or not path:
            known = " or ".join(f"{each}:PATH" for each in kinds) or "no evidence of your own"
            other = next((f" {kind}: is for --for {each}." for each, these in kinds_for.items() if kind in these), "")
            hint = "" if kind in kinds else other
            raise InputError(f"--for {self.purpose} takes {known} as --dev, not {self.dev!r}.{hint}")
        if kind == "judgements" and self.retrieval == "hybrid":
            raise InputError(
                "--dev judgements: compares two texts for each query, and hybrid search needs a ranking of all; leave "
                "out --retrieval hybrid, or give judged queries with --dev beir:FOLDER."
            )
        return kind, path

    def check(self) -> None:
        """Checks all settings and reads the user's own evidence once, before any work.

        Raises:
            InputError: It cannot be read or says nothing about the purpose, the language has no stemmer, or a setting
                is out of its range.
        """
        for name, known in (("purpose", get_args(Purpose)), ("retrieval", get_args(Retrieval))):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}.")
        for name, allowed in ranges_of(Settings).items():
            allowed.check(name, getattr(self, name))
        check_language(self.language)
        kind, path = self.evidence()
        if kind is not None:
            read: Any = {
                "beir": read_beir,
                "pairs": read_pairs,
                "labels": check_labels,
                "judgements": read_triplets,
            }[kind]
            read(path)

    @property
    def words(self) -> Lexical | None:
        """How words count in the evidence; None: they do not."""
        return Lexical(self.bm25_weight, self.language) if self.retrieval == "hybrid" else None

    @property
    def other(self) -> Settings:
        """The same settings with the other retrieval."""
        return replace(self, retrieval="hybrid" if self.retrieval == "dense" else "dense")

    def hashed(self, **content: Any) -> str:
        """A hash of what judges: its content, and the purpose."""
        return content_hash({**content, "purpose": self.purpose})


@dataclass
class Trial:
    """What was tried and measured.

    Attributes:
        evidence: A hash of the content that judges.
        why: Why nothing was measured; empty: something was.
        main: The comparison that decides; None: nothing was measured.
        second: The comparison on queries of another kind; None: the texts allow none.
        guards: General similarity of meaning, before and after.
        advice: Which retrieval to use; None: the purpose is not search.
        weight: The map W of the selected candidate, trained on all texts; None: no map was selected.
        pull: The pull of this candidate to the start.
        encoder: The encoder of the selected candidate if its layers were trained, on all texts; None: they were not.
        chosen: The name of the selected candidate, where layers were trained.
        best: The number of the best of the other encoders, if several were compared.
        candidates: What was measured of each candidate.
        looked: What was seen of the texts, a line each.
        plan: The plan of the work: how many documents, how long it takes, and with `train` which candidates.
        held_out: How the texts that judge were kept apart from those that train and select, in a sentence or two.
        changed: How many queries or texts gained, lost and did neither.
        changes: The queries or texts that changed most, see `describe_changes`.
    """

    evidence: str
    why: str = ""
    main: Comparison | None = None
    second: Comparison | None = None
    guards: list[Comparison] = field(default_factory=list)
    advice: Advice | None = None
    weight: np.ndarray | None = None
    pull: float | None = None
    encoder: Encoder | None = None
    chosen: str = ""
    best: int | None = None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    held_out: str = ""
    changed: dict[str, int] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)

    def show_changes(self, before: np.ndarray, after: np.ndarray, shown: Shown) -> None:
        """Keeps what changed most, see `describe_changes`."""
        self.changed, self.changes = count_changes(before, after), describe_changes(before, after, shown)

    def planned(self) -> dict[str, Any]:
        """What of the plan decides the result; as the plan is made by measured times, the same command may get another.

        "documents": how many texts are looked at; with `train` also "candidates" and "steps".
        """
        return {key: self.plan[key] for key in ("documents", "candidates", "steps") if key in self.plan}

    def say(self, line: str) -> None:
        """Says what was seen of the texts, while the work goes on."""
        logger.info("%s", line)
        self.looked.append(line)

    def lines(self) -> list[str]:
        """What is printed before the verdict."""
        lines = []
        if self.second is not None:
            lines.append(f"SECOND VIEW: {self.second.task}: {self.second.sentence()}")
        if self.guards:
            kept = "; ".join(f"{each.task.removeprefix('similarity on ')} {each.sentence()}" for each in self.guards)
            lines.append(f"MEANING IN GENERAL (English; other languages are not measured): {kept}")
        if self.advice is not None:
            lines.append(self.advice.sentence())
        return lines

    def record(self) -> dict[str, Any]:
        """All of it but the map, for adapt.json."""
        return {
            "evidence": self.evidence,
            "looked": self.looked,
            "plan": self.planned(),
            "main": None if self.main is None else self.main.record(),
            "second": None if self.second is None else self.second.record(),
            "guards": [each.record() for each in self.guards],
            "retrieval": None if self.advice is None else self.advice.record(),
            "pull": self.pull,
            "chosen": self.chosen,
            "best": self.best,
            "candidates": self.candidates,
            "held_out": self.held_out,
            "changed": self.changed,
            "changes": self.changes,
        }


@dataclass(frozen=True)
class Work:
    """What a trial works with: the untouched encoder, the texts, a place for vectors, and what the user asks for."""

    encoder: Encoder
    corpus: Corpus
    place: Workplace
    settings: Settings


def prepare(work: Work, identity: str, encoders: int = 1) -> tuple[Trial, Work, list[View]]:
    """Looks at the texts and makes the plan.

    Args:
        work: What to work with.
        identity: A hash of all that decides the result.
        encoders: The number of encoders that encode the texts.

    Returns:
        The trial, which says why if nothing can be measured; what to work with, maybe with fewer texts; and the views.
        The first view is trained on and judged, the second one is only judged.
    """
    corpus, settings = work.corpus, work.settings
    kind, path = settings.evidence()
    trial = Trial(settings.hashed(corpus=corpus.hash()))
    trial.say(corpus.sentence())
    if settings.purpose == "search" and kind is None and corpus.is_short():
        trial.say(
            "The parts of such short texts seldom belong together, so the verdict may be 'not measured'. Bodies "
            "(--column title,body) or evidence of your own (--dev) would help."
        )
    pairs = read_pairs(path) if kind == "pairs" else None
    if pairs is not None:
        content = [pairs.queries, pairs.documents, pairs.targets.tolist()]
        trial.evidence = settings.hashed(pairs=content)
    views = _views(corpus, settings.purpose, pairs)
    if settings.purpose == "clusters" and kind is None:
        trial.why = "there are no labels to judge clusters by; give labelled texts with --dev labels:FILE"
    elif len(corpus) < LEAST_DOCUMENTS:
        trial.why = f"there are {len(corpus):,} different texts, and {LEAST_DOCUMENTS} are needed"
    elif not views:
        trial.why = f"fewer than {LEAST_DOCUMENTS} texts are long enough to be cut into a query and a document"
    trial.why = trial.why or too_few_of_user(kind, path, work.place)
    if trial.why:
        return trial, work, views
    plan = work.place.plan(identity, partial(_plan, work, views, settings.minutes / encoders))
    trial.plan = plan
    if plan["documents"] < len(corpus):
        corpus = corpus.part(plan["documents"], settings.seed)
        work, views = replace(work, corpus=corpus), _same_views(views, corpus)
        trial.say(
            f"{len(corpus):,} of them, drawn at random, are looked at: what {settings.minutes:g} minutes allow, and at "
            f"most {MOST_DOCUMENTS:,}."
        )
    trial.say(f"{int(views[0].groups.max()) + 1:,} groups, if near-duplicates are put together.")
    if kind in (None, "pairs"):
        trial.why = too_few_groups(views[0], trains=bool(plan.get("candidates")))
        if trial.why:
            return trial, work, views
    of_second = views[-1].groups if kind == "pairs" else views[0].groups
    if len(views) > 1 and len(np.unique(of_second[views[1].targets])) < LEAST_UNITS:
        views = views[:1]
    second = f"second view: {views[1].task}." if len(views) > 1 else "there is no second view."
    trial.say(f"Main view: {views[0].task}; {second}")
    if settings.purpose == "search" and kind is None and settings.retrieval == "dense":
        trial.why = _too_low_in_a_part(work, views[0].name, "the first" if encoders > 1 else "the untouched")
        if trial.why:
            return trial, work, views
    if left_out := plan.get("left_out"):
        trial.say(
            f"Not trained, because {settings.minutes:g} minutes do not allow it: {'; '.join(left_out)}. Give more with "
            "--minutes."
        )
    trial.say(f"This takes about {max(1, round(encoders * plan['seconds'] / 60))} min.")
    return trial, work, views


def texts_of(view: View, corpus: Corpus) -> list[str]:
    """The texts that training may cut, one for each document of the main view: of a user's pairs the second ones."""
    return view.documents if view.name == "pair" else corpus.bodies


def too_low(start: float, task: str, which: str = "the untouched", where: str = "") -> str:
    """Why nothing is measured if an encoder has so low a score; empty if the score is high enough.

    Args:
        start: The nDCG@10 of this encoder.
        task: What was measured, such as "finding a body by its title".
        which: The name of the encoder in the sentence: "the untouched" or "the first".
        where: Where it was measured, as it follows the task: " among 2,000 of the texts"; empty: among all texts.
    """
    if start >= LEAST_SCORE:
        return ""
    why = "the parts of these texts do not belong together (halves of short texts often do not)"
    bodies = "bodies too (--column title,body), "
    if task == BY_TITLE:
        why, bodies = "the titles do not tell these texts apart", ""
    return (
        f"{which} encoder has nDCG@10 {start:.1f} at {task}{where}, and {LEAST_SCORE:g} are needed: {why}, or the "
        f"model does not know their language. Give {bodies}pairs of your own (--dev pairs:FILE), or labels (--for "
        "clusters --dev labels:FILE); for clusters of short texts without labels, see `textcl cluster --adapt`"
    )


def _too_low_in_a_part(work: Work, name: str, which: str) -> str:
    """Why nothing can be measured, from a part of many texts and their main view; empty if that does not show it.

    A query finds its document among some documents at least as easily as among all, because each further document can
    only push it down. So a score that is too low among some is too low among all, and the others need not be encoded.
    """
    if len(work.corpus) <= MANY_DOCUMENTS:
        return ""
    part = work.corpus.part(PROBED, work.settings.seed)
    views = [view for view in known_items(part.bodies, part.titles, LEAST_DOCUMENTS) if view.name == name]
    if not views:
        return ""
    ranking = make_material(work.encoder, views, work.place).ranking()
    scores = scores_of_all(ranking, [None])[0]
    mean, error = float(scores.mean()), float(scores.std(ddof=1) / np.sqrt(len(scores)))
    if mean + 2 * error >= LEAST_SCORE:
        return ""
    return too_low(mean, ranking.task, which, f" among {len(part):,} of the texts, and less among all")


def _views(corpus: Corpus, purpose: Purpose, pairs: View | None) -> list[View]:
    views = known_items(corpus.bodies, corpus.titles, LEAST_DOCUMENTS)
    if pairs is not None:
        return [pairs, *views[:1]]
    if purpose != "search":
        views.sort(key=lambda view: view.name != "half")  # the titles of clusters and duplicates are texts themselves
    return views[:2]


def _same_views(views: Sequence[View], corpus: Corpus) -> list[View]:
    """The views that were chosen for all texts, of a part of them; a user's pairs are all kept."""
    of_part = {view.name: view for view in known_items(corpus.bodies, corpus.titles)}
    found = [view if view.name == "pair" else of_part.get(view.name) for view in views]
    return [view for view in found if view is not None]  # a part may have no query of the second kind


def _plan(work: Work, views: Sequence[View], minutes: float) -> dict[str, Any]:
    """How many documents there is time for, what is trained, and how long it takes, from the measured time of some."""
    encoder, documents, train = work.encoder, len(work.corpus), work.settings.train
    texts = [text for view in views for text in (*view.queries, *view.documents)]
    sample = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:_TIMED]]
    encoder.encode(sample[:4])  # the first call is slower
    begin = time.perf_counter()
    encoder.encode(sample, show_progress_bar=False)
    each = (time.perf_counter() - begin) / len(sample)
    seconds = each * len(texts)
    most = (ENCODING_SHARE_OF_TRAINING if train else ENCODING_SHARE) * 60 * minutes
    share = min(1.0, most / seconds, MOST_DOCUMENTS / documents)
    kept = documents
    if share < 1:
        least = LEAST_DOCUMENTS  # queries of the main view, of which a user's pairs are all kept
        if views[0].name != "pair":
            least = work.corpus.smallest_part(views[0].targets, LEAST_DOCUMENTS, work.settings.seed)
        kept = max(min(least, documents), int(documents * share))
    encoding = seconds * kept / documents
    plan = {"documents": kept, "seconds": encoding + FITS * SECONDS_OF_FIT * (encoder.dimension / 384) ** 2}
    if train:
        left = 60 * minutes - plan["seconds"] - encoding
        texts = texts_of(views[0], work.corpus)
        kept = kept if texts is work.corpus.bodies else len(texts)  # a user's pairs are all looked at
        again = work.settings.evidence()[0] in (None, "pairs")  # with other evidence all texts train at once
        planned = schedule(encoder, views, texts, work.settings.purpose, kept, left, each, again)
        plan |= planned | {"seconds": plan["seconds"] + encoding + planned["seconds"]}
    return plan
