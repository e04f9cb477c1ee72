"""What is found out about a backbone and its tokenizer when they are loaded: one sentence, not an error in a corpus."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, ViTConfig, ViTModel

from textcl import Encoder
from textcl.encoder import attention, probe
from textcl.errors import InputError
from textcl.tokenising import special_edges

HALVES = {"num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {"hidden_size": 32, **HALVES, "intermediate_size": 48, "max_position_embeddings": 80, "pad_token_id": 1}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
BART = {
    "d_model": 32,
    "pad_token_id": 1,
    "max_position_embeddings": 80,
    **{f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")},
}
FAMILIES = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "T5": T5,
    "T5Encoder": T5,
    "MT5": T5,
    "UMT5": T5,
    "LongT5": T5,
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48},
    "Funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48, "block_sizes": [1, 1]},
    "FunnelBase": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48, "block_sizes": [1, 1]},
    "FNet": {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "max_position_embeddings")},
    "Bart": BART,
    "Marian": BART,
    "ProphetNet": {"hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
    "Opt": {"hidden_size": 32, **HALVES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 80},
}


def directory(path: Path, family: str, tokenizer: PreTrainedTokenizerFast | None = None, **options) -> str:
    tokenizer = tokenizer or tiny_tokenizer()
    name = {"Opt": "OPT"}.get(family, family)
    config = getattr(transformers, f"{name.removesuffix('Encoder').removesuffix('Base')}Config")
    torch.manual_seed(0)
    sizes = {**FAMILIES.get(family, SMALL), "vocab_size": 200, **options}
    getattr(transformers, f"{name}Model")(config(**sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def test_a_model_of_images_is_refused_by_its_class(tmp_path):
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"\(ViTModel\) cannot be used as an encoder"):
        Encoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["T5", "T5Encoder", "MT5", "UMT5", "LongT5"])
def test_of_an_encoder_decoder_model_the_encoder_alone_is_loaded(tmp_path, family):
    """The vectors are those of transformers' class of the encoder, and the export is loaded again."""
    path = directory(tmp_path / "model", family)
    encoder = Encoder.from_pretrained(path, dropout=0.0)
    name = family.removesuffix("Encoder") + "EncoderModel"
    assert type(encoder.backbone).__name__ == name
    tokens = encoder.tokenizer(TEXTS[:2], padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        hidden = getattr(transformers, name).from_pretrained(path).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    np.testing.assert_allclose(encoder.encode(TEXTS[:2]), expected, atol=1e-6)
    encoder.train().embed(encoder.tokenize(TEXTS[:2])).sum().backward()
    again = Encoder.from_pretrained(encoder.save(tmp_path / "export"))
    np.testing.assert_allclose(again.encode(TEXTS[:2]), expected, atol=1e-6)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "export"), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS[:2]), expected, atol=1e-6)


@pytest.mark.parametrize("family", ["Marian", "ProphetNet"])
def test_other_encoder_decoder_models_are_refused_by_that_name(tmp_path, family):
    with pytest.raises(InputError, match="is an encoder–decoder model"):
        Encoder.from_pretrained(directory(tmp_path, family))


def test_a_backbone_that_returns_its_last_layer_alone_refuses_poolings_of_several(tmp_path):
    path = directory(tmp_path, "Bart", tokenizer=tiny_tokenizer())
    assert np.isfinite(Encoder.from_pretrained(path).encode(TEXTS[:3])).all()
    with pytest.raises(InputError, match=r"Pooling first_last needs the vectors of several layers.*BartModel"):
        Encoder.from_pretrained(path, pooling="first_last")


def test_a_backbone_that_shortens_its_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"FunnelBaseModel\) cannot be used as an encoder: .* in place of one vector"):
        Encoder.from_pretrained(directory(tmp_path, "FunnelBase"))


