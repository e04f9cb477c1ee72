"""SimCLR, MoCo, SwAV, BYOL, SimSiam, Barlow Twins and VICReg: losses by loops, state that moves, two ranks."""

import inspect
import logging

import pytest
import torch
import transformers
from datasets import Dataset
from oracles import (
    slow_barlow_twins,
    slow_cosine_regression,
    slow_info_nce,
    slow_nt_xent,
    slow_sinkhorn,
    slow_swapped_prediction,
    slow_vicreg,
)
from support.tiny import TEXTS, tiny_encoder_directory
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import BYOL, METHODS, BarlowTwins, MoCo, MoCoV3, SimCLR, SimCSEPlus, SimSiam, SwAV, VICReg
from textcl.runs.recipe import load_recipe, resolve
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

ROWS = 5
SENTENCES = [{"text": TEXTS[7 * i]} for i in range(36)]
SMALL = {"projection_dimension": 8, "hidden_dimension": 16}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def build(kind, directory, **options):
    """In float64, without dropout: the views are those of the collator, so that a loss can be computed twice."""
    transformers.set_seed(0)
    views = {"first_view": "word_deletion:0.2", "second_view": "repetition"}
    encoder = Encoder.from_pretrained(directory, dropout=0.0, device="cpu").double()
    method = kind(encoder, **{**views, **options}).double().train()
    method.hooked = True
    if getattr(method, "target", None) is not None:
        with torch.no_grad():  # where it stands after some steps
            for parameter in method.target.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return method


def batch_of(method, start=0, end=ROWS):
    return method.collator()(SENTENCES[start:end])


def views_of(encoder, batch, count=2):
    """The embeddings of each view, from calls of their own."""
    names = ("input_ids", "attention_mask")
    return [encoder.embed({name: batch[name][batch["view"] == view] for name in names}) for view in range(count)]


def close(got, expected):
    assert got.item() == pytest.approx(expected, abs=1e-10)


# -- losses -----------------------------------------------------------------------------------------------------------


def test_simclr_is_the_mean_over_both_views_rows_behind_a_head_that_sees_them_together(directory):
    method = build(SimCLR, directory, temperature=0.3)
    batch = batch_of(method)
    embeddings = torch.cat(views_of(method.encoder, batch))
    first, second = method.projector(embeddings).chunk(2)
    close(method(**batch)["loss"], slow_nt_xent(first, second, first, second, temperature=0.3) / (2 * ROWS))
    assert not torch.allclose(first, method.projector(embeddings[:ROWS])), "batch norm tells whom it sees"


@pytest.mark.parametrize("in_batch_negatives", [False, True])
def test_moco_finds_its_key_among_the_queue(directory, in_batch_negatives):
    method = build(MoCo, directory, queue_size=7, projection_dimension=8, in_batch_negatives=in_batch_negatives)
    queue = torch.randn(4, 8, dtype=torch.float64)
    method.queue.push(queue)
    batch = batch_of(method)
    queries = method.projector(views_of(method.encoder, batch)[0])
    keys = method.target.projector(views_of(method.target.encoder, batch)[1])
    options = {"extra_negatives": queue, "temperature": 0.2, "keys_are_negatives": in_batch_negatives}
    outputs = method(**batch)
    close(outputs["loss"], slow_info_nce(queries, keys, **options) / ROWS)
    torch.testing.assert_close(outputs["keys"], keys, rtol=0, atol=1e-12)


def test_mocos_first_step_has_no_negative_and_teaches_nothing(directory):
    method = build(MoCo, directory)
    loss = method(**batch_of(method))["loss"]
    loss.backward()
    assert len(method.queue.read()) == 0
    close(loss, 0.0)
    assert max(p.grad.abs().max() for p in method.parameters() if p.grad is not None) < 1e-12


def test_moco_v3_is_twice_the_temperature_of_both_directions(directory):
    method = build(MoCoV3, directory, temperature=0.3, **SMALL)
    batch = batch_of(method)
    queries = [method.predictor(method.projector(view)) for view in views_of(method.encoder, batch)]
    keys = [method.target.projector(view) for view in views_of(method.target.encoder, batch)]
    expected = slow_info_nce(queries[0], keys[1], temperature=0.3) + slow_info_nce(queries[1], keys[0], temperature=0.3)
    close(method(**batch)["loss"], 2 * 0.3 * expected / ROWS)


