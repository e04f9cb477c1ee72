"""Semantic textual similarity: how well the ranking of pairs by cosine agrees with their ranking by people."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textcl.data.formats import csv_records, plain_suffix
from textcl.data.rows import say_quoted
from textcl.data.sts import STS_TASKS, Subset, hash_subsets, normalise_space, parse_score, read_sts
from textcl.errors import InputError
from textcl.evaluation.encoding import cosine, encode_distinct, made_with
from textcl.evaluation.kinds import STS
from textcl.evaluation.results import Result, averages
from textcl.evaluation.significance import SAMPLES, bootstrap_error, resamples, spearman_of_samples
from textcl.texts import described, names_in

logger = logging.getLogger("textcl")


class STSSuite:
    """The seven STS tasks that papers report: STS12 to STS16, STS-B test and SICK-R test.

    Each distinct sentence of all tasks is encoded once, in one call of `encoder.encode`.

    Args:
        tasks: Names from `STS_TASKS`; "STSBenchmark-dev" and "SICKRelatedness-dev" (and "-train") are other splits.
        data_dir: The data directory; default: `textcl.data.data_directory()`.

    Raises:
        InputError: A task is unknown, or a set is not installed or has a wrong number of pairs.

    Example:
        >>> STSSuite()(encoder).table()  # doctest: +SKIP
    """

    name = "sts"

    def __init__(self, tasks: Sequence[str] = STS_TASKS, data_dir: str | os.PathLike[str] | None = None) -> None:
        directory = None if data_dir is None else Path(data_dir)
        self.tasks: dict[str, list[Subset]] = {}
        for task in names_in(tasks):
            name, _, split = task.partition("-")
            self.tasks[task.removesuffix("-test")] = read_sts(name, directory, split or "test")

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates an encoder.

        Args:
            encoder: Any object with `.encode(list[str])` that returns one row per text: an array, a tensor, a list or
                a sparse matrix.
            **encode_arguments: Passed on to `encoder.encode`.
        """
        return score(encoder, self.tasks, **encode_arguments)

    @property
    def data_hashes(self) -> dict[str, str]:
        """The hash of the scored pairs of each task."""
        return {task: hash_subsets(subsets) for task, subsets in self.tasks.items()}

    def error_of_difference(self, before: np.ndarray, after: np.ndarray) -> float:
        """The bootstrap error of the difference of two results, see `error_of_difference`."""
        return error_of_difference(self.tasks, before, after)


