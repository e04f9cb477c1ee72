"""Views of a text that are texts again, made once for a whole corpus.

Every function takes a list of texts and gives a list of as many. What it draws is a pure function of the text, the seed
and the view's number, whatever else is in the list; a rate of 0 changes nothing, and no text becomes empty.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from textcl.errors import InputError, nearest
from textcl.views import nlpaug_bridge, wordnet
from textcl.views.draws import text_id, uniform
from textcl.views.nlpaug_bridge import WORD

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_STREAM = 1  # of the draws; 0 is that of masked-word prediction
_WINDOW = 256  # texts whose draws are held at once


def synonyms(texts: Sequence[str], *, rate: float = 0.15, seed: int = 42, view: int = 0) -> list[str]:
    """Replaces words with WordNet synonyms, as EDA does (Wei and Zou 2019): any words but stop words.

    Args:
        texts: English.
        rate: Share of the words that have a synonym which are replaced.
        seed: Of the draws.
        view: The view's number.

    Raises:
        InputError: WordNet is not on this machine; the message says how to bring it in.

    Example:
        >>> synonyms(["A huge dog slept."], rate=1.0)  # doctest: +SKIP
        ['A brobdingnagian bounder kip.']
    """
    result = []
    for pieces, draws in _drawn(texts, rate, seed, view):
        for word in np.flatnonzero(draws < rate):
            original = pieces[2 * word + 1]
            if found := wordnet.substitutes(original):
                # below the rate, draw / rate is uniform again
                synonym = found[int(draws[word] / rate * len(found))]
                pieces[2 * word + 1] = wordnet.in_case_of(original, synonym)
        result.append("".join(pieces))
    return result


def deletion(texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0) -> list[str]:
    """Leaves out words, each with probability `rate`; where all would go, one stays.

    Example:
        >>> deletion(["A huge dog slept, and it snored."], rate=0.3)
        ['A huge dog slept, it.']
    """
    result = []
    for text, (pieces, draws) in zip(texts, _drawn(texts, rate, seed, view), strict=True):
        gone = draws < rate
        if not gone.any():
            result.append(text)
            continue
        if gone.all():
            gone[np.argmax(draws)] = False
        kept, between = [], pieces[0]
        for word, following, is_gone in zip(pieces[1::2], pieces[2::2], gone, strict=True):
            if is_gone:  # of the spaces on its two sides, one goes along
                between = between.rstrip() + following if between[-1:].isspace() else between + following.lstrip()
            else:
                kept += [between, word]
                between = following
        result.append("".join([*kept, between]))
    return result


def swap(texts: Sequence[str], *, rate: float = 0.1, seed: int = 42, view: int = 0) -> list[str]:
    """Lets adjacent words change places; about a share `rate` of the words does, none twice.

    Example:
        >>> swap(["A huge dog slept, and it snored."], rate=0.5)
        ['A huge dog slept, it and snored.']
    """
    begins = rate / (2 - rate)  # a swap moves two words, and the second begins none
    result = []
    for pieces, draws in _drawn(texts, rate, seed, view):
        word = 0
        while word + 1 < len(draws):
            if draws[word] < begins:
                first = 2 * word + 1
                pieces[first], pieces[first + 2] = pieces[first + 2], pieces[first]
                word += 1
            word += 1
        result.append("".join(pieces))
    return result


def crop(texts: Sequence[str], *, rate: float = 0.3, seed: int = 42, view: int = 0) -> list[str]:
    """Keeps a contiguous span of the words; `rate` is the share of them that is cut away.

    Example:
        >>> crop(["A huge dog slept, and it snored."], rate=0.5)
        ['huge dog slept, and']
    """
    result = []
    for pieces, draws in _drawn(texts, rate, seed, view):
        words = len(draws)
        kept = max(1, round(words * (1 - rate)))
        start = int(draws[0] * (words - kept + 1)) if words else 0
        end = start + kept
        # what stands before the first word and after the last goes with it
        result.append("".join(pieces[2 * start + (start > 0) : 2 * end + (end >= words)]))
    return result


def contextual(
    texts: Sequence[str],
    *,
    model: str | Path,
    rate: float = 0.15,
    seed: int = 42,
    view: int = 0,
    top_k: int = 10,
    batch_size: int = 32,
) -> list[str]:
    """Replaces words with what a masked language model expects in their place (Kobayashi 2018), never with themselves.

    All chosen words of a text are masked at once, and each is drawn from the `top_k` whole words that the model gives
    the highest probability. Words behind the model's longest input stay. The network computes in batches, so that on
    another machine or in other company a tie in the last digits may fall the other way; the draws do not change.

    Args:
        texts: In the model's language.
        model: A directory, or a name on the hub.
        rate: Probability that a word is replaced.
        seed: Of the draws.
        view: The view's number.
        top_k: Words to draw from.
        batch_size: Texts that the model sees at once.

    Raises:
        InputError: The model cannot be loaded, or has no masked-word head or no mask token.
    """
    return _contextual(texts, model, rate, seed, view, top_k, batch_size, insert=False)


def contextual_insertion(
    texts: Sequence[str],
    *,
    model: str | Path,
    rate: float = 0.15,
    seed: int = 42,
    view: int = 0,
    top_k: int = 10,
    batch_size: int = 32,
) -> list[str]:
    """Inserts what a masked language model expects, behind a word with probability `rate`; else as `contextual`."""
    return _contextual(texts, model, rate, seed, view, top_k, batch_size, insert=True)


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
    with _without_bars():
        views = iter(nlpaug_bridge.translate_back(present, str(model), str(back_model), max_length))
    return [(next(views).strip() or text) if text.strip() else text for text in texts]


TEXT_VIEWS: dict[str, Callable[..., list[str]]] = {
    "synonyms": synonyms,
    "deletion": deletion,
    "swap": swap,
    "crop": crop,
    "contextual": contextual,
    "contextual_insertion": contextual_insertion,
    "character_noise": character_noise,
    "nlpaug_synonyms": nlpaug_synonyms,
    "nlpaug_contextual": nlpaug_contextual,
    "back_translation": back_translation,
}


def augment(
    dataset: Dataset,
    view: str,
    *,
    copies: int = 2,
    rate: float | None = None,
    seed: int = 42,
    model: str | Path | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 1000,
    **options: Any,
) -> Dataset:
    """Adds the columns `text_1` … `text_<copies>`, each another view of the column `text`.

    The result is kept on disk under a name made from the view, its options, the seed, the model's files and the
    dataset's fingerprint: the same call, in this process or another, reads it back.

    Args:
        dataset: With a column "text".
        view: A name in `TEXT_VIEWS`.
        copies: Columns to add.
        rate: How much is changed, as the view's function says; its default where not given.
        seed: Of the draws.
        model: For views that need one.
        cache_dir: Where the result is kept; by default in the cache folder of `datasets`.
        batch_size: Texts a view sees at once.
        **options: What else the view's function takes.

    Raises:
        InputError: An unknown view or option (the nearest is named), a missing one, no column "text", or what the
            view's function raises.

    Example:
        >>> augment(load_texts("wiki.txt"), "deletion", rate=0.2).column_names  # doctest: +SKIP
        ['text', 'text_1', 'text_2']
    """
    if view not in TEXT_VIEWS:
        raise InputError(
            f"There is no text view '{view}'; there are {', '.join(TEXT_VIEWS)}.{nearest(view, TEXT_VIEWS)}"
        )
    if "text" not in dataset.column_names:
        raise InputError(f"A column 'text' is needed; the dataset has {dataset.column_names}.")
    function = TEXT_VIEWS[view]
    takes = inspect.signature(function).parameters
    options |= {name: value for name, value in (("rate", rate), ("model", model)) if value is not None}
    for name in options:
        if name not in takes or name in ("texts", "view"):
            raise InputError(f"The view '{view}' has no option '{name}'.{nearest(name, takes)}")
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and name not in ("texts", *options):
            raise InputError(f"The view '{view}' needs '{name}'.")

    from datasets import config
    from tqdm.auto import tqdm

    from textcl import __version__

    models = {name: _state(value) for name, value in options.items() if name.endswith("model")}
    named = sorted((name, str(value)) for name, value in options.items())
    made_of = (__version__, view, copies, seed, named, models, dataset._fingerprint)
    fingerprint = hashlib.blake2b(repr(made_of).encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir) if cache_dir is not None else Path(config.HF_DATASETS_CACHE) / "textcl-views"
    folder.mkdir(parents=True, exist_ok=True)

    def add(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        texts, numbers = batch["text"], range(1, copies + 1)
        if "view" in takes:
            columns = [function(texts, seed=seed, view=number, **options) for number in numbers]
        else:  # nothing is drawn
            columns = [function(texts, **options)] * copies
        bar.update(len(texts))
        return {f"text_{number}": column for number, column in zip(numbers, columns, strict=True)}

    with _without_bars(), tqdm(total=len(dataset), desc=view, delay=2, disable=None) as bar:
        return dataset.map(
            add,
            batched=True,
            batch_size=batch_size,
            cache_file_name=str(folder / f"{view}-{fingerprint}.arrow"),
            load_from_cache_file=True,
            new_fingerprint=fingerprint,
        )


# draws


def _drawn(texts: Sequence[str], rate: float, seed: int, view: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """For each text its pieces (words are those at odd places) and one number from [0, 1) for each of its words."""
    _check_rate(rate)
    for start in range(0, len(texts), _WINDOW):
        window = texts[start : start + _WINDOW]
        pieces = [WORD.split(text) for text in window]
        longest = max(len(row) // 2 for row in pieces)
        draws = uniform(seed, 0, torch.tensor([text_id(text) for text in window]), view, longest, _STREAM).numpy()
        for row, numbers in zip(pieces, draws, strict=True):
            yield row, numbers[: len(row) // 2]


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise InputError(f"A rate is a share from 0 to 1, not {rate}.")


def _nlpaug(make: Callable[[], Any], texts: Sequence[str], rate: float, seed: int, view: int) -> list[str]:
    _check_rate(rate)
    if rate == 0:  # nlpaug changes one word at least
        return list(texts)
    draws = uniform(seed, 0, torch.tensor([text_id(text) for text in texts], dtype=torch.long), view, 1, _STREAM)
    with _without_bars():
        return nlpaug_bridge.apply(make(), texts, [int(draw * 2**32) for draw in draws[:, 0].tolist()])


# masked language models


class _MaskedLanguageModel(NamedTuple):
    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedModel
    ids: torch.Tensor
    """Whole words of the vocabulary, (words,)."""
    words: list[str]
    places: dict[str, list[int]]
    """Where in `words` a lower-cased word stands."""
    max_length: int


def _contextual(
    texts: Sequence[str],
    model: str | Path,
    rate: float,
    seed: int,
    view: int,
    top_k: int,
    batch_size: int,
    *,
    insert: bool,
) -> list[str]:
    mlm = _load(str(model), _state(model))
    mask = str(mlm.tokenizer.mask_token)
    result = list(texts)
    plan = []
    for row, (pieces, draws) in enumerate(_drawn(texts, rate, seed, view)):
        chosen = np.flatnonzero(draws < rate)
        if len(chosen) and mask not in texts[row]:
            plan.append((row, pieces, chosen, draws[chosen] / rate))
    plan.sort(key=lambda item: len(texts[item[0]]), reverse=True)  # little padding
    for start in range(0, len(plan), batch_size):
        batch = plan[start : start + batch_size]
        masked = []
        for _, pieces, chosen, _ in batch:
            text = list(pieces)
            for word in 2 * chosen + 1:
                text[word] = f"{text[word]} {mask}" if insert else mask
            masked.append("".join(text))
        for (row, pieces, chosen, draws), logits in zip(batch, _mask_logits(mlm, masked), strict=True):
            for word, draw, scores in zip(chosen, draws, logits, strict=False):  # a long text's last masks are cut off
                original = pieces[2 * word + 1]
                if insert:
                    pieces[2 * word + 1] += " " + mlm.words[_pick(scores, draw, top_k)]
                else:
                    scores[mlm.places.get(original.lower(), [])] = -torch.inf
                    pieces[2 * word + 1] = wordnet.in_case_of(original, mlm.words[_pick(scores, draw, top_k)])
            result[row] = "".join(pieces)
    return result


def _mask_logits(mlm: _MaskedLanguageModel, masked: list[str]) -> list[torch.Tensor]:
    """For each text (masks, words), float32: the scores of whole words at its masks."""
    inputs = mlm.tokenizer(masked, padding=True, truncation=True, max_length=mlm.max_length, return_tensors="pt")
    with torch.no_grad():
        logits = mlm.network(**inputs.to(mlm.network.device)).logits.float().cpu()
    at_masks = inputs["input_ids"].cpu() == mlm.tokenizer.mask_token_id
    return [logits[row][at_masks[row]][:, mlm.ids] for row in range(len(masked))]


def _pick(scores: torch.Tensor, draw: float, top_k: int) -> int:
    best, words = scores.topk(min(top_k, len(scores)))
    cumulative = best.double().softmax(dim=0).cumsum(dim=0)
    return int(words[min(int(torch.searchsorted(cumulative, draw, right=True)), len(words) - 1)])


@lru_cache(maxsize=1)
def _load(model: str, state: tuple[Any, ...]) -> _MaskedLanguageModel:
    """The model, once for all batches; `state` says whether its files are still the same."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    with nlpaug_bridge.loading(model), _without_bars():
        tokenizer = AutoTokenizer.from_pretrained(model)
        network, report = AutoModelForMaskedLM.from_pretrained(model, use_safetensors=True, output_loading_info=True)
    if tokenizer.mask_token is None or report["missing_keys"]:
        lacks = "mask token" if tokenizer.mask_token is None else "masked-word head"
        raise InputError(f"{model} has no {lacks}; a masked language model, such as bert-base-uncased, is needed.")
    words = wordnet.whole_words(tokenizer)
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words.values()):
        places.setdefault(word.lower(), []).append(place)
    # RoBERTa counts positions from its padding's id on, which takes two of them
    max_length = min(tokenizer.model_max_length, network.config.max_position_embeddings - 2)
    network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return _MaskedLanguageModel(tokenizer, network, torch.tensor(list(words)), list(words.values()), places, max_length)


def _state(model: str | Path) -> tuple[Any, ...]:
    """What tells whether the files of a model's directory have changed; nothing for a name on the hub."""
    if not Path(model).is_dir():
        return ()
    files = sorted(path for path in Path(model).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@contextmanager
def _without_bars() -> Iterator[None]:
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
