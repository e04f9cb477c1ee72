"""Rows that repeat an earlier one are left out before training if the user asks: which ones, and what is said."""

import logging
from pathlib import Path

import pytest

from textcl.data.corpora import load_labelled, load_texts, load_triplets, without_copies
from textcl.data.training import training_rows
from textcl.errors import InputError


def test_a_row_repeats_another_if_all_its_texts_and_its_label_do(caplog: pytest.LogCaptureFixture) -> None:
    texts = without_copies(load_texts(["A cat.", "a  CAT.", "A dog.", "A cat", "A dog."]))
    assert texts["text"][:] == ["A cat.", "A dog.", "A cat"]
    assert caplog.messages[-1] == "dedup: 2 rows were left out that repeat earlier ones."
    rows = [{"a": "x", "b": "y"}, {"a": "X", "b": "y "}, {"a": "x", "b": "z"}, {"a": "y", "b": "x"}]
    assert without_copies(load_triplets(rows, columns=("a", "b")))["positive"][:] == ["y", "z", "x"]
    labelled = [{"text": "x", "label": 0}, {"text": "x", "label": 1}, {"text": "X", "label": 1}]
    kept = without_copies(load_labelled(labelled))
    assert kept["label"][:] == [0, 1]
    assert kept["text"][:] == ["x", "x"]


def test_nothing_changes_where_nothing_repeats(caplog: pytest.LogCaptureFixture) -> None:
    rows = load_texts(["a", "b"])
    with caplog.at_level(logging.INFO, "textcl"):
        assert without_copies(rows) is rows
    assert caplog.messages == []


def test_one_text_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "same.txt").write_text("a cat\nA CAT\na  cat\n")
    assert len(training_rows(tmp_path / "same.txt")) == 3
    with pytest.raises(InputError, match="All rows are equal but for case and spaces"):
        training_rows(tmp_path / "same.txt", dedup=True)
