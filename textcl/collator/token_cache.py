"""Tokens of a corpus, made once and kept in an Arrow file that later epochs and runs map into memory."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from textcl.data.arrow_files import arrow_windows
from textcl.encoder.batching import in_windows
from textcl.errors import DiskFull, InputError
from textcl.files import atomic_write
from textcl.progress import Progress
from textcl.seals import differs, read_sealed, seal, write_sealed

logger = logging.getLogger("textcl")

WINDOW = 8192  # texts tokenised at a time, on all cores
SCHEMA = pyarrow.schema([("tokens", pyarrow.list_(pyarrow.int32()))])


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A hash that is equal for tokenizers with equal tokens; None for a tokenizer written in Python."""
    if not tokenizer.is_fast:
        return None
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    del state["truncation"], state["padding"]  # these depend on the last call
    return _digest(json.dumps([state, tokenizer.truncation_side], sort_keys=True))


def with_tokens(
    dataset: Dataset,
    column: str,
    name: str,
    texts: Callable[[list[dict[str, str]]], list[str]],
    tokenise: Callable[[list[str]], list[list[int]]],
    folder: Path,
) -> Dataset:
    """Adds a column with the tokens of each row to a dataset.

    Args:
        dataset: The rows.
        column: The column with the texts.
        name: Name of the new column. Equal names must mean that texts are tokenised in the same way.
        texts: Returns the texts of some rows, which hold only this column.
        tokenise: Returns the tokens of some texts.
        folder: The folder of the files, one file and its seal for each `name` and corpus. If it cannot be written, a
            warning is logged, and the dataset is returned unchanged.
    """
    of_texts = dataset.select_columns([column])
    path = folder / f"{_content(of_texts, name, texts)}.arrow"
    tokens = _read(path, len(dataset))
    if tokens is None:
        bar = Progress("Tokenising", len(dataset))
        try:
            with (
                bar,
                atomic_write(path) as temporary,
                pyarrow.OSFile(str(temporary), "wb") as file,
                pyarrow.ipc.new_stream(file, SCHEMA) as stream,
            ):
                for window in in_windows(len(dataset), WINDOW):
                    rows = tokenise(texts(of_texts.select(window).to_list()))
                    stream.write_batch(pyarrow.record_batch([pyarrow.array(rows, SCHEMA.field(0).type)], schema=SCHEMA))
                    bar.update(len(window))
            write_sealed(path.with_suffix(".json"), {"files": seal(folder, [path.name])})
        except (OSError, DiskFull) as error:
            logger.warning("Tokens cannot be saved to a file (%s); texts are tokenised again in each epoch.", error)
            return dataset
        tokens = _read(path, len(dataset))
        assert tokens is not None
    return concatenate_datasets([dataset, tokens.rename_column("tokens", name)], axis=1)


def _content(dataset: Dataset, name: str, texts: Callable[[list[dict[str, str]]], list[str]]) -> str:
    """A hash of a name and of all texts of a dataset with one column.

    Texts that Arrow holds as such are hashed with their lengths, without making a Python object of each.
    """
    (column,) = dataset.column_names
    digest = hashlib.sha256(name.encode())
    if getattr(dataset.features[column], "dtype", None) in ("string", "large_string"):
        digest.update(b"\0lengths and bytes")
        for table in arrow_windows(dataset, [column]):
            cells = pyarrow.compute.fill_null(table[column].combine_chunks().cast(pyarrow.large_string()), "")
            _, lengths, content = cells.buffers()
            starts = np.frombuffer(lengths, np.int64)[cells.offset : cells.offset + len(cells) + 1]
            digest.update(np.diff(starts).tobytes())
            if content is not None:
                digest.update(memoryview(content)[starts[0] : starts[-1]])
        return digest.hexdigest()
    for window in in_windows(len(dataset), WINDOW):
        for text in texts(dataset.select(window).to_list()):
            digest.update(_digest(text).encode())
    return digest.hexdigest()


def _read(path: Path, rows: int) -> Dataset | None:
    """The tokens in a file; None if the file is missing, or is not what was written."""
    try:
        if differs(path.parent, read_sealed(path.with_suffix(".json")).get("files")) is not None:
            logger.warning("%s is damaged; the texts are tokenised again.", path)
            return None
        kept = Dataset.from_file(str(path))
    except (OSError, InputError, pyarrow.ArrowInvalid):
        return None
    return kept if len(kept) == rows else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
