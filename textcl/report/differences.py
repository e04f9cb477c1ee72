"""Whether one of two past results is better: over seeds, STS pairs, retrieval queries or fine-tuned examples."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from textcl.data.sts import STS_TASKS
from textcl.encoder import Encoder
from textcl.encoder.load import path_of
from textcl.errors import InputError, nearest
from textcl.evaluation.kinds import FINETUNE, KINDS, kind_of
from textcl.evaluation.predictions import over_examples
from textcl.evaluation.results import short_name
from textcl.evaluation.retrieval import BY_QUERY
from textcl.evaluation.significance import (
    over_pairs,
    over_queries,
    over_seeds,
    said_p,
    shown_p,
    spearman,
    williams_test,
)
from textcl.evaluation.sts import STSSuite, pair_cosines
from textcl.evaluation.transductive import recorded_overlap, transductive_tasks
from textcl.files import read_json
from textcl.model_files import is_model
from textcl.report.formats import as_csv
from textcl.report.results import PastResult, by_row, score
from textcl.report.tables import differing_data, on_differing_data, table

logger = logging.getLogger("textcl")


def compare_results(
    names: tuple[str, str],
    results: Sequence[PastResult],
    tasks: Sequence[str] = (),
    data_dir: str | Path | None = None,
) -> str:
    """Compares two results, and says in a sentence whether one is better.

    If at least one of two rows has several seeds, they are compared over seeds, by their average over the tasks that
    all of their runs have. If both sides have the values of retrieval queries, they are compared over queries, see
    `over_queries`; if both have fine-tuned tasks, over the examples of each task, see `over_examples`. Otherwise two
    encoders are compared over the pairs of STS tasks, with Williams' p-value for each task.

    Args:
        names: Two names; each is the name of a row, a JSON file that `textcl eval --json` wrote, an encoder's
            directory, a run's directory, "small" or "bundled".
        results: Past results from `find_results`.
        tasks: The tasks to compare on; default: the tasks that both have or, over pairs, the seven STS tasks.
        data_dir: The data directory.

    Raises:
        InputError: A name is neither a row nor an encoder, a file has neither retrieval nor fine-tuned tasks, or the
            two have no task in common.
    """
    rows = by_row(results)
    seeds = [rows.get(name, {}) for name in names]
    if all(seeds) and max(map(len, seeds)) > 1:
        return _compare_seeds(names, seeds, tasks)
    saved = [_saved(name, side) for name, side in zip(names, seeds, strict=True)]
    parts: list[str] = []
    if all(queries := [_queries(*each) for each in saved]):
        parts += _compare_queries(names, queries[0], queries[1])
    if all(finetuned := [_finetuned(*each) for each in saved]):
        parts += _compare_finetuned(names, finetuned[0], finetuned[1])
    if parts:
        if tasks:
            raise InputError(
                f"{names[0]} and {names[1]} are compared on their retrieval and fine-tuned tasks; leave out --task."
            )
        return "\n\n".join(parts)
    for name in names:
        if name not in rows and Path(name).suffix == ".json" and not Path(name).exists():
            raise InputError(f"There is no file {name}.")
    for name in names:
        if Path(name).is_file():
            raise InputError(
                f"{name} can be compared only with another file of `textcl eval --json`, or a row, that has retrieval "
                f"or fine-tuned tasks as well."
            )
    return _compare_encoders(names, [_encoder_of(name, rows) for name in names], tasks, data_dir)


def pairs_csv(encoder: str | Path, tasks: Sequence[str] = (), data_dir: str | Path | None = None) -> str:
    """A csv with the gold score and the cosine of every pair: task, subset, pair (from 1), gold, cosine.

    Args:
        encoder: An encoder's directory, a run's directory, "small" or "bundled".
        tasks: STS tasks; default: the seven that papers report.
        data_dir: The data directory.
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
    if len(kinds) > 1 and not tasks:  # take the first kind, as the table of a comparison does
        chosen = next(kind for kind in KINDS if kind in kinds)
        common = [task for task in common if kind_of(runs[0].results[task]).name == chosen]
    elif len(kinds) > 1:
        raise InputError(
            f"{', '.join(common)} are of several kinds, so that their average is meaningless; name tasks of one kind."
        )
    if not common:
        raise InputError(f"{names[0]} and {names[1]} have no task in common on which all of their runs were evaluated.")
    first, second = (
        {seed: fmean(score(result.results[task]) for task in common) for seed, result in side.items()} for side in seeds
    )
    found = over_seeds(first, second)
    sizes = " and ".join(f"{len(side)} run{'s' * (len(side) > 1)}" for side in seeds)
    note = _on_transductive({task for run in runs for task in run.transductive(common)})
    if differing := differing_data([run.provenance for run in runs], common):
        note += f"\n{on_differing_data(differing)}"
    what = f"Average of {', '.join(map(short_name, common))}; {sizes}; {said_p(found.p_value)}."
    return f"{found.sentence(*names)}\n{what}{note}"


