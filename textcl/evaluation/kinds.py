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
    name="STS",
    title="Spearman",
    rows={"all": "all", "mean": "mean", "wmean": "wmean"},
    figure="all",
    mark="all",
    columns={"": "all"},
    hub_task="sentence-similarity",
)
CLUSTERING = TaskKind(
    name="clustering",
    title="Clustering",
    rows={"accuracy": "accuracy", "nmi": "nmi", "ari": "ari"},
    figure="accuracy",
    mark="nmi",
    columns={"ACC": "accuracy", "NMI": "nmi"},
    hub_task="clustering",
    mean_column="Avg. {}",
)
TRANSFER = TaskKind(
    name="transfer",
    title="Transfer",
    rows={"accuracy": "transfer", "dev_accuracy": "transfer_dev"},
    figure="accuracy",
    mark="dev_accuracy",
    columns={"": "accuracy"},
    hub_task="text-classification",
    mean_column="Avg. transfer",
)
REGRESSION = TaskKind(
    name="regression",
    title="Regression",
    rows={"pearson": "regression_pearson", "spearman": "regression_spearman"},
    figure="pearson",
    mark="dev_pearson",
    columns={"": "pearson"},
    hub_task="sentence-similarity",
)
RETRIEVAL = TaskKind(
    name="retrieval",
    title="Retrieval",
    rows={name: name for name in ("ndcg@10", "mrr@10", "recall@10", "recall@100")},
    figure="ndcg@10",
    mark="ndcg@10",
    columns={"": "ndcg@10"},
    hub_task="text-retrieval",
)
FINETUNE = TaskKind(
    name="finetune",
    title="Fine-tuning",
    rows={"score": "finetune"},
    figure="score",
    mark="predictions",
    columns={"": "score"},
    hub_task="text-classification",
    mean_column="Avg. finetune",
)
GEOMETRY = TaskKind(
    name="geometry",
    title="Geometry",
    rows={name: name for name in ("alignment", "uniformity", "effective_rank", "anisotropy", "hubness")},
    figure="effective_rank",
    mark="effective_rank",
    columns={"align": "alignment", "uniform": "uniformity", "eff. rank": "effective_rank"},
    hub_task="feature-extraction",
)
KINDS = {kind.name: kind for kind in (STS, CLUSTERING, TRANSFER, REGRESSION, RETRIEVAL, FINETUNE, GEOMETRY)}
"""All kinds by name. The order is that of tables; a model is selected by the first kind that a result has."""


def kind_of(entry: Mapping[str, Any]) -> TaskKind:
    """The kind of a task's result."""
    return next(kind for kind in KINDS.values() if kind.has(entry))
