"""Texts and tokens of a corpus are mapped from files: the memory of the process does not grow with the corpus."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.command import environment
from support.tiny import TEXTS, tiny_encoder_directory

MEBIBYTE = 1 << 20
# Trains one step, and prints the anonymous memory of the process, of which mapped files are no part.
TRAIN = """
import sys
from pathlib import Path
from transformers import TrainerCallback
from textcl.runs import run
from textcl.runs.recipe import resolve

class Anonymous(TrainerCallback):
    def on_step_end(self, *args, **options):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        print("anonymous:", int(line.split()[1]) * 1024)

model, data, output = sys.argv[1:]
flags = {"method": "simcse", "model": model, "data": data, "output": output, "dev": "none", "max_steps": 1}
flags |= {"per_device_train_batch_size": 8, "save_strategy": "no", "dropout": 0.1}
trainer, _ = run.make_trainer(resolve(flags)[0])
trainer.add_callback(Anonymous())
trainer.train()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is of Linux")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    tiny_encoder_directory(tmp_path / "tiny")

    def anonymous(lines: int) -> int:
        path = tmp_path / f"{lines}.txt"
        with path.open("w") as file:
            file.writelines(f"{n} {TEXTS[n % len(TEXTS)]} {TEXTS[n * 7 % len(TEXTS)]}\n" for n in range(lines))
        command = [sys.executable, "-c", TRAIN, str(tmp_path / "tiny"), str(path), str(tmp_path / f"run-{lines}")]
        # With an arena for each thread of the tokenizer, what glibc keeps of freed memory differs by 17 MiB and more.
        own = environment(XDG_CACHE_HOME=str(tmp_path / "cache"), MALLOC_ARENA_MAX="1")
        ended = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        (line,) = (line for line in ended.stdout.splitlines() if line.startswith("anonymous:"))
        return int(line.split()[1])

    few, many = anonymous(20_000), anonymous(200_000)
    assert abs(many - few) < 16 * MEBIBYTE  # the lists of texts, tokens and row numbers needed 100
