"""What users of the trainers in Python bring along: callbacks, arguments of an earlier trainer, streams, columns."""

import os
from contextlib import nullcontext
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
import torch
import transformers
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import CLEAR, BertCT, MoCo, SimCSE, SimCSEPlus
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import MethodCallback
from textcl.training.trainer import ContrastiveTrainer

CORPUS = Dataset.from_dict({"text": TEXTS})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def encoder_of(directory):
    transformers.set_seed(0)
    return Encoder.from_pretrained(directory, device="cpu")


def arguments(output, **options):
    defaults = {"per_device_train_batch_size": 8, "max_steps": 2, "save_strategy": "no", "logging_steps": 1}
    return ContrastiveTrainingArguments(str(output), use_cpu=True, bf16=False, **{**defaults, **options})


@pytest.mark.parametrize("callbacks", [[], [MethodCallback()], [MethodCallback]], ids=["none", "one", "class"])
def test_hooks_run_once_whether_or_not_the_user_gives_the_callback(directory, tmp_path, callbacks):
    """The plain trainer needs it, so that the line is copied; the keys of each step would be pushed twice."""
    method = MoCo(encoder_of(directory), queue_size=64)
    ContrastiveTrainer(method, arguments(tmp_path), CORPUS, callbacks=callbacks).train()
    assert method.queue.pushed == 16


