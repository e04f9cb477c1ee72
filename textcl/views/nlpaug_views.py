"""Views that nlpaug makes: typing errors, synonyms, contextual words, back-translation."""

from __future__ import annotations

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
    return _nlpaug(lambda: nlpaug_bridge.contextual_augmenter(str(model), rate), texts, rate, seed, view)


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
