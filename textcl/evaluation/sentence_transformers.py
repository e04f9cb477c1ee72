"""textcl's evaluators in the trainer of sentence-transformers. Only who uses it pays for the import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator

from textcl.files import write_json


class SentenceTransformersEvaluator(BaseEvaluator):
    """Lets `SentenceTransformerTrainer(evaluator=…)` take an evaluator of textcl.

    The metrics are the averages of its result, after its name: "stsb-dev_all", "stsb-dev_mean" and so on; the one to
    choose by is "stsb-dev_primary". Where the trainer gives a folder, the whole result is written there as
    `NAME-STEP.json`, with its provenance.

    Args:
        evaluator: Such as `STSBenchmark(split="dev")`, `Retrieval`, `Clustering` or `Transfer`.

    Example:
        >>> trainer = SentenceTransformerTrainer(  # doctest: +SKIP
        ...     model, args, train_dataset=pairs, loss=loss,
        ...     evaluator=SentenceTransformersEvaluator(STSBenchmark(split="dev")),
        ... )
    """

    def __init__(self, evaluator: Any) -> None:
        super().__init__()
        self.evaluator = evaluator
        self.name = evaluator.name
        self.primary_metric = f"{self.name}_primary"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        result = self.evaluator(model)
        if output_path is not None:
            write_json(Path(output_path) / f"{self.name}-{steps}.json", result.to_dict())
        metrics: dict[str, float] = self.prefix_name_to_metrics(
            {**result.average, "primary": result.primary}, self.name
        )
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    @property
    def description(self) -> str:
        """What the model card calls it."""
        return str(self.name)
