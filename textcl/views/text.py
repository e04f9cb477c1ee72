"""Text views: views that are texts again, made once for a whole corpus.

Every function takes a list of texts and returns a list of the same length. Its random numbers are a pure function of
the text, the seed and the number of the view, so they do not depend on the other texts. A rate of 0 changes nothing,
and no text becomes empty.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textcl.environment import is_writable
from textcl.errors import InputError, nearest
from textcl.progress import Progress
from textcl.seals import agrees, seal, write_sealed
from textcl.texts import described
from textcl.views.masked_words import contextual, contextual_insertion, model_state
from textcl.views.nlpaug_views import (
    AugmenterView,
    back_translation,
    character_noise,
    nlpaug_contextual,
    nlpaug_synonyms,
    without_bars,
)
from textcl.views.words import crop, deletion, swap, synonyms

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger("textcl")

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
    """Adds the columns `text_1` … `text_<copies>`, each a different view of the column `text`.

    The result is cached on disk under a name made from the view, its options, the seed, the model's files and the
    dataset's fingerprint, so that the same call reads it back, also in another process.

    Args:
        dataset: A dataset with a column "text" and without a transform.
        view: A name in `TEXT_VIEWS`, or "nlpaug:" and the name of an augmenter of nlpaug, such as
            "nlpaug:word.RandomWordAug".
        copies: How many columns to add.
        rate: How much is changed, see the view's function; default: the default of that function.
        seed: The seed of the draws.
        model: A model, for views that need one.
        cache_dir: The folder of the cached result; default: a folder in the cache of `datasets`.
        batch_size: How many texts a view gets at once.
        **options: Further arguments of the view's function, or of nlpaug's augmenter.

    Raises:
        InputError: The view or an option is unknown (the message suggests the nearest name), a needed option is
            missing, there is no column "text", or the view's function raises it.

    Example:
        >>> augment(load_texts("wiki.txt"), "deletion", rate=0.2).column_names  # doctest: +SKIP
        ['text', 'text_1', 'text_2']
    """
    from datasets import Dataset, config

    from textcl.version import __version__

    function = _view(view)
    if not isinstance(dataset, Dataset) or dataset.format["type"] == "custom":
        kind = "a dataset with a transform" if isinstance(dataset, Dataset) else described(dataset)
        raise InputError(
            f"Text views are made once for a datasets.Dataset without a transform, not for {kind}; textcl.load_texts "
            "makes one of a list or a file."
        )
    if "text" not in dataset.column_names:
        raise InputError(f"The dataset needs a column 'text'; it has {dataset.column_names}.")
    takes = inspect.signature(function).parameters
    options |= {name: value for name, value in (("rate", rate), ("model", model)) if value is not None}
    for name in options:
        if name not in takes or name in ("texts", "view"):
            raise InputError(f"The view '{view}' has no option '{name}'.{nearest(name, takes)}")
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and name not in ("texts", *options):
            raise InputError(f"The view '{view}' needs '{name}'.")

    models = {name: model_state(value) for name, value in options.items() if name.endswith(("model", "path"))}
    named = sorted((name, str(value)) for name, value in options.items())
    made_of = (__version__, view, copies, seed, named, models, dataset._fingerprint)
    fingerprint = hashlib.blake2b(repr(made_of).encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir) if cache_dir is not None else Path(config.HF_DATASETS_CACHE) / "textcl-views"
    cached = folder / f"{view.replace(':', '-')}-{fingerprint}.arrow"
    kept: dict[str, Any] = {"cache_file_name": str(cached), "load_from_cache_file": True}
    if cache_dir is None and not is_writable(folder):
        logger.warning("%s cannot be written, so the view is made again in each run.", folder)
        kept = {"keep_in_memory": True}
    else:
        folder.mkdir(parents=True, exist_ok=True)
    mark = cached.with_suffix(".json")
    whole = agrees(mark)
    if not whole and "cache_file_name" in kept:
        cached.unlink(missing_ok=True)

    def add(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        texts, numbers = batch["text"], range(1, copies + 1)
        if "view" in takes:
            columns = [function(texts, seed=seed, view=number, **options) for number in numbers]
        else:  # the view is not random, so all copies are equal
            columns = [function(texts, **options)] * copies
        bar.update(len(texts))
        return {f"text_{number}": column for number, column in zip(numbers, columns, strict=True)}

    with without_bars(), Progress(view, len(dataset)) as bar:
        result = dataset.map(add, batched=True, batch_size=batch_size, new_fingerprint=fingerprint, **kept)
    if not whole and cached.is_file():
        write_sealed(mark, {"files": seal(folder, [cached.name])})
    return result


def _view(name: str) -> Callable[..., list[str]]:
    if name.startswith("nlpaug:"):
        return AugmenterView(name.removeprefix("nlpaug:"))
    if name not in TEXT_VIEWS:
        raise InputError(
            f"There is no text view '{name}'; there are {', '.join(TEXT_VIEWS)}, and nlpaug's augmenters, such as "
            f"nlpaug:word.RandomWordAug.{nearest(name, TEXT_VIEWS)}"
        )
    return TEXT_VIEWS[name]