def test_no_limit_of_positions_is_written_as_minus_one(tmp_path):
    """XLNet has max_position_embeddings -1, which is any number of tokens."""
    encoder = Encoder.from_pretrained(directory(tmp_path, "XLNet"))
    assert encoder.max_length == 64  # the tokenizer's
    assert np.isfinite(encoder.encode([" ".join(TEXTS[:20]), "a"])).all()


def test_a_vector_that_depends_on_the_padding_is_said(tmp_path, caplog):
    Encoder.from_pretrained(directory(tmp_path / "fnet", "FNet"))
    assert "FNetModel) the vector of a text depends on the length of the texts beside it" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Encoder.from_pretrained(directory(tmp_path / "bert", "Bert"))
    assert caplog.text == ""


def test_a_text_for_which_the_backbone_has_no_positions_is_found_at_loading(tmp_path):
    """A configuration that promises more positions than the table has, as a hand edit leaves it."""
    path = directory(tmp_path, "Opt", max_position_embeddings=40)
    config = json.loads((tmp_path / "config.json").read_text())
    model = transformers.OPTModel.from_pretrained(path)
    model.config.max_position_embeddings = 64
    encoder = Encoder(model.eval(), tiny_tokenizer(), max_length=64, name="opt")
    with pytest.raises(InputError, match="cannot embed a text of 64 tokens; set a smaller max_length: IndexError"):
        probe.probe(encoder)
    assert config["max_position_embeddings"] == 40
    probe.probe(encoder.with_(max_length=40))


def test_a_token_beyond_the_table_is_refused_by_name(tmp_path):
    path = tiny_encoder_directory(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["newword", "otherword"])
    tokenizer.save_pretrained(path)
    with pytest.raises(InputError, match=r"does not fit its weights: .* 2 tokens have larger numbers .*'newword'"):
        Encoder.from_pretrained(path)


def test_a_tokenizer_without_vocabulary_is_refused(tmp_path):
    empty = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), unk_token="[UNK]"
    )
    with pytest.raises(InputError, match="knows no token of any text"):
        Encoder.from_pretrained(directory(tmp_path, "Bert", tokenizer=empty, vocab_size=8))


def test_a_tokenizer_without_padding_and_end_token_pads_with_what_the_mask_hides(tmp_path):
    tokenizer = tiny_tokenizer()
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=64)
    assert plain.pad_token is None
    assert plain.eos_token is None
    encoder = Encoder.from_pretrained(directory(tmp_path, "Bert", tokenizer=plain))
    texts = [TEXTS[0], " ".join(TEXTS[:5])]
    np.testing.assert_allclose(encoder.encode(texts)[0], encoder.encode(texts[0]), atol=1e-5)


def test_an_export_pads_as_textcl_does(tmp_path):
    """GPT-2's tokenizer has no padding token, and may pad on the left, where a text has other positions."""
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, model_max_length=64, eos_token="[SEP]", padding_side="left"
    )
    model = transformers.GPT2Model(transformers.GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=4))
    encoder = Encoder(model.eval(), plain, "last_token")
    texts = [TEXTS[0], " ".join(TEXTS[:5])]
    expected = encoder.encode(texts)
    encoder.save(tmp_path / "export")
    assert (plain.padding_side, plain.pad_token) == ("left", None), "the tokenizer is not changed"
    assert np.abs(Encoder.from_pretrained(tmp_path / "export").encode(texts) - expected).max() < 1e-6
    theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu").encode(texts)
    assert np.abs(theirs - expected).max() < 1e-5


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = directory(tmp_path, "Bert")
    model = transformers.BertModel.from_pretrained(path)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = float("nan")
    model.save_pretrained(path)
    with pytest.raises(InputError, match="not finite"):
        Encoder.from_pretrained(path)


def test_a_fault_of_our_own_is_not_blamed_on_the_model(tmp_path, monkeypatch):
    """A planted error in textcl's attention keeps its traceback."""

    path = directory(tmp_path, "Bert")
    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.ATTENTION, _planted)
    with pytest.raises(TypeError, match="not callable"):
        Encoder.from_pretrained(path)


