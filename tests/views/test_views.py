"""Views on tokens and inside the encoder: loops as oracles, rates, and what must stay untouched."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.tiny import ARCHITECTURES, TEXTS, tiny_encoder_directory

from textcl.collator.collator import Collator
from textcl.encoder import Encoder
from textcl.encoder.backbone import first_position
from textcl.errors import InputError
from textcl.views.draws import MASKS, uniform
from textcl.views.model_side import embedding_dropout, span, token_cutoff
from textcl.views.tokens import TokenRows, crop_away, reordering, repetition, span_deletion, substitution, word_deletion
from textcl.views.view import PLAIN, parse_view

CLS, PAD, SEP, DEL = 0, 1, 2, 99


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def rows_of(*lengths):
    """Rows [CLS] 10 11 12 … [SEP], padded."""
    longest = max(lengths) + 2
    ids = torch.full((len(lengths), longest), PAD)
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = torch.tensor([CLS, *range(10, 10 + length), SEP])
    return TokenRows(ids, ids != PAD, ids >= 10, PAD)


def texts(rows):
    """The tokens of each row, without padding, after a check that padding is on the right and nowhere else."""
    lengths = rows.attention.sum(dim=1)
    assert torch.equal(rows.attention, torch.arange(rows.ids.shape[1]) < lengths[:, None])
    assert (rows.ids[~rows.attention] == PAD).all()
    assert not rows.ordinary[~rows.attention].any()
    assert int(lengths.max()) == rows.ids.shape[1]
    return [row[:length].tolist() for row, length in zip(rows.ids, lengths, strict=True)]


def drawer(rows, seed=0):
    """`draw`, and the numbers that it has given."""
    given = []

    def draw(count):
        given.append(uniform(seed, 0, torch.arange(len(rows.ids)), 0, count, stream=1 + len(given)))
        return given[-1]

    return draw, given


# -- random numbers ---------------------------------------------------------------------------------------------------


def test_draws_are_uniform_and_differ_in_each_of_their_arguments():
    rows = torch.arange(400)
    numbers = uniform(1, 2, rows, 3, 50, stream=4)
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.001
    others = [(2, 2, rows, 3, 4), (1, 3, rows, 3, 4), (1, 2, rows + 400, 3, 4), (1, 2, rows, 4, 4), (1, 2, rows, 3, 5)]
    for seed, epoch, other_rows, view, stream in others:
        other = uniform(seed, epoch, other_rows, view, 50, stream=stream)
        assert abs(np.corrcoef(numbers.flatten(), other.flatten())[0, 1]) < 0.03
    neighbours = np.corrcoef(numbers.numpy())[np.triu_indices(400, 1)]
    assert abs(neighbours.mean()) < 0.01
    assert neighbours.std() == pytest.approx(1 / math.sqrt(50), rel=0.1)


def test_a_rows_draws_depend_on_nothing_but_the_row():
    together = uniform(7, 0, torch.tensor([5, -9, 2**62]), 1, 8)
    assert torch.equal(uniform(7, 0, torch.tensor([-9]), 1, 4), together[1:2, :4])
    assert torch.equal(uniform(7, 0, torch.tensor([5, 6]), torch.tensor([1, 0]), 8)[0], together[0])


# -- operators on tokens ----------------------------------------------------------------------------------------------


def test_word_deletion_is_a_loop_that_merges_runs():
    rows = rows_of(12, 3, 0, 1, 30)
    draw, given = drawer(rows)
    deleted = texts(word_deletion(rows, draw, rate=0.6, deletion_token=DEL))
    for before, after, numbers in zip(texts(rows), deleted, given[0].tolist(), strict=True):
        expected = []
        for token, number in zip(before, numbers, strict=False):
            token = DEL if token >= 10 and number < 0.6 else token
            if token != DEL or expected[-1] != DEL:
                expected.append(token)
        assert after == expected
    assert any(row.count(DEL) < sum(n < 0.6 for n in numbers) for row, numbers in zip(deleted, given[0], strict=True))


def test_span_deletion_takes_a_share_of_the_text_in_few_pieces():
    rows = rows_of(*[40] * 300, 1, 0)
    draw, _ = drawer(rows)
    deleted = texts(span_deletion(rows, draw, rate=0.25, deletion_token=DEL, spans=5))
    assert all(1 <= row.count(DEL) <= 5 for row in deleted[:300])
    gone = [40 - sum(token >= 10 and token != DEL for token in row) for row in deleted[:300]]
    assert max(gone) == 10, "five spans of two tokens, fewer where they overlap"
    assert 7.5 < np.mean(gone) < 9.5
    assert deleted[300:] == [[CLS, DEL, SEP], [CLS, SEP]]
    assert {row.index(DEL) for row in deleted[:300]} >= {1, 2}, "spans begin anywhere"
    assert any(row[-2] == DEL for row in deleted[:300]), "and reach the end"
    for length in (4, 6, 10, 15, 30):  # whole tokens, so that a short text loses one at least
        rows = rows_of(*[length] * 100)
        draw, _ = drawer(rows)
        gone = [length - sum(10 <= t != DEL for t in row) for row in texts(span_deletion(rows, draw, 0.25, DEL))]
        assert 1 <= max(gone) <= max(1, 0.25 * length)


def test_reordering_exchanges_two_spans():
    rows = rows_of(20, 9, 2, 1, 0)
    draw, given = drawer(rows, seed=3)
    reordered = texts(reordering(rows, draw, rate=0.3, pairs=1))
    for before, after, (a, b, c, d) in zip(texts(rows), reordered, given[0].tolist(), strict=True):
        body = before[1:-1]
        longest = max(1, round(2 * len(body) * 0.3 - 1))
        first, second = (min(1 + int(number * longest), len(body) // 2) for number in (a, b))
        free = len(body) - first - second
        start, other = sorted((int(c * (free + 1)), int(d * (free + 1))))
        other += first
        parts = body[:start], body[start : start + first], body[start + first : other], body[other : other + second]
        expected = [*parts[0], *parts[3], *parts[2], *parts[1], *body[other + second :]]
        assert after == [CLS, *expected, SEP]
    assert reordered[0] != texts(rows)[0]
    short = rows_of(*[6] * 100)  # of which the rate allows one pair of tokens, not five
    draw, _ = drawer(short)
    moved = [
        sum(map(int.__ne__, *both)) for both in zip(texts(short), texts(reordering(short, draw, 0.25)), strict=True)
    ]
    assert set(moved) == {2}
    draw, _ = drawer(rows)
    assert [sorted(row) for row in texts(reordering(rows, draw, rate=0.5))] == [sorted(row) for row in texts(rows)]


def test_substitution_takes_synonyms_of_whole_words():
    rows = rows_of(*[8] * 500)
    table = torch.zeros(100, 2, dtype=torch.long)
    count = torch.zeros(100, dtype=torch.long)
    table[10], count[10] = torch.tensor([50, 51]), 2
    table[12], count[12] = torch.tensor([52, 0]), 1  # 13 continues it: a word of two tokens
    table[14], count[14] = torch.tensor([53, 0]), 1
    continues = torch.zeros(100, dtype=torch.bool)
    continues[13] = True
    draw, _ = drawer(rows)
    got = torch.tensor(texts(substitution(rows, draw, 0.4, table=table, count=count, continues=continues)))
    changed = got != rows.ids
    assert set(changed.any(dim=0).nonzero()[:, 0].tolist()) == {1, 5}
    shares = [(got[:, 1] == 50).double().mean(), (got[:, 1] == 51).double().mean(), (got[:, 5] == 53).double().mean()]
    assert shares == pytest.approx([0.2, 0.2, 0.4], abs=0.06)


def test_repetition_is_a_loop_that_says_some_tokens_twice():
    rows = rows_of(*[20] * 400, 7, 1, 0)
    draw, given = drawer(rows)
    repeated = texts(repetition(rows, draw, rate=0.32))
    for before, after, (number,), keys in zip(texts(rows), repeated, *(g.tolist() for g in given), strict=True):
        length = len(before) - 2
        count = min(length, int(number * (max(2, int(length * 0.32)) + 1)))
        chosen = sorted(range(1, length + 1), key=lambda place: keys[place])[:count]
        assert after == [token for place, token in enumerate(before) for _ in range(1 + (place in chosen))]
    more = [len(row) - 22 for row in repeated[:400]]
    assert stats.chisquare([more.count(count) for count in range(7)]).pvalue > 0.001, "all numbers are as likely"
    assert len(repeated[401]) in (3, 4)
    assert repeated[402] == [CLS, SEP]


def test_repetition_of_rate_0_still_says_up_to_two_tokens_twice_and_outgrows_no_backbone(directory):
    rows = rows_of(*[20] * 100, 3)
    draw, _ = drawer(rows)
    assert {len(row) - 22 for row in texts(repetition(rows, draw, rate=0.0))[:100]} == {0, 1, 2}
    draw, _ = drawer(rows)
    assert {len(row) for row in texts(repetition(rows, draw, rate=1.0, longest=25))[:100]} == {22, 23, 24, 25}
    draw, _ = drawer(rows)
    assert texts(repetition(rows, draw, rate=1.0, longest=21))[:100] == texts(rows)[:100]

    encoder = Encoder.from_pretrained(directory)
    views = encoder.prepare_views("plain", "repetition:1")
    batch = Collator(encoder.tokenizer, 32, views=views)([{"text": " ".join(TEXTS[:20])}, {"text": TEXTS[0]}])
    assert batch["input_ids"].shape[1] > 32, "as in the authors' code, it comes after the text was cut"
    batch = Collator(encoder.tokenizer, encoder.max_length, views=views)([{"text": " ".join(TEXTS[:20])}] * 2)
    assert encoder.embed(batch, views=views).isfinite().all()


def test_crop_keeps_a_span_and_the_special_tokens():
    rows = rows_of(*[20] * 300, 3, 1, 0)
    draw, given = drawer(rows)
    cropped = texts(crop_away(rows, draw, rate=0.7))
    for before, after, (number,) in zip(texts(rows), cropped, given[0].tolist(), strict=True):
        body = before[1:-1]
        length = max(1, int(len(body) * 0.3))
        start = int(number * (len(body) - length + 1))
        assert after == [CLS, *body[start : start + length], SEP]
    assert {row[1] for row in cropped[:300]} == set(range(10, 25)), "every place, to the very end"
    draw, _ = drawer(rows)
    assert {len(row) for row in texts(crop_away(rows, draw, rate=1.0))[:302]} == {3}
    draw, _ = drawer(rows)
    assert texts(crop_away(rows, draw, rate=0.0)) == texts(rows)


def test_the_collator_applies_each_view_to_its_rows_and_whatever_else_is_in_the_batch(directory):
    encoder = Encoder.from_pretrained(directory)
    views = encoder.prepare_views("plain", "word_deletion:0.5+reordering")
    deletion = encoder.tokenizer.convert_tokens_to_ids("[DEL]")

    def batch_of(*numbers, seed=42, epoch=0, order=views):
        collator = Collator(encoder.tokenizer, 32, views=order, seed=seed)
        collator.set_epoch(epoch)
        batch = collator([{"text": TEXTS[number]} for number in numbers])
        return [
            row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]

    batch = batch_of(3, 80, 200)
    assert batch[:3] == encoder.tokenizer([TEXTS[3], TEXTS[80], TEXTS[200]])["input_ids"]
    assert all(deletion in row for row in batch[3:])
    assert batch_of(200, 3)[2:] == [batch[5], batch[3]]
    assert batch_of(3, 80, 200, seed=1)[3:] != batch[3:]
    assert batch_of(3, 80, 200, epoch=1)[3:] != batch[3:]
    twice = batch_of(3, 80, 200, order=(views[1], views[1]))
    assert twice[:3] != twice[3:], "the same operator draws anew for each view"


def test_operators_and_masks_have_numbers_of_their_own(directory):
    """Else the tokens that are predicted would be those that a view deletes."""
    collator = Collator(Encoder.from_pretrained(directory).tokenizer, 32, seed=7)
    rows = torch.tensor([3, 5])
    draw = collator.draw(rows, view=1)
    drawn = [uniform(7, 0, rows, 1, 9, stream=MASKS), draw(9), draw(9)]
    assert len({tuple(numbers.flatten().tolist()) for numbers in drawn}) == 3


def test_unknown_words_and_special_tokens_in_a_text_are_part_of_it(directory):
    """[UNK] in the middle is no end of a text: what is behind it is kept as often as what is before it."""
    encoder = Encoder.from_pretrained(directory)
    collator = Collator(encoder.tokenizer, 32, views=encoder.prepare_views("plain", "crop_away:0.5"))
    text = "a \u263a \u263a \u263a small [MASK] boat door"
    (whole,) = encoder.tokenizer([text])["input_ids"]
    size = len(whole) - 2
    crops = [whole[1 + start :][: size // 2] for start in range(size - size // 2 + 1)]
    found = set()
    for epoch in range(60):
        collator.set_epoch(epoch)
        batch = collator([{"text": text}] * 2)
        row = batch["input_ids"][2][batch["attention_mask"][2].bool()].tolist()
        assert (row[0], row[-1]) == (CLS, SEP)
        found.add(tuple(row[1:-1]))
    assert found == set(map(tuple, crops))


def test_the_deletion_token_grows_the_embeddings_and_is_exported(directory, tmp_path):
    encoder = Encoder.from_pretrained(directory)
    before = encoder.word_embeddings.weight.detach().clone()
    encoder.prepare_views("word_deletion")
    encoder.prepare_views("span_deletion")  # once is enough
    assert torch.equal(encoder.word_embeddings.weight[:-1], before)
    assert torch.allclose(encoder.word_embeddings.weight[-1], before.mean(dim=0))
    encoder.save(tmp_path / "export")
    again = Encoder.from_pretrained(tmp_path / "export")
    assert again.tokenizer.convert_tokens_to_ids("[DEL]") == len(before)
    assert np.array_equal(again.encode(["a [DEL] boat"]), encoder.encode(["a [DEL] boat"]))
    assert again.tokenizer("a [DEL] boat")["input_ids"].count(len(before)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shufle", "no view 'shufle'. Did you mean 'shuffle'"),
        ("shuffle:0.5", "takes no rate"),
        ("token_cutoff:2", "from 0 to 1"),
        ("token_cutoff:much", "from 0 to 1"),
        ("plain:0.5", "no view 'plain'"),
    ],
)
def test_a_view_that_is_none_is_refused(name, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        parse_view(name, None)


# -- inside the encoder -----------------------------------------------------------------------------------------------


def seen(encoder, names, rows, seed=0):
    """What the embedding block gives and what position ids and mask the backbone gets, for one view a row."""
    views = encoder.prepare_views(*names)
    tokens = encoder.tokenize([TEXTS[row] for row in rows])
    tokens["view"] = torch.arange(len(rows)) % len(names)
    caught = {}
    block = encoder.backbone.encoder.register_forward_pre_hook(lambda module, args: caught.update(embeddings=args[0]))
    inputs = encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: caught.update(kwargs), with_kwargs=True
    )
    torch.manual_seed(seed)
    encoder.slicing.token_budget = 10**6
    with torch.no_grad():
        encoder.eval().embed(tokens, views=views)
    block.remove()
    inputs.remove()
    order = torch.argsort(tokens["attention_mask"].sum(dim=1), descending=True, stable=True)
    return tokens, {name: value[torch.argsort(order)] for name, value in caught.items() if torch.is_tensor(value)}


def test_cutoffs_zero_what_they_say_after_the_embedding_block(directory):
    encoder = Encoder.from_pretrained(directory)
    rows = (0, 30, 100, 150)
    tokens, plain = seen(encoder, ["plain"], rows)
    _, cut = seen(encoder, ["token_cutoff:0.4", "plain", "feature_cutoff:0.25", "embedding_dropout:0.3"], rows)
    length = tokens["attention_mask"].sum(dim=1)
    assert torch.equal(cut["attention_mask"], tokens["attention_mask"]), "zeroed tokens are still attended to"
    before, after = plain["embeddings"], cut["embeddings"]

    gone = (after[0] == 0).all(dim=1)
    assert gone.sum() == int(length[0] * 0.4)
    assert not gone[length[0] :].any()
    assert torch.equal(after[0][~gone], before[0][~gone])
    assert torch.equal(after[1], before[1])
    columns = (after[2] == 0).all(dim=0)
    assert columns.sum() == 8
    assert torch.equal(after[2][:, ~columns], before[2][:, ~columns])
    zeroed = after[3] == 0
    assert zeroed.double().mean() == pytest.approx(0.3, abs=0.08)
    assert torch.equal(after[3][~zeroed], before[3][~zeroed]), "what is left is not scaled up"


def test_token_cutoff_chooses_tokens_and_never_padding():
    lengths = torch.tensor([20, 5, 10, 1] * 50)
    mask = (torch.arange(20) < lengths[:, None]).long()
    embeddings = torch.ones(200, 20, 3)
    gone = (token_cutoff({"attention_mask": mask, "embeddings": embeddings}, 0.4)["embeddings"] == 0).all(dim=2)
    assert not gone[mask == 0].any()
    assert torch.equal(gone.sum(dim=1), torch.tensor([8, 2, 4, 0] * 50))
    assert gone.any(dim=0).all(), "every place"


@pytest.mark.parametrize("rate", [0.0, 0.37, 1.0])
def test_embedding_dropout_zeroes_its_rate(rate):
    rows = torch.ones(7, 50, 301)
    share = (embedding_dropout({"embeddings": rows}, rate)["embeddings"] == 0).double().mean().item()
    assert share == pytest.approx(rate, abs=0.0 if rate in (0.0, 1.0) else 0.005)


def test_cutoffs_draw_anew_for_each_row_and_call(directory):
    encoder = Encoder.from_pretrained(directory)
    _, first = seen(encoder, ["feature_cutoff:0.25"], (5, 5, 5))
    columns = (first["embeddings"] == 0).all(dim=1)
    assert not torch.equal(columns[0], columns[1])
    _, second = seen(encoder, ["feature_cutoff:0.25"], (5, 5, 5), seed=1)
    assert not torch.equal(columns, (second["embeddings"] == 0).all(dim=1))


def test_span_leaves_a_contiguous_piece_to_attention_and_pooling(directory):
    encoder = Encoder.from_pretrained(directory)
    tokens, caught = seen(encoder, ["span:0.5"], (0, 30, 100, 150))
    for mask, length in zip(caught["attention_mask"], tokens["attention_mask"].sum(dim=1), strict=True):
        places = mask.nonzero()[:, 0]
        assert len(places) == int(length * 0.5)
        assert int(places[-1] - places[0]) == len(places) - 1


def test_spans_begin_anywhere_and_reach_both_ends():
    mask = (torch.arange(6) < 4).long().expand(400, 6)  # four tokens, of which two are kept
    torch.manual_seed(0)
    kept = span({"attention_mask": mask}, 0.5)["attention_mask"]
    assert kept.unique(dim=0).tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_shuffle_permutes_the_position_ids_of_tokens_alone(architecture, tmp_path):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "m", architecture))
    rows = (0, 30, 100, 150)
    tokens, caught = seen(encoder, ["shuffle"], rows)
    first = first_position(encoder.backbone)
    assert first == (2 if architecture == "roberta" else 0)
    assert torch.equal(caught["attention_mask"], tokens["attention_mask"])
    assert torch.equal(caught["input_ids"], tokens["input_ids"])
    for positions, mask in zip(caught["position_ids"], tokens["attention_mask"].bool(), strict=True):
        own = positions[mask]
        assert sorted(own.tolist()) == list(range(first, first + len(own)))
        assert own.tolist() != sorted(own.tolist())
        assert positions[~mask].tolist() == list(range(first + len(own), first + len(mask)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shuffle_is_refused_where_position_ids_are_not_what_orders_words(architecture, tmp_path):
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "m", architecture))
    if architecture in ("mpnet", "deberta-v2"):
        with pytest.raises(InputError, match=f"means nothing to .*{architecture}"):
            encoder.prepare_views("shuffle")
        return
    (shuffle,) = encoder.prepare_views("shuffle")
    tokens = {**encoder.tokenize(TEXTS[:8]), "view": torch.zeros(8, dtype=torch.long)}
    with torch.no_grad():
        changed = (encoder.embed(tokens, views=[shuffle]) - encoder.embed(tokens)).abs().max()
        assert changed > 1e-6
        assert torch.equal(encoder.embed(tokens, views=[PLAIN]), encoder.embed(tokens))


def test_the_hook_is_gone_even_if_the_backbone_fails(directory):
    encoder = Encoder.from_pretrained(directory)
    views = encoder.prepare_views("token_cutoff")
    tokens = encoder.tokenize(TEXTS[:2])
    wrong = {**tokens, "view": torch.zeros(2, dtype=torch.long), "input_ids": tokens["input_ids"] + 10**6}
    with pytest.raises(IndexError):
        encoder.embed(wrong, views=views)
    assert not encoder.backbone.embeddings._forward_hooks


def test_the_old_spelling_of_crop_is_refused_with_the_new_one():
    with pytest.raises(InputError, match=r"'crop:0.3' is now spelled 'crop_away:0.7'"):
        parse_view("plain+crop:0.3", None)
    with pytest.raises(InputError, match=r"'crop' is now spelled 'crop_away:0.5'"):
        parse_view("crop", None)
