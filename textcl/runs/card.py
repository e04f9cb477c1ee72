"""The model card of a run: data, settings, scores with their convention, command, and papers to cite."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from textcl.data.catalogue import hub_dataset
from textcl.data.overlap import is_transductive
from textcl.data.retrieval import beir_dev_split
from textcl.encoder import Encoder
from textcl.encoder.card import cell, code, fenced, file_name, model_card, score
from textcl.evaluation.kinds import RETRIEVAL, STS, kind_of
from textcl.evaluation.results import Result, measures, short_name
from textcl.files import atomic_write
from textcl.methods.find import find_method, imported_method
from textcl.methods.matryoshka import PAPER
from textcl.runs.flags import beir_folder, without_folders
from textcl.runs.record import RunRecord

_TRAINING = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "pooling",
    "test_pooling",
    "dimensions",
    "max_length",
    "dropout",
    "dev",
)

_OF_DEV = {  # what a dev set's first score is
    "stsb-dev": ("STSBenchmark-dev", "dev", "Spearman × 100, all", "all", STS.hub_task),
    "retrieval": ("retrieval", "", "nDCG@10", "ndcg@10", RETRIEVAL.hub_task),
}
_ON_THE_HUB = {
    **dict.fromkeys(("all", "mean", "wmean", "spearman"), "spearmanr"),
    "pearson": "pearsonr",
    "matthews": "matthews_correlation",
}  # our names of metrics that have another name there


class _Row(NamedTuple):
    """A score of a run: the task and its split, the metric as people read it and as results name it, the value."""

    task: str
    split: str
    measure: str
    metric: str
    kind: str
    value: float
    seen: bool


def write_card(export: str | Path, encoder: Encoder, record: RunRecord, result: Result | None = None) -> None:
    """Writes the README.md of a run's export.

    Args:
        export: The directory of the export.
        encoder: The exported encoder.
        record: The record of the run.
        result: The scores of the export, if it was evaluated.
    """
    recipe = record.recipe
    rows = _rows(record, result)
    sections = {
        "Training": _training(record),
        "Scores": _scores(record, rows),
        "How to make it again": f"{fenced(record.command)}\n\n"
        "Files are named without their folders; every flag that is not in the command has its default. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in record.versions.items())}.",
    }
    if len(sizes := (recipe.get("dimensions") or "").replace(" ", "").split(",")) > 1:
        sections["Fewer dimensions"] = (
            f"The vectors are trained so that they can be cut to their first {' or '.join(sizes[1:])} numbers: "
            f'`SentenceTransformer("path/to/this", truncate_dim={sizes[-1]})`.'
        )
    if cited := papers(recipe):
        sections["Citation"] = "\n".join(f"- {paper}" for paper in cited)
    card = model_card(
        encoder.describe(),
        encoder.settings(),
        base_model=recipe["model"],
        source=encoder.source,
        tags=[recipe["method"]],
        datasets=[each for each in [hub_dataset(record.data.file)] if each],
        scores=[
            score(
                row.kind,
                row.task.removesuffix(f"-{row.split}"),
                row.split,
                _ON_THE_HUB.get(row.metric, row.metric),
                row.value,
                name=row.measure + " (transductive)" * row.seen,
                title=short_name(row.task.removesuffix(f"-{row.split}")),
            )
            for row in rows
        ],
        sections=sections,
    )
    with atomic_write(Path(export) / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


def papers(recipe: dict[str, Any]) -> list[str]:
    """The papers that a recipe's method and options follow; none if the recipe is empty.

    An own method is not imported for this, since a report on somebody else's run must not run code.

    Example:
        >>> [paper[:8] for paper in papers({"method": "simcse-plus", "queue_size": 160})]
        ['Gao, Yao', 'Wu, Gao,']
    """
    method = imported_method(recipe.get("method", ""))
    if method is None:
        return []
    options = {**method.option_papers, "dimensions": PAPER}
    further = [paper for option, paper in options.items() if recipe.get(option)]
    return [each for each in dict.fromkeys([method.paper, *further]) if each]


def _training(record: RunRecord) -> str:
    recipe, data = record.recipe, record.data
    method = list(inspect.signature(find_method(recipe["method"])).parameters)[1:]  # the first is the encoder
    facts = {
        "method": recipe["method"],
        "data": Path(data.file).name,
        "rows": f"{data.rows:,}",
        "SHA-256 of the data": data.sha256,
        "seed": record.seed,
        "steps": f"{record.steps:,}",
        "processes": record.processes,
        "precision": record.precision,
        **{name: recipe.get(name) for name in (*_TRAINING, *method)},
    }
    if facts["dev"]:
        facts["dev"] = without_folders(facts["dev"])
    if facts.get("teacher"):
        facts["teacher"] = file_name(facts["teacher"])
    return "\n".join(f"- {name}: {code(value)}" for name, value in facts.items() if value not in (None, [], {}))


def _seen(record: RunRecord) -> list[str]:
    """The tasks whose texts were in the training data."""
    counts = record.data.overlap
    return [task for task, subsets in counts.items() if any(is_transductive(count) for count in subsets.values())]


def _rows(record: RunRecord, result: Result | None) -> list[_Row]:
    """The scores of the result, or else the score that chose the checkpoint."""
    seen = _seen(record)
    if result is None:
        if record.dev is None or (record.dev.before is None and not record.dev.chosen):  # SCCL's `unchanged`
            return []  # a score without that of the untouched encoder says how training went, and nothing of quality
        name = record.dev.set
        of_dev = _OF_DEV.get(name, (name, "", "its first score", "score", STS.hub_task))
        row = _Row(*of_dev, record.dev.score, of_dev[0] in seen)
        folder = beir_folder(record.recipe.get("dev"))
        return [row if folder is None or not folder.is_dir() else row._replace(split=beir_dev_split(folder))]
    return [
        _Row(
            task,
            result.provenance["tasks"][task].get("split") or "",
            f"Spearman × 100, {metric}" if metric in STS.rows else metric,
            metric,
            kind_of(entry).hub_task,
            value,
            task in seen or bool(entry.get("transductive")),
        )
        for task, entry in result.results.items()
        for metric, value in measures(entry).items()
        if metric != "chosen"  # the regularisation of a regression
    ]


def _scores(record: RunRecord, rows: list[_Row]) -> str:
    encoder, seen = record.encoder, _seen(record)
    cells = [
        [
            short_name(row.task) + "*" * row.seen,
            row.split,
            row.measure,
            f"{row.value:.2f}",
            encoder["pooling"],
            encoder["dtype"],
            record.seed,
        ]
        for row in rows
    ]
    header = ["task", "split", "measure", "score", "pooling", "dtype", "seed"]
    lines = [f"| {' | '.join(map(cell, line))} |" for line in (header, ["---"] * len(header), *cells)]
    text = ["\n".join(lines)] if cells else []
    text.append(f"{record.verdict().removesuffix('.')}.")
    if seen:
        named = ", ".join(cell(short_name(task)) for task in seen)
        text.append(f"Texts of {named} were in the training data: scores on them are transductive (*).")
    return "\n\n".join(text)
