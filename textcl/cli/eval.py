"""`textcl eval MODEL [--tasks sts,stsb-dev] [--mode fast] [--queries FILE …] [--beir FOLDER] [--json PATH|-]`"""

import json
import sys
from collections.abc import Sequence

from textcl.cli.main import Parser
from textcl.errors import InputError


def add_model_flags(parser: Parser) -> None:
    """What `eval` and `encode` ask about the encoder."""
    parser.add_argument("model", help="'bundled', an exported directory, a transformers directory or a hub name")
    parser.add_argument("--pooling", help="default: what the model's directory says, else mean")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="cut texts after so many tokens")
    parser.add_argument("--batch-size", type=int, metavar="TEXTS", help="default: 32, and 512 on a GPU")


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl eval", description="Score an encoder. All figures × 100; data: see textcl data.")
    add_model_flags(parser)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster where the processor has it")
    parser.add_argument(
        "--tasks", help="such as sts,clustering,transfer or mr (default: sts, but none beside own retrieval data)"
    )
    parser.add_argument("--data-dir", help="folder with the sets (default: $TEXTCL_DATA, ./senteval_data, the cache)")
    transfer = parser.add_argument_group("transfer tasks")
    transfer.add_argument("--mode", default="senteval", help="senteval (default), or fast: converged, a minute or two")
    transfer.add_argument("--setting", default="test", help="test (default), or dev: 5 folds, dev accuracy")
    transfer.add_argument(
        "--cache",
        metavar="FOLDER",
        help="for embeddings and finished tasks; a run that was cut goes on from there (default: in the user's cache)",
    )
    own = parser.add_argument_group("retrieval on own data: three files, or a folder")
    own.add_argument("--queries", metavar="FILE", help="columns id, text")
    own.add_argument("--documents", metavar="FILE", help="columns id, text and perhaps title")
    own.add_argument("--relevance", metavar="FILE", help="columns query_id, document_id and perhaps relevance")
    own.add_argument("--beir", metavar="FOLDER", help="with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv")
    own.add_argument("--split", default="test", help="of --beir (default: test)")
    parser.add_argument("--json", metavar="PATH", help="write the result there; '-' for standard output")
    given = parser.parse_args(arguments)

    files = (given.queries, given.documents, given.relevance)
    if any(files) and (given.beir or not all(files)):
        raise InputError("Retrieval needs --queries, --documents and --relevance together, or --beir alone.")

    from textcl.data.catalogue import cache_directory
    from textcl.evaluation import Retrieval, evaluate
    from textcl.files import write_json

    own_data = []
    if given.beir:
        own_data = [Retrieval.from_folder(given.beir, given.split)]
    elif all(files):
        own_data = [Retrieval.from_files(*files)]
    result = evaluate(
        given.model,
        given.tasks or ("" if own_data else "sts"),
        evaluators=own_data,
        data_dir=given.data_dir,
        batch_size=given.batch_size,
        pooling=given.pooling,
        max_length=given.max_length,
        bf16=given.bf16,
        mode=given.mode,
        setting=given.setting,
        cache=given.cache or cache_directory() / "transfer",
    )
    if given.json == "-":
        json.dump(result.to_dict(), sys.stdout, indent=2)
        print()
        return
    if given.json:
        write_json(given.json, result.to_dict())
    print(result.table())