class STSBenchmark(STSSuite):
    """Only STS-B (Cer et al. 2017): `split="dev"` to select by, `split="test"` to report.

    Args:
        split: "test", "dev" or "train".
        data_dir: The data directory; default: `textcl.data.data_directory()`.
    """

    def __init__(self, split: str = "test", data_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__([f"STSBenchmark-{split}"], data_dir)
        self.name = f"stsb-{split}"


class LabelledPairs:
    """A user's own scored pairs: a .tsv or .csv file (also as .gz, .xz or .zst) with three columns: text, text, score.

    A first row whose third cell is not a number is a header and is skipped.

    Args:
        path: The path of the file.

    Raises:
        InputError: The file is missing or has fewer than three pairs, all scores are equal, or a row does not have
            three cells with a number in the third (the message names the line).
    """

    name = "pairs"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"LabelledPairs takes the path of a .tsv or .csv file, not {described(path)}.")
        file = Path(path)
        suffix = plain_suffix(file.name)
        if suffix not in (".tsv", ".csv"):
            raise InputError(
                f"{file} is not a .tsv or .csv file (or .gz, .xz or .zst of one); give labelled pairs as one of these."
            )
        subset = Subset(file.name, [], [], [])
        tabs, quoted = suffix == ".tsv", False
        for row, (number, cells) in enumerate(csv_records(file, tabs=tabs)):
            if len(cells) != 3:
                raise InputError(
                    f"{file}, line {number}: the line must have three cells (text, text, score), but has {len(cells)}."
                )
            if row == 0 and not _is_number(cells[2]):
                continue
            quoted = quoted or (tabs and say_quoted(file, number, cells))
            subset.scores.append(parse_score(cells[2].strip(), file, number))
            subset.first.append(normalise_space(cells[0]))
            subset.second.append(normalise_space(cells[1]))
        if len(subset) < 3:
            raise InputError(f"{file} holds {len(subset)} scored pairs; a correlation needs at least three.")
        if len(set(subset.scores)) == 1:
            raise InputError(f"{file}: all pairs have the score {subset.scores[0]:g}, so they have no ranking.")
        self.tasks = {"pairs": [subset]}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Evaluates an encoder, like `STSSuite.__call__`."""
        return score(encoder, self.tasks, **encode_arguments)

    def error_of_difference(self, before: np.ndarray, after: np.ndarray) -> float:
        """The bootstrap error of the difference of two results, see `error_of_difference`."""
        return error_of_difference(self.tasks, before, after)


def score(encoder: Any, tasks: Mapping[str, Sequence[Subset]], **encode_arguments: Any) -> Result:
    """Evaluates an encoder on tasks, each a list of subsets of scored pairs.

    If all cosines of a subset are equal (a collapsed encoder) or all its human scores are, the correlation is undefined
    and counts as 0, with a warning and an entry under `provenance["undefined"]`. A NaN would make every average NaN. If
    this is so for every subset of a task, all aggregations of the task are 0: the joined pairs are then ordered by
    their subset alone.

    Raises:
        InputError: The encoder did not return one row per text, or returned NaN or infinite values.
    """
    cosines, unique_texts = pair_cosines(encoder, tasks, **encode_arguments)
    undefined: list[str] = []
    results = {task: _aggregate(task, subsets, cosines[task], undefined) for task, subsets in tasks.items()}
    if undefined:
        logger.warning(
            "All cosines (or all human scores) are equal on %s: the correlation is undefined and counts as 0.",
            ", ".join(undefined),
        )
    provenance = {
        "tasks": {
            task: {
                "split": task.partition("-")[2] or ("test" if task in STS_TASKS else None),
                "pairs": sum(map(len, subsets)),
                "data_sha256": hash_subsets(subsets),
            }
            for task, subsets in tasks.items()
        },
        "metric": "Spearman correlation of cosine similarity with human scores, in points",
        "aggregation": {
            "primary": "all",
            "all": "one correlation over the joined subsets",
            "mean": "mean over subsets",
            "wmean": "mean over subsets, weighted with their pairs",
        },
        "unique_texts": unique_texts,
        "undefined": undefined,
        **made_with(encoder),
    }
    items = np.concatenate([values for task in tasks for values in cosines[task]])
    return Result(results, averages(results), provenance, items)


def error_of_difference(tasks: Mapping[str, Sequence[Subset]], before: np.ndarray, after: np.ndarray) -> float:
    """The standard error of the difference of two primary scores, by the paired bootstrap over pairs.

    Each sample draws as many pairs as each task has, with replacement, the same pairs for both encoders.

    Args:
        tasks: The tasks that both results are on.
        before: The cosines of the first result (`Result.items`), (pairs of all tasks,).
        after: The cosines of the second result, (pairs of all tasks,).
    """
    golds = [np.concatenate([subset.scores for subset in subsets]) for subsets in tasks.values()]
    ends = np.cumsum([len(gold) for gold in golds])[:-1]
    scores = np.zeros((2, SAMPLES))
    for gold, *cosines in zip(golds, np.split(before, ends), np.split(after, ends), strict=True):
        counts = resamples(len(gold))
        scores += [spearman_of_samples(gold, values, counts) for values in cosines]
    return bootstrap_error(*(100 * scores / len(tasks)))


def pair_cosines(
    encoder: Any, tasks: Mapping[str, Sequence[Subset]], **encode_arguments: Any
) -> tuple[dict[str, list[np.ndarray]], int]:
    """For each task and subset the cosines of its pairs, `(pairs,)`; and the number of distinct texts.

    Raises:
        InputError: In the same cases as `encode_distinct`.
    """
    texts = (text for subsets in tasks.values() for subset in subsets for text in (*subset.first, *subset.second))
    rows, row_of = encode_distinct(encoder, texts, **encode_arguments)

    def of(subset: Subset) -> np.ndarray:
        return cosine(rows[[row_of[text] for text in subset.first]], rows[[row_of[text] for text in subset.second]])

    return {task: [of(subset) for subset in subsets] for task, subsets in tasks.items()}, len(row_of)


def _aggregate(
    task: str, subsets: Sequence[Subset], cosines: Sequence[np.ndarray], undefined: list[str]
) -> dict[str, Any]:
    from scipy.stats import pearsonr, spearmanr

    metrics = {"spearman": spearmanr, "pearson": pearsonr}
    weights = [len(subset) for subset in subsets]
    joined = np.concatenate(list(cosines))
    gold = np.concatenate([np.asarray(subset.scores) for subset in subsets])
    flat = {
        subset.name: np.ptp(values) == 0 or np.ptp(subset.scores) == 0
        for subset, values in zip(subsets, cosines, strict=True)
    }
    undefined.extend(f"{task} {name}" for name, is_flat in flat.items() if is_flat)

    aggregated: dict[str, dict[str, float]] = {}
    each: dict[str, dict[str, Any]] = {subset.name: {"pairs": len(subset)} for subset in subsets}
    for metric, correlate in metrics.items():
        for subset, values in zip(subsets, cosines, strict=True):
            value = 0.0 if flat[subset.name] else float(correlate(values, subset.scores).statistic)
            each[subset.name][metric] = 100 * value
        scores = [each[subset.name][metric] for subset in subsets]
        aggregated[metric] = {
            "all": 0.0 if all(flat.values()) else 100 * float(correlate(joined, gold).statistic),
            "mean": float(np.mean(scores)),
            "wmean": float(np.average(scores, weights=weights)),
        }
    return {"kind": STS.name, **aggregated["spearman"], "pearson": aggregated["pearson"], "subsets": each}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
