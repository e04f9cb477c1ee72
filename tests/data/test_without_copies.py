"""Rows that repeat an earlier one are left out before training if the user asks: which ones, and what is said."""

import logging
from pathlib import Path

import pytest

from textcl.data.arrow_files import ROWS
from textcl.data.corpora import load_labelled, load_texts, load_triplets, repeats_earlier
from textcl.data.training import training_rows
from textcl.errors import InputError


def test_a_row_repeats_another_if_all_its_texts_and_its_label_do() -> None:
    texts = load_texts(["A cat.", "a  CAT.", "A dog.", "A cat", "A dog."])
    assert repeats_earlier(texts).tolist() == [False, True, False, False, True]
    rows = [{"a": "x", "b": "y"}, {"a": "X", "b": "y "}, {"a": "x", "b": "z"}, {"a": "y", "b": "x"}]
    assert repeats_earlier(load_triplets(rows, columns=("a", "b"))).tolist() == [False, True, False, False]
    labelled = [{"text": "x", "label": 0}, {"text": "x", "label": 1}, {"text": "X", "label": 1}]
    assert repeats_earlier(load_labelled(labelled)).tolist() == [False, False, True]


def test_training_leaves_them_out_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "some.txt").write_text("A cat.\na  CAT.\nA dog.\nA cat\nA dog.\n")
    rows = training_rows(tmp_path / "some.txt", dedup=True)
    assert rows["text"][:] == ["A cat.", "A dog.", "A cat"]
    assert caplog.messages[-1] == "dedup: 2 rows were left out that repeat earlier ones."
    caplog.clear()
    (tmp_path / "none.txt").write_text("a\nb\n")
    with caplog.at_level(logging.INFO, "textcl"):
        assert training_rows(tmp_path / "none.txt", dedup=True)["text"][:] == ["a", "b"]
    assert caplog.messages == []


def test_repeats_behind_the_first_window_are_left_out_too(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(ROWS + 100)]
    again = [texts[3], texts[ROWS + 5]]
    (tmp_path / "many.txt").write_text("\n".join([*texts[:7], texts[2], *texts[7:], *again]) + "\n")
    assert training_rows(tmp_path / "many.txt", dedup=True)["text"][:] == texts


def test_columns_of_simcse_are_pairs_only_with_a_positive(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sent0,sent1\na,b\nc,d\n")
    assert training_rows(tmp_path / "a.csv").column_names == ["text", "positive"]
    (tmp_path / "b.csv").write_text("sent0,hard_neg\na,b\nc,d\n")
    with pytest.raises(InputError, match="name the column to read"):  # a negative must not be trained as a positive
        training_rows(tmp_path / "b.csv")


def test_one_text_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "same.txt").write_text("a cat\nA CAT\na  cat\n")
    assert len(training_rows(tmp_path / "same.txt")) == 3
    with pytest.raises(InputError, match="All rows are equal but for case and spaces"):
        training_rows(tmp_path / "same.txt", dedup=True)
