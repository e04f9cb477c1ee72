"""What smaller vectors cost: the scores of an encoder with fewer dimensions, and with fewer bits a number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textcl.errors import InputError
from textcl.evaluation.compressed import Compressed, Kept
from textcl.evaluation.finetune import Finetune
from textcl.evaluation.results import Result, join
from textcl.evaluation.retrieval import Retrieval
from textcl.evaluation.suite import Suite, loaded
from textcl.evaluation.transductive import mark_transductive, recorded_overlap
from textcl.progress import Progress
from textcl.vectors.compress import Compression, Storage, bytes_of, check_sizes


@dataclass(frozen=True)
class Size:
    """A size of vectors, and the scores of vectors of this size.

    Attributes:
        dimensions: The number of dimensions.
        dtype: The data type in which they are stored.
        pca: Whether they were rotated by PCA before they were cut.
        rescored: For "ubinary": whether retrieval ordered the 40 best documents by bits anew, by their int8 vectors.
        bytes: The bytes of a vector.
        result: The scores.
    """

    dimensions: int
    dtype: Storage
    pca: bool
    rescored: bool
    bytes: int
    result: Result

    @property
    def name(self) -> str:
        """How the numbers are stored, such as "ubinary, then int8"."""
        return f"{self.dtype}{', then int8' * self.rescored}{', PCA' * self.pca}"

    def to_dict(self) -> dict[str, Any]:
        """The size and its scores as plain JSON values."""
        sizes = {name: getattr(self, name) for name in ("dimensions", "dtype", "pca", "rescored", "bytes")}
        return {**sizes, **self.result.to_dict()}


def evaluate_sizes(
    model: Any,
    tasks: str | Sequence[str] = "sts",
    *,
    dimensions: Sequence[int] = (),
    dtypes: Sequence[Storage] = ("float32",),
    pca: bool = False,
    evaluators: Sequence[Any] = (),
    data_dir: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    pooling: str | None = None,
    max_length: int | None = None,
    bf16: bool = False,
    mode: str = "senteval",
    setting: str = "test",
) -> list[Size]:
    """Evaluates an encoder with vectors of several sizes. Each text is encoded once; all vectors are kept in memory.

    All dimensions in float32 come first. Then come all dimensions and each number of `dimensions`, the largest first,
    in each data type.

    Mean and PCA are those that `encode_corpus` would fit on such texts: on up to 10,000 of the texts that an evaluator
    encodes, drawn with a fixed seed; for retrieval, of the documents. No label is used. For "ubinary" the cosine is
    that of the signs; retrieval is also scored as `CorpusIndex` searches: the first 40 documents by bits are ordered by
    int8 vectors.

    The arguments that are not listed here are those of `evaluate`.

    Args:
        dimensions: The numbers of dimensions, besides all.
        dtypes: The data types, as in `encode_corpus`.
        pca: Also score the directions of largest variance, beside the first dimensions.
        evaluators: As in `evaluate`; `Finetune` and retrieval by words have no use for smaller vectors.

    Raises:
        InputError: A size or a data type is wrong, there are too few texts for a PCA, or as in `evaluate`.

    Example:
        >>> for size in evaluate_sizes("my-encoder", dimensions=[128, 64], dtypes=["int8"]):  # doctest: +SKIP
        ...     print(size.dimensions, size.name, size.bytes, size.result.primary)
    """
    dimensions = np.asarray(dimensions).tolist()  # numbers of numpy too
    suite = Suite(tasks, data_dir, evaluators=evaluators, mode=mode, setting=setting)
    for each in suite.evaluators:
        if isinstance(each, Finetune) or (isinstance(each, Retrieval) and each.retrieval != "dense"):
            raise InputError("Smaller vectors are compared by cosine: leave out fine-tuning, bm25 and hybrid.")
    encoder = loaded(model, pooling, max_length, bf16)
    whole = Kept(encoder).encode(["a text"]).shape[1]
    check_sizes(whole, dimensions, dtypes, pca=pca)
    if "ubinary" in dtypes:
        check_sizes(whole, [whole], dtypes)
    options, counts = {} if batch_size is None else {"batch_size": batch_size}, recorded_overlap(encoder)
    searches = any(isinstance(each, Retrieval) for each in suite.evaluators)
    plans = list(_plans(sorted({*dimensions} - {whole}, reverse=True), dtypes, pca, searches))
    normalize = bool(getattr(encoder, "normalize", False))
    found: dict[Any, list[Result]] = {plan: [] for plan in plans}
    with Progress("Scoring sizes", len(suite.evaluators) * len(plans), "sizes", gives_way=True) as bar:
        for evaluator in suite.evaluators:
            kept = Kept(encoder)
            exact = evaluator(kept, **options)
            documents = set(evaluator.collection.documents.values()) if isinstance(evaluator, Retrieval) else None
            sample = kept.sample(documents)
            for plan in plans:
                size, dtype, rotated, rescored = plan
                if (size, dtype) == (None, "float32"):
                    found[plan].append(exact)
                else:
                    fit = Compression.fit(sample, size, normalize=normalize, pca=rotated, bits=dtype == "ubinary")
                    smaller = Compressed(kept, fit, dtype, rescores=rescored)
                    found[plan].append(evaluator(smaller, **options))
                bar.update(1)
    return [
        Size(
            size or whole,
            dtype,
            rotated,
            rescored,
            bytes_of(size or whole, dtype, rescoring=rescored),
            mark_transductive(join(results), counts),
        )
        for (size, dtype, rotated, rescored), results in found.items()
    ]


def _plans(
    sizes: Sequence[int], dtypes: Sequence[Storage], pca: bool, searches: bool
) -> Iterator[tuple[int | None, Storage, bool, bool]]:
    """Size (None: all), data type, whether by PCA, and whether bits are rescored; without repetition."""
    yield None, "float32", False, False
    for size in (None, *sizes):
        for rotated in (False, True) if pca and size is not None else (False,):
            for dtype in dict.fromkeys(dtypes):
                for rescored in (False, True) if searches and dtype == "ubinary" else (False,):
                    if (size, dtype) != (None, "float32"):
                        yield size, dtype, rotated, rescored
