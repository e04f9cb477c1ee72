"""The examples, each as a process of its own, on a tiny model and tiny texts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.command import REPOSITORY, environment
from support.tiny import TEXTS, tiny_encoder_directory

MEAN = ("bert_ct", "declutr", "sccl")
CLS = ("simcse", "plain_trainer", "clear", "simclr", "moco", "moco_v3", "swav", "byol", "simsiam")
CLS += ("barlow_twins", "vicreg", "esimcse")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    tiny_encoder_directory(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS[:128]) + "\n")
    (folder / "documents.txt").write_text("\n".join(" ".join(TEXTS[i : i + 60]) for i in range(20)) + "\n")
    pairs = [f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}" for i in range(20)]
    (folder / "pairs.tsv").write_text("\n".join(pairs) + "\n")
    return folder


@pytest.mark.slow  # each process takes seconds to begin
@pytest.mark.parametrize("name", [*MEAN, *CLS, "consert"])
def test_an_example_trains_and_exports(name: str, work: Path) -> None:
    script = REPOSITORY / "examples" / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 60
    texts = "documents.txt" if name == "declutr" else "texts.txt"
    more = {"sccl": ["--clusters", "4", "--steps", "2"], "bert_ct": ["--steps", "2"], "plain_trainer": []}
    run = subprocess.run(
        [
            sys.executable,
            script,
            texts,
            "--model",
            "model",
            "--output",
            name,
            *more.get(name, ["--pairs", "pairs.tsv"]),
        ],
        cwd=work,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert f"SentenceTransformer('{name}/export') loads it" in run.stdout

    from textcl import Encoder

    encoder = Encoder.from_pretrained(work / name / "export")
    assert encoder.pooling == ("cls" if name in CLS else "mean" if name in MEAN else "last2")
    assert np.isfinite(encoder.encode(TEXTS[:3])).all()
