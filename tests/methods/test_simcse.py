"""SimCSE against its equations, its collator's promises, and what it refuses."""

import math

import pytest
import torch
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import MoCo, SimCLR, SimCSE, SimCSEPlus, SwAV

TRIPLETS = [{"text": TEXTS[i], "positive": TEXTS[i + 40], "negative": TEXTS[i + 80]} for i in range(5)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def rows(*numbers):
    return [{"text": TEXTS[i]} for i in numbers]


def oracle(z, temperature, log_weight=0.0):
    """Equations 4 and 5 of the paper, by loops."""
    views = [view.tolist() for view in z]

    def cos(a, b):
        norms = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / norms

    total = 0.0
    for i, query in enumerate(views[0]):
        denominator = sum(math.exp(cos(query, key) / temperature) for key in views[1])
        if len(views) > 2:
            denominator += sum(
                math.exp(cos(query, key) / temperature + (log_weight if i == j else 0.0))
                for j, key in enumerate(views[2])
            )
        total -= math.log(math.exp(cos(query, views[1][i]) / temperature) / denominator)
    return total / len(views[0])


def test_unsupervised_loss_is_equation_4(directory):
    method = SimCSE(Encoder.from_pretrained(directory, pooling="cls").double(), temperature=0.05).double().train()
    batch = method.collator()(rows(0, 9, 30, 77))
    torch.manual_seed(3)
    got = method(**batch)["loss"]
    torch.manual_seed(3)  # the same dropout masks
    z = method.head(method.embed(batch)).unflatten(0, (2, 4))
    assert not torch.equal(z[0], z[1])
    assert got.item() == pytest.approx(oracle(z, 0.05), abs=1e-10)


@pytest.mark.parametrize("log_weight", [0.0, math.log(2)])
def test_supervised_loss_is_equation_5(directory, log_weight):
    encoder = Encoder.from_pretrained(directory, pooling="cls").double()
    method = SimCSE(encoder, head="keep", hard_negative_log_weight=log_weight).double().eval()
    batch = method.collator()(TRIPLETS)
    assert batch["input_ids"].shape[0] == 15
    z = method.embed(batch).unflatten(0, (3, 5))
    assert method(**batch)["loss"].item() == pytest.approx(oracle(z, 0.05, log_weight), abs=1e-10)


def test_the_train_only_head_is_dropped_and_the_kept_one_exported(directory, tmp_path):
    unsupervised = SimCSE(Encoder.from_pretrained(directory, pooling="cls"))
    unsupervised.export(tmp_path / "unsupervised")
    supervised = SimCSE(Encoder.from_pretrained(directory, pooling="cls"), head="keep")
    supervised.export(tmp_path / "supervised")
    assert Encoder.from_pretrained(tmp_path / "unsupervised").head is None
    head = Encoder.from_pretrained(tmp_path / "supervised").head
    assert torch.equal(head.dense.weight, supervised.encoder.head.dense.weight)
    assert supervised.encoder.describe()["pooling"] == "pooler"
    with pytest.raises(InputError, match="train_only, keep or none"):
        SimCSE(Encoder.from_pretrained(directory), head="drop")


def test_the_pooling_at_test_may_be_another_than_in_training(directory, tmp_path):
    method = SimCSE(Encoder.from_pretrained(directory, pooling="cls")).train()
    method.test_pooling = "mean"
    expected = Encoder.from_pretrained(directory, pooling="mean").encode(TEXTS[:3])
    assert (method.encode(TEXTS[:3]) == expected).all()
    assert method.encoder.pooling == "cls"
    assert all(module.training for module in method.modules())
    method.export(tmp_path / "export")
    assert Encoder.from_pretrained(tmp_path / "export").describe()["pooling"] == method.describe()["pooling"] == "mean"


def test_equal_dropout_masks_leave_no_alignment_gradient(directory):
    method = SimCSE(Encoder.from_pretrained(directory), equal_dropout_masks=True).train()
    batch = method.collator()(rows(1, 2, 3))
    first, second = method.embed(batch).unflatten(0, (2, 3))
    assert torch.equal(first, second)
    ((first - second) ** 2).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in method.encoder.parameters())
    with pytest.raises(InputError, match="unlabelled text"):
        method(**method.collator()(TRIPLETS))


def test_equal_dropout_masks_leave_no_view_out_in_silence(directory):
    for views in ({"first_view": "token_cutoff:0.9"}, {"second_view": "crop_away"}):
        with pytest.raises(InputError, match="leave out first_view and second_view"):
            SimCSE(Encoder.from_pretrained(directory), equal_dropout_masks=True, **views)
    method = SimCSE(Encoder.from_pretrained(directory), equal_dropout_masks=True)
    row = {"text": TEXTS[0], "text_1": TEXTS[1], "text_2": TEXTS[2]}
    with pytest.raises(InputError, match="does not read text views"):
        method.collator()([row, row])


