"""Whether one of two past results is better: over seeds for rows of several runs, over pairs for two encoders."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from textcl.data.sts import STS_TASKS
from textcl.encoder import Encoder
from textcl.encoder.load import BUNDLED
from textcl.errors import InputError, nearest
from textcl.evaluation.kinds import KINDS, kind_of
from textcl.evaluation.results import short_name
from textcl.evaluation.significance import over_pairs, over_seeds, spearman, williams_test
from textcl.evaluation.sts import STSSuite, pair_cosines
from textcl.report.formats import as_csv
from textcl.report.results import PastResult, by_row, score
from textcl.report.tables import table


def compare_results(
    names: tuple[str, str],
    results: Sequence[PastResult],
    tasks: Sequence[str] = (),
    data_dir: str | Path | None = None,
) -> str:
    """Says whether one of two is better, in a sentence.

    Two rows of which one at least was trained with several seeds are compared over seeds, by their average over the
    tasks that all of their runs have. Two encoders are compared over the pairs of STS tasks, with Williams' p-value for
    each task.

    Args:
        names: Each the name of a row, an encoder's directory, a run's directory, or "bundled".
        results: From `find_results`.
        tasks: Restricts the tasks; by default those that both have, or, over pairs, the seven STS tasks.
        data_dir: Where the sets are.

    Raises:
        InputError: If one is neither a row nor an encoder, or there is nothing that both could be compared on.
    """
    rows = by_row(results)
    seeds = [rows.get(name, {}) for name in names]
    if all(seeds) and max(map(len, seeds)) > 1:
        return _compare_seeds(names, seeds, tasks)
    return _compare_encoders(names, [_encoder_of(name, rows) for name in names], tasks, data_dir)


def pairs_csv(encoder: str | Path, tasks: Sequence[str] = (), data_dir: str | Path | None = None) -> str:
    """The gold score and the cosine of every pair: task, subset, pair (from 1), gold, cosine.

    Args:
        encoder: As of `compare_results`.
        tasks: STS tasks; by default the seven.
        data_dir: Where the sets are.
    """
    suite = STSSuite(_sts(tasks), data_dir)
    cosines, _ = pair_cosines(Encoder.from_pretrained(_encoder_of(str(encoder), {})), suite.tasks)
    rows = [
        {"task": task, "subset": subset.name, "pair": number, "gold": gold, "cosine": value}
        for task, subsets in suite.tasks.items()
        for subset, values in zip(subsets, cosines[task], strict=True)
        for number, (gold, value) in enumerate(zip(subset.scores, values.tolist(), strict=True), start=1)
    ]
    return as_csv(["task", "subset", "pair", "gold", "cosine"], rows)


def _compare_seeds(names: tuple[str, str], seeds: Sequence[dict[int | None, PastResult]], tasks: Sequence[str]) -> str:
    runs = [result for side in seeds for result in side.values()]
    common = [task for task in runs[0].results if all(task in run.results for run in runs)]
    common = [task for task in common if (task in tasks if tasks else not task.endswith("-dev"))]
    kinds = {kind_of(runs[0].results[task]).name for task in common}
    if len(kinds) > 1 and not tasks:  # as the table of a comparison: STS first
        chosen = next(kind for kind in KINDS if kind in kinds)
        common = [task for task in common if kind_of(runs[0].results[task]).name == chosen]
    elif len(kinds) > 1:
        raise InputError(f"{', '.join(common)} are of several kinds, whose average means nothing; name tasks of one.")
    if not common:
        raise InputError(f"{names[0]} and {names[1]} have no task in common on which all of their runs were scored.")
    first, second = (
        {seed: fmean(score(result.results[task]) for task in common) for seed, result in side.items()} for side in seeds
    )
    found = over_seeds(first, second)
    sizes = " and ".join(f"{len(side)} run{'s' * (len(side) > 1)}" for side in seeds)
    marked = sorted({short_name(task) for run in runs for task in run.transductive(common)})
    note = f"\nTransductive, since evaluation texts were in a training corpus: {', '.join(marked)}." if marked else ""
    what = f"Average of {', '.join(map(short_name, common))}; {sizes}; p = {found.p_value:.4f}."
    return f"{found.sentence(*names)}\n{what}{note}"


def _compare_encoders(
    names: tuple[str, str], folders: Sequence[str], tasks: Sequence[str], data_dir: str | Path | None
) -> str:
    suite = STSSuite(_sts(tasks), data_dir)
    sides = []
    for folder in folders:
        cosines, _ = pair_cosines(Encoder.from_pretrained(folder), suite.tasks)
        sides.append([[value for subset in subsets for value in subset] for subsets in cosines.values()])
    gold = [[value for subset in subsets for value in subset.scores] for subsets in suite.tasks.values()]
    found = over_pairs(gold, sides[0], sides[1])
    rows = []
    for task, human, one, two in zip(suite.tasks, gold, *sides, strict=True):
        first, second, between = (
            float(spearman(*map(np.asarray, pair))) for pair in ((one, human), (two, human), (one, two))
        )
        p_value = williams_test(first, second, between, len(human), ranks=True)
        cells = [f"{100 * first:.2f}", f"{100 * second:.2f}", f"{100 * (second - first):+.2f}", f"{p_value:.4f}"]
        rows.append([short_name(task), *cells])
    note = f"Spearman × 100, aggregation all; p: Williams' test of each task; p of the average: {found.p_value:.4f}."
    return f"{found.sentence(*names)}\n\n{table(['', *names, 'difference', 'p'], rows)}\n\n{note}"


def _encoder_of(name: str, rows: dict[str, dict[int | None, PastResult]]) -> str:
    """Where the encoder lies that is named: by a row of one run, by its directory, or by that of its run."""
    if name in rows:
        exports = [result.export for result in rows[name].values() if result.export]
        if len(exports) != 1:
            which = "is no encoder on disk" if not exports else "are several runs; name the export of one of them"
            raise InputError(f"Of the row {name} there {which}.")
        return str(exports[0])
    for folder in (BUNDLED if name == "bundled" else Path(name), Path(name) / "export"):
        if (folder / "config.json").is_file():
            return str(folder)
    raise InputError(f"{name} is no row of the results and no directory of an encoder.{nearest(name, rows)}")


def _sts(tasks: Sequence[str]) -> Sequence[str]:
    if strange := [task for task in tasks if task.partition("-")[0] not in STS_TASKS]:
        raise InputError(f"{strange[0]} has no scored pairs; STS tasks are {', '.join(STS_TASKS)}.")
    return tasks or STS_TASKS
