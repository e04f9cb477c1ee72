"""What transformers would refuse later, or take without an effect, is one sentence before a run writes anything."""

from pathlib import Path
from typing import Any

import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.checks import WITHOUT_MEANING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:33]), encoding="utf-8")
    return folder


REFUSED: dict[str, tuple[list[str], str]] = {
    "a reporter that is not installed": (["--report-to", "trackio"], "--report-to trackio cannot be used"),
    "a reporter that does not exist": (["--report-to", "paper"], "--report-to paper cannot be used"),
    "the hub": (["--push-to-hub", "true"], "--push-to-hub has no meaning in textcl"),
    "a token is not shown": (["--hub-token", "secret"], "--hub-token has no meaning in textcl"),
    "deepspeed": (["--deepspeed", "ds.json"], "--deepspeed has no meaning in textcl"),
    "fsdp": (["--fsdp", "full_shard"], "--fsdp has no meaning in textcl"),
    "saving the best": (["--save-strategy", "best"], "--save-strategy best has no meaning"),
    "liger": (["--use-liger-kernel", "true"], "--use-liger-kernel has no meaning in textcl"),
    "neftune": (["--neftune-noise-alpha", "5"], "--neftune-noise-alpha has no meaning in textcl"),
    "neftune without noise": (["--neftune-noise-alpha", "0"], "--neftune-noise-alpha has no meaning in textcl"),
    "smoothing": (["--label-smoothing-factor", "0.1"], "--label-smoothing-factor has no meaning in textcl"),
    "length": (["--train-sampling-strategy", "group_by_length"], "--train-sampling-strategy group_by_length has no"),
    "compile": (["--torch-compile", "true"], "--compile-layers compiles the layers"),
    "debug": (["--debug", "underflow_overflow"], "--debug has no meaning in textcl"),
    "columns": (["--remove-unused-columns", "true"], "--remove-unused-columns has no meaning in textcl"),
    "evaluation at the start": (["--eval-on-start", "true"], "--eval-on-start needs something to evaluate with"),
    "evaluation without a dev set": (["--eval-strategy", "epoch"], "--eval-strategy epoch needs something"),
    "settings that the optimizer does not read": (
        ["--optim-args", "alpha=0.9"],
        "--optim-args alpha=0.9 changes nothing in --optim adamw_torch",
    ),
    "layers that a static encoder does not have": (
        ["--model", "small", "--second-view", "crop_away", "--gradient-checkpointing", "true"],
        "--gradient-checkpointing cannot be used with StaticBackbone",
    ),
    "a mapping that is not JSON": (
        ["--lr-scheduler-kwargs", "{num_cycles: 2}"],
        "--lr-scheduler-kwargs takes a mapping in JSON, such as '{\"num_cycles\": 2}', not {num_cycles: 2}.",
    ),
    "a word in place of a mapping": (
        ["--gradient-checkpointing", "true", "--gradient-checkpointing-kwargs", "reentrant"],
        "--gradient-checkpointing-kwargs takes a mapping in JSON",
    ),
    "a setting that accelerate does not have": (
        ["--accelerator-config", '{"split": true}'],
        "AcceleratorConfig.__init__() got an unexpected keyword argument 'split'",
    ),
    "a setting of the optimizer without a value": (
        ["--optim-args", "alpha"],
        "--optim adamw_torch_fused cannot be used with --optim-args alpha (NAME=VALUE,...)",
    ),
    "weights of tokens, with which a static encoder could not be exported": (
        ["--model", "small", "--second-view", "crop_away", "--smooth-inverse-frequency", "1e-3"],
        "A static encoder cannot be saved with weights of tokens (--smooth-inverse-frequency)",
    ),
    "a setting that torch's checkpoint does not have": (
        ["--gradient-checkpointing", "true", "--gradient-checkpointing-kwargs", '{"reentrant": false}'],
        '--gradient-checkpointing-kwargs {"reentrant": false} cannot be used',
    ),
    "an optimizer of another package": (["--optim", "adamw_bnb_8bit"], "--optim adamw_bnb_8bit cannot be used"),
    "a schedule by loss": (["--lr-scheduler-type", "greedy"], "need the loss of transformers' evaluation"),
    "a schedule without its options": (["--lr-scheduler-type", "warmup_stable_decay"], "cannot be used with"),
    "options of another schedule": (["--lr-scheduler-kwargs", '{"a": 1}'], "unexpected keyword argument 'a'"),
    "graphs and the gradient cache": (
        ["--cuda-graphs", "true", "--gradient-cache", "true"],
        "--cuda-graphs cannot be combined with --gradient-cache",
    ),
    "workers that stay": (["--dataloader-persistent-workers", "true"], "needs --dataloader-num-workers of at least 1"),
    "a fraction of a step": (["--save-steps", "2.5"], "--save-steps must be an integer if bigger than 1"),
    "a last batch of one row": (["--dataloader-drop-last", "false"], "The last batch of an epoch would have one row"),
    "a criterion that is misspelt": (["--dev", "stsbb"], "Did you mean 'stsb'?"),
    "a rate of no view": (["--text-view-rate", "0.2"], "--text-view-rate works only with --text-view"),
    "a checkpoint that is not there": (["--resume-from-checkpoint", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_one_sentence_before_anything_is_written(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    flags, said = REFUSED[case]
    command = ["train", "byol", "--model", "model", "--data", "texts.txt", "--output", "run", "--dev", "none"]
    assert main([*command, "--projection-dimension", "8", "--per-device-train-batch-size", "16", *flags]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("textcl: ")
    assert shown.count("\n") == 1
    assert "secret" not in shown
    assert not (folder / "run").exists()


def test_labels_of_pairs_that_a_method_does_not_read_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise contradictions are trained as positives."""
    monkeypatch.chdir(folder)
    Path("nli.csv").write_text("a,b,label\n" + "".join(f"{t},not {t},no\n{t},yes {t},yes\n" for t in TEXTS[:8]))
    command = ["--model", "model", "--data", "nli.csv", "--column", "a,b", "--label-column", "label", "--dev", "none"]
    command += ["--per-device-train-batch-size", "8", "--max-steps", "1"]
    assert main(["train", "simcse", *command, "--output", "run"]) == 2
    assert "simcse does not read labels, so it would train every pair as a positive one" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert main(["train", "consert", *command, "--objective", "supervised", "--classes", "2", "--output", "nli"]) == 0


@pytest.mark.parametrize("objective", ["supervised", "joint"])
def test_text_views_that_an_objective_does_not_read_are_refused(
    objective: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Path("nli.csv").write_text("a,b,label\n" + "".join(f"{t},not {t},no\n{t},yes {t},yes\n" for t in TEXTS[:8]))
    command = ["train", "consert", "--model", "model", "--data", "nli.csv", "--column", "a,b", "--dev", "none"]
    command += ["--label-column", "label", "--objective", objective, "--output", "views", "--text-view", "crop"]
    assert main([*command, "--per-device-train-batch-size", "8", "--max-steps", "1"]) == 2
    assert "--text-view would change nothing" in capsys.readouterr().err
    assert not (folder / "views").exists()


@pytest.mark.parametrize("flags", [["--early-stopping-patience", "3"], ["--target-score", "0"]])
def test_what_cannot_stop_a_run_without_a_dev_set_is_said(
    folder: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    command = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", f"unstopped{flags[0]}"]
    rest = ["--dev", "none", "--max-steps", "1", "--per-device-train-batch-size", "8"]
    assert main([*command, *rest, *flags]) == 0
    assert f"{flags[0]} {float(flags[1]):g}"[:20] in caplog.text
    assert "cannot stop this run, because nothing is scored" in caplog.text
    caplog.clear()
    assert main([*command[:-1], f"{command[-1]}-not", *rest]) == 0
    assert "cannot stop" not in caplog.text


IDLE = {
    "--learning-rate-pieces 0:1e-3 --lr-scheduler-type cosine": "--lr-scheduler-type changes nothing, because "
    "--learning-rate-pieces replaces the schedule.",
    "--learning-rate-pieces 0:1e-3 --warmup-steps 1": "--warmup-steps changes nothing, because "
    "--learning-rate-pieces replaces the schedule.",
    "--optim sgd --adam-beta2 0.5": "--adam-beta2 changes nothing, because --optim sgd does not read it.",
    "--chunk-size 4": "--chunk-size changes nothing, because this method has no InfoNCE, whose similarity matrix the "
    "tiles divide.",
    "--adam-beta2 0.5 --adam-epsilon 1e-6 --lr-scheduler-type cosine --warmup-steps 1": None,
}


@pytest.mark.parametrize("flags", IDLE)
def test_a_flag_that_changes_nothing_beside_the_others_is_named(
    flags: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error would be too much: a recipe may bring the flag, or `textcl compare` pass it on to all methods."""
    monkeypatch.chdir(folder)
    command = ["train", "byol", "--model", "model", "--data", "texts.txt", "--output", str(tmp_path), "--dev", "none"]
    rest = ["--projection-dimension", "8", "--per-device-train-batch-size", "16", "--max-steps", "1"]
    assert main([*command, *rest, *flags.split()]) == 0
    said = [message for message in caplog.messages if "changes nothing" in message]
    assert said == ([IDLE[flags]] if IDLE[flags] else [])


def test_a_last_batch_of_one_row_that_is_never_reached_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    command = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", "short", "--dev", "none"]
    flags = ["--per-device-train-batch-size", "16", "--dataloader-drop-last", "false", "--max-steps", "2"]
    assert main([*command, *flags]) == 0


def test_defaults_are_no_flags_without_a_meaning(folder: Path) -> None:
    assert set(WITHOUT_MEANING) <= set(ContrastiveTrainingArguments.__dataclass_fields__)
    unset: dict[str, Any] = {"hub_token": None, "label_smoothing_factor": 0.0, "fsdp": "", "do_train": False}
    ContrastiveTrainingArguments(str(folder / "run"), **unset)
