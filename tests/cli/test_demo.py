"""The demo, end to end: a process, bundled data alone, and an encoder that is better than before."""

import json
from pathlib import Path

import pytest
from support.command import textcl


@pytest.mark.slow
def test_the_demo_trains_a_better_encoder_offline(tmp_path: Path) -> None:
    run = textcl("demo", "--limit", "6000", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "demo"
    scores = {
        name: each["sanity"]["average"]["all"]
        for name, each in json.loads((folder / "scores.json").read_text()).items()
    }
    assert scores["SimCSE"] > scores["untouched"] + 2
    assert scores["SimCSE"] > scores["bag of words"]
    assert f"{scores['SimCSE']:.2f}" in run.stdout
    assert (folder / "before-after.png").read_bytes().startswith(b"\x89PNG")
    assert "280 definitions search for the other definition" in (folder / "table.md").read_text()
    page = (folder / "index.html").read_text()
    assert f"{scores['SimCSE']:.2f}" in page
    assert "It does not show that your encoder becomes better" in page
    assert "http-equiv" in page
    assert json.loads((folder / "run.json").read_text())["dev"] is None  # the sanity check selects nothing

    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(folder / "export"), device="cpu").encode(["a boat", "a ship", "an opinion"])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]

    again = textcl("demo", "--limit", "6000", cwd=tmp_path)
    assert again.returncode == 2
    assert "continue it with --resume, or replace it with --overwrite" in again.stderr.splitlines()[-1]
    (folder / "index.html").unlink()  # as if the demo had been killed before
    goes_on = textcl("demo", "--limit", "6000", "--resume", cwd=tmp_path)
    assert goes_on.returncode == 0, goes_on.stderr
    assert (folder / "index.html").read_text() == page


@pytest.mark.slow
def test_where_sts_data_is_installed_it_is_scored_and_marked(tmp_path: Path, evaluation_sets: Path) -> None:
    run = textcl("demo", "--max_steps", "5", cwd=tmp_path, TEXTCL_DATA=str(evaluation_sets))
    assert run.returncode == 0, run.stderr
    header = next(line for line in run.stdout.splitlines() if "SICK-R" in line)
    assert "STS12" in header
    row = next(line for line in run.stdout.splitlines() if line.startswith("| SimCSE"))
    assert row.split("|")[3].strip().endswith("*")  # STS12 holds OnWN, whose sentences are WordNet glosses
    assert "transductive" in run.stdout
