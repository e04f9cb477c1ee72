"""The header of every kind of model card: `huggingface_hub` reads it offline, and it holds what was measured."""

import itertools
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from support.runs import small_run
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.adaptation.adapt import _card as adapted_card
from textcl.adaptation.verdict import Comparison
from textcl.data.catalogue import hub_dataset
from textcl.encoder import Encoder
from textcl.encoder.card import model_card, score, stated
from textcl.evaluation.results import Result
from textcl.runs.card import write_card
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe

HEADER = "---\nlanguage:\n- en\n- de\nlicense: apache-2.0\ndatasets:\n- theirs\ntags: [a, b]\n---\n# A base model\n"
HOSTILE = [
    "a\n---\nlicense: mit\n---\nb",
    "x: y # z",
    "[a, b]",
    "- &a *a !!python/object:os.system",
    "'\"`|>",
    "---",
    "no",
    "1.0",
    "\u2028\u0085\x00\x1b[31m",
    b"caf\xe9".decode("utf-8", "surrogateescape"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose card states language and licence, with texts and labelled pairs beside it."""
    folder = tmp_path_factory.mktemp("work")
    tiny_encoder_directory(folder / "bert")
    (folder / "bert" / "README.md").write_text(HEADER)
    (folder / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    rows = [f"{a}\t{b}\t{len(set(a.split()) & set(b.split()))}" for a, b in itertools.pairwise(TEXTS[::9])]
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n")
    return folder


def read(folder: Path) -> ModelCardData:
    """The header as `huggingface_hub` reads it; it survives being written and read again, in both forms."""
    path = folder / "README.md"
    card = ModelCard.load(path)
    written = path.read_text(encoding="utf-8")
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() == yaml.safe_load(written.split("---\n")[1])
    assert str(card) == written
    if card.data.eval_results:
        index = eval_results_to_model_index(card.data.model_name, card.data.eval_results)
        assert index == card.data.to_dict()["model-index"]
        assert model_index_to_eval_results(index) == (card.data.model_name, card.data.eval_results)
    return card.data


def found(data: ModelCardData) -> dict[tuple[str, ...], float]:
    return {
        (each.task_type, each.dataset_name, each.dataset_split or "", each.metric_type): each.metric_value
        for each in data.eval_results or []
    }


def of_base(data: ModelCardData, *tags: str) -> None:
    """What every card over the base model has in its header."""
    assert (data.language, data.license) == (["en", "de"], "apache-2.0")
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert data.tags == ["sentence-transformers", "sentence-similarity", "textcl", *tags]
    assert data.base_model is None  # a directory
    assert data.datasets is None  # those of the base model are not those of this training
    (shown,) = data.widget
    assert not {shown["source_sentence"], *shown["sentences"]} & set(TEXTS)


def test_the_card_of_an_encoder_and_of_a_method(base: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(base / "bert")
    encoder.save(tmp_path / "plain")
    of_base(read(tmp_path / "plain"))
    assert read(tmp_path / "plain").eval_results is None
    textcl.SimCSE(encoder).export(tmp_path / "method")
    of_base(read(tmp_path / "method"), "simcse")
    assert "states `apache-2.0`" in (tmp_path / "method" / "README.md").read_text()
    Encoder.from_pretrained(tmp_path / "method").save(tmp_path / "again")  # what an export states is stated again
    of_base(read(tmp_path / "again"))


def test_the_card_of_a_run_and_of_its_line_in_a_comparison(base: Path, tmp_path: Path) -> None:
    flags = small_run(base, tmp_path / "run", dev=str(base / "pairs.tsv"), eval_steps=1)
    result = run_recipe(resolve(flags)[0])
    data = read(result.export)
    of_base(data, "simcse")
    assert data.model_name == "bert-simcse"
    assert found(data) == {("sentence-similarity", "pairs", "", "score"): round(result.record.dev.score, 4)}

    scores = {
        "STS12": {"kind": "STS", "all": 61.234567, "mean": 60.0, "wmean": 60.5, "subsets": {"a": {}, "b": {}}},
        "STSBenchmark-dev": {"kind": "STS", "all": 70.0, "mean": 70.0, "wmean": 70.0, "subsets": {"dev": {}}},
        "MR": {"kind": "transfer", "accuracy": 71.5, "dev_accuracy": 72.0, "chosen": 0.5},
        "AgNews": {"kind": "clustering", "accuracy": 55.0, "nmi": 30.0, "ari": math.nan, "transductive": True},
    }
    splits = {"STS12": "test", "STSBenchmark-dev": "dev", "MR": "folds", "AgNews": "all"}
    facts = {"tasks": {name: {"split": split} for name, split in splits.items()}}
    write_card(result.export, Encoder.from_pretrained(result.export), result.record, Result(scores, {}, facts))
    data = read(result.export)
    of_base(data, "simcse")
    names = [each.metric_name for each in data.eval_results]
    assert names[:3] == [f"Spearman × 100, {name}" for name in ("all", "mean", "wmean")]
    assert "accuracy (transductive)" in names
    text = (result.export / "README.md").read_text()
    assert "| STS12 | test | Spearman × 100, all | 61.23 |" in text
    assert "| STS-B dev | dev | Spearman × 100, all | 70.00 |" in text
    assert "chosen" not in text.split("## Scores")[1].split("## ")[0]
    expected = {
        ("sentence-similarity", "STS12", "test", "spearmanr"): 60.5,  # the last of three with this key
        ("sentence-similarity", "STS-B", "dev", "spearmanr"): 70.0,
        ("text-classification", "MR", "folds", "accuracy"): 71.5,
        ("text-classification", "MR", "folds", "dev_accuracy"): 72.0,
        ("clustering", "AgNews", "all", "accuracy"): 55.0,
        ("clustering", "AgNews", "all", "nmi"): 30.0,
    }
    assert found(data) == expected
    assert data.eval_results[0].metric_value == 61.2346

    of_dev = {"STSBenchmark-dev": {"dev": {"found": 9, "total": 10, "pairs_found": 9, "pairs": 10}}}
    record = replace(
        result.record,
        dev=replace(result.record.dev, set="stsb-dev"),
        data=replace(result.record.data, overlap=of_dev),
        recipe={**result.record.recipe, "dimensions": "32, 16, 8"},
    )
    write_card(result.export, Encoder.from_pretrained(result.export), record)
    assert found(read(result.export)) == {
        ("sentence-similarity", "STS-B", "dev", "spearmanr"): round(record.dev.score, 4)
    }
    assert read(result.export).eval_results[0].metric_name == "Spearman × 100, all (transductive)"
    text = (result.export / "README.md").read_text()
    assert f"| STS-B dev* | dev | Spearman × 100, all | {record.dev.score:.2f} |" in text
    assert "cut to their first 16 or 8 numbers" in text
    assert "truncate_dim=8)" in text


def test_a_score_that_is_no_measure_of_quality_is_no_result_on_the_hub(base: Path, tmp_path: Path) -> None:
    flags = small_run(base, tmp_path / "run", method="sccl", clusters=3, max_steps=2, eval_steps=1)
    result = run_recipe(resolve(flags)[0])
    data = read(result.export)
    of_base(data, "sccl")
    assert result.record.dev.set == "unchanged"
    assert data.eval_results is None
    scores = (result.export / "README.md").read_text().split("## Scores")[1].split("## ")[0]
    assert scores.strip().startswith("unchanged: ")


def test_the_card_of_a_student(base: Path, tmp_path: Path) -> None:
    for name, options in (("static", {"static": 16, "epochs": 2}), ("layers", {"layers": 1, "epochs": 1})):
        made = textcl.distill(base / "bert", TEXTS[:80], tmp_path / name, **options)
        data = read(tmp_path / name)
        of_base(data, "distillation")
        cosine = round(made.record["cosine"][1], 4)
        assert found(data) == {("feature-extraction", "own-texts", "held-out", "cosine"): cosine}


def test_the_card_of_an_adapted_encoder(base: Path, tmp_path: Path) -> None:
    def compared(task: str, measure: str, after: float) -> dict[str, Any]:
        return Comparison(task, measure, 50.0, after, 0.1, 9.0, 0.01, 200, 1.0).record()

    record = {
        "lines": ["", "VERDICT: better", "EXPORT: there"],
        "models": [str(base / "bert")],
        "settings": {"purpose": "search"},
        "main": compared("finding a body by its title", "nDCG@10", 55.0),
        "second": None,
        "guards": [compared("STS-B dev", "Spearman", 61.5)],
    }
    encoder = Encoder.from_pretrained(base / "bert")
    encoder.save(tmp_path / "a", card=adapted_card(encoder, base / "bert", record))
    data = read(tmp_path / "a")
    of_base(data, "adapted")
    assert found(data) == {
        ("text-retrieval", "finding a body by its title", "held-out", "ndcg@10"): 55.0,
        ("sentence-similarity", "STS-B dev", "held-out", "spearman"): 61.5,
    }
    assert data.eval_results[0].metric_name == "nDCG@10 × 100, 50.00 before"


def test_names_of_the_hub_are_named(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus that `textcl data fetch` brought has its name; another file, and the same file elsewhere, has none."""
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path))
    corpus = tmp_path / "corpora" / "wiki1m" / "wiki1m_for_simcse.txt"
    corpus.parent.mkdir(parents=True)
    corpus.write_text("\n".join(TEXTS[:64]) + "\n")
    result = run_recipe(resolve(small_run(base, tmp_path / "run", data=str(corpus)))[0])
    assert read(result.export).datasets == ["princeton-nlp/datasets-for-simcse"]
    assert str(tmp_path) not in (result.export / "README.md").read_text()
    assert hub_dataset("wiki1m_for_simcse.txt") is None
    assert hub_dataset("/data/STS/STSBenchmark/sts-dev.csv") is None
    encoder = Encoder.from_pretrained(base / "bert")
    encoder.name = "google-bert/bert-base-uncased"
    encoder.save(tmp_path / "named")
    assert read(tmp_path / "named").base_model == "google-bert/bert-base-uncased"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("language: en\nlicense: mit", {"language": "en", "license": "mit"}),
        ("language: no", {"language": "no"}),
        ("language:\n  - no\n  - zh-Hans", {"language": ["no", "zh-Hans"]}),
        ("license: other\nlicense_name: own-1\nlicense_link: https://a.b/c",
         {"license": "other", "license_name": "own-1", "license_link": "https://a.b/c"}),
        ("license: other\nlicense_name: own-1\nlicense_link: LICENSE", {}),
        ("license: other", {}),
        ("license: unknown\nlanguage: english", {}),
        ("license: 3\nlanguage: 3", {}),
        ("license: [mit]\nlanguage: {a: b}", {}),
        ("license: |\n  mit\n  ---\nlanguage: []", {}),
        ("license: Do what you like", {}),
        ("license: *mit", {}),
        ("license: 2026-13-45", {}),
        ("language: " + "[" * 5000, {}),
        ("model-index: {{{ not YAML\nlicense: mit", {"license": "mit"}),
        ("nested:\n  license: mit", {}),
        ("tags: [a]", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_only_what_a_card_states_is_taken_over(tmp_path: Path, header: str, expected: dict[str, Any]) -> None:
    (tmp_path / "README.md").write_text(f"---\n{header}\n---\n\nlicense: gpl-3.0\n", encoding="utf-8")
    assert stated(tmp_path) == expected
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "0_Transformer").mkdir()
    assert stated(tmp_path / "0_Transformer") == expected
    (tmp_path / "README.md").write_bytes(f"\ufeff---\r\n{header}\r\n---\r\n".replace("\n", "\r\n").encode("utf-8"))
    assert stated(tmp_path) == expected


