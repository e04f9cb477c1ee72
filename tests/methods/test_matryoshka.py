"""Matryoshka training: the sum over sizes, what the export says of it, and what cannot be trained like this."""

import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from support.tiny import TEXTS, tiny_encoder_directory
from torch import nn
from torch.nn.functional import normalize

import textcl
from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.encoder.layers import with_first_dimensions
from textcl.errors import InputError
from textcl.evaluation import whitening
from textcl.methods import METHODS, Method, SimCSE
from textcl.methods.matryoshka import PAPER
from textcl.modules.queue import Queue
from textcl.runs.recipe import resolve
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

SENTENCES = [{"text": text} for text in TEXTS[:24]]
PAIRS = [{"text": TEXTS[i], "positive": TEXTS[i + 40]} for i in range(12)]
DOCUMENTS = [{"text": " ".join(TEXTS[start : start + 12])} for start in range(0, 84, 7)]
TRAINED = {  # the methods without a head: their options and rows
    "simcse": ({"head": "none", "mlm_weight": 0.5}, PAIRS),
    "simcse, kept head": ({"head": "keep"}, PAIRS),
    "bert-ct": ({"negatives_per_positive": 3}, SENTENCES),
    "ct-in-batch": ({}, SENTENCES),
    "consert": ({"first_view": "word_deletion:0.2", "second_view": "reordering"}, SENTENCES),
    "declutr": ({"shortest_span": 3, "longest_span": 8}, DOCUMENTS),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def build(directory, name, sizes=(), **options):
    torch.manual_seed(0)
    method = METHODS[name.split(",")[0]](Encoder.from_pretrained(directory, device="cpu"), **options)
    method.hooked = True
    if sizes:
        method.set_dimensions(sizes)
    return method


def loss_and_gradients(method, batch):
    torch.manual_seed(3)  # the same dropout masks
    method.zero_grad()
    loss = method(**batch)["loss"]
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", TRAINED)
def test_one_size_that_is_the_whole_changes_no_bit(directory, name):
    options, rows = TRAINED[name]
    plain, nested = build(directory, name, **options).train(), build(directory, name, [32], **options).train()
    batch = plain.collator()(rows)
    (value, gradients), (same, others) = loss_and_gradients(plain, batch), loss_and_gradients(nested, batch)
    assert torch.equal(value, same)
    assert gradients.keys() == others.keys()
    assert all(torch.equal(gradient, others[key]) for key, gradient in gradients.items())
    assert plain.state_dict().keys() == nested.state_dict().keys()


def in_loops(first, second, sizes, temperature):
    """The sum over sizes of SimCSE's equation 4, number by number."""
    total = 0.0
    for size in sizes:

        def cos(a, b, size=size):
            a, b = a[:size], b[:size]
            return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
                sum(x * x for x in a) * sum(y * y for y in b)
            )

        for i, query in enumerate(first):
            scores = [math.exp(cos(query, key) / temperature) for key in second]
            total -= math.log(scores[i] / sum(scores)) / len(first)
    return total


def test_the_loss_is_the_sum_over_sizes(directory):
    method = build(directory, "simcse", [32, 9, 2], head="none").double().eval()
    batch = method.collator()(PAIRS)
    first, second = (view.tolist() for view in method.embed(batch).chunk(2))
    expected = in_loops(first, second, [32, 9, 2], 0.05)
    assert method(**batch)["loss"].item() == pytest.approx(expected, abs=1e-10)
    assert abs(expected - 3 * in_loops(first, second, [32], 0.05)) > 1e-3, "the sizes differ"


