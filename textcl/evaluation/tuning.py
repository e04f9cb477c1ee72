"""One fine-tuning: an encoder with a layer on top is trained on examples with labels, and predicts others."""

from __future__ import annotations

import copy
import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from textcl.data.transfer import Examples
from textcl.encoder import Encoder
from textcl.losses.classification import classification
from textcl.progress import Progress
from textcl.tokenising import INPUTS, padding_token

EPOCHS, BATCH, WARM_UP, WEIGHT_DECAY = 3, 32, 0.1, 0.01
_BATCH_SCORED = 64


class Classifier(nn.Module):
    """An encoder with dropout and a linear layer on its pooled vector; one output is a regression.

    The rate of the dropout is that of the backbone's hidden layers. The layer starts as BERT's layers do.

    Args:
        encoder: The encoder. It is trained, not copied.
        outputs: The number of classes; 1 for a regression.
    """

    accepts_loss_kwargs = False  # the loss is the mean of a batch

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        config = encoder.backbone.config
        rates = (getattr(config, name, None) for name in ("hidden_dropout_prob", "dropout"))
        self.encoder = encoder
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.1))
        self.output = nn.Linear(encoder.dimension, outputs)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        self.to(encoder.device)

    def forward(self, labels: Tensor, **tokens: Tensor) -> dict[str, Tensor]:
        """The mean loss of a batch, and the logits (rows, outputs).

        Args:
            labels: The class or score of each row, (rows,).
            **tokens: The tokenizer's tensors, (rows, length) each, padded on the right.
        """
        logits = self.output(self.dropout(self.encoder.embed(tokens)))  # type: ignore[arg-type]
        if logits.shape[1] == 1:
            return {"loss": nn.functional.mse_loss(logits[:, 0], labels), "logits": logits}
        return {"loss": classification(logits, labels) / len(labels), "logits": logits}


def steps(examples: int) -> int:
    """The number of training steps for a number of examples."""
    return EPOCHS * math.ceil(examples / BATCH)


def train_and_predict(
    encoder: Encoder,
    classes: int,
    train: Examples,
    scored: Mapping[str, Examples],
    *,
    rate: float,
    seed: int,
    max_length: int,
    bar: Progress | None = None,
) -> dict[str, list[Any]]:
    """Trains a float32 copy of an encoder with a `Classifier`, and predicts the labels of other examples.

    `transformers.Trainer` trains, with its AdamW and its linear schedule. The user's random generators are not changed.

    Args:
        encoder: The encoder; it is not changed.
        classes: The number of classes; 1 for a regression.
        train: The examples to train on.
        scored: The examples to predict, by name.
        rate: The peak learning rate.
        seed: The seed of the layer, of the order of the examples and of dropout.
        max_length: Tokens after which a row is cut; of a pair the longer text first.
        bar: Counts the steps.

    Returns:
        The class or score that is predicted for each example of `scored`.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if bar is not None:
                bar.update()

    with _own_random_numbers(), tempfile.TemporaryDirectory() as folder:
        set_seed(seed)
        model = Classifier(copy.deepcopy(encoder).float(), classes)
        arguments = TrainingArguments(
            folder,
            seed=seed,
            learning_rate=rate,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=_BATCH_SCORED,
            warmup_steps=math.ceil(WARM_UP * steps(len(train))),
            weight_decay=WEIGHT_DECAY,
            bf16=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            label_names=["labels"],
        )
        rows = partial(_rows, model.encoder, max_length, classes == 1)
        trainer = Trainer(
            model,
            arguments,
            data_collator=partial(_batch, padding=padding_token(encoder.tokenizer)),
            train_dataset=rows(train),
            callbacks=[Steps()],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to standard output
        trainer.train()
        logits = {name: cast(np.ndarray, trainer.predict(rows(each)).predictions) for name, each in scored.items()}
    return {name: (each[:, 0] if classes == 1 else each.argmax(axis=1)).tolist() for name, each in logits.items()}


def _rows(encoder: Encoder, max_length: int, regression: bool, examples: Examples) -> Any:
    """The tokens and the label of each example.

    Cutting pairs changes the state of the tokenizer, which is that of a copy here.
    """
    texts = (examples.first, examples.second or None)
    found = encoder.tokenizer(*texts, truncation=True, max_length=max_length, padding=False)
    names = [name for name in INPUTS if name in found and name != "attention_mask"]
    labels = map(float, examples.labels) if regression else examples.labels
    return [{**{name: found[name][row] for name in names}, "labels": label} for row, label in enumerate(labels)]


def _batch(rows: list[dict[str, Any]], padding: int) -> dict[str, Tensor]:
    """Rows of tokens as tensors (rows, length), padded on the right, with their mask and labels."""
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    longest = max(1, int(lengths.max()))
    batch = {
        name: torch.tensor(
            [row[name] + [padding if name == "input_ids" else 0] * (longest - len(row[name])) for row in rows]
        )
        for name in rows[0]
        if name != "labels"
    }
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {**batch, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Restores the user's random generators, which a trainer seeds."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
