"""A corpus is tokenised once: the same batches, whatever the method; and nobody takes the tokens of another."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, SimCSE
from textcl.encoder import Encoder
from textcl.encoder.backbone import add_token
from textcl.methods import METHODS
from textcl.tokenising import token_ids

PAIRS = {"text": TEXTS[:40], "positive": ["", *TEXTS[41:80]], "negative": TEXTS[80:120]}
LONG = {"text": [" ".join(TEXTS[row : row + 20]) for row in range(16)]}
VIEWS = {"text": TEXTS[:40], "text_1": TEXTS[40:80], "text_2": TEXTS[80:120]}
CASES = {
    "plain": ("simcse", {"text": TEXTS[:40]}, {}),
    "triplets": ("simcse", PAIRS, {}),
    "masked words": ("simcse", {"text": TEXTS[:40]}, {"mlm_weight": 0.1}),
    "views of text": ("simclr", VIEWS, {}),
    "token operators": ("clear", {"text": TEXTS[:40]}, {"first_view": "word_deletion", "second_view": "reordering"}),
    "two templates": (
        "simcse-plus",
        {"text": TEXTS[:40]},
        {"template": "{text} means this", "second_template": "of {text} it is said"},
    ),
    "pairs of towers": ("bert-ct", {"text": TEXTS[:40]}, {}),
    "spans": ("declutr", LONG, {"shortest_span": 3, "longest_span": 8}),
    "explicit views": ("sccl", VIEWS, {"clusters": 4}),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("token_cache") / "tiny")


def no_tokenizer(*args):
    raise AssertionError("the tokenizer was asked")


def rows_of(dataset, count: int = 16) -> list[dict]:
    return [dataset[row] for row in range(count)]


@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_the_texts(directory, tmp_path, monkeypatch, case):
    name, columns, options = CASES[case]
    method = METHODS[name](Encoder.from_pretrained(directory, max_length=24), **options)
    dataset = method.prepare_corpus(Dataset.from_dict(columns))
    expected = method.collator(seed=3)(rows_of(dataset))
    kept = method.collator(seed=3).tokenized(dataset, tmp_path)
    monkeypatch.setattr("textcl.collator.collator.token_ids", no_tokenizer)
    monkeypatch.setattr("textcl.views.template.Template.__call__", no_tokenizer)
    assert method.collator(seed=3).tokenized(dataset, tmp_path).to_dict() == kept.to_dict()
    found = method.collator(seed=3)(rows_of(kept))
    assert found.keys() == expected.keys()
    for entry, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[entry]), np.asarray(value), err_msg=entry)
    assert list(kept["text"]) == list(dataset["text"])


def test_the_next_run_finds_them(directory, tmp_path, monkeypatch):
    dataset = Dataset.from_dict(PAIRS)
    first = SimCSE(Encoder.from_pretrained(directory, max_length=24)).collator().tokenized(dataset, tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 3
    encoder = Encoder.from_pretrained(directory, max_length=24)
    encoder.encode(TEXTS[:3])  # which leaves something behind in a tokenizer
    encoder.tokenizer(TEXTS[:3], padding="max_length", max_length=9, truncation=True)
    monkeypatch.setattr("textcl.collator.collator.token_ids", no_tokenizer)
    second = SimCSE(encoder).collator().tokenized(dataset, tmp_path)
    assert second.to_dict() == first.to_dict()
    assert second.column_names == [*PAIRS, *second.column_names[3:]]
    assert SimCSE(encoder).collator().tokenized(second, tmp_path) is second


def test_what_changes_tokens_has_a_file_of_its_own(directory, tmp_path):
    def tokens(texts: list[str], max_length: int = 24, change=lambda encoder: None) -> list:
        encoder = Encoder.from_pretrained(directory, max_length=max_length)
        change(encoder)
        collator = SimCSE(encoder).collator()
        kept = collator.tokenized(Dataset.from_dict({"text": texts}), tmp_path)
        assert kept[kept.column_names[-1]] == token_ids(encoder.tokenizer, texts, max_length)
        return kept.column_names

    def left(encoder: Encoder) -> None:
        encoder.tokenizer.truncation_side = "left"

    texts = TEXTS[:20]
    names = [
        tokens(texts),
        tokens(texts, max_length=4),
        tokens(texts, max_length=4, change=left),
        tokens(texts, change=lambda encoder: add_token(encoder.backbone, encoder.tokenizer, "[DEL]")),
    ]
    assert len({tuple(each) for each in names}) == 4
    assert len(list(tmp_path.glob("*.arrow"))) == 4
    other = [*texts[:-1], texts[-1] + " today"]
    assert tokens(other) == tokens(texts[::-1]) == names[0]
    assert len(list(tmp_path.glob("*.arrow"))) == 6
    tokens(["one", "day", "today"])
    tokens(["oned", "ay", "today"])  # where one text ends is a part of it
    assert len(list(tmp_path.glob("*.arrow"))) == 8


def test_tokens_of_another_encoder_are_passed_over(directory, tmp_path):
    dataset = Dataset.from_dict({"text": TEXTS[:8]})
    long = SimCSE(Encoder.from_pretrained(directory, max_length=24)).collator().tokenized(dataset, tmp_path)
    short = SimCSE(Encoder.from_pretrained(directory, max_length=4)).collator()
    assert short(rows_of(long, 8))["input_ids"].shape[1] == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "no Arrow", "other rows", "one bit of a token", "zeros", "no seal"])
def test_a_file_that_was_damaged_is_made_again(directory, tmp_path, damage):
    collator = SimCSE(Encoder.from_pretrained(directory, max_length=24)).collator()
    dataset = Dataset.from_dict({"text": TEXTS * 10})
    expected = collator.tokenized(dataset, tmp_path).to_dict()
    (path,) = tmp_path.glob("*.arrow")
    whole = path.read_bytes()
    if damage == "other rows":
        other = tmp_path / "other"
        collator.tokenized(dataset.select(range(9)), other)
        (less,) = other.glob("*.arrow")
        whole = less.read_bytes()
    place = whole.index(np.array(expected[list(expected)[-1]][7], np.int32).tobytes())  # the tokens of the eighth text
    damaged = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "no Arrow": b"x" * 500,
        "one bit of a token": whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :],
        "zeros": whole[:place] + bytes(64) + whole[place + 64 :],
    }
    path.write_bytes(damaged.get(damage, whole))
    if damage == "no seal":
        path.with_suffix(".json").unlink()
    assert collator.tokenized(dataset, tmp_path).to_dict() == expected
    assert sorted(each.suffix for each in tmp_path.iterdir() if each.is_file()) == [".arrow", ".json"]


def test_where_nothing_can_be_written_training_goes_on(directory, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    dataset = Dataset.from_dict({"text": TEXTS[:8]})
    collator = SimCSE(Encoder.from_pretrained(directory)).collator()
    with caplog.at_level(logging.WARNING, logger="textcl"):
        assert collator.tokenized(dataset, tmp_path / "file") is dataset
    assert "Tokens cannot be saved to a file" in caplog.text
    rows = [{"text": text} for text in TEXTS[:8]]
    assert collator.tokenized(rows, tmp_path) is rows


def test_a_training_run_asks_the_tokenizer_once(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def train(dataset, name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        method = SimCSE(Encoder.from_pretrained(directory, dropout=0.1))
        options = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "save_strategy": "no"}
        args = ContrastiveTrainingArguments(tmp_path / name, **options, dataloader_num_workers=2)
        trainer = ContrastiveTrainer(method, args, dataset)
        if name == "kept":
            monkeypatch.setattr("textcl.collator.collator.token_ids", no_tokenizer)
        trainer.train()
        return method.state_dict()

    expected = train([{"text": text} for text in TEXTS[:80]], "batch by batch")
    found = train(Dataset.from_dict({"text": TEXTS[:80]}), "kept")
    assert list((tmp_path / "cache" / "textcl" / "tokens").iterdir())
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