PAIRS = [
    {"text": "a cat", "positive": "a pet"},
    {"text": "a cat", "positive": "an animal"},
    {"text": "a boat", "positive": "a ship"},
    {"text": "a raft", "positive": "a ship"},
    {"text": "the garden", "positive": "the old park"},
    {"text": "a ship", "positive": "the sea"},  # its text is the positive of two others
]
QUERY_IDS, KEY_IDS = torch.tensor([1, 1, 2, 3, 4, 7]), torch.tensor([5, 6, 7, 7, 8, 9])
ONE_WAY = {"query_ids": QUERY_IDS, "key_ids": KEY_IDS, "all_query_ids": QUERY_IDS, "temperature": 0.3}
BACK = {"query_ids": KEY_IDS, "key_ids": QUERY_IDS, "all_query_ids": KEY_IDS, "temperature": 0.3}


def test_pairs_that_share_a_text_are_no_negatives_of_each_other_in_any_method_with_negatives(directory):
    method = build(SimCLR, directory, temperature=0.3)
    batch = method.collator()(PAIRS)
    first, second = method.projector(torch.cat(views_of(method.encoder, batch))).chunk(2)
    ids = {"first_ids": QUERY_IDS, "second_ids": KEY_IDS, "pairs": True, "temperature": 0.3}
    close(method(**batch)["loss"], slow_nt_xent(first, second, first, second, **ids) / 12)

    method = build(MoCoV3, directory, temperature=0.3, **SMALL)
    queries = [method.predictor(method.projector(view)) for view in views_of(method.encoder, batch)]
    keys = [method.target.projector(view) for view in views_of(method.target.encoder, batch)]
    expected = slow_info_nce(queries[0], keys[1], **ONE_WAY) + slow_info_nce(queries[1], keys[0], **BACK)
    close(method(**batch)["loss"], 2 * 0.3 * expected / 6)

    method = build(MoCo, directory, temperature=0.3, queue_size=4, projection_dimension=8, in_batch_negatives=True)
    queries = method.projector(views_of(method.encoder, batch)[0])
    keys = method.target.projector(views_of(method.target.encoder, batch)[1])
    close(method(**batch)["loss"], slow_info_nce(queries, keys, **ONE_WAY) / 6)


def test_rows_with_fewer_columns_than_the_method_has_views_are_refused(directory):
    """SwAV's short views of a pair, or of two text views: there are none."""
    method = build(SwAV, directory, prototypes=4, short_views=2, **SMALL)
    for rows in (PAIRS, [{**row, "text_1": "a", "text_2": "b"} for row in SENTENCES[:3]]):
        with pytest.raises(InputError, match="--short-views 0"):
            method.collator()(rows)


def slow_swav(method, batch, queues=(None, None)):
    """Eq. 6 with the codes of eq. 3 to 5 for the first two views; the others predict."""
    count = len(method.views)
    projected = normalize(method.projector(torch.cat(views_of(method.encoder, batch, count))), dim=1)
    scores = [view @ method.prototypes.unit_norm.T for view in projected.chunk(count)]
    total = 0.0
    for assigning, queue in enumerate(queues):
        everything = scores[assigning]
        if queue is not None:
            everything = torch.cat([everything, queue @ method.prototypes.unit_norm.T])
        codes = slow_sinkhorn(everything, method.epsilon, 3)[:ROWS]
        others = [scores[view] for view in range(count) if view != assigning]
        losses = [slow_swapped_prediction(codes, other, method.temperature) / ROWS for other in others]
        total += sum(losses) / len(losses) / 2
    return total


@pytest.mark.parametrize("short_views", [0, 2])
def test_swavs_views_predict_the_codes_of_the_first_two(directory, short_views):
    method = build(SwAV, directory, prototypes=4, short_views=short_views, **SMALL)
    batch = batch_of(method)
    assert len(batch["view"]) == ROWS * (2 + short_views)
    lengths = batch["attention_mask"].sum(1).view(-1, ROWS)
    assert (lengths[2:] < lengths[1]).all()
    close(method(**batch)["loss"], slow_swav(method, batch))


