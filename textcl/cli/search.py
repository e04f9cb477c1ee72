"""`textcl search DIRECTORY "a query" [--top 10]`"""

from collections.abc import Sequence

from textcl.cli.main import Parser

WIDTH = 100  # characters of a text that are shown


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl search", description="The texts nearest to a query, by cosine: rank, score, id (row), text."
    )
    parser.add_argument("directory", help="what textcl encode wrote")
    parser.add_argument("query")
    parser.add_argument("--top", type=int, default=10, metavar="TEXTS", help="how many are shown (10)")
    parser.add_argument("--model", help="where the model lies now (default: where it lay when the texts were encoded)")
    parser.add_argument("--prompt", help="put before the query (default: the model's prompt 'query', else the corpus')")
    given = parser.parse_args(arguments)

    from textcl.vectors.index import CorpusIndex

    hits = CorpusIndex(given.directory, given.model).search(given.query, given.top, prompt=given.prompt)
    wide = max(len(str(hit.id)) for hit in hits)
    for rank, hit in enumerate(hits, 1):
        line = " ".join(hit.text.split())
        shown = line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
        print(f"{rank:>{len(str(len(hits)))}}  {hit.score:7.4f}  {hit.id:>{wide}}  {shown}")
