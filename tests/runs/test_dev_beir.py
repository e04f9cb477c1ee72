"""`--dev beir:FOLDER`: retrieval chooses the checkpoint, and its content counts."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from support.runs import small_run
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Retrieval
from textcl.runs.compare import compare
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe


@pytest.fixture
def work(tmp_path: Path) -> Path:
    tiny_encoder_directory(tmp_path / "bert")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    folder = tmp_path / "deep" / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS[:60])]
    (folder / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    queries = [json.dumps({"_id": f"q{n}", "text": " ".join(TEXTS[n].split()[:4])}) for n in range(0, 60, 4)]
    (folder / "queries.jsonl").write_text("\n".join(queries) + "\n")
    for split, count in (("dev", 60), ("test", 20)):
        judged = [f"q{n}\td{n}\t1" for n in range(0, count, 4)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return tmp_path


def test_retrieval_chooses_the_checkpoint(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = work / "deep" / "beir"
    flags = small_run(work, work / "run", dev=f"beir:{folder}", eval_steps=1, learning_rate=1e-3)
    result = run_recipe(resolve(flags)[0])
    dev = result.record.dev
    assert dev is not None
    assert dev.set == "retrieval"
    assert dev.before == pytest.approx(
        Retrieval.from_folder(folder, "dev")(Encoder.from_pretrained(work / "bert")).primary
    )
    assert dev.score == pytest.approx(
        Retrieval.from_folder(folder, "dev")(Encoder.from_pretrained(result.export)).primary
    )
    assert (dev.step == 0) == (dev.score == dev.before)
    assert dev.error is not None
    assert "--dev=beir:beir" in result.record.command  # without the folders above
    assert "- dev: `beir:beir`" in (result.export / "README.md").read_text()
    assert "| retrieval | dev | nDCG@10 |" in (result.export / "README.md").read_text()
    assert not [message for message in caplog.messages if "chosen by its test queries" in message]
    assert run_recipe(resolve(flags)[0], resume=True).record.fingerprint == result.record.fingerprint


def test_the_error_is_over_queries(work: Path) -> None:
    task = Retrieval.from_folder(work / "deep" / "beir", "dev")
    before = task(Encoder.from_pretrained(work / "bert")).items
    assert before is not None
    assert len(before) == 15
    assert task.error_of_difference(before, before + 7) == pytest.approx(0, abs=1e-9)
    change = np.arange(15.0)
    assert task.error_of_difference(before, before + change) == pytest.approx(change.std() / 15**0.5, rel=0.15)


def test_without_dev_judgements_the_test_queries_choose_and_it_is_said(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (work / "deep" / "beir" / "qrels" / "dev.tsv").unlink()
    flags = small_run(work, work / "run", dev=f"beir:{work}/deep/beir", max_steps=1)
    with caplog.at_level(logging.WARNING):
        result = run_recipe(resolve(flags)[0])
    assert "has no qrels/dev.tsv, so the checkpoint is chosen by its test queries." in caplog.text
    card = (result.export / "README.md").read_text()
    assert "| retrieval | test | nDCG@10 |" in card
    assert "split: test" in card
    assert "split: dev" not in card


def test_the_content_of_the_folder_counts_and_its_place_does_not(work: Path) -> None:
    folder = work / "deep" / "beir"

    def fingerprint(dev: str) -> str:
        return resolve(small_run(work, work / "run", dev=dev))[0].fingerprint()

    before = fingerprint(f"beir:{folder}")
    assert before != fingerprint("none")
    (work / "moved").symlink_to(folder)
    assert fingerprint(f"beir:{work}/moved") == before
    (folder / "qrels" / "test.tsv").write_text("is not read")
    assert fingerprint(f"beir:{folder}") == before
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv"):
        kept = (folder / file).read_text()
        (folder / file).write_text(kept + "\n")
        assert fingerprint(f"beir:{folder}") != before
        (folder / file).write_text(kept)


def test_a_folder_that_is_not_there(work: Path) -> None:
    with pytest.raises(InputError, match="names the folder 'nothing', which does not exist"):
        resolve(small_run(work, work / "run", dev="beir:nothing"))
    with pytest.raises(InputError, match="nor beir:FOLDER, nor one of"):
        resolve(small_run(work, work / "run", dev="bier"))
    with pytest.raises(InputError, match=r"needs a folder in BEIR's layout, but there is no file .*queries.jsonl"):
        resolve(small_run(work, work / "run", dev=f"beir:{work / 'bert'}"))
    assert not (work / "run").exists()


@pytest.mark.slow
def test_a_comparison_takes_it(work: Path, evaluation_sets: Path) -> None:
    flags = small_run(work, work / "unused", dev=f"beir:{work}/deep/beir", max_steps=1)
    del flags["output"]
    (work / "one.yaml").write_text(json.dumps(flags))
    lines, failures = compare(
        [work / "one.yaml"], work / "out", seeds=1, tasks=["stsb"], data_dir=evaluation_sets, baselines=[]
    )
    assert failures == []
    assert lines[0]["run"]["dev"]["set"] == "retrieval"
    assert "--dev=beir:beir" in lines[0]["run"]["command"]
