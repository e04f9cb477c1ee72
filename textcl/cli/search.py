"""`textcl search DIRECTORY "a query" [--top 10] [--json PATH|-]`"""

from collections.abc import Sequence

from textcl.cli.main import Parser, within
from textcl.cli.output import add_json_flag, check_json, in_one_line, show
from textcl.ranges import Count


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl search", description="The texts nearest to a query, by cosine: rank, score, id (row), text."
    )
    parser.add_argument("directory", help="the output directory of textcl encode")
    parser.add_argument("query", help="the text to search for")
    parser.add_argument(
        "--top", type=within(Count), default=10, metavar="TEXTS", help="how many texts are shown (default: 10)"
    )
    parser.add_argument("--model", help="the model, if it has moved since the texts were encoded")
    parser.add_argument("--prompt", help="put before the query (default: the model's prompt 'query', or the corpus')")
    add_json_flag(parser)
    given = parser.parse_args(arguments)
    check_json(given.json)

    from textcl.vectors.index import CorpusIndex

    hits = CorpusIndex(given.directory, given.model).search(given.query, given.top, prompt=given.prompt)
    wide, last = max(len(str(hit.id)) for hit in hits), len(str(len(hits)))
    lines = [
        f"{rank:>{last}}  {hit.score:7.4f}  {hit.id:>{wide}}  {in_one_line(hit.text)}"
        for rank, hit in enumerate(hits, 1)
    ]
    found = [{"rank": rank, **hit._asdict()} for rank, hit in enumerate(hits, 1)]
    show(found, "\n".join(lines), given.json)
