"""Dropout and attention that draw fast: same statistics, and without dropout the same numbers, as torch's."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from support.attention_checks import dropout_leaves_the_mean, same_values_and_gradients
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from textcl.dropout import Dropout, dropout_rates, kept, zeroed
from textcl.encoder import Encoder
from textcl.encoder.attention import SHORT, _Dropped, attention
from textcl.errors import InputError
from textcl.methods import SimCSE

LAYER = SimpleNamespace(is_causal=False)


def projections(rows=3, heads=2, length=7, dim=5, keys=None):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, heads, length, dim), (rows, keys or heads, length, dim), (rows, keys or heads, length, dim)
    return [torch.randn(s, dtype=torch.double, generator=generator).requires_grad_() for s in shapes]


def padding(rows=3, length=7):
    lengths = torch.tensor([length, 4, 1])[:rows]
    seen = torch.arange(length)[None] < lengths[:, None]
    return seen[:, None, None].expand(rows, 1, length, length)


def test_dropout_of_a_pooler_makes_no_views():
    """textcl does not compute the backbone's own pooler, so its dropout changes nothing."""
    backbone = nn.ModuleDict({"pooler": nn.Sequential(nn.Dropout(0.5)), "layer": nn.Dropout(0.0)})
    assert dropout_rates(backbone) == []
    backbone["layer"].p = 0.2
    assert dropout_rates(backbone) == [0.2]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_share_of_the_elements_is_dropped_each_by_itself(rate):
    torch.manual_seed(0)
    kept = Dropout(rate).train()(torch.ones(1_000_003)) > 0
    expected, count = 1 - rate, len(kept)
    standard_error = (rate * (1 - rate) / count) ** 0.5
    assert abs(kept.double().mean() - expected) < 5 * standard_error
    for apart in range(1, 9):  # four neighbours share a draw, and must not share a fate
        both = (kept[apart:] & kept[:-apart]).double().mean()
        assert abs(both - expected**2) < 5 * (expected**2 * (1 - expected**2) / count) ** 0.5, apart


