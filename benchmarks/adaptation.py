"""How often `textcl adapt` is wrong, and how often it finds a gain that is there.

    python -m benchmarks.adaptation FOLDER [--model DIRECTORY] [--cache FOLDER] [--only NAME ...] [--seeds 200]

FOLDER is a retrieval collection in BEIR's layout, such as Cranfield. All rows but "truth" use known items alone: titles
that have to find their bodies, or sentences or halves where there are no titles.

    level       each trained candidate beside the untouched vectors, before and after swapped at random by group: how
                many of the seeds the raw test rejects at 5 %; 10 of 200 are expected
    random      the candidates replaced by random maps of three strengths: how many verdicts are "better"
    permuted    candidates trained on titles of other documents, judged by the real ones: how many are "better"
    no-titles   titles permuted, and bodies of words drawn from all bodies: the verdict must be "not measured"
    power       vectors distorted by a known linear map: how many of a tenth of the seeds are "better"
    truth       each candidate: its gain on known items and on the collection's own judgements
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Options
from textcl.adaptation.corpus import Corpus, read_corpus
from textcl.adaptation.cross_fit import PULLS, Judged, cross_fit
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.known_items import known_items
from textcl.adaptation.linear_map import fit_linear_map, mapped
from textcl.adaptation.material import Material, make_material
from textcl.adaptation.trial import LEAST_SCORE
from textcl.adaptation.verdict import LEVEL, compare, judge
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.significance import sign_flip_test
from textcl.progress import Progress
from textcl.report.tables import table

STRENGTHS = (0.02, 0.1, 0.4)  # ε of I + εR, R with normal entries of variance 1 / dim
COST = (3.0, 5.0)  # nDCG@10 that the distortion of "power" costs


def read(folder: Path) -> Corpus:
    """The documents with their titles, if they have any."""
    try:
        return read_corpus(folder / "corpus.jsonl", ("title", "text"))
    except InputError:
        return read_corpus(folder / "corpus.jsonl", ("text",))


def judged(material: Material, fit: Callable[[float, np.ndarray], np.ndarray] | None = None, seed: int = 0) -> Judged:
    return cross_fit(material.ranking(), material.units, fit or material.fit, seed=seed)


def outcome(material: Material, found: Judged) -> str:
    """The verdict on known items alone: not measured, better, worse or no difference."""
    if found.before.mean() < LEAST_SCORE:
        return "not measured"
    ranking = material.ranking()
    return judge(compare(found.before, found.after, ranking.units, ranking.task), 1.0, None, []).outcome


def level(material: Material, seeds: int) -> list[list[str]]:
    found, units = judged(material), material.ranking().units
    rows = []
    for pull, after in zip(PULLS, found.each, strict=True):
        differences = np.bincount(units, after - found.before)
        rejected = 0
        for seed in range(seeds):
            swapped = differences * np.random.default_rng([seed, 1]).choice([-1, 1], len(differences))
            rejected += sign_flip_test(swapped, seed=seed) <= LEVEL
        rows.append([f"level, pull {pull:g}", f"{rejected} of {seeds} rejected"])
    return rows


def random_maps(material: Material, seeds: int) -> list[list[str]]:
    rows, dimension = [], material.documents[0].shape[1]
    for strength in STRENGTHS:
        outcomes: Counter[str] = Counter()
        for seed in Progress(f"Random maps of strength {strength:g}", seeds, "seeds").over(range(seeds)):
            generator = np.random.default_rng([seed, 2])

            draw = partial(_random_map, dimension, strength, generator)
            outcomes[outcome(material, judged(material, draw, seed))] += 1
        rows.append([f"random maps, ε {strength:g}", _counts(outcomes)])
    return rows


def _random_map(
    dimension: int, strength: float, generator: np.random.Generator, pull: float, allowed: np.ndarray
) -> np.ndarray:
    return generator.normal(0, strength / np.sqrt(dimension), (dimension, dimension)).astype(np.float32)


def permuted(material: Material, seeds: int) -> list[list[str]]:
    outcomes: Counter[str] = Counter()
    view = material.views[0]
    for seed in Progress("Permuted pairs", seeds, "seeds").over(range(seeds)):
        wrong = np.random.default_rng([seed, 3]).permutation(view.targets)

        def fit(pull: float, allowed: np.ndarray, wrong: np.ndarray = wrong) -> np.ndarray:
            rows = np.flatnonzero(allowed[material.groups[view.targets]] & allowed[material.groups[wrong]])
            return fit_linear_map(material.queries[0][rows], material.documents[0][wrong[rows]], pull)

        outcomes[outcome(material, judged(material, fit, seed))] += 1
    return [["trained on permuted pairs", _counts(outcomes)]]


def power(material: Material, seeds: int) -> list[list[str]]:
    outcomes: Counter[str] = Counter()
    dimension, ranking = material.documents[0].shape[1], material.ranking()
    rows = np.arange(len(ranking.units))
    start, costs = ranking.scores(rows, [None])[0].mean(), []
    for seed in Progress("Distorted vectors", seeds, "seeds").over(range(seeds)):
        generator = np.random.default_rng([seed, 4])
        axes = np.linalg.qr(generator.normal(size=(dimension, dimension)))[0]
        low, high = 0.0, 4.0
        while True:  # the singular values spread so far that it costs 3 to 5 points
            spread = (low + high) / 2
            stretched = axes @ np.diag(np.exp(spread * np.linspace(-1, 1, dimension))) @ axes.T
            weight = (stretched - np.eye(dimension)).astype(np.float32)
            cost = start - ranking.scores(rows, [weight])[0].mean()
            if COST[0] <= cost <= COST[1]:
                break
            low, high = (spread, high) if cost < COST[0] else (low, spread)
        costs.append(cost)
        distorted = replace(
            material,
            queries=[mapped(rows, weight) for rows in material.queries],
            documents=[mapped(rows, weight) for rows in material.documents],
        )
        outcomes[outcome(distorted, judged(distorted, seed=seed))] += 1
    return [[f"vectors distorted at a cost of {min(costs):.1f} to {max(costs):.1f}", _counts(outcomes)]]


def no_titles(encoder: Encoder, folder: Path, place: Workplace) -> list[list[str]]:
    corpus = read(folder)
    generator = np.random.default_rng(5)
    titles = [corpus.titles[i] for i in generator.permutation(len(corpus))] if corpus.titles else []
    words = [word for body in corpus.bodies for word in body.split()]
    bodies = [" ".join(generator.choice(words, len(body.split()))) for body in corpus.bodies]
    rows = []
    kinds = ([("titles permuted", corpus.bodies, titles)] if titles else []) + [("words drawn", bodies, None)]
    for name, own, given in kinds:
        views = known_items(own, given)[:1]
        ranking = make_material(encoder, views, place).ranking()
        score = ranking.scores(np.arange(len(ranking.units)), [None])[0].mean()
        rows.append([name, f"nDCG@10 {score:.1f}: {'not measured' if score < LEAST_SCORE else 'measured'}"])
    return rows


def truth(encoder: Encoder, material: Material, folder: Path, place: Workplace) -> list[list[str]]:
    found, ranking = judged(material), material.ranking()
    judgements = Judgements(str(folder), encoder, place)
    every, maps = np.arange(len(judgements.units)), [material.fit(pull) for pull in PULLS]
    before, *each = judgements.scores(every, [None, *maps])
    rows = []
    for number, pull in enumerate(PULLS):
        known = compare(found.before, found.each[number], ranking.units, ranking.task)
        own = compare(before, each[number], judgements.units, judgements.task)
        folds = found.chosen.count(number)
        rows.append(
            [f"pull {pull:g}, chosen by {folds} folds: known items", f"{known.sentence()}, p {known.p_value:.4f}"]
        )
        rows.append([f"pull {pull:g}: judgements", f"{own.sentence()}, p {own.p_value:.4f}"])
    return rows


def _counts(outcomes: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(outcomes.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seeds", type=int, default=200)
    given = parser.parse_args()
    encoder = Encoder.from_pretrained(Options(given.model).encoder())
    with nullcontext(given.cache) if given.cache else tempfile.TemporaryDirectory() as cache:
        place = Workplace(Path(cache))
        corpus = read(given.folder)
        views = known_items(corpus.bodies, corpus.titles, least=200)
        material = make_material(encoder, views[:1], place)
        for name, run in {
            "level": partial(level, material, given.seeds),
            "random": partial(random_maps, material, given.seeds),
            "permuted": partial(permuted, material, max(1, given.seeds // 10)),
            "no-titles": partial(no_titles, encoder, given.folder, place),
            "power": partial(power, material, max(1, given.seeds // 10)),
            "truth": partial(truth, encoder, material, given.folder, place),
        }.items():
            if not given.only or name in given.only:
                print(table(["what", "result"], run()), flush=True)


if __name__ == "__main__":
    main()