def test_cards_that_state_nothing_or_cannot_be_read(tmp_path: Path, base: Path) -> None:
    readme = tmp_path / "README.md"
    assert stated(None) == stated(tmp_path) == {}
    for content in (
        b"",
        b"license: mit\n",
        b"# ---\n---\nlicense: mit\n---\n",
        b"\xff\xfe\x00",
        b"---\nlicense: mit\n",
    ):
        readme.write_bytes(content)
        assert stated(tmp_path) == {}
    readme.unlink()
    os.mkfifo(readme)  # opening it would wait for ever
    assert stated(tmp_path) == {}
    (tmp_path / "model").mkdir()  # the folder above belongs to a model only if it has modules.json
    readme.unlink()
    readme.write_text("---\nlicense: mit\n---\n")
    assert stated(tmp_path / "model") == {}
    encoder = Encoder.from_pretrained("bundled")
    assert stated(encoder.source) == {"language": "en", "license": "apache-2.0"}
    settings = encoder.settings()
    card = ModelCard(model_card(encoder.describe(), settings))
    assert card.data.license is None
    assert "None is stated here." in card.text
    (tmp_path / "model" / "README.md").write_text("---\nlanguage: de\n---\n")
    german = ModelCard(model_card(encoder.describe(), settings, source=tmp_path / "model"))
    assert german.data.language == "de"
    assert german.data.get("widget") is None  # its sentences are English


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_cannot_break_the_header(name: str, base: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(base / "bert")
    encoder.name = f"/models/{name}"
    scores = [
        score("sentence-similarity", name, name, name, 50.0, name=name, title=name),
        score("sentence-similarity", "broken", None, "spearmanr", math.inf, name="Spearman"),
    ]
    tags = [name, name]
    card = model_card(encoder.describe(), encoder.settings(), source=base / "bert", tags=tags, scores=scores)
    encoder.save(tmp_path / "a", card=card)
    data = read(tmp_path / "a")
    in_line = " ".join(name.encode("utf-8", "replace").decode().split())
    of_base(data, in_line)
    (only,) = data.eval_results
    assert isinstance(only, EvalResult)
    assert {only.dataset_name, only.dataset_type, only.dataset_split, only.metric_name, only.metric_type} == {in_line}
    assert data.model_name.endswith(in_line)
    assert "\n# A sentence encoder\n" in ModelCard.load(tmp_path / "a" / "README.md").text
