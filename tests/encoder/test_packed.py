"""Packed rows: what a GPU computes without padding, here on a CPU, versus padded rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.attention_checks import dropout_leaves_the_mean, same_values_and_gradients
from support.tiny import TEXTS, tiny_encoder_directory
from torch.nn.functional import scaled_dot_product_attention

from textcl.encoder import Encoder
from textcl.encoder.attention import attention
from textcl.encoder.backbone import compile_layers
from textcl.encoder.batching import pack, unpack
from textcl.encoder.forward import takes_packed_rows
from textcl.encoder.pooling import POOLINGS
from textcl.methods import SimCSE

THERE = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
PLACES = THERE.flatten().nonzero()[:, 0]


@pytest.fixture
def always(monkeypatch):
    """Slices are packed whatever the padding."""
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"cpu": 0})


def watched(encoder: Encoder) -> list[tuple[int, ...]]:
    encoder.slicing.packs = takes_packed_rows(encoder)  # probed here, so that it is not seen below
    assert encoder.slicing.packs
    shapes: list[tuple[int, ...]] = []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def test_packed_rows_are_unpacked_again():
    ids = torch.arange(21).view(3, 7)
    flat, places = pack({"input_ids": ids, "attention_mask": THERE.long()}, count=12)
    assert flat["input_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]]
    assert places.tolist() == flat["input_ids"][0].tolist()
    back = unpack(flat["input_ids"][..., None], places, ids.shape)[..., 0]
    assert torch.equal(back, ids * THERE)


def test_attention_and_its_gradient_are_those_of_each_row_by_itself():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(1, 2, 12, 8, dtype=torch.double, generator=generator).requires_grad_() for _ in range(3)]
    theirs = [each.detach().clone().requires_grad_() for each in ours]
    found, _ = attention(None, *ours, None, scaling=0.3, packed_from=PLACES, padded_mask=THERE)
    expected = torch.cat(
        [
            scaled_dot_product_attention(*(each[:, :, start:end] for each in theirs), scale=0.3)
            for start, end in ((0, 7), (7, 11), (11, 12))
        ],
        dim=2,
    ).transpose(1, 2)
    same_values_and_gradients(found, ours, expected, theirs)


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [*(("bert", pooling) for pooling in POOLINGS), ("roberta", "mean"), ("electra", "last_token")],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_vectors_and_gradients_are_those_of_padded_rows(tmp_path: Path, always, architecture, pooling, weighted):
    folder = tiny_encoder_directory(tmp_path / "model", architecture, dropout=0.0)
    encoder = Encoder.from_pretrained(folder, pooling=pooling)
    if weighted:
        encoder.weigh_tokens(TEXTS)
    encoder.double()
    tokens = encoder.tokenize([f"{text} [MASK]" for text in [*TEXTS[:6], " ".join(TEXTS[:4])]])

    def gradients():
        encoder.zero_grad()
        embeddings = encoder.embed(tokens)
        embeddings.square().sum().backward()
        return embeddings.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)

    shapes = watched(encoder)
    found = gradients()
    assert shapes == [(1, int(tokens["attention_mask"].sum()))]
    encoder.slicing.packs = False
    for own, other in zip(found, gradients(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)
    assert shapes[1:] == [tuple(tokens["input_ids"].shape)]


def test_encode_and_the_gradient_cache_take_them_too(tmp_path: Path, always):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"))
    shapes = watched(encoder)
    vectors = encoder.encode(TEXTS)
    assert {rows for rows, _ in shapes} == {1}
    encoder.train().slicing.gradient_cache = True
    torch.manual_seed(0)
    encoder.embed(encoder.tokenize(TEXTS)).sum().backward()
    cached = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    encoder.slicing.gradient_cache = False
    torch.manual_seed(0)
    encoder.embed(encoder.tokenize(TEXTS)).sum().backward()
    own = [p.grad for p in encoder.parameters() if p.grad is not None]
    torch.testing.assert_close(own, cached, rtol=0, atol=1e-4)
    encoder.slicing.packs = False
    assert np.abs(vectors - encoder.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize(
    ("architecture", "takes"), [("bert", True), ("roberta", True), ("mpnet", False), ("modernbert", False)]
)
def test_only_a_backbone_that_gives_the_same_takes_packed_rows(tmp_path: Path, always, architecture, takes):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model", architecture, dropout=0.0))
    assert takes_packed_rows(encoder) == takes
    expected = Encoder.from_pretrained(tmp_path / "model")
    expected.slicing.packs = False
    assert np.abs(encoder.encode(TEXTS) - expected.encode(TEXTS)).max() < 1e-6


def test_a_backbone_that_forgets_where_rows_begin_is_found_out(tmp_path: Path, always, monkeypatch):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model", dropout=0.0))
    forward = encoder.backbone.encoder.forward

    def forgetful(*args, padded_mask=None, **kwargs):
        return forward(*args, **kwargs)

    monkeypatch.setattr(encoder.backbone.encoder, "forward", forgetful)
    assert not takes_packed_rows(encoder)


def test_dropout_of_attention_leaves_the_mean_as_it_is():
    torch.manual_seed(0)
    options = {"packed_from": PLACES, "padded_mask": THERE}
    inputs = [torch.randn(1, 2, 12, 8, dtype=torch.double) for _ in range(3)]
    expected, _ = attention(None, *inputs, None, **options)
    dropout_leaves_the_mean(lambda: attention(None, *inputs, None, dropout=0.3, **options)[0], expected)


@pytest.mark.slow
def test_compiled_layers_give_the_same(tmp_path: Path, always):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model", dropout=0.0)).train()
    tokens = encoder.tokenize(TEXTS[:8])
    expected = encoder.embed(tokens)
    compile_layers(encoder.backbone)
    found = encoder.embed(tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert all(p.grad is not None for p in encoder.backbone.encoder.parameters())


def test_plain_views_of_a_method_are_packed_as_rows_without_views_are(tmp_path: Path, always):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"))
    method = SimCSE(encoder).train()
    shapes = watched(encoder)
    batch = method.collator()([{"text": text} for text in TEXTS[:6]])
    method(**batch)["loss"].backward()
    assert shapes == [(1, int(batch["attention_mask"].sum()))]
