"""Linear layers by oneDNN: the values and gradients of torch's, but for rounding."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory
from torch import nn

from textcl import Encoder
from textcl.device import can_order_weights, halves_float32, has_bf16
from textcl.encoder.linear import Linear, Ordered, multiply_fast, order_weights
from textcl.methods import SimCSE

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")


def fast(layer: nn.Linear) -> nn.Linear:
    layer = copy.deepcopy(layer)
    layer.__class__ = Linear
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (40, 7), (3, 5, 7), (2, 3, 5, 7)])
def test_values_and_gradients_are_those_of_doubles_but_for_rounding(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(7, 11, bias=bias), torch.randn(shape)
    outputs = []
    for each, dtype in ((fast(layer), torch.float32), (copy.deepcopy(layer).double(), torch.float64)):
        input = rows.to(dtype).requires_grad_()
        output = each(input)
        wanted = [input, *each.parameters()]
        gradients = torch.autograd.grad((output**3).sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum((gradient**2).sum() for gradient in gradients), wanted)
        outputs.append([output, *gradients, *second])
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(
            found.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max())
        )


@pytest.mark.parametrize("shape", [(7,), (40, 7), (3, 5, 7)])
def test_a_backbone_may_change_the_output_in_place(shape: tuple[int, ...]) -> None:
    """As Longformer does, which divides its queries by a root."""
    torch.manual_seed(0)
    layer, rows = nn.Linear(7, 11), torch.randn(shape)
    gradients = []
    for each in (fast(layer), layer):
        output = each(rows)
        output /= 3
        (output**2).sum().backward()
        gradients.append(each.weight.grad)
    torch.testing.assert_close(*gradients)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layer = fast(nn.Linear(3, 4)).requires_grad_(False)
    rows = torch.ones(2, 3, requires_grad=True)
    layer(rows).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(rows.grad, layer.weight.sum(dim=0).expand(2, 3))


def test_other_types_autocast_and_no_rows_are_left_to_torch() -> None:
    layer = nn.Linear(5, 6)
    assert torch.equal(
        fast(layer).double()(torch.ones(2, 5).double()), copy.deepcopy(layer).double()(torch.ones(2, 5).double())
    )
    assert fast(layer)(torch.ones(0, 5)).shape == (0, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast(layer)(torch.ones(2, 5))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, layer(torch.ones(2, 5)))


@pytest.mark.parametrize("there", [False, True])
def test_a_backbone_is_changed_only_where_it_is_faster(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcl.encoder.linear.halves_float32", lambda: there)
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 2), nn.Embedding(4, 2)))
    keys = list(model.state_dict())
    multiply_fast(model)
    assert [type(each) for each in (model[0], model[1][0])] == [Linear if there else nn.Linear] * 2
    assert list(model.state_dict()) == keys
    if not halves_float32():
        monkeypatch.undo()
        model = nn.Linear(2, 3)
        multiply_fast(model)
        assert type(model) is nn.Linear


def test_an_encoder_gives_the_same_vectors_and_training_the_same_losses(tmp_path: Path) -> None:
    directory = tiny_encoder_directory(tmp_path / "model", dropout=0.1)

    def trained(kind: type[nn.Linear]) -> tuple[torch.Tensor, list[float]]:
        torch.manual_seed(0)
        encoder = Encoder.from_pretrained(directory)
        for module in encoder.backbone.modules():
            if isinstance(module, nn.Linear):
                module.__class__ = kind
        vectors = encoder.encode(TEXTS[:6], normalize=True, convert_to="tensor")
        method = SimCSE(encoder).train()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        batch = method.collator()([{"text": text} for text in TEXTS[:6]])
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = method(**batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return vectors, losses

    (found, ours), (expected, theirs) = trained(Linear), trained(nn.Linear)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16")
def test_ordered_weights_give_the_same_vectors_and_leave_the_encoder_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"), device="cpu")
    kinds = [type(module) for module in encoder.backbone.modules()]
    ordered = []
    monkeypatch.setattr(
        "textcl.encoder.encoding.order_weights", lambda copy: (order_weights(copy), ordered.append(copy))
    )  # the real one, and what it was given
    expected = encoder.encode(TEXTS[:40], bf16=True)
    rounding = np.abs(encoder.encode(TEXTS[:40]) - expected).max()
    assert not ordered, "few texts"
    monkeypatch.setattr("textcl.encoder.encoding.ORDER_WEIGHTS_FROM", 40)
    found = encoder.encode(TEXTS[:40], bf16=True)
    assert np.abs(found - expected).max() <= rounding  # the same bits on AMD's CPUs
    (copy,) = ordered
    linear = [module for module in copy.modules() if isinstance(module, nn.Linear)]
    assert all(type(module) is Ordered for module in linear) == can_order_weights()
    assert [type(module) for module in encoder.backbone.modules()] == kinds
    with torch.no_grad():  # a later call sees later weights
        for module in encoder.backbone.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(1.5)
    changed = encoder.encode(TEXTS[:40], bf16=True)
    assert np.abs(changed - expected).max() > 10 * rounding
    monkeypatch.undo()
    assert np.abs(encoder.encode(TEXTS[:40], bf16=True) - changed).max() <= 2 * rounding


@pytest.mark.skipif(not (has_bf16() and can_order_weights()), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (0, 7), (1, 7), (300, 7), (3, 5, 7)])
def test_an_ordered_layer_is_the_layer_in_bfloat16(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(7, 11, bias=bias), torch.randn(shape)
    ordered = copy.deepcopy(layer)
    order_weights(ordered)
    assert type(ordered) is Ordered
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ordered(rows), layer(rows), rtol=1e-2, atol=1e-2)
        assert ordered(rows).dtype == torch.bfloat16
