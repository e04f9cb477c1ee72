"""What every method promises: no state in `forward`, exactness on two ranks, resume to the bit, equal exports."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from support.command import REPOSITORY
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.methods import METHODS
from textcl.runs.card import papers
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

SENTENCES = [{"text": text} for text in TEXTS]
DOCUMENTS = [{"text": " ".join(TEXTS[start : start + 12])} for start in range(0, 252, 7)]
CLASSES = [{"text": text, "label": number % 4} for number, text in enumerate(TEXTS)]
VIEWED = [{"text": text, "text_1": text[3:], "text_2": text[:-3]} for text in TEXTS]
TRIPLETS = [{"text": TEXTS[i], "positive": TEXTS[i + 40], "negative": TEXTS[i + 80]} for i in range(64)]
for row, other in ((5, 1), (9, 2)):  # rows 1 and 5 share their anchor, 2 and 9 their positive, on different ranks
    TRIPLETS[row]["text" if row == 5 else "positive"] = TRIPLETS[other]["text" if row == 5 else "positive"]
TRIPLETS[7]["negative"] = TRIPLETS[5]["positive"]
PAIRS = [{"text": row["text"], "positive": row["positive"]} for row in TRIPLETS]
LABELLED = [{"text": TEXTS[i], "positive": TEXTS[-i - 1], "label": i % 3} for i in range(64)]

ADVERSARIAL = {"first_view": "plain", "second_view": "adversarial", "objective": "joint"}

TOKEN_VIEWS = {"first_view": "word_deletion:0.2", "second_view": "repetition"}
SWAV = {
    **TOKEN_VIEWS,
    "short_views": 2,
    "prototypes": 6,
    "epsilon": 0.02,
    "frozen_steps": 3,
    "queue_size": 30,
    "projection_dimension": 8,
    "hidden_dimension": 16,
}
THE_REST = {
    "template": "the teacher says {text} [MASK] .",
    "second_template": "{text} my neighbour means [MASK]",
    "denoise_templates": True,
    "off_dropout_negatives": True,
    "dimension_weight": 1.0,
    "decorrelation_weight": 0.01,
    "decorrelation_dimension": 16,
    "consistency_weight": 1.0,
}
TAUGHT = [{"text": text, "teacher": [len(text) / 9, number % 7.0, 1.0]} for number, text in enumerate(TEXTS)]

# name -> method, its options, rows; the views are those of the collator, so that ranks can be given them
CASES = {
    "simcse, triplets": ("simcse", {"learn_temperature": True}, TRIPLETS),
    "simcse, masked words": ("simcse", {"mlm_weight": 0.5}, PAIRS),
    "bert-ct": ("bert-ct", {"negatives": "anchored", "negatives_per_positive": 3}, SENTENCES),
    "simcse, dimensions": ("simcse", {"head": "none", "mlm_weight": 0.5, "dimensions": [32, 16, 4]}, TRIPLETS),
    "bert-ct, dimensions": (
        "bert-ct",
        {"negatives_per_positive": 3, "negatives": "anchored", "dimensions": [16, 8]},
        SENTENCES,
    ),
    "bert-ct, sum": ("bert-ct", {"negatives": "anchored", "negatives_per_positive": 1, "reduction": "sum"}, SENTENCES),
    "ct-in-batch": ("ct-in-batch", {}, SENTENCES),
    "consert": ("consert", {"first_view": "word_deletion:0.2", "second_view": "reordering"}, SENTENCES),
    "consert, joint": ("consert", ADVERSARIAL, LABELLED),
    "clear": ("clear", {"first_view": "span_deletion", "second_view": "word_deletion:0.2+reordering"}, SENTENCES),
    "declutr": ("declutr", {"shortest_span": 3, "longest_span": 8}, DOCUMENTS),
    "sccl": ("sccl", {"clusters": 4, "first_view": "word_deletion:0.2", "second_view": "reordering"}, CLASSES),
    "sccl, explicit": ("sccl", {"clusters": 4, "alpha": 10.0}, VIEWED),
    "simcse-plus, queue": ("simcse-plus", {**TOKEN_VIEWS, "queue_size": 80, "noise_negatives": 5}, SENTENCES),
    "simcse-plus, the rest": ("simcse-plus", THE_REST, TAUGHT),
    "simclr": ("simclr", {}, PAIRS),
    "moco": ("moco", {**TOKEN_VIEWS, "queue_size": 80}, SENTENCES),
    "moco-v3": ("moco-v3", {"hidden_dimension": 16, "projection_dimension": 8}, PAIRS),
    "swav": ("swav", SWAV, SENTENCES),
    "byol": ("byol", {**TOKEN_VIEWS, "hidden_dimension": 16, "projection_dimension": 8}, SENTENCES),
    "simsiam": ("simsiam", {**TOKEN_VIEWS, "projection_dimension": 16, "bottleneck_dimension": 4}, SENTENCES),
    "barlow-twins": ("barlow-twins", {**TOKEN_VIEWS, "projection_dimension": 16}, SENTENCES),
    "vicreg": ("vicreg", {**TOKEN_VIEWS, "projection_dimension": 16}, VIEWED),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def build(directory, case, **options):
    name, of_case, _ = CASES[case]
    transformers.set_seed(0)
    pooling = "mask_token" if "template" in of_case else None
    of_method = {key: value for key, value in of_case.items() if key != "dimensions"}
    method = METHODS[name](Encoder.from_pretrained(directory, device="cpu", pooling=pooling, **options), **of_method)
    if "dimensions" in of_case:
        method.set_dimensions(of_case["dimensions"])
    method.hooked = True
    if "template" in of_case:
        method.ranking_weight = 1.0  # its rows hold what a teacher would say
    rows = Dataset.from_list(CASES[case][2])
    method.on_fit_start(method.prepare_corpus(rows), batch_size=12)
    return method


def batch_of(method, case, start=0, end=12):
    return method.collator()(CASES[case][2][start:end])


@pytest.mark.parametrize("case", CASES)
def test_forward_changes_no_state(case, directory):
    """Design rule 3: parameters, buffers and attributes are as they were."""
    method = build(directory, case).train()
    batch = batch_of(method, case)
    weights = copy.deepcopy(method.state_dict())
    plain = (int, float, str, dict, list)

    def attributes():
        return {
            name: copy.deepcopy({k: v for k, v in vars(m).items() if isinstance(v, plain) and not k.startswith("_")})
            for name, m in method.named_modules()
        }

    before = attributes()
    for _ in range(2):
        method(**batch)["loss"].backward()
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
    assert attributes() == before
    assert all(not module._forward_hooks for module in method.modules()), "a view's hook lives for one call"
    without = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "a parameter outside the graph would hang DDP"


@pytest.mark.parametrize("case", CASES)
def test_a_method_in_half_precision_learns_without_autocast(case, directory):
    """Heads compute in the type of their weights; embeddings and batch norm are float32."""
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        method = build(directory, case, dropout=0.0).to(dtype).train()
        torch.manual_seed(7)
        loss = method(**batch_of(method, case))["loss"]
        loss.backward()
        losses.append(loss.item())
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        assert gradients, "nothing learns"
        assert all(gradient.isfinite().all() for gradient in gradients)
    if case not in ("consert, joint", "simcse-plus, the rest"):  # whose losses rounding changes far more
        assert losses[1] == pytest.approx(losses[0], rel=0.1)


def loss_and_gradients(rank, directory, case, batches):
    """Loss and gradients of `batches[rank]`, averaged over the ranks as DDP does; rank None: one process alone."""
    import torch.distributed as dist

    method = build(directory, case, dropout=0.0).double().train()
    model = method if rank is None else torch.nn.parallel.DistributedDataParallel(method)
    loss = model(**batches[rank or 0])["loss"]
    loss.backward()
    value = loss.detach().clone()
    if rank is not None:
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value.item(), {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_on_the_joined_batch(case, directory, two_processes):
    """Design rule 2, with ranks that hold different numbers of rows."""
    method = build(directory, case, dropout=0.0)
    parts = [batch_of(method, case, 0, 4), batch_of(method, case, 4, 12)]
    value, gradients = loss_and_gradients(None, directory, case, [batch_of(method, case)])
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for both_value, both_gradients in two_processes(loss_and_gradients, directory, case, parts):
        assert both_value == pytest.approx(value, rel=1e-10)
        assert both_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(both_gradients[name], gradient, atol=1e-10 * max(1, largest), rtol=0), name


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_cache_changes_nothing(case, directory):
    """With dropout on, in slices of a few rows: the random numbers of a slice are drawn again in backward."""
    batch = batch_of(build(directory, case), case)

    def gradients(cache):
        method = build(directory, case).double().train()
        for module in method.modules():
            if isinstance(module, Encoder):
                module.slicing.token_budget = 40
        if cache:
            method.gradient_cache_enable()
        torch.manual_seed(7)
        loss = method(**batch)["loss"]
        loss.backward()
        return loss.item(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}

    (value, plain), (cached_value, cached) = gradients(False), gradients(True)
    assert cached_value == pytest.approx(value, rel=1e-12)
    assert cached.keys() == plain.keys()
    largest = max(gradient.abs().max() for gradient in plain.values())
    for name, gradient in plain.items():
        assert torch.allclose(cached[name], gradient, atol=1e-10 * max(1, largest), rtol=0), name


class Spread:
    """Scores an encoder by how far apart it puts a few texts."""

    name = "spread"

    def __call__(self, encoder):
        return SimpleNamespace(primary=float(torch.as_tensor(encoder.encode(TEXTS[:12])).std(dim=0).mean()))


def trainer_of(directory, case, output, callbacks=()):
    """Two dataloader workers, accumulation 2 and an evaluator: all that could lose its place."""
    args = ContrastiveTrainingArguments(
        str(output),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        dataloader_num_workers=2,
        learning_rate=1e-3,
        max_steps=6,
        eval_steps=2,
        save_steps=4,
        logging_steps=2,
        select_best=False,
    )
    rows = Dataset.from_list(CASES[case][2])
    return ContrastiveTrainer(build(directory, case), args, rows, evaluators=[Spread()], callbacks=callbacks)


RESUMED_FAST = ("simcse, masked words", "moco", "swav", "byol", "sccl", "declutr")  # each keeps another kind of state


@pytest.mark.parametrize(
    "case", [case if case in RESUMED_FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_fresh_trainer_resumes_to_the_same_bits_and_exports_what_it_scored(case, directory, tmp_path):
    class StopAt5(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 5

    whole = trainer_of(directory, case, tmp_path / "whole")
    whole.train()
    trainer_of(directory, case, tmp_path / "run", callbacks=[StopAt5()]).train()
    resumed = trainer_of(directory, case, tmp_path / "run")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name

    entries = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any("loss" in entry for entry in entries)
    whole.method.export(tmp_path / "export")
    expected = whole.method.encode(TEXTS[:9])
    if "template" not in CASES[case][1]:  # which sentence-transformers has no word for
        theirs = SentenceTransformer(str(tmp_path / "export"), device="cpu").encode(TEXTS[:9])
        assert np.abs(theirs - expected).max() <= 1e-6
    assert np.abs(Encoder.from_pretrained(tmp_path / "export").encode(TEXTS[:9]) - expected).max() <= 1e-6


def test_every_method_has_its_name_and_its_paper():
    index = (REPOSITORY / "docs" / "paper-index.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert method.name == name
        for paper in (method.paper, *method.option_papers.values()):
            assert paper.split()[-1] in index


def test_a_run_cites_the_papers_of_the_options_that_it_takes():
    options = {"queue_size": 1, "noise_negatives": 1, "template": "x", "teacher": "y", "dimension_weight": 0.0}
    assert len(papers({"method": "simcse-plus", **options})) == 5
    assert papers({"method": "simcse", **options}) == [METHODS["simcse"].paper]
    assert papers({}) == []
