"""Readers of a user's own retrieval data: queries, documents, and judgements of which document answers which query."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from textcl.data.rows import ABSENT, cell_text, open_table
from textcl.errors import InputError
from textcl.texts import bare, check_text, described

# Accepted column names: textcl's name first, then the name in BEIR's files.
_ID = ("id", "_id")
_QUERY = ("query_id", "query-id")
_DOCUMENT = ("document_id", "corpus-id")
_RELEVANCE = ("relevance", "score")


@dataclass(frozen=True)
class Collection:
    """Queries, documents and relevance judgements; the constructor checks them.

    Attributes:
        queries: From query id to text.
        documents: From document id to text.
        relevance: From query id to its judged documents and their grades. A grade above 0 means relevant. A judged
            document may be missing among the documents, as in ArguAna.
        titles: From document id to the title that its text begins with; documents without a title are left out.

    Raises:
        InputError: One of the first three is empty, a query or document is not a text, a judgement names an unknown
            query or has a grade that is not a number, or no document is relevant to any query.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevance: Mapping[str, Mapping[str, float]]
    titles: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for what, texts in (("query", self.queries), ("document", self.documents), ("title", self.titles)):
            if not isinstance(texts, Mapping):
                raise InputError(f"Each {what} needs an id: give a dictionary from id to text, not {described(texts)}.")
            if len({type(name) for name in texts}) > 1:
                raise InputError(f"The ids of a {what} must all be words or all be numbers.")
            for name, text in texts.items():
                check_text(text, f"The {what} '{name}'")
        if not isinstance(self.relevance, Mapping) or not all(
            isinstance(grades, Mapping) for grades in self.relevance.values()
        ):
            raise InputError("The relevance must be a dictionary: {query id: {document id: grade}}.")
        for what, known in (("query", self.queries), ("document", self.documents), ("judgement", self.relevance)):
            if not known:
                raise InputError(f"There is no {what}; retrieval needs queries, documents and judgements.")
        for query, grades in self.relevance.items():
            if query not in self.queries:
                raise InputError(
                    f"A judgement names the query {query!r}, which is not among the queries, such as "
                    f"{next(iter(self.queries))!r}."
                )
            for document, grade in grades.items():
                if not isinstance(grade, Real) or not math.isfinite(grade):
                    raise InputError(f"The grade of document '{document}' for query '{query}' is not a finite number.")
        if not self.answered:
            raise InputError("No document is relevant to any query (no grade is above 0), so nothing can be evaluated.")
        if all(name not in self.documents for query in self.answered for name in self.relevance[query]):
            raise InputError(
                f"None of the judged documents, such as {self.missing[0]!r}, is among the documents, such as "
                f"{next(iter(self.documents))!r}; the ids in both must be the same."
            )

    @property
    def answered(self) -> list[str]:
        """The ids of the queries that have at least one relevant document."""
        return [query for query in self.queries if any(grade > 0 for grade in self.relevance.get(query, {}).values())]

    @property
    def missing(self) -> list[str]:
        """The ids of relevant documents that are not among the documents, each once."""
        judged = (name for grades in self.relevance.values() for name, grade in grades.items() if grade > 0)
        return [name for name in dict.fromkeys(judged) if name not in self.documents]

    def own_documents(self) -> dict[str, bool]:
        """For each answered query that has a document with the same id: whether their texts are the same too.

        Upper and lower case and spaces do not count, and the document's title need not be in the query.
        """
        found: dict[str, bool] = {}
        for query in self.answered:
            if query in self.documents:
                document, own = self.documents[query], bare(self.queries[query])
                body = document[len(self.titles.get(query, "")) :]
                found[query] = own in (bare(document), bare(body)) and bool(own)
        return found

    def hash(self) -> str:
        """SHA-256 of ids, texts and grades; it does not depend on their order in the files."""
        digest = hashlib.sha256()
        grades = {
            f"{query}\t{document}": g for query, judged in self.relevance.items() for document, g in judged.items()
        }
        for part in (self.queries, self.documents, grades):
            for name, value in sorted(part.items()):
                digest.update(f"{name}\t{value}\n".encode("utf-8", "surrogatepass"))
            digest.update(b"\x1e")
        return digest.hexdigest()


