"""`textcl search DIRECTORY ["a query"] [--retrieval dense|bm25|hybrid] [--top 10] [--json PATH|-]`"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from textcl.cli.main import Parser, within, without_collector
from textcl.cli.output import add_json_flag, check_json, show, show_line
from textcl.errors import InputError
from textcl.files import write_json
from textcl.ranges import Count, Share
from textcl.texts import in_one_line, json_value
from textcl.vectors.columns import plain

if TYPE_CHECKING:
    from textcl.vectors.index import Hit


def add_retrieval_flags(parser: Any) -> None:
    """The flags about how texts are found that `search` and `eval` share."""
    parser.add_argument(
        "--retrieval",
        choices=("dense", "bm25", "hybrid"),
        help="dense: by vectors (default); bm25: by words; hybrid: by both, often the best",
    )
    parser.add_argument(
        "--bm25-weight",
        type=within(Share),
        metavar="WEIGHT",
        help="weight of BM25 in hybrid (default: 0.35, chosen on queries about a topic; to find a known text try 0.2 "
        "to 0.5)",
    )
    parser.add_argument(
        "--language", help="language of the words, for bm25 and hybrid, such as german (default: english)"
    )


def check_retrieval_flags(given: Namespace, of_vectors: Sequence[str] = ()) -> dict[str, Any]:
    """The flags of `add_retrieval_flags` that were given.

    Args:
        given: All flags.
        of_vectors: Further flags of the command, which bm25 does not use.

    Raises:
        InputError: A flag was given that the retrieval does not use.
    """
    kind = given.retrieval or "dense"
    unused = {"dense": ("bm25_weight", "language"), "bm25": ("bm25_weight", *of_vectors), "hybrid": ()}
    for name in unused[kind]:
        if getattr(given, name) is not None:
            users = [each for each, names in unused.items() if name not in names]
            raise InputError(
                f"--{name.replace('_', '-')} is for --retrieval {' or '.join(users)}, not for {kind}; leave it out, "
                "or change --retrieval."
            )
    names = ("retrieval", "bm25_weight", "language")
    return {name: getattr(given, name) for name in names if getattr(given, name) is not None}


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="textcl search",
        description="The texts that answer a query: rank, score, id (or row), text. The score is the cosine with dense "
        "(1 at most); with bm25 the sum of the weights of the shared words (from 0, without an upper end); with hybrid "
        "(1 - WEIGHT) z(cosine) + WEIGHT z(BM25), where z counts standard deviations above the mean of the texts that "
        "are looked at, the best 2,000 of each side. Scores of bm25 and hybrid can be compared within one query only: "
        "they say which of its texts is better, and not how good one is.",
    )
    parser.add_argument("directory", help="the output directory of textcl encode")
    parser.add_argument("query", nargs="?", help="the text to search for (default: each line of standard input)")
    parser.add_argument(
        "--top", type=within(Count), default=10, metavar="TEXTS", help="how many texts are shown (default: 10)"
    )
    add_retrieval_flags(parser)
    parser.add_argument(
        "--expand",
        type=within(Count),
        metavar="N",
        help="move the query's vector towards the N nearest texts (default: off; not for bm25)",
    )
    parser.add_argument("--model", help="the model, if it has moved since the texts were encoded")
    parser.add_argument("--prompt", help="put before the query (default: the model's prompt 'query', or the corpus')")
    add_json_flag(parser)
    given = parser.parse_with_optional("query", arguments)
    check_json(given)
    options = check_retrieval_flags(given, ("expand", "prompt", "model"))

    weight = {"bm25_weight": options.pop("bm25_weight")} if "bm25_weight" in options else {}
    if given.query is not None and not given.query.strip():
        raise InputError("The query must not be blank.")
    with without_collector():
        from textcl.vectors.index import CorpusIndex

        index = CorpusIndex(given.directory, given.model, **options)

    def search(query: str) -> tuple[list[dict[str, Any]], str]:
        hits = index.search(query, given.top, prompt=given.prompt, expand=given.expand or 0, **weight)
        return [_as_json(rank, hit) for rank, hit in enumerate(hits, 1)], _as_text(hits)

    if given.query is not None:
        found, text = search(given.query)
        show(found, text, given.json)
        return
    answers = []
    for query in _queries():
        found, text = search(query)
        answer = {"query": query, "hits": found}
        if given.json == "-":
            show_line(answer)
        else:
            show_line(f"{in_one_line(query)}\n{text}\n")
            answers.append(answer)
    if given.json not in (None, "-"):
        write_json(given.json, json_value(answers))


def _queries() -> Iterator[str]:
    """The lines of standard input that are not blank.

    Raises:
        InputError: There is none, or a line is not UTF-8.
    """
    found = False
    for number, line in enumerate(sys.stdin.buffer if sys.stdin else (), start=1):
        try:
            query = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise InputError(f"Line {number} of standard input is not UTF-8.") from None
        if query:
            found = True
            yield query
    if not found:
        raise InputError("There is no query: name one, or write queries to standard input, one a line.")


def _as_json(rank: int, hit: "Hit") -> dict[str, Any]:
    found = {"rank": rank, "score": hit.score, "id": hit.id, "text": hit.text}
    if hit.part is not None:
        found["part"] = hit.part
    return found | ({"columns": {name: plain(value) for name, value in hit.columns.items()}} if hit.columns else {})


def _as_text(hits: "Sequence[Hit]") -> str:
    if not hits:
        return "no text has a word of the query"
    wide, last = max(len(str(hit.id)) for hit in hits), len(str(len(hits)))
    return "\n".join(
        f"{rank:>{last}}  {hit.score:7.4f}  {hit.id!s:>{wide}}  {in_one_line(hit.text)}{_kept(hit)}"
        for rank, hit in enumerate(hits, 1)
    )


def _kept(hit: "Hit") -> str:
    """The user's columns, behind the text."""
    cells = ", ".join(f"{name}: {in_one_line(str(value))}" for name, value in hit.columns.items() if value is not None)
    return f"  ({cells})" if cells else ""
