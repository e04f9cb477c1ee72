"""Choosing without labels: what held-out texts say of an encoder where nobody has scored pairs of them.

Each criterion is a function of the embeddings of two views of the texts, such as their halves. All views of all the
criteria that are asked for together are encoded at once, each distinct string once.
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
from textcl.evaluation.encoding import cosine, encode_distinct
from textcl.evaluation.significance import spearman
from textcl.losses.info_nce import nt_xent
from textcl.metrics import geometry

LEAST_WORDS = 4  # of a text that is used: two a half
MOST_WORDS = 64  # of a text that are used, so that an encoder sees both halves of a long one
LEAST_TEXTS = 10
KEPT = 1 / 3  # share of the words that "dropped_words" leaves
LEAST_SHARE = 0.1  # that "word_weights" leaves
TEMPERATURE = 0.05
CHUNK = 1024  # rows whose cosines are held at once


def retrieval(first: Tensor, second: Tensor) -> float:
    """The mean reciprocal rank, in points, at which a row finds the row of the same number on the other side.

    Ties share their mean rank, so that a collapsed encoder finds nothing. Both directions count alike.

    Args:
        first: (rows, dim), of length 1.
        second: Likewise.

    Example:
        >>> retrieval(torch.eye(4), torch.eye(4))
        100.0
    """
    found = []
    for queries, keys in ((first, second), (second, first)):
        own = (queries * keys).sum(dim=1, keepdim=True)
        for start in range(0, len(queries), CHUNK):
            rows = slice(start, start + CHUNK)
            cosines = (queries[rows] @ keys.T).scatter_(1, torch.arange(len(queries))[rows, None], -torch.inf)
            above, level = (cosines > own[rows] + _ROUNDING).sum(1), ((cosines - own[rows]).abs() <= _ROUNDING).sum(1)
            found.append(1 / (1 + above + level / 2))
    return 100 * float(torch.cat(found).mean())


def alignment_uniformity(first: Tensor, second: Tensor) -> float:
    """How close two views of a text are and how evenly all rows fill the sphere, both with the sign turned.

    Wang and Isola 2020 (arXiv 2005.10242), section 4.1: minus the sum of the two terms.
    """
    return -float(geometry.alignment(first, second) + geometry.uniformity(torch.cat([first, second])))


def contrastive_loss(first: Tensor, second: Tensor) -> float:
    """Minus NT-Xent at temperature 0.05, a mean: one definition, whatever the encoder was trained by."""
    return -float(nt_xent(first, second, first, second, temperature=TEMPERATURE, chunk_size=CHUNK)) / (2 * len(first))


def agreement(first: Tensor, second: Tensor, by_words: np.ndarray) -> float:
    """The Spearman correlation, in points, of the rows' cosines with those of TF-IDF vectors."""
    return 100 * float(spearman(cosine(first.double().numpy(), second.double().numpy()), by_words))


def word_weights(whole: Tensor, shortened: Tensor, by_words: np.ndarray, share: np.ndarray) -> float:
    """How much better cosines follow the weight of the words that a shortened text has kept than their number.

    The difference of two Spearman correlations, in points. An encoder that sees nothing has 0 and one that
    counts words has less; the more it knows which of them matter, the higher.

    Args:
        whole: (rows, dim), of length 1.
        shortened: Likewise, of the same texts after words were dropped.
        by_words: The cosines of their TF-IDF vectors, (rows,).
        share: Of the words that were kept, (rows,).
    """
    return agreement(whole, shortened, by_words) - agreement(whole, shortened, share)


# Each criterion: the views that it compares, and what it makes of their embeddings. Higher is better.
CRITERIA: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "halves": (("first_half", "second_half"), retrieval),
    "unlike_halves": (("first_half", "unlike_half"), retrieval),
    "dropped_words": (("text", "some_words"), retrieval),
    "neighbours": (("even", "odd"), retrieval),
    "overlap": (("left", "right"), agreement),
    "word_weights": (("text", "shortened"), word_weights),
    "loss": (("first_half", "second_half"), contrastive_loss),
    "alignment_uniformity": (("first_half", "second_half"), alignment_uniformity),
    "effective_rank": (("text",), lambda rows: float(geometry.effective_rank(rows))),
}
_ROUNDING = 1e-6  # of a cosine


@dataclass(frozen=True)
class Scores:
    """What `LabelFree` gives.

    Attributes:
        scores: By criterion, in the order in which they were asked for; higher is better.
    """

    scores: dict[str, float]

    @property
    def primary(self) -> float:
        """The score of the first criterion."""
        return next(iter(self.scores.values()))


