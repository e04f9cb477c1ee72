"""Fine-tuning: how well the whole encoder learns tasks with labels, as papers report it on GLUE.

The recipe is BERT's (Devlin et al. 2019, section 4.1): three passes, batches of 32, and a rate chosen from a few.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcl.data.glue import FinetuneTask, part, read_finetune
from textcl.data.transfer import Examples
from textcl.encoder import Encoder
from textcl.encoder.backbone import longest_input
from textcl.environment import launched
from textcl.errors import InputError
from textcl.evaluation.cache import Finished, cache_folder
from textcl.evaluation.encoding import made_with
from textcl.evaluation.kinds import FINETUNE
from textcl.evaluation.predictions import scores
from textcl.evaluation.results import Result, averages
from textcl.evaluation.tuning import BATCH, EPOCHS, WARM_UP, WEIGHT_DECAY, steps, train_and_predict
from textcl.progress import Progress
from textcl.ranges import Range

RATES = (2e-5, 3e-5, 5e-5)
MAX_LENGTH = 128
LEAST = 50  # examples to train on; a tenth of fewer cannot choose a rate
_WHOLE = Range(at_least=1, whole=True)


class Finetune:
    """Trains a copy of the whole encoder, with a layer on top, on each task, and scores its predictions.

    A pair of texts is one row of tokens, with the tokenizer's separator between them. Prompts are not used. The rate is
    the one of `RATES` whose model, trained with seed 0 on nine tenths of the training examples, scores best on the
    remaining tenth. With this rate one model per seed is trained on all of them.

    Args:
        tasks: Such as "mrpc,sst2" or "glue:FOLDER", see `textcl.data.glue.read_finetune`.
        data_dir: The data directory of SentEval's sets; default: `textcl.data.data_directory()`.
        seeds: The number of models trained for each task; their seeds count from 0.
        examples: The largest number of training examples of each task. Default: all, but 5,000 of SentEval's sst2.
        max_length: Tokens after which a row is cut, at most what the backbone takes.
        cache: A folder for finished trainings, from which an interrupted evaluation is resumed.

    Raises:
        InputError: A task is unknown, a file is missing or malformed, a task has fewer than `LEAST` training examples,
            or a number is out of its range.

    Example:
        >>> Finetune("mrpc")(Encoder.from_pretrained("bundled")).primary  # doctest: +SKIP
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        data_dir: str | os.PathLike[str] | None = None,
        *,
        seeds: int = 3,
        examples: int | None = None,
        max_length: int = MAX_LENGTH,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, number in (
            ("seeds", seeds),
            ("max_length", max_length),
            ("examples", LEAST if examples is None else examples),
        ):
            _WHOLE.check(name, number)
        self.tasks = read_finetune(tasks, data_dir, examples)
        self.seeds, self.max_length, self.cache = range(seeds), max_length, cache
        for task in self.tasks:
            if len(task.train) < LEAST:
                raise InputError(
                    f"{task.name} has {len(task.train)} examples to train on, but fine-tuning needs at least {LEAST}."
                )
        self.name = f"finetune-{self.tasks[0].name}" if len(self.tasks) == 1 else "finetune"

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Result:
        """Fine-tunes copies of an encoder, which itself is not changed.

        Args:
            encoder: A `textcl.Encoder`.
            **encode_arguments: Not used; other evaluators pass them on to `encoder.encode`.

        Raises:
            InputError: It is another kind of encoder, pools mask tokens, or several GPUs or processes are in use.
        """
        if not isinstance(encoder, Encoder):
            raise InputError(f"Only a textcl.Encoder can be fine-tuned, not {type(encoder).__name__}; load one.")
        if encoder.pooling == "mask_token":
            raise InputError("Fine-tuning uses no prompt, which pooling mask_token needs; choose another pooling.")
        if launched().ranks > 1 or torch.cuda.device_count() > 1:
            raise InputError(
                "Fine-tuning uses one process and one GPU: start it without torchrun, with CUDA_VISIBLE_DEVICES=0."
            )
        folder = None if self.cache is None else cache_folder(self.cache, encoder, {})
        results: dict[str, dict[str, Any]] = {}
        facts: dict[str, dict[str, Any]] = {}
        for task in self.tasks:
            run = _TaskRun(task, encoder, self.max_length, folder)
            found = run.scores(self.seeds)
            for split, entry in found.items():
                name = f"finetune-{task.name}" + ("-mm" if split == "dev_mismatched" else "")
                results[name] = entry
                facts[name] = {
                    "split": split,
                    "texts": {"train": len(task.train), split: len(task.scored[split])},
                    "data_sha256": task.data_sha256(),
                    "convention": run.convention,
                }
        provenance = {
            "tasks": facts,
            "finetune": {
                "primary": "score",
                "score": "mean of the task's metrics, in points, and mean over seeds",
                "seeds": len(self.seeds),
                "rates": list(RATES),
                "aggregation": "mean over tasks",
            },
            **made_with(encoder),
        }
        return Result(results, averages(results), provenance)


