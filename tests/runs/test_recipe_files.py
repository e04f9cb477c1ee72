"""Recipe files: YAML 1.2 without aliases, flat, each key once; what changes no weight is no difference at --resume."""

import json
import shutil
from pathlib import Path

import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.errors import InputError
from textcl.runs.recipe import load_recipe, resolve
from textcl.runs.run import run_recipe


def written(folder: Path, content: str) -> Path:
    (folder / "recipe.yaml").write_text(content, encoding="utf-8")
    return folder / "recipe.yaml"


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """In YAML 1.1, which PyYAML reads, these are 34, False, True, 5400, a date and the text 3e-5."""
    content = "seed: 042\ndata: no\noutput: on\ncolumn: 1:30\nmodel: 2026-01-31\nlearning_rate: 3e-5\nbf16: false\n"
    assert load_recipe(written(tmp_path, content + "dropout: ~\nlimit: -7\ntext_view: 'no'\nlogging_steps: .5\n")) == {
        "seed": 42,
        "data": "no",
        "output": "on",
        "column": "1:30",
        "model": "2026-01-31",
        "learning_rate": 3e-5,
        "bf16": False,
        "dropout": None,
        "limit": -7,
        "text_view": "no",
        "logging_steps": 0.5,
    }


def test_an_own_file_comes_before_a_shipped_recipe_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_recipe("demo")["method"] == "simcse"
    (tmp_path / "demo").write_text("method: moco\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("demo") == {"method": "moco"}


REFUSED = {
    "a few lines of billions": ("a: &a [x, x]\nb: &b [*a, *a]\ndata: [*b, *b]\n", "line 2.*takes no aliases"),
    "a mapping that holds itself": ("lr_scheduler_kwargs: &a {x: *a}\n", "line 1.*takes no aliases"),
    "depth": ("data: " + "[" * 50_000, "is not YAML"),
    "a key that stands twice": ("seed: 1\nmethod: simcse\nseed: 2\n", "line 3.*'seed' stands twice"),
    "a key in both spellings": ("max-length: 3\nmax_length: 4\n", "names a flag twice"),
    "a key of options that stands twice": ("lr_scheduler_kwargs:\n  a: 1\n  a: 2\n", "line 3.*'a' stands twice"),
    "a key that is a list": ("? [seed]\n: 3\n", "line 1.*a key must be a word"),
    "a key that is a mapping": ("? {seed: 3}\n: 3\n", "line 1.*a key must be a word"),
    "a merge": ("<<: {seed: 3}\n", "'<<' holds a mapping"),
    "a number of 5,000 digits": ("seed: " + "1" * 5000, "is not YAML"),
    "a list of lists": ("data: [[a], [b]]\n", "one of its lists holds a list"),
    "an object": ("data: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    "bytes": ("data: \x00\n", "is not YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_recipe_must_not_hold(case: str, tmp_path: Path) -> None:
    content, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        load_recipe(written(tmp_path, content))


def test_what_changes_no_weight_is_no_difference_at_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_encoder_directory("model")
    Path("texts.txt").write_text("\n".join(TEXTS[:40]))
    run = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", "run", "--dev", "none"]
    run += ["--max-steps", "2", "--per-device-train-batch-size", "8"]
    assert main(run) == 0
    fingerprint = json.loads(Path("run/run.json").read_text())["fingerprint"]
    other = ["--logging-steps", "1", "--save-steps", "1", "--dataloader-num-workers", "1", "--report-to", "none"]
    assert main([*run, *other, "--resume"]) == 0
    assert main([*run, "--seed", "7", "--temperature", "0.1", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "was started with --seed 42, --temperature 0.05, not 7, 0.1. Give these flags to continue it" in said
    assert said.index("42") < said.index("--overwrite")
    assert json.loads(Path("run/run.json").read_text())["fingerprint"] == fingerprint


def test_several_files_are_a_list_in_a_recipe_and_one_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_encoder_directory(tmp_path / "model")
    for name, texts in {"a": TEXTS[:12], "b": TEXTS[12:20], "c": TEXTS[20:28]}.items():
        Path(f"{name}.txt").write_text("\n".join(texts) + "\n")
    Path("folder").mkdir()
    shutil.copy("b.txt", "folder/b.txt")
    content = "method: simcse\nmodel: model\nmax_steps: 1\ndev: none\nper_device_train_batch_size: 8\noutput: run\n"
    listed = load_recipe(written(tmp_path, content + "data: [a.txt, b.txt]\n"))
    recipe = resolve(listed)[0]
    assert resolve({**listed, "data": None}, ["--data", "a.txt", "b.txt"])[0] == recipe
    assert resolve({**listed, "data": ["a.txt"]})[0] == resolve({**listed, "data": "a.txt"})[0]
    assert resolve({**listed, "data": ["a.txt"]})[0].flags["data"] == "a.txt"
    record = run_recipe(recipe).record
    assert (record.data.file, record.data.rows, record.data.rows_read) == ("a.txt and 1 more", 20, 20)
    assert record.recipe["data"] == ["a.txt", "b.txt"]
    assert "--data a.txt b.txt" in record.command
    again = resolve({**listed, "data": ["a.txt", "folder/b.txt"]})[0]
    assert run_recipe(again, resume=True).record == record, "the content counts, not where it is"
    for other in (["a.txt", "c.txt"], ["b.txt", "a.txt"]):
        with pytest.raises(InputError, match=f"was started with --data a.txt b.txt, not {' '.join(other)}"):
            run_recipe(resolve({**listed, "data": other})[0], resume=True)
    assert main(["train", "recipe.yaml", "--data", "a.txt", "d.txt", "--output", "other"]) == 2
    assert "\ntextcl: There is no file d.txt, neither in the working directory" in capsys.readouterr().err
    assert not Path("other").exists()
    shutil.copy("b.txt", "run/b.txt")
    assert main(["train", "recipe.yaml", "--data", "a.txt", "run/b.txt", "--overwrite"]) == 2
    assert "run cannot be replaced by what is made from run/b.txt" in capsys.readouterr().err
