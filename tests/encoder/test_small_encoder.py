"""`small`, the encoder for daily work: its files, its vectors, its quality, and that it is the default."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from support.command import REPOSITORY
from support.tiny import TEXTS

import textcl
from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.encoder.card import is_hub_name
from textcl.encoder.static import StaticBackbone
from textcl.evaluation import STSBenchmark

SMALL = REPOSITORY / "textcl" / "assets" / "small"
ODD = ["C3PO & R2-D2", "naïve café 数学 🙂", "word " * 3000]


@pytest.fixture(scope="module")
def small() -> Encoder:
    return Encoder.from_pretrained("small")


def test_its_files_are_at_most_sixteen_megabytes_of_half_precision_and_no_pickle() -> None:
    files = [path for path in SMALL.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        *("config_sentence_transformers.json", "modules.json", "model.safetensors", "tokenizer.json"),
        *("README.md", "LICENSE"),
    }
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    with safe_open(SMALL / "model.safetensors", "pt") as file:
        assert {name: file.get_slice(name).get_dtype() for name in file.keys()} == {"embedding.weight": "F16"}  # noqa: SIM118


def test_the_card_and_the_licence_name_the_teacher_and_the_texts() -> None:
    for name in ("README.md", "LICENSE"):
        text = (SMALL / name).read_text(encoding="utf-8")
        assert "sentence-transformers/all-MiniLM-L6-v2" in text
        assert "Apache" in text
        assert "CC BY-SA" in text


def test_its_vectors_are_the_means_of_the_stored_rows(small: Encoder) -> None:
    assert isinstance(small.backbone, StaticBackbone)
    with safe_open(SMALL / "model.safetensors", "pt") as file:
        table = file.get_tensor("embedding.weight").double()
    text = "A cat sleeps on the red sofa."
    mean = table[small.tokenizer(text, add_special_tokens=False)["input_ids"]].mean(dim=0)
    assert np.abs(small.encode([text])[0] - (mean / mean.norm()).numpy()).max() < 1e-6


def test_its_vectors_are_those_of_sentence_transformers(small: Encoder) -> None:
    """In float32 they are equal. As sentence-transformers loads it, it computes in half precision."""
    texts = [*TEXTS[:200], *ODD]
    theirs = SentenceTransformer(str(SMALL), device="cpu")
    halves = theirs.encode(texts[:-1]).astype(np.float32)
    assert np.abs(halves - small.encode(texts[:-1])).max() < 2e-3
    whole = [*texts, "", " "]  # texts without tokens have the length 0, by which half precision cannot divide
    assert np.abs(theirs.float().encode(whole) - small.encode(whole)).max() < 1e-6


def test_a_copy_under_another_name_is_the_same_encoder(small: Encoder, tmp_path: Path) -> None:
    copy = Encoder.from_pretrained(shutil.copytree(SMALL, tmp_path / "copy"))
    assert copy.fingerprint() == small.fingerprint()
    saved = Encoder.from_pretrained(small.save(tmp_path / "saved"))
    assert torch.equal(saved.word_embeddings.weight, small.word_embeddings.weight)
    assert not is_hub_name("small")


def test_its_figure_on_stsb_dev(small: Encoder, evaluation_sets: Path) -> None:
    assert 83.0 < STSBenchmark("dev", data_dir=evaluation_sets)(small).primary < 83.7


def test_encode_and_explore_take_it_if_no_model_is_named(
    small: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("\n".join(TEXTS[:40]))
    assert main(["encode", "texts.txt", "--output", "v"]) == 0
    assert main(["encode", "--output", "w", "small", "texts.txt"]) == 0
    assert main(["encode", "small", "--output", "x.npy", "texts.txt"]) == 0
    assert main(["explore", "texts.txt", "--output", "e"]) == 0
    for folder in ("v", "w", "e/vectors"):
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
        assert manifest["model"]["name"] == "small"
        assert np.abs(textcl.load_vectors(folder)[1] - small.encode(TEXTS[:40])).max() < 1e-6
    assert np.array_equal(np.load("x.npy"), small.encode(TEXTS[:40]))


def test_one_argument_that_is_a_model_is_not_taken_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["encode", "bundled", "--output", "v"]) == 2
    assert "Name a file of texts behind bundled" in capsys.readouterr().err
