"""Views made by a masked language model, which replaces or inserts words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from textcl.errors import InputError
from textcl.model_files import safetensors_files
from textcl.texts import as_texts
from textcl.tokenising import tokenize
from textcl.views import nlpaug_bridge, wordnet
from textcl.views.nlpaug_views import without_bars
from textcl.views.words import drawn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    """Replaces words with other words that a masked language model predicts in their place (Kobayashi 2018).

    All chosen words of a text are masked at once. Each is replaced by a word drawn from the `top_k` whole words with
    the highest probability, without the original word. Words after the model's maximal length stay as they are. The
    random numbers depend only on text, seed and view, but probabilities may differ in the last digits on another
    machine or in another batch, which can exchange nearly equal words.

    Args:
        texts: Texts in the model's language.
        model: The directory of a masked language model, or its name on the hub.
        rate: The probability that a word is replaced.
        seed: The seed of the draws.
        view: The number of the view.
        top_k: How many of the most probable words to draw from.
        batch_size: How many texts the model computes at once.

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
    """Inserts a predicted word after each word with probability `rate`; arguments and errors as in `contextual`."""
    return _contextual(texts, model, rate, seed, view, top_k, batch_size, insert=True)


class _MaskedLanguageModel(NamedTuple):
    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedModel
    ids: torch.Tensor
    """The token ids of the whole words in the vocabulary, (words,)."""
    words: list[str]
    places: dict[str, list[int]]
    """From a lower-cased word to its indices in `words`."""
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
    texts = as_texts(texts)
    mlm = _load(str(model), model_state(model))
    mask = str(mlm.tokenizer.mask_token)
    result = list(texts)
    plan = []
    for row, (pieces, draws) in enumerate(drawn(texts, rate, seed, view)):
        chosen = np.flatnonzero(draws < rate)
        if len(chosen) and mask not in texts[row]:
            plan.append((row, pieces, chosen, draws[chosen] / rate))
    plan.sort(key=lambda item: len(texts[item[0]]), reverse=True)  # texts of similar length need little padding
    for start in range(0, len(plan), batch_size):
        batch = plan[start : start + batch_size]
        masked = []
        for _, pieces, chosen, _ in batch:
            text = list(pieces)
            for word in 2 * chosen + 1:
                text[word] = f"{text[word]} {mask}" if insert else mask
            masked.append("".join(text))
        for (row, pieces, chosen, draws), logits in zip(batch, _mask_logits(mlm, masked), strict=True):
            for word, draw, scores in zip(chosen, draws, logits, strict=False):  # a truncated text has fewer masks
                original = pieces[2 * word + 1]
                if insert:
                    pieces[2 * word + 1] += " " + mlm.words[_pick(scores, draw, top_k)]
                else:
                    scores[mlm.places.get(original.lower(), [])] = -torch.inf
                    pieces[2 * word + 1] = wordnet.in_case_of(original, mlm.words[_pick(scores, draw, top_k)])
            result[row] = "".join(pieces)
    return result


def _mask_logits(mlm: _MaskedLanguageModel, masked: list[str]) -> list[torch.Tensor]:
    """For each text the logits of the whole words at its masks, (masks, words), float32, on the CPU."""
    inputs = tokenize(mlm.tokenizer, masked, mlm.max_length)
    device = mlm.network.device
    with torch.no_grad():
        logits = mlm.network(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits.float().cpu()
    at_masks = inputs["input_ids"] == mlm.tokenizer.mask_token_id
    return [logits[row][at_masks[row]][:, mlm.ids] for row in range(len(masked))]


def _pick(scores: torch.Tensor, draw: float, top_k: int) -> int:
    best, words = scores.topk(min(top_k, len(scores)))
    cumulative = best.double().softmax(dim=0).cumsum(dim=0)
    return int(words[min(int(torch.searchsorted(cumulative, draw, right=True)), len(words) - 1)])


@lru_cache(maxsize=1)
def _load(model: str, state: tuple[Any, ...]) -> _MaskedLanguageModel:
    """Loads the model once for all batches. `state` makes the cache load it again when its files have changed."""
    from transformers import AutoModelForMaskedLM

    if Path(model).is_dir():
        safetensors_files(Path(model))  # refuses an index that names other files
    with nlpaug_bridge.loading(model), without_bars():
        config, tokenizer = nlpaug_bridge.config_and_tokenizer(model)
        network, report = AutoModelForMaskedLM.from_pretrained(
            model, config=config, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
    if tokenizer.mask_token is None or report["missing_keys"]:
        lacks = "mask token" if tokenizer.mask_token is None else "masked-word head"
        raise InputError(f"{model} has no {lacks}; name a masked language model, such as bert-base-uncased.")
    words = wordnet.whole_words(tokenizer)
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words.values()):
        places.setdefault(word.lower(), []).append(place)
    # RoBERTa's position ids start after the id of its padding token, which costs two positions
    max_length = min(tokenizer.model_max_length, network.config.max_position_embeddings - 2)
    network = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return _MaskedLanguageModel(tokenizer, network, torch.tensor(list(words)), list(words.values()), places, max_length)


def model_state(model: str | Path) -> tuple[Any, ...]:
    """Name, size and time of change of each file in a model's directory; empty for a name on the hub."""
    if not Path(model).is_dir():
        return ()
    files = sorted(path for path in Path(model).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
