"""What an encoder leaves unchanged, what its copies share, and what goes through its slices."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from torch import nn
from transformers import AutoModel

from textcl import SimCSE
from textcl.encoder import Encoder
from textcl.encoder.attention import ATTENTION
from textcl.encoder.backbone import prepare_backbone
from textcl.errors import InputError


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("interfaces") / "tiny")


def test_a_plain_encoder_leaves_its_arguments_unchanged_and_prepare_backbone_does_not(directory):
    backbone, tokenizer = AutoModel.from_pretrained(directory), tiny_tokenizer()
    tokenizer.pad_token = None
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    config, kinds = copy.deepcopy(backbone.config), [type(module) for module in backbone.modules()]
    frozen = [parameter.requires_grad for parameter in backbone.parameters()]
    encoder = Encoder(backbone, tokenizer, max_length=32)
    vectors = encoder.eval().encode(TEXTS[:5])
    assert backbone.config.to_dict() == config.to_dict()
    assert backbone.config._attn_implementation == config._attn_implementation
    assert [type(module) for module in backbone.modules()] == kinds
    assert [parameter.requires_grad for parameter in backbone.parameters()] == frozen
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
    assert tokenizer.pad_token is None
    prepare_backbone(backbone, tokenizer)
    assert backbone.config._attn_implementation == ATTENTION
    assert tokenizer.pad_token == tokenizer.eos_token
    assert not any(type(module) is nn.Dropout for module in backbone.modules())
    assert np.abs(encoder.encode(TEXTS[:5]) - vectors).max() < 1e-6


def test_a_copy_shares_weights_and_the_halved_budget_but_not_its_settings(directory):
    encoder = Encoder.from_pretrained(directory, pooling="pooler")
    changed = encoder.with_(pooling="mean", max_length=7, normalize=True)
    assert (encoder.pooling, changed.pooling, changed.max_length) == ("pooler", "mean", 7)
    assert encoder.head is not None
    assert changed.head is None  # it was trained behind the other pooling
    assert np.allclose(np.linalg.norm(changed.encode(TEXTS[:3]), axis=1), 1)
    changed.slicing.token_budget = 64
    assert encoder.tokens_at_a_time == 64
    with torch.no_grad():
        encoder.word_embeddings.weight.mul_(2)
    assert torch.equal(changed.word_embeddings.weight, encoder.word_embeddings.weight)
    with pytest.raises(InputError, match="dense layer of its own"):
        changed.with_(pooling="pooler")
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        changed.with_(pooling="maen")


def test_the_masked_word_term_goes_through_the_slices(directory):
    encoder = Encoder.from_pretrained(directory, dropout=0.0)
    method = SimCSE(encoder, mlm_weight=0.5, equal_dropout_masks=True).train()
    method.hooked = True
    batch = method.collator()([{"text": text} for text in TEXTS[:16]])

    def outcome():
        method.zero_grad()
        loss = method(**batch)["loss"]
        loss.backward()
        return loss.detach(), *(p.grad.clone() for p in method.parameters() if p.grad is not None)

    expected = outcome()
    sizes: list[int] = []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    encoder.slicing.token_budget = 64
    method.gradient_cache_enable()
    found = outcome()
    assert max(sizes) <= 64
    assert len(sizes) > 2 * 16 * 8 / 64
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_the_side_that_is_cut_is_saved_also_if_it_was_set_later(directory, tmp_path):
    """transformers saves `truncation_side` only of a tokenizer whose files or arguments named one."""
    from sentence_transformers import SentenceTransformer

    encoder, texts = Encoder.from_pretrained(directory, max_length=6, device="cpu"), TEXTS[:4]
    for side in ("left", "right"):
        encoder.tokenizer.truncation_side = side
        path, vectors = encoder.save(tmp_path / side), encoder.encode(texts)
        encoder = Encoder.from_pretrained(path, device="cpu")
        assert np.array_equal(encoder.encode(texts), vectors)
        assert np.abs(SentenceTransformer(str(path), device="cpu").encode(texts) - vectors).max() < 1e-6


@pytest.mark.parametrize("place", ["layers", "token_layers"])
def test_a_layer_that_a_directory_cannot_hold_is_refused(directory, tmp_path, place):
    """It was written as a layer that scales to length 1."""
    encoder = Encoder.from_pretrained(directory, device="cpu")
    getattr(encoder, place).append(nn.Tanh())
    assert "Tanh" in str(encoder.describe())
    with pytest.raises(InputError, match="cannot be saved with a layer Tanh"):
        encoder.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