def test_swavs_queue_is_assigned_too_once_it_is_full(directory):
    method = build(SwAV, directory, prototypes=4, queue_size=6, **SMALL)
    batch = batch_of(method)
    queues = normalize(torch.randn(2, 6, 8, dtype=torch.float64), dim=2)
    method.first_queue.push(queues[0, :5])
    method.second_queue.push(queues[1, :5])
    close(method(**batch)["loss"], slow_swav(method, batch))
    method.first_queue.push(queues[0, 5:])
    method.second_queue.push(queues[1, 5:])
    close(method(**batch)["loss"], slow_swav(method, batch, queues))
    assert abs(slow_swav(method, batch, queues) - slow_swav(method, batch)) > 1e-3


def test_swav_without_equipartition_takes_the_softmax_for_the_code(directory):
    method = build(SwAV, directory, prototypes=4, equipartition=False, **SMALL)
    batch = batch_of(method)
    projected = method.projector(torch.cat(views_of(method.encoder, batch)))
    first, second = method.prototypes(projected).chunk(2)
    expected = slow_swapped_prediction((first / method.epsilon).softmax(1), second, 0.1)
    expected += slow_swapped_prediction((second / method.epsilon).softmax(1), first, 0.1)
    close(method(**batch)["loss"], expected / 2 / ROWS)


def test_byol_is_the_distance_of_each_prediction_from_the_others_target(directory):
    method = build(BYOL, directory, **SMALL)
    batch = batch_of(method)
    predictions = [method.predictor(method.projector(view)) for view in views_of(method.encoder, batch)]
    targets = [method.target.projector(view) for view in views_of(method.target.encoder, batch)]
    expected = slow_cosine_regression(predictions[0], targets[1]) + slow_cosine_regression(predictions[1], targets[0])
    close(method(**batch)["loss"], expected / ROWS)


def test_byol_without_its_asymmetry_pulls_the_projections_together(directory):
    method = build(BYOL, directory, asymmetric=False, **SMALL)
    batch = batch_of(method)
    first, second = (method.projector(view) for view in views_of(method.encoder, batch))
    close(method(**batch)["loss"], 2 * slow_cosine_regression(first, second) / ROWS)


def test_simsiam_is_half_of_each_negative_cosine(directory):
    method = build(SimSiam, directory, projection_dimension=8, bottleneck_dimension=4)
    batch = batch_of(method)
    projections = [method.projector(view) for view in views_of(method.encoder, batch)]
    first, second = (method.predictor(view) for view in projections)
    cosines = [normalize(p, dim=1) * normalize(z, dim=1) for p, z in zip((second, first), projections, strict=True)]
    loss = method(**batch)["loss"]
    close(loss, -sum(cosine.sum().item() for cosine in cosines) / 2 / ROWS)
    assert -1 <= loss.item() <= 1


def test_simsiams_gradient_stops_at_the_other_view(directory):
    gradients = {}
    for stop in (True, False):
        method = build(SimSiam, directory, projection_dimension=8, bottleneck_dimension=4, stop_gradient=stop)
        batch = batch_of(method)
        embeddings = method.embed(batch).detach().requires_grad_()
        (gradients[stop],) = torch.autograd.grad(method.objective(embeddings, batch)["loss"], embeddings)

    first, second = (method.projector(view) for view in embeddings.chunk(2))
    expected = 0.0
    for prediction, target in ((first, second.detach()), (second, first.detach())):
        expected = expected - torch.cosine_similarity(method.predictor(prediction), target, dim=1).mean() / 2
    torch.testing.assert_close(gradients[True], torch.autograd.grad(expected, embeddings)[0], rtol=0, atol=1e-10)
    assert (gradients[True] - gradients[False]).abs().max() > 1e-4


