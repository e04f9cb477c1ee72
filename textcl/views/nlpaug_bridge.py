"""The augmenters that textcl uses from nlpaug 1.1.11, with the fixes that they need.

nlpaug draws from the global generators, guesses a model's type from its path, and calls a method that transformers 5
no longer has. Here each text has its own seed, so that its view does not depend on other texts, and the state of the
global generators is restored afterwards.
"""

import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcl.errors import InputError, nearest
from textcl.views import wordnet
from textcl.words import pieces_of

NAMES = {
    "aug_p": "rate",
    "aug_word_p": "rate",
    "model_path": "model",
    "model_dir": "model",
    "from_model_name": "model",
    "to_model_name": "back_model",
}
"""What textcl calls an option of an augmenter that has another name in nlpaug."""

NOT_OPTIONS = {"name", "verbose", "include_detail", "device", "force_reload", "tokenizer", "reverse_tokenizer"}
"""Options that a view does not have: they would change what comes back, or cannot be a part of a cache's name."""

RESOURCES = {
    "SynonymAug": ("corpora/wordnet", "taggers/averaged_perceptron_tagger_eng"),
    "AntonymAug": ("corpora/wordnet", "taggers/averaged_perceptron_tagger_eng"),
    "RandomSentAug": ("tokenizers/punkt_tab",),
}
"""What an augmenter reads through NLTK; nlpaug would try to download it."""


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
    for resource in RESOURCES["SynonymAug"]:
        wordnet.require(resource)
    from nlpaug.augmenter.word import SynonymAug

    return SynonymAug(aug_p=rate, aug_max=None, **_keeping_spaces())


def contextual_augmenter(model: str, **options: Any) -> Any:
    """Replaces words with predictions of a masked language model, one mask after the other; nlpaug gets `options`."""
    from nlpaug.augmenter.word import ContextualWordEmbsAug
    from nlpaug.model import lang_models

    makers = {"bert": lang_models.Bert, "distilbert": lang_models.DistilBert, "roberta": lang_models.Roberta}
    with loading(model):
        kind = config_and_tokenizer(model)[0].model_type
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
        return Augmenter(model, kind, **options)


def augmenter_class(name: str) -> type:
    """The augmenter with this name in nlpaug, its module first: "word.RandomWordAug".

    Raises:
        InputError: There is none; the nearest name is named.
    """
    from nlpaug import Augmenter
    from nlpaug.augmenter import char, sentence, word

    known = {
        f"{kind}.{each.__name__}": each
        for kind, module in (("char", char), ("word", word), ("sentence", sentence))
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Augmenter) and not each.__name__.endswith("Augmenter")
    }
    del known["sentence.LambadaAug"]  # it writes texts for a label and does not read any
    if name not in known:
        raise InputError(f"nlpaug has no augmenter '{name}'.{nearest(name, known)} There are {', '.join(known)}.")
    return known[name]


def augmenter_options(kind: type) -> dict[str, inspect.Parameter]:
    """What an augmenter takes, by the name in textcl. A model has no default: nlpaug's are names on a hub."""
    found: dict[str, inspect.Parameter] = {}
    takes = inspect.signature(kind).parameters
    for name, own in _own_names(kind).items():
        default = takes[own].default
        if name in ("model", "back_model") and default is not None:
            default = inspect.Parameter.empty
        found[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    return found


def named_augmenter(kind: type, options: Mapping[str, Any]) -> Any:
    """An augmenter with nlpaug's own defaults, but for `options`, which have the names of `augmenter_options`."""
    for resource in RESOURCES.get(kind.__name__, ()):
        wordnet.require(resource)
    takes, names = inspect.signature(kind).parameters, _own_names(kind)
    given = {names[name]: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if "rate" in options:  # a rate is meant for texts of any length, and nlpaug changes ten words at most
        given = {most: None for most in ("aug_max", "aug_word_max") if most in takes} | given
    with usable(kind):
        if kind.__name__ == "ContextualWordEmbsAug":
            given.pop("model_type", None)  # it is read from the model
            return contextual_augmenter(given.pop("model_path"), **given)
        if "force_reload" in takes:  # nlpaug tells models apart by the last part of their path
            given["force_reload"] = True
        augmenter: Any = kind(**given)
    if kind.__name__ == "SpellingAug":  # nlpaug orders them by a hash that differs from process to process
        augmenter.model.dict = {word: sorted(others) for word, others in augmenter.model.dict.items()}
    return augmenter


def _own_names(kind: type) -> dict[str, str]:
    """An augmenter's options: the name in textcl -> the name in nlpaug."""
    found: dict[str, str] = {}
    for own in inspect.signature(kind).parameters:
        if own not in NOT_OPTIONS:
            found.setdefault(NAMES.get(own, own), own)
    return found


def translate_back(texts: Sequence[str], model: str, back_model: str, max_length: int) -> list[str]:
    """Translates each text with `model` and translates the result back with `back_model`."""
    from nlpaug.augmenter.word import BackTranslationAug

    BackTranslationAug.clear_cache()  # else nlpaug uses its cached models although the files may have changed
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with loading(f"{model}, or {back_model},"):
        for each in (model, back_model):
            config_and_tokenizer(each)
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


def config_and_tokenizer(model: str) -> tuple[Any, Any]:
    """Configuration and tokenizer of a model, without code or an attention kernel that its files name.

    Call it before nlpaug loads the model: nlpaug does not say that no code of the model may run.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    config._attn_implementation = None
    return config, AutoTokenizer.from_pretrained(model, trust_remote_code=False)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Turns the errors that transformers raises when it cannot load `model` into an InputError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(f"{model} cannot be loaded: {str(error).strip().splitlines()[0]}") from None


@contextmanager
def usable(kind: type) -> Iterator[None]:
    """Makes an InputError of what nlpaug raises where an option is wrong, or a library or a resource is missing."""
    try:
        yield
    except InputError:
        raise
    except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" *")]
        reason = lines[0] if lines else type(error).__name__
        raise InputError(f"nlpaug's {kind.__name__} cannot be used: {reason}") from error


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
        pieces[:] = pieces_of(text)
        return pieces[1::2]

    def reverse_tokenizer(words: list[str]) -> str:
        pieces[1::2] = words
        return "".join(pieces)

    return {"tokenizer": tokenizer, "reverse_tokenizer": reverse_tokenizer}
