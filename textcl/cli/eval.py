"""`textcl eval MODEL [--tasks sts,mr] [--beir FOLDER] [--finetune mrpc,sst2] [--dimensions 128,64] [--json PATH|-]`"""

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textcl.cli.main import Parser, within
from textcl.cli.output import check_file, parsed, show
from textcl.cli.search import add_retrieval_flags, check_retrieval_flags
from textcl.environment import cache_directory, is_writable
from textcl.errors import InputError
from textcl.ranges import Count, Range

logger = logging.getLogger("textcl")

_SIZE = Range(at_least=1, whole=True)


def add_model_flags(parser: Parser) -> None:
    """The flags about the encoder that `eval`, `encode` and `cluster` share."""
    parser.add_argument("model", help="an exported or transformers directory, a hub name, 'small' or 'bundled'")
    parser.add_argument("--pooling", help="default: as the model's directory says, or mean")
    parser.add_argument("--max-length", type=within(Count), metavar="TOKENS", help="cut texts after this many tokens")
    parser.add_argument(
        "--batch-size", type=within(Count), metavar="TEXTS", help="texts at a time (default: 32, on a GPU 512)"
    )


def main(arguments: Sequence[str]) -> None:
    given = parsed(_parser(), arguments)
    sizes, dtypes = _sizes(given)

    files = (given.queries, given.documents, given.relevance)
    if any(files) and (given.beir or not all(files)):
        raise InputError("Retrieval needs --queries, --documents and --relevance together, or only --beir.")

    tasks = given.tasks or ("" if any(files) or given.beir or given.finetune else "sts")
    _check_use(given, tasks)
    options = check_retrieval_flags(given)
    if given.identical_ids:
        options["identical_ids"] = given.identical_ids

    from textcl.evaluation import Finetune, Retrieval, evaluate

    own_data: list[Any] = []
    cache = None if sizes or dtypes else given.cache or _own_cache()
    if given.beir:
        own_data = [Retrieval.from_folder(given.beir, given.split or "test", **options)]
    elif all(files):
        own_data = [Retrieval.from_files(*files, **options)]
    if given.finetune:
        length = {"max_length": given.max_length} if given.max_length else {}
        tuned = Finetune(
            given.finetune,
            given.data_dir,
            seeds=given.finetune_seeds or 3,
            examples=given.finetune_examples,
            cache=cache,
            **length,
        )
        own_data.append(tuned)
    shared = {name: getattr(given, name) for name in ("data_dir", "batch_size", "pooling", "max_length", "bf16")}
    shared |= {"evaluators": own_data, "mode": given.mode or "senteval", "setting": given.setting or "test"}
    if sizes or dtypes:
        from textcl.evaluation.sizes import evaluate_sizes
        from textcl.report.sizes import sizes_plot, sizes_table

        found = evaluate_sizes(
            given.model, tasks, dimensions=sizes, dtypes=dtypes or ("float32",), pca=given.pca, **shared
        )
        if given.plot:
            sizes_plot(found).save(given.plot)
        show([size.to_dict() for size in found], sizes_table(found), given.json)
        return
    result = evaluate(given.model, tasks, cache=cache, **shared)
    show(result.to_dict(), result.table(), given.json)


def _parser() -> Parser:
    parser = Parser(
        prog="textcl eval", description="Score an encoder. All scores × 100. textcl data installs the evaluation sets."
    )
    add_model_flags(parser)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster if the hardware supports it")
    parser.add_argument(
        "--tasks",
        help="such as sts,clustering,transfer or mr (default: sts, or none with retrieval data or --finetune)",
    )
    parser.add_argument(
        "--data-dir", help="folder of the sets (default: $TEXTCL_DATA, ./senteval_data or the user's cache)"
    )
    transfer = parser.add_argument_group("transfer tasks")
    transfer.add_argument(
        "--mode",
        help="senteval (default), or fast: each classifier at its optimum, in a tenth of the time; no scores of papers",
    )
    transfer.add_argument("--setting", help="test (default), or dev: dev accuracy over 5 folds")
    transfer.add_argument(
        "--cache",
        metavar="FOLDER",
        help="keeps embeddings and finished tasks, so that an interrupted run resumes (default: in the user's cache)",
    )
    own = parser.add_argument_group("retrieval on your own data: three files, or a folder")
    own.add_argument("--queries", metavar="FILE", help="columns id, text")
    own.add_argument("--documents", metavar="FILE", help="columns id, text and, optionally, title")
    own.add_argument("--relevance", metavar="FILE", help="columns query_id, document_id and, optionally, relevance")
    own.add_argument("--beir", metavar="FOLDER", help="has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv")
    own.add_argument("--split", help="the SPLIT of --beir (default: test)")
    own.add_argument(
        "--identical-ids",
        choices=("drop", "keep"),
        help="leave a document with a query's id out of this query's ranking, or rank it (default: with --beir, leave "
        "it out if its text is the query's too; else rank it)",
    )
    add_retrieval_flags(own)
    tuning = parser.add_argument_group("fine-tuning of the whole encoder, with a layer on top")
    tuning.add_argument(
        "--finetune",
        metavar="TASKS",
        help="mrpc, sst2 or glue:FOLDER, with commas between them; FOLDER has folders such as CoLA and RTE, or is one",
    )
    tuning.add_argument("--finetune-seeds", type=within(Count), metavar="N", help="models for each task (default: 3)")
    tuning.add_argument(
        "--finetune-examples",
        type=within(Count),
        metavar="N",
        help="train on at most N random examples of each task (default: all, but 5000 of sst2)",
    )
    smaller = parser.add_argument_group("smaller vectors: a line for each size, all dimensions in float32 first")
    smaller.add_argument("--dimensions", metavar="SIZES", help="numbers of dimensions, such as 128,64,32")
    smaller.add_argument("--pca", action="store_true", help="also the dimensions of a PCA")
    smaller.add_argument(
        "--dtype", metavar="TYPES", help="types of the numbers: float32 (default), float16, int8, ubinary"
    )
    smaller.add_argument("--plot", metavar="FILE", help="a picture of the scores by size, .png or .svg")
    return parser