def test_barlow_twins_and_vicreg_are_those_of_the_projections(directory):
    method = build(BarlowTwins, directory, projection_dimension=8, off_diagonal_weight=0.02, loss_scale=0.3)
    batch = batch_of(method)
    first, second = (method.projector(view) for view in views_of(method.encoder, batch))
    close(method(**batch)["loss"], 0.3 * slow_barlow_twins(first, second, 0.02, 1e-5))

    weights = {"invariance_weight": 3.0, "variance_weight": 5.0, "covariance_weight": 7.0}
    method = build(VICReg, directory, projection_dimension=8, loss_scale=0.3, **weights)
    first, second = (method.expander(view) for view in views_of(method.encoder, batch))
    terms = slow_vicreg(first, second, 1e-4)
    outputs = method(**batch)
    close(outputs["loss"], 0.3 * sum(w * term for w, term in zip(weights.values(), terms, strict=True)))
    assert [outputs[name].item() for name in ("invariance", "variance", "covariance")] == pytest.approx(
        terms, abs=1e-10
    )


SYMMETRIC = {
    SimCLR: {},
    MoCoV3: SMALL,
    SwAV: {"prototypes": 4, **SMALL},
    BYOL: SMALL,
    SimSiam: {"projection_dimension": 8, "bottleneck_dimension": 4},
    BarlowTwins: {"projection_dimension": 8},
    VICReg: {"projection_dimension": 8},
}


@pytest.mark.parametrize("kind", SYMMETRIC)
def test_the_views_may_change_places(directory, kind):
    method = build(kind, directory, **SYMMETRIC[kind])
    batch = batch_of(method)
    places = torch.arange(2 * ROWS).roll(ROWS)
    swapped = {name: each[places] for name, each in batch.items()} | {"view": batch["view"]}
    assert not torch.equal(swapped["input_ids"], batch["input_ids"])
    close(method(**swapped)["loss"], method(**batch)["loss"].item())


# -- what moves after the step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [(MoCo, {"queue_size": 9}), (MoCoV3, SMALL), (BYOL, SMALL)])
def test_the_target_gets_no_gradient_and_follows_after_the_step(directory, kind, options):
    method = build(kind, directory, momentum=0.9, **options)
    outputs = method(**batch_of(method))
    outputs["loss"].backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())
    before = [parameter.clone() for parameter in method.target.parameters()]
    originals = [*method.encoder.parameters(), *method.projector.parameters()]
    done = 6 if kind is BYOL else 5
    method.after_optimizer_step(done, 10, [outputs["keys"]] if "keys" in outputs else [])
    momentum = 0.9 if kind is MoCo else 0.95  # constant, or half way up
    for own, old, original in zip(method.target.parameters(), before, originals, strict=True):
        torch.testing.assert_close(own, momentum * old + (1 - momentum) * original, rtol=0, atol=1e-12)


# 1 − 0.1 (1 + cos(π step/4))/2 for the steps 0 to 3, by hand
MOMENTA = (0.9, 1 - 0.1 * (1 + 0.5**0.5) / 2, 0.95, 1 - 0.1 * (1 - 0.5**0.5) / 2)
WEIGHTS = (3.0, -2.0, 5.0, 1.0)
"""The online weight after each of four optimizer steps; it starts at 1."""


def as_byols_authors_do():
    """byol_experiment.py: `_update_fn` of step i, from 0, is the optimizer's update, then the target's with m(i)."""
    target = 1.0
    for momentum, weight in zip(MOMENTA, WEIGHTS, strict=True):
        target = momentum * target + (1 - momentum) * weight
        yield target


def as_moco_v3s_authors_do():
    """moco/builder.py: `forward` of step i, from 0, updates the copy with m(i), then makes keys; then the optimizer."""
    target = online = 1.0
    for number, momentum in enumerate(MOMENTA):
        target = momentum * target + (1 - momentum) * online
        if number:
            yield target  # the keys of this step; those of step 0 are the encoder's own
        online = WEIGHTS[number]


