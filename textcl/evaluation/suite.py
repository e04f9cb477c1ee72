"""Scoring encoders: `evaluate` for one call, evaluators for a trainer, baselines to compare with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from textcl.data.catalogue import data_directory
from textcl.data.clustering import CLUSTERING_SETS
from textcl.data.sts import STS_TASKS
from textcl.data.transfer import CLASSIFICATIONS, PROBING_TASKS, REGRESSIONS, TRANSFER_TASKS
from textcl.errors import InputError, nearest
from textcl.evaluation.clustering import Clustering
from textcl.evaluation.geometry import Geometry
from textcl.evaluation.overlap import mark_transductive
from textcl.evaluation.results import Result, merge
from textcl.evaluation.sts import STSSuite
from textcl.evaluation.transfer import Transfer

# What `evaluate` is asked for -> the STS tasks, clustering sets and transfer tasks that are scored for it.
TASKS: dict[str, tuple[str, ...]] = {
    "sts": STS_TASKS,
    **{task.lower(): (task,) for task in STS_TASKS[:5]},
    "stsb": ("STSBenchmark",),
    "stsb-dev": ("STSBenchmark-dev",),
    "sickr": ("SICKRelatedness",),
    "sickr-dev": ("SICKRelatedness-dev",),
    "clustering": CLUSTERING_SETS,
    **{name.lower(): (name,) for name in CLUSTERING_SETS},
    "transfer": TRANSFER_TASKS,
    **{name.lower(): (name,) for name in CLASSIFICATIONS if name != "SICKEntailment"},
    "sick-e": ("SICKEntailment",),
    "probing": tuple(PROBING_TASKS),
    "geometry": (Geometry.name,),
    "sickr-regression": (REGRESSIONS[0],),
    "stsb-regression": (REGRESSIONS[1],),
}


def evaluate(
    model: Any,
    tasks: str | Sequence[str] = "sts",
    *,
    evaluators: Sequence[Any] = (),
    data_dir: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    pooling: str | None = None,
    max_length: int | None = None,
    bf16: bool = False,
    mode: str = "senteval",
    setting: str = "test",
    cache: str | os.PathLike[str] | None = None,
) -> Result:
    """Scores an encoder on tasks, each distinct sentence encoded once over all STS tasks.

    An encoder whose directory holds an `overlap.json`, as textcl's exports do, has the subsets that its training
    corpus touches marked as transductive.

    Args:
        model: "bundled", an exported directory, a transformers or sentence-transformers directory, a hub name, or
            anything with `.encode(list[str])`.
        tasks: Keys of `TASKS`, as a list or with commas between them: "sts" is the seven tasks of the papers,
            "clustering" the three sets of short texts, "transfer" the seven tasks of SentEval that the papers average,
            "probing" those of the ten whose files are there, "geometry" what the embeddings of STS-B dev look like. All
            kinds go together in one result. Empty where there are `evaluators` and nothing else is wanted.
        evaluators: On own data, such as `Retrieval` and `LabelledPairs`, scored beside the tasks.
        data_dir: The data directory; by default `textcl.data.data_directory()`.
        batch_size: Passed on to `encode` where given.
        pooling: Overrides the pooling of a model that is loaded here.
        max_length: Overrides the maximal length of a model that is loaded here.
        bf16: Load the weights of a model that is loaded here in bfloat16, where the machine has it.
        mode: Of transfer tasks, see `Transfer`: "senteval" or "fast".
        setting: Of transfer tasks: "test" or "dev".
        cache: Of transfer tasks: a folder for embeddings and finished tasks, from which a killed run goes on.

    Raises:
        InputError: An unknown task (the nearest is named), a directory that is no model, a set that is not installed.

    Example:
        >>> evaluate("my-encoder", tasks="sts12,stsb").average["all"]  # doctest: +SKIP
        >>> evaluate("my-encoder", tasks="stackoverflow").results["StackOverflow"]["accuracy"]  # doctest: +SKIP
    """
    # before the model is loaded: a typing error shows at once
    suite = Suite(tasks, data_dir, evaluators=evaluators, mode=mode, setting=setting, cache=cache)
    if isinstance(model, (str, os.PathLike)):
        import torch

        from textcl.device import bf16_if_there
        from textcl.encoder import Encoder

        encoder: Any = Encoder.from_pretrained(
            os.fspath(model),
            pooling=pooling,
            max_length=max_length,
            dtype=torch.bfloat16 if bf16_if_there(bf16) else torch.float32,
        )
    elif pooling is not None or max_length is not None or bf16:
        raise InputError(
            "pooling, max_length and bf16 apply where evaluate loads the model; set them on the encoder itself."
        )
    else:
        encoder = model
    arguments = {} if batch_size is None else {"batch_size": batch_size}
    result = suite(encoder, **arguments)
    source = getattr(encoder, "source", None)
    if source is not None and (record := Path(source) / "overlap.json").is_file():
        return mark_transductive(result, json.loads(record.read_text(encoding="utf-8")))
    return result


class Suite:
    """Scores encoders on any of `TASKS`, STS, clustering and transfer in one result.

    Args:
        tasks: As of `evaluate`.
        data_dir: The data directory; by default `textcl.data.data_directory()`.
        evaluators: As of `evaluate`.
        mode: As of `evaluate`.
        setting: As of `evaluate`.
        cache: As of `evaluate`.

    Attributes:
        tasks: The names of the results, in their order, but for those of `evaluators`.
        pairs: Those among them that are STS.

    Raises:
        InputError: An unknown task (the nearest is named), a set that is not installed.
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        data_dir: str | os.PathLike[str] | None = None,
        *,
        evaluators: Sequence[Any] = (),
        mode: str = "senteval",
        setting: str = "test",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        names = task_names(tasks) if tasks or not evaluators else []
        transfers = [name for name in names if name in (*CLASSIFICATIONS, *REGRESSIONS)]
        clusterings = [name for name in names if name in CLUSTERING_SETS]
        clouds = [name for name in names if name == Geometry.name]
        self.pairs = [name for name in names if name not in (*transfers, *clusterings, *clouds)]
        if set(PROBING_TASKS) <= set(transfers):  # "probing"
            transfers = _present(transfers, data_dir)
        self.tasks = [*self.pairs, *clusterings, *transfers, *clouds]
        self.evaluators: list[Any] = [
            *([STSSuite(self.pairs, data_dir)] if self.pairs else []),
            *([Clustering(clusterings, data_dir)] if clusterings else []),
            *([Transfer(transfers, data_dir, mode=mode, setting=setting, cache=cache)] if transfers else []),
            *([Geometry(data_dir)] if clouds else []),
            *evaluators,
        ]

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        return reduce(merge, (evaluator(encoder, **encode_arguments) for evaluator in self.evaluators))


def _present(names: Sequence[str], data_dir: str | os.PathLike[str] | None) -> list[str]:
    """The names without the probing tasks whose files are missing, unless all ten are."""
    folder = (data_directory() if data_dir is None else Path(data_dir)) / "probing"
    present = [name for name, file in PROBING_TASKS.items() if (folder / file).is_file()]
    return [name for name in names if name in present or name not in PROBING_TASKS or not present]


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """The names that results have for what was asked for.

    Args:
        tasks: As of `evaluate`.

    Raises:
        InputError: An unknown task (the nearest is named), or none.

    Example:
        >>> task_names("sts16,stsb")
        ['STS16', 'STSBenchmark']
    """
    names = [name.strip() for name in (tasks.split(",") if isinstance(tasks, str) else tasks)]
    chosen: dict[str, None] = {}
    for name in names:
        known = name.lower().removesuffix("-test")
        if known not in TASKS:
            raise InputError(f"There is no task '{name}'; there are {', '.join(TASKS)}.{nearest(name, TASKS)}")
        chosen.update(dict.fromkeys(TASKS[known]))
    if not chosen:
        raise InputError(f"There is no task to score; name some of {', '.join(TASKS)}.")
    return list(chosen)
