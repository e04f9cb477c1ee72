"""The command line: what it prints, what it writes, and what it refuses."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.command import environment, textcl, without_progress
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import COMMANDS, main
from textcl.device import has_bf16


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a corpus."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:48]) + "\n")
    return folder


TRAIN = ["train", "simcse", "--model", "model", "--output", "run", "--per_device_train_batch_size", "8"]
CLUSTER = ["cluster", "model", "--output", "c.csv"]
TRAIN += ["--max_steps", "2", "--dev", "none"]


def test_help_and_version(tmp_path: Path) -> None:
    run = textcl("--help", cwd=tmp_path)
    assert run.returncode == 0
    assert all(command in run.stdout for command in COMMANDS)
    assert textcl("--version", cwd=tmp_path).stdout.startswith("textcl 0.")


def test_train_then_encode(work: Path, tmp_path: Path) -> None:
    """As a user does it: two processes, and the second reads what the first wrote."""
    model, texts = work / "model", work / "texts.txt"
    flags = ["--output", "run", "--per-device-train-batch-size", "8", "--max_steps", "2", "--dev", "none"]
    run = textcl("train", "simcse", "--model", model, "--data", texts, *flags, cwd=tmp_path)
    assert (run.returncode, without_progress(run.stderr)) == (0, "")  # piped: no bars, no chatter
    assert run.stdout.startswith("48 rows, 2 steps")
    assert len(run.stdout.splitlines()) == 4
    assert run.stdout.endswith("Nothing was measured: the export is the encoder after the last step (2).\n")

    done = textcl("encode", "run/export", texts, "--output", "vectors.npy", "--normalize", cwd=tmp_path)
    assert (done.returncode, without_progress(done.stderr)) == (0, "")
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (48, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path / "run" / "export"), device="cpu").encode(
        TEXTS[:48], normalize_embeddings=True
    )
    assert np.abs(vectors - theirs).max() < 1e-6


def test_env_says_what_is_here(tmp_path: Path) -> None:
    run = textcl("env", cwd=tmp_path)
    assert run.returncode == 0
    assert all(word in run.stdout for word in ("torch", "device", "bf16", "cores", "data", "bundled encoder"))


def test_json_on_standard_output_is_json_alone(work: Path, evaluation_sets: Path, tmp_path: Path) -> None:
    flags = ["--tasks", "sts16", "--data-dir", evaluation_sets, "--json", "-"]
    run = textcl("eval", work / "model", *flags, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["results"]["STS16"].keys() >= {"all", "mean", "wmean", "subsets"}
    assert result["average"]["all"] == result["results"]["STS16"]["all"]
    assert result["provenance"]["encoder"]["pooling"] == "mean"


def test_eval_prints_a_table_and_writes_json(
    work: Path, evaluation_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "result.json"
    flags = ["--tasks", "sts16", "--data-dir", str(evaluation_sets), "--pooling", "cls", "--json", str(target)]
    assert main(["eval", str(work / "model"), *flags]) == 0
    figure = json.loads(target.read_text())["results"]["STS16"]["all"]
    assert f"{figure:.2f}" in capsys.readouterr().out


@pytest.mark.slow
def test_bf16_is_short_for_its_precision(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:8]), encoding="utf-8")
    found = {}
    for flags in ((), ("--precision", "fp32"), ("--precision", "bf16"), ("--bf16",), ("--bf16", "--precision", "fp32")):
        output = tmp_path / f"{len(found)}.npy"
        assert main(["encode", "bundled", str(tmp_path / "texts.txt"), "--output", str(output), *flags]) == 0
        found[flags] = np.load(output)
    default, fp32, bf16, short, last = found.values()
    for found_again, expected in ((default, fp32), (short, bf16), (last, fp32)):
        assert np.array_equal(found_again, expected)
    assert np.array_equal(fp32, bf16) == (not has_bf16())


def test_eval_in_bf16_scores_nearly_the_same_and_says_so(evaluation_sets: Path, tmp_path: Path) -> None:
    results = []
    for name, flags in (("plain", []), ("half", ["--bf16"])):
        target = tmp_path / f"{name}.json"
        flags += ["--tasks", "sts16", "--data-dir", str(evaluation_sets), "--json", str(target), "--max-length", "16"]
        assert main(["eval", "bundled", *flags]) == 0
        results.append(json.loads(target.read_text()))
    plain, half = (result["results"]["STS16"]["all"] for result in results)
    assert abs(plain - half) < 0.1
    assert (plain != half) == has_bf16()
    assert results[0]["provenance"]["encoder"]["dtype"] == "float32"
    assert results[1]["provenance"]["encoder"]["dtype"] == ("bfloat16" if has_bf16() else "float32")


def test_data_import_list_and_verify(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "sets")
    assert main(["data", "import", str(shared_data / "senteval_downstream.tar.xz"), "--data-dir", folder]) == 0
    assert main(["data", "list", "--data-dir", folder]) == 0
    assert main(["data", "verify", "STS16", "MR", "--data-dir", folder]) == 0
    capsys.readouterr()
    scores = next(Path(folder).glob("STS/STS16*/STS.gs.*"))
    lines = scores.read_text().splitlines(keepends=True)
    lines.remove(next(line for line in lines if line.strip()))  # blank lines are pairs without a score
    scores.write_text("".join(lines))
    assert main(["data", "verify", "STS16", "--data-dir", folder]) == 2
    assert "STS16: wrong count" in capsys.readouterr().err
    assert main(["eval", "bundled", "--tasks", "sts16", "--data-dir", folder]) == 2
    assert "STS16" in capsys.readouterr().err


def test_the_clustering_sets_are_imported_listed_and_verified(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "sets")
    assert main(["data", "import", str(shared_data / "clustering.tar.xz"), "--data-dir", folder]) == 0
    assert main(["data", "verify", "StackOverflow", "--data-dir", folder]) == 0
    capsys.readouterr()
    assert main(["data", "list", "--data-dir", folder]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "StackOverflow" in line]
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["clustering", "20,000", "ok"]


def hostile_archive(folder: Path) -> None:
    with tarfile.open(folder / "hostile.tar", "w") as archive:
        member = tarfile.TarInfo("../outside.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))


def one_run(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text('{"fingerprint": "1"}')


PLAIN = ["--first-view", "plain", "--second-view", "plain"]


def without_dropout(folder: Path) -> None:
    tiny_encoder_directory(folder / "still", dropout=0.0)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def nothing(folder: Path) -> None:
    pass


BAD_INPUT = {
    "empty corpus": (write("a.txt", b""), [*TRAIN, "--data", "a.txt"], "a.txt holds no text"),
    "one sentence": (write("a.txt", b"alone\n"), [*TRAIN, "--data", "a.txt"], "only one text"),
    "invalid UTF-8": (write("a.txt", b"fine\nf\xe9in\n"), [*TRAIN, "--data", "a.txt"], "line 2"),
    "no such column": (
        write("a.csv", b"title,body\na,b\nc,d\n"),
        [*TRAIN, "--data", "a.csv", "--column", "bodi"],
        "Did you mean 'body'",
    ),
    "no corpus": (nothing, TRAIN, "--data"),
    "missing corpus": (nothing, [*TRAIN, "--data", "a.txt"], "no file a.txt"),
    "missing sets": (nothing, ["eval", "model", "--data-dir", "nowhere"], "not installed"),
    "missing dev set": (nothing, [*TRAIN, "--data", "texts.txt", "--dev", "stsb"], "not installed"),
    "missing pairs": (nothing, [*TRAIN, "--data", "texts.txt", "--dev", "p.tsv"], "no file p.tsv"),
    "unknown command": (nothing, ["trian"], "Did you mean 'train'"),
    "unknown method": (nothing, ["train", "simsce", "--data", "texts.txt"], "Did you mean 'simcse'"),
    "unknown pooling": (nothing, [*TRAIN, "--data", "texts.txt", "--pooling", "maen"], "Did you mean 'mean'"),
    "unknown flag": (nothing, [*TRAIN, "--data", "texts.txt", "--learning_rat", "1"], "Did you mean --learning-rate?"),
    "unknown task": (nothing, ["eval", "model", "--tasks", "sts17"], "sts17"),
    "unknown recipe": (nothing, ["train", "mine.yaml"], "mine.yaml"),
    "value of the wrong kind": (
        nothing,
        [*TRAIN, "--data", "texts.txt", "--seed", "x"],
        "--seed must be a whole number of at least 0",
    ),
    "no model": (nothing, [*TRAIN, "--data", "texts.txt", "--model", "empty"], "is not a model"),
    "no dropout": (without_dropout, [*TRAIN, "--data", "texts.txt", "--model", "still"], "dropout"),
    "a batch of one": (nothing, [*TRAIN, "--data", "texts.txt", "--per_device_train_batch_size", "1"], "negatives"),
    "hostile archive": (
        hostile_archive,
        ["data", "import", "hostile.tar", "--data-dir", "sets"],
        "would be written outside the folder",
    ),
    "a run is there": (one_run, [*TRAIN, "--data", "texts.txt"], "--resume"),
    "both": (nothing, [*TRAIN, "--data", "texts.txt", "--resume", "--overwrite"], "one of them"),
    "vectors elsewhere": (nothing, ["encode", "model", "texts.txt", "--output", "v.txt"], ".npy"),
    "half an array": (
        nothing,
        ["encode", "model", "texts.txt", "--output", "v.npy", "--dtype", "float16"],
        "--dtype works only with a directory",
    ),
    "numbers of no kind": (
        nothing,
        ["encode", "model", "texts.txt", "--output", "v", "--dtype", "float8"],
        "invalid choice: 'float8'",
    ),
    "vectors among other things": (
        write("empty/mine.txt", b"mine"),
        ["encode", "model", "texts.txt", "--output", "empty"],
        "empty already exists and does not hold vectors",
    ),
    "vectors of nothing": (
        write("a.txt", b"\n"),
        ["encode", "model", "a.txt", "--output", "v"],
        "a.txt holds no text",
    ),
    "searching nothing": (nothing, ["search", "empty", "a boat"], "empty holds no vectors"),
    "more clusters than texts": (
        write("a.txt", b"one\ntwo\ntwo\n"),
        [*CLUSTER, "a.txt", "--clusters", "3"],
        "only 2 distinct texts",
    ),
    "more clusters than memory holds, adapted": (
        write("a.txt", b"one\ntwo\ntwo\n"),
        [*CLUSTER, "a.txt", "--clusters", "4294967296", "--adapt"],
        "only 2 distinct texts",
    ),
    "one cluster": (
        nothing,
        [*CLUSTER, "texts.txt", "--clusters", "1"],
        "--clusters must be a whole number of at least 2, or auto, not 1",
    ),
    "too few texts to estimate": (write("a.txt", b"one\ntwo\n"), [*CLUSTER, "a.txt"], "give the number"),
    "clusters of nothing": (write("a.txt", b"\n"), [*CLUSTER, "a.txt"], "a.txt holds no text"),
    "adapting without dropout": (
        without_dropout,
        ["cluster", "still", "texts.txt", "--output", "c.csv", "--clusters", "3", "--adapt", *PLAIN],
        "choose other views",
    ),
    "steps of nothing": (
        nothing,
        [*CLUSTER, "texts.txt", "--save-encoder", "e"],
        "--save-encoder works only with --adapt",
    ),
    "no step": (
        nothing,
        [*CLUSTER, "texts.txt", "--adapt", "--steps", "0"],
        "--steps must be a whole number of at least 1, not 0",
    ),
    "adapted to fewer texts": (
        write("a.txt", b"one\ntwo\ntwo\n"),
        [*CLUSTER, "a.txt", "--clusters", "3", "--adapt"],
        "2 distinct texts",
    ),
    "clusters are there": (write("c.csv", b""), [*CLUSTER, "texts.txt"], "c.csv exists already"),
    "clustering sets elsewhere": (nothing, ["eval", "model", "--tasks", "clustering"], "AgNews is not installed"),
    "no public address": (nothing, ["data", "fetch", "AgNews"], "textcl data import FILE"),
    "nothing to compare": (nothing, ["compare"], "at least one recipe"),
    "unknown baseline": (nothing, ["compare", "demo", "--baselines", "glove"], "glove"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_in_one_sentence_and_writes_nothing(
    case: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, arguments, expected = BAD_INPUT[case]
    (tmp_path / "model").symlink_to(work / "model")
    (tmp_path / "texts.txt").write_bytes((work / "texts.txt").read_bytes())
    (tmp_path / "empty").mkdir()
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()

    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("textcl: ")
    assert shown.err.count("\n") == 1
    assert expected in shown.err
    assert shown.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "outside.txt").exists()


def test_bad_input_in_a_process_of_its_own(work: Path, tmp_path: Path) -> None:
    run = textcl("train", "simcse", "--model", work / "model", "--data", "nothing.txt", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("textcl: There is no file nothing.txt")
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_borne_is_borne_and_said(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Blank lines, duplicates, a text of 100,000 characters and more, and no bf16."""
    monkeypatch.chdir(tmp_path)
    lines = [*TEXTS[:20], "", "  ", TEXTS[0], "word " * 30_000]
    Path("texts.txt").write_text("\n".join(lines) + "\n")
    flags = [*TRAIN, "--data", "texts.txt", "--bf16", "false"]
    flags[flags.index("model")] = str(work / "model")
    assert main(flags) == 0
    assert "2 blank lines were dropped" in caplog.text
    assert "1 text is equal to an earlier one" in caplog.text
    assert "100,000 characters" in caplog.text
    assert json.loads(Path("run/run.json").read_text())["precision"] == "fp32"


@pytest.mark.slow
def test_two_processes_train_one_run(work: Path, tmp_path: Path) -> None:
    """As `torchrun --nproc_per_node 2 -m textcl train ...`: one record, one line of output, half the steps."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "textcl"]
    flags = ["--output", "run", "--per_device_train_batch_size", "8", "--dev", "none"]
    given = ["train", "simcse", "--model", str(work / "model"), "--data", str(work / "texts.txt"), *flags]
    options = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 300}
    run = subprocess.run([*launch, *given], **options)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("48 rows, 3 steps") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["processes"]) == (3, 2)
    (tmp_path / "run" / "run.json").unlink()
    alone = subprocess.run([*launch[:1], *launch[-2:], *given, "--resume"], **options)
    assert alone.returncode == 2
    assert "was written with 2 processes and cannot be continued with 1" in alone.stderr
