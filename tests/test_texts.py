"""What is taken as texts wherever they come in from Python, and which row a refusal names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl import Clustering, Encoder, InputError, LabelFree, Retrieval, Transfer, evaluate
from textcl.adaptation.corpus import read_corpus
from textcl.data.corpora import repeats_earlier
from textcl.data.overlap import fingerprint
from textcl.evaluation import cluster_texts
from textcl.evaluation.baselines import MeanWordVectors, TfidfEncoder, whitening
from textcl.texts import as_texts, bare
from textcl.vectors.encode import BatchEncoder, encode_corpus
from textcl.vectors.shards import read_manifest
from textcl.views.text import augment
from textcl.views.words import crop, deletion, swap

SURROGATE = "caf\udce9"  # what Python makes of a byte that is not UTF-8 on the command line


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("texts") / "tiny")


@pytest.fixture(scope="module")
def encoder(directory: Path) -> Encoder:
    return Encoder.from_pretrained(directory, max_length=16)


def kinds() -> list[Any]:
    texts = TEXTS[:3]
    dataset = Dataset.from_dict({"text": texts})
    return [
        texts,
        tuple(texts),
        np.array(texts),
        np.array(texts, dtype=object),
        pd.Series(texts, index=[7, 7, 3]),
        dataset["text"],
        DatasetDict({"train": dataset})["train"]["text"],
        (text for text in texts),
        dict.fromkeys(texts).keys(),
    ]


def test_every_kind_of_collection_gives_the_same_vectors(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS[:3])
    for kind in kinds()[:8]:
        np.testing.assert_array_equal(encoder.encode(kind), expected)
    np.testing.assert_array_equal(encoder.encode(np.str_(TEXTS[0])), expected[0])
    assert encoder.encode([]).shape == (0, 32)


@pytest.mark.parametrize("number", range(8))
def test_every_kind_of_collection_becomes_plain_strings(number: int) -> None:
    texts = as_texts(kinds()[number])
    assert texts == TEXTS[:3]
    assert {type(text) for text in texts} == {str}


@pytest.mark.parametrize("bad", [None, float("nan"), np.nan, pd.NA, 3, True, b"bytes", ["a list"], SURROGATE, "\ud800"])
def test_the_row_that_is_not_a_text_is_named(encoder: Encoder, bad: Any) -> None:
    rows = ["a cat", "a dog", bad]
    for encode in (encoder.encode, TfidfEncoder(["a cat"]).encode, MeanWordVectors(encoder).encode):
        with pytest.raises(InputError, match=r"row 3: the (value must be a text, not|text holds half of a surrogate)"):
            encode(rows)
    for view in (deletion, swap, crop):
        with pytest.raises(InputError, match="row 3: the"):
            view(rows)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pd.DataFrame({"text": ["a", "b"], "n": [1, 2]}), "a DataFrame has the columns 'text', 'n', and one column"),
        (Dataset.from_dict({"text": ["a"]}), "a Dataset has the columns 'text', and one column is needed"),
        (DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}), "a DatasetDict has the splits 'train'"),
        ({"text": ["a", "b"]}, "a dict has the columns 'text'"),
        ({"a", "b"}, "must be a list, .* not a set"),
        (None, "must be a list, .* not None"),
        (3, "must be a list, .* not an int"),
        (b"bytes", "must be several texts, not a single bytes"),
        (np.array([["a", "b"]]), "not an array with several dimensions"),
        (np.array("a"), "must be a list"),
    ],
)
def test_what_is_no_collection_of_texts_is_refused(encoder: Encoder, source: Any, message: str) -> None:
    for take in (encoder.encode, deletion, TfidfEncoder, LabelFree, encoder.weigh_tokens):
        with pytest.raises(InputError, match=message):
            take(source)
    with pytest.raises(InputError, match=message):
        cluster_texts(encoder, source, 2)
    with pytest.raises(InputError, match=message):
        whitening(encoder, source)


def test_one_text_is_not_taken_for_its_letters() -> None:
    for take in (deletion, swap, crop, TfidfEncoder, LabelFree):
        with pytest.raises(InputError, match="must be several texts, not a single str"):
            take("a huge dog")  # type: ignore[operator]


def test_half_of_a_surrogate_pair_is_refused_in_prompts(encoder: Encoder) -> None:
    for prompt in (SURROGATE, "{text} " + SURROGATE):
        with pytest.raises(InputError, match=r"The prompt: the text holds half of a surrogate pair"):
            encoder.encode(["a cat"], prompt=prompt)


def test_evaluators_check_their_texts_before_anything_is_encoded() -> None:
    texts, labels = [*TEXTS[:11], None], [0, 1] * 6
    makers: list[Callable[[], Any]] = [
        lambda: Clustering({"mine": (texts, labels)}),
        lambda: Transfer({"mine": (texts, labels)}),
        lambda: LabelFree(texts),
    ]
    for make in makers:
        with pytest.raises(InputError, match="row 12: the value must be a text, not None"):
            make()
    with pytest.raises(InputError, match="The document 'd': the value must be a text, not a missing value"):
        Retrieval({"q": "a"}, {"d": float("nan")}, {"q": {"d": 1}})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="The query 'q': the text holds half"):
        Retrieval({"q": SURROGATE}, {"d": "a"}, {"q": {"d": 1}})


def test_a_model_that_is_none_is_refused() -> None:
    for model in (None, 3, ["bundled"]):
        with pytest.raises(InputError, match="The model must be a name, a path or an object with `encode`"):
            evaluate(model)


def test_a_corpus_without_a_word_has_no_frequencies() -> None:
    for corpus in ([], ["", " "]):
        with pytest.raises(InputError, match="has no word"):
            TfidfEncoder(corpus)


def test_batches_of_columns_name_what_is_wrong(directory: Path) -> None:
    encode = BatchEncoder(str(directory), column="body", dtype="float32")
    batch = {"body": np.array(["a cat", None], dtype=object)}
    with pytest.raises(InputError, match="The column 'body', row 2: the value must be a text, not None"):
        encode(batch)
    with pytest.raises(InputError, match="The batch has no column 'body'; its columns are 'text'"):
        encode({"text": np.array(["a"])})
    assert encode({"body": np.array(["a cat", "a dog"])})["vector"].shape == (2, 32)


def test_text_views_are_made_of_a_dataset_without_a_transform() -> None:
    dataset = Dataset.from_dict({"text": TEXTS[:4]})
    for source, message in (
        (TEXTS[:4], "not for a list"),
        (DatasetDict({"train": dataset}), "not for a DatasetDict"),
        (dataset.with_transform(lambda batch: batch), "not for a dataset with a transform"),
    ):
        with pytest.raises(InputError, match=message):
            augment(source, "deletion")  # type: ignore[arg-type]


def test_clusters_of_a_series_are_those_of_a_list() -> None:
    found = cluster_texts(HashedWords(), pd.Series(TEXTS[:20]), 3)
    expected = cluster_texts(HashedWords(), TEXTS[:20], 3)
    assert found.texts == expected.texts
    np.testing.assert_array_equal(found.clusters, expected.clusters)


def test_names_that_are_not_utf8_are_kept_for_a_corpus_and_refused_for_vectors(
    encoder: Encoder, tmp_path: Path
) -> None:
    corpus = tmp_path / f"{SURROGATE}.txt"
    corpus.write_text("a cat\na dog\n")
    assert encode_corpus(encoder, corpus, tmp_path / "vectors").is_dir()
    assert read_manifest(tmp_path / "vectors")["corpus"]["name"] == str(corpus)
    with pytest.raises(InputError, match="The name of the output: the text holds half of a surrogate pair"):
        encode_corpus(encoder, corpus, tmp_path / SURROGATE)
    assert not (tmp_path / SURROGATE).exists()


def test_a_letter_with_its_accent_is_one_character_or_two() -> None:
    """A Mac writes "é" as two characters, e and its accent; Unicode calls both forms equal."""
    one, two = "Café MÜNCHEN", "Cafe\u0301 mu\u0308nchen"
    assert bare(one) == bare(two)
    assert fingerprint(one) == fingerprint(two) != fingerprint("Cafe munchen")
    corpus = read_corpus([one, two, "another text"])
    assert (len(corpus), corpus.repeated) == (2, 1)
    assert repeats_earlier(Dataset.from_dict({"text": [one, two, "a", "b"]})).tolist() == [False, True, False, False]
