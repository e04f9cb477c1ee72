"""Recipes: keys are flags, defaults are shown, and a run leaves a full record."""

import json
import logging
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from support.runs import small_run
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.train import help_page
from textcl.data.training import training_rows
from textcl.encoder import Encoder
from textcl.encoder.card import file_name
from textcl.errors import InputError
from textcl.files import file_hash
from textcl.methods import SimCSE
from textcl.methods.find import find_method
from textcl.runs.flags import FlagParser
from textcl.runs.idle import warn_of_idle
from textcl.runs.recipe import RECIPES, Recipe, load_recipe, resolve
from textcl.runs.record import RunRecord
from textcl.runs.run import make_trainer, run_recipe
from textcl.seals import read_sealed
from textcl.training import ContrastiveTrainer, ContrastiveTrainingArguments

# Table A.1 of the paper: batch, learning rate, epochs; and the head at test, section 6.3.
PUBLISHED = {
    "simcse-unsup-bert-base": ("bert-base-uncased", 64, 3e-5, 1, "train_only"),
    "simcse-unsup-bert-large": ("bert-large-uncased", 64, 1e-5, 1, "train_only"),
    "simcse-unsup-roberta-base": ("roberta-base", 512, 1e-5, 1, "train_only"),
    "simcse-unsup-roberta-large": ("roberta-large", 512, 3e-5, 1, "train_only"),
    "simcse-sup-bert-base": ("bert-base-uncased", 512, 5e-5, 3, "keep"),
    "simcse-sup-bert-large": ("bert-large-uncased", 512, 1e-5, 3, "keep"),
    "simcse-sup-roberta-base": ("roberta-base", 512, 5e-5, 3, "keep"),
    "simcse-sup-roberta-large": ("roberta-large", 512, 1e-5, 3, "keep"),
}
# The configurations of the other methods, which stand here as their papers or their authors' code have them.
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))
OTHERS = [name for name in SHIPPED if not name.startswith(("best", "demo", "simcse-sup", "simcse-unsup", "standard"))]
SETTINGS = {
    "bert-ct-": {"optim": "rmsprop", "learning_rate": 1e-5, "weight_decay": 0.0, "max_grad_norm": 0.0, "bf16": False,
                 "per_device_train_batch_size": 16, "negatives_per_positive": 7, "reduction": "mean", "max_steps": 5000,
                 "dropout_in_training": False, "eval_steps": 500, "max_length": 75},
    "ct-in-batch-": {"similarity": "dot", "temperature": 1.0, "learn_temperature": True, "warmup_steps": 1000,
                     "per_device_train_batch_size": 128, "learning_rate": 5e-5, "max_length": 75},
    "consert-": {"test_pooling": "last2", "per_device_train_batch_size": 96, "adam_epsilon": 1e-6, "seed": 1,
                 "weight_decay": 0.01, "warmup_steps": 0.1, "contrastive_weight": 0.15, "max_length": 64},
    "consert-unsup-bert-base": {"dropout_in_training": False, "first_view": "feature_cutoff:0.2",
                                "second_view": "shuffle", "num_train_epochs": 10, "eval_steps": 200,
                                "early_stopping_patience": 10},
    "consert-unsup-bert-large": {"dropout": None, "first_view": "plain", "num_train_epochs": 25, "eval_steps": 100},
    "consert-joint-bert-base": {"learning_rate": 2e-5, "num_train_epochs": 1, "second_view": "token_cutoff:0.1"},
    "consert-joint-unsup-": {"learning_rate": 5e-7, "temperature": 0.1, "second_view": "shuffle", "dropout": None},
    "consert-sup-unsup-": {"learning_rate": 5e-7, "second_view": "feature_cutoff:0.1", "objective": "unsupervised"},
    "declutr-": {"per_device_train_batch_size": 16, "learning_rate": 5e-5, "weight_decay": 0.1, "adam_epsilon": 1e-6,
                 "warmup_steps": 0.1, "max_length": 512, "anchors": 2, "positives": 2, "temperature": 0.05},
    "sccl-": {"per_device_train_batch_size": 400, "learning_rate": 1e-5, "head_learning_rate_factor": 100.0,
              "eta": 10.0, "temperature": 0.5, "max_length": 32, "weight_decay": 0.0, "max_grad_norm": 0.0,
              "lr_scheduler_type": "constant", "optim": "adamw_torch", "target_score": 99.9, "select_best": False},
    "sccl-virtual-agnews": {"clusters": 4, "alpha": 1.0},
    "sccl-virtual-searchsnippets": {"clusters": 8, "alpha": 1.0},
    "sccl-virtual-stackoverflow": {"clusters": 20, "alpha": 10.0},
    "esimcse-": {"second_view": "repetition:0.32", "queue_size": 160, "queue_momentum": 0.995, "temperature": 0.05},
    "noise-negatives-": {"noise_negatives": 64, "temperature": 0.05},
    "promptbert-": {"denoise_templates": True, "pooling": "mask_token", "temperature": 0.05},
    "simcse-plus-plus-": {"off_dropout_negatives": True, "temperature": 0.05, "dimension_weight": 0.1,
                          "dimension_temperature": 5.0},
    "simcse-dimensions-": {"off_dropout_negatives": False, "temperature": 0.05, "dimension_weight": 0.1,
                           "dimension_temperature": 10.0},
    "scd-": {"decorrelation_weight": 0.005225, "off_diagonal_weight": 0.012, "per_device_train_batch_size": 192,
             "decorrelation_dimension": 4096},
    "rankcse-": {"ranking": "list_mle", "temperature": 0.05},
    "sccl-explicit-stackoverflow": {"clusters": 20, "alpha": 10.0, "text_view_rate": 0.2},
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny backbones, and with tiny texts of every kind that a recipe names."""
    folder = tmp_path_factory.mktemp("recipes")
    for architecture in ("bert", "roberta", "distilbert"):
        tiny_encoder_directory(folder / architecture, architecture)
    (folder / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    rows = [f"{a},{b},{c}" for a, b, c in zip(TEXTS[:40], TEXTS[40:80], TEXTS[80:120], strict=True)]
    (folder / "triplets.csv").write_text("\n".join(["sent0,sent1,hard_neg", *rows]) + "\n")
    (folder / "documents.txt").write_text("\n".join(" ".join(TEXTS[30 * i : 30 * i + 60]) for i in range(8)) + "\n")
    judged = [f"{a}\t{b}\t{['neutral', 'contradiction', 'entailment'][i % 3]}" for i, (a, b) in enumerate(pairs_of(40))]
    (folder / "judged.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *judged]) + "\n")
    (folder / "classes.csv").write_text("\n".join(["label,text", *(f"{i % 4},{TEXTS[i]}" for i in range(64))]) + "\n")
    pairs = [f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}" for i in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(pairs) + "\n")
    return folder


def pairs_of(count: int) -> list[tuple[str, str]]:
    return list(zip(TEXTS[:count], TEXTS[count : 2 * count], strict=True))


def in_tiny(name: str, work: Path, **more: object) -> list[str]:
    """Flags that leave a recipe as it is but for its model, its data and how long it takes."""
    recipe = load_recipe(name)
    architecture = next((kind for kind in ("roberta", "distilbert") if kind in recipe["model"]), "bert")
    stand_ins = {"nli_for": "triplets.csv", "AllNLI": "judged.tsv"}
    stand_ins |= {"_long": "documents.txt", "clustering/": "classes.csv", "": "texts.txt"}
    flags = {
        "model": work / architecture,
        "data": work / next(file for part, file in stand_ins.items() if part in recipe["data"]),
        "dev": "none",
        "max_steps": 2,
        "save_strategy": "no",
        "per_device_train_batch_size": 8,
        **({key: work / "bert" for key in ("text_view_model", "teacher") if key in recipe}),
        **more,
    }
    return [f"--{key}={value}" for key, value in flags.items() if value is not None]


def test_every_shipped_recipe_resolves_and_spells_out_what_decides_it(caplog: pytest.LogCaptureFixture) -> None:
    assert {*SHIPPED} >= {*PUBLISHED, "demo", "standard-simcse"}
    for name in SHIPPED:
        content = load_recipe(name)
        flags = resolve(content)[0].flags
        warn_of_idle(find_method(content["method"]), flags)
        spelled = {"model", "pooling", "data", "max_length", "learning_rate", "seed"}
        spelled |= {"temperature", "head", "objective", "negatives", "alpha", "clusters"} & flags.keys()
        assert {"method", *spelled} <= content.keys(), name
    assert not caplog.messages


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_those_of_the_paper(name: str) -> None:
    flags = resolve(load_recipe(name))[0].flags
    model, batch, rate, epochs, head = PUBLISHED[name]
    assert (flags["model"], flags["per_device_train_batch_size"], flags["learning_rate"]) == (model, batch, rate)
    assert (flags["num_train_epochs"], flags["head"]) == (epochs, head)
    assert (flags["temperature"], flags["max_length"], flags["pooling"]) == (0.05, 32, "cls")
    assert (flags["warmup_steps"], flags["weight_decay"], flags["lr_scheduler_type"]) == (0, 0.0, "linear")


@pytest.mark.parametrize("name", [name for name in OTHERS if not name.startswith("clear")])
def test_other_configurations_are_those_of_the_authors(name: str) -> None:
    flags = resolve(load_recipe(name))[0].flags
    expected = [settings for start, settings in SETTINGS.items() if name.startswith(start)]
    assert expected
    for settings in expected:
        assert {key: flags[key] for key in settings} == settings


def test_contrastive_tension_has_keras_optimizer_and_rates_in_pieces(tmp_path: Path) -> None:
    flags = resolve(load_recipe("bert-ct-bert-base"))[0].flags
    known = {f.name for f in fields(ContrastiveTrainingArguments) if f.init} & flags.keys()
    args = ContrastiveTrainingArguments(str(tmp_path), **{name: flags[name] for name in known})
    kind, options = ContrastiveTrainer.get_optimizer_cls_and_kwargs(args)
    assert (kind.__name__, options["alpha"], options["eps"]) == ("RMSprop", 0.9, 1e-7)
    rates = [args.learning_rate * args.piece_at(step) for step in (0, 499, 500, 1000, 1500, 2000, 4999)]
    assert rates == pytest.approx([1e-5, 1e-5, 8e-6, 6e-6, 4e-6, 2e-6, 2e-6])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_train_on_a_tiny_backbone(name: str, work: Path, tmp_path: Path) -> None:
    supervised = "-sup-" in name
    recipe, _ = resolve(load_recipe(name), in_tiny(name, work, output=tmp_path / "run"))
    record = run_recipe(recipe).record
    assert record.steps == 2
    assert record.encoder["pooling"] == ("pooler" if supervised else "cls")  # the head is kept behind [CLS]
    assert (tmp_path / "run" / "export" / "2_Dense").exists() == supervised


@pytest.mark.parametrize("name", OTHERS)
def test_other_configurations_train_on_a_tiny_backbone(
    name: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    content = load_recipe(name)
    if "substitution" in name:
        monkeypatch.setenv("TEXTCL_DATA", str(request.getfixturevalue("lexicons")))
    per_step = 16 if name.startswith("bert-ct") else 8  # whole groups
    flags = in_tiny(name, work, output=tmp_path / "run", per_device_train_batch_size=per_step)
    record = run_recipe(resolve(content, flags)[0]).record
    assert record.steps == 2
    assert record.encoder["pooling"] == content.get("test_pooling", content["pooling"])
    assert record.data.rows >= 8  # none of the documents is too short


@pytest.mark.parametrize("first", ["sup", "joint"])
def test_the_second_stage_of_consert_starts_from_what_the_first_one_left(
    first: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = f"consert-{first}-bert-base", f"consert-{first}-unsup-bert-base"
    run_recipe(resolve(load_recipe(names[0]), in_tiny(names[0], work))[0])
    second = run_recipe(resolve(load_recipe(names[1]), in_tiny(names[1], work, model=None))[0])
    assert second.record.recipe["model"] == f"runs/consert-{first}-bert-base/export"
    assert second.record.encoder["pooling"] == "last2"


def test_values_of_a_recipe_become_what_the_flags_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: simcse\nlearning-rate: 3e-5\nmlm_weight: 0.1\nmask_duplicates: yes\nlogging_steps: 10\n")
    flags = resolve(load_recipe(path))[0].flags
    assert flags["learning_rate"] == 3e-5  # YAML reads 3e-5, without a point, as text
    assert flags["mask_duplicates"] is True
    assert (flags["mlm_weight"], flags["logging_steps"]) == (0.1, 10)
    assert flags["head"] == "train_only"  # a default, and none is hidden
    assert flags.keys() >= {f.name for f in fields(ContrastiveTrainingArguments) if f.init} - {"output_dir"}


def test_flags_win_over_the_recipe() -> None:
    recipe = {"method": "simcse", "seed": 1, "temperature": 0.05}
    assert resolve(recipe, ["--seed", "3"])[0].flags["seed"] == 3
    assert resolve(recipe, ["--seed", "3"])[0].flags["temperature"] == 0.05


def test_every_training_argument_and_every_method_parameter_is_a_flag() -> None:
    known = FlagParser("simcse").known_flags()
    assert {f.name for f in fields(ContrastiveTrainingArguments) if f.init} <= set(known)
    assert {"temperature", "head", "mlm_weight", "equal_dropout_masks", "chunk_size"} <= set(known)
    assert "α" in help_page(FlagParser("simcse"))  # the help of a method's flag is its docstring


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method: simcse\ntemprature: 0.1\n", "no key 'temprature'. Did you mean 'temperature'"),
        ("method: simsce\n", "no method 'simsce'. Did you mean 'simcse'"),
        ("method: simcse\ntraining:\n  learning_rate: 1\n", "flat"),
        ("- simcse\n", "mapping"),
        ("method: [simcse\n", "not YAML"),
        ("method: simcse\nlearning_rate: fast\n", "--learning-rate must be a finite number above 0, not fast."),
        ("method: simcse\nhead: kept\n", "invalid choice: 'kept'"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        resolve(load_recipe(path))


def test_an_unknown_recipe_has_the_nearest_suggested() -> None:
    with pytest.raises(InputError, match="Did you mean 'standard-simcse'"):
        load_recipe("standard-simsce")


def test_the_fingerprint_is_of_what_decides_the_weights(work: Path, tmp_path: Path) -> None:
    def fingerprint(**more: object) -> str:
        return resolve({**small_run(work, tmp_path / "a"), **more})[0].fingerprint()

    copy = tmp_path / "copy.txt"
    copy.write_bytes((work / "texts.txt").read_bytes())
    same = fingerprint()
    assert fingerprint(output="elsewhere", disable_tqdm=True, data=str(copy)) == same
    copy.write_text(copy.read_text() + "one more\n")
    others = [fingerprint(data=str(copy)), fingerprint(seed=1), fingerprint(temperature=0.1), fingerprint(limit=9)]
    assert len({same, *others, fingerprint(model=str(work / "roberta"))}) == 6


def test_a_flag_that_is_not_set_is_not_in_the_fingerprint() -> None:
    """So runs from before there was the flag can still be continued."""
    known = {"data": "hash of the corpus", "model": "hash of the model"}

    def fingerprint(**more: object) -> str:
        return Recipe("simcse", {"seed": 1, "temperature": 0.05, **more}).fingerprint(known)

    assert fingerprint(limit=None, train_prompts=[], lr_scheduler_kwargs={}, dedup=False) == fingerprint()
    assert len({fingerprint(), fingerprint(dedup=True), fingerprint(limit=0), fingerprint(mlm_weight=0.0)}) == 4


def test_a_run_leaves_a_full_record(work: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*TEXTS[:5], "", *TEXTS[:5] * 6]) + "\n")
    flags = small_run(
        work, tmp_path / "run", data=str(texts), dev=str(work / "pairs.tsv"), eval_steps=1, logging_steps=1
    )
    result = run_recipe(resolve(flags)[0])
    record = read_sealed(tmp_path / "run" / "run.json")
    assert record == result.record.to_dict()
    assert (record["data"]["rows"], record["data"]["rows_read"]) == (35, 36)  # one row is blank
    assert record["data"]["duplicates"] == 30
    assert record["data"]["sha256"] == file_hash(texts)
    assert record["recipe"]["temperature"] == 0.05
    assert record["recipe"]["adam_beta2"] == 0.999
    assert record["seed"] == 42
    assert record["steps"] == 3
    assert record["versions"].keys() >= {"torch", "transformers", "textcl"}
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    repeated = [line["duplicates_in_batches"] for line in logged if "duplicates_in_batches" in line]
    assert 0 < repeated[0] < repeated[-1] == record["data"]["duplicates_in_batches"]  # five texts fill no batch
    scores = [line["eval_pairs"] for line in logged if "eval_pairs" in line]
    assert len(scores) >= 3
    dev = record["dev"]
    assert (dev["set"], dev["before"], dev["highest"]) == ("pairs", scores[0], max(scores[1:]))
    assert dev["score"] == scores[dev["step"]]

    from textcl import Encoder, LabelledPairs

    again = LabelledPairs(work / "pairs.tsv")(Encoder.from_pretrained(result.export)).primary
    assert again == pytest.approx(dev["score"], abs=1e-6)  # what is exported is what was chosen, not the last


def test_a_directory_with_a_run_is_kept_unless_told_otherwise(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = run_recipe(resolve(small_run(work, output))[0])
    (output / "mine.txt").write_text("a note")
    with pytest.raises(InputError, match=r"--resume.*--overwrite"):
        run_recipe(resolve(small_run(work, output))[0])
    assert run_recipe(resolve(small_run(work, output))[0], resume=True).record == first.record
    with pytest.raises(InputError, match=r"was started with --temperature 0.05, not 0.1"):
        run_recipe(resolve(small_run(work, output, temperature=0.1))[0], resume=True)
    replaced = run_recipe(resolve(small_run(work, output, temperature=0.1))[0], overwrite=True)
    assert replaced.record.recipe["temperature"] == 0.1
    assert (output / "mine.txt").read_text() == "a note"


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(work: Path, tmp_path: Path) -> None:
    def weights(name: str, **more: object) -> str:
        result = run_recipe(resolve(small_run(work, tmp_path / name, **more))[0])
        return file_hash(result.export / "model.safetensors")

    assert weights("a") == weights("b") != weights("c", seed=1)


def test_without_sts_b_it_says_so_and_exports_the_last(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "nothing"))
    flags = small_run(work, tmp_path / "run")
    del flags["dev"]
    with caplog.at_level(logging.WARNING):
        assert run_recipe(resolve(flags)[0]).record.dev is None
    assert "STS-B is not installed" in caplog.text


def test_the_model_card_says_what_was_done_and_how_to_do_it_again(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = small_run(work, tmp_path / "run", dev=str(work / "pairs.tsv"), temperature=0.07, eval_steps=1)
    result = run_recipe(resolve(flags)[0])
    card = (result.export / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    header = yaml.safe_load(front)
    assert header["library_name"] == "sentence-transformers"
    assert header["pipeline_tag"] == "sentence-similarity"
    assert {"textcl", "simcse"} <= set(header["tags"])
    assert "base_model" not in header, "a directory of this machine is no name that the hub knows"
    assert file_hash(work / "texts.txt") in text
    assert f"| pairs |  | its first score | {result.record.dev.score:.2f} | mean | float32 | 42 |" in text
    assert "arXiv 2104.08821" in text
    assert "- temperature: `0.07`" in text
    assert str(work) not in card
    assert not any(sentence in card for sentence in TEXTS)
    (line,) = [line for line in text.splitlines() if line.startswith("textcl train ")]
    monkeypatch.chdir(work)
    again = resolve({"method": "simcse"}, [*shlex.split(line)[3:], "--output", str(tmp_path / "run")])[0]
    settled = {"data": "texts.txt", "dev": "pairs.tsv", "model": "bert", "bf16": again.flags["bf16"]}
    assert again.flags == {**resolve(flags)[0].flags, **settled}
    assert "--seed=42" in line  # it is the default, which a later version may change
    assert again.flags["bf16"] == (result.record.precision == "bf16 autocast")  # whatever another machine can do
    names = {name: value.split(": ")[-1].strip("`") for name, value in re.findall(r"^- (\w+): (.*)$", text, re.M)}
    assert names["rows"] == "64"
    assert names["steps"] == "3"


def test_the_card_names_a_base_model_of_the_hub_and_whatever_loads_it(work: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(work / "bert")
    encoder.name = "google-bert/bert-base-uncased"
    header = yaml.safe_load((encoder.save(tmp_path / "a") / "README.md").read_text().split("---\n")[1])
    assert header["base_model"] == "google-bert/bert-base-uncased"
    SimCSE(encoder).export(tmp_path / "b")
    assert "arXiv 2104.08821" in (tmp_path / "b" / "README.md").read_text()
    prompts = {"means": "{text} means [MASK] ."}
    templated = Encoder.from_pretrained(work / "bert", pooling="mask_token", prompts=prompts)
    card = (templated.save(tmp_path / "c") / "README.md").read_text()
    assert "library_name: textcl" in card
    assert "import SentenceTransformer" not in card
    assert "import SentenceTransformer" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_command_of_every_recipe_gives_the_recipe_again(name: str) -> None:
    recipe = resolve(load_recipe(name))[0]
    given = resolve({"method": recipe.method}, [*shlex.split(recipe.command())[3:]])[0].flags
    files = {"data": Path(recipe.flags["data"]).name, "model": file_name(recipe.flags["model"])}
    files |= {"teacher": file_name(recipe.flags["teacher"])} if recipe.flags.get("teacher") else {}
    assert given == {**recipe.flags, **files, "output": given["output"]}


def test_texts_seen_in_training_mark_the_score_of_the_export(
    work: Path, tmp_path: Path, evaluation_sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textcl import evaluate
    from textcl.data.sts import read_sts

    monkeypatch.setenv("TEXTCL_DATA", str(evaluation_sets))
    seen = next(subset for subset in read_sts("STS13", evaluation_sets, "test") if subset.name == "FNWN")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*seen.first, *TEXTS[:20]]) + "\n", encoding="utf-8")
    result = run_recipe(resolve(small_run(work, tmp_path / "run", data=str(texts)))[0])
    scored = evaluate(result.export, "sts13,sts16").results
    marks = {name: subset["transductive"] for name, subset in scored["STS13"]["subsets"].items()}
    assert marks == {"FNWN": True, "OnWN": False, "headlines": False}
    assert scored["STS16"]["transductive"] is False
    card = (result.export / "README.md").read_text(encoding="utf-8")
    assert "Texts of STS13 were in the training data" in card
    assert not any(text in card for text in seen.first)


def test_a_text_view_makes_the_two_views(work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without dropout nothing else could make two views; another rate or view makes other weights."""

    def weights(name: str, **more: object) -> str:
        result = run_recipe(resolve(small_run(work, tmp_path / name, dropout=0.0, **more))[0])
        return file_hash(result.export / "model.safetensors")

    with pytest.raises(InputError, match="this model has none"):
        weights("none")
    cropped = weights("crop", text_view="crop", text_view_rate=0.3)
    assert cropped == weights("again", text_view="crop", text_view_rate=0.3)
    assert len({cropped, weights("swap", text_view="swap"), weights("less", text_view="crop", text_view_rate=0.1)}) == 3
    assert weights("by model", text_view="contextual", text_view_model="bundled", limit=40) != cropped
    with pytest.raises(InputError, match=r"crp.*Did you mean 'crop'"):
        weights("unknown", text_view="crp")
    with pytest.raises(InputError, match="needs 'model'"):
        weights("no model", text_view="contextual")


def test_a_text_view_is_drawn_with_the_seed_of_the_run(work: Path, tmp_path: Path) -> None:
    def rows(seed: int) -> list[str]:
        recipe = resolve(small_run(work, tmp_path / "run", text_view="crop", seed=seed))[0]
        return [str(row) for row in make_trainer(recipe)[0].train_dataset]

    assert rows(1) == rows(1) != rows(2)


def test_labels_are_read_beside_texts(work: Path, tmp_path: Path) -> None:
    judgments = ("NEUTRAL", "ENTAILMENT", "CONTRADICTION")
    rows = [f"{text}\t{TEXTS[-i - 1]}\t{judgments[i % 3]}" for i, text in enumerate(TEXTS)]
    pairs = tmp_path / "SICK_train.txt"
    pairs.write_text("\n".join(["sentence_A\tsentence_B\tjudgment", *rows]) + "\n")
    dataset = training_rows(pairs, "sentence_A,sentence_B", "judgment", limit=6)
    assert dataset["label"] == [2, 1, 0, 2, 1, 0]
    assert dataset["text"] == TEXTS[:6]
    assert dataset["positive"] == TEXTS[-1:-7:-1]
    flags = {
        **small_run(work, tmp_path / "run", data=str(pairs), column="sentence_A,sentence_B", label_column="judgment")
    }
    flags |= {"method": "consert", "objective": "joint", "first_view": "plain", "second_view": "token_cutoff"}
    record = run_recipe(resolve(flags)[0]).record
    assert record.data.rows == len(TEXTS)
    with pytest.raises(InputError, match="no column 'verdict'"):
        training_rows(pairs, "sentence_A,sentence_B", "verdict")
    numbered = tmp_path / "classes.csv"
    numbered.write_text("label,text\n" + "\n".join(f"{i},text {i}" for i in (10, 9, 2, 10)) + "\n")
    assert training_rows(numbered, None, "label")["label"] == [2, 1, 0, 2]


def test_a_run_reads_its_corpus_once_and_hashes_it_once(work: Path, tmp_path: Path, monkeypatch) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("sent0,sent1\n" + "".join(f"{a},{b}\n" for a, b in zip(TEXTS[:20], TEXTS[20:40], strict=True)))
    read: list[str] = []
    opened, read_bytes = Path.open, Path.read_bytes
    monkeypatch.setattr(
        Path, "open", lambda self, *args, **named: read.append(self.name) or opened(self, *args, **named)
    )
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self.name) or read_bytes(self))
    record = run_recipe(resolve(small_run(work, tmp_path / "run", data=str(corpus)))[0]).record
    # hashed, then the header for the columns, the header for the table, and the rows
    assert read.count("corpus.csv") == 4
    assert record.data.sha256 == file_hash(corpus)
    assert record.data.rows == 20