def _sizes(given: Namespace) -> tuple[list[int], list[Any]]:
    """The numbers of dimensions and the data types that --dimensions and --dtype name; both empty if neither is given.

    Raises:
        InputError: A number is wrong, or a flag was given that has no effect.
    """
    sizes: list[int] = []
    for text in given.dimensions.split(",") if given.dimensions is not None else ():
        try:
            sizes.append(int(_SIZE.read(text.strip())))
        except ValueError as error:
            raise InputError(f"--dimensions: each number {error}.") from None
    dtypes = [name.strip() for name in given.dtype.split(",")] if given.dtype is not None else []
    if given.pca and not sizes:
        raise InputError("--pca needs --dimensions: the numbers of dimensions that are kept.")
    if given.plot and not (sizes or dtypes):
        raise InputError("--plot draws scores by size; name sizes by --dimensions or --dtype, or leave it out.")
    if given.plot:
        from textcl.report.plots import check_plot

        check_plot(given.plot)
        check_file(given, "plot")
    if sizes or dtypes:
        if given.finetune or given.retrieval not in (None, "dense"):
            raise InputError(
                "--dimensions and --dtype compare vectors: leave out --finetune and --retrieval bm25 or hybrid."
            )
        if given.cache:
            raise InputError("--cache is not used with --dimensions and --dtype; leave it out.")
    return sizes, dtypes


def _check_use(given: Namespace, tasks: str) -> None:
    """Raises an error if a flag was given that no task of the call uses."""
    from textcl.data.transfer import CLASSIFICATIONS, REGRESSIONS
    from textcl.evaluation.suite import task_names

    named = task_names(tasks) if tasks else []
    transfers = any(name in (*CLASSIFICATIONS, *REGRESSIONS) for name in named)
    retrieval = bool(given.beir or given.queries)
    encoder = bool(named) or bool(given.finetune) or given.retrieval != "bm25"
    encodes = bool(named) or (retrieval and given.retrieval != "bm25")
    used_by: list[tuple[bool, str, tuple[str, ...]]] = [
        (transfers, "is for transfer tasks; name some, such as --tasks transfer", ("mode", "setting")),
        (
            transfers or bool(given.finetune),
            "is for transfer tasks and --finetune; name some, such as --tasks transfer",
            ("cache",),
        ),
        (bool(given.finetune), "is for --finetune; give it", ("finetune_seeds", "finetune_examples")),
        (bool(given.beir), "is for --beir; give it", ("split",)),
        (
            retrieval,
            "is for retrieval; give --beir, or --queries, --documents and --relevance",
            ("identical_ids", "retrieval", "bm25_weight", "language"),
        ),
        (
            bool(named or given.finetune),
            "is for tasks with installed sets; name some, such as --tasks sts",
            ("data_dir",),
        ),
        (encoder, "has no effect on BM25, which reads words", ("pooling", "max_length", "batch_size", "bf16")),
        (
            encodes or not given.finetune,
            "has no effect on fine-tuning, which trains in float32 with batches of 32",
            ("batch_size", "bf16"),
        ),
    ]
    for used, why, names in used_by:
        for name in names:
            if not used and getattr(given, name) not in (None, "") and getattr(given, name) is not False:
                raise InputError(f"--{name.replace('_', '-')} {why}, or leave it out.")


def _own_cache() -> Path | None:
    """The folder for embeddings in the user's cache; None, with a warning, if nothing can be written there."""
    folder = cache_directory() / "transfer"
    if is_writable(folder):
        return folder
    logger.warning("%s cannot be written, so an interrupted evaluation cannot be resumed; see --cache.", folder)
    return None
