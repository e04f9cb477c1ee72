"""A run that continues: from a checkpoint of another run, and from its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.runs import run_until_killed, small_run, write_inputs
from support.tiny import TEXTS

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import file_hash
from textcl.runs.recipe import Recipe, resolve
from textcl.runs.record import RunRecord
from textcl.runs.resume import can_be_loaded
from textcl.runs.run import make_trainer, run_recipe
from textcl.seals import read_sealed, write_sealed
from textcl.training.callback import newest_complete_checkpoint

TRAINED = {"max_steps": 6, "eval_steps": 2, "save_steps": 2, "save_total_limit": 5}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_inputs(folder)
    run_recipe(recipe_of(folder, folder / "whole"))
    return folder


def recipe_of(work: Path, output: Path, **more: object) -> Recipe:
    return resolve(small_run(work, output, **{"dev": str(work / "pairs.tsv"), **TRAINED, **more}))[0]


def weights(output: Path) -> str:
    return file_hash(output / "export" / "model.safetensors")


# -- a checkpoint of another run --------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_run_is_part_of_the_recipe(work: Path, tmp_path: Path) -> None:
    checkpoint = work / "whole" / "checkpoint-4"
    result = run_recipe(recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(checkpoint)))
    whole = RunRecord.read(work / "whole")
    assert weights(tmp_path / "run") == weights(work / "whole")
    assert result.record.fingerprint != whole.fingerprint
    assert "--resume-from-checkpoint=checkpoint-4" in result.record.command
    assert result.record.command in (result.export / "README.md").read_text()
    assert str(work) not in (result.export / "README.md").read_text()
    moved = shutil.copytree(work / "whole", tmp_path / "moved") / "checkpoint-4"
    again = recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(moved))
    assert again.fingerprint() == result.record.fingerprint, "its content counts, and not its place"
    other = recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(moved.with_name("checkpoint-2")))
    assert other.fingerprint() != result.record.fingerprint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"learning_rate": 1e-9},
            r"checkpoint-4 is from a run with --learning-rate 3e-05, not 1e-09; only --max-steps",
        ),
        ({"eval_steps": 1}, r"checkpoint-4 is from a run with --eval-steps 2.0, not 1.0"),
        ({"data": "other.txt"}, r"--data \S+texts.txt, not \S+other.txt"),
    ],
)
def test_flags_that_the_checkpoint_would_overrule_are_refused(
    work: Path, tmp_path: Path, more: dict[str, object], message: str
) -> None:
    if "data" in more:
        more = {"data": str(tmp_path / "other.txt")}
        (tmp_path / "other.txt").write_text("\n".join(TEXTS[:80]) + "\n")
    checkpoint = str(work / "whole" / "checkpoint-4")
    with pytest.raises(InputError, match=message):
        run_recipe(recipe_of(work, tmp_path / "run", resume_from_checkpoint=checkpoint, **more))
    assert not (tmp_path / "run").exists()


def test_a_run_may_go_on_for_longer_and_again_from_there(work: Path, tmp_path: Path) -> None:
    """The second checkpoint is of a run that itself continued from one, which is gone by then."""
    whole = shutil.copytree(work / "whole", tmp_path / "whole")
    second = recipe_of(work, tmp_path / "second", max_steps=8, resume_from_checkpoint=str(whole / "checkpoint-6"))
    assert run_recipe(second).record.steps == 8
    shutil.rmtree(whole)
    checkpoint = tmp_path / "second" / "checkpoint-8"
    third = recipe_of(work, tmp_path / "third", max_steps=9, resume_from_checkpoint=str(checkpoint))
    assert run_recipe(third).record.steps == 9
    with pytest.raises(InputError, match=r"--temperature 0.05, not 0.1"):
        run_recipe(
            recipe_of(work, tmp_path / "x", max_steps=9, temperature=0.1, resume_from_checkpoint=str(checkpoint))
        )


def test_a_checkpoint_whose_run_is_not_known_is_refused(work: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(work / "whole" / "checkpoint-4", tmp_path / "alone" / "checkpoint-4")
    with pytest.raises(InputError, match=r"alone has no recipe.json of this version"):
        run_recipe(recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(alone)))
    (alone / "complete.json").unlink()
    with pytest.raises(InputError, match=r"checkpoint-4 is not a checkpoint that was written completely"):
        run_recipe(recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(alone)))
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_replaced_by_what_continues_from_its_checkpoint(work: Path, tmp_path: Path) -> None:
    output = shutil.copytree(work / "whole", tmp_path / "run")
    checkpoint = str(output / "checkpoint-4")
    with pytest.raises(InputError, match="cannot be replaced by what is made from"):
        run_recipe(recipe_of(work, output, resume_from_checkpoint=checkpoint), overwrite=True)
    assert Path(checkpoint).is_dir()


def test_a_killed_run_that_had_continued_goes_on_from_its_own_newest_checkpoint(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(work / "whole" / "checkpoint-2"))
    run_until_killed(recipe, 5, monkeypatch)
    assert newest_complete_checkpoint(tmp_path / "run").name == "checkpoint-4"
    assert run_recipe(recipe, resume=True).record.resumed
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [3, 4, 5, 6], "steps 3 and 4 are not made again"
    assert weights(tmp_path / "run") == weights(work / "whole")


# -- its own checkpoints ----------------------------------------------------------------------------------------------


def test_an_older_checkpoint_of_the_run_itself_is_no_part_of_its_recipe(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(work, tmp_path / "run")
    run_until_killed(recipe, 5, monkeypatch)
    older = recipe_of(work, tmp_path / "run", resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    record = run_recipe(older, resume=True).record
    assert (record.resumed, record.recipe["resume_from_checkpoint"]) == (True, None)
    assert record.fingerprint == RunRecord.read(work / "whole").fingerprint
    assert read_sealed(tmp_path / "run" / "recipe.json")["recipe"]["resume_from_checkpoint"] is None
    assert weights(tmp_path / "run") == weights(work / "whole")


def test_a_continued_run_saves_as_its_flags_say(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals of the run that was interrupted are in its checkpoint."""
    run_until_killed(recipe_of(work, tmp_path / "run"), 3, monkeypatch)
    run_recipe(recipe_of(work, tmp_path / "run", save_steps=3), resume=True)
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-3",
        "checkpoint-6",
    ]


