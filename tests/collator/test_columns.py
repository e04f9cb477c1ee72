"""The columns of training rows: their meaning is their name, each row is looked at, and transforms are honoured."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from support.tiny import TEXTS, tiny_encoder_directory
from transformers import TrainingArguments

from textcl import (
    SCCL,
    ConSERT,
    ContrastiveTrainer,
    ContrastiveTrainingArguments,
    DeCLUTR,
    InputError,
    SimCSE,
    SimCSEPlus,
)
from textcl.data.training import as_training_rows
from textcl.encoder import Encoder


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("columns") / "tiny")


@pytest.fixture(scope="module")
def method(directory: Path) -> SimCSE:
    return SimCSE(Encoder.from_pretrained(directory, max_length=16))


def arguments(folder: Path, **options: Any) -> ContrastiveTrainingArguments:
    options = {"per_device_train_batch_size": 4, "max_steps": 2, "save_strategy": "no", "bf16": False, **options}
    return ContrastiveTrainingArguments(folder, **options)


def decoded(method: SimCSE, batch: Any) -> list[str]:
    return method.encoder.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)


def spelled(method: SimCSE, texts: list[str]) -> list[str]:
    return decoded(method, method.encoder.tokenize(texts))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "negative": "b"}, "A column 'negative' needs a column 'positive'"),
        ({"negative": "b"}, "A column 'negative' needs a column 'positive'"),
        ({"positive": "a", "negative": "b"}, "needs a column 'text'; this one has"),
        ({"positive": "a"}, "needs a column 'text'"),
        ({"sentence": "a"}, r"needs a column 'text'; this one has \['sentence'\]"),
        ({"text": "a", "text_1": "b"}, "needs a column 'text_2'"),
        ({"text": "a", "text_2": "b"}, "needs a column 'text_1'"),
        ({"text": "a", "positive": "b", "text_1": "c", "text_2": "d"}, "both a positive and a view of the text"),
        ({"text": 3}, "column 'text': the value must be a text, not an int"),
        ({"text": ["a"]}, "column 'text': the value must be a text, not a list"),
        ({"text": "\ud800"}, "column 'text': the text holds half of a surrogate pair"),
        ({"text": "a", "label": "x"}, "a label must be a whole number from 0, not 'x'"),
        ({"text": "a", "label": None}, "a label must be a whole number from 0, not None"),
        ({"text": "a", "label": -1}, "a label must be a whole number from 0, not -1"),
        ({"text": "a", "label": 1.0}, "a label must be a whole number from 0, not a float"),
    ],
)
def test_rows_whose_columns_have_no_meaning_are_refused(
    method: SimCSE, tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        method.collator()([row, row])
    with pytest.raises(InputError, match=message):
        ContrastiveTrainer(method, arguments(tmp_path / "run"), [row] * 8)
    assert not (tmp_path / "run").exists()


def test_a_column_that_one_row_lacks_names_the_row(method: SimCSE) -> None:
    pair = {"text": "a", "positive": "b"}
    with pytest.raises(InputError, match="needs a column 'positive'"):
        method.collator()([pair, {"text": "a"}])
    with pytest.raises(InputError, match="needs a column 'positive'"):  # whichever row is the first
        method.collator()([{"text": "a"}, pair])
    with pytest.raises(InputError, match="Training rows, row 3: there is no 'positive', which other rows have"):
        as_training_rows([pair, pair, {"text": "a"}])
    with pytest.raises(InputError, match="Training rows, row 1: there is no 'label'"):
        as_training_rows([{"text": "a"}, {"text": "a", "label": 1}])
    with pytest.raises(InputError, match="needs a label; this one has"):
        method.collator()([{"text": "a", "label": 0}, {"text": "a"}])


def test_hard_negatives_are_found_by_their_name_in_any_order(method: SimCSE) -> None:
    row = {"negative": TEXTS[2], "n": 3, "positive": TEXTS[1], "text": TEXTS[0]}
    batch = method.collator()([row, row])
    assert batch["view"].tolist() == [0, 0, 1, 1, 2, 2]
    assert decoded(method, batch) == spelled(method, [TEXTS[0]] * 2 + [TEXTS[1]] * 2 + [TEXTS[2]] * 2)


def test_a_transform_is_honoured_in_every_epoch(method: SimCSE, tmp_path: Path) -> None:
    calls = []

    def replaced(batch: dict[str, list[str]]) -> dict[str, list[str]]:
        calls.append(len(batch["text"]))
        return {"text": [TEXTS[len(calls) % 40] for _ in batch["text"]]}

    plain = Dataset.from_dict({"text": [f"{text} again" for text in TEXTS[:8]]})
    in_place = plain.select(range(8))
    in_place.set_transform(replaced)
    for dataset in (plain.with_transform(replaced), in_place):
        kept = method.collator().tokenized(dataset, tmp_path)
        assert kept is dataset
        assert not list(tmp_path.iterdir())  # nothing is cached
        first, second = (decoded(method, method.collator()([kept[0], kept[1]])) for _ in range(2))
        assert first != second
        assert {*first, *second} <= set(spelled(method, TEXTS[:40]))


def test_a_transform_is_trained_on(method: SimCSE, tmp_path: Path, directory: Path) -> None:
    def trained(rows: Any, name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        method = SimCSE(Encoder.from_pretrained(directory, max_length=16))
        ContrastiveTrainer(method, arguments(tmp_path / name), rows).train()
        return method.state_dict()

    shown = Dataset.from_dict({"text": TEXTS[:8]})
    hidden = Dataset.from_dict({"text": ["x"] * 8, "n": range(8)})
    hidden = hidden.with_transform(lambda batch: {"text": [TEXTS[n] for n in batch["n"]]})
    expected, found = trained(shown, "shown"), trained(hidden, "hidden")
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize("kind", ["numpy", "pandas", "torch", "arrow"])
def test_other_formats_change_no_row(method: SimCSE, tmp_path: Path, kind: str) -> None:
    plain = Dataset.from_dict({"text": TEXTS[:4], "positive": TEXTS[4:8]})
    expected = method.collator().tokenized(plain, tmp_path)
    assert method.collator().tokenized(plain.with_format(kind), tmp_path).to_dict() == expected.to_dict()
    only = method.collator().tokenized(plain.with_format(kind, columns=["text"]), tmp_path)
    assert "positive" not in only.column_names
    assert as_training_rows(plain.with_format(kind)).to_dict() == plain.to_dict()


def rows() -> list[dict[str, Any]]:
    return [{"text": text, "label": number % 2} for number, text in enumerate(TEXTS[:8])]


class Stream(torch.utils.data.IterableDataset):
    """Rows that torch streams."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(rows())


