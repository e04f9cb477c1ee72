"""An export in mteb without an adapter, and textcl's evaluators in the trainer of sentence-transformers."""

import json
from pathlib import Path

import mteb
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.evaluation import Clustering, LabelledPairs, Retrieval
from textcl.evaluation.sentence_transformers import SentenceTransformersEvaluator

PAIRS = [(TEXTS[i], TEXTS[(7 * i) % 288], float(i % 6)) for i in range(60)]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interoperability")
    model = tiny_encoder_directory(folder / "model")
    return textcl.Encoder.from_pretrained(model, pooling="first_last").save(folder / "export")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> LabelledPairs:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    path.write_text("".join(f"{first}\t{second}\t{score}\n" for first, second, score in PAIRS))
    return LabelledPairs(path)


class LocalPairs(AbsTaskSTS):
    """A task of mteb over `PAIRS`, which are here and nowhere else."""

    metadata = TaskMetadata(
        name="LocalPairs",
        description="Pairs of made-up sentences with made-up scores",
        dataset={"path": "local/pairs", "revision": "1"},
        type="STS",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="cosine_spearman",
    )

    def load_data(self, **_: object) -> None:
        columns = dict(zip(("sentence1", "sentence2", "score"), map(list, zip(*PAIRS, strict=True)), strict=True))
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


def test_an_export_runs_in_mteb_and_scores_the_same(
    export: Path, pairs: LabelledPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = SentenceTransformer(str(export), device="cpu")
    cache = mteb.ResultCache(tmp_path / "cache")
    found = mteb.evaluate(model, LocalPairs(), cache=cache, co2_tracker=False, show_progress_bar=False)
    score = found.task_results[0].scores["test"][0]
    expected = pairs(textcl.Encoder.from_pretrained(export))
    assert 100 * score["cosine_spearman"] == pytest.approx(expected.primary, abs=1e-3)
    assert 100 * score["cosine_pearson"] == pytest.approx(expected.results["pairs"]["pearson"]["all"], abs=1e-3)


def test_the_trainer_of_sentence_transformers_takes_any_evaluator(
    export: Path, pairs: LabelledPairs, tmp_path: Path
) -> None:
    model = SentenceTransformer(str(export), device="cpu")
    own = [
        pairs,
        Clustering({"Mine": (TEXTS[:48], [i // 8 for i in range(48)])}, seeds=[0]),
        Retrieval({"q": TEXTS[0]}, dict(enumerate_ids()), {"q": {"d3": 1}}),
    ]
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=2,
        per_device_train_batch_size=8,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="pairs_primary",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = Dataset.from_dict({"anchor": TEXTS[:32], "positive": TEXTS[32:64]})
    trainer = SentenceTransformerTrainer(
        model,
        arguments,
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(model),
        evaluator=[SentenceTransformersEvaluator(each) for each in own],
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "eval_pairs_primary" in entry]
    assert len(history) == 2
    for entry in history:
        assert entry["eval_pairs_primary"] == entry["eval_pairs_all"]
        assert entry["eval_clustering-mine_primary"] == entry["eval_clustering-mine_accuracy"]
        assert entry["eval_retrieval_primary"] == entry["eval_retrieval_ndcg@10"]
    best = max(entry["eval_pairs_primary"] for entry in history)
    assert trainer.state.best_metric == best
    assert pairs(trainer.model).primary == pytest.approx(best)  # the best weights are those that were scored
    written = json.loads((tmp_path / "run" / "eval" / "pairs-2.json").read_text())
    assert written["average"]["all"] == history[1]["eval_pairs_primary"]
    assert written["provenance"]["tasks"]["pairs"]["data_sha256"]
    trainer.model.save(str(tmp_path / "saved"))  # the model card knows the evaluators
    assert "pairs" in (tmp_path / "saved" / "README.md").read_text()


def test_called_by_hand_it_gives_its_metrics(export: Path, pairs: LabelledPairs) -> None:
    model = SentenceTransformer(str(export), device="cpu")
    evaluator = textcl.SentenceTransformersEvaluator(pairs)
    metrics = evaluator(model)
    assert metrics[evaluator.primary_metric] == pairs(model).primary
    assert evaluator.greater_is_better


def test_criteria_without_labels_are_metrics_too(export: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(export), device="cpu")
    free = textcl.LabelFree(TEXTS, ["halves", "effective_rank"])
    metrics = textcl.SentenceTransformersEvaluator(free)(model, str(tmp_path), steps=2)
    assert metrics == {
        f"halves_{name}": value for name, value in {**free(model).scores, "primary": free(model).primary}.items()
    }
    assert json.loads((tmp_path / "halves-2.json").read_text())["scores"] == free(model).scores


def test_two_evaluators_of_one_name_get_different_ones(export: Path, pairs: LabelledPairs, tmp_path: Path) -> None:
    """sentence-transformers joins the metrics of several evaluators, and later ones overwrite earlier ones."""
    model = SentenceTransformer(str(export), device="cpu")
    both = [textcl.SentenceTransformersEvaluator(pairs, name) for name in (None, "others")]
    found = [evaluator(model, str(tmp_path), steps=3) for evaluator in both]
    assert found[0].keys().isdisjoint(found[1])
    assert found[1]["others_primary"] == found[0]["pairs_primary"]
    assert {path.name for path in tmp_path.iterdir()} == {"pairs-3.json", "others-3.json"}


def enumerate_ids() -> list[tuple[str, str]]:
    return [(f"d{number}", text) for number, text in enumerate(TEXTS[:40])]
