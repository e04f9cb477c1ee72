"""The identity of a model is all of its files: a run and a comparison notice each of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.runs.compare import _plan
from textcl.runs.identity import Identities
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    tiny_encoder_directory(folder / "plain")
    encoder = Encoder.from_pretrained(folder / "plain", prompts={"query": "q: "}, device="cpu")
    encoder.save(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:48]) + "\n")
    return folder


def recipe_of(work: Path, output: Path, **more: object):
    flags = {"method": "simcse", "model": str(work / "model"), "data": str(work / "texts.txt"), "output": str(output)}
    flags |= {"dev": "none", "max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "no", **more}
    return resolve(flags)[0]


def in_json(name: str, **values: object):
    def edit(model: Path) -> None:
        content = json.loads((model / name).read_text())
        (content[-1] if isinstance(content, list) else content).update(values)
        (model / name).write_text(json.dumps(content))

    return edit


def in_tokenizer(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (model / "tokenizer.json").write_text(json.dumps(content))


def a_weight(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7, 3] += 1e-3
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def normalised(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "2_Normalize").mkdir()


EDITS = {
    "tokenizer": in_tokenizer,
    "configuration": in_json("config.json", layer_norm_eps=1e-6),
    "pooling": in_json("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
    "length": in_json("sentence_bert_config.json", max_seq_length=16),
    "prompts": in_json("config_sentence_transformers.json", prompts={"query": "question: "}),
    "modules": normalised,
    "weights": a_weight,
}


def edited(work: Path, tmp_path: Path, what: str) -> Path:
    shutil.copytree(work / "model", tmp_path / what)
    EDITS[what](tmp_path / what)
    return tmp_path / what


@pytest.mark.parametrize("what", EDITS)
def test_each_file_of_the_model_counts(what, work, tmp_path):
    fingerprint = recipe_of(work, tmp_path).fingerprint()
    assert recipe_of(work, tmp_path, model=str(edited(work, tmp_path, what))).fingerprint() != fingerprint


def test_where_the_model_lies_and_its_card_do_not_count(work, tmp_path):
    shutil.copytree(work / "model", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("another card")
    flags = {"model": str(tmp_path / "copy")}
    assert recipe_of(work, tmp_path, **flags).fingerprint() == recipe_of(work, tmp_path).fingerprint()
    views = [
        recipe_of(work, tmp_path, text_view="contextual", text_view_model=str(model))
        for model in (work / "model", tmp_path / "copy")
    ]
    assert views[0].fingerprint() == views[1].fingerprint()


def test_a_masked_word_head_counts_although_the_encoder_has_none(work, tmp_path):
    shutil.copytree(work / "plain", tmp_path / "copy")
    flags = {"model": str(tmp_path / "copy"), "mlm_weight": 0.1}
    before = recipe_of(work, tmp_path, **flags).fingerprint()
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights["cls.predictions.bias"][3] += 1.0
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    assert recipe_of(work, tmp_path, **flags).fingerprint() != before


@pytest.mark.parametrize("what", ["tokenizer", "pooling", "weights"])
def test_each_file_of_a_teacher_counts(what, work, tmp_path):
    flags = {"method": "simcse-plus", "ranking_weight": 0.1}
    first = recipe_of(work, tmp_path, **flags, teacher=str(work / "model")).fingerprint()
    assert recipe_of(work, tmp_path, **flags, teacher=str(edited(work, tmp_path, what))).fingerprint() != first


@pytest.mark.parametrize("what", ["tokenizer", "configuration", "weights"])
def test_each_file_of_the_model_of_a_text_view_counts(what, work, tmp_path):
    flags = {"text_view": "contextual"}
    first = recipe_of(work, tmp_path, **flags, text_view_model=str(work / "model")).fingerprint()
    assert recipe_of(work, tmp_path, **flags, text_view_model=str(edited(work, tmp_path, what))).fingerprint() != first


def test_a_run_does_not_go_on_with_another_tokenizer(work, tmp_path):
    shutil.copytree(work / "model", tmp_path / "model")
    recipe = recipe_of(work, tmp_path / "run", model=str(tmp_path / "model"))
    finished = run_recipe(recipe)
    assert run_recipe(recipe, resume=True).record == finished.record
    in_tokenizer(tmp_path / "model")
    with pytest.raises(InputError, match=r"data or a file of the models of the run in .* changed after it was started"):
        run_recipe(recipe, resume=True)


def test_a_run_of_an_earlier_version_is_not_gone_on_with(work, tmp_path):
    recipe = recipe_of(work, tmp_path / "run")
    run_recipe(recipe)
    begun = json.loads((tmp_path / "run" / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"fingerprint": "0" * 16, "recipe": begun["recipe"]}))
    with pytest.raises(InputError, match="another version of textcl, which did not look at all files of the model"):
        run_recipe(recipe, resume=True)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded from now on."""
    found: list[str] = []
    load = Encoder.from_pretrained.__func__

    def counted(cls, name, **options):
        found.append(Path(name).name)
        return load(cls, name, **options)

    monkeypatch.setattr(Encoder, "from_pretrained", classmethod(counted))
    return found


def test_a_run_loads_its_model_once(work, tmp_path, loads):
    run_recipe(recipe_of(work, tmp_path / "run"))
    assert loads == ["model"]


def test_a_comparison_loads_each_model_once_and_notices_a_change(work, tmp_path, loads):
    shutil.copytree(work / "model", tmp_path / "model")
    texts = {}
    for name, temperature in (("a", 0.05), ("b", 0.1)):
        recipe = recipe_of(work, tmp_path / "run", model=str(tmp_path / "model"), temperature=temperature)
        texts[name] = tmp_path / f"{name}.yaml"
        texts[name].write_text(
            json.dumps({k: v for k, v in recipe.to_dict().items() if v is not None and k != "output"})
        )
    planned = list(_plan(list(texts.values()), 3, [], ["untouched"]))
    assert len({row.fingerprint for row in planned}) == len(planned) == 7
    assert loads == ["model"]
    in_tokenizer(tmp_path / "model")
    again = list(_plan(list(texts.values()), 3, [], ["untouched"]))
    assert not {row.fingerprint for row in again} & {row.fingerprint for row in planned}


def test_a_random_dense_layer_depends_on_the_seed_alone(work, tmp_path):
    """Pooling pooler of a model without a pooler: a comparison and its runs must come to the same fingerprint."""
    flags = {"pooling": "pooler", "head": "keep"}
    recipe = recipe_of(work, tmp_path / "run", **flags)
    first, again = recipe.fingerprint(), recipe.fingerprint()
    assert first == again == run_recipe(recipe).record.fingerprint
    state = torch.get_rng_state()
    recipe.fingerprint()
    assert torch.equal(torch.get_rng_state(), state)
    other = recipe_of(work, tmp_path, **flags, seed=1)
    assert other.fingerprint() != first
    shared = Identities()  # as a comparison has them, for the runs of all seeds
    assert [each.fingerprint(identities=shared) for each in (recipe, other)] == [first, other.fingerprint()]
