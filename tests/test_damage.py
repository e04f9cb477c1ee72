"""One changed byte in every kind of file that textcl reads again: the same result, or a sentence, and nothing else."""

import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.cache import FINISHED, Finished, embed
from textcl.files import append_result, read_results
from textcl.methods import SimCSE
from textcl.report.records import read_run
from textcl.runs.recipe import resolve
from textcl.runs.run import run_recipe
from textcl.training.callback import newest_complete_checkpoint
from textcl.vectors.encode import encode_corpus
from textcl.vectors.index import CorpusIndex
from textcl.vectors.shards import load_vectors

FEW, MANY = 6, 200  # places in each file
CHECKPOINT = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
CHECKPOINT += ["complete.json"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that textcl writes and reads again."""
    folder = tmp_path_factory.mktemp("damage")
    model = tiny_encoder_directory(folder / "model")
    encoder = Encoder.from_pretrained(model, device="cpu")
    SimCSE(encoder).collator().tokenized(Dataset.from_dict({"text": TEXTS[:24]}), folder / "tokens")
    embed(encoder, TEXTS[:24], folder / "embeddings")
    for number in range(3):
        Finished(folder / "embeddings").add({"task": f"T{number}"}, "scores", {"accuracy": 81.25 + number})
        append_result(folder / "compared" / "results.jsonl", {"row": "a", "seed": number, "average": 60.5 + number})
    encode_corpus(encoder, TEXTS[:16], folder / "vectors", shard_rows=8)
    CorpusIndex(folder / "vectors", encoder)
    (folder / "texts.txt").write_text("\n".join(TEXTS[:32]) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"{TEXTS[i]}\t{TEXTS[i + i % 5]}\t{5 - i % 5}\n" for i in range(20)))
    flags = {"method": "simcse", "model": str(model), "data": str(folder / "texts.txt"), "output": str(folder / "run")}
    flags |= {"dev": str(folder / "pairs.tsv"), "per_device_train_batch_size": 8, "max_steps": 4, "save_steps": 2}
    run_recipe(resolve({**flags, "eval_steps": 2, "logging_steps": 1})[0])
    return folder


@pytest.fixture(scope="module")
def encoder(written: Path) -> Encoder:
    return Encoder.from_pretrained(written / "model", device="cpu")


def tokens(folder: Path, encoder: Encoder) -> Any:
    return SimCSE(encoder).collator().tokenized(Dataset.from_dict({"text": TEXTS[:24]}), folder).to_dict()


def embeddings(folder: Path, encoder: Encoder) -> Any:
    return embed(encoder, TEXTS[:24], folder)[0].round(5) + 0.0


def vectors(folder: Path, encoder: Encoder) -> Any:
    return [array.tolist() for array in load_vectors(folder)]


def encoded_again(folder: Path, encoder: Encoder) -> Any:
    """As after a kill: without the file that says what the shards were."""
    (folder / "complete.json").unlink()
    return vectors(encode_corpus(encoder, TEXTS[:16], folder, shard_rows=8), encoder)


def hits(folder: Path, encoder: Encoder) -> Any:
    return CorpusIndex(folder, encoder).search("an old sailor hides a clock", 16)


def lines(folder: Path, encoder: Encoder) -> Any:
    return read_results(folder / FINISHED if (folder / FINISHED).exists() else folder / "results.jsonl")


def record(folder: Path, encoder: Encoder) -> Any:
    run = read_run(folder)
    return [run.recipe, run.record, run.best], run.log


def checkpoint(folder: Path, encoder: Encoder) -> Any:
    return newest_complete_checkpoint(folder)


def checkpoint_alone(folder: Path, encoder: Encoder) -> Any:
    """As after a later best encoder: only the checkpoint still has the one of its time."""
    shutil.rmtree(folder / "best")
    return newest_complete_checkpoint(folder)


Reader = Callable[[Path, Encoder], Any]
KINDS: dict[str, tuple[str, str, Reader]] = {
    "token cache": ("tokens", "*.arrow", tokens),
    "seal of the token cache": ("tokens", "*.json", tokens),
    "evaluation cache": ("embeddings", "*.safetensors", embeddings),
    "finished tasks": ("embeddings", FINISHED, lines),
    "results": ("compared", "results.jsonl", lines),
    "shard": ("vectors", "part-00001.parquet", vectors),
    "shard of an incomplete directory": ("vectors", "part-00001.parquet", encoded_again),
    "shard that is searched": ("vectors", "part-00000.parquet", hits),
    "manifest": ("vectors", "manifest.json", vectors),
    "manifest that is searched": ("vectors", "manifest.json", hits),
    "complete.json": ("vectors", "complete.json", vectors),
    "index": ("vectors", "index.faiss", hits),
    "index.json": ("vectors", "index.json", hits),
    "recipe.json": ("run", "recipe.json", record),
    "run.json": ("run", "run.json", record),
    "log.jsonl": ("run", "log.jsonl", record),
    "best.json": ("run", "best/best.json", record),
    **{f"{name} of a checkpoint": ("run", f"checkpoint-4/{name}", checkpoint) for name in CHECKPOINT},
    "best weights": ("run", "checkpoint-4/best/method.safetensors", checkpoint_alone),
    "seal of best": ("run", "checkpoint-4/best/seal.json", checkpoint_alone),
}


def places(path: Path, count: int) -> Iterator[tuple[int, int]]:
    """Seeded places in a file, each with the bits that are changed there."""
    generator = random.Random(zlib.crc32(path.name.encode()))
    size = path.stat().st_size
    for _ in range(count):
        yield generator.randrange(size), generator.randrange(1, 256)


def check(kind: str, written: Path, encoder: Encoder, tmp_path: Path, count: int) -> None:
    folder, pattern, read = KINDS[kind]
    whole = written / folder
    expected = read(shutil.copytree(whole, tmp_path / "whole"), encoder)
    (name,) = (path.relative_to(whole) for path in whole.glob(pattern))
    for number, (place, bits) in enumerate(places(whole / name, count)):
        copy = shutil.copytree(whole, tmp_path / f"{number}")
        content = bytearray((copy / name).read_bytes())
        content[place] ^= bits
        (copy / name).write_bytes(content)
        where = f"byte {place} of {name}, bits {bits:#x}"
        try:
            found = read(copy, encoder)
        except InputError:
            pass
        else:
            compare(kind, found, expected, tmp_path / "whole", copy, where)
        shutil.rmtree(copy)


def compare(kind: str, found: Any, expected: Any, whole: Path, copy: Path, where: str) -> None:
    if kind in ("results", "finished tasks"):  # a damaged line is left out, with a warning
        assert len(found) >= len(expected) - 2, where
        # the damage may be in the name of the key of the hash, which then is one more key that nothing reads
        assert all(any(line | other == line for other in expected) for line in found), where
    elif KINDS[kind][2] is record:
        assert found[0] == expected[0], where
        assert all(any(entry | other == entry for other in expected[1]) for entry in found[1]), where
    elif KINDS[kind][2] in (checkpoint, checkpoint_alone):
        assert found is None or found.name in ("checkpoint-2", "checkpoint-4"), where
        if found is not None and found.name == "checkpoint-4":
            assert same_files(whole / "checkpoint-4", found), where
    elif isinstance(expected, np.ndarray):
        assert np.abs(found - expected).max() <= 2e-5, where
    else:
        assert found == expected, where


def same_files(whole: Path, found: Path) -> bool:
    """Whether all but the files that have the hashes of the others are as they were."""
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    names = [name for name in names if name.name not in ("complete.json", "seal.json")]
    return all((whole / name).read_bytes() == (found / name).read_bytes() for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_gives_the_same_result_or_a_sentence(
    kind: str, written: Path, encoder: Encoder, tmp_path: Path
) -> None:
    check(kind, written, encoder, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_bytes_one_at_a_time(kind: str, written: Path, encoder: Encoder, tmp_path: Path) -> None:
    check(kind, written, encoder, tmp_path, MANY)
