"""The directory of a run: taken by one process, replaced without a loss, and read back only as it was written."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.command import TEXTCL, Forked, python
from support.disk import files_limited
from support.runs import small_run, write_inputs

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.transductive import recorded_overlap
from textcl.files import file_hash, machine
from textcl.runs.recipe import resolve
from textcl.runs.record import RunRecord
from textcl.runs.run import RunResult, run_recipe
from textcl.seals import read_sealed
from textcl.training.callback import newest_complete_checkpoint


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_inputs(folder)
    return folder


def run(work: Path, output: Path, *, resume: bool = False, overwrite: bool = False, **more: object) -> RunResult:
    return run_recipe(resolve(small_run(work, output, **more))[0], resume=resume, overwrite=overwrite)


def command(work: Path, output: Path, *more: object) -> list[str]:
    given = (f"--{key}={value}" for key, value in small_run(work, output).items() if key != "method")
    return ["train", "simcse", *given, *map(str, more)]


def weights(output: Path) -> str:
    return file_hash(output / "export" / "model.safetensors")


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


# -- what a user has there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ("export/thesis.txt", "has export, but no recipe.json of a run"),
        ("best/photo.safetensors", "has best, but no recipe.json of a run"),
        ("checkpoint-500/model.safetensors", "has checkpoint-500, but no recipe.json of a run"),
        ("log.jsonl", "has log.jsonl, but no recipe.json of a run"),
        ("recipe.json", "has recipe.json, but no recipe.json of a run"),
        ("run.json", "has run.json, but no recipe.json of a run"),
    ],
)
def test_what_is_not_of_a_run_is_neither_overwritten_nor_called_a_run(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mine: str, message: str
) -> None:
    path = tmp_path / "own" / mine
    path.parent.mkdir(parents=True)
    path.write_text('{"flour": 500}')
    for more in ([], ["--overwrite"], ["--resume"]):
        assert main(command(work, tmp_path / "own", *more)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "--overwrite" not in error
    assert [each for each in (tmp_path / "own").rglob("*") if each.is_file()] == [path]
    assert path.read_text() == '{"flour": 500}'


def test_overwrite_removes_what_textcl_wrote_and_nothing_else(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(work, output, save_steps=2, dev=str(work / "pairs.tsv"), eval_steps=2)
    for name in ("mine.txt", "checkpoint-notes/a.txt", "checkpoint-2-copy/model.safetensors", "exports/b.txt"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("keep")
    for name in (
        "export/thesis.txt",
        "best/encoder/mine.txt",
        "checkpoint-2/plan.txt",
        "checkpoint-2/sub/model.safetensors",
    ):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("keep")
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(InputError, match=re.escape(name.partition("/")[2]) + ", which textcl did not write"):
                run(work, output, temperature=0.1, save_steps=2, **options)
        (output / name).unlink()
    shutil.rmtree(output / "checkpoint-2" / "sub")
    assert run(work, output, overwrite=True).record.steps == 3
    assert not (output / "checkpoint-2").exists()
    assert not (output / "best").exists()
    for name in ("mine.txt", "checkpoint-notes/a.txt", "checkpoint-2-copy/model.safetensors", "exports/b.txt"):
        assert (output / name).read_text() == "keep"
    assert newest_complete_checkpoint(output).name == "checkpoint-3", "folders of other names are not checkpoints"


# -- one process at a time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["model", "data"])
def test_overwrite_does_not_remove_what_the_new_run_is_made_from(
    named: str, work: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(uninterrupted, tmp_path / "run")
    source = output / "export"
    if named == "data":
        source = shutil.copy(work / "texts.txt", output / "mine.txt")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main([*command(work, output), f"--{named}", str(source), "--overwrite"]) == 2
    assert f"{output} cannot be replaced by what is made from {source}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_of_two_trainings_begun_at_the_same_moment_one_is_refused(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with (
        Forked(TEXTCL, *command(work, output, "--seed", 1), cwd=tmp_path) as first,
        Forked(TEXTCL, *command(work, output, "--seed", 2), cwd=tmp_path) as second,
    ):
        runs = first.wait(), second.wait()
    codes, errors = [run.returncode for run in runs], [run.stderr for run in runs]
    assert sorted(codes) == [0, 2], errors
    assert "is in use by process" in errors[codes.index(2)] or "has a run already" in errors[codes.index(2)]
    seed = codes.index(0) + 1
    assert RunRecord.read(output).seed == read_sealed(output / "recipe.json")["recipe"]["seed"] == seed
    assert not list(output.glob(".*"))


def test_a_run_whose_directory_is_removed_meanwhile_is_still_known_as_one(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    monkeypatch.setattr("textcl.data.overlap.overlap", lambda texts: (output / "recipe.json").unlink() or {})
    first = run(work, output)
    assert run(work, output, resume=True).record == first.record


def test_what_a_model_was_trained_on_before_is_known_of_all_that_is_made_from_it(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"STS16": {"headlines": {"found": 9, "total": 10, "pairs_found": 5, "pairs": 5}}}
    monkeypatch.setattr("textcl.data.overlap.overlap", lambda texts: seen)
    first = run(work, tmp_path / "first")
    monkeypatch.setattr("textcl.data.overlap.overlap", lambda texts: {})
    second = run(work, tmp_path / "second", model=first.export)
    assert second.record.data.overlap == seen
    copied = Encoder.from_pretrained(second.export).save(tmp_path / "copied")
    assert [recorded_overlap(Encoder.from_pretrained(each)) for each in (second.export, copied)] == [seen, seen]


def test_what_a_killed_run_left_is_cleared_away(work: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    output, owner = tmp_path / "run", f"{machine()}.{process.pid}.0"
    run(work, output)
    (output / "run.json").unlink()
    (output / f".recipe.json.{owner}.tmp").touch()
    (output / f".export.{owner}.tmp").mkdir()
    (output / f".best.{owner}.old").mkdir()
    (output / "best").mkdir()
    run(work, output, resume=True)
    assert not list(output.glob(".*"))


# -- what is read back ------------------------------------------------------------------------------------------------

TRAINED = {"max_steps": 6, "save_steps": 2, "logging_steps": 1, "save_total_limit": 5}


@pytest.fixture(scope="module")
def uninterrupted(work: Path) -> Path:
    run(work, work / "whole", dev=str(work / "pairs.tsv"), eval_steps=2, **TRAINED)
    return work / "whole"


@pytest.fixture
def killed(uninterrupted: Path, tmp_path: Path) -> Path:
    """What a kill after checkpoint-4 leaves."""
    output = shutil.copytree(uninterrupted, tmp_path / "killed")
    for name in ("export", "checkpoint-6"):
        shutil.rmtree(output / name)
    (output / "run.json").unlink()
    return output


def resumed(work: Path, output: Path, **more: object) -> RunResult:
    return run(work, output, resume=True, dev=str(work / "pairs.tsv"), eval_steps=2, **TRAINED, **more)


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", "complete.json"],
)
def test_of_a_damaged_checkpoint_the_one_before_is_taken(
    work: Path, uninterrupted: Path, killed: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = killed / "checkpoint-4"
    flip(damaged / name)
    assert newest_complete_checkpoint(killed).name == "checkpoint-2"
    assert f"its {name} is" in caplog.text
    with pytest.raises(InputError, match=rf"Training cannot continue from .*checkpoint-4: its {name} is"):
        resumed(work, killed, resume_from_checkpoint=str(damaged))
    if name in ("optimizer.pt", "complete.json"):  # the others differ in their names alone
        assert resumed(work, killed).record.resumed
        assert weights(killed) == weights(uninterrupted)


def best_step(output: Path) -> int:
    return read_sealed(output / "best" / "best.json")["step"]


@pytest.mark.parametrize("damage", ["method.safetensors", "best.json", "encoder/model.safetensors", "all of it"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_best_encoder_that_was_damaged_is_taken_from_the_checkpoint_or_made_again(
    work: Path, uninterrupted: Path, killed: Path, damage: str, everywhere: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The scores of the checkpoint say which step was the best, so without it another one would be exported."""
    expected, score = best_step(uninterrupted), RunRecord.read(uninterrupted).dev.score
    for step in (2, 4, 6):
        complete = uninterrupted / f"checkpoint-{step}" / "complete.json"
        assert read_sealed(complete)["best"] <= step
    for folder in [killed, *killed.glob("checkpoint-*")][: 3 if everywhere else 1]:
        if damage == "all of it":
            shutil.rmtree(folder / "best")
        else:
            flip(folder / "best" / damage)
    newest = newest_complete_checkpoint(killed)
    assert newest is None if everywhere else newest.name == "checkpoint-4"
    assert ("the best encoder up to then is missing or damaged" in caplog.text) == everywhere
    record = resumed(work, killed).record
    assert weights(killed) == weights(uninterrupted)
    assert (best_step(killed), record.dev.score) == (expected, score)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("recipe.json", None, "recipe.json is damaged"),
        ("recipe.json", b"", "recipe.json is damaged"),
        ("recipe.json", b"[1, 2]", "recipe.json is damaged"),
        ("recipe.json", b'{"name": "pancakes"}', "recipe.json is not of a run of textcl"),
        ("run.json", None, "run.json is damaged"),
        ("run.json", b'{"a": 1', "run.json is damaged"),
        ("run.json", b"{}", "run.json is not the record of a run"),
    ],
)
def test_a_damaged_record_is_said(work: Path, uninterrupted: Path, tmp_path: Path, name, content, message) -> None:
    output = tmp_path / "run"
    output.mkdir()
    for each in ("recipe.json", "run.json"):
        shutil.copy(uninterrupted / each, output / each)
    if content is None:
        flip(output / name, (output / name).read_bytes().index(b"texts.txt") + 2)
    else:
        (output / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        resumed(work, output)


def test_a_run_whose_only_record_is_damaged_can_be_replaced(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(work, output)
    (output / "run.json").unlink()
    (output / "recipe.json").write_bytes(b"")  # as a disk leaves it that loses its power
    with pytest.raises(InputError, match=r"has a run already; .* replace it with --overwrite"):
        run(work, output)
    assert run(work, output, overwrite=True).record.steps == 3


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_every_file_of_a_run_has_the_permissions_of_the_umask(work: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        run(work, tmp_path / "run", dev=str(work / "pairs.tsv"), eval_steps=2, save_steps=2)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) >= 4
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files if path.stat().st_mode & 0o777 != 0o644} == {}


def test_weights_that_cannot_be_read_are_called_so(work: Path, tmp_path: Path) -> None:
    model = shutil.copytree(work / "bert", tmp_path / "m")
    for path in (model, *model.iterdir()):  # whatever the umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    (model / "model.safetensors").chmod(0o600 if os.geteuid() == 0 else 0o000)
    program = f"""
import os
from textcl.encoder import Encoder
from textcl.errors import InputError
for folder in {[str(each) for each in [*model.parents][:-2]]}:
    os.chmod(folder, 0o755)
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    Encoder.from_pretrained({str(model)!r})
except InputError as error:
    print(error)
"""
    run = python(program)
    assert run.stdout == f"{model}/model.safetensors cannot be read: permission denied.\n", run.stderr


@pytest.mark.parametrize(("saves", "where"), [("no", "run could not be written"), ("steps", "failed at step 2")])
def test_a_full_disk_is_one_sentence_that_names_resume(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], saves: str, where: str
) -> None:
    """Full in the export, and in the first checkpoint, when there is none to fall back on."""
    arguments = command(work, tmp_path / "run", "--save_strategy", saves, "--save_steps", 2)
    with files_limited(30_000):
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert where in error
    assert error.count("--resume") == 1, "it is said once, by whoever was writing"
    assert error.count("\n") == 1
    assert main(arguments) == 2, "a fresh start is refused, so that the sentence has to name --resume"
    assert main([*arguments, "--resume"]) == 0
    run(work, tmp_path / "other")
    assert weights(tmp_path / "run") == weights(tmp_path / "other")
