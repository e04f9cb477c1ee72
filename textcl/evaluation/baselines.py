"""What a sentence encoder has to beat: three encoders without any sentence training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from textcl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csr_matrix

    from textcl.encoder import Encoder

_SLICE = 1024  # texts at a time
_WINDOW = 16_384  # whose embeddings are held while a covariance is summed up


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


def whitening(
    encoder: Encoder, texts: Iterable[str], dimensions: int | None = None, **encode_arguments: Any
) -> Encoder:
    """The encoder with its embeddings whitened: of mean 0 and covariance I on `texts`, each text counting as often.

    BERT-whitening (Su et al. 2021, arXiv 2103.15316), algorithm 1: (x - µ)W with W = UΛ^(-1/2) and UΛUᵀ the covariance,
    which divides by n - 1 here, as the authors' code does; cosines do not see the difference. It is a linear layer with
    weight Wᵀ and bias -µW, so that `save` exports it as one. An encoder that scales its vectors to length 1 does so
    behind it.

    Args:
        encoder: Its backbone is shared, not copied.
        texts: To fit on: the training corpus, never the texts that are scored.
        dimensions: Keep the directions of the largest variance alone, so many; default: all in which the texts vary.
            Behind a layer norm, as BERT ends with, that is one less than there are numbers: what it gives lies in a
            plane, and the last direction holds rounding noise, which whitening would blow up to the size of the others.
        **encode_arguments: Passed on to `encode`, such as `batch_size`.

    Raises:
        InputError: The embeddings of the texts vary in fewer directions than are asked for, or the encoder has a
            linear layer at its end already.

    Example:
        >>> whitening(encoder, corpus, dimensions=256).save("whitened")  # doctest: +SKIP
    """
    import numpy as np
    import torch

    if encoder.projection is not None:
        raise InputError(f"{encoder.name} has a linear layer at its end already; whiten the encoder without it.")
    count, total, products = 0, np.zeros(encoder.dimension), np.zeros((encoder.dimension, encoder.dimension))
    origin = None  # near the mean, so that the difference of the sums below is not one of large numbers
    stream = iter(texts)
    while window := list(islice(stream, _WINDOW)):
        rows = encoder.encode(window, normalize=False, **encode_arguments).astype(np.float64)
        origin = rows.mean(axis=0) if origin is None else origin
        rows -= origin
        count, total, products = count + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    if origin is None or count < 2:
        raise InputError(f"Whitening was to be fitted on {count} texts; there must be many more than dimensions.")
    covariance = (products - np.outer(total, total) / count) / (count - 1)
    directions, variances, _ = np.linalg.svd(covariance, hermitian=True)
    # float32 embeddings say nothing of smaller ones; and n texts differ in n - 1 directions at most
    least = (np.trace(covariance) + origin @ origin) * np.finfo(np.float32).eps ** 2
    varying = min(int((variances > least).sum()), count - 1)
    wanted = varying if dimensions is None else dimensions
    if not 1 <= wanted <= varying:
        raise InputError(
            f"The embeddings of {count:,} texts vary in {varying} directions, so that they cannot be whitened to "
            f"{wanted} dimensions. Give more texts, or fewer dimensions."
        )
    weight = directions[:, :wanted] / np.sqrt(variances[:wanted])
    layer = torch.nn.Linear(encoder.dimension, wanted, dtype=torch.promote_types(encoder.backbone.dtype, torch.float32))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(-(origin + total / count) @ weight))
    whitened = type(encoder)(
        encoder.backbone,
        encoder.tokenizer,
        encoder.pooling,
        encoder.max_length,
        token_weights=encoder.token_weights,
        head=encoder.head,
        projection=layer.to(encoder.device),
        normalize=encoder.normalize,
        prompts=encoder.prompts,
        default_prompt_name=encoder.default_prompt_name,
        name=f"{encoder.name}, whitened on {count:,} texts",
    )
    whitened.source = encoder.source
    return whitened.train(encoder.training)
