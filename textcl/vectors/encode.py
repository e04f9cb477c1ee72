"""Encoding a corpus to a directory of Parquet shards. An interruption loses at most the current shard.

    manifest.json          the model, the settings and the corpus; written first
    part-00000.parquet     one shard, the vectors of a window of texts: id, text, vector and, for int8, scale
    complete.json          the number of texts and shards, size and SHA-256 of each shard; written last

Each shard always holds the same window of texts. So several processes can share the work without communication, and
after an interruption only the missing shards are encoded.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcl.data.corpora import check_limit, read_texts
from textcl.device import bf16_if_there, give_back_freed_memory
from textcl.encoder import Encoder
from textcl.environment import launched
from textcl.errors import InputError
from textcl.locks import taken
from textcl.progress import Progress
from textcl.seals import seal, write_sealed
from textcl.texts import as_texts, check_text
from textcl.vectors.shards import (
    SCHEMA,
    Storage,
    Window,
    begin,
    holds,
    origin,
    shard_path,
    stored_columns,
    window_bytes,
    write_shard,
)

logger = logging.getLogger("textcl")

SHARD_ROWS = 32_768  # takes minutes on a CPU; 50 MB of float32 vectors of dimension 384


def encode_corpus(
    model: Encoder | str | Path,
    corpus: Any,
    output: str | os.PathLike[str],
    *,
    dtype: Storage = "float32",
    column: str | None = None,
    limit: int | None = None,
    shard_rows: int = SHARD_ROWS,
    batch_size: int | None = None,
    normalize: bool | None = None,
    prompt: str | None = None,
    prompt_name: str | None = None,
    bf16: bool = False,
    pooling: str | None = None,
    max_length: int | None = None,
    show_progress_bar: bool | None = None,
) -> Path:
    """Encodes a corpus of any size to Parquet shards. The same call resumes the work after an interruption.

    At any time the texts of two shards and the vectors of one are in memory. A text that occurs twice in a shard is
    encoded once. The corpus is read twice: first to count and hash it, then to encode it.

    Several processes share the shards if RANK and WORLD_SIZE are set, as `torchrun` does. Each process uses one GPU if
    there are any, and the process that finishes last writes `complete.json`. A later call may use another number of
    processes.

    Args:
        model: An encoder, or a name or path that `Encoder.from_pretrained` takes.
        corpus: A corpus that `load_texts` takes; a generator is read into memory first. Blank texts are left out. The
            id of a text is its row, counted from 0 with blank texts.
        output: The directory to write; it is created if it does not exist.
        dtype: The data type of the stored vectors. "float16" has a relative error of at most 1/2,048 (for numbers below
            6e-5, an absolute error of 3e-8). "int8" stores round(number / scale), with one scale per vector in the
            column `scale`: the vector's largest absolute number / 127. Its absolute error is at most scale / 2.
        column: The column to read, as in `load_texts`.
        limit: Encode only the first `limit` texts.
        shard_rows: The number of texts in a shard.
        batch_size: The number of texts in a batch, as in `Encoder.encode`.
        normalize: Scale the vectors to length 1; default: the encoder's setting.
        prompt: A prompt that is put before each text, or around it if the prompt contains `{text}`; default: the
            encoder's prompt named "document", else its default prompt. "" puts none.
        prompt_name: The name of one of the encoder's prompts.
        bf16: Compute in bfloat16 if the machine supports it.
        pooling: The pooling, if `model` is a name or a path; default: that of the model's directory.
        max_length: The number of tokens after which texts are cut, if `model` is a name or a path.
        show_progress_bar: Default: only on a terminal, and only if the work takes more than two seconds.

    Returns:
        The directory.

    Raises:
        InputError: The corpus has no text or cannot be read; the directory was written by another model, with other
            settings or from another corpus, is not a directory of vectors, cannot be written, or is in use by another
            process; the model gives NaN; or the disk is full.

    Example:
        >>> encode_corpus("bundled", "texts.txt", "vectors", dtype="float16")  # doctest: +SKIP
        PosixPath('vectors')
    """
    output = Path(output)
    if dtype not in ("float32", "float16", "int8"):
        raise InputError(f"Vectors are stored as float32, float16 or int8, not {dtype}.")
    if shard_rows < 1:
        raise InputError(f"shard_rows must be at least 1, not {shard_rows}.")
    check_limit(limit)
    check_text(str(output), "The name of the output")  # the Parquet library takes no other
    if isinstance(corpus, Iterator):
        corpus = list(corpus)  # it is read twice
    if isinstance(model, Encoder) and (pooling is not None or max_length is not None):
        raise InputError("pooling and max_length apply only to a model that is loaded here; set them on the encoder.")
    rank, ranks = launched().rank, launched().ranks
    silent = rank > 0 or (show_progress_bar is not None and not show_progress_bar)
    show = False if silent else show_progress_bar
    with taken(output):
        # hidden files are locks, and temporary files of another rank that is running or was killed
        there = {path.name for path in output.glob("[!.]*")}
        if "manifest.json" not in there and not all(_OWN.fullmatch(name) for name in there):
            raise InputError(f"{output} already exists and does not hold vectors of textcl; name another directory.")
        if isinstance(model, Encoder):
            encoder = model
        else:
            encoder = Encoder.from_pretrained(model, pooling=pooling, max_length=max_length, device=own_device())
        survey = _survey(corpus, column, limit, shard_rows, show)
        bf16 = bf16_if_there(bf16)
        normalize = encoder.normalize if normalize is None else normalize
        prompt = corpus_prompt(encoder, prompt, prompt_name, silent=silent)
        manifest = {
            "schema": SCHEMA,
            "model": {"name": _lasting_name(encoder), "sha256": encoder.fingerprint(settings=False)},
            "settings": {
                "pooling": encoder.pooling,
                "max_length": encoder.max_length,
                "weights": str(encoder.backbone.dtype).removeprefix("torch."),
                "normalize": normalize,
                "prompt": prompt,
                "bf16": bf16,
                "dtype": dtype,
                "shard_rows": shard_rows,
                "column": column,
                "limit": limit,
            },
            "corpus": {"name": _name(corpus), "texts": survey.texts, "sha256": survey.sha256},
            "dimension": encoder.dimension,
        }
        begin(output, manifest)
        arguments = {"batch_size": batch_size, "normalize": normalize, "prompt": prompt, "bf16": bf16}
        arguments["show_progress_bar"] = show
        windows = _windows(corpus, column, limit, shard_rows)
        others = _encode_own(encoder, windows, survey, output, manifest, (rank, ranks), arguments)
        if all(holds(shard_path(output, number), survey.digests[number], origin(manifest)) for number in others):
            _complete(output, survey.texts, len(survey.digests))
    return output


_OWN = re.compile(r"part-\d{5,}\.parquet|complete\.json|index\.(faiss|json)")  # files of a directory of vectors


def _encode_own(
    encoder: Encoder,
    windows: Iterator[Window],
    survey: "_Survey",
    output: Path,
    manifest: dict[str, Any],
    part: tuple[int, int],
    arguments: dict[str, Any],
) -> list[int]:
    """Encodes those shards of this rank that are missing or damaged; returns the numbers of all other ranks' shards."""
    (rank, ranks), made_of, rows = part, origin(manifest), manifest["settings"]["shard_rows"]
    own = range(rank, len(survey.digests), ranks)
    show = arguments["show_progress_bar"]
    looking = Progress("Looking for shards", len(own), "shards", show=show).over(own)
    missing = {number for number in looking if not holds(shard_path(output, number), survey.digests[number], made_of)}
    if missing:
        (output / "complete.json").unlink(missing_ok=True)
    texts = sum(min(rows, survey.texts - number * rows) for number in missing)
    with Progress("Encoding the corpus", texts, show=show) as bar:
        for number in range(max(missing, default=-1) + 1):
            window = next(windows, [])
            if number not in missing:
                continue
            if hashlib.sha256(window_bytes(window)).digest() != survey.digests[number]:
                raise InputError(
                    f"{manifest['corpus']['name']} changed while it was read; encode it again when it no longer "
                    "changes."
                )
            vectors = encoder.encode([text for _, text in window], **arguments)
            write_shard(shard_path(output, number), window, vectors, manifest["settings"]["dtype"], made_of)
            give_back_freed_memory()
            bar.update(len(window))
    return [number for number in range(len(survey.digests)) if number not in own]


