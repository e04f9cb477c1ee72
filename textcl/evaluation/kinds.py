"""The kinds of task: one entry each, from which results, tables and comparisons take what they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskKind:
    """All that textcl knows of a kind of task.

    Attributes:
        name: The name under "kind" in a task's result.
        title: The head of its block in a result's table.
        rows: Rows of that block: the metric of a task, and the name of its average over tasks.
        figure: The one metric that stands for a task, and whose average is selected on.
        mark: A metric that results of other kinds do not have; results of earlier versions do not name their kind.
        columns: Columns of a comparison for each task: their head, "" for the task's name alone, and the metric.
        mean_column: The head of the columns' mean over tasks, with the column's head in `{}`; None: there is none.
    """

    name: str
    title: str
    rows: Mapping[str, str]
    figure: str
    mark: str
    columns: Mapping[str, str]
    mean_column: str | None = None

    @property
    def average(self) -> str:
        """The name of the average that is selected on."""
        return self.rows[self.figure]

    def column(self, task: str, head: str) -> str:
        """The head of a task's column in a comparison."""
        return head if self is GEOMETRY else f"{task} {head}".strip()


STS = TaskKind("STS", "Spearman", {"all": "all", "mean": "mean", "wmean": "wmean"}, "all", "all", {"": "all"})
CLUSTERING = TaskKind(
    "clustering",
    "Clustering",
    {"accuracy": "accuracy", "nmi": "nmi", "ari": "ari"},
    "accuracy",
    "nmi",
    {"ACC": "accuracy", "NMI": "nmi"},
    "Avg. {}",
)
TRANSFER = TaskKind(
    "transfer",
    "Transfer",
    {"accuracy": "transfer", "dev_accuracy": "transfer_dev"},
    "accuracy",
    "dev_accuracy",
    {"": "accuracy"},
    "Avg. transfer",
)
REGRESSION = TaskKind(
    "regression",
    "Regression",
    {"pearson": "regression_pearson", "spearman": "regression_spearman"},
    "pearson",
    "dev_pearson",
    {"": "pearson"},
)
RETRIEVAL = TaskKind(
    "retrieval",
    "Retrieval",
    {name: name for name in ("ndcg@10", "mrr@10", "recall@10", "recall@100")},
    "ndcg@10",
    "ndcg@10",
    {"": "ndcg@10"},
)
GEOMETRY = TaskKind(
    "geometry",
    "Geometry",
    {name: name for name in ("alignment", "uniformity", "effective_rank", "anisotropy", "hubness")},
    "effective_rank",
    "effective_rank",
    {"align": "alignment", "uniform": "uniformity", "eff. rank": "effective_rank"},
)
KINDS = {kind.name: kind for kind in (STS, CLUSTERING, TRANSFER, REGRESSION, RETRIEVAL, GEOMETRY)}
"""In the order in which their average is selected on, and shown."""


def kind_of(entry: Mapping[str, Any]) -> TaskKind:
    """The kind of a task's result."""
    if "kind" in entry:
        return KINDS[entry["kind"]]
    return next(kind for kind in KINDS.values() if kind.mark in entry)
