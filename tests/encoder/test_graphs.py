"""What is recorded for a GPU, here on a CPU: a "graph" computes the same operations again on the same memory."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory
from torch import Tensor

from textcl.encoder import Encoder, graphs
from textcl.encoder.graphs import Graphs
from textcl.errors import InputError

SHORT, LONG = TEXTS[:8], [f"{first} {second}" for first, second in zip(TEXTS[8:16], TEXTS[16:24], strict=True)]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Encoder, Encoder]:
    """Two equal encoders in training, the second with graphs."""
    folder = tiny_encoder_directory(tmp_path / "bert")
    plain, recorded = (Encoder.from_pretrained(folder, device="cpu").train() for _ in range(2))
    recorded.slicing.graphs = Graphs()
    return plain, recorded


def embed(encoder: Encoder, texts: list[str] = SHORT, **options) -> Tensor:
    return encoder.embed(encoder.tokenize(texts), **options)


def backward(embeddings: Tensor) -> None:
    (embeddings * torch.arange(embeddings.numel()).view_as(embeddings)).sum().backward()


def shapes(encoder: Encoder) -> list[tuple[int, ...]]:
    assert encoder.slicing.graphs is not None
    return [tuple(graph._tokens["input_ids"].shape) for graph in encoder.slicing.graphs.recorded.values()]


def same(plain: Encoder, recorded: Encoder) -> None:
    for (name, expected), found in zip(plain.named_parameters(), recorded.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None), name
        if expected.grad is not None:
            assert torch.equal(found.grad, expected.grad), name


def test_gradients_add_up_over_batches_of_equal_and_of_other_shapes(pair):
    plain, recorded = pair
    for encoder in pair:
        torch.manual_seed(0)
        for texts in (SHORT, SHORT[::-1], LONG, SHORT):
            backward(embed(encoder, texts))
    same(plain, recorded)
    assert len(shapes(recorded)) == 2


def test_the_weights_of_the_last_step_count(pair):
    for encoder in pair:
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01)
        torch.manual_seed(0)
        for _ in range(3):
            backward(embed(encoder))
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    plain, recorded = pair
    assert len(shapes(recorded)) == 1
    for expected, found in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_recording_draws_no_random_numbers_and_each_step_draws_its_own(pair):
    plain, recorded = pair
    torch.manual_seed(0)
    expected = [embed(plain).detach() for _ in range(3)]
    torch.manual_seed(0)
    found = [embed(recorded).detach() for _ in range(3)]
    assert all(torch.equal(*each) for each in zip(found, expected, strict=True))
    assert not torch.equal(found[0], found[1])


def test_embeddings_and_gradients_stay_when_the_memory_of_the_graph_is_used_again(pair):
    _, recorded = pair
    recorded.eval()
    first = embed(recorded)
    kept = first.detach().clone()
    backward(first)
    gradients = [each.grad for each in recorded.parameters() if each.grad is not None]
    copies = [each.clone() for each in gradients]
    recorded.zero_grad()
    backward(embed(recorded, SHORT[::-1]))
    assert torch.equal(first, kept)
    assert all(torch.equal(*each) for each in zip(gradients, copies, strict=True))


def test_a_second_slice_before_the_backward_pass_is_computed_without_a_graph(pair):
    for encoder in pair:
        encoder.slicing.token_budget = 40
        torch.manual_seed(0)
        first, second = embed(encoder), embed(encoder, LONG)
        backward(first + second)
    plain, recorded = pair
    same(plain, recorded)
    assert len(shapes(recorded)) == 1
    backward(embed(recorded, LONG))  # the first graph is free again
    assert len(shapes(recorded)) == 2


def test_a_forward_pass_without_a_backward_pass_frees_the_graph(pair):
    _, recorded = pair
    embed(recorded)
    embed(recorded, LONG)
    assert len(shapes(recorded)) == 2


def test_rows_with_and_without_padding_have_graphs_of_their_own(pair):
    plain, recorded = pair
    equal = [SHORT[0]] * 8
    for encoder in pair:
        torch.manual_seed(0)
        for texts in (equal, SHORT, equal):
            backward(embed(encoder, texts))
    same(plain, recorded)


def test_modes_dropout_and_precision_have_graphs_of_their_own(pair):
    plain, recorded = pair
    for encoder in pair:
        torch.manual_seed(0)
        backward(embed(encoder))
        backward(embed(encoder, dropout=False))
        backward(embed(encoder.eval()))
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = embed(encoder.train())
        backward(embeddings)
    same(plain, recorded)
    assert len(shapes(recorded)) == 4


def test_weights_are_cast_again_in_each_step(pair):
    for encoder in pair:
        torch.manual_seed(0)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                embeddings = embed(encoder)
            backward(embeddings)
            with torch.no_grad():
                for each in encoder.parameters():
                    each.mul_(1.1)
    same(*pair)


def test_weights_at_another_place_are_recorded_anew(pair):
    plain, recorded = pair
    for encoder in pair:
        backward(embed(encoder, dropout=False))
        weight = encoder.backbone.encoder.layer[0].output.dense.weight
        weight.data = weight.data * 2
        backward(embed(encoder, dropout=False))
    same(plain, recorded)


def test_what_a_graph_cannot_repeat_is_computed_without_one(pair):
    _, recorded = pair
    views = recorded.prepare_views("token_cutoff:0.2", "plain")
    tokens = recorded.tokenize(SHORT)
    recorded.embed({**tokens, "view": torch.arange(8) % 2}, views=views)
    recorded.embed(tokens, perturbation=torch.zeros(*tokens["input_ids"].shape, recorded.word_embeddings.embedding_dim))
    recorded.embed_masked(tokens, torch.full_like(tokens["input_ids"], 5))
    recorded.embed({**tokens, "attention_mask": tokens["attention_mask"] * (torch.arange(8) > 0)[:, None]})
    with torch.no_grad():
        recorded.embed(tokens)
    assert shapes(recorded) == []


def test_shapes_beyond_the_limit_have_no_graph(pair, monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 1)
    plain, recorded = pair
    for encoder in pair:
        torch.manual_seed(0)
        for texts in (SHORT, LONG, SHORT):
            backward(embed(encoder, texts))
    same(plain, recorded)
    assert len(shapes(recorded)) == 1


def test_a_copy_has_its_own_graphs(pair):
    _, recorded = pair
    backward(embed(recorded))
    copied = copy.deepcopy(recorded)
    assert shapes(copied) == []
    backward(embed(copied))
    assert len(shapes(copied)) == len(shapes(recorded)) == 1


def test_a_second_backward_pass_is_an_error(pair):
    loss = embed(pair[1]).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass for each forward pass"):
        loss.backward()


def test_layers_that_are_dropped_at_random_are_refused(pair):
    pair[1].backbone.config.layerdrop = 0.1
    with pytest.raises(InputError, match="drops layers at random"):
        embed(pair[1])


def test_a_recording_that_gives_other_embeddings_is_refused(pair):
    numbers = itertools.count()

    def grow(module, args, output):
        output.last_hidden_state = output.last_hidden_state * (1 + next(numbers))

    pair[1].backbone.register_forward_hook(grow)
    with pytest.raises(InputError, match="gives other embeddings"):
        embed(pair[1])