def _complete(output: Path, texts: int, shards: int) -> None:
    """Marks a directory as complete, if all of it is there."""
    names = [shard_path(output, number).name for number in range(shards)]
    for name in ("manifest.json", *names):
        if not (output / name).is_file():
            raise InputError(
                f"{output} changed while it was written: {name} is missing. Run the same `textcl encode` again: it "
                "makes what is missing."
            )
    write_sealed(output / "complete.json", {"texts": texts, "shards": shards, "files": seal(output, names)})


def corpus_prompt(
    encoder: Encoder, prompt: str | None = None, prompt_name: str | None = None, *, silent: bool = True
) -> str:
    """The prompt of the texts of a corpus: if none is asked for, the encoder's prompt named "document", if any."""
    if prompt is None and prompt_name is None and "document" in encoder.prompts:
        prompt = encoder.prompts["document"]
        if prompt and not silent:
            logger.info("The model's prompt for documents is used: %r. An empty --prompt leaves it out.", prompt)
    return encoder.prompt_text(prompt, prompt_name)


class BatchEncoder:
    """Encodes batches that are dictionaries of columns, as Ray Data's `map_batches` passes them to an actor.

    Args:
        model: A name or path that `Encoder.from_pretrained` takes. Each actor loads the model once, to its GPU if it
            has one.
        column: The column of the texts.
        dtype: The data type of the vectors, as in `encode_corpus`; "int8" adds the column `scale`.
        **options: Passed on to `Encoder.encode`. The prompt is that of `encode_corpus`.

    Example:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     BatchEncoder, fn_constructor_kwargs={"model": "bundled"}, concurrency=2, batch_size=4096
        ... )
    """

    def __init__(
        self, model: str = "bundled", *, column: str = "text", dtype: Storage = "float32", **options: Any
    ) -> None:
        self.encoder = Encoder.from_pretrained(model)
        self.column = column
        self.dtype = dtype
        prompt = corpus_prompt(self.encoder, options.pop("prompt", None), options.pop("prompt_name", None))
        self.options = {"show_progress_bar": False, "prompt": prompt, **options}

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the batch with the columns `vector` (rows, dim) and, for "int8", `scale` (rows,) added.

        Raises:
            InputError: The batch lacks the column, or a row of it is not a text.
        """
        if self.column not in batch:
            raise InputError(f"The batch has no column '{self.column}'; its columns are {', '.join(map(repr, batch))}.")
        texts = as_texts(batch[self.column], f"The column '{self.column}'")
        return {**batch, **stored_columns(self.encoder.encode(texts, **self.options), self.dtype)}


def own_device() -> str | None:
    """The GPU of this process under `torchrun`, such as "cuda:1"; None (any device) if there is no GPU."""
    if not torch.cuda.is_available():
        return None
    return f"cuda:{launched().local_rank % torch.cuda.device_count()}"


@dataclass(frozen=True)
class _Survey:
    """The number of texts of a corpus, the SHA-256 of all of them, and the SHA-256 of each shard's rows."""

    texts: int
    sha256: str
    digests: list[bytes]


