"""Settings reach all that they are meant for: words count in every comparison of searches; bad ones are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.adaptation import by_training, candidates, guard, linear_map
from textcl.adaptation.advice import advise
from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.evidence import Ranking
from textcl.adaptation.guard import GRADED_PAIRS
from textcl.adaptation.known_items import known_items
from textcl.adaptation.material import make_material
from textcl.adaptation.split import Side, make_exams
from textcl.adaptation.trial import Settings, Trial, Work
from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.errors import InputError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = tmp_path / "few" / "pairs.tsv"
    few.parent.mkdir()
    few.write_text("".join(GRADED_PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:100]))
    monkeypatch.setattr(linear_map, "STEPS", 2)
    monkeypatch.setattr(guard, "GRADED_PAIRS", few)
    monkeypatch.setenv("TEXTCL_DATA", str(few.parent))


def mean(ranking: Ranking, rows: np.ndarray, settings: Settings) -> float:
    return float(ranking.scores(rows, [None], settings.words).mean())


@pytest.mark.parametrize("retrieval", ["dense", "hybrid"])
def test_both_views_are_searched_in_the_way_that_was_asked_for(retrieval: str, tmp_path: Path):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"))
    settings = Settings(retrieval=retrieval)  # type: ignore[arg-type]
    work = Work(encoder, read_corpus(TEXTS[:60]), Workplace(tmp_path / "vectors"), settings)
    views = known_items([f"{TEXTS[i]}. {TEXTS[i + 60]}. {TEXTS[i + 120]}." for i in range(60)], TEXTS[:60])
    material = make_material(encoder, views, work.place, np.arange(60))
    folds, split = Trial("evidence"), Trial("evidence")
    candidates._search(folds, material, work)
    exams = make_exams(material, views, work)
    by_training._judge(split, exams, Side(encoder), Side(encoder, np.zeros((encoder.dimension,) * 2, np.float32)), work)
    assert exams.second is not None
    of_split = exams.second.make(encoder)
    assert isinstance(of_split, Ranking)
    words = replace(settings, retrieval="hybrid")
    for found, ranking in ((folds, material.ranking(1)), (split, of_split)):
        assert found.second is not None
        rows = np.arange(len(ranking.units))
        assert found.second.before == pytest.approx(mean(ranking, rows, settings))
        assert mean(ranking, rows, words) != pytest.approx(mean(ranking, rows, Settings()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retrieval": "bm25"}, "retrieval must be dense or hybrid, not 'bm25'"),
        ({"purpose": "cluster"}, "purpose must be search, clusters or duplicates, not 'cluster'"),
        ({"bm25_weight": 7.0}, "bm25_weight must be a finite number of at least 0 and at most 1, not 7.0"),
        ({"bm25_weight": float("nan")}, "bm25_weight must be a finite number"),
        ({"minutes": -1}, "minutes must be a finite number above 0, not -1"),
        ({"minutes": float("nan")}, "minutes must be a finite number above 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"columns": "text"}, r"columns must be a list of one or two names, such as \['text'\]"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_a_model_is_loaded(settings: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        textcl.adapt("no-such-model", TEXTS[:60], **settings)


def test_the_seed_is_that_of_the_batches_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(linear_map, "BATCH", 8)
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"))
    work = Work(encoder, read_corpus(TEXTS[:60]), Workplace(tmp_path / "vectors"), Settings())
    views = known_items([f"{TEXTS[i]}. {TEXTS[i + 60]}. {TEXTS[i + 120]}." for i in range(60)], TEXTS[:60])
    material = make_material(encoder, views, work.place, np.arange(60))
    zero, one = material.fit(0.1), material.fit(0.1, seed=1)
    assert not np.array_equal(zero, one)
    trial = Trial("evidence")
    candidates._search(trial, material, replace(work, settings=Settings(seed=1)))
    assert np.array_equal(trial.weight, material.fit(trial.pull, seed=1))


def test_the_advice_is_for_the_encoder_that_is_exported():
    """Words help the untouched encoder and harm the adapted one."""
    rise, level = np.arange(60) % 7, np.full(60, 50.0)
    found = advise(
        {"dense": (level, level + 10), "hybrid": (level + rise, level)},
        np.arange(60),
        "judged queries",
        known_items=False,
    )
    assert found.use().startswith("use hybrid (+2.9 for hybrid with the untouched encoder)")
    assert found.record()["hybrid_minus_dense"]["difference"] > 0
    of_adapted = replace(found, adapted=True)
    assert of_adapted.use().startswith("use dense (-10.0 for hybrid with the adapted encoder)")
    assert of_adapted.record()["hybrid_minus_dense"]["difference"] == -10
    assert of_adapted.words[1].unit == "judged queries"


def test_the_directory_of_another_model_is_not_replaced(tmp_path: Path) -> None:
    theirs = tiny_encoder_directory(tmp_path / "theirs")
    before = {path: path.read_bytes() for path in Path(theirs).rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="holds a model that textcl adapt did not write"):
        textcl.adapt(str(tiny_encoder_directory(tmp_path / "model")), TEXTS, theirs)
    assert {path: path.read_bytes() for path in Path(theirs).rglob("*") if path.is_file()} == before


def test_an_earlier_adaptation_is_replaced_by_its_own_command_alone(tmp_path: Path) -> None:
    model, out = str(tiny_encoder_directory(tmp_path / "model")), tmp_path / "out"
    textcl.adapt(model, TEXTS[:20], out)
    before = (out / "adapt.json").read_bytes()
    for other in ({"data": TEXTS[:21]}, {"data": TEXTS[:20], "seed": 1}):
        with pytest.raises(InputError, match="holds the result of another textcl adapt"):
            textcl.adapt(model, **other, output=out)
    assert (out / "adapt.json").read_bytes() == before
    (out / "config.json").unlink()
    textcl.adapt(model, TEXTS[:20], out)
    assert (out / "config.json").is_file()


def test_names_of_models_may_have_spaces_between_them(tmp_path: Path) -> None:
    model = tiny_encoder_directory(tmp_path / "model")
    with pytest.raises(InputError, match="are the same encoder"):
        textcl.adapt(f"{model}, {model}", TEXTS[:20])


def test_an_encoder_in_place_of_its_name_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for model in (Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model")), ["small", "bundled"]):
        with pytest.raises(InputError, match=r"model must be a name or a path, not an? (Encoder|list)"):
            textcl.adapt(model, TEXTS)  # type: ignore[arg-type]