def _planted(*arguments, **options):
    return special_edges(None)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "last_token", "first_last", "last2"])
def test_a_text_without_tokens_is_a_zero_vector_alone_and_in_company(tmp_path, pooling):
    """A tokenizer that adds no special tokens leaves nothing of an empty text."""
    tokenizer = tiny_tokenizer()
    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        pad_token="[PAD]",
        model_max_length=64,
    )
    bare.backend_tokenizer.post_processor = None
    encoder = Encoder.from_pretrained(directory(tmp_path, "Bert", tokenizer=bare), pooling=pooling)
    assert encoder.tokenize([""])["attention_mask"].sum() == 0
    alone, company = encoder.encode([""]), encoder.encode(["", TEXTS[0], " ".join(TEXTS[:3])])
    assert not alone.any()
    assert not company[0].any()
    np.testing.assert_allclose(company[1], encoder.encode(TEXTS[0]), atol=1e-5)
    assert np.isfinite(encoder.encode(["", TEXTS[0]], normalize=True)).all()
    encoder.train().embed(encoder.tokenize(["", TEXTS[0]])).square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_an_additive_mask_of_numbers_is_added_as_it_stands():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 5, 4, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 1, 5, 5)
    bias[1, :, :, 3:] = torch.finfo(torch.float32).min
    found, _ = attention.attention(torch.nn.Module(), query, key, value, bias)
    scores = query @ key.transpose(-1, -2) / 2 + bias
    expected = (scores.softmax(dim=-1) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("length", [2, 1, 0, -5])
def test_a_max_length_without_room_for_a_text_is_refused(length):
    with pytest.raises(InputError, match=f"max_length {length} leaves none for a text"):
        Encoder.from_pretrained("bundled", max_length=length)
    encoder = Encoder.from_pretrained("bundled", max_length=3)
    assert encoder.tokenize(["a cat sleeps"])["input_ids"].shape == (1, 3)
    assert encoder.describe()["max_length"] == 3
    with pytest.raises(InputError, match="leaves none for a text"):
        encoder.with_(max_length=length)


def test_a_prompt_without_room_for_a_text_is_refused():
    encoder = Encoder.from_pretrained("bundled", max_length=12)
    with pytest.raises(InputError, match="max_length 12 leaves none for a text; raise max_length or use a shorter"):
        encoder.encode(["a", "b"], prompt="a very long prompt indeed, and more of it, so that nothing is left: ")
    with pytest.raises(InputError, match="max_length 12 leaves none for a text"):
        encoder.encode(["a"], prompt="a very long prompt indeed, and more of it, {text} so that nothing is left")


@pytest.mark.parametrize("command", [["encode"], ["cluster", "--clusters", "2"], ["eval"], ["train", "simcse"]])
def test_every_command_refuses_a_length_without_room(tmp_path, monkeypatch, capsys, command):
    from textcl.cli.main import main

    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n".join(TEXTS[:40]))
    Path("d/STS/STSBenchmark").mkdir(parents=True)
    rows = [f"main\tnews\t2012\t{n}\t{n % 6}.0\t{TEXTS[n % 40]}\t{TEXTS[0]}" for n in range(1500)]
    Path("d/STS/STSBenchmark/sts-dev.csv").write_text("\n".join(rows))
    files = {
        "encode": ["bundled", "t.txt", "--output", "v"],
        "cluster": ["bundled", "t.txt", "--output", "c.csv"],
        "eval": ["bundled", "--tasks", "stsb-dev", "--data-dir", "d"],
        "train": ["--data", "t.txt", "--output", "r", "--dev", "none"],
    }[command[0]]
    more = command[1:] if command[0] != "train" else []
    first = command[:2] if command[0] == "train" else command[:1]
    for length in ("2", "0", "-5"):
        assert main([*first, *files, *more, "--max-length", length]) == 2
        said = "max_length 2 leaves none for a text" if length == "2" else "--max-length must be a whole number"
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("t.txt", "d")] in ([], ["r"])