def test_a_run_with_workers_leaves_the_environment_as_it_was(directory, tmp_path, monkeypatch):
    """Else the tokenizers of the process would use one core from then on."""
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    seen = []

    class Looking(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append(os.environ.get("TOKENIZERS_PARALLELISM"))

    for workers in (1, 0):
        given = arguments(tmp_path / str(workers), max_steps=1, dataloader_num_workers=workers)
        ContrastiveTrainer(SimCSE(encoder_of(directory)), given, CORPUS, callbacks=[Looking()]).train()
        assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert seen == ["false", None]


class Interrupting(transformers.TrainerCallback):
    """Ends a run as Ctrl-C does."""

    def on_step_end(self, *_, **__):
        raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_after_a_run_the_hooks_are_missing_again(directory, tmp_path, interrupted):
    """Else a second training without the callback would pass, while queue and momentum encoder stand still."""
    method = MoCo(encoder_of(directory), queue_size=64)
    trainer = ContrastiveTrainer(method, arguments(tmp_path), CORPUS, callbacks=[Interrupting()] * interrupted)
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        trainer.train()
    batch = method.collator()([CORPUS[row] for row in range(4)])
    with pytest.raises(RuntimeError, match="MoCo needs its hooks"):
        method.train()(**batch)
    assert not method._forward_hooks


class Rising:
    """Scores each encoder higher than the one before."""

    name = "rising"
    scores = count()

    def __call__(self, encoder):
        return SimpleNamespace(primary=float(next(self.scores)))


def test_one_set_of_arguments_makes_several_trainers(directory, tmp_path):
    args = arguments(tmp_path / "scored")
    before = args.to_dict()
    ContrastiveTrainer(SimCSE(encoder_of(directory)), args, CORPUS, evaluators=[Rising()]).train()
    assert args.to_dict() == before
    trainer = ContrastiveTrainer(SimCSE(encoder_of(directory)), args, CORPUS)
    trainer.train()
    assert not any("eval_rising" in entry for entry in trainer.state.log_history)


def test_a_last_batch_that_a_method_cannot_take_is_found_before_the_first_step(directory, tmp_path):
    method = BertCT(encoder_of(directory), negatives_per_positive=3)
    options = {"max_steps": -1, "num_train_epochs": 1, "dataloader_drop_last": False}
    with pytest.raises(InputError, match=r"takes 4 rows, and the batch has 3.*drop the last incomplete batch"):
        ContrastiveTrainer(method, arguments(tmp_path / "run", **options), TEXTS[:19])
    assert not (tmp_path / "run").exists()
    ContrastiveTrainer(method, arguments(tmp_path / "run", **options), TEXTS[:20]).train()


def on_a_stream(method, output, **options):
    args = transformers.TrainingArguments(
        str(output),
        per_device_train_batch_size=8,
        remove_unused_columns=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **options,
    )
    return transformers.Trainer(
        model=method,
        args=args,
        train_dataset=CORPUS.to_iterable_dataset(),
        data_collator=method.collator(),
        callbacks=[MethodCallback()],
    )


@pytest.mark.parametrize("made", [SimCSE, lambda encoder: MoCo(encoder, queue_size=16)], ids=["simcse", "moco"])
def test_a_plain_trainer_trains_on_a_stream(directory, tmp_path, made):
    trainer = on_a_stream(made(encoder_of(directory)), tmp_path, max_steps=3)
    assert trainer.train().global_step == 3


def test_each_pass_over_a_stream_is_an_epoch_with_views_of_its_own(directory, tmp_path):
    """`state.epoch` is a share of `max_steps` there, and stays below 1."""
    trainer = on_a_stream(CLEAR(encoder_of(directory), mlm_weight=0.0), tmp_path, max_steps=2 * len(TEXTS) // 8 + 2)
    epochs = []
    trainer.data_collator.set_epoch = epochs.append
    trainer.train()
    assert epochs == [0, 1, 2]


def test_workers_that_stay_change_no_weight_and_are_resumed_exactly(directory, tmp_path):
    def trained(output, stays, checkpoint=None):
        method = SimCSE(encoder_of(directory))
        options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 32}
        options |= {"dataloader_num_workers": 1, "dataloader_persistent_workers": stays}
        trainer = ContrastiveTrainer(method, arguments(tmp_path / output, **options), TEXTS[:64])  # 2 steps an epoch
        trainer.train(resume_from_checkpoint=checkpoint and str(tmp_path / output / checkpoint))
        return {name: value.clone() for name, value in method.state_dict().items()}

    new, stayed, resumed = trained("new", False), trained("stay", True), trained("stay", True, "checkpoint-3")
    for name, value in new.items():
        assert torch.equal(value, stayed[name]), name
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("names", [["Mr Smith", None], [1.5, 2.5]], ids=["texts", "numbers"])
def test_a_column_of_the_users_that_is_called_teacher_is_not_read(directory, tmp_path, names):
    method = SimCSE(encoder_of(directory))
    rows = Dataset.from_dict({"text": TEXTS[:16], "teacher": names * 8})
    ContrastiveTrainer(method, arguments(tmp_path), rows).train()
    assert "teacher" not in method.collator()([rows[0], rows[1]])


def test_a_corpus_with_the_teachers_vectors_may_be_given_to_the_trainer(directory, tmp_path):
    """`prepare_corpus`, which the plain trainer needs, is called again there."""
    method = SimCSEPlus(encoder_of(directory), ranking_weight=1.0, teacher=str(directory))
    rows = method.prepare_corpus(CORPUS)
    trainer = ContrastiveTrainer(method, arguments(tmp_path), rows)
    trainer.train()
    assert trainer.train_dataset["teacher"][:] == rows["teacher"][:]


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize(("delay", "first"), [(0, 2), (100, 5)])
def test_the_last_step_is_scored_once_however_long_the_delay(directory, tmp_path, strategy, delay, first):
    """Else the untouched encoder would be kept, with the sentence that training did not help."""
    options = {"max_steps": 5, "eval_strategy": strategy, "eval_delay": delay, "eval_steps": 2}
    trainer = ContrastiveTrainer(
        SimCSE(encoder_of(directory)), arguments(tmp_path, **options), TEXTS[:16], evaluators=[Rising()]
    )
    trainer.train()
    scored = [entry["step"] for entry in trainer.state.log_history if "eval_rising" in entry]
    assert scored == [0, *range(first, 5, 2), 5]
    assert trainer.selection.step == 5


def test_a_last_batch_of_one_row_is_refused_if_the_run_comes_to_it(directory, tmp_path):
    def trainer(**options):
        args = arguments(tmp_path, dataloader_drop_last=False, **options)
        return ContrastiveTrainer(SimCSE(encoder_of(directory)), args, TEXTS[:17])  # batches of 8, 8 and 1 rows

    trainer(max_steps=2)
    for options in ({"max_steps": 3}, {"max_steps": 2, "gradient_accumulation_steps": 2}, {"max_steps": -1}):
        with pytest.raises(InputError, match="The last batch of an epoch would have one row"):
            trainer(**options)


def test_after_a_skipped_step_no_state_changes(directory, tmp_path):
    """As with fp16, whose gradients are sometimes too large: the weights stayed, so nothing follows them."""

    class Skipping(transformers.TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer, **kwargs):
            optimizer._is_overflow = state.global_step == 0  # what accelerate sets if the scaler skips the step

    method = MoCo(encoder_of(directory), queue_size=64, momentum=0.5, in_batch_negatives=True)
    before = {name: value.clone() for name, value in method.target.state_dict().items()}
    seen = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            moved = any(not torch.equal(value, before[name]) for name, value in method.target.state_dict().items())
            seen.append((method.queue.pushed, moved))

    ContrastiveTrainer(method, arguments(tmp_path), CORPUS, callbacks=[Skipping(), Watch()]).train()
    assert seen == [(0, False), (8, True)]


def test_an_interrupted_run_leaves_nothing_that_collects_keys_in_the_next_one(directory, tmp_path):
    class Interrupting(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    method = MoCo(encoder_of(directory), queue_size=64)
    first = ContrastiveTrainer(method, arguments(tmp_path), CORPUS, callbacks=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        first.train()
    seen = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(len(method._forward_hooks))

    ContrastiveTrainer(method, arguments(tmp_path), CORPUS, callbacks=[Watch()]).train()
    assert seen == [1, 1]
    assert not method._forward_hooks


def test_a_second_training_begins_with_the_first_of_its_learning_rates(directory, tmp_path):
    options = {"max_steps": 3, "learning_rate_pieces": ["1:2e-5", "2:1e-5"]}
    trainer = ContrastiveTrainer(SimCSE(encoder_of(directory)), arguments(tmp_path, **options), CORPUS)
    for _ in range(2):
        trainer.train()
        rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
        assert rates == pytest.approx([3e-5, 2e-5, 1e-5])


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize("event", ["on_step_end", "on_log", "on_optimizer_step"])
def test_the_step_at_which_a_callback_stops_the_run_is_scored(directory, tmp_path, event, strategy):
    """Else the untouched encoder would be kept, with the sentence that training did not help."""

    def stop(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or state.global_step == 3

    stopping = type("Stopping", (transformers.TrainerCallback,), {event: stop})
    args = arguments(tmp_path, max_steps=8, eval_steps=2, eval_strategy=strategy)
    trainer = ContrastiveTrainer(
        SimCSE(encoder_of(directory)), args, CORPUS, evaluators=[Rising()], callbacks=[stopping()]
    )
    trainer.train()
    scored = [entry["step"] for entry in trainer.state.log_history if "eval_rising" in entry]
    last = 4 if event == "on_optimizer_step" else 3  # this event is before the step is counted
    assert scored == ([0, 2, last] if strategy == "steps" else [0, last])
    assert trainer.selection.step == trainer.state.global_step == last


@pytest.mark.parametrize("name", ["eval_dataset", "compute_metrics", "compute_loss_func", "model_init"])
def test_options_that_would_not_be_read_are_refused(directory, tmp_path, name):
    """A loss of the user's own, for example, was never called."""
    method = SimCSE(encoder_of(directory))
    with pytest.raises(InputError, match=f"There is no {name}: "):
        ContrastiveTrainer(method, arguments(tmp_path), CORPUS, **{name: len})
    ContrastiveTrainer(method, arguments(tmp_path), CORPUS, **{name: None})


class OfTexts(torch.utils.data.Dataset):
    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, number):
        return TEXTS[number]


@pytest.mark.parametrize("given", [CORPUS["text"], OfTexts()], ids=["column", "torch"])
def test_a_column_of_texts_trains_as_the_list_of_them(directory, tmp_path, given):
    trained = []
    for rows in (TEXTS, given):
        trainer = ContrastiveTrainer(SimCSE(encoder_of(directory)), arguments(tmp_path), rows)
        trainer.train()
        trained.append(trainer.state.log_history[0]["loss"])
    assert trained[0] == trained[1]


@pytest.mark.parametrize(
    ("rows", "blank"),
    [
        (Dataset.from_dict({"text": [*TEXTS[:20], "", None, " \n"]}), "3 of 23"),
        ([*TEXTS[:20], ""], "1 of 21"),
        (Dataset.from_dict({"text": [*TEXTS[:20], "", ""], "positive": [*TEXTS[20:40], "", "a text"]}), "1 of 22"),
        (Dataset.from_dict({"text": ["", *TEXTS[:20]]}).select(range(1, 21)), None),
    ],
    ids=["dataset", "list", "pairs", "view"],
)
def test_rows_without_a_text_are_counted(directory, tmp_path, caplog, rows, blank):
    """Hugging Face's copy of WikiText has a blank row between paragraphs."""
    ContrastiveTrainer(SimCSE(encoder_of(directory)), arguments(tmp_path), rows)
    said = [each.getMessage() for each in caplog.records if "have no text" in each.getMessage()]
    assert [each.split(" training rows")[0] for each in said] == ([blank] if blank else [])


def test_rows_may_hold_views_without_the_text_that_they_were_made_of(directory, tmp_path):
    rows = [{"text_1": one, "text_2": two} for one, two in pairwise(TEXTS)]
    trainer = ContrastiveTrainer(SimCSE(encoder_of(directory)), arguments(tmp_path), rows)
    assert trainer.train().global_step == 2
