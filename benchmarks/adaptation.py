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
    truth       each candidate: its gain on known items, on the collection's own judgements, and on general pairs of
                sentences (STS-B dev, where it is installed)

Four rows train the encoder, for up to three minutes a model on two cores, so they run only if they are named:

    python -m benchmarks.adaptation FOLDER --model DIRECTORY --only level-trained [--models 20]
    python -m benchmarks.adaptation FOLDER --model bundled --only power-trained [--models 20] [--steps 100]
    python -m benchmarks.adaptation FOLDER --model DIRECTORY --only truth-trained [--steps 100]
    python -m benchmarks.adaptation FILE --model DIRECTORY --only labels-trained --seeds 3 [--minutes 20]

    level-trained   as "level", with one trained candidate: so many models, each trained on another half of the groups;
                    before and after swapped --seeds times for each
    power-trained   from an encoder that is not tuned, which training helps: so many models, each of other documents and
                    trained on half of them; how many are "better", beside the gain on the documents that are left
    labels-trained  FOLDER is a file of labelled texts: `adapt --train --for clusters` sees all texts and 2,000 of the
                    labels; is what it exports worse on the others? So many --seeds
    truth-trained   each candidate of `adapt --train`, trained on all documents, beside the linear maps: its gain on the
                    collection's own judgements, which select nothing here
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Options
from textcl.adaptation.adapt import adapt
from textcl.adaptation.blend import blended
from textcl.adaptation.contest import Contest
from textcl.adaptation.corpus import Corpus, read_corpus
from textcl.adaptation.cross_fit import PULLS, Judged, cross_fit
from textcl.adaptation.evidence import Ranking
from textcl.adaptation.guard import compare_guards
from textcl.adaptation.judgements import Judgements
from textcl.adaptation.known_items import known_items
from textcl.adaptation.labels import Labels
from textcl.adaptation.linear_map import fit_linear_map, mapped
from textcl.adaptation.material import Material, make_material
from textcl.adaptation.rows import pair_rows
from textcl.adaptation.schedule import possible
from textcl.adaptation.split import Exam, Exams, Side, make_exams
from textcl.adaptation.trained import Candidate, train
from textcl.adaptation.trial import LEAST_SCORE, Settings, Trial, Work
from textcl.adaptation.verdict import LEVEL, compare, judge
from textcl.adaptation.workplace import Workplace
from textcl.data.corpora import load_labelled
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.significance import sign_flip_test
from textcl.progress import Progress
from textcl.report.tables import table

STRENGTHS = (0.02, 0.1, 0.4)  # ε of I + εR, R with normal entries of variance 1 / dim
COST = (3.0, 5.0)  # nDCG@10 that the distortion of "power" costs
TRAINED = Candidate("pairs", "last two layers", 2e-5)
ALPHA, STEPS, DOCUMENTS = 0.5, 40, 600  # so that a model takes at most three minutes
LABELLED = 2000  # texts whose labels `adapt` sees


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
    for pull, after in zip(PULLS, found.by_candidate, strict=True):
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
    costs = []
    for seed in Progress("Distorted vectors", seeds, "seeds").over(range(seeds)):
        weight, cost = distortion(ranking, dimension, seed)
        costs.append(cost)
        distorted = replace(
            material,
            queries=[mapped(rows, weight) for rows in material.queries],
            documents=[mapped(rows, weight) for rows in material.documents],
        )
        outcomes[outcome(distorted, judged(distorted, seed=seed))] += 1
    return [[f"vectors distorted at a cost of {min(costs):.1f} to {max(costs):.1f}", _counts(outcomes)]]


def distortion(ranking: Ranking, dimension: int, seed: int) -> tuple[np.ndarray, float]:
    """A linear map W that costs 3 to 5 points, and how many; its singular values are spread as far as that needs."""
    start = mean_score(ranking)
    axes = np.linalg.qr(np.random.default_rng([seed, 4]).normal(size=(dimension, dimension)))[0]
    low, high = 0.0, 4.0
    while True:
        spread = (low + high) / 2
        stretched = axes @ np.diag(np.exp(spread * np.linspace(-1, 1, dimension))) @ axes.T
        weight = (stretched - np.eye(dimension)).astype(np.float32)
        cost = start - mean_score(ranking, weight)
        if COST[0] <= cost <= COST[1]:
            return weight, cost
        low, high = (spread, high) if cost < COST[0] else (low, spread)


