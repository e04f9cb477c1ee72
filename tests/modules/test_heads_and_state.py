"""Batch norm, projectors, the queue, the slowly moving copy, the prototypes."""

import collections
import itertools
import random
import types

import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForMaskedLM, Trainer

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import SimCSE
from textcl.modules.heads import BatchNorm, mlp
from textcl.modules.masked_language_model import MaskedLanguageModelHead
from textcl.modules.prototypes import Prototypes
from textcl.modules.queue import Queue
from textcl.modules.target import Target, cosine_momentum


def rows_of(rows=6, dim=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, dim, generator=generator, dtype=torch.float64) + 1


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


# -- the masked-word head ---------------------------------------------------------------------------------------------


def save_model(path, model, **options):
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = AutoConfig.for_model(model, **{"vocab_size": 120, "pad_token_id": 1, **size, **options})
    AutoModelForMaskedLM.from_config(config).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)


@pytest.mark.parametrize("model", ["bert", "roberta", "mpnet"])
def test_the_activation_of_the_head_is_the_models_whatever_the_blocks_use(model, tmp_path):
    """RoBERTa's and MPNet's heads have gelu; `from_encoder` refuses a head that predicts other words than the model."""
    save_model(tmp_path, model, hidden_act="relu")
    head = MaskedLanguageModelHead.from_encoder(Encoder.from_pretrained(tmp_path, device="cpu"))
    assert head.activation(torch.tensor(-1.0)).item() == pytest.approx(0.0 if model == "bert" else -0.1587, abs=1e-4)


@pytest.mark.parametrize(("model", "options"), [("bert", {"tie_word_embeddings": False}), ("eurobert", {})])
def test_a_head_of_another_kind_is_refused(model, options, tmp_path):
    """Words that have other vectors in the output layer, and a head without a layer of its own."""
    save_model(tmp_path, model, **options)
    with pytest.raises(InputError, match=r"masked-word head of .* is built in a way"):
        SimCSE(Encoder.from_pretrained(tmp_path), mlm_weight=0.1)


def test_an_encoder_in_half_precision_learns_masked_words_without_autocast(directory):
    """The head is in float32, as all heads are."""
    terms = []
    for dtype in (torch.float32, torch.bfloat16):
        encoder = Encoder.from_pretrained(directory, dtype=dtype, dropout=0.0, device="cpu")
        method = SimCSE(encoder, second_view="crop_away", mlm_weight=0.5)
        method.hooked = True
        outputs = method(**method.collator()([{"text": text} for text in TEXTS[:8]]))
        outputs["loss"].backward()
        assert all(p.grad.isfinite().all() for p in method.mlm_head.parameters())
        terms.append(outputs["mlm"].item())
    assert terms[1] == pytest.approx(terms[0], rel=0.02)
    table, labels = encoder.word_embeddings.weight, torch.arange(90)
    hidden = torch.randn(90, 32, generator=torch.Generator().manual_seed(0))
    logits = method.mlm_head.logits(hidden, table)
    assert logits.dtype == torch.bfloat16
    exact = nn.functional.cross_entropy(logits.double(), labels).item()
    assert method.mlm_head(hidden, labels, table).item() == pytest.approx(exact, rel=1e-5), "computed in float32"


def test_a_static_encoder_has_no_masked_words():
    with pytest.raises(InputError, match="The architecture of small has no masked-word model"):
        SimCSE(Encoder.from_pretrained("small"), second_view="crop_away", mlm_weight=0.1)


# -- batch norm -------------------------------------------------------------------------------------------------------


def norms(affine):
    """Ours and torch's, with the same scale and shift."""
    own, theirs = BatchNorm(3, affine=affine).double(), nn.BatchNorm1d(3, affine=affine).double()
    if affine:
        with torch.no_grad():
            own.weight.copy_(torch.tensor([2.0, -1.0, 0.3]))
            own.bias.copy_(torch.tensor([0.5, 0.0, -4.0]))
            theirs.load_state_dict(own.state_dict(), strict=False)
    return own, theirs.train()


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_in_training_mode(affine):
    weights = rows_of(seed=1)
    results = []
    for norm in norms(affine):
        rows = rows_of().requires_grad_()
        out = norm(rows)
        (out * weights).square().sum().backward()
        results.append([out.detach(), rows.grad, *(parameter.grad for parameter in norm.parameters())])
    assert len(results[0]) == (4 if affine else 2)
    for own, theirs in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-10)


def test_batch_norm_has_no_state_and_is_the_same_in_evaluation_mode():
    norm = BatchNorm(3).double()
    assert not list(norm.buffers())
    assert torch.equal(norm.eval()(rows_of()), norm.train()(rows_of()))
    assert not list(BatchNorm(3, affine=False).parameters())


