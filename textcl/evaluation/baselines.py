"""What a sentence encoder has to beat: two encoders without any sentence training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csr_matrix

    from textcl.encoder import Encoder

_SLICE = 1024  # texts at a time


class TfidfEncoder:
    """TF-IDF vectors over words, one-letter words and punctuation marks included, fitted on a corpus.

    The marks count because the STS sets are tokenised; a word that the corpus lacks contributes nothing.

    Args:
        corpus: Texts that the vocabulary and document frequencies are taken from.

    Example:
        >>> TfidfEncoder(["a cat sleeps", "a dog barks"]).encode(["a cat barks"]).shape
        (1, 5)
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
        self._documents = self._vectorizer.fit_transform(corpus).shape[0]

    def encode(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse rows of length 1, `(len(texts), words)`; a text without a known word gets a zero row."""
        return self._vectorizer.transform(texts)

    def describe(self) -> dict[str, Any]:
        """What a result's provenance says of it."""
        return {
            "model": "TF-IDF",
            "words": len(self._vectorizer.vocabulary_),
            "corpus_texts": self._documents,
            "dtype": "float64",
        }


class MeanWordVectors:
    """The mean of an encoder's input word embeddings over the tokens of a text: no context, no special tokens.

    Args:
        encoder: Its tokenizer, word embeddings and maximal length are used.

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

        tokenizer = self._encoder.tokenizer
        weight = self._weight().detach().float().cpu()
        rows = []
        for start in range(0, len(texts), _SLICE):
            batch = list(texts[start : start + _SLICE])
            ids = tokenizer(batch, add_special_tokens=False, truncation=True, max_length=self._encoder.max_length)[
                "input_ids"
            ]
            lengths = torch.tensor([0, *map(len, ids)])
            flat = torch.tensor([token for row in ids for token in row], dtype=torch.long)
            rows.append(embedding_bag(flat, weight, lengths.cumsum(0)[:-1], mode="mean"))
        return torch.cat(rows).numpy() if rows else weight.new_zeros(0, weight.shape[1]).numpy()

    def describe(self) -> dict[str, Any]:
        """What a result's provenance says of it."""
        return {
            **self._encoder.describe(),
            "pooling": "mean of word embeddings, no special tokens",
            "layers": "input embeddings",
            "dimension": int(self._weight().shape[1]),
        }

    def _weight(self) -> torch.Tensor:
        return cast("torch.Tensor", self._encoder.backbone.get_input_embeddings().weight)
