"""Functions that all evaluators use: encode each distinct text once, compute cosines, describe the encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from textcl.data.clustering import CLUSTERING_SETS
from textcl.data.transfer import CLASSIFICATIONS, REGRESSIONS
from textcl.errors import InputError
from textcl.evaluation.results import unnumbered
from textcl.metrics.labels import number_labels
from textcl.texts import as_texts
from textcl.version import library_versions

ROUNDING = 1e-6  # cosines of float32 vectors that differ by no more are equal but for rounding
_LARGEST = float(np.finfo(np.float32).max)  # larger values count as infinite: their squares overflow
_DECIMALS = 12  # cosines are rounded to this many decimals, because noise would break ties of bag-of-words vectors


def check_encoder(encoder: Any) -> None:
    """Raises an InputError if `encoder` is not an object that encodes; a str has a method `encode` of its own."""
    if isinstance(encoder, (str, type)) or not callable(getattr(encoder, "encode", None)):
        raise InputError(f"An encoder must be an object with a method encode(list of texts), not {encoder!r}.")


def encode_distinct(encoder: Any, texts: Iterable[str], **encode_arguments: Any) -> tuple[Any, dict[str, int]]:
    """Encodes each distinct text once, in one call of `encoder.encode`.

    Returns:
        The embeddings in float64, dense or sparse, `(distinct, dim)`, and for each text its row in them.

    Raises:
        InputError: The encoder has no method `encode`, did not return one row per text, or returned NaN or infinite
            values.
    """
    check_encoder(encoder)
    # sorted by length for little padding; longest first, so that out-of-memory errors occur at once
    distinct = sorted(set(texts), key=lambda text: (-len(text), text))
    rows = _as_rows(encoder.encode(distinct, **encode_arguments), distinct)
    return rows, {text: row for row, text in enumerate(distinct)}


def encode_dense(encoder: Any, texts: Iterable[str], **encode_arguments: Any) -> tuple[np.ndarray, dict[str, int]]:
    """As `encode_distinct`, in dense float32.

    Raises:
        InputError: As there; or the encoder returns sparse rows.
    """
    rows, row_of = encode_distinct(encoder, texts, **encode_arguments)
    if not isinstance(rows, np.ndarray):
        raise InputError("The encoder returns sparse rows, which would not fit in memory here. Use dense rows.")
    return rows.astype(np.float32), row_of


def cosine(first: Any, second: Any) -> np.ndarray:
    """The cosine of each row of `first` with the same row of `second`, (n,), in float64; 0 for a zero row.

    Cosines that all differ by no more than `ROUNDING`, as those of a collapsed encoder do, are returned as equal,
    because rounding has no meaning as an order.

    Both inputs are `(n, dim)`; both may be scipy sparse matrices.
    """
    if hasattr(first, "multiply"):
        dots = np.asarray(first.multiply(second).sum(axis=1)).ravel()
        norms = [np.sqrt(np.asarray(side.multiply(side).sum(axis=1)).ravel()) for side in (first, second)]
    else:
        dots = np.einsum("nd,nd->n", first, second)
        norms = [np.sqrt(np.einsum("nd,nd->n", side, side)) for side in (first, second)]
    product = norms[0] * norms[1]
    cosines = np.divide(dots, product, out=np.zeros_like(dots), where=product > 0).round(_DECIMALS)
    return np.full_like(cosines, cosines[0]) if len(cosines) and np.ptp(cosines) <= ROUNDING else cosines


def check_own_names(names: Iterable[str]) -> None:
    """Raises an InputError if own data have the name of a public set, because they would get its rules and counts."""
    public = {*CLUSTERING_SETS, *CLASSIFICATIONS, *REGRESSIONS}
    for name in names:
        if (known := unnumbered(str(name))) in public:
            raise InputError(
                f"Own data cannot be called {name!r}, because {known} is a public set of textcl; give them another "
                f"name, such as 'own {name}'."
            )


def texts_and_labels(name: str, own: Any, task: str) -> tuple[list[str], list[int], list[Any]]:
    """The parts of a user's own labelled set.

    Args:
        name: The name of the set, for messages.
        own: The pair `(texts, labels)`.
        task: What the set is for, for a message: "a classification".

    Returns:
        The texts, the number of each text's class, and the classes in the order of their numbers.

    Raises:
        InputError: `own` is not a pair, a label is missing, a text is not a string, there are not as many labels as
            texts, or there is only one class.
    """
    if not isinstance(own, (tuple, list)) or len(own) != 2:
        raise InputError(f"{name} must be a pair: (texts, labels).")
    numbers, classes = number_labels(own[1], f"{name}, labels")
    texts = as_texts(own[0], f"{name}, texts")
    if len(texts) != len(numbers):
        raise InputError(f"{name} has {len(texts):,} texts and {len(numbers):,} labels; each text needs one.")
    if len(classes) < 2:
        raise InputError(f"{name} has {len(classes)} classes; {task} needs at least two.")
    return texts, numbers, classes


def describe(encoder: Any) -> dict[str, Any]:
    """The encoder's `describe()` if it has one, else the name of its class."""
    if hasattr(encoder, "describe"):
        return dict(encoder.describe())
    return {"name": f"{type(encoder).__module__}.{type(encoder).__qualname__}"}


def made_with(encoder: Any) -> dict[str, Any]:
    """The part of a provenance that all evaluators share: the encoder, the seed and the library versions."""
    # evaluation is not random; a comparison puts the seed of the training run here
    return {"encoder": describe(encoder), "seed": None, "versions": library_versions()}


def _as_rows(embeddings: Any, texts: Sequence[str]) -> Any:
    """Converts the output of `encode` to float64 rows, dense or sparse, and checks them."""
    if hasattr(embeddings, "tocsr"):
        rows = embeddings.tocsr().astype(np.float64)
    else:
        if isinstance(embeddings, (list, tuple)) and embeddings and hasattr(embeddings[0], "detach"):
            embeddings = np.stack([_as_array(row) for row in embeddings])
        rows = _as_array(embeddings)
    if rows.ndim != 2 or rows.shape[0] != len(texts) or (len(texts) and not rows.shape[1]):
        raise InputError(
            f"The encoder was given {len(texts):,} texts and returned an array of shape {tuple(rows.shape)}; "
            f"the shape must be ({len(texts)}, dimension)."
        )
    largest = abs(rows).max(axis=1) if len(texts) else np.zeros(0)
    bad = np.flatnonzero(
        ~(np.asarray(largest.todense() if hasattr(largest, "todense") else largest).ravel() <= _LARGEST)
    )
    if len(bad):
        raise InputError(
            f"The encoder returned NaN or infinite values for {len(bad):,} of {len(texts):,} texts, "
            f"first for '{texts[bad[0]][:80]}'."
        )
    return rows


def _as_array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor; it may be bfloat16 or on a GPU
        values = values.detach().cpu().double()  # MPS has no float64
    try:
        return np.asarray(values, dtype=np.float64 if np.isrealobj(values) else None).astype(
            np.float64, casting="same_kind"
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"The encoder must return rows of real numbers of one length: {error}.") from error
