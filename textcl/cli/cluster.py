"""`textcl cluster MODEL FILE|VECTORS [--clusters auto] [--algorithm kmeans] [--assign OLD.csv] --output NEW.csv`"""

import csv
import tempfile
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from textcl.cli.eval import add_model_flags
from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_csv, check_json, show
from textcl.errors import InputError
from textcl.files import atomic_directory, atomic_write, check_new, check_output
from textcl.ranges import Count, Seed, TwoOrMore, ZeroOrMore
from textcl.texts import counted, in_one_line

if TYPE_CHECKING:
    from textcl.evaluation.clusters import ClusteredTexts
    from textcl.runs.clusters import Difference

FAR = 0.05  # the share of a cluster's texts that are as far from its centre as a text that may not belong to it
TREE = 60  # clusters whose tree is printed at most


def main(arguments: Sequence[str]) -> None:
    given, asked = _parse(arguments)
    difference = None
    if given.texts is None:
        _check_alone(given)
        from textcl.evaluation.clusters import assign_vectors, cluster_vectors

        options = {"algorithm": given.algorithm, "min_size": given.min_size, "seed": given.seed}
        found = (
            assign_vectors(given.model, given.assign)
            if given.assign
            else cluster_vectors(given.model, given.clusters, **options)
        )
    else:
        found, difference = _from_texts(given, asked)
    found.save(given.output, safe=not given.raw_csv)
    result = _result(found, given) | {"adapted": difference and asdict(difference)}
    if given.hierarchy:
        with atomic_write(given.hierarchy) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(result["hierarchy"][0]) if result["hierarchy"] else ["first"])
            writer.writeheader()
            writer.writerows(result["hierarchy"])
    show(result, "\n".join(_lines(found, result, given)), given.json)