@dataclass(frozen=True)
class _Queries:
    """The nDCG@10 of each query of a retrieval task, and what identifies its collection and what is ranked."""

    values: dict[str, float]
    data: Any


@dataclass(frozen=True)
class _Finetuned:
    """The result of a fine-tuned task, and what identifies its data."""

    entry: Mapping[str, Any]
    data: Any

    @property
    def scores(self) -> dict[int | None, float]:
        """The score with each seed."""
        return {int(seed): scores["score"] for seed, scores in self.entry["by_seed"].items()}


Tasks = Mapping[str, Mapping[str, Any]]


def _saved(name: str, row: Mapping[Any, PastResult]) -> tuple[Tasks, Tasks]:
    """The results and the provenance of each task, of a file or of a row with one run; empty if there are none."""
    if len(row) == 1:
        (result,) = row.values()
        return result.results, result.provenance.get("tasks", {})
    if row or not Path(name).is_file():
        return {}, {}
    content = read_json(Path(name))
    results, tasks = {}, {}
    if isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in ("results", "provenance")):
        results, tasks = content["results"], content["provenance"].get("tasks", {})
    if not _queries(results, tasks) and not _finetuned(results, tasks):
        raise InputError(
            f"{name} has no values of retrieval queries or fine-tuned tasks; write some by `textcl eval --beir --json` "
            f"or `textcl eval --finetune --json`."
        )
    return results, tasks


def _queries(results: Tasks, tasks: Tasks) -> dict[str, _Queries]:
    """The retrieval tasks that have the values of their queries."""
    return {
        task: _Queries(
            entry[BY_QUERY], [tasks.get(task, {}).get(fact) for fact in ("data_sha256", "identical_ids_left_out")]
        )
        for task, entry in results.items()
        if isinstance(entry, dict) and entry.get(BY_QUERY)
    }


def _finetuned(results: Tasks, tasks: Tasks) -> dict[str, _Finetuned]:
    """The fine-tuned tasks."""
    return {
        task: _Finetuned(entry, tasks.get(task, {}).get("data_sha256"))
        for task, entry in results.items()
        if isinstance(entry, dict) and entry.get("kind") == FINETUNE.name
    }


def _compare_queries(names: tuple[str, str], first: dict[str, _Queries], second: dict[str, _Queries]) -> list[str]:
    parts = []
    for task in _common(names, first, second, "retrieval"):
        one, two = first[task], second[task]
        if one.data != two.data or set(one.values) != set(two.values):
            raise InputError(
                f"The task {task} of {names[0]} and {names[1]} has different queries, documents or judgements, or "
                "another rule for documents with a query's id (--identical-ids)."
            )
        before, after = ([side.values[query] for query in one.values] for side in (one, two))
        found = over_queries(before, after)
        interval = f"{found.low:+.2f} to {found.high:+.2f}"
        parts.append(
            f"{found.sentence(*names)}\nnDCG@10 of {task}, {len(before):,} queries: {fmean(before):.2f} and "
            f"{fmean(after):.2f}; bootstrap: {interval}; sign-flip test: {said_p(found.p_value)}."
        )
    return parts


