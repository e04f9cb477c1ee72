"""DeCLUTR: where spans lie, what a batch holds, the loss by loops, and documents that are too short."""

import logging
import math

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from scipy import stats
from support.tiny import TEXTS, tiny_encoder_directory
from transformers import AutoModelForMaskedLM

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import DeCLUTR
from textcl.views.spans import sample_spans

BOUNDS = {"anchors": 2, "positives": 2, "shortest": 4, "longest": 20}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def documents(*sentences):
    return [{"text": " ".join(TEXTS[40 * i : 40 * i + count])} for i, count in enumerate(sentences)]


def method_of(directory, **options):
    transformers.set_seed(0)
    options = {"shortest_span": 3, "longest_span": 8, **options}
    method = DeCLUTR(Encoder.from_pretrained(directory, dropout=0.0).double(), **options).double()
    method.hooked = True
    return method


def samples(count=3000, tokens=80, **options):
    rng = np.random.default_rng(0)
    settings = {**BOUNDS, **options}
    numbers = 2 * settings["anchors"] * (1 + settings["positives"])
    return [sample_spans(tokens, rng.random(numbers).tolist(), **settings) for _ in range(count)]


# -- spans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["any", "subsuming", "adjacent"])
@pytest.mark.parametrize("tokens", [80, 83, 300])
def test_spans_keep_their_bounds(sampling, tokens):
    for spans in samples(500, tokens, sampling=sampling):
        (first, _), (second, _) = spans
        assert second[0] - first[0] >= 40
        for (start, end), positives in spans:
            assert 0 <= start < end <= tokens
            assert 4 <= end - start <= 20
            for left, right in positives:
                assert 0 <= left < right <= tokens
                if sampling == "subsuming":
                    assert start <= left < right <= end
                    continue
                assert 4 <= right - left <= 20
                if sampling == "adjacent":
                    assert left == end or right == start
                else:
                    assert start <= right
                    assert left <= end


def test_lengths_follow_their_beta_distributions():
    spans = [pair for document in samples(3000, 400) for pair in document]
    for lengths, (a, b) in (
        ([end - start for (start, end), _ in spans], (4, 2)),
        ([right - left for _, positives in spans for left, right in positives], (2, 4)),
    ):
        edges = stats.beta.cdf((np.arange(4, 21) - 4) / 16, a, b)
        observed = np.bincount(lengths, minlength=21)[4:20]
        assert stats.chisquare(observed, np.diff(edges) * len(lengths)).pvalue > 1e-3


def test_all_three_kinds_of_positives_occur_and_anchors_reach_both_ends():
    spans = [pair for document in samples(2000) for pair in document]
    kinds = {"adjacent": 0, "within": 0, "overlapping": 0}
    for (start, end), positives in spans:
        for left, right in positives:
            touching = left == end or right == start
            within = start <= left and right <= end
            kinds["adjacent" if touching else "within" if within else "overlapping"] += 1
    assert min(kinds.values()) > 200
    assert min(start for (start, _), _ in spans) == 0
    assert max(end for (_, end), _ in spans) >= 78


@pytest.mark.parametrize("sampling", ["any", "subsuming", "adjacent"])
def test_the_largest_numbers_give_the_last_places(sampling):
    last = 1 - 1e-12
    settings = {"anchors": 1, "positives": 1, "shortest": 4, "longest": 20, "sampling": sampling}
    ((anchor, (positive,)),) = sample_spans(100, [0.5, last, 0.5, last], **settings)
    assert anchor == (86, 100)
    assert positive == ((77, 86) if sampling == "adjacent" else (91, 100)), "it ends with the document, not behind it"
    ((anchor, (positive,)),) = sample_spans(100, [0.5, 0.5, 0.5, last], **settings)
    assert anchor == (43, 57)
    assert positive == ((48, 57) if sampling == "subsuming" else (57, 66))


# -- the batch --------------------------------------------------------------------------------------------------------


def test_a_batch_holds_anchors_then_their_positives(directory):
    method = method_of(directory, mlm_weight=0.0)
    rows = documents(12, 14, 16)
    batch = method.collator()(rows)
    tokenizer = method.encoder.tokenizer
    assert batch["view"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert batch["group"].tolist() == list(range(6)) * 3
    bodies = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
        cls, *body, sep = ids[mask].tolist()
        assert (cls, sep) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert 3 <= len(body) <= 8
        bodies.append(body)
    for row, body in enumerate(bodies):
        document = tokenizer(rows[row % 6 // 2]["text"], add_special_tokens=False)["input_ids"]
        assert any(document[i : i + len(body)] == body for i in range(len(document))), "a span of its own document"
    again = method.collator()(rows[1:])
    width = min(again["input_ids"].shape[1], batch["input_ids"].shape[1])
    assert torch.equal(again["input_ids"][:4, :width], batch["input_ids"][2:6, :width])
    collator = method.collator()
    collator.set_epoch(1)
    assert not torch.equal(collator(rows)["input_ids"][:6, :4], batch["input_ids"][:6, :4])


def test_anchors_alone_are_masked(directory):
    method = method_of(directory, mlm_probability=0.5)
    rows = documents(12, 14, 16)
    batch, plain = method.collator()(rows), method_of(directory, mlm_weight=0.0).collator()(rows)
    labels = torch.from_numpy(batch["mlm_labels"])
    asked = labels != -100
    assert asked[:6].sum() > 10
    assert not asked[6:].any()
    assert torch.equal(torch.where(asked, labels, batch["input_ids"]), plain["input_ids"])


def test_anchors_of_a_document_have_masks_of_their_own_and_are_no_duplicates(directory):
    method = method_of(directory, mlm_probability=0.5, shortest_span=8)  # all spans have eight tokens
    (row,) = documents(40)
    batch = method.collator()([row, documents(0, 40)[1], row])
    masks = torch.from_numpy(batch["mlm_labels"] != -100)
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[:2], masks[4:6])
    found = batch["text_id"][:6]
    assert len(found.unique()) == 4
    assert torch.equal(found[:2], found[4:])


# -- the loss ---------------------------------------------------------------------------------------------------------


def slow_loss(anchors, positives, temperature=0.05):
    """Section 3.1: positives averaged before normalisation; every anchor and average finds the other; mean over 2AN."""
    averages = [[sum(values) / len(values) for values in zip(*of_anchor, strict=True)] for of_anchor in positives]
    rows = [*anchors, *averages]
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]
    count = len(anchors)
    total = 0.0
    for i, row in enumerate(unit):
        scores = [math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / temperature) for other in unit]
        total -= math.log(scores[(i + count) % (2 * count)] / (sum(scores) - scores[i]))
    return total / (2 * count)