@pytest.mark.parametrize("name", TRAINED)
def test_the_terms_are_those_of_the_sizes_and_masked_words_count_once(directory, name):
    options, rows = TRAINED[name]
    method = build(directory, name, **options).double().eval()
    batch = method.collator()(rows)
    masked_anchors = name == "declutr"  # which are embedded in the pass that predicts their words
    embeddings = method.encoder.embed_masked(batch, batch["mlm_labels"])[0] if masked_anchors else method.embed(batch)
    parts = [method.objective(embeddings[:, :size], batch) for size in (32, 8, 3)]
    own = method(**batch)
    method.set_dimensions([32, 8, 3])
    found = method(**batch)
    assert found.keys() == own.keys()
    assert found["embeddings"].shape[1] == 32
    total = sum(part["loss"].item() for part in parts)
    masked = method.mlm_weight * own["mlm"].item() if "mlm" in own else 0.0
    assert found["loss"].item() == pytest.approx(total + masked, abs=1e-10)
    if "mlm" in own:
        assert found["mlm"].item() == pytest.approx(own["mlm"].item(), abs=1e-12)
        assert found["contrastive"].item() == pytest.approx(total, abs=1e-10)


def test_it_is_the_matryoshka_loss_of_sentence_transformers(directory, tmp_path):
    sizes = [32, 16, 5]
    method = build(directory, "simcse", sizes, head="none", mask_duplicates=False).eval()
    method.export(tmp_path / "export")
    model = SentenceTransformer(str(tmp_path / "export"), device="cpu").double().eval()
    tokenizer = method.encoder.tokenizer
    columns = [
        dict(tokenizer([row[key] for row in PAIRS], padding=True, return_tensors="pt")) for key in ("text", "positive")
    ]
    theirs = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, scale=20.0), sizes)(columns, None)
    theirs.backward()
    loss, gradients = loss_and_gradients(method.double(), method.collator()(PAIRS))
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    others = {name: p.grad for name, p in model[0].auto_model.named_parameters() if p.grad is not None}
    ours = {name.removeprefix("encoder.backbone."): gradient for name, gradient in gradients.items()}
    assert len(ours) > 30
    for name, gradient in ours.items():
        assert torch.allclose(gradient, others[name], atol=1e-6, rtol=0), name


def test_only_trained_dimensions_get_a_gradient(directory):
    method = build(directory, "simcse", [16, 4], head="none").train()
    batch = method.collator()(PAIRS)
    embeddings = method.embed(batch).detach().requires_grad_()
    method._objective_over_sizes(embeddings, batch)["loss"].backward()
    moved = embeddings.grad.abs().sum(dim=0) > 0
    assert moved[:16].all()
    assert not moved[16:].any()


def test_the_first_dimensions_learn_what_the_whole_alone_does_not_teach_them(directory, tmp_path):
    def trained(name, sizes):
        torch.manual_seed(0)
        method = SimCSE(Encoder.from_pretrained(directory, device="cpu", dropout=0.0), head="none")
        if sizes:
            method.set_dimensions(sizes)
        args = ContrastiveTrainingArguments(
            str(tmp_path / name), use_cpu=True, bf16=False, per_device_train_batch_size=12, learning_rate=3e-3,
            max_steps=25, save_strategy="no", seed=1,
        )  # fmt: skip
        ContrastiveTrainer(method, args, Dataset.from_list(PAIRS)).train()
        return method.eval()

    nested, plain = trained("nested", [32, 4]), trained("plain", [])
    batch = nested.collator()(PAIRS)
    cut = [float(each.objective(each.embed(batch)[:, :4], batch)["loss"].detach()) for each in (nested, plain)]
    assert cut[0] < 0.7 * cut[1]