def test_a_model_without_dropout_is_refused_unless_it_is_the_control(tmp_path):
    directory = tiny_encoder_directory(tmp_path / "m", dropout=0.0)
    with pytest.raises(InputError, match="this model has none"):
        SimCSE(Encoder.from_pretrained(directory)).collator()(rows(0, 1))
    SimCSE(Encoder.from_pretrained(directory)).collator()(TRIPLETS)
    SimCSE(Encoder.from_pretrained(directory), equal_dropout_masks=True).collator()(rows(0, 1))


def test_duplicates_can_be_masked(directory):
    plain = SimCSE(Encoder.from_pretrained(directory).double()).double().eval()
    masking = SimCSE(Encoder.from_pretrained(directory).double(), mask_duplicates=True).double().eval()
    masking.load_state_dict(plain.state_dict())
    batch = plain.collator()(rows(0, 9, 9, 30))
    z = plain.head(plain.embed(batch)).unflatten(0, (2, 4))
    cosine = torch.nn.functional.cosine_similarity(z[0][:, None], z[1][None], dim=-1) / 0.05
    assert plain(**batch)["loss"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(cosine, torch.arange(4)).item()
    )
    cosine[1, 2] = cosine[2, 1] = -torch.inf
    expected = torch.nn.functional.cross_entropy(cosine, torch.arange(4)).item()
    assert masking(**batch)["loss"].item() == pytest.approx(expected, abs=1e-10)


SHARING = [
    {"text": "a cat", "positive": "a pet", "negative": "a car"},
    {"text": "a cat", "positive": "an animal", "negative": "a tree"},  # the anchor of the first
    {"text": "a boat", "positive": "a ship", "negative": "an animal"},  # its hard negative is the second's positive
    {"text": "a raft", "positive": "a ship", "negative": "a red stone"},  # the positive of the third
    {"text": "the old garden", "positive": "a park", "negative": "a raft"},
]