@pytest.mark.parametrize(("kind", "authors"), [(BYOL, as_byols_authors_do), (MoCoV3, as_moco_v3s_authors_do)])
def test_the_target_moves_as_in_the_authors_code(directory, kind, authors):
    """Each target that a step of a run of four sees: the momentum schedule starts at the step it starts at there."""
    method = build(kind, directory, momentum=0.9, **SMALL)
    online, copied = method.projector[0].weight, method.target.projector[0].weight
    with torch.no_grad():
        copied.fill_(1.0)
        seen = []
        for done, weight in enumerate(WEIGHTS, start=1):
            online.fill_(weight)
            method.after_optimizer_step(done, len(WEIGHTS), [])
            seen.append(copied[0, 0].item())
    expected = list(authors())
    assert seen[: len(expected)] == pytest.approx(expected, abs=1e-12)


def test_mocos_keys_enter_the_queue_after_the_step_in_the_order_of_the_micro_batches(directory, tmp_path):
    class Watch(transformers.TrainerCallback):
        keys, held, followed = (), (), ()

        def on_train_begin(self, args, state, control, model, **kwargs):
            model.register_forward_hook(lambda method, inputs, outputs: self.seen(outputs["keys"]))

        def seen(self, keys):
            self.keys = (*self.keys, keys)

        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            self.held = (*self.held, int(model.queue.pushed))
            self.target = [parameter.clone() for parameter in model.target.parameters()]

        def on_step_end(self, args, state, control, model, **kwargs):
            assert torch.equal(model.queue.read(), torch.cat(self.keys))
            originals = [*model.encoder.parameters(), *model.projector.parameters()]
            triples = zip(model.target.parameters(), self.target, originals, strict=True)
            self.followed = (*self.followed, max((a - 0.9 * b - 0.1 * c).abs().max().item() for a, b, c in triples))

    args = ContrastiveTrainingArguments(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=3,
        learning_rate=1e-2,
    )
    transformers.set_seed(0)
    method = MoCo(Encoder.from_pretrained(directory, device="cpu"), queue_size=50, momentum=0.9)
    watch = Watch()
    ContrastiveTrainer(method, args, Dataset.from_list(SENTENCES), callbacks=[watch]).train()
    assert watch.held == (0, 8, 16)
    assert len(watch.keys) == 6
    assert max(watch.followed) < 1e-6


def train(method, batches, model=None):
    """What a trainer does: hooks around the steps of an optimizer."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    for step, batch in enumerate(batches):
        outputs = (model or method)(**batch)
        outputs["loss"].backward()
        method.before_optimizer_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_optimizer_step(step + 1, len(batches), [outputs["keys"]] if "keys" in outputs else [])


def test_swavs_prototypes_stand_still_for_the_frozen_steps_and_stay_on_the_sphere(directory):
    method = build(SwAV, directory, prototypes=4, frozen_steps=2, **SMALL)
    method.prototypes.normalize()  # in float64
    start = method.prototypes.unit_norm.detach().clone()
    train(method, [batch_of(method)] * 2)
    torch.testing.assert_close(method.prototypes.unit_norm, start, rtol=0, atol=1e-12)
    train(method, [batch_of(method)] * 3)
    assert (method.prototypes.unit_norm - start).abs().max() > 1e-6
    lengths = method.prototypes.unit_norm.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_swavs_queues_fill_from_their_step_on_each_with_its_view(directory):
    method = build(SwAV, directory, prototypes=4, queue_size=20, queue_start=1, short_views=1, **SMALL)
    batch = batch_of(method)
    keys = method(**batch)["keys"]
    method.after_optimizer_step(1, 9, [keys])
    assert len(method.first_queue.read()) == 0
    method.after_optimizer_step(2, 9, [keys, keys])
    first, second, _ = normalize(method.projector(method.embed(batch)), dim=1).chunk(3)
    torch.testing.assert_close(method.first_queue.read(), first.repeat(2, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(method.second_queue.read(), second.repeat(2, 1), rtol=0, atol=1e-12)


def test_swav_warns_of_more_prototypes_than_rows_can_fill(directory, caplog):
    for prototypes, warned in ((30, False), (31, True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "textcl"):
            build(SwAV, directory, prototypes=prototypes, queue_size=18, **SMALL).on_fit_start(SENTENCES, 12)
        assert ("31 prototypes, more than the 30 rows" in caplog.text) == warned


def test_sizes_that_corpus_or_batch_cannot_fill_are_warned_of_with_their_flag(directory, caplog):
    """The paper's sizes on a corpus of 256 texts in batches of 64, and the sizes that fit."""

    def said(kind, **options):
        caplog.clear()
        method = kind(Encoder.from_pretrained(directory, device="cpu"), **options)
        with caplog.at_level(logging.WARNING, "textcl"):
            method.on_fit_start([{"text": "a"}] * 256, 64)
        return caplog.text

    assert "--queue-size is 65,536, but the corpus has only 256 rows" in said(MoCo, queue_size=65536)
    assert "--queue-size is 193" in said(MoCo, queue_size=193)
    assert not said(MoCo, queue_size=192)
    assert "--queue-size is 256" in said(SwAV)
    assert "--queue-size is 500" in said(SimCSEPlus, queue_size=500)
    assert not said(SimCSEPlus)
    assert "Lower --prototypes" in said(SwAV, prototypes=3000, queue_size=100)
    assert not said(SwAV, queue_size=100)
    for kind in (BarlowTwins, VICReg):
        assert "--projection-dimension is 1,025, but a batch has only 64 rows" in said(kind, projection_dimension=1025)
        assert not said(kind)
    decorrelation = {"decorrelation_weight": 0.1, "decorrelation_dimension": 1025}
    assert "--decorrelation-dimension is 1,025" in said(SimCSEPlus, **decorrelation)