def _parse(arguments: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The arguments, checked, and those of --adapt that were given."""
    parser = Parser(
        prog="textcl cluster",
        description="Group texts by meaning, by their embeddings: those of MODEL, or those that textcl encode wrote to "
        "the directory VECTORS. Each group gets a name, keywords and its most central texts.",
    )
    add_model_flags(parser)
    parser.add_argument(
        "texts",
        nargs="?",
        metavar="FILE",
        help="txt, csv, tsv, jsonl or parquet, also gz, xz or zst; blank lines are skipped. Not with VECTORS",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.csv",
        help="columns text, cluster, confidence, typical, rank, name, second_cluster, id; from VECTORS also its own "
        "columns. FILE.centres.json beside it is for --assign",
    )
    parser.add_argument(
        "--clusters",
        type=_number,
        metavar="N|auto",
        help="how many clusters (default: auto, where k-means is most stable compared with values without clusters)",
    )
    parser.add_argument(
        "--algorithm",
        choices=["kmeans", "hdbscan"],
        default="kmeans",
        help="kmeans: each text is in a cluster; hdbscan: dense groups, and other texts are outliers (default: kmeans)",
    )
    parser.add_argument(
        "--min-size",
        type=within(TwoOrMore),
        metavar="TEXTS",
        help="with hdbscan: the smallest cluster (default: 0.5 %% of the texts, from 5 to 100)",
    )
    parser.add_argument(
        "--assign",
        metavar="OLD.csv",
        help="put the texts into the clusters of this earlier output, and make no new ones",
    )
    parser.add_argument(
        "--nearest",
        type=within(ZeroOrMore),
        default=5,
        metavar="TEXTS",
        help="texts shown of each cluster (default: 5)",
    )
    parser.add_argument("--hierarchy", metavar="FILE.csv", help="write here which clusters merge first")
    parser.add_argument("--column", help="the column of a csv, tsv, jsonl or parquet file")
    parser.add_argument("--id-column", metavar="NAME", help="a column of ids of your own, which the output repeats")
    parser.add_argument("--limit", type=within(Count), help="read the first LIMIT texts only")
    parser.add_argument("--seed", type=within(Seed), default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--raw-csv", action="store_true", help="write texts as they are; else ' is put before what looks like a formula"
    )
    parser.add_argument("--safe-csv", action="store_true", help="the default: put ' before what looks like a formula")
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
    _check_flags(given)
    _check_outputs(given)
    return given, asked


def _number(text: str) -> float | None:
    """What --clusters holds; None: auto."""
    if text == "auto":
        return None
    try:
        return within(TwoOrMore)(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(str(error).replace(", not ", ", or auto, not ")) from None


def _check_flags(given: Namespace) -> None:
    """Raises an error if a flag does not fit the algorithm, or --assign."""
    if given.raw_csv and given.safe_csv:
        raise InputError("--raw-csv and --safe-csv are opposites; leave one of them out.")
    if given.algorithm == "kmeans" and given.min_size is not None:
        raise InputError("--min-size works only with --algorithm hdbscan; k-means takes a number of --clusters.")
    if given.algorithm == "hdbscan":
        if given.clusters is not None:
            raise InputError(
                "--algorithm hdbscan finds the number of clusters itself: give --min-size, not --clusters."
            )
        if given.adapt:
            raise InputError("--adapt trains for k-means; leave it or --algorithm hdbscan out.")
    if given.assign:
        for name in ("clusters", "min_size", "adapt"):
            if getattr(given, name):
                raise InputError(
                    f"--assign takes the clusters as they are in {given.assign}; leave --{name.replace('_', '-')} out."
                )
        if given.algorithm == "hdbscan":
            raise InputError(f"--assign takes the clusters as they are in {given.assign}; leave --algorithm out.")


def _check_outputs(given: Namespace) -> None:
    """Raises an error if an output is there already, cannot be written, or is named twice."""
    check_csv(given, "output")
    if given.hierarchy:
        check_csv(given, "hierarchy")
    centres = Path(given.output).with_suffix(".centres.json")
    files = [given.output, centres, *([given.hierarchy] if given.hierarchy else [])]
    for path in files:
        if Path(path).exists():
            raise InputError(f"{path} exists already; remove it or name another file.")
    if given.save_encoder:
        check_new(given.save_encoder)
    if given.json not in (None, "-"):
        files.append(given.json)
    if len({Path(path).resolve() for path in files}) < len(files):
        raise InputError(
            f"Two outputs have the same name; {centres} is also written, beside {given.output}. Name another file."
        )
    check_json(given)
    for path, folder in ((given.hierarchy, False), (given.save_encoder, True), (given.run, True)):
        if path is not None:
            check_output(path, folder=folder)


def _result(found: "ClusteredTexts", given: Namespace) -> dict[str, Any]:
    """The result as --json has it."""
    clusters: list[dict[str, Any]] = []
    for number, (size, rows) in enumerate(found.nearest_rows(given.nearest)):
        name, keywords, again = found.names[number], found.about.keywords[number], found.found_again[number]
        about = {"name": name, "keywords": keywords, "found_again": again}
        nearest = [found.texts[row] for row in rows]
        shown = [{name: each[row] for name, each in found.columns.items()} for row in rows]
        clusters.append({"size": size, **about, "nearest": nearest, "rows": shown})
    stability = found.stability and {
        "numbers": found.stability.numbers.tolist(),
        "agreement": found.stability.agreement.tolist(),
        "permuted": found.stability.null.tolist(),
        "best": found.stability.best,
        "shown": found.stability.shown,
    }
    return {
        "output": given.output,
        "algorithm": found.about.algorithm,
        "texts": len(found.texts),
        "estimated": found.estimated,
        "outliers": found.outliers,
        "silhouette": found.silhouette,
        "stability": stability,
        "agreement": found.agreement,
        "far": int((found.typical < FAR).sum()) if given.assign and found.about.algorithm == "kmeans" else None,
        "clusters": clusters,
        "hierarchy": [asdict(merge) for merge in found.hierarchy()],
    }


def _lines(found: "ClusteredTexts", result: dict[str, Any], given: Namespace) -> list[str]:
    """The result as people read it."""
    import numpy as np

    from textcl.report.clusters import (
        adapted_sentences,
        silhouette_sentence,
        stability_lines,
        tree_lines,
        trust_sentences,
    )

    filled = counted(len(found.names), "cluster") + (" (this number is estimated)" if found.estimated else "")
    if (some := sum(cluster["size"] > 0 for cluster in result["clusters"])) < len(found.names):
        filled = f"{some:,} of {len(found.names):,} clusters"
    lines = [f"{result['output']}: {counted(len(found.texts), 'text')} in {filled}"]
    if found.about.algorithm == "hdbscan":
        are = "is an outlier" if found.outliers == 1 else "are outliers"
        share = 100 * found.outliers / len(found.texts)
        lines.append(f"{counted(found.outliers, 'text')} ({share:.1f} %) {are}, in no cluster.")
    if not given.assign:
        lines.append(silhouette_sentence(found.silhouette))
    elif result["far"] is not None:
        lines.append(
            f"{result['far']:,} of the {counted(len(found.texts), 'text')} are further from the centre of their "
            f"cluster than {100 * (1 - FAR):.0f} % of its old texts (`typical` below {FAR}), and may fit no cluster. "
            f"Of texts about the same topics it would be about {FAR * len(found.texts):.0f}."
        )
        rows = np.argsort(found.typical, kind="stable")[: given.nearest]
        lines += ["The least typical ones:"] * bool(len(rows))
        lines += [f"  {found.typical[row]:.2f}  {in_one_line(found.texts[row])}" for row in rows]
    lines += trust_sentences(found.agreement, found.names, found.found_again)
    if adapted := result["adapted"]:
        lines += adapted_sentences(texts=len(found.texts), **adapted)
    if found.stability:
        lines += ["", *stability_lines(found.stability)]
    for number, cluster in enumerate(result["clusters"]):
        if not cluster["size"]:
            continue
        lines.append(f"\ncluster {number} ({cluster['name']}): {counted(cluster['size'], 'text')}")
        lines += [f"  keywords: {', '.join(cluster['keywords'])}"] * bool(cluster["keywords"])
        lines += [f"  {in_one_line(text)}" for text in cluster["nearest"]]
    if 2 < len(found.names) <= TREE and not given.assign:
        leaves = [f"cluster {number} ({name})" for number, name in enumerate(found.names)]
        lines.append(
            "\nWhich clusters merge first (the percentage of the variance between clusters that a branch parts):"
        )
        lines += tree_lines(leaves, found.hierarchy())
    return lines


# These flags act when texts are encoded; the vectors of a directory are encoded already.
_OF_THE_MODEL = ("pooling", "max_length", "batch_size", "column", "id_column", "limit", "adapt")


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


def _from_texts(given: Namespace, asked: dict[str, Any]) -> tuple["ClusteredTexts", "Difference | None"]:
    """The clusters, and with --adapt how they differ from those of the untouched encoder."""
    from textcl.data.corpora import read_with_ids
    from textcl.data.reading import say_repeated_and_long
    from textcl.encoder import Encoder
    from textcl.encoder.load import NAMED
    from textcl.evaluation.clusters import assign_texts, cluster_texts, embed
    from textcl.vectors.shards import is_vectors

    for place in (given.model, given.texts):
        if is_vectors(place) and place not in NAMED:  # a directory of vectors may also be called small
            raise InputError(f"{place} holds vectors of textcl encode; give it alone: textcl cluster {quote(place)}.")
    reading = {"column": given.column, "id_column": given.id_column, "limit": given.limit}
    texts, ids = read_with_ids(given.texts, **reading)
    say_repeated_and_long(texts, given.texts)
    encoder = Encoder.from_pretrained(given.model, pooling=given.pooling, max_length=given.max_length)
    if given.assign:
        assigned = assign_texts(encoder, texts, given.assign, batch_size=given.batch_size)
        return replace(assigned, columns={"id": ids}), None
    clusters, untouched = given.clusters, None
    if given.adapt:
        from textcl.data.overlap import read_overlap, write_overlap
        from textcl.encoder.export import MODEL_FILE
        from textcl.runs.clusters import compare_with_untouched, train_for_clusters

        untouched = embed(encoder, texts, batch_size=given.batch_size)  # training changes the encoder in place
        save, earlier = asked.pop("save_encoder", None), read_overlap(encoder.source)
        with nullcontext(asked.pop("run")) if given.run is not None else tempfile.TemporaryDirectory() as run:
            method = train_for_clusters(encoder, texts, clusters, run=run, seed=given.seed, **asked)
        if save:
            with atomic_directory(save, MODEL_FILE) as folder:
                method.export(folder)
                write_overlap(folder, texts, earlier)
        encoder, clusters = method.exported, len(method.centres)
    options = {"algorithm": given.algorithm, "min_size": given.min_size, "seed": given.seed}
    found = cluster_texts(encoder, texts, clusters, **options, batch_size=given.batch_size)
    difference = None if untouched is None else compare_with_untouched(untouched, found, given.seed)
    return replace(found, columns={"id": ids}), difference
