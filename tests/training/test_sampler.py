"""The order of the rows is that of accelerate's sampler, which transformers' trainer takes."""

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from support.tiny import TEXTS, tiny_encoder_directory
from torch.utils.data import SequentialSampler
from transformers import Trainer

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder, SimCSE
from textcl.training.sampler import WINDOW, RowOrder


@pytest.mark.parametrize("rows", [1, 2, 1000, 2 * WINDOW, 2 * WINDOW + 7])
def test_the_order_of_three_epochs_is_that_of_accelerate(rows: int) -> None:
    ours, theirs = RowOrder(range(rows), 7), SeedableRandomSampler(range(rows), data_seed=7)
    assert len(ours) == rows
    for _ in range(3):
        assert list(ours) == list(theirs)
    ours.set_epoch(1)
    theirs.set_epoch(1)
    assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    "options",
    [{}, {"data_seed": 5}, {"accelerator_config": {"use_seedable_sampler": False}}, {"dataloader_num_workers": 2}],
)
def test_the_trainer_draws_the_batches_of_transformers(tmp_path, monkeypatch, options) -> None:
    def batches() -> list[list[int]]:
        torch.manual_seed(3)
        args = ContrastiveTrainingArguments(tmp_path / "run", per_device_train_batch_size=8, **options)
        trainer = ContrastiveTrainer(method, args, [{"text": text} for text in TEXTS[:48]])
        loader = trainer.get_train_dataloader()
        return [batch["text_id"].tolist() for _ in range(2) for batch in loader]

    method = SimCSE(Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "tiny")))
    found = batches()
    monkeypatch.setattr(ContrastiveTrainer, "_get_train_sampler", Trainer._get_train_sampler)
    assert found == batches()
    assert len({tuple(batch) for batch in found}) == 12


def test_rows_in_their_order_stay_in_their_order(tmp_path) -> None:
    method = SimCSE(Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "tiny")))
    args = ContrastiveTrainingArguments(
        tmp_path / "run", per_device_train_batch_size=8, train_sampling_strategy="sequential"
    )
    trainer = ContrastiveTrainer(method, args, [{"text": text} for text in TEXTS[:48]])
    assert isinstance(trainer._get_train_sampler(), SequentialSampler)
