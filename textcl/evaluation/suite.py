"""Evaluating an encoder on any of the tasks in one call: `evaluate` and `Suite`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textcl.data.catalogue import data_directory
from textcl.data.clustering import CLUSTERING_SETS
from textcl.data.sts import STS_TASKS
from textcl.data.transfer import CLASSIFICATIONS, PROBING_TASKS, REGRESSIONS, TRANSFER_TASKS
from textcl.errors import InputError, nearest
from textcl.evaluation.clustering import Clustering
from textcl.evaluation.geometry import Geometry
from textcl.evaluation.results import Result, join
from textcl.evaluation.sts import STSSuite
from textcl.evaluation.transductive import mark_transductive, recorded_overlap
from textcl.evaluation.transfer import Transfer
from textcl.texts import described

# From the names that `evaluate` accepts to STS tasks, clustering sets, transfer tasks and "geometry".
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
    """Evaluates an encoder on tasks. Each distinct sentence of all STS tasks is encoded once.

    If the encoder's directory has an `overlap.json`, as textcl's exports do, a subset of which at least 1 % was
    in the training corpus is marked as transductive.

    Args:
        model: "bundled", an exported directory, a transformers or sentence-transformers directory, a hub name, or
            any object with `.encode(list[str])`.
        tasks: Keys of `TASKS`, as a list or separated by commas. "sts": the seven tasks that papers report;
            "clustering": the three sets of short texts; "transfer": the seven tasks of SentEval that papers average;
            "probing": those of the ten probing tasks whose files are installed; "geometry": how the embeddings of
            STS-B dev are distributed. All kinds may be combined in one result. Empty: only the `evaluators`.
        evaluators: Further evaluators on your own data, such as `Retrieval` and `LabelledPairs`.
        data_dir: The data directory; default: `textcl.data.data_directory()`.
        batch_size: Passed on to `encode` if given.
        pooling: Replaces the pooling of the model, if `model` is a name or path.
        max_length: Replaces the maximal length of the model, if `model` is a name or path.
        bf16: Load the weights in bfloat16 if the machine supports it and `model` is a name or path.
        mode: For transfer tasks, see `Transfer`: "senteval" or "fast".
        setting: For transfer tasks: "test" or "dev".
        cache: For transfer tasks: a folder for embeddings and finished tasks, from which an interrupted evaluation is
            resumed.

    Raises:
        InputError: A task is unknown (the message suggests the nearest), a directory is not a model, or a set is not
            installed.

    Example:
        >>> evaluate("my-encoder", tasks="sts12,stsb").average["all"]  # doctest: +SKIP
        >>> evaluate("my-encoder", tasks="stackoverflow").results["StackOverflow"]["accuracy"]  # doctest: +SKIP
    """
    if not isinstance(model, (str, os.PathLike)) and not hasattr(model, "encode"):
        raise InputError(f"The model must be a name, a path or an object with `encode`, not {described(model)}.")
    # made before the model is loaded, so that a typing error in a task is reported at once
    suite = Suite(tasks, data_dir, evaluators=evaluators, mode=mode, setting=setting, cache=cache)
    encoder = loaded(model, pooling, max_length, bf16)
    arguments = {} if batch_size is None else {"batch_size": batch_size}
    counts = recorded_overlap(encoder)
    return mark_transductive(suite(encoder, **arguments), counts)


def loaded(model: Any, pooling: str | None, max_length: int | None, bf16: bool) -> Any:
    """The encoder of a name or path; another object is returned as it is.

    Raises:
        InputError: It cannot be loaded, or settings were given for an object.
    """
    if isinstance(model, (str, os.PathLike)):
        import torch

        from textcl.device import bf16_if_there
        from textcl.encoder import Encoder

        return Encoder.from_pretrained(
            os.fspath(model),
            pooling=pooling,
            max_length=max_length,
            dtype=torch.bfloat16 if bf16_if_there(bf16) else torch.float32,
        )
    if pooling is not None or max_length is not None or bf16:
        raise InputError(
            "pooling, max_length and bf16 apply only if evaluate loads the model; set them on the encoder itself."
        )
    return model


class Suite:
    """Evaluates encoders on any of `TASKS`; all kinds of task are in one result. The arguments are those of `evaluate`.

    Attributes:
        tasks: The names of the tasks in the result, in order, without those of `evaluators`.
        pairs: The names of the STS tasks among them.

    Raises:
        InputError: A task is unknown (the message suggests the nearest), or a set is not installed.
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
        if not isinstance(evaluators, (list, tuple)) or not all(callable(each) for each in evaluators):
            raise InputError(f"evaluators must be a list of evaluators, not {evaluators!r}.")
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

    @property
    def data_hashes(self) -> dict[str, str]:
        """The hash of the data of each of `tasks`, as in the provenance of a result."""
        return {task: digest for each in self.evaluators for task, digest in getattr(each, "data_hashes", {}).items()}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        results = []
        for evaluator in self.evaluators:
            result = evaluator(encoder, **encode_arguments)
            if not isinstance(result, Result):
                raise InputError(
                    f"The evaluator {type(evaluator).__name__} returned an object of type {type(result).__name__}; "
                    f"evaluate joins only evaluators that return a textcl.evaluation.Result."
                )
            results.append(result)
        return join(results)


def _present(names: Sequence[str], data_dir: str | os.PathLike[str] | None) -> list[str]:
    """The names without the probing tasks whose files are missing; all names if all ten probing files are missing."""
    folder = (data_directory() if data_dir is None else Path(data_dir)) / "probing"
    present = [name for name, file in PROBING_TASKS.items() if (folder / file).is_file()]
    return [name for name in names if name in present or name not in PROBING_TASKS or not present]


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """The names in a result for the given keys of `TASKS`.

    Args:
        tasks: As in `evaluate`.

    Raises:
        InputError: A task is unknown (the message suggests the nearest), or none is given.

    Example:
        >>> task_names("sts16,stsb")
        ['STS16', 'STSBenchmark']
    """
    given = tasks.split(",") if isinstance(tasks, str) else list(tasks) if isinstance(tasks, Iterable) else [tasks]
    if not all(isinstance(name, str) for name in given):
        raise InputError(f"tasks must be names, as a list or with commas between them, not {tasks!r}.")
    names = [name.strip() for name in given]
    chosen: dict[str, None] = {}
    for name in names:
        known = name.lower().removesuffix("-test")
        if known not in TASKS:
            raise InputError(f"There is no task '{name}'; there are {', '.join(TASKS)}.{nearest(name, TASKS)}")
        chosen.update(dict.fromkeys(TASKS[known]))
    if not chosen:
        raise InputError(f"There is no task to evaluate; name some of {', '.join(TASKS)}.")
    return list(chosen)
