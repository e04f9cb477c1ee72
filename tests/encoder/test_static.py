"""Static encoders: the vectors are bit for bit those of sentence-transformers, and every command takes them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from support.tiny import TEXTS, tiny_tokenizer
from tokenizers import Tokenizer
from torch import nn

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.encoder.static import UNCUT, StaticBackbone, fast_tokenizer
from textcl.errors import InputError
from textcl.methods import SimCLR

ROWS = [*TEXTS[:40], "", "дом", "[UNK] [MASK] The old", "the " * 1500, "today", TEXTS[3].upper()]


def table(dimension: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(tiny_tokenizer()), dimension, generator=torch.Generator().manual_seed(seed))


def raw_tokenizer() -> Tokenizer:
    raw = tiny_tokenizer().backend_tokenizer
    raw.no_truncation()
    raw.no_padding()
    return raw


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A directory that sentence-transformers wrote; its tokenizer has a template with special tokens."""
    SentenceTransformer(modules=[StaticEmbedding(raw_tokenizer(), table())], device="cpu").save(str(tmp_path / "st"))
    return tmp_path / "st"


def vectors_of_sentence_transformers(folder: Path) -> np.ndarray:
    return SentenceTransformer(str(folder), device="cpu").encode(ROWS, batch_size=7)


def test_a_directory_of_sentence_transformers_gives_its_vectors(static: Path) -> None:
    encoder = Encoder.from_pretrained(static)
    assert np.array_equal(encoder.encode(ROWS), vectors_of_sentence_transformers(static))
    assert not encoder.encode([""]).any()
    assert encoder.max_length == UNCUT
    assert encoder.dimension == 24


def test_length_and_layers_of_a_directory_are_honoured(tmp_path: Path) -> None:
    raw = raw_tokenizer()
    raw.enable_truncation(5, direction="left")
    layers = [StaticEmbedding(raw, table()), Normalize()]
    SentenceTransformer(modules=layers, truncate_dim=None, device="cpu").save(str(tmp_path / "st"))
    encoder = Encoder.from_pretrained(tmp_path / "st")
    assert encoder.max_length == 5
    assert encoder.normalize
    assert np.array_equal(encoder.encode(ROWS), vectors_of_sentence_transformers(tmp_path / "st"))
    shorter = Encoder.from_pretrained(tmp_path / "st", max_length=2).encode(ROWS)
    assert not np.array_equal(shorter, encoder.encode(ROWS))


@pytest.mark.parametrize("length", [None, 4])
@pytest.mark.parametrize("normalize", [False, True])
def test_an_export_gives_the_same_vectors_everywhere(tmp_path: Path, length: int | None, normalize: bool) -> None:
    encoder = Encoder(
        StaticBackbone.of(table()), fast_tokenizer(raw_tokenizer()), max_length=length or UNCUT, normalize=normalize
    )
    folder = encoder.save(tmp_path / "saved")
    again = Encoder.from_pretrained(folder)
    assert np.array_equal(again.encode(ROWS), encoder.encode(ROWS))
    assert np.array_equal(vectors_of_sentence_transformers(folder), encoder.encode(ROWS))
    assert again.fingerprint() == encoder.fingerprint()
    assert {path.name for path in folder.iterdir()} >= {"tokenizer.json", "model.safetensors", "modules.json"}


