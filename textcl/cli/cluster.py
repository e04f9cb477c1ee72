"""`textcl cluster MODEL FILE|VECTORS [--clusters 20] [--adapt] --output clusters.csv [--json PATH|-]`"""

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_json, in_one_line, show
from textcl.errors import InputError
from textcl.files import check_output
from textcl.ranges import Count, Seed, TwoOrMore, ZeroOrMore

if TYPE_CHECKING:
    from textcl.evaluation.clustering import ClusteredTexts


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl cluster",
        description="Cluster texts by k-means on their embeddings: those of MODEL, or those that textcl encode wrote "
        "to the directory VECTORS.",
    )
    add_model_flags(parser)
    parser.add_argument(
        "texts",
        nargs="?",
        metavar="FILE",
        help="txt, csv, tsv, jsonl or parquet, also gz or xz; blank lines are skipped. Not with VECTORS",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.csv",
        help="columns text, cluster, confidence (0 to 1), rank; from VECTORS also id and the columns that it holds",
    )
    parser.add_argument(
        "--clusters",
        type=within(TwoOrMore),
        metavar="N",
        help="how many clusters (default: estimated by the silhouette)",
    )
    parser.add_argument(
        "--nearest",
        type=within(ZeroOrMore),
        default=5,
        metavar="TEXTS",
        help="texts shown of each cluster (default: 5)",
    )
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--limit", type=within(Count), help="read the first LIMIT texts only")
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--safe-csv", action="store_true", help="put ' before texts that a spreadsheet would run as formulas"
    )
    parser.add_argument("--adapt", action="store_true", help="first train the encoder on these texts by SCCL")
    add_json_flag(parser)
    adapting = parser.add_argument_group("with --adapt")
    flags = [
        adapting.add_argument(
            "--steps",
            type=within(Count),
            help="at most this many; stops early if few texts change cluster (default: 300)",
        ),
        adapting.add_argument("--first-view", metavar="VIEW", help="first view of a text (default: token_cutoff:0.2)"),
        adapting.add_argument(
            "--second-view", metavar="VIEW", help="second view of a text (default: token_cutoff:0.2)"
        ),
        adapting.add_argument("--run", metavar="DIR", help="keep the training log here (default: it is not kept)"),
        adapting.add_argument("--save-encoder", metavar="DIR", help="keep the adapted encoder here"),
    ]
    given = parser.parse_with_optional("texts", arguments)
    asked = {flag.dest: getattr(given, flag.dest) for flag in flags if getattr(given, flag.dest) is not None}
    if asked and not given.adapt:
        raise InputError(
            f"--{next(iter(asked)).replace('_', '-')} works only with --adapt; add it, or leave that flag out."
        )
    for path, kind in ((given.output, "file"), (given.save_encoder, "directory")):
        if path and Path(path).exists():
            raise InputError(f"{path} exists already; remove it or name another {kind}.")
    check_json(given.json)
    for path, folder in ((given.output, False), (given.save_encoder, True), (given.run, True)):
        if path:
            check_output(path, folder=folder)

    if given.texts is None:
        _check_alone(given)
        from textcl.evaluation.clustering import cluster_vectors

        found = cluster_vectors(given.model, given.clusters, seed=given.seed)
    else:
        found = _from_texts(given, asked)
    found.save(given.output, safe=given.safe_csv)
    estimated = "" if given.clusters else " (this number is estimated)"
    groups = list(found.nearest_rows(given.nearest))
    lines = [f"{given.output}: {len(found.texts):,} texts in {len(groups)} clusters{estimated}"]
    clusters: list[dict[str, Any]] = []
    for number, (size, rows) in enumerate(groups):
        nearest = [found.texts[row] for row in rows]
        lines += [f"\ncluster {number}: {size:,} texts", *(f"  {in_one_line(text)}" for text in nearest)]
        clusters.append({"size": size, "nearest": nearest})
        if found.columns:
            clusters[-1]["rows"] = [{name: each[row] for name, each in found.columns.items()} for row in rows]
    result = {"output": given.output, "texts": len(found.texts), "estimated": found.estimated, "clusters": clusters}
    show(result, "\n".join(lines), given.json)


# These flags act when texts are encoded; the vectors of a directory are encoded already.
_OF_THE_MODEL = ("pooling", "max_length", "batch_size", "column", "limit", "adapt")


def _check_alone(given: Namespace) -> None:
    """Raises an error unless the only argument is a directory of vectors, without flags that mean nothing there."""
    from textcl.vectors.shards import is_vectors

    if not is_vectors(given.model):
        raise InputError(
            f"{given.model} is not a directory that textcl encode wrote. Name a model and a file of texts, or such a "
            "directory alone."
        )
    for name in _OF_THE_MODEL:
        if getattr(given, name):
            why = "trains a model, which vectors are not" if name == "adapt" else "was settled when they were encoded"
            raise InputError(
                f"--{name.replace('_', '-')} {why}: leave it out, or name a model and a file of texts instead of "
                f"{given.model}."
            )


def _from_texts(given: Namespace, asked: dict[str, Any]) -> "ClusteredTexts":
    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.evaluation.clustering import cluster_texts
    from textcl.vectors.shards import is_vectors

    for place in (given.model, given.texts):
        if is_vectors(place):
            raise InputError(f"{place} holds vectors of textcl encode; give it alone: textcl cluster {place}.")
    texts = list(load_texts(given.texts, column=given.column, limit=given.limit, at_least=1)["text"])
    encoder = Encoder.from_pretrained(given.model, pooling=given.pooling, max_length=given.max_length)
    clusters = given.clusters
    if given.adapt:
        from textcl.runs.clusters import train_for_clusters

        save = asked.pop("save_encoder", None)
        with nullcontext(asked.pop("run")) if given.run else tempfile.TemporaryDirectory() as run:
            method = train_for_clusters(encoder, texts, clusters, run=run, seed=given.seed, **asked)
        if save:
            method.export(save)
        encoder, clusters = method.exported, len(method.centres)
    return cluster_texts(encoder, texts, clusters, seed=given.seed, batch_size=given.batch_size)
