"""CLEAR: its loss by loops, its head and masked words, and the token that it adds."""

import math

import numpy as np
import pytest
import torch
import transformers
from support.tiny import TEXTS, tiny_encoder_directory
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import CLEAR


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def method_of(directory, *views, **options):
    transformers.set_seed(0)
    method = CLEAR(Encoder.from_pretrained(directory, pooling="cls", dropout=0.0).double(), *views, **options).double()
    method.hooked = True
    return method


def rows(count=6):
    return [{"text": TEXTS[7 * i]} for i in range(count)]


def slow_sum(first, second, temperature):
    """Eq. 2: the sum over both orders of every pair of eq. 1, whose denominator leaves out the row itself."""
    views = torch.cat([first, second])
    views = (views / views.norm(dim=1, keepdim=True)).tolist()
    count = len(first)
    total = 0.0
    for i, view in enumerate(views):
        scores = [math.exp(sum(a * b for a, b in zip(view, other, strict=True)) / temperature) for other in views]
        total -= math.log(scores[(i + count) % (2 * count)] / (sum(scores) - scores[i]))
    return total


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_equation_2_behind_the_head_and_the_masked_words(directory, reduction):
    method = method_of(directory, "word_deletion:0.3", "reordering", reduction=reduction, mlm_weight=0.5)
    batch = method.collator()(rows())
    got = method(**batch)
    hidden = torch.relu(method.embed(batch) @ method.head[0].weight.T + method.head[0].bias)
    first, second = (hidden @ method.head[2].weight.T + method.head[2].bias).chunk(2)
    assert first.shape == (6, 128)
    contrastive = slow_sum(first, second, 0.1) / (1 if reduction == "sum" else 12)
    assert got["contrastive"].item() == pytest.approx(contrastive, abs=1e-9)
    model = AutoModelForMaskedLM.from_pretrained(directory).double().eval()
    tokens = {"input_ids": batch["mlm_input_ids"], "attention_mask": batch["mlm_attention_mask"]}
    logits = model(**tokens).logits
    deletion = torch.full_like(logits[..., :1], 0.0)  # one word more, at the mean of all: near enough for a bound
    labels = torch.from_numpy(batch["mlm_labels"])
    without = torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100]).item()
    with_it = torch.cat([logits, logits.mean(dim=-1, keepdim=True) + deletion], dim=-1)
    expected = torch.nn.functional.cross_entropy(with_it[labels != -100], labels[labels != -100]).item()
    assert without < got["mlm"].item() < expected + 0.01
    assert got["loss"].item() == pytest.approx(contrastive + 0.5 * got["mlm"].item(), abs=1e-9)


def test_masked_words_are_asked_for_in_the_text_before_its_operators(directory):
    method = method_of(directory, "word_deletion:0.9", "word_deletion:0.9")
    batch = method.collator()(rows())
    labels = torch.from_numpy(batch["mlm_labels"])
    restored = torch.where(labels != -100, labels, batch["mlm_input_ids"])
    expected = method.encoder.tokenize([row["text"] for row in rows()])["input_ids"]
    assert torch.equal(restored, expected.repeat(2, 1))
    assert batch["input_ids"].shape[1] < expected.shape[1]


def test_the_head_is_dropped_and_the_deletion_token_exported(directory, tmp_path):
    method = method_of(directory)
    vocabulary = len(method.encoder.tokenizer)
    method.export(tmp_path / "export")
    again = Encoder.from_pretrained(tmp_path / "export").double()
    assert again.head is None
    assert len(again.tokenizer) == again.word_embeddings.num_embeddings == vocabulary
    assert np.allclose(again.encode(TEXTS[:5]), method.encode(TEXTS[:5]), atol=1e-12)


def test_a_tokenizer_without_a_mask_token_is_refused(directory, tmp_path):
    encoder = Encoder.from_pretrained(directory)
    encoder.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=encoder.tokenizer.backend_tokenizer,
        **{name: f"[{name[:3].upper()}]" for name in ("cls_token", "pad_token", "sep_token", "unk_token")},
    )
    with pytest.raises(InputError, match="mask token"):
        CLEAR(encoder).collator()
    CLEAR(encoder, mlm_weight=0.0).collator()(rows())
