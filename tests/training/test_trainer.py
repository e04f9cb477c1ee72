"""The trainer: the same weights as transformers' own, the best encoder, resume, and runs that have to stop."""

import json
import logging
import math
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file
from support.command import Forked, python
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import SCCL, BertCT, MoCo, SimCSE, SimCSEPlus
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import MethodCallback, newest_complete_checkpoint
from textcl.training.diagnostics import diagnostics
from textcl.training.trainer import ContrastiveTrainer

CORPUS = Dataset.from_dict({"text": TEXTS})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


class Spread:
    """Scores an encoder by how far apart it puts a few texts."""

    name = "spread"

    def __call__(self, encoder):
        return SimpleNamespace(primary=float(torch.as_tensor(encoder.encode(TEXTS[:12])).std(dim=0).mean()))


class Scripted:
    """Gives the scores it is told, whatever the encoder."""

    name = "scripted"

    def __init__(self, *scores):
        self.scores = iter(scores)

    def __call__(self, encoder):
        return SimpleNamespace(primary=next(self.scores))


def method_of(directory, **options):
    transformers.set_seed(0)
    return SimCSE(Encoder.from_pretrained(directory, pooling="cls", device="cpu"), **options)


def arguments(output, **options):
    defaults = {
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "logging_steps": 3,
        "eval_steps": 4,
        "save_steps": 4,
    }
    return ContrastiveTrainingArguments(str(output), use_cpu=True, **{**defaults, **options})


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_plain_trainer_trains_to_the_same_weights(directory, tmp_path):
    options = {"mlm_weight": 0.1}
    ours = method_of(directory, **options)
    ContrastiveTrainer(ours, arguments(tmp_path / "ours", select_best=False), CORPUS, evaluators=[Spread()]).train()
    theirs = method_of(directory, **options)
    transformers.Trainer(
        model=theirs,
        args=arguments(tmp_path / "theirs"),
        data_collator=theirs.collator(),
        train_dataset=CORPUS,
        callbacks=[MethodCallback()],
    ).train()
    assert_equal(weights(ours), weights(theirs))


