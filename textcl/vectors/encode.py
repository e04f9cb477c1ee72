"""Encoding a corpus to a directory of Parquet shards. An interruption loses at most the current shard.

    manifest.json          the model, the settings and the corpora; written first
    part-00000.parquet     one shard, the vectors of a window of texts: id, text, vector; for int8 scale; bits
    complete.json          the number of texts and shards, size and SHA-256 of each shard; written last

Each shard always holds the same window of texts. So several processes can share the work without communication, and
after an interruption only the missing shards are encoded.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textcl.data.corpora import check_limit, columns_beside
from textcl.device import bf16_if_there, give_back_freed_memory
from textcl.encoder import Encoder
from textcl.encoder.load import NAMED
from textcl.environment import launched
from textcl.errors import InputError
from textcl.locks import taken
from textcl.progress import Progress
from textcl.ranges import checked
from textcl.texts import as_texts, check_text
from textcl.vectors.columns import check_same, stored_names
from textcl.vectors.compress import Compression, Storage, check_sizes
from textcl.vectors.corpus import Corpus, Survey, check_of, splitter, survey, warn_of_known
from textcl.vectors.directory import complete, covers, manifest_there, with_added
from textcl.vectors.fitting import check_enough, first_vectors, fitted, shard_vectors
from textcl.vectors.lengths import are_longer
from textcl.vectors.manifest import origin, stored_corpora
from textcl.vectors.shards import (
    SCHEMA,
    begin,
    check_settings,
    holds,
    read_manifest,
    shard_path,
    stored_columns,
    write_shard,
)
from textcl.vectors.unknown import warn_of_unknown

logger = logging.getLogger("textcl")

SHARD_ROWS = 32_768  # takes minutes on a CPU; 50 MB of float32 vectors of dimension 384
_DEFAULTS = {"bf16": False, "dtype": "float32", "shard_rows": SHARD_ROWS, "columns": ()}


@checked
def encode_corpus(
    model: Encoder | str | Path,
    corpus: Any,
    output: str | os.PathLike[str],
    *,
    dtype: Storage | None = None,
    dimensions: int | None = None,
    pca: bool = False,
    rescoring: bool | None = None,
    column: str | None = None,
    limit: int | None = None,
    shard_rows: int | None = None,
    batch_size: int | None = None,
    normalize: bool | None = None,
    prompt: str | None = None,
    prompt_name: str | None = None,
    bf16: bool = False,
    pooling: str | None = None,
    max_length: int | None = None,
    id_column: str | None = None,
    columns: Sequence[str] | Literal["all"] | None = None,
    append: bool = False,
    split_long: bool = False,
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
        dtype: The data type of the stored vectors; default: "float32". "float16" has a relative error of at most
            1/2,048 (for numbers below 6e-5, an absolute error of 3e-8). "int8" stores round(number / scale), with one
            scale per vector in the column `scale`: the vector's largest absolute number / 127. Its absolute error is
            at most scale / 2. "ubinary" stores one bit for each number in the column `bits`: whether it is above the
            mean of the first 10,000 vectors; and int8 vectors beside it.
        dimensions: Keep only this many dimensions, the first ones; the vectors are scaled to length 1 again if they had
            it. Default: all.
        pca: Keep the `dimensions` directions in which the first 10,000 vectors vary most, in place of the first ones.
        rescoring: For "ubinary", store the int8 vectors, by which a search orders the best by bits; default: True.
        column: The column to read, as in `load_texts`.
        limit: Encode only the first `limit` texts.
        shard_rows: The number of texts in a shard; default: 32,768.
        batch_size: The number of texts in a batch, as in `Encoder.encode`.
        normalize: Scale the vectors to length 1; default: the encoder's setting.
        prompt: A prompt that is put before each text, or around it if the prompt contains `{text}`; default: the
            encoder's prompt named "document", else its default prompt. "" puts none.
        prompt_name: The name of one of the encoder's prompts.
        bf16: Compute in bfloat16 if the machine supports it.
        pooling: The pooling, if `model` is a name or a path; default: that of the model's directory.
        max_length: The number of tokens after which texts are cut, if `model` is a name or a path.
        id_column: A column of ids of your own, text or whole numbers, that is stored with the texts.
        columns: Further columns to store, or "all"; default: none. See `textcl.data.rows.cell_value`.
        append: Add the corpus to the directory, which must be complete. The model must be the same. Settings that are
            not given are those of the directory, and others are refused; only `column` and `limit` may be others. Ids
            continue those of the directory. A corpus that is in the directory already is not added again, so that
            the same call resumes an interrupted one. Until all of it is encoded, the directory is read as it was.
        split_long: Texts that are longer than the encoder reads become several rows, one for each part, see
            `textcl.vectors.lengths.parts_of`. Parts have the id of their text, and a number in the column `part`.
        show_progress_bar: Default: only on a terminal, and only if the work takes more than two seconds.

    Returns:
        The directory.

    Raises:
        InputError: The corpus has no text or cannot be read, or lacks a column; an id is missing; the directory was
            written by another model, with other settings or from another corpus, is not a directory of vectors, cannot
            be written, or is in use by another process; the model gives NaN; or the disk is full.

    Example:
        >>> encode_corpus("bundled", "texts.txt", "vectors", dtype="float16")  # doctest: +SKIP
        PosixPath('vectors')
    """
    output = Path(output)
    if shard_rows is not None and shard_rows < 1:
        raise InputError(f"shard_rows must be at least 1, not {shard_rows}.")
    check_limit(limit)
    check_text(str(output), "The name of the output")  # the Parquet library takes no other
    if isinstance(corpus, Iterator):
        corpus = list(corpus)  # it is read twice
    if isinstance(model, Encoder) and (pooling is not None or max_length is not None):
        raise InputError("pooling and max_length apply only to a model that is loaded here; set them on the encoder.")
    silent = launched().rank > 0 or (show_progress_bar is not None and not show_progress_bar)
    show = False if silent else show_progress_bar
    with taken(output):
        before = manifest_there(output, append)
        own: Mapping[str, Any] = before.get("settings", {})
        encoder = model if isinstance(model, Encoder) else _loaded(model, pooling, max_length, own)
        if append and prompt is None and prompt_name is None:
            prompt = own["prompt"]
        asked = {
            "prompt": corpus_prompt(encoder, prompt, prompt_name, silent=silent),
            "normalize": normalize,
            "bf16": bf16_if_there(bf16) or None,
            "dtype": dtype,
            "shard_rows": None if shard_rows is None else int(shard_rows),
            "column": column,
            "dimensions": dimensions,
            "pca": pca or None,
            "rescoring": rescoring,
            "id_column": id_column,
            "columns": columns,
            "split": split_long or None,
        }
        # what is asked for, else the setting of the directory that is appended to, else the default
        chosen = {**dict.fromkeys(asked), **_DEFAULTS, "normalize": encoder.normalize, **own}
        chosen |= {name: value for name, value in asked.items() if value is not None}
        source = _source(encoder, corpus, limit, chosen, own)
        sizes = [] if chosen["dimensions"] is None else [chosen["dimensions"]]
        check_sizes(encoder.dimension, sizes, [chosen["dtype"]], pca=bool(chosen["pca"]))
        if chosen["rescoring"] is not None and chosen["dtype"] != "ubinary":
            raise InputError(
                f"Rescoring is for --dtype ubinary; {chosen['dtype']} vectors need none: leave out --no-rescoring."
            )
        found = survey(source, chosen["shard_rows"], show)
        if not silent:
            warn_of_unknown(encoder, (row.text for row in next(source.windows(chosen["shard_rows"]))))
        manifest = _manifest(encoder, source, found, chosen)
        arguments = {name: chosen[name] for name in ("normalize", "prompt", "bf16")}
        arguments |= {"batch_size": batch_size, "show_progress_bar": show}
        begun: dict[int, np.ndarray] = {}
        if append:
            manifest["settings"] |= {name: own.get(name) for name in ("column", "limit")}  # these two may be others
            check_settings(output, before, manifest)
            for name, kinds in zip(manifest.get("columns", ()), found.kinds, strict=True):
                check_same(name, before["columns"][name], kinds, source.name)
            warn_of_known(source, found, output, before)
            manifest = with_added(output, manifest["corpus"])
        else:
            if chosen["pca"]:
                check_enough(found, chosen["dimensions"], source.name)
            if (chosen["pca"] or chosen["dtype"] == "ubinary") and not (output / "manifest.json").is_file():
                begun = first_vectors(encoder, source, chosen["shard_rows"], arguments)
                manifest["fitted"] = fitted(begun, manifest["settings"])
            begin(output, manifest)
            manifest = read_manifest(output)
        _encode_missing(encoder, source, found, output, manifest, begun, arguments)
    return output


