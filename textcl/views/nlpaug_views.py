"""Views made by nlpaug: typing errors, synonyms, contextual words, back-translation."""

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
    return _nlpaug(lambda: nlpaug_bridge.contextual_augmenter(str(model), rate), texts, rate, seed, view)


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
    present = [text for text in texts if text.strip()]
    if not present:
        return list(texts)
    with without_bars():
        views = iter(nlpaug_bridge.translate_back(present, str(model), str(back_model), max_length))
    return [(next(views).strip() or text) if text.strip() else text for text in texts]


def _nlpaug(make: Callable[[], Any], texts: Sequence[str], rate: float, seed: int, view: int) -> list[str]:
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