REFUSED = {
    "simcse": ({}, "its head", "--head none, or --head keep"),
    "simcse-plus": ({}, "its head", "simcse with --head none"),
    "consert": ({"objective": "joint"}, "its classifier", "--objective unsupervised"),
    "clear": ({"first_view": "reordering"}, "its head", "ct-in-batch"),
    "sccl": ({"clusters": 2}, "its head", "ct-in-batch"),
    "simclr": ({}, "its projector", "ct-in-batch"),
    "moco": ({}, "its projector", "ct-in-batch"),
    "moco-v3": ({}, "its projector", "ct-in-batch"),
    "swav": ({"prototypes": 4}, "its projector", "ct-in-batch"),
    "byol": ({}, "its projector", "ct-in-batch"),
    "simsiam": ({}, "its projector", "ct-in-batch"),
    "barlow-twins": ({}, "its projector", "ct-in-batch"),
    "vicreg": ({}, "its expander", "ct-in-batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_part_between_embeddings_and_loss_is_refused_with_a_way_out(directory, name):
    options, part, way_out = REFUSED[name]
    method = build(directory, name, **options)
    with pytest.raises(InputError, match=f"{name} cannot train dimensions: {part} mixes them") as refused:
        method.set_dimensions([32, 16])
    assert way_out in str(refused.value)
    assert method.dimensions == ()


def test_every_method_is_trained_or_refused():
    assert {name.split(",")[0] for name in TRAINED} | set(REFUSED) == set(METHODS)


class Own(Method):
    """A method of a user, with parts of its own."""

    def objective(self, embeddings, batch):
        first, second = normalize(embeddings).chunk(2)
        return {"loss": (first - second).square().sum(), "keys": first.detach()}


def test_own_methods_are_trained_unless_a_part_is_in_between(directory):
    method = Own(Encoder.from_pretrained(directory, device="cpu"))
    method.set_dimensions([32, 8])
    found = method.eval()(**method.collator()(SENTENCES))
    assert found["keys"].shape[1] == 32, "rows are those of the largest size"
    for part in (nn.Linear(32, 32), Queue(8, 32), nn.Parameter(torch.ones(3))):
        method.part = part
        with pytest.raises(InputError, match="Own cannot train dimensions: its part"):
            method.set_dimensions([32, 8])
        del method.part


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([64, 16], "dimensions has 64, but the vectors of this encoder have 32"),
        ([8, 16], "dimensions must fall, as in 256,128,64, but they are 8, 16"),
        ([16, 16], "dimensions must fall"),
        ([16, 0], "dimensions must be whole numbers of at least 2.*not 16, 0"),
        ([16, 1], "not 16, 1"),
        ([16, -4], "at least 2"),
        ([16.0], "at least 2"),
        (["16", "many"], "not 16, many"),
        ("16", "at least 2"),
        ([], "not nothing"),
    ],
)
def test_sizes_that_cannot_be_trained_are_refused(directory, sizes, message):
    with pytest.raises(InputError, match=message):
        build(directory, "simcse", head="none").set_dimensions(sizes)


@pytest.mark.parametrize("name", ["simcse", "bert-ct"])
def test_another_pooling_at_test_is_refused(directory, name):
    options, _ = TRAINED[name]
    method = build(directory, name, **options)
    method.test_pooling = "mean"  # the pooling of training
    method.set_dimensions([16, 8])
    method.test_pooling = "cls"
    with pytest.raises(InputError, match="needs the pooling of training, mean"):
        method.describe()
    with pytest.raises(InputError, match="leave out --test-pooling cls"):
        method.set_dimensions([16, 8])


@pytest.mark.parametrize("normalize", [False, True])
def test_the_export_keeps_what_was_trained(directory, tmp_path, normalize):
    method = build(directory, "simcse", [12, 4], head="none").eval()
    whole = method.encoder.encode(TEXTS[:9], normalize=False)
    method.encoder.normalize = normalize
    expected = whole[:, :12]
    if normalize:  # after the cut
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(method.encode(TEXTS[:9]) - expected).max() <= 1e-6
    method.export(tmp_path / "export")
    config = json.loads((tmp_path / "export" / "config_sentence_transformers.json").read_text())
    assert config.get("truncate_dim") == (None if normalize else 12)
    theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu")
    loaded = Encoder.from_pretrained(tmp_path / "export", device="cpu")
    assert loaded.dimension == 12
    assert np.abs(theirs.encode(TEXTS[:9]) - expected).max() <= 1e-6
    assert np.abs(loaded.encode(TEXTS[:9]) - expected).max() <= 1e-6
    assert method.describe()["dimensions"] == [12, 4]
    assert method.describe()["dimension"] == 12
    assert PAPER in (tmp_path / "export" / "README.md").read_text()
    with pytest.raises(InputError, match="whiten the encoder without them"):  # it would mix what is in order
        whitening(loaded, TEXTS[:40])


