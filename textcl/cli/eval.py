"""`textcl eval MODEL [--tasks sts,stsb-dev] [--mode fast] [--json PATH|-]`"""

import json
import sys
from collections.abc import Sequence

from textcl.cli.main import Parser


def add_model_flags(parser: Parser) -> None:
    """What `eval` and `encode` ask about the encoder."""
    parser.add_argument("model", help="'bundled', an exported directory, a transformers directory or a hub name")
    parser.add_argument("--pooling", help="default: what the model's directory says, else mean")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="cut texts after so many tokens")
    parser.add_argument("--batch-size", type=int, default=64, metavar="TEXTS")


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="textcl eval", description="Score an encoder. All figures × 100; data: see textcl data.")
    add_model_flags(parser)
    parser.add_argument("--tasks", default="sts", help="such as sts,clustering,transfer or mr (default: sts)")
    parser.add_argument("--data-dir", help="folder with the sets (default: $TEXTCL_DATA, ./senteval_data, the cache)")
    transfer = parser.add_argument_group("transfer tasks")
    transfer.add_argument("--mode", default="senteval", help="senteval (default), or fast: converged, a minute or two")
    transfer.add_argument("--setting", default="test", help="test (default), or dev: 5 folds, dev accuracy")
    transfer.add_argument(
        "--cache",
        metavar="FOLDER",
        help="for embeddings and finished tasks; a run that was cut goes on from there (default: in the user's cache)",
    )
    parser.add_argument("--json", metavar="PATH", help="write the result there; '-' for standard output")
    given = parser.parse_args(arguments)

    from textcl.data.catalogue import cache_directory
    from textcl.evaluation import evaluate
    from textcl.files import write_json

    result = evaluate(
        given.model,
        given.tasks,
        data_dir=given.data_dir,
        batch_size=given.batch_size,
        pooling=given.pooling,
        max_length=given.max_length,
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