def trained_on_half(
    encoder: Encoder, corpus: Corpus, seed: int, steps: int, alpha: float
) -> tuple[Encoder, np.ndarray, np.ndarray, np.ndarray]:
    """The encoder after training on half of the groups; units, and scores before and after, of the judging queries."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(encoder, corpus, Workplace(Path(folder) / "vectors"), Settings(seed=seed, train=True))
        views = known_items(corpus.bodies, corpus.titles, least=1)[:1]
        material = make_material(encoder, views, work.place)
        exams = make_exams(material, views, work)
        rows = pair_rows(views[0], material.groups, exams.allowed, steps, seed)
        trained = train(encoder, TRAINED, rows, steps, Path(folder) / "run", seed=seed)
        after = blended(encoder, trained, alpha)
        return after, exams.judges.make(encoder).units, *(exams.judges.scores(Side(each)) for each in (encoder, after))


def level_trained(encoder: Encoder, folder: Path, models: int, swaps: int) -> list[list[str]]:
    corpus, counts, begin = read(folder), [], time.monotonic()
    for seed in range(models):
        _, units, before, after = trained_on_half(encoder, corpus.part(DOCUMENTS, seed), seed, STEPS, ALPHA)
        differences = np.bincount(np.unique(units, return_inverse=True)[1], after - before)
        rejected = 0
        for swap in range(swaps):
            swapped = differences * np.random.default_rng([seed, swap, 5]).choice([-1, 1], len(differences))
            rejected += sign_flip_test(swapped, seed=swap) <= LEVEL
        counts.append(rejected)
        print(f"model {seed}: {before.mean():.1f} → {after.mean():.1f}, {rejected} of {swaps} rejected", flush=True)
    each = (time.monotonic() - begin) / models
    name = f"level, {TRAINED.name}, α {ALPHA:g}, {STEPS} steps, {DOCUMENTS} documents"
    return [[name, f"{sum(counts)} of {models * swaps} rejected; {min(counts)} to {max(counts)} of {swaps} a model"],
            ["seconds a model", f"{each:.0f}"]]  # fmt: skip


def power_trained(encoder: Encoder, folder: Path, models: int, steps: int) -> list[list[str]]:
    corpus, begin = read(folder), time.monotonic()
    outcomes, gains = Counter[str](), []
    for seed in range(models):
        part = corpus.part(DOCUMENTS, seed)
        after, units, *scores = trained_on_half(encoder, part, seed, steps, alpha=1.0)
        found = compare(*scores, units, "known items")
        outcomes[outcome := judge(found, 1.0, None, []).outcome] += 1
        others = without(corpus, part)
        gains.append(known_item_score(after, others) - known_item_score(encoder, others))
        print(f"model {seed}: {found.sentence()}, {outcome}; {gains[-1]:+.1f} on the other documents", flush=True)
    each = (time.monotonic() - begin) / models
    gained = f"{np.mean(gains):.1f} ({min(gains):.1f} to {max(gains):.1f}) points on the other documents"
    name = f"power, {TRAINED.name}, {steps} steps, {DOCUMENTS} documents, which gains {gained}"
    return [[name, _counts(outcomes)], ["seconds a model", f"{each:.0f}"]]


def without(corpus: Corpus, part: Corpus) -> Corpus:
    """The documents that are not in a part."""
    inside = set(part.bodies)
    kept = [i for i, body in enumerate(corpus.bodies) if body not in inside]
    titles = None if corpus.titles is None else [corpus.titles[i] for i in kept]
    return replace(corpus, bodies=[corpus.bodies[i] for i in kept], titles=titles)


def known_item_score(encoder: Encoder, corpus: Corpus) -> float:
    """nDCG@10 of the first view."""
    with tempfile.TemporaryDirectory() as vectors:
        views = known_items(corpus.bodies, corpus.titles, least=1)[:1]
        ranking = make_material(encoder, views, Workplace(Path(vectors))).ranking()
        return mean_score(ranking)


def mean_score(ranking: Ranking, weight: np.ndarray | None = None) -> float:
    """nDCG@10 of all queries, with a linear map behind the vectors or without."""
    return float(ranking.scores(np.arange(len(ranking.units)), [weight])[0].mean())


def truth_trained(encoder: Encoder, material: Material, corpus: Corpus, folder: Path, steps: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as vectors:
        work = Work(encoder, corpus, Workplace(Path(vectors)), Settings(train=True))
        judges = Exam(lambda each: Judgements(str(folder), each, work.place))
        evidence = judges.make(encoder)
        exams = Exams(np.ones(material.units, bool), judges, judges)
        contest = Contest(Trial("", plan={"steps": steps}), material, work, exams)
        maps = contest.maps()
        best = max(maps, key=lambda each: each.scores.mean())
        rows = []
        for number, candidate in enumerate([None, *possible(material.views[:1], corpus.bodies, "search")]):
            entrants = maps if candidate is None else contest.blends(number, candidate)
            seconds = contest.trial.candidates[-1]["seconds"]
            for each in entrants:
                found, beside = (
                    compare(before, each.scores, evidence.units, evidence.task)
                    for before in (contest.before, best.scores)
                )
                name = each.name if each.pull is not None else f"{each.name}, α {each.alpha:g}"
                rows.append([name, f"{found.sentence()}; beside {best.name}: {beside.sentence()}; {seconds:.0f} s"])
                print(" | ".join(rows[-1]), flush=True)
    return rows


def labels_trained(encoder: Encoder, file: Path, seeds: int, minutes: float) -> list[list[str]]:
    labelled = load_labelled(file)
    texts, labels = list(labelled["text"]), np.array(labelled["label"])
    rows = []
    for seed in range(seeds):
        order = np.random.default_rng([seed, 6]).permutation(len(texts))
        seen, others = order[:LABELLED], order[LABELLED:]
        with tempfile.TemporaryDirectory() as folder:
            dev = Path(folder) / "labels.jsonl"
            dev.write_text("".join(json.dumps({"text": texts[i], "label": int(labels[i])}) + "\n" for i in seen))
            found = adapt(
                encoder.name, texts, Path(folder) / "adapted", purpose="clusters", dev=f"labels:{dev}", train=True,
                minutes=minutes, seed=seed, ledger=Path(folder) / "looks.jsonl",
            )  # fmt: skip
            own = [texts[i] for i in others]
            sides = (Labels(each.encode(own), labels[others], "") for each in (encoder, found.encoder))
            every = np.arange(len(own))
            before, after = (np.mean([side.right(every, None, start) for start in range(3)], axis=0) for side in sides)
        judged = compare(before, after, every, "the other texts", "accuracy", unit="texts")
        rows += [[f"seed {seed}: {each['name']}", str(each)] for each in found.record["candidates"]]
        rows += [[f"seed {seed}", f"{found.lines[-2]} {found.lines[-1]}"]]
        rows += [[f"seed {seed}: other texts", f"{judged.sentence()}, p {judged.p_value:.4f}"]]
        print("\n".join(" | ".join(row) for row in rows if row[0].startswith(f"seed {seed}")), flush=True)
    return rows


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
        score = mean_score(ranking)
        rows.append([name, f"nDCG@10 {score:.1f}: {'not measured' if score < LEAST_SCORE else 'measured'}"])
    return rows


def truth(encoder: Encoder, material: Material, folder: Path, place: Workplace) -> list[list[str]]:
    found, ranking = judged(material), material.ranking()
    judgements = Judgements(str(folder), encoder, place)
    every, maps = np.arange(len(judgements.units)), [material.fit(pull) for pull in PULLS]
    before, *each = judgements.scores(every, [None, *maps])
    rows = []
    for number, pull in enumerate(PULLS):
        known = compare(found.before, found.by_candidate[number], ranking.units, ranking.task)
        own = compare(before, each[number], judgements.units, judgements.task)
        folds = found.chosen.count(number)
        rows.append(
            [f"pull {pull:g}, chosen by {folds} folds: known items", f"{known.sentence()}, p {known.p_value:.4f}"]
        )
        rows.append([f"pull {pull:g}: judgements", f"{own.sentence()}, p {own.p_value:.4f}"])
        general = compare_guards(encoder, encoder, place, maps[number])
        rows += [[f"pull {pull:g}: {guard.task}", guard.sentence()] for guard in general]
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
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20.0)
    given = parser.parse_args()
    encoder = Encoder.from_pretrained(Options(given.model).encoder())
    if given.only == ["labels-trained"]:
        return print(table(["what", "result"], labels_trained(encoder, given.folder, given.seeds, given.minutes)))
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
            "level-trained": partial(level_trained, encoder, given.folder, given.models, given.seeds),
            "power-trained": partial(power_trained, encoder, given.folder, given.models, given.steps),
            "truth-trained": partial(truth_trained, encoder, material, corpus, given.folder, given.steps),
        }.items():
            if name in given.only if given.only else not name.endswith("-trained"):
                print(table(["what", "result"], run()), flush=True)


if __name__ == "__main__":
    main()