def test_a_record_survives_its_file_and_others_are_refused(work: Path, tmp_path: Path) -> None:
    record = run_recipe(resolve(small_run(work, tmp_path / "run"))[0]).record
    assert RunRecord.read(tmp_path / "run") == record
    content = record.to_dict()
    later = {"of a later version": 1}
    assert RunRecord.from_dict({**content, **later, "data": {**content["data"], **later}}) == record
    dev = RunRecord.from_dict({**content, "dev": {"set": "pairs", "score": 70.5, **later}}).dev
    assert dev is not None
    assert (dev.set, dev.score) == ("pairs", 70.5)
    del content["seed"]
    with pytest.raises(InputError, match=r"not the record of a run.*seed"):
        RunRecord.from_dict(content)
    assert RunRecord.read(tmp_path) is None


def test_a_teacher_that_was_trained_again_makes_another_run(work: Path, tmp_path: Path) -> None:
    flags = {**small_run(work, tmp_path / "run"), "method": "simcse-plus", "ranking_weight": 0.1}
    folders = [tiny_encoder_directory(tmp_path / name / "teacher", seed=seed) for name, seed in (("a", 0), ("b", 1))]
    first, second = (resolve({**flags, "teacher": str(folder)})[0].fingerprint() for folder in folders)
    assert first != second
    shutil.copytree(folders[1], folders[0], dirs_exist_ok=True)
    assert resolve({**flags, "teacher": str(folders[0])})[0].fingerprint() == second


def test_tiles_are_a_setting_of_the_trainer(work: Path, tmp_path: Path) -> None:
    trainer, _ = make_trainer(resolve(small_run(work, tmp_path / "run", chunk_size=3))[0])
    assert trainer.method.info_nce.chunk_size == 3
    with pytest.raises(InputError, match=r"chunk.size must be a whole number of at least 1, not 0"):
        make_trainer(resolve(small_run(work, tmp_path / "run", chunk_size=0))[0])
