"""Views that nlpaug makes: typing errors, synonyms, contextual words, back-translation, and any augmenter by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from textcl.views import nlpaug_bridge
from textcl.views.draws import text_id, uniform
from textcl.views.words import STREAM, check_rate

if TYPE_CHECKING:
    pass


def character_noise(
    texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0, kind: str = "keyboard"
) -> list[str]:
    """Mistypes words of four letters or more, with nlpaug: by a neighbouring key ("keyboard") or any sign ("random").

    Of n words, ⌈rate · n⌉ are mistyped.
    """
    return _nlpaug(lambda: nlpaug_bridge.character_augmenter(kind, rate), texts, rate, seed, view)


def nlpaug_synonyms(texts: Sequence[str], *, rate: float = 0.15, seed: int = 42, view: int = 0) -> list[str]:
    """WordNet synonyms as nlpaug draws them: slower than `synonyms`, but of the word's part of speech.

    Of n words, ⌈rate · n⌉ are tried; a synonym may be of several words.

    Raises:
        InputError: WordNet or NLTK's tagger is not on this machine; the message says how to bring it in.
    """
    return _nlpaug(lambda: nlpaug_bridge.synonym_augmenter(rate), texts, rate, seed, view)


def nlpaug_contextual(
    texts: Sequence[str], *, model: str | Path, rate: float = 0.15, seed: int = 42, view: int = 0
) -> list[str]:
    """Masked-language-model substitution as nlpaug does it: one word after the other, each seeing those before.

    The text comes back as the tokenizer decodes it, so its spaces, and its capitals with an uncased model, may differ.

    Raises:
        InputError: The model is not of type bert, distilbert or roberta.
    """
    return _nlpaug(
        lambda: nlpaug_bridge.contextual_augmenter(str(model), aug_p=rate, aug_max=None), texts, rate, seed, view
    )


def back_translation(
    texts: Sequence[str], *, model: str | Path, back_model: str | Path, max_length: int = 256
) -> list[str]:
    """Translates and translates back, with nlpaug (Sennrich, Haddow and Birch 2016). It draws nothing.

    Args:
        texts: In the language that `model` reads.
        model: A sequence-to-sequence model, a directory or a name on the hub.
        back_model: One for the way back.
        max_length: Tokens after which a translation is cut.
    """
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
    check_rate(rate)
    if rate == 0:  # nlpaug changes one word at least
        return list(texts)
    draws = uniform(seed, 0, torch.tensor([text_id(text) for text in texts], dtype=torch.long), view, 1, STREAM)
    with without_bars():
        return nlpaug_bridge.apply(make(), texts, [int(draw * 2**32) for draw in draws[:, 0].tolist()])


@contextmanager
def without_bars() -> Iterator[None]:
    """Silences the bars that datasets and transformers show for work of any length, piped or not."""
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
