"""BERT-CT and CT in-batch: the loss by loops, what a batch holds, and which tower is exported."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from oracles import slow_contrastive_tension
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.contrastive_tension import contrastive_tension
from textcl.methods import BertCT, CTInBatch
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def rows(count):
    return [{"text": text} for text in TEXTS[:count]]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_binary_cross_entropy_of_the_dot_products():
    first, second = random(9, 4), random(9, 4, seed=1)
    identical = torch.arange(9) % 3 == 0
    expected = slow_contrastive_tension(first, second, identical)
    assert contrastive_tension(first, second, identical).item() == pytest.approx(expected, abs=1e-10)
    order = torch.randperm(9)
    moved = contrastive_tension(first[order], second[order], identical[order])
    assert moved.item() == pytest.approx(expected, abs=1e-10)
    assert contrastive_tension(second, first, identical).item() == pytest.approx(expected, abs=1e-10)


def test_closed_forms_extremes_and_gradient():
    identical = torch.tensor([True, False])
    assert contrastive_tension(torch.zeros(2, 3), torch.zeros(2, 3), identical).item() / 2 == pytest.approx(math.log(2))
    far = torch.tensor([[1e3], [-1e3]])  # logits of a million: no infinity, and no loss where the sign is right
    assert contrastive_tension(far, far.abs(), identical).item() == 0
    assert contrastive_tension(-far, far.abs(), identical).item() == pytest.approx(2e6)
    first, second = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: contrastive_tension(a, b, torch.arange(4) < 2), (first, second))
    assert contrastive_tension(first.bfloat16(), second.bfloat16(), torch.arange(4) < 2).dtype == torch.float32


# -- the batch --------------------------------------------------------------------------------------------------------


def pairs_of(method, count):
    """(text of the first tower, text of the second, identical) of each pair of a batch."""
    batch = method.collator()(rows(count))
    decoded = method.encoder.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    texts = [text.replace(" ##", "") for text in decoded]
    assert (batch["view"][batch["pair"]] == torch.tensor([0, 1])).all()
    for view in (0, 1):  # each tower reads a text once
        read = [text for text, of in zip(texts, batch["view"].tolist(), strict=True) if of == view]
        assert len(read) == len(set(read))
    pairs = batch["pair"].tolist()
    return [(texts[a], texts[b], same) for (a, b), same in zip(pairs, batch["identical"].tolist(), strict=True)]


@pytest.mark.parametrize("negatives", ["independent", "anchored", "consecutive"])
def test_a_group_has_one_identical_pair_and_k_others(directory, negatives):
    method = BertCT(Encoder.from_pretrained(directory), negatives=negatives)
    of_group = 15 if negatives == "consecutive" else 8
    pairs = pairs_of(method, 2 * of_group + 3)  # three rows fill no group
    assert len(pairs) == 16
    for start in (0, 8):
        group = pairs[start : start + 8]
        assert [same for _, _, same in group] == [True, *[False] * 7]
        assert all((first == second) == same for first, second, same in group)
        if negatives == "anchored":
            assert {first for first, _, _ in group} == {group[0][0]}
            assert len({second for _, second, _ in group}) == 8
        else:
            assert len({first for first, _, _ in group}) == 8
    if negatives == "consecutive":
        read = [text for first, second, same in pairs for text in ([first] if same else [first, second])]
        assert read == TEXTS[:30]


def test_independent_negatives_come_from_the_whole_batch_and_change_with_the_epoch(directory):
    method = BertCT(Encoder.from_pretrained(directory))
    collator = method.collator()

    def drawn():
        batch = collator(rows(160))
        return batch["group"][batch["pair"]]

    pairs = drawn()
    apart = (pairs[:, 1] - pairs[:, 0])[pairs[:, 0] % 8 != 0] % 160
    assert (apart > 0).all()
    assert len(set(apart.tolist())) > 60
    assert abs(apart.double().mean() - 80) < 12
    collator.set_epoch(1)
    assert not torch.equal(drawn(), pairs)


def test_bad_input(directory):
    encoder = Encoder.from_pretrained(directory)
    with pytest.raises(InputError, match="takes 15 rows, and the batch has 8"):
        BertCT(encoder, negatives="consecutive").collator()(rows(8))
    with pytest.raises(InputError, match="independent, anchored, consecutive, not 'all'"):
        BertCT(encoder, negatives="all").collator()
    with pytest.raises(InputError, match="mean or sum"):
        BertCT(encoder, reduction="none")
    with pytest.raises(InputError, match="best_on_dev, first, second or average"):
        CTInBatch(encoder, keep="last")


# -- towers -----------------------------------------------------------------------------------------------------------


def test_towers_start_equal_and_dropout_is_off(directory):
    method = BertCT(Encoder.from_pretrained(directory)).train()
    batch = method.collator()(rows(16))
    with torch.no_grad():
        once, twice = method.embed(batch), method.embed(batch)
        assert torch.equal(once, twice)
        first, second = once[batch["pair"][batch["identical"]]].unbind(dim=1)
        assert torch.allclose(first, second, atol=1e-6)
        method.dropout_in_training = True
        assert not torch.equal(method.embed(batch), once)
    assert all(module.training for module in method.modules())


def test_loss_of_both_methods_is_that_of_the_towers_own_vectors(directory):
    transformers.set_seed(1)
    method = BertCT(Encoder.from_pretrained(directory).double(), negatives="anchored").double()
    for parameter in method.second.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    texts = TEXTS[:8]
    first = torch.tensor(method.encoder.encode(texts))
    second = torch.tensor(method.second.encode(texts))
    expected = slow_contrastive_tension(first[:1].expand(8, -1), second, torch.arange(8) == 0) / 8
    assert method.eval()(**method.collator()(rows(8)))["loss"].item() == pytest.approx(expected, abs=1e-9)

    in_batch = CTInBatch(Encoder.from_pretrained(directory).double(), temperature=0.1).double().eval()
    in_batch.second.load_state_dict(method.second.state_dict())
    cosine = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=-1) / 0.1
    target = torch.arange(8)
    both = [torch.nn.functional.cross_entropy(scores, target) for scores in (cosine, cosine.T)]
    got = in_batch(**in_batch.collator()(rows(8)))["loss"].item()
    assert got == pytest.approx(sum(both).item() / 2, abs=1e-7)  # the learned 1/τ is kept in float32


@pytest.mark.parametrize("keep", ["best_on_dev", "first", "second", "average"])
def test_the_tower_that_is_asked_for_is_scored_and_exported(directory, tmp_path, keep):
    class LikesTheSecond:
        """Prefers the tower whose first bias has moved up, which the test moves in the second alone."""

        name = "bias"

        def __call__(self, encoder):
            return SimpleNamespace(primary=float(encoder.backbone.embeddings.LayerNorm.bias.detach().mean()))

    transformers.set_seed(0)
    method = CTInBatch(Encoder.from_pretrained(directory), keep=keep)
    method.second.backbone.embeddings.LayerNorm.bias.data += 0.5
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"), use_cpu=True, bf16=False, max_steps=2, per_device_train_batch_size=8, eval_steps=1
    )
    trainer = ContrastiveTrainer(method, args, Dataset.from_list(rows(64)), evaluators=[LikesTheSecond()])
    trainer.train()
    towers = {"first": method.encoder, "second": method.second}
    vectors = {name: tower.encode(TEXTS[:4]) for name, tower in towers.items()}
    method.export(tmp_path / "export")
    exported = Encoder.from_pretrained(tmp_path / "export").encode(TEXTS[:4])
    if keep == "average":
        assert all(np.abs(exported - of).max() > 1e-3 for of in vectors.values())
        words = [tower.word_embeddings.weight.detach() for tower in towers.values()]
        average = Encoder.from_pretrained(tmp_path / "export").word_embeddings.weight
        assert torch.allclose(average, (words[0] + words[1]) / 2, atol=1e-7)
    else:
        assert np.array_equal(exported, vectors["second" if keep == "best_on_dev" else keep])
    scores = [entry["eval_bias"] for entry in trainer.state.log_history if "eval_bias" in entry]
    expected = {"best_on_dev": 0.5, "first": 0.0, "second": 0.5, "average": 0.25}[keep]
    assert scores == pytest.approx([expected] * len(scores), abs=0.01)


def test_a_tower_without_a_score_is_not_the_better_one(directory, tmp_path):
    class OfTheSecondAlone:
        name = "second"

        def __call__(self, encoder):
            moved = bool(encoder.backbone.embeddings.LayerNorm.bias.detach().mean() > 0.2)
            return SimpleNamespace(primary=1.0 if moved else math.nan)

    method = CTInBatch(Encoder.from_pretrained(directory))
    method.second.backbone.embeddings.LayerNorm.bias.data += 0.5
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=8, eval_steps=1
    )
    ContrastiveTrainer(method, args, Dataset.from_list(rows(16)), evaluators=[OfTheSecondAlone()]).train()
    assert bool(method.better_tower)


def test_keras_optimizer_and_its_piecewise_rate(directory, tmp_path):
    """RMSprop with ρ = 0.9 and ε = 1e-7, and a rate that changes at the steps named, through the Trainer's hooks."""
    args = ContrastiveTrainingArguments(
        str(tmp_path / "run"),
        use_cpu=True,
        bf16=False,
        max_steps=7,
        per_device_train_batch_size=16,
        optim="rmsprop",
        optim_args="alpha=0.9,eps=1e-7",
        learning_rate=1e-5,
        learning_rate_pieces=["5:6e-6", "3:8e-6"],
        logging_steps=1,
    )
    trainer = ContrastiveTrainer(BertCT(Encoder.from_pretrained(directory)), args, Dataset.from_list(rows(128)))
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, torch.optim.RMSprop)
    assert {(group["alpha"], group["eps"]) for group in trainer.optimizer.param_groups} == {(0.9, 1e-7)}
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([1e-5] * 3 + [8e-6] * 2 + [6e-6] * 2)
    with pytest.raises(InputError, match="such as 500:8e-6, not soon"):
        ContrastiveTrainingArguments(str(tmp_path / "run"), learning_rate_pieces=["soon"])


def test_gradient_checkpointing_reaches_both_towers_and_changes_no_gradient(directory):
    gradients = []
    for checkpointing in (False, True):
        transformers.set_seed(0)
        method = CTInBatch(Encoder.from_pretrained(directory)).train()
        method.hooked = True
        if checkpointing:
            method.gradient_checkpointing_enable()
        torch.manual_seed(1)  # of the dropout masks
        method(**method.collator()(rows(8)))["loss"].backward()
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
    for tower in (method.encoder, method.second):
        assert any(getattr(module, "gradient_checkpointing", False) for module in tower.backbone.modules())
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7), name
