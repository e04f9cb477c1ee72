"""Texts whose words a model does not know: everything that encodes a corpus or trains on it says so."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder, SimCSE, adapt
from textcl.evaluation import cluster_texts
from textcl.vectors.encode import encode_corpus
from textcl.vectors.unknown import unknown_texts

UNKNOWN = "订单什么时候发货"
USES: dict[str, Callable[[Path, list[str], Path], object]] = {
    "encode": lambda model, texts, output: encode_corpus(model, texts, output),
    "cluster": lambda model, texts, output: cluster_texts(Encoder.from_pretrained(model), texts, 2),
    "adapt": lambda model, texts, output: adapt(model, texts),
    "train": lambda model, texts, output: ContrastiveTrainer(
        SimCSE(Encoder.from_pretrained(model)),
        ContrastiveTrainingArguments(str(output), per_device_train_batch_size=4, max_steps=1),
        texts,
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("unknown", [0, 1, 2])
def test_unknown_texts_are_said_from_a_tenth_on(
    use: str, unknown: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_encoder_directory(tmp_path / "model")
    texts = [*TEXTS[: 20 - unknown], *(f"{UNKNOWN} {number}号" for number in range(unknown))]
    assert len(texts) == 20
    with caplog.at_level(logging.WARNING, logger="textcl"):
        USES[use](model, texts, tmp_path / "output")
    said = [message for message in caplog.messages if "at most half of the words" in message]
    assert len(said) == (unknown == 2)
    assert not said or "2 texts among the first 20, such as '订单什么时候发货 0号'" in said[0]


def test_half_of_the_words_decides() -> None:
    encoder = Encoder.from_pretrained("small")
    assert unknown_texts(encoder, ["two cats", "สวัสดี", "two 订 cats", "订 cat", ""]).tolist() == [
        False,
        True,
        False,
        True,
        True,
    ]
