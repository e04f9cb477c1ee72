"""The augmenters that textcl uses from nlpaug 1.1.11, with the fixes that they need.

nlpaug draws from the global generators, guesses a model's type from its path, and calls a method that transformers 5
no longer has. Here each text has its own seed, so that its view does not depend on other texts, and the state of the
global generators is restored afterwards.
"""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from textcl.errors import InputError
from textcl.views import wordnet

WORD = re.compile(r"(\w+(?:['’-]\w+)*)")
"""A word. `WORD.split(text)` alternates between the text outside words (even indices) and words (odd indices)."""


def character_augmenter(kind: str, rate: float) -> Any:
    """Makes typing errors in a share `rate` of the words: with a neighbouring key ("keyboard") or any ("random")."""
    from nlpaug.augmenter import char

    makers = {"keyboard": char.KeyboardAug, "random": char.RandomCharAug}
    if kind not in makers:
        raise InputError(f"There is no character noise '{kind}'; there are {', '.join(makers)}.")
    augmenter = makers[kind](aug_word_p=rate, aug_word_max=None, **_keeping_spaces())
    if kind == "keyboard":  # nlpaug's neighbours of "u" include " t"; the space would split a word
        keys = augmenter.model.model
        keys |= {key: [near.strip() for near in nearby] for key, nearby in keys.items()}
    return augmenter


def synonym_augmenter(rate: float) -> Any:
    """Replaces words with WordNet synonyms of the same part of speech, which NLTK's tagger determines."""
    wordnet.require("corpora/wordnet")
    wordnet.require("taggers/averaged_perceptron_tagger_eng")  # nlpaug would try to download it
    from nlpaug.augmenter.word import SynonymAug

    return SynonymAug(aug_p=rate, aug_max=None, **_keeping_spaces())


def contextual_augmenter(model: str, rate: float) -> Any:
    """Replaces words with predictions of a masked language model, one mask after the other."""
    from nlpaug.augmenter.word import ContextualWordEmbsAug
    from nlpaug.model import lang_models
    from transformers import AutoConfig

    makers = {"bert": lang_models.Bert, "distilbert": lang_models.DistilBert, "roberta": lang_models.Roberta}
    with loading(model):
        kind = AutoConfig.from_pretrained(model).model_type
    if kind not in makers:
        raise InputError(
            f"nlpaug supports models of type {', '.join(makers)}, but {model} is of type {kind}. "
            f"Use the view 'contextual', which takes any masked language model."
        )

    base: Any = makers[kind]

    class LanguageModel(base):
        def token2id(self, token: str) -> int:  # nlpaug calls `_convert_token_to_id`, which transformers 5 dropped
            return self.tokenizer.convert_tokens_to_ids(token)

        def is_skip_candidate(self, candidate: str) -> bool:
            # nlpaug would confuse a predicted mask token with the mask of the next word
            return candidate in self.tokenizer.all_special_tokens or super().is_skip_candidate(candidate)

    class Augmenter(ContextualWordEmbsAug):
        @classmethod
        def get_model(cls, model_path: str, device: str, top_k: int, **unused: Any) -> LanguageModel:
            # nlpaug caches models by the last part of their path, so it confuses a/encoder with b/encoder
            return LanguageModel(model_path, device=device, top_k=top_k)

    with loading(model):
        return Augmenter(model, kind, aug_p=rate, aug_max=None)


def translate_back(texts: Sequence[str], model: str, back_model: str, max_length: int) -> list[str]:
    """Translates each text with `model` and translates the result back with `back_model`."""
    from nlpaug.augmenter.word import BackTranslationAug

    BackTranslationAug.clear_cache()  # else nlpaug uses its cached models although the files may have changed
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with loading(f"{model}, or {back_model},"):
        augmenter = BackTranslationAug(model, back_model, device=device, max_length=max_length)
    with _generators_restored():
        return augmenter.augment(list(texts))


def apply(augmenter: Any, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """One view of each text, drawn with the text's own seed. If nlpaug returns an empty text, the original is kept.

    Texts are passed to nlpaug one by one because in a batch it compares all rows after the 32nd with the wrong words.
    """
    result = []
    with _generators_restored():
        for text, seed in zip(texts, seeds, strict=True):
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            core = text.strip()
            view = "".join(augmenter.augment(core)[:1]) if core else ""
            result.append(text.replace(core, view, 1) if view.strip() else text)
    return result


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Turns the errors that transformers raises when it cannot load `model` into an InputError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(f"{model} cannot be loaded: {str(error).strip().splitlines()[0]}") from None


@contextmanager
def _generators_restored() -> Iterator[None]:
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def _keeping_spaces() -> dict[str, Any]:
    """A tokenizer for nlpaug and its inverse, which restores the text between the words of the last text."""
    pieces: list[str] = []

    def tokenizer(text: str) -> list[str]:
        pieces[:] = WORD.split(text)
        return pieces[1::2]

    def reverse_tokenizer(words: list[str]) -> str:
        pieces[1::2] = words
        return "".join(pieces)

    return {"tokenizer": tokenizer, "reverse_tokenizer": reverse_tokenizer}
