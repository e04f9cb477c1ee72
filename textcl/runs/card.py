"""The model card of a run: data, settings, scores with their convention, command, and papers to cite."""

import inspect
from pathlib import Path
from typing import Any

from textcl.encoder import Encoder
from textcl.encoder.card import cell, code, fenced, file_name, model_card
from textcl.evaluation.kinds import STS
from textcl.evaluation.overlap import is_transductive
from textcl.evaluation.results import Result, measures, short_name
from textcl.files import atomic_write
from textcl.methods.find import find_method, imported_method
from textcl.methods.matryoshka import PAPER
from textcl.runs.flags import without_folders
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


def write_card(export: str | Path, encoder: Encoder, record: RunRecord, result: Result | None = None) -> None:
    """Writes the README.md of a run's export.

    Args:
        export: The directory of the export.
        encoder: The exported encoder.
        record: The record of the run.
        result: The scores of the export, if it was evaluated.
    """
    recipe = record.recipe
    sections = {
        "Training": _training(record),
        "Scores": _scores(record, result),
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
        encoder.describe(), encoder.settings(), base_model=recipe["model"], tags=[recipe["method"]], sections=sections
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


def _scores(record: RunRecord, result: Result | None) -> str:
    encoder, counts = record.encoder, record.data.overlap
    seen = [task for task, subsets in counts.items() if any(is_transductive(count) for count in subsets.values())]
    rows: list[tuple[str, str, str, float]] = []
    if result:
        for task, entry in result.results.items():
            split = result.provenance["tasks"][task].get("split") or ""
            for measure, value in measures(entry).items():
                rows.append((task, split, f"Spearman × 100, {measure}" if measure in STS.rows else measure, value))
    elif dev := record.dev:
        names = {
            "stsb-dev": ("STSBenchmark-dev", "dev", "Spearman × 100, all"),
            "retrieval": ("retrieval", "dev", "nDCG@10"),
        }
        rows.append((*names.get(dev.set, (dev.set, "", "its first score")), dev.score))
    cells = [
        [
            short_name(task) + "*" * (task in seen or bool(result and result.results[task].get("transductive"))),
            split,
            measure,
            f"{value:.2f}",
            encoder["pooling"],
            encoder["dtype"],
            record.seed,
        ]
        for task, split, measure, value in rows
    ]
    header = ["task", "split", "measure", "score", "pooling", "dtype", "seed"]
    lines = [f"| {' | '.join(map(cell, line))} |" for line in (header, ["---"] * len(header), *cells)]
    text = ["\n".join(lines)] if cells else []
    text.append(f"{record.verdict().removesuffix('.')}.")
    if seen:
        named = ", ".join(cell(short_name(task)) for task in seen)
        text.append(f"Texts of {named} were in the training data: scores on them are transductive (*).")
    return "\n\n".join(text)
