"""The kinds of task: one entry for each, which results, tables and comparisons use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskKind:
    """A kind of task: its name, its metrics, and how tables show them.

    Attributes:
        name: The name under "kind" in a task's result.
        title: The header of its block in a result's table.
        rows: The rows of that block: from the metric of a task to the name of its average over tasks.
        figure: The main metric of a task; models are selected by its average over tasks.
        mark: A metric that only this kind has. It identifies the kind in results of earlier versions, which do not
            name it.
        columns: The columns of a comparison for each task: from the header ("": only the task's name) to the metric.
        hub_task: What the Hugging Face hub calls such a task in a model card.
        mean_column: The header of the mean of a column over tasks, with `{}` for the column's header; None: there is
            no such column.
    """

    name: str
    title: str
    rows: Mapping[str, str]
    figure: str
    mark: str
    columns: Mapping[str, str]
    hub_task: str
    mean_column: str | None = None

    @property
    def average(self) -> str:
        """The name of the average of the main metric."""
        return self.rows[self.figure]

    def has(self, entry: Mapping[str, Any]) -> bool:
        """Whether a task's result is of this kind."""
        return bool(entry["kind"] == self.name if "kind" in entry else self.mark in entry)

    def column(self, task: str, head: str) -> str:
        """The header of a task's column in a comparison."""
        return head if self is GEOMETRY else f"{task} {head}".strip()


STS = TaskKind(
    "STS",
    "Spearman",
    {"all": "all", "mean": "mean", "wmean": "wmean"},
    "all",
    "all",
    {"": "all"},
    "sentence-similarity",
)
CLUSTERING = TaskKind(
    "clustering",
    "Clustering",
    {"accuracy": "accuracy", "nmi": "nmi", "ari": "ari"},
    "accuracy",
    "nmi",
    {"ACC": "accuracy", "NMI": "nmi"},
    "clustering",
    "Avg. {}",
)
TRANSFER = TaskKind(
    "transfer",
    "Transfer",
    {"accuracy": "transfer", "dev_accuracy": "transfer_dev"},
    "accuracy",
    "dev_accuracy",
    {"": "accuracy"},
    "text-classification",
    "Avg. transfer",
)
REGRESSION = TaskKind(
    "regression",
    "Regression",
    {"pearson": "regression_pearson", "spearman": "regression_spearman"},
    "pearson",
    "dev_pearson",
    {"": "pearson"},
    "sentence-similarity",
)
RETRIEVAL = TaskKind(
    "retrieval",
    "Retrieval",
    {name: name for name in ("ndcg@10", "mrr@10", "recall@10", "recall@100")},
    "ndcg@10",
    "ndcg@10",
    {"": "ndcg@10"},
    "text-retrieval",
)
FINETUNE = TaskKind(
    "finetune",
    "Fine-tuning",
    {"score": "finetune"},
    "score",
    "predictions",
    {"": "score"},
    "text-classification",
    "Avg. finetune",
)
GEOMETRY = TaskKind(
    "geometry",
    "Geometry",
    {name: name for name in ("alignment", "uniformity", "effective_rank", "anisotropy", "hubness")},
    "effective_rank",
    "effective_rank",
    {"align": "alignment", "uniform": "uniformity", "eff. rank": "effective_rank"},
    "feature-extraction",
)
KINDS = {kind.name: kind for kind in (STS, CLUSTERING, TRANSFER, REGRESSION, RETRIEVAL, FINETUNE, GEOMETRY)}
"""All kinds by name. The order is that of tables; a model is selected by the first kind that a result has."""


def kind_of(entry: Mapping[str, Any]) -> TaskKind:
    """The kind of a task's result."""
    return next(kind for kind in KINDS.values() if kind.has(entry))
