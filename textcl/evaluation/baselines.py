"""Three baselines for sentence encoders. None of them was trained on sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from textcl.errors import InputError
from textcl.texts import as_texts, each_text
from textcl.words import with_spaces

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csr_matrix

    from textcl.encoder import Encoder

_SLICE = 1024  # texts at a time
_WINDOW = 16_384  # texts whose embeddings are in memory while the covariance is summed


class TfidfEncoder:
    """TF-IDF vectors over words, including one-letter words and punctuation marks, fitted on a corpus.

    In the STS sets, punctuation marks are words of their own, so they are included. Where no spaces separate words, as
    in Chinese, pairs of characters are words. A word that is not in the corpus is ignored.

    Args:
        corpus: The texts for the vocabulary and the document frequencies.

    Raises:
        InputError: The corpus holds something else than texts, or no word.

    Example:
        >>> TfidfEncoder(["a cat sleeps", "a dog barks"]).encode(["a cat barks"]).shape
        (1, 5)
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(preprocessor=_lower, token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
        texts = as_texts(corpus, "The corpus")
        try:
            self._documents = self._vectorizer.fit_transform(texts).shape[0]
        except ValueError as error:  # scikit-learn's "empty vocabulary"
            raise InputError(f"The corpus of {len(texts):,} texts has no word, so there are no frequencies.") from error

    def encode(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse rows of length 1, `(len(texts), words)`; a text without a known word gets a zero row."""
        return self._vectorizer.transform(as_texts(texts))

    def describe(self) -> dict[str, Any]:
        """The description of this encoder for a result's provenance."""
        return {
            "model": "TF-IDF",
            "words": len(self._vectorizer.vocabulary_),
            "corpus_texts": self._documents,
            "dtype": "float64",
        }


def _lower(text: str) -> str:
    return with_spaces(text.lower())


class MeanWordVectors:
    """The mean of an encoder's input word embeddings over the tokens of a text, without special tokens.

    Args:
        encoder: The encoder whose tokenizer, word embeddings and maximal length are used.

    Example:
        >>> MeanWordVectors(encoder).encode(["a cat sleeps"]).shape  # doctest: +SKIP
        (1, 256)
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 rows, `(len(texts), dim)`; a text without tokens gets a zero row."""
        import torch
        from torch.nn.functional import embedding_bag

        from textcl.tokenising import token_ids

        texts, tokenizer, longest = as_texts(texts), self._encoder.tokenizer, self._encoder.max_length
        weight = self._weight().detach().float().cpu()
        rows = []
        for start in range(0, len(texts), _SLICE):
            batch = list(texts[start : start + _SLICE])
            ids = token_ids(tokenizer, batch, longest, special=False)
            lengths = torch.tensor([0, *map(len, ids)])
            flat = torch.tensor([token for row in ids for token in row], dtype=torch.long)
            rows.append(embedding_bag(flat, weight, lengths.cumsum(0)[:-1], mode="mean"))
        return torch.cat(rows).numpy() if rows else weight.new_zeros(0, weight.shape[1]).numpy()

    def describe(self) -> dict[str, Any]:
        """The description of this encoder for a result's provenance."""
        return {
            **self._encoder.describe(),
            "pooling": "mean of word embeddings, no special tokens",
            "layers": "input embeddings",
            "dimension": int(self._weight().shape[1]),
        }

    def _weight(self) -> torch.Tensor:
        return cast("torch.Tensor", self._encoder.backbone.get_input_embeddings().weight)


def whitening(
    encoder: Encoder, texts: Iterable[str], dimensions: int | None = None, **encode_arguments: Any
) -> Encoder:
    """Whitens an encoder: its embeddings of `texts` get mean 0 and covariance I. All texts have the same weight.

    BERT-whitening (Su et al. 2021, arXiv 2103.15316), algorithm 1: (x - µ)W with W = UΛ^(-1/2), where UΛUᵀ is the
    covariance. The covariance is divided by n - 1, as in the authors' code; this does not change cosines. Whitening is
    a linear layer with weight Wᵀ and bias -µW, and `save` exports it as such. If the encoder scales its vectors to
    length 1, it does so after this layer.

    Args:
        encoder: The encoder to whiten. Its backbone is shared with the result, not copied.
        texts: The texts to fit on: the training corpus, never the evaluation texts.
        dimensions: Keep only this many directions, those with the largest variance; default: all directions in which
            the texts vary. For a backbone that ends with a layer norm, such as BERT, these are one fewer than the
            embedding dimension: its outputs are in a hyperplane, and whitening would scale the rounding noise in the
            last direction up to the size of the others.
        **encode_arguments: Passed on to `encode`, such as `batch_size`.

    Returns:
        A new encoder with the linear layer.

    Raises:
        InputError: The embeddings of the texts vary in fewer than `dimensions` directions, or the encoder already ends
            with a linear layer.

    Example:
        >>> whitening(encoder, corpus, dimensions=256).save("whitened")  # doctest: +SKIP
    """
    import numpy as np
    import torch

    if encoder.projection is not None or len(encoder.layers):
        raise InputError(f"{encoder.name} already ends with a linear layer or others; whiten the encoder without them.")
    count, total, products = 0, np.zeros(encoder.dimension), np.zeros((encoder.dimension, encoder.dimension))
    origin = None  # a point near the mean; subtracting it keeps the sums small, which reduces rounding errors
    stream = each_text(texts)
    while window := list(islice(stream, _WINDOW)):
        rows = encoder.encode(window, normalize=False, **encode_arguments).astype(np.float64)
        origin = rows.mean(axis=0) if origin is None else origin
        rows -= origin
        count, total, products = count + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    if origin is None or count < 2:
        raise InputError(
            f"Whitening cannot be fitted on {count} texts; give many more texts than the embeddings have dimensions."
        )
    covariance = (products - np.outer(total, total) / count) / (count - 1)
    directions, variances, _ = np.linalg.svd(covariance, hermitian=True)
    # smaller variances are rounding noise of float32 embeddings; n texts vary in at most n - 1 directions
    least = (np.trace(covariance) + origin @ origin) * np.finfo(np.float32).eps ** 2
    varying = min(int((variances > least).sum()), count - 1)
    wanted = varying if dimensions is None else dimensions
    if not 1 <= wanted <= varying:
        raise InputError(
            f"The embeddings of {count:,} texts vary in {varying} directions and cannot be whitened to {wanted} "
            f"dimensions. Give more texts, or fewer dimensions."
        )
    weight = directions[:, :wanted] / np.sqrt(variances[:wanted])
    layer = torch.nn.Linear(encoder.dimension, wanted, dtype=torch.promote_types(encoder.backbone.dtype, torch.float32))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(-(origin + total / count) @ weight))
    whitened = encoder.with_()
    whitened.projection = layer.to(encoder.device).train(encoder.training)
    whitened.name = f"{encoder.name}, whitened on {count:,} texts"
    return whitened
