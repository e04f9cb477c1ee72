"""Reading the rows that a run trains on."""

from pathlib import Path
from typing import Any

from textcl.data.catalogue import data_directory
from textcl.data.corpora import load_labelled, load_texts, load_triplets
from textcl.data.formats import ReadFile, csv_records
from textcl.errors import InputError

BUNDLED_TEXTS = Path(__file__).parents[1] / "assets" / "wordnet" / "glosses.txt"


def training_rows(
    path: Path | ReadFile, column: str | None = None, label_column: str | None = None, limit: int | None = None
) -> Any:
    """Reads texts, pairs or triplets from a file.

    Pairs and triplets are read if `column` names two or three columns, or if a csv or tsv file has SimCSE's columns
    (sent0, sent1, hard_neg).

    Args:
        path: Any file that `load_texts` reads.
        column: One column name, or two or three separated by commas (text, positive, hard negative).
        label_column: A column of labels to read as well, with one text column (default "text") or two.
        limit: Read only the first `limit` rows.
    """
    columns = tuple(column.split(",")) if column else _triplet_columns(path)
    if label_column is not None:
        return load_labelled(path, columns=columns or ("text",), label_column=label_column, limit=limit)
    if len(columns) > 1:
        return load_triplets(path, columns=columns, limit=limit)
    return load_texts(path, column=column, limit=limit)


def _triplet_columns(path: Path | ReadFile) -> tuple[str, ...]:
    """SimCSE's columns (sent0, sent1 and, if present, hard_neg) if the file has them, else none."""
    suffixes = path.name.lower().split(".")[1:]
    if "csv" not in suffixes and "tsv" not in suffixes:
        return ()
    _, header = next(csv_records(path, tabs="tsv" in suffixes), (0, []))
    return tuple(name for name in ("sent0", "sent1", "hard_neg") if name in header) if "sent1" in header else ()


def find_corpus(name: str) -> Path:
    """The path of a corpus, given its path or its name in the data directory. "bundled" is the corpus in textcl.

    Raises:
        InputError: There is no such file.
    """
    if name == "bundled":
        return BUNDLED_TEXTS
    for path in (Path(name), data_directory() / name):
        if path.is_file():
            return path
    raise InputError(f"There is no file {name}, neither in the working directory nor in {data_directory()}.")
