"""The memory of training over its steps, versus sentence-transformers; and the memory of `cluster --adapt`."""

import tempfile
from collections.abc import Callable
from itertools import cycle, islice
from statistics import mean
from threading import Event, Thread
from typing import Any

import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from benchmarks.measure import MEBIBYTE, SMALLER, Options, Row, in_child, resident
from benchmarks.simcse import TEMPERATURE, load_peer
from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder, SimCSE
from textcl.runs.clusters import train_for_clusters

LENGTH = 128
MOST = 2048.0  # MiB that `cluster --adapt` may take


def run(options: Options) -> list[Row]:
    """Each side runs in its own process with the default settings. The JSON holds the sizes over time."""
    steps, batch = options.size(200, 4), options.size(32, 4)
    texts = long_texts(options, batch * min(steps, 64))
    job = (options.encoder(), texts, batch, steps)
    ours, theirs = in_child(textcl_side, *job), in_child(peer_side, *job)
    count, rows = options.size(4000, 40), options.size(400, 20)
    short = list(islice(cycle(options.texts(options.size(2000, 40))), count))
    adapted = in_child(adapt_side, options.encoder(), short, rows, options.size(50, 2))
    name = f"memory, {steps} steps of {batch} × {LENGTH} tokens"
    quarter = max(1, len(ours) // 4)
    return [
        Row(
            f"{name}: peak",
            max(ours),
            max(theirs),
            "MiB",
            1,
            SMALLER,
            "resident size of the process, libraries included; each text is encoded twice",
            {"textcl": ours, "peer": theirs},
        ),
        Row(
            f"{name}: the last quarter beside the second",
            mean(ours[-quarter:]),
            mean(ours[quarter : 2 * quarter]),
            "MiB",
            1,
            "near 1",
            "textcl on both sides: the process must not grow",
        ),
        Row(
            f"memory, cluster --adapt, {count:,} short texts, batch {rows} × 2: peak",
            max(adapted),
            MOST,
            "MiB",
            1,
            SMALLER,
            "the peer is the aim",
            {"textcl": adapted},
        ),
    ]


def long_texts(options: Options, count: int) -> list[str]:
    """Texts of 4 to 12 sentences: most have more than `LENGTH` tokens, and the others differ in length."""
    sentences = cycle(options.texts(options.size(2000, 40)))
    return [" ".join(islice(sentences, 4 + number % 9)) for number in range(count)]


def watched(action: Callable[[], Any]) -> list[float]:
    """The resident size of the process in MiB, five times a second while an action runs; its peak comes last."""
    sizes, done = [], Event()

    def watch() -> None:
        while not done.wait(0.2):
            sizes.append(resident("VmRSS") / MEBIBYTE)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return [*sizes, resident("VmHWM") / MEBIBYTE]


def textcl_side(model: str, texts: list[str], batch: int, steps: int) -> list[float]:
    """The sizes while textcl trains with SimCSE."""
    method = SimCSE(Encoder.from_pretrained(model, max_length=LENGTH), temperature=TEMPERATURE, head="none")
    with tempfile.TemporaryDirectory() as folder:
        args = ContrastiveTrainingArguments(folder, **_arguments(batch, steps))
        trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": texts}))
        trainer.remove_callback(transformers.PrinterCallback)
        return watched(trainer.train)


def peer_side(model: str, texts: list[str], batch: int, steps: int) -> list[float]:
    """The sizes while sentence-transformers trains with the same loss."""
    encoder = load_peer(model, LENGTH)
    loss = MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
    pairs = Dataset.from_dict({"anchor": texts, "positive": texts})
    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(folder, **_arguments(batch, steps))
        trainer = SentenceTransformerTrainer(encoder, args, train_dataset=pairs, loss=loss)
        trainer.remove_callback(transformers.PrinterCallback)
        return watched(trainer.train)


def adapt_side(model: str, texts: list[str], batch: int, steps: int) -> list[float]:
    """The sizes during what `textcl cluster --adapt` trains."""
    encoder = Encoder.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        clusters = min(20, len(set(texts)) // 4)
        return watched(lambda: train_for_clusters(encoder, texts, clusters, run=folder, steps=steps, batch_size=batch))


def _arguments(batch: int, steps: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": 1e-5,
        "bf16": False,
        "logging_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