def test_layers_behind_the_table_are_exported(static: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(static)
    with_map = Encoder(
        encoder.backbone, encoder.tokenizer, max_length=UNCUT, projection=nn.Linear(24, 8), normalize=True
    )
    folder = with_map.save(tmp_path / "saved")
    assert np.abs(vectors_of_sentence_transformers(folder) - with_map.encode(ROWS)).max() < 1e-6
    assert np.array_equal(Encoder.from_pretrained(folder).encode(ROWS), with_map.encode(ROWS))


def test_the_padded_way_of_training_gives_the_same_vectors(static: Path) -> None:
    encoder = Encoder.from_pretrained(static)
    found = encoder.embed(encoder.tokenize(ROWS)).detach().numpy()
    assert np.abs(found - encoder.encode(ROWS)).max() < 1e-4  # of 1,500 tokens, added up in another order
    found = encoder.embed(encoder.tokenize(TEXTS[:4]))
    found.sum().backward()
    assert encoder.word_embeddings.weight.grad is not None
    assert encoder.word_embeddings.weight.shape == (len(tiny_tokenizer()), 24)


def test_tables_of_model2vec_are_read(static: Path) -> None:
    """Its files have few vectors, which of them a token has, and a weight for each token."""
    generator = torch.Generator().manual_seed(3)
    size = len(tiny_tokenizer())
    mapping = torch.randint(0, 10, (size,), generator=generator)
    weights = torch.rand(size, generator=generator)
    kept = {"embeddings": table()[:10].contiguous(), "mapping": mapping, "weights": weights}
    save_file(kept, static / "model.safetensors")
    whole = StaticEmbedding(raw_tokenizer(), table()[:10][mapping] * weights[:, None])
    expected = SentenceTransformer(modules=[whole], device="cpu").encode(ROWS, batch_size=7)
    assert np.array_equal(Encoder.from_pretrained(static).encode(ROWS), expected)
    save_file({**kept, "mapping": mapping + 5}, static / "model.safetensors")
    with pytest.raises(InputError, match="damaged"):
        Encoder.from_pretrained(static)


def test_what_is_refused(static: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(static)
    method = SimCLR(encoder, second_view="crop_away")
    method.test_pooling = "cls"
    for refused in (
        lambda: Encoder.from_pretrained(static, pooling="cls"),
        lambda: Encoder(encoder.backbone, encoder.tokenizer, "cls"),
        lambda: encoder.with_(pooling="cls"),
        lambda: method.exported,
    ):
        with pytest.raises(InputError, match="only the pooling mean, not cls"):
            refused()
    with pytest.raises(InputError, match=r"cannot be set to 0\.1"):
        Encoder.from_pretrained(static, dropout=0.1)
    with pytest.raises(InputError, match="prompt around the text"):
        Encoder.from_pretrained(static, prompts={"p": "about {text} ."}).save(tmp_path / "saved")
    weighted = Encoder.from_pretrained(static)
    weighted.weigh_tokens(TEXTS)
    assert not np.array_equal(weighted.encode(ROWS), Encoder.from_pretrained(static).encode(ROWS))
    with pytest.raises(InputError, match="weights of tokens"):
        weighted.save(tmp_path / "saved")
    few = {"embedding.weight": table()[:100].contiguous()}
    for name, content, message in (
        ("model.safetensors", few, "does not fit its weights"),
        ("model.safetensors", {"other": table()}, "must hold a table"),
        ("tokenizer.json", "{}", "no tokenizer that can be loaded"),
        ("tokenizer.json", None, "holds no tokenizer.json"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(static, broken)
        if isinstance(content, dict):
            save_file(content, broken / name)
        elif content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_text(content)
        with pytest.raises(InputError, match=message):
            Encoder.from_pretrained(broken)
        shutil.rmtree(broken)


def test_every_command_takes_a_static_encoder(
    static: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:120]))
    rows = [f"{number},{text}\n" for number, text in enumerate(TEXTS[:40])]
    for name, some in (("queries", rows[:3]), ("documents", rows)):
        (tmp_path / f"{name}.csv").write_text("id,text\n" + "".join(some))
    (tmp_path / "relevance.csv").write_text("query_id,document_id\n0,0\n1,1\n2,2\n")

    def run(*arguments: str) -> str:
        assert main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    run("encode", "st", "texts.txt", "--output", "v/")
    assert "the red door" in run("search", "v/", "the red door", "--top", "3")
    assert json.loads(run("encode", "st", "texts.txt", "--output", "v.npy", "--json", "-"))["cut"] == 0
    assert np.array_equal(np.load("v.npy"), Encoder.from_pretrained("st").encode(TEXTS[:120]))
    run("cluster", "st", "texts.txt", "--clusters", "4", "--output", "clusters.csv")
    with (tmp_path / "clusters.csv").open(newline="") as handle:
        assert len({row["cluster"] for row in csv.DictReader(handle)}) == 4
    given = ["--queries", "queries.csv", "--documents", "documents.csv", "--relevance", "relevance.csv"]
    assert json.loads(run("eval", "st", *given, "--json", "-"))["results"]
    run("map", "v/", "--output", "map.html")
    run("duplicates", "texts.txt", "--model", "st", "--threshold", "0.9")
