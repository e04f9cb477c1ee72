"""Averages in which frequent tokens count less: the weights, the pooling, the export, and where a run has them from."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from support.tiny import TEXTS, tiny_encoder_directory
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from textcl import Encoder, InputError, smooth_inverse_frequency
from textcl.evaluation import whitening
from textcl.runs.compare import compare
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("model") / "bert")


def weighted(bert: Path, pooling: str, a: float = 0.01) -> Encoder:
    encoder = Encoder.from_pretrained(bert, pooling=pooling)
    encoder.token_weights = smooth_inverse_frequency(encoder.tokenizer, TEXTS, a)
    return encoder


def test_the_weights_are_those_of_the_paper(bert: Path) -> None:
    tokenizer = Encoder.from_pretrained(bert).tokenizer
    found = smooth_inverse_frequency(tokenizer, iter(TEXTS), 0.01)
    counts = Counter(token for text in TEXTS for token in tokenizer.tokenize(text, add_special_tokens=True))
    total = sum(counts.values())
    assert counts["[CLS]"] == len(TEXTS)
    for token, index in tokenizer.get_vocab().items():
        assert float(found[index]) == pytest.approx(0.01 / (0.01 + counts[token] / total), rel=1e-6)
    assert float(found[tokenizer.mask_token_id]) == 1.0
    half = smooth_inverse_frequency(tokenizer, TEXTS, counts["the"] / total)[tokenizer.get_vocab()["the"]]
    assert float(half) == pytest.approx(0.5)


def test_the_corpus_is_counted_window_by_window(bert: Path) -> None:
    tokenizer = Encoder.from_pretrained(bert).tokenizer
    many = TEXTS * 40  # more than one window
    assert torch.allclose(smooth_inverse_frequency(tokenizer, many), smooth_inverse_frequency(tokenizer, TEXTS))


@pytest.mark.parametrize("pooling", ["mean", "first_last", "last2"])
def test_an_average_is_weighted(bert: Path, pooling: str) -> None:
    encoder = weighted(bert, pooling).double()
    texts = [TEXTS[0], "today", TEXTS[1] + " " + TEXTS[2]]
    found = encoder.encode(texts)
    layers = {"mean": (-1,), "first_last": (1, -1), "last2": (-2, -1)}[pooling]
    for text, vector in zip(texts, found, strict=True):
        tokens = encoder.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder.backbone(**tokens, output_hidden_states=True).hidden_states
        total, weights = torch.zeros(32, dtype=torch.float64), 0.0
        for place, token in enumerate(tokens["input_ids"][0].tolist()):
            weight = float(encoder.token_weights[token])
            total += weight * sum(hidden[layer][0, place] for layer in layers) / len(layers)
            weights += weight
        assert np.allclose(vector, (total / weights).numpy(), rtol=0, atol=1e-12)


def test_equal_weights_change_nothing_and_others_do(bert: Path) -> None:
    plain = Encoder.from_pretrained(bert, pooling="mean")
    before = plain.encode(TEXTS[:8])
    plain.token_weights = torch.full((len(plain.tokenizer),), 0.25)
    assert np.abs(plain.encode(TEXTS[:8]) - before).max() < 1e-6
    assert np.abs(weighted(bert, "mean").encode(TEXTS[:8]) - before).max() > 1e-3


@pytest.mark.parametrize("pooling", ["cls", "pooler", "max", "last_token"])
def test_what_is_no_average_is_not_weighted(bert: Path, pooling: str, tmp_path: Path) -> None:
    plain, encoder = Encoder.from_pretrained(bert, pooling=pooling), weighted(bert, pooling)
    if pooling == "pooler":
        encoder.head.load_state_dict(plain.head.state_dict())
    assert np.array_equal(encoder.encode(TEXTS[:8]), plain.encode(TEXTS[:8]))
    assert "token_weights" not in encoder.describe()
    assert not list(encoder.save(tmp_path / "out").glob("*WordWeights"))


@pytest.mark.parametrize("pooling", ["mean", "first_last", "last2"])
def test_the_export_is_the_same_in_sentence_transformers(bert: Path, pooling: str, tmp_path: Path) -> None:
    encoder = weighted(bert, pooling)
    texts = [*TEXTS[:16], "", "unknown 東京 words"]
    own = encoder.encode(texts)
    encoder.save(tmp_path / "out")
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts)
    assert np.abs(own - theirs).max() <= 1e-6
    loaded = Encoder.from_pretrained(tmp_path / "out")
    assert np.array_equal(loaded.encode(texts), own)
    assert loaded.fingerprint() == encoder.fingerprint()
    assert loaded.describe()["token_weights"] == "by token"
    assert encoder.fingerprint() != Encoder.from_pretrained(bert, pooling=pooling).fingerprint()


def test_what_textcl_alone_can_load_keeps_them(bert: Path, tmp_path: Path) -> None:
    encoder = weighted(bert, "mean")
    encoder.prompts = {"query": "the {text} today"}
    encoder.save(tmp_path / "out")
    loaded = Encoder.from_pretrained(tmp_path / "out")
    assert np.array_equal(loaded.encode(TEXTS[:8]), encoder.encode(TEXTS[:8]))


def test_another_pooling_behind_them_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = weighted(bert, "mean").save(tmp_path / "out")
    config = next(folder.glob("*_Pooling")) / "config.json"
    text = config.read_text().replace('"pooling_mode_mean_tokens": true', '"pooling_mode_mean_tokens": false')
    config.write_text(text.replace('"pooling_mode_max_tokens": false', '"pooling_mode_max_tokens": true'))
    with pytest.raises(InputError, match="weighs tokens and then pools with max"):
        Encoder.from_pretrained(folder)


def test_whitening_comes_behind_them(bert: Path) -> None:
    encoder = weighted(bert, "mean")
    rows = whitening(encoder, TEXTS, 8).encode(TEXTS)
    assert np.abs(np.cov(rows.T) - np.eye(8)).max() < 1e-3


@pytest.mark.parametrize("a", [0.0, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(bert: Path, a: float) -> None:
    with pytest.raises(InputError, match="positive number"):
        smooth_inverse_frequency(Encoder.from_pretrained(bert).tokenizer, TEXTS, a)


def test_no_text_is_refused(bert: Path) -> None:
    with pytest.raises(InputError, match="there is no text"):
        smooth_inverse_frequency(Encoder.from_pretrained(bert).tokenizer, [])


def a_run(bert: Path, folder: Path, **flags: object) -> Encoder:
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    recipe = {"method": "simcse", "model": str(bert), "data": str(corpus), "output": str(folder / "run"), "dev": "none",
              "max_steps": 2, "per_device_train_batch_size": 8, "smooth_inverse_frequency": 0.01, **flags}  # fmt: skip
    return Encoder.from_pretrained(run_recipe(resolve(recipe)[0]).export)


def test_a_run_weighs_by_its_own_training_texts(bert: Path, tmp_path: Path) -> None:
    exported = a_run(bert, tmp_path, pooling="cls", test_pooling="first_last", limit=100)
    expected = smooth_inverse_frequency(exported.tokenizer, TEXTS[:100], 0.01)
    assert exported.pooling == "first_last"
    assert torch.equal(exported.token_weights, expected)
    assert not torch.equal(expected, smooth_inverse_frequency(exported.tokenizer, TEXTS, 0.01))


def test_held_out_texts_are_not_counted(bert: Path, tmp_path: Path) -> None:
    exported = a_run(bert, tmp_path, pooling="mean", dev="halves", held_out=20)
    assert torch.equal(exported.token_weights, smooth_inverse_frequency(exported.tokenizer, TEXTS[:-20], 0.01))


def test_a_run_with_no_average_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--smooth-inverse-frequency .* pooling cls is not an average"):
        a_run(bert, tmp_path, pooling="cls")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_untouched_encoder_with_weights_is_a_baseline(
    bert: Path, few_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    recipe = tmp_path / "one.yaml"
    recipe.write_text(f"method: simcse\nmodel: {bert}\ndata: {corpus}\ndev: none\nmax_steps: 1\npooling: mean\n"
                      "per_device_train_batch_size: 4\nsmooth_inverse_frequency: 0.02\n")  # fmt: skip
    lines, failures = compare([recipe], tmp_path / "out", seeds=1, baselines=["untouched", "sif"], tasks=["STS16"])
    assert not failures
    settings = {line["row"]: line["provenance"]["encoder"].get("token_weights") for line in lines}
    assert settings == {"untouched": None, "sif": "by token", "one": "by token"}
    assert len({line["average"] for line in lines}) == 3


@pytest.mark.parametrize("pooling", ["mean", "first_last"])
def test_weights_grow_when_a_view_adds_a_token(bert: Path, pooling: str) -> None:
    """The new token has weight 1, that of a token which never occurs, and rows that hold it can be embedded."""
    encoder = weighted(bert, pooling)
    before, rows = encoder.token_weights.clone(), encoder.word_embeddings.weight.detach().clone()
    views = encoder.prepare_views("word_deletion", "word_deletion+reordering")
    new = encoder.tokenizer.convert_tokens_to_ids("[DEL]")
    assert new == len(rows)
    torch.testing.assert_close(encoder.token_weights, torch.cat([before, torch.ones(1)]))
    torch.testing.assert_close(encoder.word_embeddings.weight[new], rows.mean(dim=0))
    tokens = encoder.tokenize([f"{TEXTS[0]} [DEL]", TEXTS[1]])
    assert (tokens["input_ids"] == new).any()
    assert torch.isfinite(encoder.embed({**tokens, "view": torch.tensor([0, 1])}, views=views)).all()


def test_frequencies_of_a_vocabulary_with_gaps_are_counted_by_number(tmp_path: Path) -> None:
    """[DEL] would take a number in use there, which is refused."""
    encoder = with_gap(tmp_path)
    encoder.weigh_tokens(["a b", "b"], 0.5)
    shares = {"[UNK]": 0, "a": 1 / 3, "b": 2 / 3}
    assert len(encoder.token_weights) == 4
    for word, number in encoder.tokenizer.get_vocab().items():
        assert float(encoder.token_weights[number]) == pytest.approx(0.5 / (0.5 + shares[word]))
    assert np.isfinite(encoder.encode(["a b"])).all()
    again = Encoder.from_pretrained(encoder.save(tmp_path / "export"))
    np.testing.assert_allclose(again.encode(["a b"]), encoder.encode(["a b"]), atol=1e-6)
    with pytest.raises(InputError, match=r"\[DEL\] cannot be added: the vocabulary of this tokenizer has gaps"):
        encoder.prepare_views("word_deletion")
    assert "[DEL]" not in encoder.tokenizer.get_vocab()


def test_weights_for_a_part_of_the_vocabulary_are_refused(bert: Path) -> None:
    encoder = Encoder.from_pretrained(bert)
    with pytest.raises(InputError, match="weighs 5 tokens, but its vocabulary has"):
        Encoder(encoder.backbone, encoder.tokenizer, token_weights=torch.ones(5))


def with_gap(path: Path) -> Encoder:
    """An encoder whose three words have the numbers 0, 2 and 3."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 2, "b": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", model_max_length=32).save_pretrained(path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=8, **sizes)).save_pretrained(path)
    return Encoder.from_pretrained(path)
