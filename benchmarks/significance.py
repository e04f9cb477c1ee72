"""How often each test of two encoders finds a difference, when there is none and when there is one.

    python -m benchmarks.significance [--draws 2000] [--bootstrap 200] [--only WORDS]

Every draw generates data with a known difference and tests whether a difference is shown at 95 %. Seeds: normal scores
with a standard deviation of 0.3 points. Pairs: human scores rounded to steps, and normal cosines of two encoders. Their
correlations are those of two encoders of the standard run on STS-B (0.57 with the human scores, 0.97 with each other),
and the numbers of pairs are those of the STS sets.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from textcl.evaluation.significance import over_pairs, over_seeds, spearman, williams_test
from textcl.report.tables import table

POINTS = (0.0, 0.5, 1.0, 2.0)
SPREAD = 0.3  # standard deviation of a method's scores over seeds, in points
WITH_GOLD, BETWEEN = 0.57, 0.97
STS = (3108, 1500, 3750, 3000, 1186, 1379, 4927)  # the numbers of pairs of the seven tasks
STSB = STS[5]

Shows = Callable[[np.random.Generator, float], bool]


def seeds(
    generator: np.random.Generator, points: float, sizes: tuple[int, int], spreads: tuple[float, float], paired: bool
) -> bool:
    """Whether a difference over seeds is shown."""
    first, second = (generator.normal(60, spread, size) for spread, size in zip(spreads, sizes, strict=True))
    start = 0 if paired else len(first)
    return over_seeds(dict(enumerate(first)), dict(enumerate(second + points, start))).shown


def pairs(generator: np.random.Generator, points: float, sizes: tuple[int, ...], bootstrap: int) -> bool:
    """Whether a difference over pairs is shown."""
    gold, first, second = zip(*(draw_pairs(generator, points, size) for size in sizes), strict=True)
    return over_pairs(gold, first, second, draws=bootstrap, seed=int(generator.integers(2**31))).shown


def williams(
    generator: np.random.Generator, points: float, size: int, with_gold: float = WITH_GOLD, ranks: bool = True
) -> bool:
    """Whether Williams' test has p < 0.05."""
    gold, first, second = draw_pairs(generator, points, size, with_gold)
    if ranks:
        correlations = [float(spearman(*sides)) for sides in ((first, gold), (second, gold), (first, second))]
    else:
        r = np.corrcoef([gold, first, second])
        correlations = [r[0, 1], r[0, 2], r[1, 2]]
    return williams_test(*correlations, size, ranks=ranks) < 0.05


def draw_pairs(generator: np.random.Generator, points: float, size: int, with_gold: float = WITH_GOLD) -> np.ndarray:
    """Human scores and the cosines of two encoders whose Spearman correlations differ by `points`, (3, size)."""
    # for normal variables, Spearman's correlation is 6/π · arcsin(Pearson's / 2)
    first, second = 2 * np.sin(np.pi / 6 * np.array([with_gold, with_gold + points / 100]))
    between = 2 * np.sin(np.pi / 6 * BETWEEN)
    matrix = np.array([[1, first, second], [first, 1, between], [second, between, 1]])
    rows = np.linalg.cholesky(matrix) @ generator.standard_normal((3, size))
    rows[0] = np.round(4 * rows[0]) / 4  # people score in steps, so there are ties
    return rows


def cases(bootstrap: int) -> dict[str, Shows]:
    equal = (SPREAD, SPREAD)
    return {
        "over seeds: 3, paired": partial(seeds, sizes=(3, 3), spreads=equal, paired=True),
        "over seeds: 5, paired": partial(seeds, sizes=(5, 5), spreads=equal, paired=True),
        "over seeds: 10, paired": partial(seeds, sizes=(10, 10), spreads=equal, paired=True),
        "over seeds: 3 and 3, Welch": partial(seeds, sizes=(3, 3), spreads=equal, paired=False),
        "over seeds: 5 and 5, Welch": partial(seeds, sizes=(5, 5), spreads=equal, paired=False),
        "over seeds: 10 and 10, Welch": partial(seeds, sizes=(10, 10), spreads=equal, paired=False),
        "over seeds: 5 of sd 0.1 and 3 of sd 0.5, Welch": partial(
            seeds, sizes=(5, 3), spreads=(0.1, 0.5), paired=False
        ),
        "over pairs: 50": partial(pairs, sizes=(50,), bootstrap=bootstrap),
        "over pairs: 200": partial(pairs, sizes=(200,), bootstrap=bootstrap),
        "over pairs: STS-B": partial(pairs, sizes=(STSB,), bootstrap=bootstrap),
        "over pairs: the seven STS tasks": partial(pairs, sizes=STS, bootstrap=bootstrap),
        "Williams, Pearson: STS-B": partial(williams, size=STSB, ranks=False),
        "Williams, Spearman: 50 pairs": partial(williams, size=50),
        "Williams, Spearman: 200 pairs": partial(williams, size=200),
        "Williams, Spearman: STS-B": partial(williams, size=STSB),
        "Williams, Spearman: STS-B, correlations of 0.8": partial(williams, size=STSB, with_gold=0.8),
    }


def rate(shows: Shows, points: float, draws: int) -> float:
    """The share of draws, in percent, in which a difference is shown."""
    generator = np.random.default_rng(7)
    return 100 * sum(shows(generator, points) for _ in range(draws)) / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="generated data sets for each number")
    parser.add_argument("--bootstrap", type=int, default=200, help="draws of each bootstrap over pairs")
    parser.add_argument("--only", default="", help="compute only the rows whose names contain this text")
    options = parser.parse_args()
    chosen = {name: shows for name, shows in cases(options.bootstrap).items() if options.only in name}
    with ProcessPoolExecutor() as pool:
        found = {
            name: [pool.submit(rate, shows, points, options.draws) for points in POINTS]
            for name, shows in chosen.items()
        }
        rows = [[name, *(f"{each.result():.1f}" for each in figures)] for name, figures in found.items()]
    print(table(["shown, in %, at a true difference of", *map(str, POINTS)], rows))
    print(f"\n{options.draws:,} draws each: a rate of 5 % has a standard error of {np.sqrt(475 / options.draws):.1f}.")


if __name__ == "__main__":
    main()