def test_what_is_kept_is_scaled_up_in_value_and_gradient():
    rows = torch.rand(50, 40, dtype=torch.double).add(1).requires_grad_()
    dropped = Dropout(0.2).train()(rows)
    dropped.sum().backward()
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], rows[kept] / 0.8)
    torch.testing.assert_close(rows.grad, kept.double() / 0.8)
    assert 0 < kept.double().mean() < 1


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_mask_is_that_of_16_bits_compared_one_by_one(rate):
    """So runs with these rates draw what they drew when a mask was a comparison of numbers."""
    shape, state = (3, 7, 11), torch.get_rng_state()
    mask = kept(torch.empty(shape), rate)
    torch.set_rng_state(state)
    drawn = torch.empty(-(-3 * 7 * 11 // 4), dtype=torch.long).random_(torch.iinfo(torch.long).min, None)
    least = round(rate * 2**16) - 2**15
    expected = [number >= least for number in drawn.view(torch.int16)[: mask.numel()].tolist()]
    assert mask.flatten().tolist() == [-1 if each else 0 for each in expected]
    assert {True, False} == set(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_dropped_is_zero_and_the_rest_keeps_its_bits(dtype):
    torch.manual_seed(0)
    values = torch.randn(6, 5, 4).to(dtype).transpose(0, 2).requires_grad_()  # not in the order of memory
    values.data[0, 0, 0] = float("inf")
    mask = kept(values, 0.4)
    mask[0, 0, 0] = 0
    found = zeroed(values, mask)
    assert torch.equal(found, torch.where(mask.bool(), values, 0.0))
    found.backward(ones := torch.ones_like(found))
    assert torch.equal(values.grad, ones * mask.bool())


def test_dropped_values_have_two_derivatives():
    values = torch.rand(5, 4, dtype=torch.double, requires_grad=True)
    mask = kept(values, 0.3)
    assert torch.autograd.gradgradcheck(lambda given: zeroed(given, mask) ** 3, values)


@pytest.mark.parametrize(
    ("layer", "expected"), [(Dropout(0.3).eval(), 1), (Dropout(0.0).train(), 1), (Dropout(1.0).train(), 0)]
)
def test_nothing_or_everything_is_dropped(layer, expected):
    assert (layer(torch.ones(1000)) == expected).all()


def test_the_same_state_of_the_generator_draws_the_same():
    layer, state = Dropout(0.5).train(), torch.get_rng_state()
    first, second = layer(torch.ones(99)), layer(torch.ones(99))
    torch.set_rng_state(state)
    assert torch.equal(layer(torch.ones(99)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("mask", [None, padding()])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attention_and_its_gradient_are_those_of_torch(mask, scaling):
    ours, theirs = projections(), projections()
    found, weights = attention(LAYER, *ours, mask, scaling=scaling)
    expected = scaled_dot_product_attention(*theirs, attn_mask=mask, scale=scaling).transpose(1, 2)
    assert weights is None
    same_values_and_gradients(found, ours, expected, theirs)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [7, SHORT[torch.bfloat16] + 1])
def test_attention_in_bfloat16_is_that_of_doubles_but_for_rounding(padded, length):
    inputs = [each.detach() for each in projections(length=length)]
    mask = padding(length=length) if padded else None
    with torch.no_grad():
        found, _ = attention(LAYER, *(each.bfloat16() for each in inputs), mask)
    assert found.dtype == torch.bfloat16
    expected = scaled_dot_product_attention(*inputs, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("length", [7, 16, 28, 32, 40, 80])
def test_attention_in_bfloat16_and_its_gradient_are_near_those_of_doubles(length):
    """Up to 15 keys are filled up to 16, and up to 63 the softmax is in float32, unless they are a multiple of 32."""
    ours, theirs = ([each.detach() for each in projections(length=length)] for _ in range(2))
    ours = [each.bfloat16().requires_grad_() for each in ours]
    theirs = [each.detach().double().requires_grad_() for each in ours]
    found, _ = attention(LAYER, *ours, None)
    expected = scaled_dot_product_attention(*theirs).transpose(1, 2)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    assert found.dtype == torch.bfloat16
    for one, two in zip(
        [found, *(each.grad for each in ours)], [expected, *(each.grad for each in theirs)], strict=True
    ):
        assert (one.double() - two).norm() < 0.01 * two.norm()


@pytest.mark.parametrize("length", [1, 7, 15, 16, SHORT[torch.float32], SHORT[torch.float32] + 1])
@pytest.mark.parametrize("trains", [False, True])
def test_attention_in_float32_is_that_of_doubles(length, trains):
    inputs = [each.detach() for each in projections(length=length)]
    mask = padding(length=length) if length > 4 else None
    ours = [each.float().requires_grad_(trains) for each in inputs]
    with torch.set_grad_enabled(trains):
        found, _ = attention(LAYER, *ours, mask)
    theirs = [each.requires_grad_(trains) for each in inputs]
    expected = scaled_dot_product_attention(*theirs, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    if trains:
        found.square().sum().backward()
        expected.square().sum().backward()
        for one, two in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.grad.double(), two.grad, rtol=1e-6, atol=1e-5)


def test_dropped_weights_leave_the_mean_as_it_is():
    torch.manual_seed(0)
    inputs = projections(rows=1)
    expected = scaled_dot_product_attention(*inputs).transpose(1, 2)
    dropout_leaves_the_mean(lambda: attention(LAYER, *inputs, None, dropout=0.3)[0].detach(), expected)


def test_attention_with_dropout_keeps_one_float_and_one_byte_for_each_weight():
    inputs, kept_for_backward = projections(length=50), {}

    def pack(tensor):
        if tensor.shape[-2:] == (50, 50):
            kept_for_backward[tensor.data_ptr()] = tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention(LAYER, *inputs, None, dropout=0.3)
    assert sorted(kept_for_backward.values()) == [1, inputs[0].element_size()]


def test_the_gradient_through_dropped_weights_is_that_of_the_written_out_product():
    torch.manual_seed(0)
    weights, value = torch.rand(2, 3, 5, 5).double().requires_grad_(), torch.rand(2, 3, 5, 4).double().requires_grad_()
    mask = kept(weights, 0.3)
    assert torch.autograd.gradcheck(lambda *given: _Dropped.apply(given[0], mask, given[1]), (weights, value))
    assert torch.autograd.gradgradcheck(lambda *given: _Dropped.apply(given[0], mask, given[1]), (weights, value))
    found = torch.autograd.grad(_Dropped.apply(weights, mask, value).square().sum(), (weights, value))
    expected = torch.autograd.grad(((weights * mask.bool()) @ value).square().sum(), (weights, value))
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("layer", "keys"),
    [(SimpleNamespace(is_causal=True), 2), (SimpleNamespace(is_causal=False, num_key_value_groups=2), 1)],
)
def test_causal_layers_and_shared_heads_of_keys_are_left_to_torch(layer, keys):
    query, key, value = projections(keys=keys)
    found, _ = attention(layer, query, key, value, None)
    key, value = (each.repeat_interleave(2 // keys, dim=1) for each in (key, value))
    expected = scaled_dot_product_attention(query, key, value, is_causal=layer.is_causal).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_is_added_to_the_products_counts_in_training_too():
    """T5's position bias; what bounds the products (Gemma's softcap), torch's attention refuses."""
    query, key, value = projections()
    bias = torch.randn(1, 2, 7, 7, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    found, _ = attention(LAYER, query, key, value, None, position_bias=bias)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="softcap"):
        attention(LAYER, query, key, value, None, softcap=30.0)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet", "electra", "modernbert"])
def test_every_backbone_gives_the_same_in_training_as_at_test(tmp_path: Path, architecture):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model", architecture, dropout=0.0)).double()
    tokens = encoder.tokenize([*TEXTS[:6], " ".join(TEXTS[:4])])
    trained = encoder.train().embed(tokens)
    with torch.no_grad():
        torch.testing.assert_close(trained, encoder.eval().embed(tokens), rtol=0, atol=1e-12)
    encoder.save(tmp_path / "export")
    assert "textcl" not in json.dumps(json.loads((tmp_path / "export" / "config.json").read_text()))


def test_no_layer_of_torch_draws_in_a_backbone(tmp_path: Path):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path))
    layers = [layer for layer in encoder.backbone.modules() if isinstance(layer, nn.Dropout)]
    assert layers
    assert {type(layer) for layer in layers} == {Dropout}
    first, second = (encoder.train().embed(encoder.tokenize(TEXTS[:4])) for _ in range(2))
    assert not torch.equal(first, second)


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 1,
}
HEADS = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
GROUPED = ("EuroBert", "Llama", "Qwen3", "Gemma3Text", "Mistral")
WITHOUT_DROPOUT = {"ModernBert": SMALL, **dict.fromkeys(GROUPED, HEADS)}
WITH_DROPOUT = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "T5": T5,
    "Funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48, "block_sizes": [1, 1]},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48},
}


def backbone(path: Path, family: str, **options) -> str:
    """Writes a random model of a family, with rates of dropout as its configuration has them by default."""
    tokenizer = tiny_tokenizer()
    config = getattr(transformers, f"{family.removesuffix('Text')}{'Text' * family.endswith('Text')}Config")
    sizes = {**{**WITHOUT_DROPOUT, **WITH_DROPOUT}.get(family, {}), "vocab_size": 200, **options}
    torch.manual_seed(0)
    getattr(transformers, f"{family}Model")(config(**sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def difference_of_views(encoder: Encoder) -> float:
    tokens = encoder.train().tokenize(TEXTS[:4])
    with torch.no_grad():
        return float((encoder.embed(tokens) - encoder.embed(tokens)).abs().max())


@pytest.mark.parametrize("family", WITHOUT_DROPOUT)
def test_a_backbone_without_dropout_is_refused_where_dropout_makes_the_views(tmp_path: Path, family):
    """Its two views are equal, so that only repulsion would be trained; both ways out that are named lead out."""
    path = backbone(tmp_path, family)
    encoder = Encoder.from_pretrained(path)
    assert not encoder.has_dropout
    assert difference_of_views(encoder) == 0.0
    with pytest.raises(InputError, match=r"this model has none.*--dropout 0\.1.*--text-view crop"):
        SimCSE(encoder).collator()([{"text": text} for text in TEXTS[:4]])
    SimCSE(encoder).collator()([{"text_1": text, "text_2": text} for text in TEXTS[:4]])
    encoder = Encoder.from_pretrained(path, dropout=0.1)
    assert encoder.has_dropout
    assert difference_of_views(encoder) > 0
    SimCSE(encoder).collator()([{"text": text} for text in TEXTS[:4]])


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_dropout_is_set_under_any_name_of_its_rate(tmp_path: Path, family):
    """resid_pdrop, dropout_rate, hidden_dropout and dropout are the names here; layers and attention have the rate."""
    path = backbone(tmp_path, family)
    assert set(dropout_rates(Encoder.from_pretrained(path).backbone)) == {0.1}
    for rate in (0.0, 0.25):
        encoder = Encoder.from_pretrained(path, dropout=rate)
        assert set(dropout_rates(encoder.backbone)) == ({rate} if rate else set())
        assert encoder.has_dropout == (difference_of_views(encoder) > 0) == (rate > 0)
    again = Encoder.from_pretrained(encoder.save(tmp_path / "export"))
    assert set(dropout_rates(again.backbone)) == {0.25}


def test_dropout_that_an_architecture_does_not_have_is_refused(tmp_path: Path):
    path = backbone(tmp_path, "Mamba", hidden_size=32, num_hidden_layers=2, state_size=4)
    assert not Encoder.from_pretrained(path, dropout=0.0).has_dropout
    with pytest.raises(InputError, match=r"cannot be set to 0\.1: the architecture has no dropout"):
        Encoder.from_pretrained(path, dropout=0.1)


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(InputError, match="at least 0 and below 1"):
        Encoder.from_pretrained("bundled", dropout=rate)


def test_a_pass_without_dropout_leaves_the_mode_of_each_part(tmp_path: Path):
    """As of a backbone that a user has put into evaluation mode for good."""
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model")).train()
    encoder.backbone.encoder.eval()
    before = {name: part.training for name, part in encoder.named_modules()}
    encoder.embed(encoder.tokenize(TEXTS[:2]), dropout=False)
    assert {name: part.training for name, part in encoder.named_modules()} == before
