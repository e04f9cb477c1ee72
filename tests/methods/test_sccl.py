"""SCCL: its losses by loops, the k-means start, a stop that needs no labels, and runs as a user makes them."""

import csv
import json
import logging
import math
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from oracles import slow_assignments, slow_divergence, slow_target
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from support.command import DIES, Forked, textcl
from support.tiny import OBJECTS, TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import file_hash
from textcl.losses.clustering import clustering_divergence, log_assignments, target_distribution
from textcl.methods import SCCL
from textcl.metrics.clustering import adjusted_rand_index, clustering_accuracy
from textcl.metrics.stability import cluster_stability
from textcl.runs.clusters import train_for_clusters
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.run import run_recipe
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import newest_complete_checkpoint
from textcl.training.trainer import ContrastiveTrainer

LABELS = [next(i for i, phrase in enumerate(OBJECTS) if phrase in text) for text in TEXTS]
VIEWED = [{"text": text, "text_1": text[3:], "text_2": text[:-3]} for text in TEXTS]


def soft_assignments(*given: torch.Tensor | float) -> torch.Tensor:
    return log_assignments(*given).exp()


def numbers(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_contrastive(first, second, temperature):
    """Equations 1 and 2: each of the 2N views finds its other one among 2N - 1, the mean over 2N."""
    views = [*first.tolist(), *second.tolist()]
    count = len(first)

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    total = 0.0
    for i, view in enumerate(views):
        scores = {j: math.exp(cosine(view, other) / temperature) for j, other in enumerate(views) if j != i}
        total -= math.log(scores[(i + count) % (2 * count)] / sum(scores.values()))
    return total / (2 * count)


def divergence(rows, centres, alpha=1.0):
    log_q = log_assignments(rows, centres, alpha)
    return clustering_divergence(log_q, target_distribution(log_q.exp(), log_q.exp().sum(dim=0)))


@pytest.mark.parametrize("alpha", [1.0, 10.0, 0.5])
def test_assignments_target_and_divergence_are_equations_3_to_5(alpha):
    rows, centres = numbers(7, 5), numbers(3, 5, seed=1)
    assigned = slow_assignments(rows, centres, alpha)
    q = soft_assignments(rows, centres, alpha)
    assert torch.allclose(q, torch.tensor(assigned, dtype=q.dtype), atol=1e-13)
    p = target_distribution(q, q.sum(dim=0))
    assert torch.allclose(p, torch.tensor(slow_target(assigned), dtype=q.dtype), atol=1e-13)
    assert torch.allclose(q.sum(dim=1), torch.ones(7, dtype=q.dtype), atol=1e-14)
    assert torch.allclose(p.sum(dim=1), torch.ones(7, dtype=q.dtype), atol=1e-14)
    expected = slow_divergence(assigned, slow_target(assigned))
    assert divergence(rows, centres, alpha).item() == pytest.approx(expected, abs=1e-12)


def test_closed_forms():
    uniform = torch.full((6, 3), 1 / 3, dtype=torch.float64)
    assert torch.allclose(target_distribution(uniform, uniform.sum(dim=0)), uniform)
    assert clustering_divergence(uniform.log(), uniform).item() == pytest.approx(0, abs=1e-14)
    sure = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    assert torch.equal(target_distribution(sure, sure.sum(dim=0)), sure)
    # on their own centres, all others 1e6 away: as sure as a Student-t gets
    centres = 1e6 * torch.eye(3, dtype=torch.float64)
    assert divergence(centres.repeat(2, 1), centres).item() == pytest.approx(0, abs=1e-9)
    # a target of exactly 0, as the square of a small q in float32 is, adds nothing
    q = torch.tensor([[1.0, 1e-30]])
    p = target_distribution(q, q.sum(dim=0))
    assert p[0, 1] == 0
    assert clustering_divergence(q.log(), p).item() == pytest.approx(0, abs=1e-6)
    # two rows that mirror one another: f is balanced, and p the squares of q
    rows = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    q = soft_assignments(rows, torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    a, b = q[0].tolist()
    assert target_distribution(q, q.sum(dim=0))[0, 0].item() == pytest.approx(a * a / (a * a + b * b))
    # many degrees of freedom: the Student-t becomes a Gaussian
    rows, centres = numbers(7, 5), numbers(3, 5, seed=1)
    gaussian = (-(torch.cdist(rows, centres) ** 2) / 2).softmax(dim=1)
    assert torch.allclose(soft_assignments(rows, centres, 1e8), gaussian, atol=1e-6)
    assert not torch.allclose(soft_assignments(rows, centres, 10.0), gaussian, atol=1e-2)


def test_large_clusters_draw_less():
    """What f is there for: of two equal assignments the one to the smaller cluster is strengthened."""
    q = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.9, 0.1]], dtype=torch.float64)
    assert target_distribution(q, q.sum(dim=0))[0].tolist() == pytest.approx([0.7 / 3.0, 2.3 / 3.0])


