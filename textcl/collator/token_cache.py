"""Tokens of a corpus, made once: an Arrow file that later epochs, and later runs, map into memory."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow
from datasets import Dataset, concatenate_datasets
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from textcl.encoder.batching import in_windows
from textcl.files import atomic_write

logger = logging.getLogger("textcl")

WINDOW = 8192  # texts tokenised at a time, on all cores
SCHEMA = pyarrow.schema([("tokens", pyarrow.list_(pyarrow.int32()))])


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Equal where tokenizers give equal tokens; None where that cannot be told, as of one written in Python."""
    if not tokenizer.is_fast:
        return None
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    del state["truncation"], state["padding"]  # of the last call
    return _digest(json.dumps([state, tokenizer.truncation_side], sort_keys=True))


def with_tokens(
    dataset: Dataset,
    column: str,
    name: str,
    texts: Callable[[list[dict[str, str]]], list[str]],
    tokenise: Callable[[list[str]], list[list[int]]],
    folder: Path,
) -> Dataset:
    """A dataset with the tokens of each row in a further column.

    Args:
        dataset: The rows.
        column: Where their texts are.
        name: Of the column to come. The same name stands for the same way from texts to tokens.
        texts: Gives the texts of some rows, which hold this column alone.
        tokenise: Gives the tokens of some texts.
        folder: Where the files are, one for each `name` and corpus. Where nothing can be written, a warning says so,
            and the dataset is given back as it was.
    """
    of_texts = dataset.select_columns([column])
    digest = hashlib.sha256(name.encode())
    for window in in_windows(len(dataset), WINDOW):
        for text in texts(of_texts.select(window).to_list()):
            digest.update(_digest(text).encode())
    path = folder / f"{digest.hexdigest()}.arrow"
    tokens = _read(path, len(dataset))
    if tokens is None:
        bar = tqdm(total=len(dataset), desc="Tokenising", unit=" texts", delay=2, disable=None)
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
        except OSError as error:
            logger.warning("Tokens cannot be kept (%s); texts are tokenised in each epoch.", error)
            return dataset
        tokens = _read(path, len(dataset))
        assert tokens is not None
    return concatenate_datasets([dataset, tokens.rename_column("tokens", name)], axis=1)


def _read(path: Path, rows: int) -> Dataset | None:
    """What was kept, unless it is not there, or somebody cut it short."""
    try:
        kept = Dataset.from_file(str(path))
    except (OSError, pyarrow.ArrowInvalid):
        return None
    return kept if len(kept) == rows else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
