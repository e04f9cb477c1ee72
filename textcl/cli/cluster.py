"""`textcl cluster MODEL FILE [--clusters 20] --output clusters.csv`"""

from collections.abc import Sequence
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
    given = parser.parse_args(arguments)
    if Path(given.output).exists():
        raise InputError(f"{given.output} exists already; remove it or name another file.")

    from textcl.data import load_texts
    from textcl.encoder import Encoder
    from textcl.evaluation.clustering import cluster_texts

    texts = list(load_texts(given.texts, column=given.column, limit=given.limit)["text"])
    encoder = Encoder.from_pretrained(given.model, pooling=given.pooling, max_length=given.max_length)
    found = cluster_texts(encoder, texts, given.clusters, seed=given.seed, batch_size=given.batch_size)
    found.save(given.output)
    groups = list(found.groups(max(given.nearest, 0)))
    estimated = " (their number is estimated)" if found.estimated else ""
    print(f"{given.output}: {len(texts):,} texts in {len(groups)} clusters{estimated}")
    for number, (size, nearest) in enumerate(groups):
        print(f"\ncluster {number}: {size:,} texts")
        for text in nearest:
            line = " ".join(text.split())
            print(f"  {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}")
