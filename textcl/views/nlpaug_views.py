"""Views made by nlpaug: typing errors, synonyms, contextual words, back-translation, and any augmenter by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from textcl.texts import as_texts
from textcl.views import nlpaug_bridge
from textcl.views.draws import text_id, uniform
from textcl.views.words import STREAM, check_rate

if TYPE_CHECKING:
    pass


def character_noise(
    texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0, kind: str = "keyboard"
) -> list[str]:
    """Makes typing errors in words of four or more letters, with nlpaug.

    A character is replaced by that of a neighbouring key (`kind="keyboard"`) or by any character ("random"). Of n
    words, ⌈rate · n⌉ are changed.
    """
    return _nlpaug(lambda: nlpaug_bridge.character_augmenter(kind, rate), texts, rate, seed, view)


def nlpaug_synonyms(texts: Sequence[str], *, rate: float = 0.15, seed: int = 42, view: int = 0) -> list[str]:
    """Replaces words with WordNet synonyms, with nlpaug. Slower than `synonyms`, but respects the part of speech.

    Of n words, ⌈rate · n⌉ are tried. A synonym may have several words.

    Raises:
        InputError: WordNet or NLTK's tagger is not on this machine; the message says how to import it.
    """
    return _nlpaug(lambda: nlpaug_bridge.synonym_augmenter(rate), texts, rate, seed, view)


def nlpaug_contextual(
    texts: Sequence[str], *, model: str | Path, rate: float = 0.15, seed: int = 42, view: int = 0
) -> list[str]:
    """Replaces words with predictions of a masked language model, with nlpaug.

    Words are replaced one after the other, so that each prediction sees the earlier replacements. The result is decoded
    by the tokenizer, so that spaces may differ, and capitals too if the model is uncased.

    Raises:
        InputError: The model is not of type bert, distilbert or roberta.
    """
    return _nlpaug(
        lambda: nlpaug_bridge.contextual_augmenter(str(model), aug_p=rate, aug_max=None), texts, rate, seed, view
    )


def back_translation(
    texts: Sequence[str], *, model: str | Path, back_model: str | Path, max_length: int = 256
) -> list[str]:
    """Translates texts and translates them back, with nlpaug (Sennrich, Haddow and Birch 2016). Nothing is random.

    Args:
        texts: Texts in the source language of `model`.
        model: A sequence-to-sequence model that translates: a directory, or a name on the hub.
        back_model: A model that translates back.
        max_length: The maximal length of a translation, in tokens.
    """
    texts = as_texts(texts)
    present = [text for text in texts if text.strip()]
    if not present:
        return list(texts)
    with without_bars():
        views = iter(nlpaug_bridge.translate_back(present, str(model), str(back_model), max_length))
    return [(next(views).strip() or text) if text.strip() else text for text in texts]


class AugmenterView:
    """The view that an augmenter of nlpaug makes, with nlpaug's defaults; each text is seeded by itself.

    A rate is the share of the words that change (of the sentences, for an augmenter of sentences). A text that nlpaug
    leaves nothing of stays as it is.

    Args:
        name: The augmenter's, its module first, such as "word.RandomWordAug".

    Raises:
        InputError: There is no such augmenter.

    Example:
        >>> AugmenterView("word.RandomWordAug")(["one two three"], action="swap")  # doctest: +SKIP
        ['Two one three']
    """

    def __init__(self, name: str) -> None:
        self.kind = nlpaug_bridge.augmenter_class(name)
        shared = {name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in _SHARED}
        self.__signature__ = inspect.Signature([*(shared | nlpaug_bridge.augmenter_options(self.kind)).values()])
        self._made: tuple[dict[str, Any], Any] | None = None  # kept from batch to batch: some read a large model

    def __call__(self, texts: Sequence[str], *, seed: int = 42, view: int = 0, **options: Any) -> list[str]:
        def make() -> Any:
            if self._made is None or self._made[0] != options:
                self._made = options, nlpaug_bridge.named_augmenter(self.kind, options)
            return self._made[1]

        with nlpaug_bridge.usable(self.kind):
            return _nlpaug(make, texts, options.get("rate", 1.0), seed, view)


_SHARED = ("texts", "seed", "view")


def _nlpaug(make: Callable[[], Any], texts: Sequence[str], rate: float, seed: int, view: int) -> list[str]:
    texts = as_texts(texts)
    check_rate(rate)
    if rate == 0:  # nlpaug would change at least one word
        return list(texts)
    draws = uniform(seed, 0, torch.tensor([text_id(text) for text in texts], dtype=torch.long), view, 1, STREAM)
    with without_bars():
        return nlpaug_bridge.apply(make(), texts, [int(draw * 2**32) for draw in draws[:, 0].tolist()])


@contextmanager
def without_bars() -> Iterator[None]:
    """Turns off the progress bars of datasets and transformers, which appear even for short work and in pipes."""
    import datasets
    from transformers.utils import logging

    for_datasets, for_transformers = not datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if for_datasets:
            datasets.enable_progress_bars()
        if for_transformers:
            logging.enable_progress_bar()