def test_another_number_of_processes_is_refused_and_an_unknown_one_is_taken(work: Path, tmp_path: Path) -> None:
    """Half of the processes have half of the batch. tests/cli/test_cli.py does the same with two real processes."""
    output = shutil.copytree(work / "whole", tmp_path / "run")
    (output / "run.json").unlink()
    shutil.rmtree(output / "checkpoint-6")
    complete = output / "checkpoint-4" / "complete.json"
    content = read_sealed(complete)
    assert content.pop("processes") == 1
    write_sealed(complete, {**content, "processes": 2})
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    message = (
        r"checkpoint-4 was written with 2 processes and cannot be continued with 1, .* torchrun --nproc_per_node 2"
    )
    with pytest.raises(InputError, match=message):
        run_recipe(recipe_of(work, output), resume=True)
    trainer, _ = make_trainer(recipe_of(work, output))
    with pytest.raises(InputError, match=message):
        trainer.train(resume_from_checkpoint=True)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    elsewhere = recipe_of(work, tmp_path / "other", resume_from_checkpoint=str(complete.parent))
    with pytest.raises(InputError, match=message):
        run_recipe(elsewhere)
    assert not (tmp_path / "other").exists()
    write_sealed(complete, content)
    assert run_recipe(recipe_of(work, output), resume=True).record.resumed
    assert weights(output) == weights(work / "whole")


def test_to_look_whether_an_export_can_be_loaded_draws_nothing(work: Path, tmp_path: Path) -> None:
    """The weights of its dense layer are drawn before they are read, and a training may follow."""
    folder = Encoder.from_pretrained(work / "bert", pooling="pooler").save(tmp_path / "export")
    state = torch.get_rng_state()
    assert not can_be_loaded(folder)
    (folder / "overlap.json").write_text("{}")
    assert can_be_loaded(folder)
    assert torch.equal(torch.get_rng_state(), state)
    Encoder.from_pretrained(folder)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("removed", "checkpoints"),
    [("", True), ("model.safetensors", True), ("overlap.json", True), ("", False), ("tokenizer.json", False)],
)
def test_an_export_that_is_gone_is_made_again(
    work: Path, tmp_path: Path, removed: str, checkpoints: bool, caplog: pytest.LogCaptureFixture
) -> None:
    output = shutil.copytree(work / "whole", tmp_path / "run")
    if removed:
        (output / "export" / removed).unlink()
    else:
        shutil.rmtree(output / "export")
    if not checkpoints:
        for path in output.glob("checkpoint-*"):
            shutil.rmtree(path)
    result = run_recipe(recipe_of(work, output), resume=True)
    assert "its export is missing or damaged; it is made again" in caplog.text
    assert weights(output) == weights(work / "whole")
    assert Encoder.from_pretrained(result.export, device="cpu").encode(TEXTS[:2]).shape[0] == 2
    assert result.record.dev == RunRecord.read(work / "whole").dev
    assert result.record.resumed == checkpoints
    caplog.clear()
    assert run_recipe(recipe_of(work, output), resume=True).record == result.record
    assert "finished already" in caplog.text
