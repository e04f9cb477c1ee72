"""One encoder, or one tokenizer, in several threads: the vectors are those of one thread."""

import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory
from torch import nn

from textcl import Encoder
from textcl.dropout import evaluation_copy
from textcl.encoder.export import quiet_transformers


def together(*works) -> list:
    """Runs functions in threads of their own, and returns what they raised."""
    raised = []

    def guarded(work) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("bert"))


def test_two_encoders_over_one_tokenizer_cut_each_at_its_own_length(directory):
    long = Encoder.from_pretrained(directory, pooling="cls")
    short = Encoder(long.backbone, long.tokenizer, "cls", 8)
    texts = [" ".join(TEXTS[i : i + 3]) for i in range(30)]
    expected = {encoder: encoder.encode(texts) for encoder in (long, short)}
    assert np.abs(expected[long] - expected[short]).max() > 1e-3

    def work(encoder):
        for _ in range(8):
            np.testing.assert_allclose(encoder.encode(texts), expected[encoder], atol=1e-5)

    assert together(*[lambda each=each: work(each) for each in (long, short) * 3]) == []


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "modernbert"])
def test_encoding_while_training_has_no_dropout_and_training_keeps_its_own(tmp_path, architecture):
    """`train` is called at every step, as transformers' trainer does, and every training pass draws dropout."""
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path, architecture, dropout=0.3))
    expected = encoder.encode(TEXTS[:20])
    encoder.train()
    tokens, stop, equal = encoder.tokenize(TEXTS[:8]), threading.Event(), []

    def train():
        for _ in range(25):
            encoder.train()
            one, other = (encoder.embed(tokens) for _ in range(2))
            equal.append(torch.equal(one, other))
            encoder.embed(tokens, dropout=False)
        stop.set()

    def encode():
        while not stop.is_set():
            np.testing.assert_allclose(encoder.encode(TEXTS[:20]), expected, atol=1e-5)

    assert together(train, encode, encode) == []
    assert encoder.training
    assert all(module.training for module in encoder.modules())
    assert not any(equal)


def test_an_evaluation_copy_shares_weights_but_neither_mode_nor_hooks():
    layers = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    layers.append(layers[0])  # a layer used twice
    copy = evaluation_copy(layers)
    assert copy[0] is copy[2]
    rows = torch.ones(4, 3)
    with torch.no_grad():
        layers[0].weight.mul_(2)
    layers.eval()
    torch.testing.assert_close(copy(rows), layers(rows))
    layers.train()
    assert torch.equal(copy(rows), copy(rows))
    layers[0].weight = nn.Parameter(torch.zeros(3, 3))
    assert not copy[0].weight.any()
    copy[0].register_forward_hook(lambda *given: pytest.fail("a hook of the copy ran"))
    layers(rows)
    copy.train()
    copy.eval()
    assert all(module.training for module in layers.modules())


def test_copies_leave_the_hidden_states_of_every_layer_single(directory):
    """transformers adds hooks in the first forward pass that asks for hidden states; a copy's are its own."""
    encoder = Encoder.from_pretrained(directory, pooling="first_last")
    encoder.encode(TEXTS[:2])
    tokens = {name: tensor for name, tensor in encoder.tokenize(TEXTS[:2]).items() if name != "lengths"}
    for _ in range(2):
        assert len(encoder.backbone(**tokens, output_hidden_states=True).hidden_states) == 4
        encoder.encode(TEXTS[:2])


def test_quiet_loads_in_threads_leave_the_verbosity_as_it_was():
    from transformers.utils import logging

    before, inside = logging.get_verbosity(), threading.Barrier(2, timeout=2)

    def load():
        with quiet_transformers(), suppress(threading.BrokenBarrierError):
            inside.wait()  # both at once, if they may

    assert together(load, load) == []
    assert logging.get_verbosity() == before
