"""What later papers put on SimCSE: each term by loops, templates by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from oracles import slow_barlow_twins, slow_info_nce, slow_jensen_shannon, slow_list_mle, slow_list_net
from support.tiny import TEXTS, tiny_encoder_directory
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers

from textcl.collator.batch import rows_of_view
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import SimCSE, SimCSEPlus
from textcl.views.template import Template

ROWS = 5
SENTENCES = [{"text": TEXTS[9 * i]} for i in range(ROWS)]
TEMPLATES = {"template": "the teacher says {text} [MASK] .", "second_template": "{text} my neighbour means [MASK]"}
MASK = 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def build(directory, dropout=0.0, kind=SimCSEPlus, **options):
    """Without dropout the views are those of the collator, so that a loss can be computed twice."""
    transformers.set_seed(0)
    views = {} if dropout or "template" in options else {"first_view": "reordering", "second_view": "repetition"}
    pooling = "mask_token" if "template" in options else "cls"
    encoder = Encoder.from_pretrained(directory, dropout=dropout, pooling=pooling, max_length=32, device="cpu").double()
    method = kind(encoder, **{**views, **options}).double().train()
    method.hooked = True
    with torch.no_grad():  # a random encoder says nearly the same of all texts; here they point in all directions
        mean = encoder.encode(TEXTS[::9], convert_to="tensor").mean(dim=0)
        method.head.dense.weight.normal_(std=2.0)
        method.head.dense.bias.copy_(-method.head.dense.weight @ mean)
    return method


def batch_of(method, rows=SENTENCES):
    return method.collator()(rows)


def views_of(method, batch):
    return [method.head(method.encoder.embed(rows_of_view(batch, view))) for view in (0, 1)]


def close(got, expected):
    assert got.item() == pytest.approx(expected, abs=1e-10)


# -- negatives --------------------------------------------------------------------------------------------------------


def test_without_options_it_is_simcse(directory):
    losses = []
    for kind in (SimCSE, SimCSEPlus):
        method = build(directory, dropout=0.1, kind=kind)
        batch = batch_of(method)
        torch.manual_seed(5)  # the same dropout masks
        losses.append(method(**batch)["loss"].item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert losses[0] > 1e-3


def test_noise_and_a_queue_are_further_negatives_of_every_row(directory):
    method = build(directory, noise_negatives=6, queue_size=4)
    queue = torch.randn(3, 32, dtype=torch.float64)
    method.queue.push(queue)
    batch = batch_of(method)
    torch.manual_seed(5)
    noise = torch.randn(6, 32, dtype=torch.float64)
    torch.manual_seed(5)
    loss = method(**batch)["loss"]
    first, second = views_of(method, batch)
    close(loss, slow_info_nce(first, second, extra_negatives=torch.cat([queue, noise]), temperature=0.05) / ROWS)
    assert not torch.equal(method(**batch)["loss"], loss), "noise is drawn for each batch"


def test_the_queue_remembers_first_views_as_the_momentum_encoder_sees_them_without_dropout(directory):
    method = build(directory, dropout=0.1, queue_size=40, queue_momentum=0.9)
    with torch.no_grad():
        method.head.dense.weight.add_(0.1)
    batch = batch_of(method)
    keys = method(**batch)["keys"]
    target = method.target.eval()
    expected = target.projector(target.encoder.embed(rows_of_view(batch, 0)))
    torch.testing.assert_close(keys, expected, rtol=0, atol=1e-12)
    before = target.projector.dense.weight.clone()
    method.after_optimizer_step(1, 10, [keys, keys + 1])
    torch.testing.assert_close(method.queue.read(), torch.cat([keys, keys + 1]), rtol=0, atol=1e-12)
    moved = 0.9 * before + 0.1 * method.head.dense.weight
    torch.testing.assert_close(target.projector.dense.weight, moved, rtol=0, atol=1e-12)
    assert method.needs_hooks


def cosine(x, y):
    norms = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norms


def slow_off_dropout(first, second, without, temperature, ids, further=()):
    """SimCSE++, section 3: positives have dropout; negatives have none, neither the query nor the other text."""
    total = 0.0
    for i, query in enumerate(without.tolist()):
        own = math.exp(cosine(first[i].tolist(), second[i].tolist()) / temperature)
        others = [without[j].tolist() for j in range(len(ids)) if ids[j] != ids[i]]
        others += [row.tolist() for row in further]
        total -= math.log(own / (own + sum(math.exp(cosine(query, other) / temperature) for other in others)))
    return total / len(ids)


@pytest.mark.parametrize("mask_duplicates", [False, True])
def test_off_dropout_negatives_have_no_dropout_on_either_side(directory, mask_duplicates):
    options = {"off_dropout_negatives": True, "mask_duplicates": mask_duplicates, "queue_size": 3}
    method = build(directory, dropout=0.1, **options)
    queue = torch.randn(3, 32, dtype=torch.float64)
    method.queue.push(queue)
    batch = batch_of(method, [*SENTENCES, SENTENCES[2]])
    torch.manual_seed(5)
    outputs = method(**batch)
    torch.manual_seed(5)
    first, second, without = method.head(method.embed(batch)).chunk(3)
    exact = method.eval().head(method.encoder.embed(rows_of_view(batch, 0)))
    torch.testing.assert_close(without, exact, rtol=0, atol=1e-12)
    assert not torch.allclose(first, without)
    ids = [0, 1, 2, 3, 4, 2] if mask_duplicates else range(6)
    close(outputs["loss"], slow_off_dropout(first, second, without, 0.05, ids, queue))
    assert len(outputs["embeddings"]) == 12


# -- further terms ----------------------------------------------------------------------------------------------------


def scores(rows, columns, temperature=0.05):
    """Of each row with the columns of all others."""
    return torch.tensor(
        [
            [cosine(row, column) / temperature for j, column in enumerate(columns.tolist()) if j != i]
            for i, row in enumerate(rows.tolist())
        ],
        dtype=torch.float64,
    )


def slow_dimension_contrast(first, second, temperature):
    """The authors' code: batch norm without scale and shift over the rows, c = z1ᵀ z2 / n / τ, and over its rows
    mean(−diagonal + logsumexp)."""
    rows, dimensions = first.shape

    def column(view, d):
        values = [view[i, d].item() for i in range(rows)]
        mean = sum(values) / rows
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / rows + 1e-5)
        return [(value - mean) / deviation for value in values]

    total = 0.0
    for i in range(dimensions):
        correlations = [
            sum(x * y for x, y in zip(column(first, i), column(second, j), strict=True)) / rows / temperature
            for j in range(dimensions)
        ]
        total += math.log(sum(math.exp(each) for each in correlations)) - correlations[i]
    return total / dimensions


def test_the_term_between_dimensions_is_info_nce_of_the_standardised_transposed_views(directory):
    method = build(directory, dimension_weight=0.3, dimension_temperature=0.2)
    batch = batch_of(method)
    first, second = views_of(method, batch)
    outputs = method(**batch)
    close(outputs["dimension"], 0.3 * slow_dimension_contrast(first, second, 0.2))
    close(outputs["loss"], (outputs["contrastive"] + outputs["dimension"]).item())


def test_the_decorrelation_is_barlow_twins_behind_a_projector_on_the_embeddings(directory):
    """Three linear layers, batch norm and ReLU behind the first two, for each view by itself; the head is not read."""
    method = build(directory, decorrelation_weight=0.3, decorrelation_dimension=6)
    batch = batch_of(method)
    outputs = method(**batch)

    def projected(view):
        rows = method.encoder.embed(rows_of_view(batch, view))
        first, scale, _, second, other_scale, _, third = method.projector
        for linear, norm in ((first, scale), (second, other_scale)):
            rows = torch.nn.functional.batch_norm(rows @ linear.weight.T, None, None, norm.weight, norm.bias, True)
            rows = rows.clamp(min=0)
        assert third.bias is None
        return rows @ third.weight.T

    close(outputs["decorrelation"], 0.3 * slow_barlow_twins(projected(0), projected(1), 0.012, 1e-5))
    close(outputs["loss"], (outputs["contrastive"] + outputs["decorrelation"]).item())


def test_a_method_without_decorrelation_has_no_projector(directory):
    assert not [name for name in build(directory).state_dict() if "projector" in name]


def test_without_projector_the_decorrelation_is_barlow_twins_of_the_two_views(directory):
    method = build(directory, decorrelation_weight=0.3, decorrelation_dimension=0)
    batch = batch_of(method)
    outputs = method(**batch)
    close(outputs["decorrelation"], 0.3 * slow_barlow_twins(*views_of(method, batch), 0.012, 1e-5))
    close(outputs["loss"], (outputs["contrastive"] + outputs["decorrelation"]).item())


@pytest.mark.parametrize(("ranking", "slow"), [("list_mle", slow_list_mle), ("list_net", slow_list_net)])
def test_ranking_and_consistency_are_of_the_scores_with_all_others(directory, ranking, slow):
    method = build(
        directory,
        ranking=ranking,
        ranking_weight=0.3,
        teacher=str(directory),
        consistency_weight=0.7,
        ranking_temperature=0.2,
    )
    rows = list(method.prepare_corpus(Dataset.from_list(SENTENCES)))
    taught = Encoder.from_pretrained(directory, device="cpu").encode([row["text"] for row in SENTENCES], normalize=True)
    assert np.abs(np.array([row["teacher"] for row in rows]) - taught).max() < 1e-6
    batch = batch_of(method, rows)
    first, second = views_of(method, batch)
    outputs = method(**batch)
    of_teacher = scores(torch.tensor(taught), torch.tensor(taught), 0.2)
    expected = 0.3 * slow(scores(first, second, 0.2), of_teacher) / ROWS
    assert outputs["ranking"].item() == pytest.approx(expected, abs=1e-5)  # the teacher is a float32 model
    divergence = slow_jensen_shannon(scores(first, second, 0.2), scores(second, first, 0.2))
    close(outputs["consistency"], 0.7 * divergence / ROWS)
    terms = [outputs[name] for name in ("contrastive", "ranking", "consistency")]
    close(outputs["loss"], sum(terms).item())


def test_scores_are_computed_in_float32_under_autocast(directory):
    """A cosine in bfloat16, divided by 0.05, is off by some hundredths."""
    method = build(directory)
    rows = torch.randn(2, 6, 32)
    expected = method._scores(*rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(method._scores(*rows), expected)
        assert method._scores(*rows.bfloat16()).dtype == torch.float32


# -- templates --------------------------------------------------------------------------------------------------------


def test_each_view_is_read_in_its_template_and_known_by_its_bare_text(directory):
    method = build(directory, **TEMPLATES)
    batch = batch_of(method)
    for view, template in enumerate(TEMPLATES.values()):
        filled = [template.replace("{text}", row["text"]) for row in SENTENCES]
        expected = method.encoder.tokenizer(filled)["input_ids"]
        own = rows_of_view(batch, view)
        assert [
            ids[mask.bool()].tolist() for ids, mask in zip(own["input_ids"], own["attention_mask"], strict=True)
        ] == expected
    plain = batch_of(build(directory))
    assert torch.equal(batch["text_id"], plain["text_id"])
    alone = build(directory, template=TEMPLATES["template"])
    assert len({view.template.template for view in alone.views}) == 1


@pytest.mark.parametrize("operator", ["repetition:1", "crop_away:0.7", "word_deletion:0.9", "reordering:0.9"])
def test_operators_on_tokens_leave_the_words_of_a_template_alone(directory, operator):
    plain = build(directory, **TEMPLATES)
    method = build(directory, first_view=operator, second_view=operator, **TEMPLATES)
    for view in (0, 1):
        before, behind = method.views[view].template.edges
        untouched, own = (rows_of_view(batch_of(each), view) for each in (plain, method))
        rows, expected = (
            [ids[mask.bool()].tolist() for ids, mask in zip(b["input_ids"], b["attention_mask"], strict=True)]
            for b in (own, untouched)
        )
        assert [row[:before] for row in rows] == [row[:before] for row in expected]
        assert [row[-behind:] for row in rows] == [row[-behind:] for row in expected]
        assert rows != expected


def byte_level_tokenizer():
    """As RoBERTa's: a character may be several tokens, and a word takes the space before it along."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "[MASK]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token=AddedToken("[MASK]", lstrip=True),
    )


