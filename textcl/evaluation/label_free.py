"""Label-free criteria: they score an encoder on held-out texts without labels or scored pairs.

Each criterion is a function of the embeddings of two views of the texts, such as their two halves. All views of all
wanted criteria are encoded together, each distinct string once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textcl.errors import InputError, nearest
from textcl.evaluation.baselines import TfidfEncoder
from textcl.evaluation.encoding import ROUNDING, cosine, encode_distinct
from textcl.evaluation.significance import bootstrap_error, mean_of_samples, resamples, spearman, spearman_of_samples
from textcl.losses.info_nce import nt_xent
from textcl.metrics import geometry
from textcl.texts import each_text
from textcl.words import count_words, join_words, split_words

LEAST_WORDS = 4  # shorter texts are left out; each half then has at least two words
MOST_WORDS = 64  # only the first 64 words of a text are used, so that an encoder does not truncate the second half
LEAST_TEXTS = 10
KEPT = 1 / 3  # share of the words that "dropped_words" keeps
LEAST_SHARE = 0.1  # smallest share of the words that "word_weights" keeps
TEMPERATURE = 0.05
CHUNK = 1024  # rows whose cosines are in memory at once


# Each criterion has a score, of the embeddings of its views. For the error of a difference of two scores it also has
# `items`, what is kept of each text, and `of_samples`, the same score in bootstrap samples of the texts.

# -- halves, unlike_halves, dropped_words and neighbours ---------------------------------------------------------------


def retrieval(first: Tensor, second: Tensor) -> float:
    """Mean reciprocal rank × 100 at which each row retrieves the row with the same index in the other view.

    Tied rows get their mean rank, so that a collapsed encoder scores low. The result is the mean of both directions.

    Args:
        first: The embeddings of one view, (rows, dim), of length 1.
        second: The embeddings of the other view, (rows, dim), of length 1.

    Example:
        >>> retrieval(torch.eye(4), torch.eye(4))
        100.0
    """
    return 100 * float(reciprocal_ranks(first, second).mean())


def _retrieval_items(first: Tensor, second: Tensor) -> np.ndarray:
    return 100 * reciprocal_ranks(first, second).double().numpy()


def reciprocal_ranks(first: Tensor, second: Tensor) -> Tensor:
    """What `retrieval` is the mean of: the mean of both directions for each text, from 0 to 1, (rows,)."""
    found = []
    for queries, keys in ((first, second), (second, first)):
        own = (queries * keys).sum(dim=1, keepdim=True)
        for start in range(0, len(queries), CHUNK):
            rows = slice(start, start + CHUNK)
            cosines = (queries[rows] @ keys.T).scatter_(1, torch.arange(len(queries))[rows, None], -torch.inf)
            above, level = (cosines > own[rows] + ROUNDING).sum(1), ((cosines - own[rows]).abs() <= ROUNDING).sum(1)
            found.append(1 / (1 + above + level / 2))
    return torch.cat(found).view(2, -1).mean(dim=0)


# -- loss --------------------------------------------------------------------------------------------------------------


def contrastive_loss(first: Tensor, second: Tensor) -> float:
    """Minus the mean NT-Xent loss at temperature 0.05; the same for all encoders, whatever their training loss was."""
    return -float(nt_xent(first, second, first, second, temperature=TEMPERATURE, chunk_size=CHUNK)) / (2 * len(first))


def _loss_items(first: Tensor, second: Tensor) -> np.ndarray:
    """What `contrastive_loss` is the mean of, (texts,)."""
    rows = [slice(row, row + 1) for row in range(len(first))]
    losses = [nt_xent(first[i], second[i], first, second, offset=i.start, temperature=TEMPERATURE) for i in rows]
    return -torch.stack(losses).double().numpy() / 2


# -- overlap and word_weights ------------------------------------------------------------------------------------------


def agreement(first: Tensor, second: Tensor, by_words: np.ndarray) -> float:
    """Spearman correlation × 100 of the rows' cosines with the cosines of their TF-IDF vectors."""
    return 100 * float(spearman(_cosines(first, second), by_words))


def _cosines(first: Tensor, second: Tensor) -> np.ndarray:
    return cosine(first.double().numpy(), second.double().numpy())