class LabelFree:
    """Scores an encoder on texts without labels, to choose a checkpoint and to stop by.

    - halves: a text is cut in two, and each half has to find the other among those of all texts (mean reciprocal rank).
    - unlike_halves: the same, where the second half has lost all words that are in the first.
    - dropped_words: a text has to find a third of its own words among those of all texts.
    - neighbours: a text has to find the next one; for texts that stand in the order in which they were written.
    - overlap: Spearman correlation of cosines with those of TF-IDF, over random pairs of texts and nearest ones.
    - word_weights: over pairs of a text and itself with words dropped, in all proportions: how much better cosines
      follow the TF-IDF weight of what is left than its number of words. It does not see a collapse.
    - loss: minus NT-Xent of the halves at temperature 0.05.
    - alignment_uniformity: minus the sum of the two, of the halves (Wang and Isola 2020).
    - effective_rank: how many directions the texts use (Roy and Vetterli 2007); it sees a collapse, not quality.

    What is random is drawn once, from the seed, when it is made. Texts with fewer than four words, and duplicates, are
    left out; of long ones the first 64 words are taken.

    Args:
        texts: Held-out texts, 1,000 for example, that are not trained on.
        criteria: Names in `CRITERIA`; the first is what is chosen by.
        seed: Of the words that are dropped, and of the random pairs.

    Raises:
        InputError: For an unknown criterion, or fewer than ten texts of four words.

    Example:
        >>> LabelFree(texts, "halves")(encoder).primary  # doctest: +SKIP
        41.7
        >>> LabelFree(texts, CRITERIA)(encoder).scores["loss"]  # doctest: +SKIP
        -2.1
    """

    def __init__(self, texts: Iterable[str], criteria: str | Iterable[str] = "halves", seed: int = 0) -> None:
        self.criteria = [criteria] if isinstance(criteria, str) else list(criteria)
        for name in self.criteria:
            if name not in CRITERIA:
                raise InputError(
                    f"There is no criterion {name!r}; there are {', '.join(CRITERIA)}.{nearest(name, CRITERIA)}"
                )
        self.name = self.criteria[0]
        words = [kept for text in dict.fromkeys(texts) if len(kept := text.split()[:MOST_WORDS]) >= LEAST_WORDS]
        if len(words) < LEAST_TEXTS:
            raise InputError(
                f"Choosing without labels takes {LEAST_TEXTS} different texts of {LEAST_WORDS} words at least, and "
                f"{len(words)} of those held out are such."
            )
        self.texts = [" ".join(each) for each in words]
        tfidf = TfidfEncoder(self.texts)
        views = self._views = _views(words, tfidf, np.random.default_rng(seed))
        by_words = {
            short: cosine(tfidf.encode(views[whole]), tfidf.encode(views[short]))
            for whole, short in (("left", "right"), ("text", "shortened"))
        }
        share = np.array([len(text.split()) for text in views["shortened"]]) / [len(each) for each in words]
        # what a measure takes beside the embeddings
        self._given = {"overlap": (by_words["right"],), "word_weights": (by_words["shortened"], share)}

    def __call__(self, encoder: Any, **encode_arguments: Any) -> Scores:
        """Scores anything with `.encode(list[str])`.

        Args:
            encoder: The encoder.
            **encode_arguments: Passed on to its `encode`.

        Raises:
            InputError: The encoder returned another number of rows than it was given texts, or NaN or infinite values.
        """
        needed = {view: self._views[view] for name in self.criteria for view in CRITERIA[name][0]}
        found, row_of = encode_distinct(encoder, (t for texts in needed.values() for t in texts), **encode_arguments)
        rows = torch.as_tensor(found.toarray() if hasattr(found, "toarray") else found, dtype=torch.float32)
        rows = torch.nn.functional.normalize(rows, dim=1)
        embedded = {view: rows[[row_of[text] for text in texts]] for view, texts in needed.items()}
        scores = {}
        for name in self.criteria:
            views, measure = CRITERIA[name]
            scores[name] = measure(*(embedded[view] for view in views), *self._given.get(name, ()))
        return Scores(scores)


def _views(words: Sequence[Sequence[str]], tfidf: TfidfEncoder, generator: np.random.Generator) -> dict[str, list[str]]:
    """Every view of the texts that a criterion compares, by name."""
    from sklearn.neighbors import NearestNeighbors

    texts = [" ".join(each) for each in words]
    views: dict[str, list[str]] = {"text": texts, "even": texts[: len(texts) // 2 * 2 : 2], "odd": texts[1::2]}
    views |= {name: [] for name in ("first_half", "second_half", "unlike_half", "some_words", "shortened")}
    for own in words:
        first, second = own[: len(own) // 2], own[len(own) // 2 :]
        known = {_bare(word) for word in first}
        views["first_half"].append(" ".join(first))
        views["second_half"].append(" ".join(second))
        views["unlike_half"].append(" ".join([word for word in second if _bare(word) not in known] or second[-1:]))
        kept = np.sort(generator.permutation(len(own))[: max(1, round(KEPT * len(own)))])
        views["some_words"].append(" ".join(own[place] for place in kept))
        share = generator.uniform(LEAST_SHARE, 1)
        views["shortened"].append(" ".join(word for word in own if generator.random() < share) or own[0])
    others = (np.arange(len(texts)) + generator.integers(1, len(texts), len(texts))) % len(texts)
    rows = tfidf.encode(texts)
    near = NearestNeighbors(n_neighbors=2, metric="cosine").fit(rows).kneighbors(rows)[1][:, 1]
    views["left"], views["right"] = texts * 2, [texts[row] for row in (*others, *near)]
    return views


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())