LONG = ["the old sailor mends a small boat " * 9, "日本語の文章は長い" * 4, "🙂" * 20, "a boat"]


@pytest.mark.parametrize("template", [*TEMPLATES.values(), '"{text}" is [MASK]'])
@pytest.mark.parametrize("byte_level", [False, True])
def test_a_long_text_is_cut_so_that_what_follows_it_survives(directory, byte_level, template):
    tokenizer = byte_level_tokenizer() if byte_level else Encoder.from_pretrained(directory).tokenizer
    for max_length, text in itertools.product(range(22, 27), LONG):
        filled = Template(template, tokenizer, max_length)(text)
        before, _, after = template.partition("{text}")
        assert filled.startswith(before)
        assert filled.endswith(after)
        assert text.startswith(filled[len(before) : len(filled) - len(after)])
        length = len(tokenizer(filled)["input_ids"])
        assert length <= max_length
        if text == LONG[0]:
            assert length >= max_length - 1, "no more is cut than has to be"
        if text == LONG[-1]:
            assert filled == template.replace("{text}", text)


@pytest.mark.parametrize("template", [*TEMPLATES.values(), '"{text}" is [MASK]'])
@pytest.mark.parametrize("byte_level", [False, True])
def test_the_edges_of_a_template_are_the_tokens_that_are_the_same_around_any_text(directory, byte_level, template):
    tokenizer = byte_level_tokenizer() if byte_level else Encoder.from_pretrained(directory).tokenizer
    before, behind = Template(template, tokenizer, 64).edges
    rows = [tokenizer(template.replace("{text}", text))["input_ids"] for text in (TEXTS[0], "a", "red boat", "garden")]
    same = [len(set(column)) == 1 for column in zip(*rows, strict=False)]
    assert before == same.index(False)
    same = [len(set(column)) == 1 for column in zip(*(row[::-1] for row in rows), strict=False)]
    assert behind == same.index(False)


