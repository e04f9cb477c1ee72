"""Blending: each weight lies between start and trained by α, and the ends are exact."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.adaptation.blend import blended
from textcl.encoder import Encoder
from textcl.errors import InputError


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.from_pretrained(tiny_encoder_directory(tmp_path_factory.mktemp("start")))


@pytest.fixture
def other(start: Encoder) -> Encoder:
    """The same architecture with other weights."""
    changed = copy.deepcopy(start)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in changed.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return changed


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_each_weight_is_what_a_loop_of_double_precision_gives(start: Encoder, other: Encoder, alpha: float):
    found = blended(start, other, alpha).state_dict()
    for name, one in start.state_dict().items():
        two = other.state_dict()[name]
        expected = (1 - alpha) * one.numpy().astype(float) + alpha * two.numpy().astype(float)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-6, atol=1e-8)


def test_half_precision_is_blended_in_float32_and_rounded_once(start: Encoder, other: Encoder):
    start, other = (copy.deepcopy(side).to(torch.bfloat16) for side in (start, other))
    found = blended(start, other, 0.3).state_dict()
    for name, one in start.state_dict().items():
        two = other.state_dict()[name]
        assert found[name].equal(((1 - 0.3) * one.float() + 0.3 * two.float()).to(torch.bfloat16)), name


def test_the_ends_are_exact_bit_for_bit_whatever_the_other_side_holds(start: Encoder, other: Encoder):
    with torch.no_grad():
        start.backbone.embeddings.word_embeddings.weight[0, 0] = -0.0
        other.backbone.embeddings.word_embeddings.weight[0, 1] = float("inf")
    for alpha, side in ((0, start), (0.0, start), (1, other), (1.0, other)):
        found = blended(start, other, alpha).state_dict()
        for name, value in side.state_dict().items():
            assert found[name].view(torch.uint8).equal(value.view(torch.uint8)), (alpha, name)


def test_buffers_that_are_not_floating_point_are_those_of_the_start(start: Encoder, other: Encoder):
    start, other = copy.deepcopy(start), copy.deepcopy(other)
    start.register_buffer("seen", torch.tensor([1, 2]))
    other.register_buffer("seen", torch.tensor([3, 4]))
    assert blended(start, other, 0.5).get_buffer("seen").tolist() == [1, 2]


def test_neither_side_changes_and_the_settings_are_those_of_the_start(start: Encoder, other: Encoder):
    before = [side.fingerprint() for side in (start, other)]
    half = blended(start.with_(normalize=True, max_length=9), other, 0.5)
    assert (half.normalize, half.max_length) == (True, 9)
    with torch.no_grad():
        next(half.parameters()).zero_()
    assert [side.fingerprint() for side in (start, other)] == before
    assert blended(start, start, 0.5).encode(TEXTS[:2]) == pytest.approx(start.encode(TEXTS[:2]), abs=1e-6)


def test_other_shapes_and_other_shares_are_refused(start: Encoder, tmp_path: Path):
    different = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", "distilbert"))
    with pytest.raises(InputError, match="cannot be blended"):
        blended(start, different, 0.5)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="alpha must be"):
            blended(start, start, alpha)
