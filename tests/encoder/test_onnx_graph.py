"""`export_onnx`: ONNX Runtime gives the vectors of `encode`, whatever the pooling and the layers behind it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.encoder import Encoder
from textcl.encoder.layers import Dense, Norm, with_first_dimensions
from textcl.encoder.pooling import Padded
from textcl.errors import InputError

LONG = " ".join(TEXTS[:8])  # longer than what the graph was traced with, and than what attention takes for short
EMPTY = ""


def largest_difference(encoder: Encoder, path: Path, prompt: str = "") -> float:
    """Between the graph's vectors and those of `encode`, over batches of other sizes than the traced one."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(textcl.export_onnx(encoder, path)), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    assert [each.name for each in session.get_outputs()] == ["sentence_embedding"]
    assert encoder.tokenize([LONG])["input_ids"].shape[1] > 40
    worst = 0.0
    for texts in (TEXTS[:1], TEXTS[:9], [LONG, "a", EMPTY]):
        tokens = encoder.tokenize(texts, prompt)
        (found,) = session.run(None, {name: tokens[name].numpy() for name in names})
        assert found.dtype == np.float32
        worst = max(worst, float(np.abs(found - encoder.encode(texts, prompt=prompt)).max()))
    return worst


def of(folder: Path, architecture: str = "bert", **options: object) -> Encoder:
    tiny_encoder_directory(folder / architecture, architecture)
    return Encoder.from_pretrained(folder / architecture, device="cpu", **options)


@pytest.mark.slow
def test_pooling_layers_and_normalisation_are_in_the_graph(tmp_path: Path) -> None:
    """Two layers averaged, weighted tokens, a layer norm, a dense layer, a cut, and length 1."""
    torch.manual_seed(0)
    encoder = of(tmp_path, pooling="first_last")
    encoder.weigh_tokens(TEXTS)
    encoder.layers = torch.nn.ModuleList([Norm(32), Dense(32, 24)])
    encoder = with_first_dimensions(encoder, 16).with_(normalize=True)
    before = encoder.fingerprint()
    assert largest_difference(encoder, tmp_path / "a.onnx") < 1e-5
    assert encoder.fingerprint() == before
    assert encoder.encode(TEXTS[:2]).shape == (2, 16)
    assert not list(tmp_path.glob("*.data")), "one file"


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["cls", "pooler", "max", "last_token", "last2", "mask_token"])
def test_every_pooling(pooling: str, tmp_path: Path) -> None:
    prompt = "{text} means [MASK] ." if pooling == "mask_token" else ""
    assert largest_difference(of(tmp_path, pooling=pooling), tmp_path / "a.onnx", prompt) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "mpnet", "electra", "albert", "modernbert"])
def test_architectures(architecture: str, tmp_path: Path) -> None:
    assert largest_difference(of(tmp_path, architecture), tmp_path / "a.onnx") < 1e-5


@pytest.mark.slow
def test_a_graph_that_was_traced_with_few_tokens_takes_many(tmp_path: Path) -> None:
    """Attention is computed in another way for few tokens; the tiny tokenizer makes many of the traced example."""
    encoder = Encoder.from_pretrained("bundled", device="cpu")
    assert largest_difference(encoder, tmp_path / "a.onnx") < 1e-5


@pytest.mark.slow
def test_a_static_student(tmp_path: Path) -> None:
    made = textcl.distill(of(tmp_path), TEXTS[:80], static=16, epochs=2)
    assert largest_difference(made.encoder, tmp_path / "a.onnx") < 1e-5


@pytest.mark.slow
def test_a_graph_for_one_size_of_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`len` fixes the number of rows, and torch then writes a graph for as many rows as it was traced with."""
    fixed = property(lambda rows: lambda vectors: vectors[torch.arange(len(vectors)), rows.mask.sum(dim=1) - 1])
    monkeypatch.setattr(Padded, "last", fixed)
    with pytest.raises(InputError, match="only as an ONNX graph for batches of one size"):
        textcl.export_onnx(of(tmp_path, pooling="last_token"), tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = of(tmp_path)
    own = Encoder(
        encoder.backbone, encoder.tokenizer, prompts={"query": "query: "}, pool_prompt=False, name="instructor"
    )
    with pytest.raises(InputError, match="instructor does not pool its prompt"):
        textcl.export_onnx(own, tmp_path / "a.onnx")
    monkeypatch.setattr("textcl.encoder.onnx_graph._LARGEST", 1000)
    with pytest.raises(InputError, match="an ONNX file holds at most 2 GiB"):
        textcl.export_onnx(encoder, tmp_path / "a.onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="pip install"):
        textcl.export_onnx(encoder, tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx"))
