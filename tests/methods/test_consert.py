"""ConSERT: its objectives by loops, the adversarial view, and what it refuses."""

import math

import pytest
import torch
import transformers
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.losses.classification import classification
from textcl.methods import ConSERT

LABELLED = [{"text": TEXTS[i], "positive": TEXTS[-i - 1], "label": i % 3} for i in range(6)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def method_of(directory, dropout=0.0, **options):
    transformers.set_seed(0)
    return ConSERT(Encoder.from_pretrained(directory, dropout=dropout).double(), **options).double()


def rows(count=6):
    return [{"text": TEXTS[7 * i]} for i in range(count)]


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_contrastive(first, second, temperature):
    """Eq. 1 of the paper over its 2N views: each finds its other one among 2N - 1; the authors' two means, added."""
    views = [*first.tolist(), *second.tolist()]
    count = len(first)
    total = 0.0
    for i, view in enumerate(views):
        scores = [math.exp(cosine(view, other) / temperature) for j, other in enumerate(views) if j != i]
        total -= math.log(math.exp(cosine(view, views[(i + count) % (2 * count)]) / temperature) / sum(scores))
    return total / count


def slow_supervised(first, second, labels, weight, bias):
    """Eq. 2, with the square of the maximum that the authors' scripts add: a softmax by hand."""
    total = 0.0
    for u, v, label in zip(first.tolist(), second.tolist(), labels.tolist(), strict=True):
        features = [*u, *v, *(abs(a - b) for a, b in zip(u, v, strict=True))]
        features += [max(a, b) ** 2 for a, b in zip(u, v, strict=True)]
        logits = [
            sum(w * f for w, f in zip(row, features, strict=True)) + b
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        total -= logits[label] - math.log(sum(math.exp(logit) for logit in logits))
    return total / len(labels)


def test_the_unsupervised_loss_is_equation_1(directory):
    method = method_of(directory, first_view="feature_cutoff:0.2", second_view="shuffle", contrastive_weight=0.5)
    batch = method.collator()(rows())
    torch.manual_seed(5)
    first, second = method.embed(batch).chunk(2)
    assert not torch.allclose(first, second)
    torch.manual_seed(5)  # the same cutoffs and permutations
    assert method(**batch)["loss"].item() == pytest.approx(0.5 * slow_contrastive(first, second, 0.1), abs=1e-10)


def test_views_with_nothing_in_them_and_no_dropout_leave_no_alignment(directory):
    method = method_of(directory, first_view="token_cutoff:0", second_view="plain").train()
    first, second = method.embed(method.collator()(rows())).chunk(2)
    assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("objective", ["supervised", "joint"])
def test_the_supervised_and_the_joint_loss_are_the_papers(directory, objective):
    method = method_of(directory, first_view="plain", second_view="reordering", objective=objective)
    method.hooked = True
    batch = method.collator()(LABELLED)
    parts = method.embed(batch).chunk(6 if objective == "joint" else 2)
    classifier = method.classifier
    expected = slow_supervised(parts[0], parts[1], batch["label"], classifier.weight, classifier.bias)
    got = method(**batch)
    assert got["supervised"].item() == pytest.approx(expected, abs=1e-10)
    if objective == "joint":
        contrastive = slow_contrastive(parts[2], parts[3], 0.1) + slow_contrastive(parts[4], parts[5], 0.1)
        expected += 0.15 * contrastive
        premises = method.encoder.tokenizer([row["text"] for row in LABELLED])["input_ids"]
        rows_of_view = [row[: len(ids)].tolist() for row, ids in zip(batch["input_ids"][12:18], premises, strict=True)]
        assert rows_of_view == premises
        assert not torch.equal(parts[4], parts[5])
    assert got["loss"].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_classified_in_float32(dtype):
    logits = (20 * torch.randn(9, 3, generator=torch.Generator().manual_seed(1))).to(dtype)
    labels = torch.arange(9) % 3
    found = classification(logits, labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(classification(logits.double(), labels).item(), rel=1e-5)


def test_the_adversarial_view_climbs_the_supervised_loss(directory):
    """Of all steps of that length per token, the gradient's raises the loss most to first order; random ones less."""
    method = method_of(
        directory, first_view="plain", second_view="adversarial", objective="joint", noise_norm=1e-3
    ).eval()
    with torch.no_grad():
        method.classifier.weight.mul_(30)
    batch = method.collator()(LABELLED)
    adversarial = method._perturbation(batch)
    plain = {name: tensor[batch["view"] < 2] for name, tensor in batch.items() if name != "label"}
    moved = adversarial[(batch["view"] == 3) | (batch["view"] == 5)]
    norms = moved.norm(dim=2)
    real = plain["attention_mask"].bool()
    assert torch.allclose(norms[real], torch.tensor(1e-3))
    assert not adversarial[(batch["view"] != 3) & (batch["view"] != 5)].any()

    def loss(perturbation):
        with torch.no_grad():
            first, second = method.encoder.embed(plain, perturbation=perturbation).chunk(2)
            return method._supervised(first, second, batch["label"]).item()

    here = loss(torch.zeros_like(moved))
    gain = loss(moved) - here
    assert gain > 0
    assert loss(-moved) < here
    for seed in range(5):
        noise = torch.randn(moved.shape, generator=torch.Generator().manual_seed(seed))
        assert loss(1e-3 * torch.nn.functional.normalize(noise, dim=2)) - here < 0.6 * gain
    assert all(parameter.grad is None for parameter in method.parameters())


def test_training_pools_the_mean_and_testing_the_last_two_layers(directory, tmp_path):
    method = method_of(directory)
    method.test_pooling = "last2"
    method.export(tmp_path / "export")
    assert Encoder.from_pretrained(tmp_path / "export").pooling == "last2"
    assert method.encoder.pooling == "mean"


def test_bad_input(directory, tmp_path):
    with pytest.raises(InputError, match="needs objective=joint"):
        method_of(directory, second_view="adversarial")
    with pytest.raises(InputError, match="unsupervised, supervised or joint"):
        method_of(directory, objective="both")
    with pytest.raises(InputError, match="this model has none"):
        method_of(directory, first_view="plain", second_view="plain").collator()(rows())
    with pytest.raises(InputError, match="needs a column 'positive'"):
        method_of(directory, objective="joint").collator()(rows())
    mpnet = tiny_encoder_directory(tmp_path / "mpnet", "mpnet")
    with pytest.raises(InputError, match="mpnet"):
        method_of(mpnet)


def test_a_label_as_large_as_the_number_of_classes_is_refused(directory):
    rows = Dataset.from_list([{"text": "a", "positive": "b", "label": label} for label in (0, 3)])
    with pytest.raises(InputError, match="set --classes to 4"):
        method_of(directory, objective="joint", classes=3).prepare_corpus(rows)
    assert len(method_of(directory, objective="joint", classes=4).prepare_corpus(rows)) == 2


def test_plain_views_without_dropout_in_training_are_refused(directory):
    options = {"first_view": "plain", "second_view": "plain"}
    method_of(directory, dropout=0.1, **options).collator()(rows())
    with pytest.raises(InputError, match="both would be equal"):
        method_of(directory, dropout=0.1, dropout_in_training=False, **options).collator()(rows())