def _compare_finetuned(
    names: tuple[str, str], first: dict[str, _Finetuned], second: dict[str, _Finetuned]
) -> list[str]:
    parts = []
    for task in _common(names, first, second, "fine-tuned"):
        one, two = first[task], second[task]
        if one.data != two.data or one.entry["labels"] != two.entry["labels"]:
            raise InputError(f"The task {task} of {names[0]} and {names[1]} has different examples.")
        metrics = [metric for metric in one.entry["over_seeds"] if metric != "score"]
        sides = [list(side.entry["predictions"].values()) for side in (one, two)]
        found = over_examples(metrics, one.entry["labels"], sides[0], sides[1])
        part = (
            f"{found.sentence(*names)}\n{' and '.join(metrics)} of {short_name(task)}, "
            f"{len(one.entry['labels']):,} examples: {one.entry['score']:.2f} and {two.entry['score']:.2f}; bootstrap: "
            f"{found.low:+.2f} to {found.high:+.2f}, {said_p(found.p_value)}."
        )
        if min(map(len, sides)) > 1:
            again = over_seeds(one.scores, two.scores)
            part += f"\nTrained again with other seeds: {again.sentence(*names)} {said_p(again.p_value)}."
        parts.append(part)
    return parts


def _common(names: tuple[str, str], first: Mapping[str, Any], second: Mapping[str, Any], kind: str) -> list[str]:
    if common := [task for task in first if task in second]:
        return common
    raise InputError(f"{names[0]} and {names[1]} have no {kind} task in common.")


def _compare_encoders(
    names: tuple[str, str], folders: Sequence[str], tasks: Sequence[str], data_dir: str | Path | None
) -> str:
    suite = STSSuite(_sts(tasks), data_dir)
    sides, marked = [], set()
    for folder in folders:
        encoder = Encoder.from_pretrained(folder)
        marked |= transductive_tasks(recorded_overlap(encoder) or {}, suite.tasks)
        cosines, _ = pair_cosines(encoder, suite.tasks)
        sides.append([[value for subset in subsets for value in subset] for subsets in cosines.values()])
    gold = [[value for subset in subsets for value in subset.scores] for subsets in suite.tasks.values()]
    for name, side in zip(names, sides, strict=True):
        if flat := [short_name(task) for task, values in zip(suite.tasks, side, strict=True) if np.ptp(values) == 0]:
            logger.warning(
                "All cosines of %s are equal on %s: the correlation is undefined and counts as 0.",
                name,
                ", ".join(flat),
            )
    found = over_pairs(gold, sides[0], sides[1])
    rows = []
    for task, human, one, two in zip(suite.tasks, gold, *sides, strict=True):
        first, second, between = (
            float(spearman(*map(np.asarray, pair))) for pair in ((one, human), (two, human), (one, two))
        )
        p_value = williams_test(first, second, between, len(human), ranks=True)
        cells = [f"{100 * first:.2f}", f"{100 * second:.2f}", f"{100 * (second - first):+.2f}", shown_p(p_value)]
        rows.append([short_name(task), *cells])
    note = (
        f"Spearman × 100, aggregation all. p: Williams' test for each task; bootstrap for the average: "
        f"{said_p(found.p_value)}."
    )
    note += _on_transductive(marked)
    return f"{found.sentence(*names)}\n\n{table(['', *names, 'difference', 'p'], rows)}\n\n{note}"


def _on_transductive(tasks: Iterable[str]) -> str:
    """A line that names the tasks whose texts were trained on; empty if there are none."""
    names = sorted(map(short_name, tasks))
    return f"\nTransductive (evaluation texts were in a training corpus): {', '.join(names)}." if names else ""


def _encoder_of(name: str, rows: dict[str, dict[int | None, PastResult]]) -> str:
    """The directory of an encoder that is named by a row with one run, by its directory, or by its run's directory."""
    if name in rows:
        exports = [result.export for result in rows[name].values() if result.export]
        if len(exports) != 1:
            which = "has no encoder on disk" if not exports else "has several runs; name the export of one of them"
            raise InputError(f"The row {name} {which}.")
        return str(exports[0])
    for folder in (path_of(name), Path(name) / "export"):
        if is_model(folder):
            return str(folder)
    raise InputError(f"{name} is neither a row of the results nor the directory of an encoder.{nearest(name, rows)}")


def _sts(tasks: Sequence[str]) -> Sequence[str]:
    if strange := [task for task in tasks if task.partition("-")[0] not in STS_TASKS]:
        raise InputError(f"{strange[0]} has no scored pairs; STS tasks are {', '.join(STS_TASKS)}.")
    return tasks or STS_TASKS