def test_the_sizes_of_papers_on_images_default_to_those_of_the_standard_runs():
    """In the constructor and in the flags alike; what clips no gradient in the recipe clips none by default."""
    sizes = {"projection_dimension", "hidden_dimension", "bottleneck_dimension", "queue_size", "queue_start"}
    sizes |= {"prototypes", "frozen_steps", "max_grad_norm"}
    for name in ("simclr", "moco", "moco-v3", "swav", "byol", "simsiam", "barlow-twins", "vicreg"):
        defaults, standard = resolve({"method": name})[0].flags, load_recipe(f"standard-{name}")
        found = sizes & standard.keys()
        assert {key: defaults[key] for key in found} == {key: standard[key] for key in found}, name
        for parameter in inspect.signature(METHODS[name]).parameters.values():
            if parameter.name in sizes:
                assert parameter.default == defaults[parameter.name]
    assert resolve({"method": "barlow-twins"})[0].flags["max_grad_norm"] == 0.0
    assert resolve({"method": "barlow-twins"}, ["--max-grad-norm", "1"])[0].flags["max_grad_norm"] == 1.0
    assert resolve({"method": "byol"})[0].flags["max_grad_norm"] == 1.0


# -- two ranks --------------------------------------------------------------------------------------------------------

TOGETHER = {
    "moco": {"queue_size": 20, "momentum": 0.9},
    "byol": {"momentum": 0.9, **SMALL},
    "swav": {"queue_size": 20, "prototypes": 4, "frozen_steps": 1, **SMALL},
}


def trained(rank, directory, name, parts):
    """The state after three steps; rank None: of one process, on the joined batches."""
    method = build(METHODS[name], directory, **TOGETHER[name])
    model = None if rank is None else DistributedDataParallel(method)
    train(method, [batch_of(method, *part) for part in parts[rank or 0]], model)
    return {key: value.clone() for key, value in method.state_dict().items()}


@pytest.mark.parametrize("name", TOGETHER)
def test_three_steps_on_two_ranks_are_those_of_one_process(directory, two_processes, name):
    """Parameters, queue, target and prototypes, with ranks that hold different numbers of rows."""
    joined = [(0, 12), (12, 24), (24, 36)]
    parts = [[(start, start + 4) for start, _ in joined], [(start + 4, end) for start, end in joined]]
    start = build(METHODS[name], directory, **TOGETHER[name]).state_dict()
    expected = trained(None, directory, name, [joined])
    moved = {key for key, value in expected.items() if not torch.equal(value, start[key])}
    assert len(moved) > 0.8 * len([key for key in start if "pooler" not in key])
    for state in two_processes(trained, directory, name, parts):
        for key, value in expected.items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")