@pytest.mark.parametrize("there", [True, False])
def test_bfloat16_is_not_emulated(there, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("textcl.device.has_bf16", lambda: there)
    assert arguments(tmp_path, bf16=True).bf16 == there
    assert ("float32 is used" in caplog.text) != there
    assert not arguments(tmp_path, bf16=False).bf16


def test_training_learns_and_logs_the_geometry(directory, tmp_path):
    method = method_of(directory)
    ContrastiveTrainer(method, arguments(tmp_path / "run", bf16=False), CORPUS).train()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    entries = [entry for entry in log if "loss" in entry]
    expected = {"alignment", "uniformity", "positive_cosine", "negative_cosine", "effective_rank"}
    assert expected <= entries[0].keys()
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert all(1 <= entry["effective_rank"] <= 16 for entry in entries)
    assert all(entry["positive_cosine"] == pytest.approx(1 - entry["alignment"] / 2, abs=1e-5) for entry in entries)


def test_duplicates_in_a_batch_are_counted(directory, tmp_path):
    corpus = Dataset.from_dict({"text": [TEXTS[0]] * 8 + TEXTS[1:25]})
    trainer = ContrastiveTrainer(
        method_of(directory), arguments(tmp_path / "run", per_device_train_batch_size=32, logging_steps=1), corpus
    )
    trainer.train()
    assert trainer.state.log_history[0]["duplicates_in_batches"] == 7


def test_a_resumed_run_goes_on_counting_duplicates(directory, tmp_path):
    class StopAt4(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 4

    corpus = Dataset.from_dict({"text": TEXTS[:12] * 12})

    def train(output, resume=False, callbacks=()):
        args = arguments(output, max_steps=6, logging_steps=1)
        trainer = ContrastiveTrainer(method_of(directory), args, corpus, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=resume)
        return [entry["duplicates_in_batches"] for entry in trainer.state.log_history if "loss" in entry]

    whole = train(tmp_path / "whole")
    train(tmp_path / "run", callbacks=[StopAt4()])
    assert train(tmp_path / "run", resume=True) == whole
    assert whole[-1] > whole[3] > 0


def test_accumulation_averages_the_micro_batches(directory, tmp_path):
    """The joint loss must not be summed over them, as transformers does where `forward` takes keyword arguments."""
    norms = []
    for steps in (1, 4):
        method = method_of(directory, mlm_weight=0.1)
        args = arguments(
            tmp_path / str(steps),
            gradient_accumulation_steps=steps,
            max_steps=1,
            logging_steps=1,
            bf16=False,
            max_grad_norm=1e9,
        )
        trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": TEXTS[:64]}))
        trainer.train()
        norms.append(trainer.state.log_history[0]["loss"])
    assert norms[1] == pytest.approx(norms[0], rel=0.25)


def test_two_ranks_train_to_the_weights_of_one(tmp_path):
    """Two batches of 8, beside one process with batches of 16: the same rows, no dropout, fp32."""
    directory = tiny_encoder_directory(tmp_path / "model", dropout=0.0)
    program = f"""
import os, sys
import torch; torch.set_num_threads(1)
from safetensors.torch import save_file
import test_trainer as t
output, size = sys.argv[1], int(sys.argv[2])
args = t.arguments(output, per_device_train_batch_size=size, max_steps=6, bf16=False, optim="sgd", learning_rate=2.0)
method = t.method_of({str(directory)!r}, equal_dropout_masks=True, learn_temperature=True)
t.ContrastiveTrainer(method, args, t.CORPUS, evaluators=[t.Spread()]).train()
save_file(method.state_dict(), f"{{output}}/rank{{os.environ.get('RANK', 0)}}.safetensors")
"""
    here = Path(__file__).parent
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launched = {  # as torchrun does
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    with (
        Forked(program, tmp_path / "two", 8, cwd=here, RANK="0", LOCAL_RANK="0", **launched) as one,
        Forked(program, tmp_path / "two", 8, cwd=here, RANK="1", LOCAL_RANK="1", **launched) as other,
        Forked(program, tmp_path / "one", 16, cwd=here) as alone,
    ):
        for process in (one, other, alone):
            run = process.wait()
            assert run.returncode == 0, run.stderr
    first, second = (load_file(tmp_path / "two" / f"rank{rank}.safetensors") for rank in (0, 1))
    assert_equal(first, second)
    alone = load_file(tmp_path / "one" / "rank0.safetensors")
    start = weights(method_of(directory, equal_dropout_masks=True, learn_temperature=True))
    moved = {name: (value - start[name]).norm() for name, value in alone.items()}
    assert sum(distance > 1e-4 for distance in moved.values()) > 30
    for name, value in alone.items():
        assert (first[name] - value).norm() < 0.01 * moved[name] + 1e-5, name


def test_each_epoch_has_masks_of_its_own(directory, tmp_path):
    masks = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, train_dataloader, **kwargs):
            masks.append(train_dataloader.collate_fn([CORPUS[row] for row in range(8)])["mlm_input_ids"])

    method = method_of(directory, mlm_weight=0.1)
    rows = CORPUS.select(range(32))
    ContrastiveTrainer(method, arguments(tmp_path / "run", num_train_epochs=2), rows, callbacks=[Watch()]).train()
    assert len(masks) == 4
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_the_best_weights_come_back_and_their_export_lies_apart(directory, tmp_path):
    kept = {}

    class Keep(transformers.TrainerCallback):
        def on_evaluate(self, args, state, control, model, **kwargs):
            kept[state.global_step] = weights(model)

    method = method_of(directory)
    args = arguments(tmp_path / "run", max_steps=12)
    ContrastiveTrainer(method, args, CORPUS, evaluators=[Scripted(0.0, 1.0, 3.0, 2.0)], callbacks=[Keep()]).train()
    assert_equal(weights(method), kept[8])
    assert any(not torch.equal(kept[8][name], kept[12][name]) for name in kept[8])
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best == {"metric": "eval_scripted", "score": 3.0, "step": 8}
    exported = Encoder.from_pretrained(tmp_path / "run" / "best" / "encoder", device="cpu")
    assert (exported.encode(TEXTS[:5]) == method.encode(TEXTS[:5])).all()


def test_early_stopping_waits_for_its_patience(directory, tmp_path):
    scripted = Scripted(0.0, 1.0, 3.0, 2.0, 2.0, 5.0)
    args = arguments(tmp_path / "run", max_steps=40, early_stopping_patience=2)
    trainer = ContrastiveTrainer(method_of(directory), args, CORPUS, evaluators=[scripted])
    trainer.train()
    assert trainer.state.global_step == 16


def test_of_two_evaluators_of_one_name_the_first_chooses(directory, tmp_path):
    """As two files of labelled pairs are, which both are called "pairs"."""
    first, second = Scripted(0.0, 1.0, 3.0, 2.0), Scripted(0.0, 1.0, 2.0, 90.0)
    trainer = ContrastiveTrainer(
        method_of(directory), arguments(tmp_path / "run", max_steps=12), CORPUS, evaluators=[first, second]
    )
    trainer.train()
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best == {"metric": "eval_scripted", "score": 3.0, "step": 8}
    logged = [(e["eval_scripted"], e["eval_scripted-2"]) for e in trainer.state.log_history if "eval_scripted" in e]
    assert logged == [(0.0, 0.0), (1.0, 1.0), (3.0, 2.0), (2.0, 90.0)]


def test_a_score_of_nan_is_never_the_best_and_is_said(directory, tmp_path, caplog):
    """Each comparison with NaN is false, so a NaN at the first evaluation must not block all later ones."""
    scripted = Scripted(0.0, math.nan, 3.0, math.nan, 2.0)
    args = arguments(tmp_path / "run", max_steps=16, early_stopping_patience=2)
    ContrastiveTrainer(method_of(directory), args, CORPUS, evaluators=[scripted]).train()
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best == {"metric": "eval_scripted", "score": 3.0, "step": 8}
    said = [record.getMessage() for record in caplog.records if "NaN" in record.getMessage()]
    assert said == [f"The score eval_scripted is NaN at step {step}; NaN is never the best." for step in (4, 12)]


@pytest.mark.parametrize(
    ("pooling", "test_pooling", "message"),
    [
        ("cls", "pooler", "dense layer of its own"),
        ("cls", "mask_token", "needs a mask token in every text"),
        ("mask_token", None, "needs a mask token in every text"),
    ],
)
def test_a_pooling_that_cannot_encode_is_refused_before_the_training(
    directory, tmp_path, pooling, test_pooling, message
):
    encoder = Encoder.from_pretrained(directory, pooling=pooling, device="cpu")
    method = SimCSE(encoder)
    method.test_pooling = test_pooling
    with pytest.raises(InputError, match=message):
        ContrastiveTrainer(method, arguments(tmp_path / "run"), CORPUS)
    flags = {"method": "simcse", "model": str(directory), "pooling": pooling, "test_pooling": test_pooling}
    flags |= {"data": str(tmp_path / "texts.txt"), "output": str(tmp_path / "run"), "dev": "none", "max_steps": 1}
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    with pytest.raises(InputError, match=message):
        run_recipe(resolve({key: value for key, value in flags.items() if value})[0])
    assert not (tmp_path / "run").exists()


# -- resume -----------------------------------------------------------------------------------------------------------


QUEUE = 512  # half full where a run is killed, and full before it ends


def resumable(directory, output, name="simcse"):
    """Two dataloader workers, accumulation 2, evaluators on, masked words or a queue: all that could lose its place.

    The last weights are compared and not the best: those may be older than the interruption.
    """
    args = arguments(
        output, gradient_accumulation_steps=2, dataloader_num_workers=2, num_train_epochs=2, select_best=False
    )
    if name == "simcse":
        method = method_of(directory, mlm_weight=0.1, learn_temperature=True)
    else:
        method = MoCo(method_of(directory).encoder, second_view="repetition", queue_size=QUEUE, momentum=0.9)
    return ContrastiveTrainer(method, args, CORPUS, evaluators=[Spread()])


@pytest.fixture(scope="module")
def uninterrupted(directory, tmp_path_factory):
    trainer = resumable(directory, tmp_path_factory.mktemp("runs") / "whole")
    trainer.train()
    return trainer


def test_a_fresh_trainer_resumes_to_the_same_bits(directory, uninterrupted, tmp_path):
    class StopAt6(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 6

    stopped = resumable(directory, tmp_path / "run")
    stopped.add_callback(StopAt6())
    stopped.train()
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-4"
    resumed = resumable(directory, tmp_path / "run")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == uninterrupted.state.global_step
    assert_equal(weights(resumed.method), weights(uninterrupted.method))


def test_resumed_at_its_last_step_it_makes_no_further_one(directory, tmp_path):
    """As a run that was killed while its encoder was exported. The epoch has more steps than these."""
    options = {"max_steps": 4, "num_train_epochs": 1}
    whole = method_of(directory)
    ContrastiveTrainer(whole, arguments(tmp_path / "run", **options), CORPUS).train()
    resumed = method_of(directory)
    again = ContrastiveTrainer(resumed, arguments(tmp_path / "run", **options), CORPUS)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    assert_equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("folder", ["other", "run"])
def test_what_continues_from_a_checkpoint_has_its_best_encoder_and_not_a_later_one(directory, tmp_path, folder):
    """`best/` of the checkpoint's run has the encoder of step 6, whose score the continued run never sees."""
    options = {"max_steps": 6, "eval_steps": 2, "save_steps": 4}
    kept = {}

    class Keep(transformers.TrainerCallback):
        def on_evaluate(self, args, state, control, model, **kwargs):
            kept[state.global_step] = weights(model)

    first = ContrastiveTrainer(
        method_of(directory),
        arguments(tmp_path / "run", **options),
        CORPUS,
        evaluators=[Scripted(1.0, 5.0, 3.0, 9.0)],
        callbacks=[Keep()],
    )
    first.train()
    assert (first.selection.step, first.selection.score) == (6, 9.0)
    checkpoint = tmp_path / "run" / "checkpoint-4"
    again = ContrastiveTrainer(
        method_of(directory), arguments(tmp_path / folder, **options), CORPUS, evaluators=[Scripted(4.0)]
    )
    again.train(resume_from_checkpoint=str(checkpoint))
    assert (again.selection.step, again.selection.score) == (2, 5.0)
    assert_equal(weights(again.method), kept[2])
    assert json.loads((tmp_path / folder / "best" / "best.json").read_text())["step"] == 2


def test_a_best_encoder_that_is_gone_is_said_and_not_replaced_by_another_one(directory, tmp_path):
    options = {"max_steps": 4, "eval_steps": 2, "save_steps": 2}
    run = tmp_path / "run"

    def trainer(output, *scores):
        return ContrastiveTrainer(
            method_of(directory), arguments(output, **options), CORPUS, evaluators=[Scripted(*scores)]
        )

    trainer(run, 1.0, 2.0, 3.0).train()
    shutil.rmtree(run / "checkpoint-2" / "best")
    with pytest.raises(InputError, match="the best encoder up to then is missing or damaged"):
        trainer(tmp_path / "other", 4.0).train(resume_from_checkpoint=str(run / "checkpoint-2"))
    (run / "checkpoint-2" / "complete.json").unlink()  # as a plain Trainer's
    with pytest.raises(InputError, match=r"up to .*checkpoint-2 is that of step 2, and neither .* has it"):
        trainer(tmp_path / "other", 4.0).train(resume_from_checkpoint=str(run / "checkpoint-2"))

    class Lost(Scripted):
        def __call__(self, encoder):
            shutil.rmtree(tmp_path / "lost" / "best", ignore_errors=True)
            return super().__call__(encoder)

    lost = ContrastiveTrainer(
        method_of(directory), arguments(tmp_path / "lost", **options), CORPUS, evaluators=[Lost(1.0, 2.0, 0.0)]
    )
    with pytest.raises(InputError, match=r"best no longer has the best encoder, that of step 2; run the same"):
        lost.train()


def test_scores_of_another_evaluator_choose_nothing_when_a_run_continues(directory, tmp_path):
    class Differences(Scripted):
        def __init__(self, name, items, *scores):
            super().__init__(*scores)
            self.name, self.items = name, np.zeros(items)

        def __call__(self, encoder):
            return SimpleNamespace(primary=next(self.scores), items=self.items)

        def error_of_difference(self, before, after):
            return float(np.std(after - before))

    options = {"max_steps": 4, "eval_steps": 2, "save_steps": 2}

    def trained(output, evaluator, checkpoint=None):
        trainer = ContrastiveTrainer(method_of(directory), arguments(output, **options), CORPUS, evaluators=[evaluator])
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.selection

    trained(tmp_path / "run", Differences("five", 5, 1.0, 2.0, 3.0))
    selection = trained(tmp_path / "other", Differences("six", 6, 1.5), str(tmp_path / "run" / "checkpoint-2"))
    assert (selection.set, selection.step, selection.score, selection.before) == ("six", 4, 1.5, None)


@pytest.mark.parametrize("kind", ["T5Encoder", "Bart"])
def test_a_backbone_that_names_one_tensor_twice_is_kept_and_resumed(tmp_path, kind):
    """T5 and BART have one table of word vectors under several names, which safetensors refuses to write."""
    sizes = {"T5Encoder": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}}.get(kind)
    sides = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes = sizes or {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "pad_token_id": 1, **sides}
    config = getattr(transformers, kind.removesuffix("Encoder") + "Config")(vocab_size=120, **sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    method = method_of(tmp_path)
    options = {"max_steps": 4, "eval_steps": 2, "save_steps": 2}
    trainer = ContrastiveTrainer(
        method, arguments(tmp_path / "run", **options), CORPUS, evaluators=[Scripted(0.0, 1.0, 2.0)]
    )
    trainer.train()
    assert trainer.selection.step == 4
    resumed = method_of(tmp_path)
    again = ContrastiveTrainer(resumed, arguments(tmp_path / "run", **options), CORPUS, evaluators=[Scripted(2.0)])
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert_equal(weights(resumed), weights(method))
    plain = method_of(tmp_path)
    transformers.Trainer(
        model=plain,
        args=arguments(tmp_path / "plain", max_steps=1, save_steps=1),
        data_collator=plain.collator(),
        train_dataset=CORPUS,
        callbacks=[MethodCallback()],
    ).train()
    assert_equal(weights(plain), load_file(tmp_path / "plain" / "checkpoint-1" / "model.safetensors"))
    assert not torch.equal(
        weights(method)["encoder.backbone.shared.weight"],
        weights(method_of(tmp_path))["encoder.backbone.shared.weight"],
    )


@pytest.mark.parametrize("name", ["simcse", pytest.param("moco", marks=pytest.mark.slow)])
def test_killed_mid_epoch_and_resumed_the_weights_are_bit_equal(directory, uninterrupted, tmp_path, name):
    run, whole = tmp_path / "run", uninterrupted
    if name == "moco":
        whole = resumable(directory, tmp_path / "whole", name)
        whole.train()
    program = f"""
import os, signal
os.setsid()
import torch; torch.set_num_threads(1)
import transformers
import test_trainer
class Kill(transformers.TrainerCallback):
    def on_substep_end(self, args, state, control, **kwargs):  # between two micro-batches
        if state.global_step == 6:  # of 9 in an epoch
            os.killpg(0, signal.SIGKILL)  # with the workers that load data
trainer = test_trainer.resumable({str(directory)!r}, {str(run)!r}, {name!r})
trainer.add_callback(Kill())
trainer.train()
"""
    with Forked(program, cwd=Path(__file__).parent) as child:
        ended = child.wait()
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert newest_complete_checkpoint(run).name == "checkpoint-4"
    if name == "moco":
        assert 0 < load_file(newest_complete_checkpoint(run) / "model.safetensors")["queue._extra_state"] <= QUEUE / 2
        assert whole.method.queue.is_full
    resumed = resumable(directory, run, name)
    resumed.train(resume_from_checkpoint=True)
    assert_equal(weights(resumed.method), weights(whole.method))


def test_a_checkpoint_that_was_cut_short_does_not_count(directory, uninterrupted):
    run = uninterrupted.run_directory
    last = newest_complete_checkpoint(run)
    (last / "complete.json").rename(last / "complete.away")
    assert newest_complete_checkpoint(run) != last
    (last / "complete.away").rename(last / "complete.json")


def test_resuming_nothing_or_another_method_is_refused(directory, uninterrupted, tmp_path):
    trainer = ContrastiveTrainer(method_of(directory), arguments(tmp_path / "run"), CORPUS)
    with pytest.raises(InputError, match="no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="another method or other options"):
        trainer.train(resume_from_checkpoint=str(newest_complete_checkpoint(uninterrupted.run_directory)))


# -- what has to stop, and what has to be said ------------------------------------------------------------------------


class Poison(transformers.TrainerCallback):
    """Makes a weight NaN after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            next(model.encoder.parameters()).data.fill_(torch.nan)


@pytest.mark.parametrize("step", [4, 8])  # a checkpoint is due after step 4, and the run ends after step 8
def test_weights_that_are_not_finite_are_neither_saved_nor_exported(directory, tmp_path, step):
    args = arguments(tmp_path / "run", save_steps=2, max_steps=8)
    trainer = ContrastiveTrainer(method_of(directory), args, CORPUS, callbacks=[Poison(step)])
    with pytest.raises(InputError, match=rf"Weights became NaN or infinite by step {step}\..*checkpoint-{step - 2}"):
        trainer.train()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(directory, tmp_path):
    trainer = ContrastiveTrainer(method_of(directory), arguments(tmp_path / "run"), CORPUS, callbacks=[Poison(5)])
    with pytest.raises(InputError, match=r"loss became nan at step 6.*checkpoint-4"):
        trainer.train()


def test_a_disk_that_is_full_stops_the_run_and_keeps_the_checkpoint(directory, tmp_path):
    """A limit on the size of files stands for the disk: the weights fit once, the optimizer's state does not."""
    program = f"""
import resource
import torch; torch.set_num_threads(1)
import test_trainer as t
from textcl.errors import InputError
import transformers
class Fill(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
arguments = t.arguments({str(tmp_path / "run")!r})
trainer = t.ContrastiveTrainer(t.method_of({str(directory)!r}), arguments, t.CORPUS, callbacks=[Fill()])
try:
    trainer.train()
except InputError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
"""
    child = python(program, cwd=Path(__file__).parent)
    assert "failed at step 8" in child.stdout, child.stdout + child.stderr
    assert "checkpoint-4" in child.stdout
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-4"


def test_collapse_is_warned_of_and_health_is_not(directory, tmp_path, caplog):
    for scale, warned in ((1.0, False), (1e-3, True)):
        caplog.clear()
        method = method_of(directory)
        norm = method.encoder.backbone.encoder.layer[-1].output.LayerNorm
        with torch.no_grad():
            norm.weight.mul_(5 * scale)  # the last norm's weight spreads the vectors, its bias brings them together
            norm.bias.fill_(0.5)
        with caplog.at_level(logging.WARNING, "textcl"):
            ContrastiveTrainer(
                method, arguments(tmp_path / f"run{scale}", max_steps=3, learning_rate=1e-6, bf16=False), CORPUS
            ).train()
        assert ("collapsing" in caplog.text) == warned


def test_the_geometry_is_of_the_rows_of_one_group_in_whatever_order():
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 4, 1, 2])
    batch = {"view": torch.tensor([0] * 5 + [1] * 5), "group": torch.cat([torch.arange(5), order])}
    found = diagnostics({"embeddings": torch.cat([rows, rows[order]]), **batch}, step=1)
    assert found["positive_cosine"] == pytest.approx(1, abs=1e-6)
    assert (
        diagnostics({"embeddings": rows[:1].repeat(2, 1), "view": batch["view"][4:6], "group": order[:1].repeat(2)}, 1)
        == {}
    )


def test_what_would_train_wrongly_is_refused(directory, tmp_path):
    several = arguments(tmp_path / "run")
    several._n_gpu = 2  # what transformers sets where two GPUs are visible
    with pytest.raises(InputError, match="torchrun"):
        ContrastiveTrainer(method_of(directory), several, CORPUS)
    with pytest.raises(InputError, match="one row has no negatives"):
        ContrastiveTrainer(method_of(directory), arguments(tmp_path / "run", per_device_train_batch_size=1), CORPUS)
    with pytest.raises(InputError, match="fewer than one batch"):
        ContrastiveTrainer(method_of(directory), arguments(tmp_path / "run"), CORPUS.select(range(5)))


def test_defaults_of_the_arguments(tmp_path):
    args = ContrastiveTrainingArguments(str(tmp_path), save_total_limit=1)
    assert args.save_total_limit == 2
    assert args.dataloader_drop_last
    assert args.remove_unused_columns is False
    assert isinstance(args.bf16, bool)
    assert not (args.bf16 and ContrastiveTrainingArguments(str(tmp_path), bf16=False).bf16)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_out_of_memory_in_backward_makes_the_step_again_in_smaller_slices(directory, tmp_path, caplog, accumulation):
    corpus = Dataset.from_dict({"text": TEXTS[:12] * 6})

    def train(output, limit):
        method = method_of(directory).double()
        backward = [False]
        method.register_forward_pre_hook(lambda *_: backward.__setitem__(0, False))
        method.register_forward_hook(lambda *_: backward.__setitem__(0, True))

        def hook(module, args, kwargs):
            if backward[0] and kwargs["input_ids"].numel() > limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        method.encoder.backbone.register_forward_pre_hook(hook, with_kwargs=True)
        options = {"gradient_cache": True, "bf16": False, "max_steps": 2, "gradient_accumulation_steps": accumulation}
        options |= {"optim": "sgd", "learning_rate": 50.0}  # Adam would take away the size of a gradient
        before = weights(method)
        trainer = ContrastiveTrainer(method, arguments(output, **options), corpus)
        for module in method.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # a step that is made again draws other masks
        trainer.train()
        assert max((value - before[name]).abs().max() for name, value in weights(method).items()) > 1e-2
        return method, int(trainer._duplicates)

    method, duplicates = train(tmp_path / "free", 10**6)
    assert "Out of memory" not in caplog.text
    if accumulation == 2:  # gradients of an earlier micro-batch would be lost
        with pytest.raises(torch.OutOfMemoryError):
            train(tmp_path / "tight", 150)
        return
    tight, again = train(tmp_path / "tight", 150)
    assert again == duplicates > 0
    assert "Out of memory in step 1; the step is repeated with slices of 128 tokens." in caplog.text
    assert "step 2" not in caplog.text
    for name, value in weights(tight).items():
        assert torch.allclose(value, method.state_dict()[name], atol=1e-8), name
    with pytest.raises(torch.OutOfMemoryError):
        train(tmp_path / "hopeless", 1)


def test_a_step_that_is_made_again_after_memory_ran_out_fills_the_queue_once(directory, tmp_path, caplog):
    method = MoCo(Encoder.from_pretrained(directory, device="cpu"), queue_size=64)
    failed = []

    def hook(module, args, kwargs):
        if torch.is_grad_enabled() and kwargs["input_ids"].numel() > 150 and backward:
            failed.append(kwargs["input_ids"].shape)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    backward: list[bool] = []
    method.register_forward_pre_hook(lambda *_: backward.clear())
    method.register_forward_hook(lambda *_: backward.append(True))
    method.encoder.backbone.register_forward_pre_hook(hook, with_kwargs=True)
    ContrastiveTrainer(method, arguments(tmp_path, gradient_cache=True, bf16=False, max_steps=2), CORPUS).train()
    assert failed
    assert method.queue.pushed == 2 * 16
    assert len(method.queue.read().unique(dim=0)) == 2 * 16


def test_evaluating_after_or_before_training_leaves_the_best_encoder(directory, tmp_path):
    """The best is chosen in training alone, by the scores that training asks for."""
    trainer = ContrastiveTrainer(
        method_of(directory), arguments(tmp_path / "run", max_steps=8), CORPUS, evaluators=[Scripted(3, 1, 5, 2, 9, 9)]
    )
    assert trainer.evaluate() == {"eval_scripted": 3}
    assert not (tmp_path / "run" / "best").exists()
    trainer.train()
    kept = (tmp_path / "run" / "best" / "best.json").read_text()
    assert json.loads(kept)["score"] == 5
    assert trainer.evaluate(metric_key_prefix="test") == {"test_scripted": 9}
    assert trainer.evaluate() == {"eval_scripted": 9}
    assert (tmp_path / "run" / "best" / "best.json").read_text() == kept


def test_a_score_under_another_name_does_not_choose_the_tower(directory, tmp_path):
    method = BertCT(Encoder.from_pretrained(directory, device="cpu"))
    evaluators = [Scripted(1, 1, 1, 1, 1, 1, 7)]  # two towers at steps 0, 4 and 8, then the one that was kept
    options = {"learning_rate": 1e-5, "max_steps": 8}
    trainer = ContrastiveTrainer(method, arguments(tmp_path / "run", **options), CORPUS, evaluators=evaluators)
    trainer.train()
    before = method.better_tower.item()
    method.better_tower.fill_(1)
    assert trainer.evaluate(metric_key_prefix="test") == {"test_scripted": 7}
    assert (before, method.better_tower.item()) == (0, 1)


def test_evaluating_with_nothing_is_one_sentence(directory, tmp_path):
    with pytest.raises(InputError, match="no evaluators"):
        ContrastiveTrainer(method_of(directory), arguments(tmp_path / "run"), CORPUS).evaluate()


def test_any_function_is_a_collator(directory, tmp_path):
    """It needs no `set_epoch`; where it has one, that is called."""
    method = method_of(directory)
    ours = method.collator()
    options = {"max_steps": 2, "save_strategy": "no"}
    ContrastiveTrainer(
        method, arguments(tmp_path / "run", **options), CORPUS, data_collator=lambda rows: ours(rows)
    ).train()
    first = [value.clone() for value in method.parameters()]
    again = method_of(directory)
    ContrastiveTrainer(again, arguments(tmp_path / "again", **options), CORPUS).train()
    assert all(torch.equal(a, b) for a, b in zip(first, again.parameters(), strict=True))


@pytest.mark.parametrize("made", [lambda encoder: SimCSEPlus(encoder, ranking_weight=1.0, teacher="bundled"), SCCL])
def test_a_plain_trainer_is_told_what_a_method_lacks(directory, tmp_path, made):
    method = made(Encoder.from_pretrained(directory, device="cpu"))
    args = transformers.TrainingArguments(
        str(tmp_path / "plain"), max_steps=1, remove_unused_columns=False, use_cpu=True, report_to="none"
    )
    trainer = transformers.Trainer(
        model=method, args=args, train_dataset=CORPUS, data_collator=method.collator(), callbacks=[MethodCallback()]
    )
    with pytest.raises(InputError, match=r"method\.prepare_corpus\(dataset\)"):
        trainer.train()