def test_gradients_and_invariances():
    rows, centres = numbers(6, 4).requires_grad_(), numbers(3, 4, seed=1).requires_grad_()
    target = target_distribution(soft_assignments(rows, centres), soft_assignments(rows, centres).sum(dim=0))
    assert not target.requires_grad
    assert torch.autograd.gradcheck(
        lambda e, c: clustering_divergence(log_assignments(e, c, 2.0), target), (rows, centres)
    )
    # the target is a constant of the step: dL/dq = -p/q, and nothing through p
    through = torch.autograd.grad(divergence(rows, centres), (rows, centres))
    constant = torch.autograd.grad(clustering_divergence(log_assignments(rows, centres), target), (rows, centres))
    assert all(torch.equal(a, b) for a, b in zip(through, constant, strict=True))
    order = torch.tensor([2, 0, 1])
    assert divergence(rows, centres[order]).item() == pytest.approx(divergence(rows, centres).item(), abs=1e-13)
    assert torch.allclose(soft_assignments(rows, centres[order]), soft_assignments(rows, centres)[:, order], atol=1e-14)
    assert divergence(rows[[3, 1, 5, 0, 2, 4]], centres).item() == pytest.approx(divergence(rows, centres).item())
    moved = numbers(4, seed=2)
    assert torch.allclose(soft_assignments(rows + moved, centres + moved), soft_assignments(rows, centres), atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_stay_right_on_a_centre_far_away_and_far_from_the_origin(dtype):
    centres = numbers(5, 16).to(dtype)
    cases = {
        "on a centre": (centres.clone(), centres),
        "far away": (numbers(5, 16, seed=1, scale=1e6).to(dtype), centres),
        "all far from the origin": (
            (300 + numbers(5, 16, seed=1, scale=4)).to(dtype),
            (300 + numbers(5, 16, scale=4)).to(dtype),
        ),
    }
    for name, (rows, middles) in cases.items():
        rows, middles = rows.requires_grad_(), middles.detach().requires_grad_()
        log_q = log_assignments(rows, middles)
        assert log_q.dtype == torch.float32
        exact = log_assignments(rows.double(), middles.double())
        assert torch.allclose(log_q.double(), exact, atol=1e-4), name
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(log_assignments(rows, middles), log_q), name
        loss = divergence(rows, middles)
        loss.backward()
        assert math.isfinite(loss.item()), name
        assert all(torch.isfinite(side.grad).all() for side in (rows, middles)), name
    # an emptied cluster: no mass, and no NaN
    sharp = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert torch.equal(target_distribution(sharp, sharp.sum(dim=0)), sharp)


def test_memory_does_not_grow_with_rows_times_clusters_times_dimension():
    rows, centres = torch.randn(400, 384, requires_grad=True), torch.randn(20, 384, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = divergence(rows, centres)
    loss.backward()
    assert sum(kept.values()) < 400 * 20 * 384 / 5


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def method_of(directory, dropout=None, **options):
    transformers.set_seed(0)
    options = {"clusters": 4, **options}
    return SCCL(Encoder.from_pretrained(directory, dropout=dropout, device="cpu"), **options)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("weight", [None, 0.0, 0.7])
def test_the_whole_loss(directory, explicit, weight):
    """Eq. 6. Explicit: the original is clustered, with weight 1; virtual: the first view, with 0.5."""
    views = {} if explicit else {"first_view": "word_deletion:0.4", "second_view": "reordering"}
    method = method_of(directory, dropout=0.0, alpha=10.0, clustering_weight=weight, **views).double()
    rows = VIEWED[::30] if explicit else [{"text": text} for text in TEXTS[::30]]
    method.prepare_corpus(Dataset.from_list(rows))
    with torch.no_grad():
        method.centres.copy_(numbers(*method.centres.shape))
    batch = method.collator()(rows)
    method.hooked = True
    parts = method.embed(batch).chunk(3 if explicit else 2)
    if explicit:  # every block is what the plain text gives
        for column, part in zip(("text", "text_1", "text_2"), parts, strict=True):
            assert np.allclose(method.encode([row[column] for row in rows]), part.detach().numpy(), atol=1e-6)
    else:
        assert not any(np.allclose(method.encode([row["text"] for row in rows]), part.detach()) for part in parts)
    first, second = (method.head(part) for part in parts[-2:])
    assigned = slow_assignments(parts[0], method.centres, 10.0)
    clustering = slow_divergence(assigned, slow_target(assigned)) / len(rows)
    contrastive = slow_contrastive(first, second, 0.5)
    got = method(**batch)
    assert got["contrastive"].item() == pytest.approx(contrastive, abs=1e-10)
    assert got["clustering"].item() == pytest.approx(clustering, abs=1e-10)
    w = (1.0 if explicit else 0.5) if weight is None else weight
    assert got["loss"].item() == pytest.approx(10 * contrastive + w * clustering, abs=1e-9)


def trainer_of(directory, output, labels=None, method=None, callbacks=(), **options):
    columns = {"text": TEXTS} | ({} if labels is None else {"label": labels})
    settings = {
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-4,
        "max_steps": 4,
        "eval_steps": 2,
        "save_strategy": "no",
        **options,
    }
    args = ContrastiveTrainingArguments(str(output), **settings)
    rows = Dataset.from_dict(columns)
    return ContrastiveTrainer(method or method_of(directory), args, rows, callbacks=callbacks)


def log_of(output):
    return [json.loads(line) for line in (Path(output) / "log.jsonl").read_text().splitlines()]


class CentresAtFirstStep(transformers.TrainerCallback):
    def __init__(self):
        self.centres = None

    def on_step_begin(self, args, state, control, **kwargs):
        if self.centres is None:
            self.centres = kwargs["model"].centres.detach().clone()


def test_centres_start_as_k_means_gives_them_and_are_kept_at_a_resume(directory, tmp_path):
    """The best of ten starts on the untouched embeddings, once a run."""
    untouched = Encoder.from_pretrained(directory, device="cpu").encode(TEXTS)
    means = KMeans(4, n_init=10, random_state=0).fit(untouched)
    expected = means.cluster_centers_[np.argsort(-np.bincount(means.labels_), kind="stable")]
    seen = CentresAtFirstStep()
    options = {"save_strategy": "steps", "save_steps": 2, "select_best": False}
    trainer_of(directory, tmp_path, callbacks=[seen], **options).train()
    assert np.allclose(seen.centres, expected, atol=1e-5)

    stored = load_file(tmp_path / "checkpoint-2" / "model.safetensors")["centres"]
    assert not np.allclose(stored, expected, atol=1e-5)
    seen = CentresAtFirstStep()
    resumed = trainer_of(directory, tmp_path, callbacks=[seen], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(seen.centres, stored)


def test_head_and_centres_learn_a_hundred_times_as_fast(directory, tmp_path):
    trainer = trainer_of(directory, tmp_path, weight_decay=0.1)
    names = {parameter: name for name, parameter in trainer.method.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    assert found["centres"] == found["head.0.weight"] == (pytest.approx(1e-2), 0.1)
    assert found["head.2.bias"] == (pytest.approx(1e-2), 0.0)
    encoders = {pair for name, pair in found.items() if name.startswith("encoder.")}
    assert encoders == {(1e-4, 0.1), (1e-4, 0.0)}


class Assignments(transformers.TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, **kwargs):
        self.seen.append(kwargs["model"].assign(kwargs["model"].encode(TEXTS)))


def test_it_stops_once_no_cluster_changes_and_not_before(directory, tmp_path):
    seen = Assignments()
    still = trainer_of(directory, tmp_path / "still", learning_rate=1e-9, target_score=99.9, max_steps=20)
    still.train()
    assert still.state.global_step == 4  # the second evaluation is the first that has one to compare with
    assert [entry["eval_unchanged"] for entry in log_of(tmp_path / "still") if "eval_unchanged" in entry] == [0, 100]

    options = {"learning_rate": 3e-3, "target_score": 99.9, "max_steps": 8}
    moving = trainer_of(directory, tmp_path / "moving", callbacks=[seen], **options)
    moving.train()
    logged = [entry["eval_unchanged"] for entry in log_of(tmp_path / "moving") if "eval_unchanged" in entry]
    shares = [100 * np.mean(a == b) for a, b in zip(seen.seen, seen.seen[1:], strict=False)]
    assert logged == pytest.approx([0, *shares])
    assert 0 < min(shares) < 99.9
    assert moving.state.global_step > 4


def test_labels_are_looked_at_and_never_learned_from(directory, tmp_path, caplog):
    """Known, permuted or absent: the same weights to the bit, after the same steps; only what is logged differs."""
    permuted = random.Random(0).sample(LABELS, len(LABELS))
    runs = {}
    for name, labels in {"known": LABELS, "permuted": permuted, "absent": None}.items():
        options = {"max_steps": 12, "target_score": 95.0}
        runs[name] = trainer_of(directory, tmp_path / name, labels, **options)
        runs[name].train()
    steps = runs["known"].state.global_step
    assert steps == 4  # by the rule: the first evaluation has nothing to compare with
    for name in ("permuted", "absent"):
        assert runs[name].state.global_step == steps
        for key, value in runs["known"].method.state_dict().items():
            assert torch.equal(value, runs[name].method.state_dict()[key]), (name, key)
    figures = {name: [entry for entry in log_of(tmp_path / name) if "eval_unchanged" in entry] for name in runs}
    kinds = {f"eval_{kind}_{metric}" for kind in ("kmeans", "head") for metric in ("accuracy", "nmi", "ari")}
    assert kinds <= figures["known"][-1].keys()
    assert not kinds & figures["absent"][-1].keys()
    assert [e["eval_kmeans_nmi"] for e in figures["known"]] != [e["eval_kmeans_nmi"] for e in figures["permuted"]]


def test_figures_are_those_of_k_means_and_of_the_head(directory, tmp_path):
    trainer = trainer_of(directory, tmp_path, LABELS, select_best=False)
    trainer.train()
    last = [entry for entry in log_of(tmp_path) if "eval_unchanged" in entry][-1]
    rows = trainer.method.encode(TEXTS)
    by_head = trainer.method.assign(rows)
    squares = ((rows[:, None] - trainer.method.centres.detach().numpy()) ** 2).sum(axis=2)
    assert (by_head == squares.argmin(axis=1)).all()  # the largest q is that of the nearest centre
    by_kmeans = KMeans(4, n_init=10, random_state=0).fit(rows).labels_
    assert last["eval_head_accuracy"] == pytest.approx(100 * clustering_accuracy(LABELS, by_head))
    assert last["eval_head_ari"] == pytest.approx(100 * adjusted_rand_index(LABELS, by_head))
    assert last["eval_kmeans_accuracy"] == pytest.approx(100 * clustering_accuracy(LABELS, by_kmeans))
    assert last["eval_kmeans_ari"] == pytest.approx(100 * adjusted_rand_index(LABELS, by_kmeans))


def test_an_emptied_cluster_is_said(directory, caplog):
    method = method_of(directory)
    rows = Dataset.from_dict({"text": TEXTS})
    method.on_fit_start(method.prepare_corpus(rows), batch_size=8)
    (unchanged,) = method.evaluators(rows)
    unchanged(method.exported)
    assert "hold no text" not in caplog.text
    with torch.no_grad():
        method.centres[1] += 1000
    unchanged(method.exported)
    assert "1 of 4 clusters hold no text" in caplog.text


def test_the_number_of_clusters_is_estimated_and_said(directory, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trainer = trainer_of(directory, tmp_path, method=method_of(directory, clusters=None), max_steps=2)
    assert "clusters are the most stable; this number is estimated" in caplog.text
    expected = cluster_stability(Encoder.from_pretrained(directory, device="cpu").encode(TEXTS)).best
    assert len(trainer.method.centres) == expected
    trainer.train()
    assert trainer.state.global_step == 2


def test_what_cannot_be_clustered_is_refused(directory, tmp_path):
    with pytest.raises(InputError, match="clusters must be a whole number of at least 2, not 1"):
        method_of(directory, clusters=1)
    with pytest.raises(InputError, match="cannot make 6 clusters from 5 distinct texts"):
        method_of(directory, clusters=6).prepare_corpus(Dataset.from_dict({"text": [*TEXTS[:5], *TEXTS[:5]]}))
    with pytest.raises(InputError, match="fewer than one batch of 400"):
        trainer_of(directory, tmp_path, per_device_train_batch_size=400)
    with pytest.raises(InputError, match="this model has none"):
        trainer_of(directory, tmp_path, method=method_of(directory, dropout=0.0))


def write_csv(path):
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([["label", "text"], *zip(LABELS, TEXTS, strict=True)])
    return path


def small(directory, tmp_path, **more):
    flags = {"model": directory, "data": write_csv(tmp_path / "c.csv"), "label_column": "label", "clusters": 4}
    flags |= {"method": "sccl", "output": tmp_path / "run", "per_device_train_batch_size": 16, "max_steps": 4}
    return {key: str(value) for key, value in {**flags, "eval_steps": 2, **more}.items()}


def test_the_methods_own_figures_lead_where_no_dev_set_is_named(directory, tmp_path, few_sets, monkeypatch):
    """Also where STS-B is installed; what the user names leads where there is something."""
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    recipe, _ = resolve(small(directory, tmp_path))
    kept = run_recipe(recipe).record.dev
    assert (kept.set, kept.step, kept.chosen) == ("unchanged", 4, False)
    assert not (tmp_path / "run" / "best").exists()
    assert not any("eval_stsb-dev" in entry for entry in log_of(tmp_path / "run"))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}\n" for i in range(40)))
    recipe, _ = resolve(small(directory, tmp_path, output=tmp_path / "named", dev=pairs, eval_steps=4))
    assert run_recipe(recipe).record.dev.set == "pairs"
    assert any("eval_unchanged" in entry for entry in log_of(tmp_path / "named"))
    recipe, _ = resolve({"method": "simcse"})
    assert recipe.flags["dev"] is None


def test_the_methods_own_figures_choose_nothing(directory, tmp_path):
    """At so low a rate all texts are in the same cluster from the second evaluation on, which is the first of the
    highest scores."""
    trainer = trainer_of(directory, tmp_path / "run", max_steps=6, learning_rate=1e-7, save_strategy="steps")
    trainer.train()
    assert trainer.args.select_best
    scores = [entry["eval_unchanged"] for entry in log_of(tmp_path / "run") if "eval_unchanged" in entry]
    assert scores == [0, 100, 100]
    said = "unchanged: 100.0 (step 6, the last one: nothing was chosen); the untouched encoder was not scored"
    assert trainer.selection.sentence() == said
    last = load_file(tmp_path / "run" / "checkpoint-6" / "model.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in trainer.method.state_dict().items())


@pytest.mark.slow
def test_killed_and_resumed_as_a_process_the_weights_are_bit_equal(directory, tmp_path):
    flags = small(directory, tmp_path, max_steps=120, save_steps=20, eval_steps=20)
    del flags["method"], flags["output"]
    command = ["train", "sccl", *(f"--{key}={value}" for key, value in flags.items()), "--output"]
    whole = textcl(*command, "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "\nunchanged: " in whole.stdout

    with Forked(DIES, "checkpoint-60/.complete.json.", *command, "run", cwd=tmp_path) as process:
        killed = process.wait()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-40"
    assert not (tmp_path / "run" / "run.json").exists()

    done = textcl(*command, "run", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["resumed"]
    for name in ("export/model.safetensors", "checkpoint-120/model.safetensors"):
        assert file_hash(tmp_path / "run" / name) == file_hash(tmp_path / "whole" / name), name


def test_adapt_stops_by_itself_and_gives_the_same_weights_again(directory, tmp_path):
    def adapted(name, **options):
        encoder = Encoder.from_pretrained(directory, device="cpu")
        return train_for_clusters(encoder, TEXTS[:40], 3, run=tmp_path / name, batch_size=16, **options)

    adapted("still", learning_rate=1e-12)
    entries = log_of(tmp_path / "still")
    assert max(entry["step"] for entry in entries) == 100  # of 300: at the second evaluation nothing had changed
    first, second = adapted("a", steps=3), adapted("b", steps=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    untouched = Encoder.from_pretrained(directory, device="cpu").encode(TEXTS[:4])
    assert np.abs(first.encode(TEXTS[:4]) - untouched).max() > 1e-5
    with pytest.raises(InputError, match="has a run already"):
        adapted("a")
    with pytest.raises(InputError, match="at least one step, not 0"):
        adapted("c", steps=0)


def test_adapt_has_the_settings_of_the_recipes_and_a_constant_rate(directory: Path, tmp_path: Path) -> None:
    encoder, options = Encoder.from_pretrained(directory, device="cpu"), {"batch_size": 16, "steps": 3, "seed": 7}
    method = train_for_clusters(encoder, TEXTS[:40], 3, run=tmp_path / "run", **options)
    recipe = load_recipe("standard-sccl-stackoverflow")
    for name in ("alpha", "eta", "head_learning_rate_factor"):
        assert getattr(method, name) == recipe[name], name
    assert [view.name for view in method.views] == [recipe["first_view"], recipe["second_view"]]
    assert method.kmeans_seed == 7
    rates = [entry["learning_rate"] for entry in log_of(tmp_path / "run") if "learning_rate" in entry]
    assert rates == pytest.approx([20.0 * recipe["learning_rate"]] * 3)  # that of the head, which is logged


def test_centres_and_assignments_are_those_of_what_the_loss_sees(directory: Path) -> None:
    """An encoder that normalises, and is tested under another pooling, trains on neither."""
    encoder = Encoder.from_pretrained(directory, pooling="mean", device="cpu")
    encoder.normalize = True
    method = SCCL(encoder, clusters=3)
    method.test_pooling = "cls"
    rows = Dataset.from_dict({"text": TEXTS[:60]})
    method.on_fit_start(method.prepare_corpus(rows), batch_size=8)
    with torch.no_grad():
        seen = encoder.eval().embed(encoder.tokenize(TEXTS[:60]))
    expected = KMeans(3, n_init=10, random_state=0).fit(seen.numpy()).cluster_centers_
    got = method.centres.detach().numpy()
    assert np.allclose(got[got[:, 0].argsort()], expected[expected[:, 0].argsort()], atol=1e-4)
    (unchanged,) = method.evaluators(rows)
    unchanged(method.exported)
    assert np.array_equal(method.assignments.numpy(), method.assign(seen.numpy()))
