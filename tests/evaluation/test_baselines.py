"""TF-IDF, mean word vectors and whitening: exact on toy input, and worth what they should be on STS-B."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from support.tiny import TEXTS, tiny_encoder_directory
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import MeanWordVectors, TfidfEncoder, evaluate, whitening

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "sleeps", "barks"]


def test_tfidf_by_hand() -> None:
    encoder = TfidfEncoder(["a cat sleeps", "a dog barks", "a cat ."])
    rows = encoder.encode(["A cat cat .", "unknown words"])
    weights = {"a": 1 + math.log(4 / 4), "cat": (1 + math.log(4 / 3)) * (1 + math.log(2)), ".": 1 + math.log(4 / 2)}
    length = math.sqrt(sum(weight**2 for weight in weights.values()))
    assert sorted(rows[0].data) == pytest.approx(sorted(weight / length for weight in weights.values()))
    assert rows.shape == (2, 6)  # a cat sleeps dog barks .
    assert rows[1].nnz == 0
    assert encoder.describe()["corpus_texts"] == 3


def test_tfidf_on_real_pairs(evaluation_sets: Path) -> None:
    from textcl.data.sts import read_sts

    train = read_sts("STSBenchmark", evaluation_sets, "train")[0]
    result = evaluate(TfidfEncoder([*train.first, *train.second]), "stsb", data_dir=evaluation_sets)
    assert 60 < result.primary < 80
    assert result.provenance["encoder"]["model"] == "TF-IDF"


@pytest.fixture
def tiny() -> Encoder:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    special = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return Encoder(BertModel(config), tokenizer, pooling="cls", max_length=16, name="tiny")


def test_mean_word_vectors_are_the_mean_of_rows_of_the_table(tiny: Encoder) -> None:
    table = tiny.backbone.get_input_embeddings().weight.detach().numpy()
    rows = MeanWordVectors(tiny).encode(["cat sleeps", "dog", "", "cat cat dog"])
    cat, dog, sleeps = (table[WORDS.index(word)] for word in ("cat", "dog", "sleeps"))
    expected = [(cat + sleeps) / 2, dog, np.zeros(8), (2 * cat + dog) / 3]
    np.testing.assert_allclose(rows, expected, atol=1e-7)


def test_mean_word_vectors_see_no_order_and_no_context(tiny: Encoder) -> None:
    encoder = MeanWordVectors(tiny)
    np.testing.assert_allclose(*encoder.encode(["cat dog barks", "barks cat dog"]), atol=1e-7)
    assert encoder.encode([]).shape == (0, 8)
    many = ["cat", "dog"] * 1500  # several slices
    np.testing.assert_array_equal(encoder.encode(many)[-2:], encoder.encode(["cat", "dog"]))
    assert encoder.describe()["layers"] == "input embeddings"
    assert encoder.describe()["model"] == "tiny"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("whitening") / "model")


@pytest.mark.parametrize("dimensions", [None, 5])
def test_whitening_is_the_papers(bert: Path, dimensions: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 1 with plain sums; and mean 0, covariance I on the texts that it was fitted on, duplicates too."""
    monkeypatch.setattr("textcl.evaluation.baselines._WINDOW", 50)  # so that several windows are summed up
    encoder = Encoder.from_pretrained(bert)
    texts = [*TEXTS[:150], *TEXTS[:20]]
    rows = encoder.encode(texts).astype(np.float64)
    mean = sum(rows) / len(rows)
    covariance = sum(np.outer(row - mean, row - mean) for row in rows) / (len(rows) - 1)
    values, vectors = np.linalg.eigh(covariance)
    expected = (rows - mean) @ (vectors[:, ::-1] / np.sqrt(values[::-1]))[:, : dimensions or 31]
    whitened = whitening(encoder, iter(texts), dimensions)
    found = whitened.encode(texts)
    # BERT ends with a layer norm, behind which one direction of 32 is noise
    assert found.shape == (170, dimensions or 31) == (170, whitened.dimension)
    np.testing.assert_allclose(found * np.sign((found * expected).sum(axis=0)), expected, atol=1e-2)  # signs are free
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(found.T), np.eye(dimensions or 31), atol=1e-2)
    np.testing.assert_array_equal(encoder.encode(texts), rows.astype(np.float32))  # the encoder itself is as it was
    assert whitened.describe()["projection"] == "linear, from 32"
    assert "whitened on 170 texts" in whitened.describe()["model"]
    assert whitened.fingerprint() != encoder.fingerprint()