def read_collection(
    queries: str | os.PathLike[str], documents: str | os.PathLike[str], relevance: str | os.PathLike[str]
) -> Collection:
    """Reads three files (.csv, .tsv, .jsonl or .parquet, each also as .gz, .xz or .zst).

    Args:
        queries: A file with the columns "id" (or "_id") and "text".
        documents: A file with the same columns and, optionally, "title", which is put before the text.
        relevance: A file with the columns "query_id" (or "query-id"), "document_id" (or "corpus-id") and, optionally,
            "relevance" (or "score"), a number. Without this column every judged document has grade 1.

    Raises:
        InputError: A file is missing or empty, a column is missing (the message names those that exist), an id occurs
            twice in one file, a judgement names an unknown query, or a grade is not a number.

    Example:
        >>> read_collection("queries.csv", "documents.csv", "relevance.csv").answered[:3]  # doctest: +SKIP
    """
    (asked, _), (texts, titles) = _read_texts(Path(queries)), _read_texts(Path(documents))
    return Collection(asked, texts, _read_relevance(Path(relevance)), titles)


def read_beir(folder: str | os.PathLike[str], split: str = "test") -> Collection:
    """Reads a folder in BEIR's layout (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.

    Args:
        folder: The folder.
        split: The name of the judgement file, without .tsv.

    Raises:
        InputError: The folder does not exist, or as in `read_collection`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"There is no folder {root}.")
    return read_collection(*beir_files(root, split))


def beir_files(folder: Path, split: str) -> tuple[Path, Path, Path]:
    """The files of queries, documents and judgements in a folder in BEIR's layout."""
    return folder / "queries.jsonl", folder / "corpus.jsonl", folder / "qrels" / f"{split}.tsv"


def beir_dev_split(folder: Path) -> str:
    """The judgements by which encoders are chosen: "dev" if the folder has them, else "test"."""
    return "dev" if beir_files(folder, "dev")[2].is_file() else "test"


def _read_texts(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """From id to text, which begins with the title if there is one; and from id to title."""
    table = open_table(path)
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}
    for number, (key, text, given) in table.cells([_ID, "text"], optional=["title"]):
        where = table.at(number)
        name = _name(key, where)
        if name in texts:
            raise InputError(f"{where}: the id '{name}' occurs for the second time.")
        title = "" if given is ABSENT else cell_text(given, where)
        texts[name] = f"{title} {cell_text(text, where)}".strip()
        if title.strip():
            titles[name] = title.strip()
    return texts, titles


def _read_relevance(path: Path) -> dict[str, dict[str, float]]:
    table = open_table(path)
    relevance: dict[str, dict[str, float]] = {}
    for number, (query, document, given) in table.cells([_QUERY, _DOCUMENT], optional=[_RELEVANCE]):
        where = table.at(number)
        judged = relevance.setdefault(_name(query, where), {})
        name = _name(document, where)
        grade = 1.0 if given is ABSENT else _grade(given, where)
        if judged.get(name, grade) != grade:
            raise InputError(f"{where}: document '{name}' has another grade for this query in an earlier row.")
        judged[name] = grade
    return relevance


def _name(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{where}: an id must be a word or a whole number, not {described(value)}.")
    name = check_text(str(value).strip(), where)
    if not name:
        raise InputError(f"{where}: the id is empty.")
    return name


def _grade(value: Any, where: str) -> float:
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = math.nan
    if not math.isfinite(grade):
        raise InputError(f"{where}: the relevance '{value}' is not a finite number.")
    return grade
