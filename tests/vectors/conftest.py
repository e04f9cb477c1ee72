"""A tiny encoder, and its directory, for all tests of vectors."""

from pathlib import Path

import pytest
from support.tiny import tiny_encoder_directory

from textcl.encoder import Encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return Encoder.from_pretrained(model, device="cpu")
