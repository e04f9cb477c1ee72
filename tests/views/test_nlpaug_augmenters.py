"""Text views by the names of nlpaug's augmenters: seeded by text, with nlpaug's options, unknown names refused."""

import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.command import python
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.errors import InputError
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe
from textcl.views.nlpaug_views import AugmenterView
from textcl.views.text import augment

NAMES = (
    "char.KeyboardAug",
    "char.OcrAug",
    "char.RandomCharAug",
    "word.RandomWordAug",
    "word.SpellingAug",
    "word.SplitAug",
)
LONG = [f"Because {text}, I believe that they receive wonderful letters about government." for text in TEXTS[::7][:12]]


@pytest.mark.parametrize("name", NAMES)
def test_an_augmenter_depends_on_text_seed_and_number_alone(name: str) -> None:
    view = functools.partial(AugmenterView(name), rate=0.4)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    together = view(LONG)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after
    assert sum(new != old for new, old in zip(together, LONG, strict=True)) > 8
    assert view([TEXTS[1], *LONG[::-1]])[:0:-1] == together  # other texts before it, another order
    assert [view([text])[0] for text in LONG[:4]] == together[:4]
    assert AugmenterView(name)(LONG, rate=0.4) == together
    assert view(LONG, seed=43) != together
    assert view(LONG, view=1) != together
    assert view(LONG, rate=0.0) == LONG
    assert view(["", " "]) == ["", " "]


def test_another_process_draws_the_same() -> None:
    """SpellingAug orders its words by Python's hash of strings, which differs between processes."""
    code = (
        "import json, sys; from textcl.views.nlpaug_views import AugmenterView; names, texts = json.loads(sys.argv[1]);"
        "print(json.dumps([hash(texts[0]), {name: AugmenterView(name)(texts, rate=0.9) for name in names}]))"
    )
    here = {name: AugmenterView(name)(LONG, rate=0.9) for name in NAMES}
    other_hash, there = json.loads(python(code, json.dumps([NAMES, LONG])).stdout)
    assert other_hash != hash(LONG[0])
    assert there == here


def test_a_rate_is_the_share_of_the_words_and_options_are_nlpaugs() -> None:
    words = [f"word{i}" for i in range(100)]
    text = " ".join(words)
    (view,) = AugmenterView("word.RandomWordAug")([text], rate=0.4)
    assert len(view.split()) == 60  # nlpaug itself deletes ten words at most
    (view,) = AugmenterView("word.RandomWordAug")([text])
    assert len(view.split()) == 90
    (view,) = AugmenterView("word.RandomWordAug")([text], rate=0.4, aug_max=5)
    assert len(view.split()) == 95
    (view,) = AugmenterView("word.RandomWordAug")([text], rate=0.4, action="swap")
    assert sorted(view.lower().split()) == sorted(words)
    (view,) = AugmenterView("char.RandomCharAug")([text], rate=0.3)
    assert sum(new != old for new, old in zip(view.split(), words, strict=True)) == 30
    (view,) = AugmenterView("word.ReservedAug")(["a red door"], rate=1.0, reserved_tokens=[["red", "scarlet"]])
    assert view == "a scarlet door"


def test_augmenters_that_read_a_lexicon_or_a_model(
    lexicons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk.data

    monkeypatch.setenv("TEXTCL_DATA", str(lexicons))
    monkeypatch.setattr(nltk.data, "path", [])
    for name in ("word.SynonymAug", "word.AntonymAug"):
        view = functools.partial(AugmenterView(name), rate=0.5)
        assert view(TEXTS[:6]) != TEXTS[:6]
        assert view(TEXTS[5::-1])[::-1] == view(TEXTS[:6])
    view = functools.partial(AugmenterView("word.ContextualWordEmbsAug"), TEXTS[:6], rate=0.5)
    first = view(model=tiny_encoder_directory(tmp_path / "a" / "model"))
    assert first != TEXTS[:6]
    assert view(model=tiny_encoder_directory(tmp_path / "b" / "model", seed=1)) != first
    with pytest.raises(InputError, match=r"tokenizers/punkt_tab is not on this machine"):
        AugmenterView("sentence.RandomSentAug")(TEXTS[:2])


def test_augment_takes_augmenters_by_name(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": LONG})
    columns = augment(dataset, "nlpaug:word.RandomWordAug", rate=0.3, action="swap", cache_dir=tmp_path)
    view = functools.partial(AugmenterView("word.RandomWordAug"), LONG, rate=0.3, action="swap")
    assert columns["text_1"][:] == view(view=1)
    assert columns["text_2"][:] == view(view=2)
    other = augment(dataset, "nlpaug:word.RandomWordAug", rate=0.3, cache_dir=tmp_path)
    assert other["text_1"][:] != columns["text_1"][:]
    assert [path.name[:26] for path in tmp_path.glob("*.arrow")] == ["nlpaug-word.RandomWordAug-"] * 2


def test_what_is_refused(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": TEXTS[:2]})
    for name, options, message in (
        ("word.RandomWordAgu", {}, r"no augmenter 'word.RandomWordAgu'\. Did you mean 'word.RandomWordAug'\?"),
        ("RandomWordAug", {}, r"Did you mean 'word.RandomWordAug'\?"),
        ("word.WordAugmenter", {}, "no augmenter 'word.WordAugmenter'"),
        ("sentence.LambadaAug", {}, "no augmenter 'sentence.LambadaAug'"),
        ("word.RandomWordAug", {"rate": 1.5}, "from 0 to 1, not 1.5"),
        ("word.RandomWordAug", {"model": "x"}, "has no option 'model'"),
        ("word.RandomWordAug", {"actoin": "swap"}, r"no option 'actoin'\. Did you mean 'action'\?"),
        ("word.RandomWordAug", {"action": "fly"}, r"nlpaug's RandomWordAug cannot be used: Action must be one of"),
        ("word.ContextualWordEmbsAug", {}, "needs 'model'"),
        ("word.ContextualWordEmbsAug", {"model": tmp_path / "nowhere"}, "nowhere cannot be loaded"),
        ("word.BackTranslationAug", {"model": "x"}, "needs 'back_model'"),
        ("word.ReservedAug", {}, "needs 'reserved_tokens'"),
        ("word.TfIdfAug", {"model": tmp_path}, "nlpaug's TfIdfAug cannot be used: .*No such file"),
    ):
        with pytest.raises(InputError, match=message):
            augment(dataset, f"nlpaug:{name}", cache_dir=tmp_path / "cache", **options)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_run_trains_on_the_views_of_an_augmenter(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(LONG) + "\n")
    recipe = {"method": "simcse", "data": str(tmp_path / "texts.txt"), "output": str(tmp_path / "run")}
    flags = "--dev none --max_steps 1 --per_device_train_batch_size 4 --dropout 0 --text-view nlpaug:word.SplitAug"
    recipe, _ = resolve(recipe, [*flags.split(), "--model", str(tiny_encoder_directory(tmp_path / "model"))])
    result = run_recipe(recipe)
    assert json.loads((result.output / "run.json").read_text())["recipe"]["text_view"] == "nlpaug:word.SplitAug"
