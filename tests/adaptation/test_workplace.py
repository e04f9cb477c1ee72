"""The vectors that an adaptation needs: each text once, also blank ones, and those of a directory where they fit."""

from pathlib import Path

import numpy as np
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation.workplace import Workplace
from textcl.encoder import Encoder
from textcl.vectors.encode import encode_corpus
from textcl.vectors.vectors import Vectors


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.from_pretrained(tiny_encoder_directory(tmp_path_factory.mktemp("model")), device="cpu")


def test_vectors_of_a_directory_are_used_only_if_they_are_those_that_would_be_made(encoder: Encoder, tmp_path: Path):
    known = Vectors(encode_corpus(encoder, TEXTS[:30], tmp_path / "v", dtype="float16"))  # rounded, to be told apart
    stored, asked = known.vectors(), TEXTS[29::-1]

    def found(of: Encoder, prompt: str, name: str) -> np.ndarray:
        return Workplace(tmp_path / name, known).vectors(of, asked, prompt)

    assert (found(encoder, "", "same") == stored[29::-1]).all()
    assert not (tmp_path / "same").exists()
    prompted, scaled = encoder.encode(asked, prompt="a query: "), encoder.encode(asked, normalize=True)
    np.testing.assert_allclose(found(encoder, "a query: ", "prompt"), prompted, atol=1e-6)
    np.testing.assert_allclose(found(encoder.with_(normalize=True), "", "length"), scaled, atol=1e-6)
    assert np.abs(prompted - stored[29::-1]).max() > 0.1
    assert np.abs(scaled - stored[29::-1]).max() > 0.1


def test_texts_that_repeat_or_are_blank_have_their_vectors(encoder: Encoder, tmp_path: Path):
    texts = [TEXTS[0], "", TEXTS[1], " \n", TEXTS[0], ""]
    for _ in range(2):
        found = Workplace(tmp_path / "place").vectors(encoder, texts, "a text: ")
        np.testing.assert_allclose(found, encoder.encode(texts, prompt="a text: "), atol=1e-6)
    only_blank = Workplace(tmp_path / "place").vectors(encoder, ["", ""], "")
    np.testing.assert_allclose(only_blank, encoder.encode(["", ""]), atol=1e-6)


def test_texts_may_be_names_of_files(encoder: Encoder, tmp_path: Path):
    names = ["sales.csv", "costs.csv"]
    np.testing.assert_allclose(Workplace(tmp_path / "p").vectors(encoder, names, ""), encoder.encode(names), atol=1e-6)