def slow_supervised(z, rows, temperature):
    """Equation 5, where no column is a negative of a row if its text is the anchor or the positive of a row with the
    same anchor or the same positive."""
    first, second, third = (torch.nn.functional.normalize(view, dim=1).tolist() for view in z)

    def scaled(x, y):
        return math.exp(sum(a * b for a, b in zip(x, y, strict=True)) / temperature)

    total = 0.0
    for i, row in enumerate(rows):
        known = set()
        for other in rows:
            if other["text"] == row["text"] or other["positive"] == row["positive"]:
                known |= {other["text"], other["positive"]}
        own = scaled(first[i], second[i])
        others = [second[j] for j, other in enumerate(rows) if other["positive"] not in known]
        others += [third[j] for j, other in enumerate(rows) if other["negative"] not in known]
        total -= math.log(own / (own + sum(scaled(first[i], other) for other in others)))
    return total / len(rows)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_rows_that_share_an_anchor_or_a_positive_are_no_negatives_of_each_other(directory, chunk_size):
    """The default for triplets; False: the paper's equation, in which they are negatives."""
    method, paper = (
        SimCSE(Encoder.from_pretrained(directory, pooling="cls").double(), temperature=0.5, mask_duplicates=choice)
        .double()
        .eval()
        for choice in (None, False)
    )
    paper.load_state_dict(method.state_dict())
    method.info_nce.chunk_size = chunk_size
    batch = method.collator()(SHARING)
    assert batch["column"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    z = method.head(method.embed(batch)).unflatten(0, (3, 5))
    expected = slow_supervised(z, SHARING, 0.5)
    assert method(**batch)["loss"].item() == pytest.approx(expected, abs=1e-10)
    assert paper(**batch)["loss"].item() == pytest.approx(oracle(z, 0.5), abs=1e-10)
    assert oracle(z, 0.5) > expected + 1e-3


def test_single_texts_are_negatives_of_their_duplicates_unless_asked_otherwise(directory):
    """The paper's default for single texts."""
    losses = {}
    for choice in (None, False, True):
        method = SimCSE(Encoder.from_pretrained(directory, pooling="cls"), mask_duplicates=choice)
        torch.manual_seed(3)
        torch.nn.init.normal_(method.head.dense.weight)
        torch.nn.init.zeros_(method.head.dense.bias)
        batch = method.collator()(rows(0, 9, 30, 0))
        assert not batch["column"].any()
        losses[choice] = method.eval()(**batch)["loss"].item()
    assert losses[None] == losses[False] > losses[True] + 1e-3


def test_a_method_without_hard_negatives_refuses_triplets(directory):
    """Its two views would be cut out of three blocks."""
    for kind in (SimCLR, MoCo, SimCSEPlus, SwAV):
        with pytest.raises(InputError, match="no hard negatives"):
            kind(Encoder.from_pretrained(directory)).collator()(TRIPLETS)


def test_a_view_that_was_asked_for_is_applied_to_pairs_too(directory):
    """The first to the text, the second to its positive, as views inside the model are; hard negatives are plain."""
    method = SimCSE(Encoder.from_pretrained(directory), second_view="word_deletion:0.9")
    plain = SimCSE(Encoder.from_pretrained(directory))
    got, expected = (each.collator()(TRIPLETS)["lengths"].reshape(3, 5) for each in (method, plain))
    assert (got[[0, 2]] == expected[[0, 2]]).all()
    assert (got[1] < expected[1]).all()


def test_text_views_are_known_by_their_text(directory):
    """So that equal texts are found although their views differ."""
    method = SimCSE(Encoder.from_pretrained(directory))
    texts = ["a boat", "a raft", "a boat"]
    words = ["red", "old", "new"]
    views = [{"text": t, "text_1": f"{w} {t}", "text_2": f"the {w} {t}"} for w, t in zip(words, texts, strict=True)]
    batch = method.collator()(views)
    plain = method.collator()([{"text": text} for text in texts])
    assert torch.equal(batch["text_id"], plain["text_id"])
    assert not batch["column"].any()
    assert not torch.equal(batch["input_ids"][0], batch["input_ids"][1])


def test_needing_hooks_and_not_getting_them_raises(directory):
    method = SimCSE(Encoder.from_pretrained(directory), mlm_weight=0.1).train()
    with pytest.raises(RuntimeError, match="MethodCallback"):
        method(**method.collator()(rows(0, 1)))


# -- masked words -----------------------------------------------------------------------------------------------------


def test_masks_follow_bert_and_are_a_function_of_seed_epoch_text_and_view(directory):
    collator = SimCSE(Encoder.from_pretrained(directory), mlm_weight=0.1).collator(seed=1)
    batch = collator(rows(*range(280)))
    asked = torch.from_numpy(batch["mlm_labels"]) != -100
    ordinary = (batch["input_ids"] > 4) & (batch["attention_mask"] == 1)
    assert not asked[~ordinary].any()
    share = asked.sum() / ordinary.sum()
    assert abs(share - 0.15) < 0.02
    masked = (batch["mlm_input_ids"] == 4)[asked].float().mean()
    kept = (batch["mlm_input_ids"] == batch["input_ids"])[asked].float().mean()
    assert abs(masked - 0.8) < 0.04
    assert abs(kept - 0.1) < 0.04
    assert torch.equal(batch["mlm_input_ids"][~asked], batch["input_ids"][~asked])
    assert not torch.equal(batch["mlm_input_ids"][:280], batch["mlm_input_ids"][280:]), "views get masks of their own"

    alone = collator(rows(7))  # another batch, another width
    width = alone["input_ids"].shape[1]
    assert torch.equal(alone["mlm_input_ids"][0], batch["mlm_input_ids"][7, :width])
    again = SimCSE(Encoder.from_pretrained(directory), mlm_weight=0.1).collator(seed=1)(rows(*range(280)))
    assert torch.equal(again["mlm_input_ids"], batch["mlm_input_ids"])
    collator.set_epoch(1)
    assert not torch.equal(collator(rows(*range(280)))["mlm_input_ids"], batch["mlm_input_ids"])


def test_workers_that_outlive_an_epoch_see_it_move_on(directory):
    collator = SimCSE(Encoder.from_pretrained(directory), mlm_weight=0.1).collator()
    loader = torch.utils.data.DataLoader(
        rows(*range(8)), batch_size=8, collate_fn=collator, num_workers=1, persistent_workers=True
    )
    first, second = next(iter(loader)), next(iter(loader))
    collator.set_epoch(1)
    third = next(iter(loader))
    assert torch.equal(first["mlm_input_ids"], second["mlm_input_ids"])
    assert not torch.equal(first["mlm_input_ids"], third["mlm_input_ids"])


def test_the_masked_word_term_is_a_cross_entropy_of_the_checkpoints_own_head(directory):
    from transformers import AutoModelForMaskedLM

    method = SimCSE(Encoder.from_pretrained(directory), mlm_weight=0.1).eval()
    batch = method.collator()(rows(*range(30)))
    parts = method(**batch)
    model = AutoModelForMaskedLM.from_pretrained(directory).eval()
    tokens = {"input_ids": batch["mlm_input_ids"], "attention_mask": batch["attention_mask"]}
    expected = model(**tokens, labels=torch.from_numpy(batch["mlm_labels"])).loss
    assert parts["mlm"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert parts["loss"].item() == pytest.approx(parts["contrastive"].item() + 0.1 * expected.item(), abs=1e-5)


def test_a_checkpoint_without_a_masked_word_head_is_refused(directory, tmp_path):
    Encoder.from_pretrained(directory).save(tmp_path / "export")
    with pytest.raises(InputError, match="without a trained masked-word head"):
        SimCSE(Encoder.from_pretrained(tmp_path / "export"), mlm_weight=0.1)