def test_batch_norm_of_one_row_is_refused():
    with pytest.raises(InputError, match="at least two rows"):
        BatchNorm(3)(torch.ones(1, 3))


def test_batch_norm_computes_half_types_in_float32_and_autocast_does_not_reach_inside():
    """A square of 300 overflows float16."""
    norm, rows = BatchNorm(3), 300 * rows_of().half()
    assert norm(rows).dtype == torch.float32
    torch.testing.assert_close(norm(rows).double(), norm.double()(rows.double()), rtol=0, atol=1e-5)
    norm = norm.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(rows), norm(rows.float()))


def norm_on(rank, counts):
    """Loss and gradients of this rank's rows; rank None: of all of them, in one process."""
    norm, _ = norms(affine=True)
    own = slice(0, sum(counts)) if rank is None else slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    rows = rows_of(sum(counts))[own].clone().requires_grad_()
    out = norm(rows)
    (out * rows_of(sum(counts), seed=1)[own]).square().sum().backward()
    return out.detach(), rows.grad, norm.weight.grad, norm.bias.grad


@pytest.mark.parametrize("counts", [(3, 5), (1, 1), (0, 4)])
def test_batch_norm_on_two_ranks_is_that_of_one_process(two_processes, counts):
    out, of_rows, of_weight, of_bias = norm_on(None, counts)
    first, second = two_processes(norm_on, counts)
    torch.testing.assert_close(torch.cat([first[0], second[0]]), out, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), of_rows, rtol=0, atol=1e-10)
    torch.testing.assert_close(first[2] + second[2], of_weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(first[3] + second[3], of_bias, rtol=0, atol=1e-10)


# -- projectors -------------------------------------------------------------------------------------------------------


def layers(head):
    """Each layer in a word: a linear one by its sizes and whether it has a bias, a norm by whether it is affine."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"{layer.in_features}>{layer.out_features}{'+b' * (layer.bias is not None)}")
        elif isinstance(layer, BatchNorm):
            words.append("norm" + "+a" * (layer.weight is not None))
        else:
            words.append(type(layer).__name__)
    return " ".join(words)


def test_the_layers_of_a_projector():
    assert layers(mlp([4, 5, 3])) == "4>5 norm+a ReLU 5>3+b"
    assert layers(mlp([4, 5, 3], batch_norm=False)) == "4>5+b ReLU 5>3+b"
    assert layers(mlp([4, 5, 3], last="no_bias")) == "4>5 norm+a ReLU 5>3"
    assert layers(mlp([4, 5, 6, 3], last="batch_norm")) == "4>5 norm+a ReLU 5>6 norm+a ReLU 6>3 norm"
    assert layers(mlp([4, 3])) == "4>3+b"


# -- queue ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 8])
def test_the_queue_holds_what_a_deque_would(size):
    sizes = random.Random(0)
    queue, expected = Queue(size, 2).double(), collections.deque(maxlen=size)
    full = size == 0
    number = itertools.count()
    for _ in range(60):
        pushed = [[float(next(number)), 1.0] for _ in range(sizes.choice([0, 1, 2, 3, 8, 13]))]
        queue.push(torch.tensor(pushed, dtype=torch.float64).reshape(-1, 2))
        expected.extend(pushed)
        full = full or len(expected) == size
        assert sorted(queue.read().tolist()) == sorted(expected)
        assert queue.is_full == full


def test_a_queue_goes_on_from_a_checkpoint():
    queue, again = Queue(5, 2), Queue(5, 2)
    queue.push(torch.arange(6.0).reshape(3, 2))
    again.load_state_dict(queue.state_dict())
    for pushed in (torch.zeros(1, 2), torch.ones(3, 2)):
        for each in (queue, again):
            each.push(pushed)
        assert torch.equal(queue.read(), again.read())
    assert queue.read().sum() == 6 + 4 + 5


def test_what_was_read_from_a_queue_stays_and_carries_no_gradient():
    queue = Queue(2, 2)
    queue.push((torch.ones(2, 2, requires_grad=True) * 3).bfloat16())
    read = queue.read()
    assert read.dtype == torch.float32
    assert not read.requires_grad
    queue.push(torch.zeros(1, 2))
    assert (read == 3).all()
    read.zero_()
    assert queue.read().sum() == 6


# -- target -----------------------------------------------------------------------------------------------------------


def parameters(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


@torch.no_grad()
def moved(*modules):
    for module in modules:
        for parameter in module.parameters():
            parameter.add_(0.1 + 0.1 * torch.rand_like(parameter))


def test_the_target_nears_a_standing_original_as_a_power_of_the_momentum(directory):
    encoder, projector = Encoder.from_pretrained(directory).double(), mlp([32, 4]).double()
    target = Target(encoder, projector)
    start = parameters(target)
    for own, other in zip(start, parameters(encoder, projector), strict=True):
        assert torch.equal(own, other)
    moved(encoder, projector)
    original = parameters(encoder, projector)
    for _ in range(3):
        target.update(encoder, projector, momentum=0.9)
    for own, before, other in zip(parameters(target), start, original, strict=True):
        torch.testing.assert_close(own, other + 0.9**3 * (before - other), rtol=0, atol=1e-10)
    for own, other in zip(parameters(encoder, projector), original, strict=True):
        assert torch.equal(own, other), "the original does not follow the copy"
    before = parameters(target)
    target.update(encoder, projector, momentum=1.0)
    assert all(torch.equal(a, b) for a, b in zip(parameters(target), before, strict=True))
    target.update(encoder, projector, momentum=0.0)
    for own, other in zip(parameters(target), original, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


def test_the_target_of_a_bfloat16_model_moves(directory):
    """A bfloat16 copy would not: one thousandth of the difference is less than half a unit in its last place."""
    encoder, projector = Encoder.from_pretrained(directory, dtype=torch.bfloat16), mlp([32, 4]).bfloat16()
    with torch.no_grad():
        projector[0].weight.fill_(1.0)
    target = Target(encoder, projector)
    assert {parameter.dtype for parameter in target.parameters()} == {torch.float32}
    with torch.no_grad():
        projector[0].weight.fill_(1.5)
    low = torch.ones(1, dtype=torch.bfloat16)
    for _ in range(100):
        target.update(encoder, projector, momentum=0.999)
        low.lerp_(torch.tensor([1.5], dtype=torch.bfloat16), 1 - 0.999)
    assert low.item() == 1.0
    torch.testing.assert_close(
        target.projector[0].weight, torch.full((4, 32), 1.5 - 0.5 * 0.999**100), rtol=0, atol=1e-5
    )


def test_the_target_gives_no_gradient_and_is_in_no_optimizer(directory):
    encoder, projector = Encoder.from_pretrained(directory), mlp([32, 4])
    target = Target(encoder, projector)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert not target.projector(target.embed(encoder.tokenize(TEXTS[:3]))).requires_grad
    assert all(parameter.requires_grad for parameter in projector.parameters()), "the original is trained all the same"
    assert next(encoder.parameters()).requires_grad


def test_the_target_has_dropout_if_it_is_asked_for(directory):
    encoder = Encoder.from_pretrained(directory)
    tokens = encoder.tokenize(TEXTS[:3])
    for dropout in (True, False):
        target = Target(encoder, mlp([32, 4]), dropout=dropout).train()
        assert torch.equal(target.embed(tokens), target.embed(tokens)) != dropout
        assert target.encoder.training


def test_the_momentum_rises_to_1_by_a_cosine():
    assert [cosine_momentum(0.9, step, 100) for step in (0, 50, 100)] == pytest.approx([0.9, 0.95, 1.0], abs=1e-12)
    assert cosine_momentum(0.9, 25, 100) == pytest.approx(1 - 0.1 * (1 + 0.5**0.5) / 2, abs=1e-12)


# -- prototypes -------------------------------------------------------------------------------------------------------


def test_prototypes_have_length_1_again_after_normalize():
    prototypes = Prototypes(5, 3).double()
    torch.testing.assert_close(prototypes.unit_norm.norm(dim=1), torch.ones(5, dtype=torch.float64))
    moved(prototypes)
    with torch.no_grad():
        prototypes.unit_norm[0] *= 7
    direction = nn.functional.normalize(prototypes.unit_norm, dim=1)
    prototypes.normalize()
    lengths = prototypes.unit_norm.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(prototypes.unit_norm, direction, rtol=0, atol=1e-12)
    rows = rows_of(4)
    expected = nn.functional.cosine_similarity(rows[:, None], prototypes.unit_norm[None], dim=2)
    torch.testing.assert_close(prototypes(rows), expected, rtol=0, atol=1e-10)


def test_the_cosines_with_prototypes_are_computed_in_float32_under_autocast():
    """In bfloat16 they are off by up to 0.004, which SwAV divides by an epsilon of some hundredths."""
    prototypes, rows = Prototypes(5, 3), rows_of(4).float()
    expected = prototypes(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prototypes(rows), expected)
        assert prototypes(rows.bfloat16()).dtype == torch.float32


def test_prototypes_have_no_weight_decay_in_transformers():
    module = nn.ModuleDict({"prototypes": Prototypes(5, 3), "projector": nn.Linear(4, 3)})
    assert Trainer.get_decay_parameter_names(types.SimpleNamespace(), module) == ["projector.weight"]