class Lazy:
    """Rows that are made when they are asked for."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Any]:
        return rows()[number]


@pytest.mark.parametrize(
    "source",
    [
        rows(),
        (row for row in rows()),
        Dataset.from_list(rows()),
        DatasetDict({"train": Dataset.from_list(rows())})["train"],
        pd.DataFrame(rows()),
        pd.DataFrame(rows(), index=[1] * 8),
        [{**row, "label": np.int64(row["label"])} for row in rows()],
        [{**row, 3: "x"} for row in rows()],
        TEXTS[:8],
        np.array(TEXTS[:8]),
        pd.Series(TEXTS[:8]),
        (text for text in TEXTS[:8]),
        Lazy(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_trainer_takes_every_kind_of_rows(method: SimCSE, tmp_path: Path, source: Any) -> None:
    trainer = ContrastiveTrainer(method, arguments(tmp_path), source)
    dataset: Any = trainer.train_dataset
    assert [dataset[number]["text"] for number in range(len(dataset))] == TEXTS[:8]
    if "label" in dataset[0]:
        assert [dataset[number]["label"] for number in range(8)] == [0, 1] * 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DatasetDict({"train": Dataset.from_list(rows())}), "a DatasetDict has the splits 'train'"),
        ({"text": TEXTS[:8]}, "a dict has the columns 'text'"),
        ("texts.txt", r"must be rows, not a path; read them with textcl\.load_texts"),
        (None, "not None"),
        (set(TEXTS[:8]), "not a set"),
        (IterableDataset.from_generator(lambda: iter(rows())), r"streaming data set.*stream\.to_parquet.*load_texts"),
        (Stream(), "streaming data set"),
        ([], "holds no row"),
        ([*TEXTS[:7], None], "row 8: the value must be a text, not None"),
        (Dataset.from_dict({"text": [1, 2, 3, 4]}), "row 1, column 'text': the value must be a text, not an int"),
        (
            Dataset.from_dict({"text": TEXTS[:4], "label": ["a", "b", "a", "b"]}),
            "row 1, column 'label': a label must be",
        ),
        (Dataset.from_dict({"text": TEXTS[:4], "label": [0, 1, None, 1]}), "row 3, column 'label': a label must be"),
        ([{"text": "a", "n": 1}, {"text": "b", "n": "x"}], "cannot be put into a table"),
    ],
)
def test_a_trainer_refuses_other_kinds(method: SimCSE, tmp_path: Path, source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ContrastiveTrainer(method, arguments(tmp_path / "run"), source)
    assert not (tmp_path / "run").exists()


def test_a_trainer_refuses_other_arguments(method: SimCSE, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="args must be ContrastiveTrainingArguments, not a TrainingArguments"):
        ContrastiveTrainer(method, TrainingArguments(str(tmp_path), use_cpu=True), rows())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="There is no eval_dataset: scores come from evaluators"):
        ContrastiveTrainer(method, arguments(tmp_path), rows(), eval_dataset=rows())
    wrong: list[tuple[Any, Any, str]] = [
        (method.encoder, [], "model must be a method, such as .*, not an Encoder"),
        (method, "stsb", "evaluators must be a list of evaluators, not a str"),
        (method, ["stsb"], "An evaluator must be callable and have a name, and a str is not one"),
        (method, [lambda encoder: 3.0], "and a function is not one"),
    ]
    for model, evaluators, message in wrong:
        with pytest.raises(InputError, match=message):
            ContrastiveTrainer(model, arguments(tmp_path), rows(), evaluators=evaluators)
    with pytest.raises(InputError, match="A method needs an Encoder, not a str"):
        SimCSE("bundled")  # type: ignore[arg-type]


def test_an_evaluator_without_a_score_is_named(method: SimCSE, tmp_path: Path) -> None:
    class Scores:
        name = "mine"

        def __call__(self, encoder: Any) -> Any:
            return {"primary": 3.0}

    trainer = ContrastiveTrainer(method, arguments(tmp_path, eval_steps=1), TEXTS[:8], evaluators=[Scores()])
    with pytest.raises(InputError, match="The evaluator mine returned dict; it must return an object"):
        trainer.train()


class Numbers(Lazy):
    def __getitem__(self, number: int) -> Any:
        return number


def test_rows_that_are_no_mappings_are_refused(method: SimCSE, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a mapping of columns, such as .*, not an int"):
        ContrastiveTrainer(method, arguments(tmp_path), Numbers())
    with pytest.raises(InputError, match="SCCL needs a column 'text'; the rows have"):
        ContrastiveTrainer(SCCL(method.encoder, clusters=2), arguments(tmp_path), [{"body": "a"}] * 8)


def test_columns_that_a_setting_needs_are_asked_for_before_anything_is_written(directory: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(directory, max_length=16)
    pairs = [{"text": text, "positive": text, "label": 4} for text in TEXTS[:8]]
    for wrong, message in (
        ([{"text": row["text"], "positive": row["text"]} for row in pairs], "needs a column 'label'; .*--label-column"),
        ([{"text": row["text"], "label": 0} for row in pairs], "needs a column 'positive'; .*--column"),
        (pairs, "The labels go from 0 to 4, and ConSERT has 3 classes; set --classes to 5"),
        (Lazy(), "ConSERT's supervised term reads the whole corpus before training"),
    ):
        with pytest.raises(InputError, match=message):
            ContrastiveTrainer(ConSERT(encoder, objective="supervised"), arguments(tmp_path / "run"), wrong)
    with pytest.raises(InputError, match="needs a label"):
        ConSERT(encoder, objective="joint").collator()([{"text": "a", "positive": "b"}] * 2)
    assert not (tmp_path / "run").exists()


def test_methods_that_read_the_whole_corpus_say_so(directory: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(directory, max_length=16)
    changing = Dataset.from_dict({"text": TEXTS[:8]}).with_transform(lambda batch: batch)
    for method, name in (
        (SCCL(encoder, clusters=2), "SCCL"),
        (DeCLUTR(encoder, shortest_span=2, longest_span=4), "DeCLUTR"),
        (SimCSEPlus(encoder, teacher=str(directory), ranking_weight=1.0), "RankCSE"),
    ):
        prepared = method.prepare_corpus([{"text": text} for text in [*TEXTS[:7], " ".join(TEXTS[:9])]])
        assert isinstance(prepared, Dataset), "also without ContrastiveTrainer"
        for source, kind in ((Lazy(), "not a Lazy"), (changing, "not a dataset with a transform")):
            with pytest.raises(InputError, match=f"{name} reads the whole corpus before training.*{kind}"):
                ContrastiveTrainer(method, arguments(tmp_path), source)