def _survey(corpus: Any, column: str | None, limit: int | None, shard_rows: int, show: bool | None) -> _Survey:
    whole, digests, texts, last = hashlib.sha256(), [], 0, -1
    with Progress("Reading the corpus", show=show) as bar:
        for window in _windows(corpus, column, limit, shard_rows):
            content = window_bytes(window)
            whole.update(content)
            digests.append(hashlib.sha256(content).digest())
            texts, last = texts + len(window), window[-1][0]
            bar.update(len(window))
    if not texts:
        raise InputError(f"{_name(corpus)} holds no text.")
    if blank := last + 1 - texts:
        logger.warning("%s: %s rows are blank and were left out; ids still count them.", _name(corpus), f"{blank:,}")
    return _Survey(texts, whole.hexdigest(), digests)


def _windows(corpus: Any, column: str | None, limit: int | None, shard_rows: int) -> Iterator[Window]:
    rows = enumerate(read_texts(corpus, column=column))
    texts = islice(((row, text) for row, text in rows if text), limit)
    while window := list(islice(texts, shard_rows)):
        yield window


def _name(corpus: Any) -> str:
    return str(corpus) if isinstance(corpus, (str, os.PathLike)) else f"the {type(corpus).__name__}"


def _lasting_name(encoder: Encoder) -> str:
    """A name that loads the encoder again from any working directory: a path is made absolute."""
    return str(Path(encoder.name).resolve()) if encoder.name and Path(encoder.name).is_dir() else encoder.name
