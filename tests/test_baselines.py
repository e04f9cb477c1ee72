"""TF-IDF and mean word vectors: exact on toy input, and worth what they should be on STS-B."""

import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from textcl.encoder import Encoder
from textcl.evaluation import MeanWordVectors, TfidfEncoder, evaluate

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