class _TaskRun:
    """The trainings of one encoder on one task."""

    def __init__(self, task: FinetuneTask, encoder: Encoder, max_length: int, folder: Path | None) -> None:
        self.task, self.encoder, self.finished = task, encoder, Finished(folder)
        self.max_length = min(max_length, longest_input(encoder.backbone, encoder.tokenizer))
        self.convention = {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "schedule": "linear",
            "warm_up": WARM_UP,
            "weight_decay": WEIGHT_DECAY,
            "max_length": self.max_length,
            "head": "dropout and a linear layer on the pooled vector",
        }

    def scores(self, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
        """The result of each scored split."""
        order = np.random.default_rng(0).permutation(len(self.task.train))
        tenth = max(1, len(order) // 10)
        held_out, rest = (part(self.task.train, np.sort(rows)) for rows in (order[:tenth], order[tenth:]))
        total = len(RATES) * steps(len(rest)) + len(seeds) * steps(len(self.task.train))
        with Progress(f"Fine-tuning on {self.task.name}", total, "steps") as bar:
            by_rate = {}
            for rate in RATES:
                (found,) = self._predictions(rest, {"held out": held_out}, rate, 0, bar).values()
                by_rate[rate] = scores(self.task.metrics, held_out.labels, found)["score"]
            rate = max(RATES, key=lambda rate: by_rate[rate])  # of equal scores the lowest rate
            by_seed = {seed: self._predictions(self.task.train, self.task.scored, rate, seed, bar) for seed in seeds}
        return {
            split: self._entry(examples.labels, {seed: each[split] for seed, each in by_seed.items()}, rate, by_rate)
            for split, examples in self.task.scored.items()
        }

    def _entry(
        self, labels: list[Any], predictions: dict[int, list[Any]], rate: float, by_rate: dict[float, float]
    ) -> dict[str, Any]:
        by_seed = {seed: scores(self.task.metrics, labels, each) for seed, each in predictions.items()}
        columns = {name: np.array([each[name] for each in by_seed.values()]) for name in ("score", *self.task.metrics)}
        figures = {
            name: {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None}
            for name, values in columns.items()
        }
        return {
            "kind": FINETUNE.name,
            "score": figures["score"]["mean"],
            "over_seeds": figures,
            "by_seed": {str(seed): each for seed, each in by_seed.items()},
            "chosen": {"rate": rate, "by_rate": {f"{each:g}": score for each, score in by_rate.items()}},
            "labels": labels,
            "predictions": {str(seed): each for seed, each in predictions.items()},
        }

    def _predictions(
        self, train: Examples, scored: dict[str, Examples], rate: float, seed: int, bar: Progress
    ) -> dict[str, list[Any]]:
        """The predictions on each split of a model trained with a rate and a seed, from the cache if they are there."""
        splits = {name: len(examples) for name, examples in {"train": train, **scored}.items()}
        convention = {**self.convention, "rate": rate, "seed": seed, "splits": splits}
        key = {
            "task": f"finetune-{self.task.name}",
            "data_sha256": self.task.data_sha256(),
            "convention": convention,
        }
        if (found := self.finished.find(key, "predictions")) is not None:
            bar.skip(steps(len(train)))
            return dict(found)
        predictions = train_and_predict(
            self.encoder, self.task.classes, train, scored, rate=rate, seed=seed, max_length=self.max_length, bar=bar
        )
        self.finished.add(key, "predictions", predictions)
        return predictions
