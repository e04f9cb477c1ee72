"""Every column of texts in the rows changes the batch or is refused, in each method."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import METHODS
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS},
    "declutr": {"shortest_span": 1, "longest_span": 2, "anchors": 1},
    "sccl": {"clusters": 2},
    "consert, supervised": {"objective": "supervised"},
    "consert, joint": {"objective": "joint"},
    "consert, adversarial": {"objective": "joint", "second_view": "adversarial"},
}
COLUMNS = ["positive", "negative", "text_1", "text_2", "text_3"]
ROWS = [["positive"], ["positive", "negative"], ["text_1", "text_2"], ["text_1", "text_2", "text_3"]]
ROWS += [["positive", "text_1", "text_2"]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def made(directory: Path, case: str) -> Any:
    return METHODS[case.split(",")[0]](Encoder.from_pretrained(directory, device="cpu"), **OPTIONS[case])


def rows_of(columns: list[str], changed: str = "") -> dict[str, list[str]]:
    rows = {"text": TEXTS[:8]}
    for place, column in enumerate(COLUMNS, start=1):
        if column in columns:
            start = 8 * place + (100 if column == changed else 0)
            rows[column] = TEXTS[start : start + 8]
    return rows


def batch_of(method: Any, rows: dict[str, Any]) -> Any:
    """A batch as plain `transformers.Trainer` makes it."""
    prepared = method.prepare_corpus(Dataset.from_dict(rows)).to_list()
    return method.collator()(prepared)


@pytest.mark.parametrize("columns", ROWS, ids="+".join)
@pytest.mark.parametrize("case", OPTIONS)
def test_each_column_of_texts_changes_the_batch_or_is_refused(directory: Path, case: str, columns: list[str]) -> None:
    method, labels = made(directory, case), {}
    if method.takes_labels and "positive" in columns:
        labels = {"label": [0, 1] * 4}
    try:
        batch = batch_of(method, {**rows_of(columns), **labels})
    except InputError:
        return
    for column in columns:
        other = batch_of(method, {**rows_of(columns, changed=column), **labels})
        assert (
            batch["input_ids"].shape != other["input_ids"].shape or (batch["input_ids"] != other["input_ids"]).any()
        ), column


@pytest.mark.parametrize("case", ["bert-ct", "ct-in-batch", "declutr"])
def test_pairs_are_refused_where_only_single_texts_are_read(directory: Path, case: str, tmp_path: Path) -> None:
    method = made(directory, case)
    arguments = ContrastiveTrainingArguments(str(tmp_path / "run"), per_device_train_batch_size=8, report_to="none")
    with pytest.raises(InputError, match=f"{case} trains on single texts") as refused:
        ContrastiveTrainer(method, arguments, Dataset.from_dict(rows_of(["positive", "negative"])))
    assert not (tmp_path / "run").exists()
    said = str(refused.value)
    assert {name for name in METHODS if name in said.split("all but")[1]} == {
        name for name, kind in METHODS.items() if "pairs" not in kind.needs
    }


def test_labels_of_pairs_are_refused_where_the_loss_does_not_read_them(directory: Path, tmp_path: Path) -> None:
    arguments = ContrastiveTrainingArguments(str(tmp_path / "run"), per_device_train_batch_size=8, report_to="none")
    rows = Dataset.from_dict({**rows_of(["positive"]), "label": [0, 1] * 4})
    with pytest.raises(InputError, match="simcse does not read labels"):
        ContrastiveTrainer(made(directory, "simcse"), arguments, rows)
    ContrastiveTrainer(made(directory, "consert, joint"), arguments, rows)


def test_views_that_take_no_part_are_refused(directory: Path, tmp_path: Path) -> None:
    """ConSERT with labels, and SCCL's own views beside text views."""
    assert made(directory, "consert").takes_views
    assert not any(made(directory, f"consert, {objective}").takes_views for objective in ("supervised", "joint"))
    method = METHODS["sccl"](Encoder.from_pretrained(directory, device="cpu"), clusters=2, second_view="token_cutoff")
    with pytest.raises(InputError, match="SCCL trains on the text views of the rows"):
        method.prepare_corpus(Dataset.from_dict(rows_of(["text_1", "text_2"])))
    method.prepare_corpus(Dataset.from_dict(rows_of([])))
