"""Classes are numbered once, by type and value, and a missing label is never one of them."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from support.tiny import HashedWords

from textcl import Clustering, InputError, Transfer
from textcl.data import load_labelled
from textcl.metrics.clustering import adjusted_rand_index, clustering_accuracy, normalized_mutual_information
from textcl.metrics.labels import number_labels

MISSING = ["", "  ", None, float("nan"), np.float32("nan"), pd.NA, pd.NaT]
WORDS = [f"{animal} {n}" for n in range(15) for animal in ("cat cat cat", "car car car")]


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (["10", "9", "10"], [1, 0, 1], ["9", "10"]),  # words of digits are sorted by number
        ([1, "1", 1], [0, 1, 0], [1, "1"]),  # equal as text, of different types
        ([True, 1, 1.0, "x"], [0, 2, 1, 3], [True, 1.0, 1, "x"]),
        (np.array([2, 0, 2]), [1, 0, 1], [0, 2]),
        ([np.int64(1), 1], [0, 0], [1]),  # a scalar of numpy is the number it holds
        (torch.tensor([5, 4]), [1, 0], [4, 5]),
        (pd.Series(["x", "y"], index=[3, 3]), [0, 1], ["x", "y"]),
        ([" a", "a "], [0, 0], ["a"]),
        ([0.5, 0.25], [1, 0], [0.25, 0.5]),
        (["9" * 5000, "10"], [1, 0], ["10", "9" * 5000]),  # too long for a number: sorted as words
    ],
)
def test_classes_are_numbered_by_type_and_value(labels: Any, numbers: list[int], classes: list[Any]) -> None:
    assert number_labels(labels) == (numbers, classes)


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_a_missing_label_is_refused_with_its_row_everywhere(missing: Any) -> None:
    labels = ["cat", "car", missing, *["cat", "car"] * 13, "cat"]
    for take in (
        number_labels,
        lambda labels: Clustering({"mine": (WORDS, labels)}),
        lambda labels: Transfer({"mine": (WORDS, labels)}),
        lambda labels: clustering_accuracy(labels, [0, 1] * 15),
        lambda labels: normalized_mutual_information(labels, [0, 1] * 15),
        lambda labels: adjusted_rand_index([0, 1] * 15, labels),
    ):
        with pytest.raises(InputError, match="row 3: the label is missing"):
            take(labels)


def test_labels_that_are_neither_words_nor_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="row 2: a label must be a word or a number, not a list"):
        number_labels(["a", ["b"]])
    with pytest.raises(InputError, match="one dimension"):
        number_labels(np.zeros((2, 2)))
    with pytest.raises(InputError, match="must be several texts"):
        number_labels("ab")


def test_one_and_the_word_one_are_two_classes_for_clusters_and_scores() -> None:
    labels: list[Any] = [1 if row % 2 else "1" for row in range(30)]
    scores = Clustering({"mine": (WORDS, labels)})(HashedWords()).results["mine"]
    assert (scores["accuracy"], round(scores["nmi"], 6), scores["ari"]) == (100, 100, 100)  # two pure clusters
    assert clustering_accuracy(labels, [0, 1] * 15) == 1


def test_float_labels_are_classes_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clustering_accuracy([0.0, 1.5, 0.0], [2, 1, 2]) == 1
        assert normalized_mutual_information([0.0, 1.5, 0.0], [2, 1, 2]) == pytest.approx(1)


def files(folder: Path) -> list[Path]:
    """The same four rows in each format; the second has no label."""
    (folder / "a.csv").write_text("text,label\na b c,x\nd e f,\ng h i,y\nj k l,x\n")
    (folder / "a.tsv").write_text("text\tlabel\na b c\tx\nd e f\t\ng h i\ty\nj k l\tx\n")
    (folder / "a.jsonl").write_text(
        '{"text": "a b c", "label": "x"}\n{"text": "d e f", "label": null}\n{"text": "g h i", "label": "y"}\n'
        '{"text": "j k l", "label": "x"}\n'
    )
    table = {"text": ["a b c", "d e f", "g h i", "j k l"], "label": ["x", None, "y", "x"]}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "a.parquet")
    return [folder / f"a.{suffix}" for suffix in ("csv", "tsv", "jsonl", "parquet")]


def test_rows_without_a_label_are_refused_or_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path, where in zip(files(tmp_path), ("line 3", "line 3", "line 2", "row 2"), strict=True):
        with pytest.raises(InputError, match=rf"{path.name}, {where}: the label is missing.*--drop-unlabelled"):
            load_labelled(path)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="textcl"):
            rows = load_labelled(path, drop_unlabelled=True)
        assert rows.to_dict() == {"text": ["a b c", "g h i", "j k l"], "label": [0, 1, 0]}
        assert caplog.messages == [f"{path}: 1 row without a label was dropped."]


def test_labels_that_are_not_a_number_in_pandas_and_minus_one_in_named_classes_are_missing() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1, None, 0]})  # pandas turns this column into floats
    with pytest.raises(InputError, match="the DataFrame, row 2: the label is missing"):
        load_labelled(frame)
    assert load_labelled(frame, drop_unlabelled=True)["label"][:] == [1, 0]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    named = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0]}, features=features)
    with pytest.raises(InputError, match="the dataset, row 2: the label is missing"):
        load_labelled(named)
    assert load_labelled(named, drop_unlabelled=True)["label"][:] == [1, 0]
    numbers = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0]})  # here -1 is a number like others
    assert load_labelled(numbers)["label"][:] == [2, 0, 1]


def test_labels_that_are_lists_name_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": [1]}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: a label must be a word or a number, not a list"):
        load_labelled(path)


def test_the_order_of_rows_does_not_number_words_of_equal_value():
    assert number_labels(["1", "01"])[1] == number_labels(["01", "1"])[1] == ["01", "1"]
