"""`textcl cluster MODEL FILE [--clusters 20] [--adapt] --output clusters.csv [--json PATH|-]`"""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_json, in_one_line, show
from textcl.errors import InputError
from textcl.files import check_output
from textcl.ranges import Count, Seed, TwoOrMore, ZeroOrMore


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl cluster", description="Cluster texts by k-means on their embeddings.")
    add_model_flags(parser)
    parser.add_argument("texts", help="txt, csv, tsv, jsonl or parquet, also gz or xz; blank lines are skipped")
    parser.add_argument(
        "--output", required=True, metavar="FILE.csv", help="columns text, cluster, confidence (0 to 1), rank"
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
    given = parser.parse_args(arguments)
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

    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.evaluation.clustering import cluster_texts

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
    found = cluster_texts(encoder, texts, clusters, seed=given.seed, batch_size=given.batch_size)
    found.save(given.output, safe=given.safe_csv)
    groups = list(found.groups(given.nearest))
    estimated = "" if given.clusters else " (this number is estimated)"
    lines = [f"{given.output}: {len(texts):,} texts in {len(groups)} clusters{estimated}"]
    for number, (size, nearest) in enumerate(groups):
        lines += [f"\ncluster {number}: {size:,} texts", *(f"  {in_one_line(text)}" for text in nearest)]
    clusters_found = [{"size": size, "nearest": nearest} for size, nearest in groups]
    result = {"output": given.output, "texts": len(texts), "estimated": found.estimated, "clusters": clusters_found}
    show(result, "\n".join(lines), given.json)