def _agreement_of_samples(items: np.ndarray, counts: np.ndarray, by_words: np.ndarray) -> np.ndarray:
    """A text is drawn with all its pairs: (texts,) counts are repeated for further rounds of pairs."""
    counts = np.tile(counts, len(items) // counts.shape[1])
    return 100 * spearman_of_samples(items, by_words, counts)


def word_weights(whole: Tensor, shortened: Tensor, by_words: np.ndarray, share: np.ndarray) -> float:
    """Whether cosines follow the TF-IDF weight of the words that a shortened text keeps, rather than their number.

    The difference × 100 of two Spearman correlations: that of the cosines with the TF-IDF cosines, minus that with the
    share of words kept. An encoder whose cosines are constant scores 0, and an encoder that only counts words scores
    below 0. The better the encoder distinguishes important words, the higher the score.

    Args:
        whole: The embeddings of the texts, (rows, dim), of length 1.
        shortened: The embeddings of the same texts after words were dropped, (rows, dim), of length 1.
        by_words: The cosines of the TF-IDF vectors of both, (rows,).
        share: The share of the words that were kept, (rows,).
    """
    return agreement(whole, shortened, by_words) - agreement(whole, shortened, share)


def _word_weights_of_samples(
    items: np.ndarray, counts: np.ndarray, by_words: np.ndarray, share: np.ndarray
) -> np.ndarray:
    return _agreement_of_samples(items, counts, by_words) - _agreement_of_samples(items, counts, share)


# -- alignment_uniformity and effective_rank ---------------------------------------------------------------------------


def _embeddings(*views: Tensor) -> np.ndarray:
    """The embeddings of all views, (texts, views, dim)."""
    return torch.stack(views, dim=1).numpy()


def alignment_uniformity(first: Tensor, second: Tensor) -> float:
    """−(alignment + uniformity): high if the two views of a text are close and all rows fill the sphere evenly.

    Wang and Isola 2020 (arXiv 2005.10242), section 4.1.
    """
    return -float(geometry.alignment(first, second) + geometry.uniformity(torch.cat([first, second])))


def _alignment_uniformity_of_samples(items: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Two draws of one text are not a pair, since their distance would be 0 for any encoder."""
    rows = torch.from_numpy(items).double()
    distances = (rows[:, 0] - rows[:, 1]).square().sum(dim=1).numpy()
    rows, weights = rows.transpose(0, 1).flatten(0, 1), torch.from_numpy(np.tile(counts, 2)).double()
    kernel = torch.zeros(len(weights), dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        own = slice(start, start + CHUNK)
        near = (4 * (rows[own] @ rows.T - 1)).exp()
        near[:, own].fill_diagonal_(0)
        kernel += (weights[:, own] * (weights @ near.T)).sum(dim=1)
    pairs = weights.sum(dim=1) ** 2 - (weights**2).sum(dim=1)
    return -(mean_of_samples(distances, counts) + (kernel / pairs).log().numpy())


def _effective_rank_of_samples(items: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The singular values of rows that are repeated are the roots of the eigenvalues of their weighted products."""
    rows = torch.from_numpy(items[:, 0]).double()
    found = []
    for weights in torch.from_numpy(counts).double():
        weighted = rows * weights.sqrt()[:, None]
        products = weighted.T @ weighted if rows.shape[0] > rows.shape[1] else weighted @ weighted.T
        values = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
        found.append(torch.special.entr(values / values.sum()).sum().exp())
    return torch.stack(found).numpy()


@dataclass(frozen=True)
class Criterion:
    """A label-free criterion. Higher is better.

    Attributes:
        views: The names of the views that it compares.
        score: The score from the embeddings of these views, each (rows, dim), and the words' values if it needs them.
        items: From the same embeddings what `of_samples` needs of each text, (texts, …).
        of_samples: The score in bootstrap samples, (samples,), from the items, from how often each sample has each text
            (samples, texts), and from the words' values.
    """

    views: tuple[str, ...]
    score: Callable[..., float]
    items: Callable[..., np.ndarray]
    of_samples: Callable[..., np.ndarray]


_HALVES = ("first_half", "second_half")
_RETRIEVAL = (retrieval, _retrieval_items, mean_of_samples)
CRITERIA: dict[str, Criterion] = {
    "halves": Criterion(_HALVES, *_RETRIEVAL),
    "unlike_halves": Criterion(("first_half", "unlike_half"), *_RETRIEVAL),
    "dropped_words": Criterion(("text", "some_words"), *_RETRIEVAL),
    "neighbours": Criterion(("even", "odd"), *_RETRIEVAL),
    "overlap": Criterion(("left", "right"), agreement, _cosines, _agreement_of_samples),
    "word_weights": Criterion(("text", "shortened"), word_weights, _cosines, _word_weights_of_samples),
    "loss": Criterion(_HALVES, contrastive_loss, _loss_items, mean_of_samples),
    "alignment_uniformity": Criterion(_HALVES, alignment_uniformity, _embeddings, _alignment_uniformity_of_samples),
    "effective_rank": Criterion(
        ("text",), lambda rows: float(geometry.effective_rank(rows)), _embeddings, _effective_rank_of_samples
    ),
}


@dataclass(frozen=True)
class Scores:
    """The result of `LabelFree`.

    Attributes:
        scores: The score of each criterion, in the order in which they were given; higher is better.
        items: What the first criterion's bootstrap needs of each text, see `Criterion`.
    """

    scores: dict[str, float]
    items: np.ndarray

    @property
    def primary(self) -> float:
        """The score of the first criterion."""
        return next(iter(self.scores.values()))

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain JSON values."""
        return {"scores": self.scores}


class LabelFree:
    """Scores an encoder on texts without labels, to choose a checkpoint or to stop training early.

    - halves: each text is cut into two halves, and each half must retrieve the other among the halves of all texts
      (mean reciprocal rank).
    - unlike_halves: as halves, but all words of the first half are removed from the second.
    - dropped_words: each text must retrieve a random third of its own words among those of all texts.
    - neighbours: each text must retrieve the text that follows it; for texts in the order in which they were written.
    - overlap: Spearman correlation of cosines with the cosines of TF-IDF, over random and nearest pairs of texts.
    - word_weights: over pairs of a text and the same text with a random share of its words dropped: whether cosines
      follow the TF-IDF weight of the words that are left, rather than their number. It does not detect a collapse.
    - loss: minus NT-Xent of the halves at temperature 0.05.
    - alignment_uniformity: −(alignment + uniformity) of the halves (Wang and Isola 2020).
    - effective_rank: how many directions the texts use (Roy and Vetterli 2007); detects a collapse, not quality.

    All random choices are made once, with the seed, in the constructor. Texts with fewer than four words and duplicates
    are left out; of long texts only the first 64 words are used.

    Args:
        texts: Held-out texts that are not trained on, for example 1,000.
        criteria: Names in `CRITERIA`; the first is the one to select by.
        seed: The seed of dropped words and random pairs.

    Raises:
        InputError: A criterion is unknown, or fewer than ten texts have four words.

    Example:
        >>> LabelFree(texts, "halves")(encoder).primary  # doctest: +SKIP
        41.7
        >>> LabelFree(texts, CRITERIA)(encoder).scores["loss"]  # doctest: +SKIP
        -2.1
    """

    def __init__(self, texts: Iterable[str], criteria: str | Iterable[str] = "halves", seed: int = 0) -> None:
        self.criteria = [criteria] if isinstance(criteria, str) else list(criteria)
        if not self.criteria:
            raise InputError(f"Name at least one criterion; there are {', '.join(CRITERIA)}.")
        for name in self.criteria:
            if name not in CRITERIA:
                raise InputError(
                    f"There is no criterion {name!r}; there are {', '.join(CRITERIA)}.{nearest(name, CRITERIA)}"
                )
        self.name = self.criteria[0]
        kept = (text for text in dict.fromkeys(each_text(texts)) if count_words(text) >= LEAST_WORDS)
        words = [split_words(text)[:MOST_WORDS] for text in kept]
        if len(words) < LEAST_TEXTS:
            raise InputError(
                f"A label-free criterion needs at least {LEAST_TEXTS} different texts of at least {LEAST_WORDS} words, "
                f"but only {len(words)} of the held-out texts are like that; hold out more texts."
            )
        self.texts = [join_words(each) for each in words]
        tfidf = TfidfEncoder(self.texts)
        views = self._views = _views(words, tfidf, np.random.default_rng(seed))
        by_words = {
            short: cosine(tfidf.encode(views[whole]), tfidf.encode(views[short]))
            for whole, short in (("left", "right"), ("text", "shortened"))
        }
        share = np.array([len(split_words(text)) for text in views["shortened"]]) / [len(each) for each in words]
        # further arguments of these criteria, after the embeddings
        self._given = {"overlap": (by_words["right"],), "word_weights": (by_words["shortened"], share)}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Scores:
        """Scores an encoder.

        Args:
            encoder: Any object with `.encode(list[str])`.
            **encode_arguments: Passed on to `encoder.encode`.

        Raises:
            InputError: The encoder did not return one row per text, or returned NaN, infinite values or only zero
                vectors.
        """
        needed = {view: self._views[view] for name in self.criteria for view in CRITERIA[name].views}
        found, row_of = encode_distinct(encoder, (t for texts in needed.values() for t in texts), **encode_arguments)
        rows = torch.as_tensor(found.toarray() if hasattr(found, "toarray") else found, dtype=torch.float32)
        # zero vectors would be as far apart as orthogonal ones, so that uniformity would praise them
        if not rows.any():
            raise InputError("The encoder returns the zero vector for every text; a zero vector has no direction.")
        rows = torch.nn.functional.normalize(rows, dim=1)
        embedded = {view: rows[[row_of[text] for text in texts]] for view, texts in needed.items()}
        scores = {}
        for name in self.criteria:
            given = self._given.get(name, ())
            scores[name] = CRITERIA[name].score(*(embedded[view] for view in CRITERIA[name].views), *given)
        first = CRITERIA[self.name]
        return Scores(scores, first.items(*(embedded[view] for view in first.views)))

    def error_of_difference(self, before: np.ndarray, after: np.ndarray) -> float:
        """The standard error of the difference of two scores (first criterion), by the paired bootstrap over texts.

        Each sample draws as many of the held-out texts, with replacement, the same texts for both encoders. For
        criteria that retrieve, and for `loss`, the texts among which one is searched stay the same.

        Args:
            before: The items of the first result, see `Scores`.
            after: The items of the second result.
        """
        criterion, given = CRITERIA[self.name], self._given.get(self.name, ())
        counts = resamples(len(self._views[criterion.views[0]]) // (2 if self.name == "overlap" else 1))
        return bootstrap_error(*(criterion.of_samples(items, counts, *given) for items in (before, after)))


def _views(words: Sequence[Sequence[str]], tfidf: TfidfEncoder, generator: np.random.Generator) -> dict[str, list[str]]:
    """All views of the texts that criteria compare, by name."""
    from sklearn.neighbors import NearestNeighbors

    texts = [join_words(each) for each in words]
    views: dict[str, list[str]] = {"text": texts, "even": texts[: len(texts) // 2 * 2 : 2], "odd": texts[1::2]}
    views |= {name: [] for name in ("first_half", "second_half", "unlike_half", "some_words", "shortened")}
    for own in words:
        first, second = own[: len(own) // 2], own[len(own) // 2 :]
        known = {_bare(word) for word in first}
        views["first_half"].append(join_words(first))
        views["second_half"].append(join_words(second))
        views["unlike_half"].append(join_words([word for word in second if _bare(word) not in known] or second[-1:]))
        kept = np.sort(generator.permutation(len(own))[: max(1, round(KEPT * len(own)))])
        views["some_words"].append(join_words([own[place] for place in kept]))
        share = generator.uniform(LEAST_SHARE, 1)
        views["shortened"].append(join_words([word for word in own if generator.random() < share]) or own[0])
    others = (np.arange(len(texts)) + generator.integers(1, len(texts), len(texts))) % len(texts)
    rows = tfidf.encode(texts)
    near = NearestNeighbors(n_neighbors=2, metric="cosine").fit(rows).kneighbors(rows)[1][:, 1]
    views["left"], views["right"] = texts * 2, [texts[row] for row in (*others, *near)]
    return views


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())