def test_with_the_whole_size_the_export_is_what_it_was(directory, tmp_path):
    for name, sizes in (("plain", []), ("nested", [32, 8])):
        build(directory, "simcse", sizes, head="none").export(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.*") if path.is_file())
    assert len(files) > 5
    for file in files:
        same = (tmp_path / "plain" / file).read_bytes() == (tmp_path / "nested" / file).read_bytes()
        assert same or file.name == "README.md", file


def test_an_encoder_that_is_cut_already_is_trained_within_its_size(directory):
    method = SimCSE(with_first_dimensions(Encoder.from_pretrained(directory, device="cpu"), 12), head="none")
    with pytest.raises(InputError, match="the vectors of this encoder have 12"):
        method.set_dimensions([16, 4])
    method.set_dimensions([12, 4])
    assert method.exported.dimension == 12


def flags_of(directory, tmp_path, *more):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:64]) + "\n")
    return [
        "--model", str(directory), "--data", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "run"), "--dev",
        "none", "--max-steps", "4", "--per-device-train-batch-size", "8", "--use-cpu", "true", *more,
    ]  # fmt: skip


def test_a_run_records_its_sizes_and_is_not_continued_with_others(directory, tmp_path, capsys):
    flags = flags_of(directory, tmp_path, "--head", "none")
    assert main(["train", "simcse", *flags, "--dimensions", "16,4"]) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["recipe"]["dimensions"] == "16,4"
    assert "--dimensions=16,4" in run["command"]
    assert run["encoder"]["dimensions"] == [16, 4]
    assert run["encoder"]["dimension"] == 16
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "first 4 numbers" in card
    assert "truncate_dim=4" in card
    assert PAPER in card
    assert Encoder.from_pretrained(tmp_path / "run" / "export").dimension == 16
    capsys.readouterr()
    assert main(["train", "simcse", *flags, "--dimensions", "16,8", "--resume"]) == 2
    assert "was started with --dimensions 16,4, not 16,8" in capsys.readouterr().err
    assert main(["train", "simcse", *flags, "--dimensions", "16,4", "--resume"]) == 0


def test_without_the_flag_recipes_and_fingerprints_are_what_they_were(directory, tmp_path):
    flags = flags_of(directory, tmp_path)
    plain, nested = (resolve({"method": "ct-in-batch"}, [*flags, *more])[0] for more in ([], ["--dimensions", "32,4"]))
    assert plain.flags["dimensions"] is None
    without = {key: value for key, value in plain.flags.items() if key != "dimensions"}
    assert textcl.runs.recipe.Recipe(plain.method, without).fingerprint() == plain.fingerprint()
    assert nested.fingerprint() != plain.fingerprint()
    assert resolve({"method": "ct-in-batch", "dimensions": 16}, flags)[0].flags["dimensions"] == "16"


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("simcse", ["--head", "none", "--dimensions", "64,16"], "dimensions has 64"),
        ("simcse", ["--head", "none", "--dimensions", "8,16"], "dimensions must fall"),
        ("simcse", ["--head", "none", "--dimensions", "16,0"], "at least 2"),
        ("simcse", ["--head", "none", "--dimensions", "16, x"], "at least 2"),
        ("simcse", ["--head", "none", "--dimensions", ""], "at least 2"),
        ("simcse", ["--head", "none", "--dimensions", "-4"], "at least 2"),
        ("simcse", ["--dimensions", "16,8"], "--head none"),
        ("simclr", ["--dimensions", "16,8"], "its projector"),
        ("ct-in-batch", ["--dimensions", "16,8", "--test-pooling", "cls"], "leave out --test-pooling cls"),
    ],
)
def test_the_command_refuses_before_it_writes(directory, tmp_path, capsys, method, more, message):
    assert main(["train", method, *flags_of(directory, tmp_path), *more]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