def _loaded(model: str | Path, pooling: str | None, max_length: int | None, own: Mapping[str, Any]) -> Encoder:
    """The encoder of a name or path, with the settings `own` of a directory where no others are asked for."""
    return Encoder.from_pretrained(
        model,
        pooling=pooling or own.get("pooling"),
        max_length=max_length or own.get("max_length"),
        dtype=getattr(torch, own.get("weights", "float32")),
        device=own_device(),
    )


def _source(
    encoder: Encoder, corpus: Any, limit: int | None, chosen: Mapping[str, Any], own: Mapping[str, Any]
) -> Corpus:
    """The corpus as it is read with the chosen settings; `own`: the settings of the directory that it is added to."""
    column, id_column = chosen["column"], chosen["id_column"]
    columns = columns_beside(corpus, chosen["columns"], column=column, id_column=id_column)
    there = own.get("columns", ())
    columns = there if sorted(columns) == sorted(there) else columns  # their order may be another one in this corpus
    split = splitter(encoder, chosen["prompt"]) if chosen["split"] else None
    return Corpus(corpus, column, limit, id_column, tuple(columns), split)


def _manifest(encoder: Encoder, source: Corpus, found: Survey, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a directory with one corpus.

    Settings that are not used are left out: earlier versions did not write them, and their directories are read too.
    """
    settings = {
        "pooling": encoder.pooling,
        "max_length": encoder.max_length,
        "weights": str(encoder.backbone.dtype).removeprefix("torch."),
        **{name: chosen[name] for name in ("normalize", "prompt", "bf16", "dtype", "shard_rows")},
        "column": source.column,
        "limit": source.limit,
    }
    may_be_unused = {
        "dimensions": chosen["dimensions"],
        "pca": chosen["pca"] or None,
        "rescoring": chosen["rescoring"] is not False if chosen["dtype"] == "ubinary" else None,
        "id_column": source.id_column or None,
        "columns": list(source.columns) or None,
        "split": chosen["split"] or None,
    }
    settings |= {name: value for name, value in may_be_unused.items() if value is not None}
    corpus: dict[str, Any] = {
        "name": source.name,
        "texts": found.texts,
        "sha256": found.sha256,
        "rows_read": found.rows_read,
    }
    if source.split is not None:
        corpus["documents"] = found.documents
    types = dict(zip(stored_names(source.id_column, source.columns), found.types, strict=True))
    return {
        "schema": SCHEMA,
        "model": {"name": _lasting_name(encoder), "sha256": encoder.fingerprint(settings=False)},
        "settings": settings,
        "corpus": corpus,
        **({"columns": types} if types else {}),
        "dimension": settings.get("dimensions", encoder.dimension),
    }


def _encode_missing(
    encoder: Encoder,
    source: Corpus,
    found: Survey,
    output: Path,
    manifest: dict[str, Any],
    begun: Mapping[int, np.ndarray],
    arguments: dict[str, Any],
) -> None:
    """Encodes the shards of this rank that are missing or damaged; if none is left, marks the directory as complete.

    `begun` has the vectors of the first rows, by the number of their shard, if something was just fitted on them.
    """
    corpora, settings = stored_corpora(manifest), manifest["settings"]
    place = [each.sha256 for each in corpora].index(found.sha256)
    corpus, made_of = corpora[place], origin(manifest, corpora[place])
    paths = [shard_path(output, number) for number in corpus.numbers]
    show, rows = arguments["show_progress_bar"], settings["shard_rows"]

    def there(number: int) -> bool:
        return holds(paths[number], made_of, found.digests[number], corpus.first_id)

    own = range(launched().rank, len(paths), launched().ranks)
    looking = Progress("Looking for shards", len(own), "shards", show=show).over(own)
    missing = {number for number in looking if not there(number)}
    if missing and covers(output, corpus):
        (output / "complete.json").unlink(missing_ok=True)
    compression = Compression.of(manifest)
    fitted_on = compression.fitted_on if place == 0 else 0
    texts = sum(min(rows, found.texts - number * rows) for number in missing)
    windows = source.windows(rows)
    with Progress("Encoding the corpus", texts, show=show) as bar:
        for number in range(max(missing, default=-1) + 1):
            window = next(windows, [])
            if number not in missing:
                continue
            if check_of(window) != found.checks[number]:
                raise InputError(f"{source.name} changed while it was read; encode it again when it no longer changes.")
            read = [row.text for row in window]
            vectors = shard_vectors(encoder, read, fitted_on - number * rows, begun.get(number), arguments)
            vectors = compression.reduce(vectors)
            stored = stored_columns(vectors, settings["dtype"], compression, rescoring=settings.get("rescoring", True))
            if source.split is None:
                cut = int(are_longer(encoder, read, arguments["prompt"]).sum())
            else:
                cut = sum(row.part == 1 for row in window)
            write_shard(
                paths[number], window, stored, made_of, first_id=corpus.first_id, types=manifest.get("columns"), cut=cut
            )
            give_back_freed_memory()
            bar.update(len(window))
    if all(there(number) for number in range(len(paths)) if number not in own):
        complete(output, manifest, place)


def corpus_prompt(
    encoder: Encoder, prompt: str | None = None, prompt_name: str | None = None, *, silent: bool = True
) -> str:
    """The prompt of the texts of a corpus: if none is asked for, the encoder's prompt named "document", if any."""
    if prompt is None and prompt_name is None and "document" in encoder.prompts:
        prompt = encoder.prompts["document"]
        if prompt and not silent:
            logger.info(
                "The model's prompt for documents is used: %r. textcl encode with an empty --prompt leaves it out.",
                prompt,
            )
    return encoder.prompt_text(prompt, prompt_name)


class BatchEncoder:
    """Encodes batches that are dictionaries of columns, as Ray Data's `map_batches` passes them to an actor.

    Args:
        model: A name or path that `Encoder.from_pretrained` takes. Each actor loads the model once, to its GPU if it
            has one.
        column: The column of the texts.
        dtype: The data type of the vectors, as in `encode_corpus`, but not "ubinary", whose mean is that of a whole
            corpus; "int8" adds the column `scale`.
        **options: Passed on to `Encoder.encode`. The prompt is that of `encode_corpus`.

    Example:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     BatchEncoder, fn_constructor_kwargs={"model": "bundled"}, concurrency=2, batch_size=4096
        ... )
    """

    def __init__(
        self, model: str = "bundled", *, column: str = "text", dtype: Storage = "float32", **options: Any
    ) -> None:
        if dtype == "ubinary":
            raise InputError("BatchEncoder stores no bits: they need the mean of the corpus. Use `textcl encode`.")
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


def _lasting_name(encoder: Encoder) -> str:
    """A name that loads the encoder again from any working directory: a path is made absolute, but not "small"."""
    here = encoder.name and encoder.name not in NAMED and Path(encoder.name).is_dir()
    return str(Path(encoder.name).resolve()) if here else encoder.name
