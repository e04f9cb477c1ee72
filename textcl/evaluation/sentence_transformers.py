"""textcl's evaluators in the trainer of sentence-transformers.

This is a module of its own because it imports sentence-transformers, which takes time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator

from textcl.evaluation.label_free import Scores
from textcl.files import write_json


class SentenceTransformersEvaluator(BaseEvaluator):
    """Wraps a textcl evaluator for `SentenceTransformerTrainer(evaluator=…)`.

    The metrics are the averages of the evaluator's result (of `LabelFree`: the score of each criterion), with its name
    as prefix: "stsb-dev_all", "stsb-dev_mean" and so on. The metric to select by is "stsb-dev_primary". If the trainer
    gives a folder, the whole result with its provenance is written there as `NAME-STEP.json`.

    Args:
        evaluator: An evaluator of textcl that encodes texts, such as `STSBenchmark(split="dev")`, `Retrieval`,
            `Clustering`, `Transfer` or `LabelFree`. `Finetune` trains an `Encoder`, so it is not one of these.
        name: The prefix of the metrics and files; default: the evaluator's name. In sentence-transformers'
            `SequentialEvaluator` the metrics of two evaluators with one name overwrite each other, so two files of
            pairs need different names.

    Example:
        >>> trainer = SentenceTransformerTrainer(  # doctest: +SKIP
        ...     model, args, train_dataset=pairs, loss=loss,
        ...     evaluator=SentenceTransformersEvaluator(STSBenchmark(split="dev")),
        ... )
    """

    def __init__(self, evaluator: Any, name: str | None = None) -> None:
        super().__init__()
        self.evaluator = evaluator
        self.name = name or evaluator.name
        self.primary_metric = f"{self.name}_primary"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        result = self.evaluator(model)
        if output_path is not None:
            write_json(Path(output_path) / f"{self.name}-{steps}.json", result.to_dict())
        averages = result.scores if isinstance(result, Scores) else result.average
        metrics: dict[str, float] = self.prefix_name_to_metrics({**averages, "primary": result.primary}, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    @property
    def description(self) -> str:
        """The name of the evaluator in the model card."""
        return str(self.name)
