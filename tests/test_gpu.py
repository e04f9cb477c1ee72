"""What a GPU computes in a way of its own, beside the plain way on the same GPU. Not collected where there is none."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.tiny import TEXTS
from transformers import set_seed

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, SimCSE
from textcl.encoder import Encoder
from textcl.encoder.backbone import compile_layers
from textcl.encoder.batching import on_device
from textcl.encoder.forward import embed_slice, takes_packed_rows
from textcl.encoder.graphs import Graphs
from textcl.errors import InputError
from textcl.evaluation.logistic import first_weights
from textcl.losses.info_nce import info_nce

ROWS = (TEXTS * 20)[:400]


def encoder(dropout: float = 0.0, **options) -> Encoder:
    made = Encoder.from_pretrained("bundled", dropout=dropout, max_length=64, **options)
    assert made.device.type == "cuda"
    assert takes_packed_rows(made)
    return made


def on_gpu(made: Encoder, texts=ROWS) -> dict[str, torch.Tensor]:
    return on_device(made.tokenize(texts), made.device)


def gradients(made: Encoder, bf16: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    made.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        embeddings = made.embed(on_gpu(made))
    (embeddings * torch.arange(embeddings.shape[1], device=made.device)).sum().backward()
    own = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
    return embeddings.detach(), torch.cat(own)


def close(found: torch.Tensor, expected: torch.Tensor, rounding: float) -> bool:
    return bool((found - expected).norm() < rounding * expected.norm())


@pytest.mark.parametrize(("bf16", "rounding"), [(False, 1e-5), (True, 0.02)])
def test_rows_end_to_end_give_vectors_and_gradients_of_padded_rows(monkeypatch, bf16, rounding):
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"cuda": 0})
    found = gradients(encoder().train(), bf16)
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {})
    expected = gradients(encoder().train(), bf16)
    assert close(found[0], expected[0], rounding)
    assert close(found[1], expected[1], 3 * rounding)


@pytest.mark.parametrize("least", [0, 10**9])
def test_the_gradient_cache_replays_dropout(monkeypatch, least):
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"cuda": least})
    made = encoder(dropout=0.1).train()
    made.slicing.token_budget = 4096
    expected = gradients(made)
    made.slicing.gradient_cache = True
    found = gradients(made)
    assert torch.equal(found[0], expected[0])
    assert close(found[1], expected[1], 1e-5)


@pytest.mark.parametrize("least", [0, 10**9])
def test_compiled_layers_give_the_same(monkeypatch, least):
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"cuda": least})
    made = encoder().train()
    expected = gradients(made)
    compile_layers(made.backbone)
    found = gradients(made)
    assert close(found[0], expected[0], 1e-4)
    assert close(found[1], expected[1], 1e-3)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_give_vectors_and_gradients_of_launched_operations(bf16, dropout, compiled):
    plain, recorded = (encoder(dropout).train() for _ in range(2))
    recorded.slicing.graphs = Graphs()
    if compiled:
        for each in (plain, recorded):
            compile_layers(each.backbone)
    found: dict[str, list[torch.Tensor]] = {"plain": [], "recorded": []}
    for name, made in (("plain", plain), ("recorded", recorded)):
        torch.manual_seed(0)
        for texts in (ROWS[:64], ROWS[64:128], ROWS[100:164], ROWS[:30]):  # gradients of all add up
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                embeddings = made.embed(on_gpu(made, texts))
            (embeddings * torch.arange(embeddings.shape[1], device=made.device)).sum().backward()
            found[name].append(embeddings.detach())
        found[name].append(torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None]))
    assert 2 <= len(recorded.slicing.graphs.recorded) <= 4
    for ours, theirs in zip(found["recorded"], found["plain"], strict=True):
        assert close(ours, theirs, 0.03 if bf16 else 1e-4)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_run_with_graphs_is_a_run_without(tmp_path, accumulated):
    weights = []
    for graphs in (False, True):
        set_seed(0)
        method = SimCSE(encoder(dropout=0.1))
        args = ContrastiveTrainingArguments(
            tmp_path / str(graphs), max_steps=6, save_strategy="no", cuda_graphs=graphs, learning_rate=1e-3,
            per_device_train_batch_size=32, gradient_accumulation_steps=accumulated, bf16=False,
        )  # fmt: skip
        ContrastiveTrainer(method, args, Dataset.from_dict({"text": ROWS * 2})).train()
        assert (method.encoder.slicing.graphs is not None) == graphs
        weights.append(torch.cat([each.detach().flatten() for each in method.parameters()]))
    untouched = torch.cat([each.detach().flatten() for each in SimCSE(encoder(dropout=0.1)).encoder.parameters()])
    change = (weights[0][: len(untouched)] - untouched).norm()
    assert (weights[1] - weights[0]).norm() < 0.02 * change


def test_encode_gives_on_the_gpu_what_it_gives_on_the_processor():
    made = encoder()
    found = made.encode(ROWS)
    assert np.abs(found - made.cpu().encode(ROWS)).max() < 1e-4


def test_tokens_and_batches_on_the_cpu_are_moved():
    made = encoder(dropout=0.1)
    assert made.embed(made.tokenize(ROWS[:4])).device.type == "cuda"
    method = SimCSE(made).train()
    method(**method.collator()([{"text": text} for text in ROWS[:8]]))["loss"].backward()


def test_a_classifier_for_a_score_leaves_the_random_numbers_of_the_gpu():
    before = torch.cuda.get_rng_state()
    first_weights(4, 2, seed=7)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_slice_waits_for_nothing(monkeypatch):
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"cuda": 0})
    made = encoder(dtype=torch.bfloat16)
    tokens, plain = on_gpu(made), made.tokenize(ROWS)
    lengths = plain["attention_mask"].sum(dim=1)
    embed_slice(made, tokens, lengths)  # the backbone is probed here, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        embed_slice(made, tokens, lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_tiles_give_the_loss_and_the_gradient_of_the_matrix():
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(300, 32, generator=generator, dtype=torch.double) for _ in range(2)]

    def of(device: str, chunk_size: int | None) -> list[torch.Tensor]:
        queries, keys = (each.to(device).requires_grad_() for each in pair)
        loss = info_nce(queries, keys, chunk_size=chunk_size)
        return [loss.detach().cpu(), *(each.cpu() for each in torch.autograd.grad(loss, (queries, keys)))]

    for found, expected in zip(of("cuda", 64), of("cpu", None), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("save_steps", [2, 100])
def test_a_loss_that_is_not_finite_stops_the_run_before_a_checkpoint(tmp_path, save_steps):
    method = SimCSE(encoder(dropout=0.1), head="none")
    forward, steps = method.forward, itertools.count(1)

    def broken(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        return {**outputs, "loss": outputs["loss"] * (float("nan") if next(steps) == 4 else 1)}

    method.forward = broken
    args = ContrastiveTrainingArguments(tmp_path, max_steps=6, save_steps=save_steps, save_strategy="steps")
    with pytest.raises(InputError, match="loss became nan at step 4"):
        ContrastiveTrainer(method, args, Dataset.from_dict({"text": ROWS})).train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == ({"checkpoint-2"} if save_steps == 2 else set())