def test_the_exported_encoder_reads_texts_in_the_first_template(directory, tmp_path):
    build(directory, **TEMPLATES).export(tmp_path / "export")
    plain = Encoder.from_pretrained(directory, pooling="mask_token", max_length=32)
    expected = plain.encode([TEMPLATES["template"].replace("{text}", text) for text in TEXTS[:4]])
    got = Encoder.from_pretrained(tmp_path / "export").encode(TEXTS[:4])
    assert np.abs(got - expected).max() < 1e-6


def test_denoising_takes_away_what_the_template_says_where_attention_does_not_see_the_text(directory):
    method = build(directory, denoise_templates=True, **TEMPLATES)
    batch = batch_of(method)
    tokenizer, backbone = method.encoder.tokenizer, method.encoder.backbone
    expected = []
    for template, row in itertools.product(TEMPLATES.values(), SENTENCES):
        tokens = tokenizer(template.replace("{text}", row["text"]), return_tensors="pt")
        ids, text = tokens["input_ids"][0].tolist(), tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        start = next(i for i in range(len(ids)) if ids[i : i + len(text)] == text)
        hidden = tokens["attention_mask"].clone()
        hidden[:, start : start + len(text)] = 0
        full, alone = (
            backbone(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state[0, ids.index(MASK)]
            for mask in (tokens["attention_mask"], hidden)
        )
        assert not torch.allclose(full, alone)
        expected.append(full - alone)
    torch.testing.assert_close(method.embed(batch), torch.stack(expected), rtol=0, atol=1e-10)
    first, second = method.head(torch.stack(expected)).chunk(2)
    close(method(**batch)["loss"], slow_info_nce(first, second, temperature=0.05) / ROWS)
    assert np.abs(method.encode(TEXTS[:2]) - build(directory, **TEMPLATES).encode(TEXTS[:2])).max() < 1e-12


def test_negatives_without_dropout_and_of_the_queue_are_denoised_too(directory):
    options = {"denoise_templates": True, "queue_size": 8, "off_dropout_negatives": True, **TEMPLATES}
    method, plain = build(directory, **options), build(directory, denoise_templates=True, **TEMPLATES)
    batch, rows = batch_of(method), len(SENTENCES)
    first = plain.embed(batch)[:rows]  # without dropout in the backbone, the first view is what all of them see
    torch.testing.assert_close(method.embed(batch)[2 * rows :], first, rtol=0, atol=1e-12)
    torch.testing.assert_close(method(**batch)["keys"], method.target.projector(first), rtol=0, atol=1e-12)


def test_what_goes_not_together_is_refused(directory):
    for options, words in (
        ({"second_template": "{text} [MASK]"}, "need a template"),
        ({"denoise_templates": True}, "need a template"),
        ({"ranking_weight": 1.0}, "need each other"),
        ({"teacher": str(directory)}, "need each other"),
        ({"template": "no place [MASK]"}, "must contain {text} exactly once"),
        ({"template": "word " * 64 + "{text} [MASK]"}, "leaves none for a text"),
    ):
        with pytest.raises(InputError, match=words):
            build(directory, **options)