@pytest.mark.parametrize("mlm_weight", [0.0, 0.7])
def test_the_loss_is_section_3_1_and_the_masked_words_come_from_the_same_pass(directory, mlm_weight):
    method = method_of(directory, mlm_weight=mlm_weight).eval()
    batch = method.collator()(documents(12, 14, 16))
    embeddings = method.embed(batch)
    anchors, first, second = embeddings.tolist()[:6], embeddings.tolist()[6:12], embeddings.tolist()[12:]
    expected = slow_loss(anchors, list(zip(first, second, strict=True)))
    calls = []
    handle = method.encoder.backbone.register_forward_hook(lambda *args: calls.append(1))
    got = method(**batch)
    handle.remove()
    assert len(calls) == 1
    if mlm_weight:
        model = AutoModelForMaskedLM.from_pretrained(directory).double().eval()
        tokens = {"input_ids": batch["input_ids"][:6], "attention_mask": batch["attention_mask"][:6]}
        mlm = model(**tokens, labels=torch.from_numpy(batch["mlm_labels"][:6])).loss.item()
        assert got["mlm"].item() == pytest.approx(mlm, abs=1e-9)
        assert got["contrastive"].item() == pytest.approx(expected, abs=1e-9)
        expected += mlm_weight * mlm
    assert got["loss"].item() == pytest.approx(expected, abs=1e-9)


# -- documents that are too short -------------------------------------------------------------------------------------


def test_short_documents_are_left_out_and_counted(directory, caplog):
    dataset = Dataset.from_list(documents(30, 1, 30, 2))
    with caplog.at_level(logging.WARNING, "textcl"):
        kept = method_of(directory).prepare_corpus(dataset)
    assert kept["text"] == [dataset["text"][0], dataset["text"][2]]
    assert "2 of 4 documents have fewer than 32 tokens" in caplog.text
    caplog.clear()
    assert len(method_of(directory).prepare_corpus(kept)) == 2
    assert not caplog.text
    longest = max(len(ids) - 2 for ids in method_of(directory).encoder.tokenizer(list(kept["text"]))["input_ids"])
    assert len(method_of(directory, min_length=longest).prepare_corpus(kept)) == 1


def test_a_document_that_is_too_short_is_refused_where_it_was_not_left_out(directory):
    """A plain trainer may be given the whole corpus, of which spans would be empty or hold special tokens."""
    method = method_of(directory)
    rows = [{"text": "the garden wall"}, {"text": " ".join(TEXTS[:30])}]
    with pytest.raises(InputError, match=r"has \d tokens, .* train on method\.prepare_corpus"):
        method.collator()(rows)
    prepared = method.prepare_corpus(Dataset.from_list(rows))
    assert len(prepared) == 1
    method.collator()([prepared[0]])


def test_scaled_spans_fit_the_shortest_document_that_is_kept(directory):
    dataset = Dataset.from_list(documents(30, 3, 30, 1))
    lengths = [len(ids) - 2 for ids in Encoder.from_pretrained(directory).tokenizer(list(dataset["text"]))["input_ids"]]
    method = method_of(directory, scale_spans=True)
    assert len(method.prepare_corpus(dataset)) == 4
    assert method.longest == min(lengths) // 4
    assert 1 <= method.shortest <= method.longest
    method = method_of(directory, scale_spans=True, min_length=lengths[1])
    kept = method.prepare_corpus(dataset)
    assert len(kept) == 3
    assert method.longest == min(8, lengths[1] // 4)
    method.collator()(list(kept))


@pytest.mark.parametrize("min_length", [None, 1])
def test_scaled_spans_leave_out_a_document_without_room_for_its_anchors(directory, min_length):
    """Two anchors need four tokens; a shorter document must not end the run, nor be the measure of the spans."""
    method = method_of(directory, scale_spans=True, min_length=min_length)
    rows = [{"text": "the garden"}]
    kept = method.prepare_corpus(Dataset.from_list([*documents(30), *rows]))
    assert len(kept) == 1
    assert method.longest == (8 if min_length is None else 1)
    method.collator()(list(kept))
    with pytest.raises(InputError, match=r"All 1 documents are shorter than the 4 tokens .* Take longer documents"):
        method_of(directory, scale_spans=True).prepare_corpus(Dataset.from_list(rows))


def test_what_cannot_be_sampled_is_refused(directory):
    with pytest.raises(InputError, match=r"All 2 documents are shorter than the 32 tokens.*scale_spans"):
        method_of(directory).prepare_corpus(Dataset.from_list(documents(1, 2)))
    with pytest.raises(InputError, match="takes up to 62 tokens"):
        method_of(directory, shortest_span=63, longest_span=512)
    with pytest.raises(InputError, match="positives must be a whole number of at least 1, not 0"):
        method_of(directory, positives=0)
    assert method_of(directory, longest_span=512).longest == 62