@pytest.mark.parametrize("pooling", ["mean", "pooler", "first_last", "mask_token"])
def test_whitening_is_exported_as_a_dense_layer(bert: Path, pooling: str, tmp_path: Path) -> None:
    prompts = {"default": "{text} means [MASK] ."} if pooling == "mask_token" else {}
    encoder = Encoder.from_pretrained(
        bert, pooling=pooling, prompts=prompts, default_prompt_name="default" if prompts else None
    )
    encoder.normalize = pooling == "mean"
    whitened = whitening(encoder, TEXTS, 10)
    whitened.save(tmp_path / "export")
    expected = whitened.encode(TEXTS)
    again = Encoder.from_pretrained(tmp_path / "export")
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    assert (again.dimension, again.pooling) == (10, pooling)
    if encoder.normalize:
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    if pooling != "mask_token":
        theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu")
        # the random pooler varies so little that whitening blows its rounding up
        np.testing.assert_allclose(theirs.encode(TEXTS), expected, atol=2e-3 if pooling == "pooler" else 1e-5)
        assert theirs.get_embedding_dimension() == 10


def test_linear_layers_of_sentence_transformers_load(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    linear = Dense(32, 7, bias=False, activation_function=torch.nn.Identity())
    tanh = Dense(32, 32)
    chains = [[tanh, linear], [linear, Dense(7, 7)], [tanh, Dense(32, 32)], [Dense(32, 7)]]
    if "use_residual" in inspect.signature(Dense).parameters:  # from sentence-transformers 6 on
        chains.append([Dense(32, 32, activation_function=torch.nn.Identity(), use_residual=True)])
    for number, layers in enumerate(chains):
        model = SentenceTransformer(
            modules=[Transformer(str(bert)), Pooling(32, pooling_mode="mean"), *layers], device="cpu"
        )
        model.save(str(tmp_path / str(number)))
        found = Encoder.from_pretrained(tmp_path / str(number)).encode(TEXTS[:20])
        np.testing.assert_allclose(found, model.encode(TEXTS[:20]), atol=1e-6)


def test_whitening_refuses_what_it_cannot_fit(bert: Path) -> None:
    encoder = Encoder.from_pretrained(bert)
    with pytest.raises(InputError, match=r"20 texts vary in 19 directions.* to 20 dimensions"):
        whitening(encoder, TEXTS[:20], 20)
    assert whitening(encoder, TEXTS[:20]).dimension == 19
    with pytest.raises(InputError, match="vary in 0 directions"):
        whitening(encoder, ["the same"] * 50)
    with pytest.raises(InputError, match=r"vary in 31 directions.* to 32 dimensions"):
        whitening(encoder, TEXTS, 32)
    with pytest.raises(InputError, match="fitted on 0 texts"):
        whitening(encoder, [])
    with pytest.raises(InputError, match="already ends with a linear layer"):
        whitening(whitening(encoder, TEXTS), TEXTS)


def test_compare_whitens_on_the_training_corpus(bert: Path, tmp_path: Path) -> None:
    from textcl.runs.compare import _baseline, _plan

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"method: simcse\nmodel: {bert}\ndata: {corpus}\nlimit: 100\npooling: cls\n")
    found = _baseline(next(_plan([recipe], 1, [], ["whitening:mean"])))
    expected = whitening(Encoder.from_pretrained(bert, pooling="mean"), TEXTS[:100])
    np.testing.assert_allclose(found.encode(TEXTS), expected.encode(TEXTS), atol=1e-3)
