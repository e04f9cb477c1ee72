"""`textcl cluster MODEL FILE [--clusters 20] [--adapt] --output clusters.csv`"""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser
from textcl.errors import InputError

WIDTH = 100  # characters of a text that are shown


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl cluster", description="Cluster texts by k-means on their embeddings.")
    add_model_flags(parser)
    parser.add_argument("texts", help="txt, csv, tsv, jsonl or parquet, also gz or xz; blank lines are left out")
    parser.add_argument("--output", required=True, metavar="FILE.csv", help="text, cluster, confidence (0 to 1), rank")
    parser.add_argument("--clusters", type=int, metavar="N", help="how many (default: estimated, by the silhouette)")
    parser.add_argument("--nearest", type=int, default=5, metavar="TEXTS", help="texts shown of each cluster (5)")
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--limit", type=int, help="the first LIMIT texts only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapt", action="store_true", help="first train the encoder on the texts themselves, by SCCL")
    adapting = parser.add_argument_group("with --adapt")
    flags = [
        adapting.add_argument("--steps", type=int, help="the most that are made; few changes stop it before (300)"),
        adapting.add_argument("--first-view", metavar="VIEW", help="default: token_cutoff:0.2"),
        adapting.add_argument("--second-view", metavar="VIEW", help="likewise"),
        adapting.add_argument("--run", metavar="DIR", help="keep the log of training here (default: it is not kept)"),
        adapting.add_argument("--save-encoder", metavar="DIR", help="keep the adapted encoder here"),
    ]
    given = parser.parse_args(arguments)
    asked = {flag.dest: getattr(given, flag.dest) for flag in flags if getattr(given, flag.dest) is not None}
    if asked and not given.adapt:
        raise InputError(f"--{next(iter(asked)).replace('_', '-')} has no meaning without --adapt.")
    for path, kind in ((given.output, "file"), (given.save_encoder, "directory")):
        if path and Path(path).exists():
            raise InputError(f"{path} exists already; remove it or name another {kind}.")

    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.evaluation.clustering import cluster_texts

    texts = list(load_texts(given.texts, column=given.column, limit=given.limit)["text"])
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
    found.save(given.output)
    groups = list(found.groups(max(given.nearest, 0)))
    estimated = "" if given.clusters else " (their number is estimated)"
    print(f"{given.output}: {len(texts):,} texts in {len(groups)} clusters{estimated}")
    for number, (size, nearest) in enumerate(groups):
        print(f"\ncluster {number}: {size:,} texts")
        for text in nearest:
            line = " ".join(text.split())
            print(f"  {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}")
