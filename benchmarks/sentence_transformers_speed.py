"""SimCSE training steps and `encode`, beside sentence-transformers: same model, same texts, same precision.

    python -m benchmarks.sentence_transformers_speed MODEL TEXTS [--texts 2048] [--steps 12] [--rounds 3]

Both sides take turns, and medians are compared. A training step is the same work on both sides: 64 sentences of at most
32 tokens, each encoded twice under dropout, in-batch cross-entropy at temperature 0.05, AdamW. The losses of the first
steps are printed too: equal work has to show there.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tqdm import tqdm

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder, SimCSE, load_texts

BATCH, LENGTH, WARM_UP = 64, 32, 2


class StepClock(transformers.TrainerCallback):
    """Seconds from the start of each step to its end."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def train_ours(model: Path, texts: Dataset, bf16: bool, output: str, steps: int) -> StepClock:
    clock = StepClock()
    transformers.set_seed(0)
    method = SimCSE(Encoder.from_pretrained(model, max_length=LENGTH), head="none")
    args = ContrastiveTrainingArguments(output, bf16=bf16, **_common(steps))
    trainer = ContrastiveTrainer(method, args, texts, callbacks=[clock])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock


def train_theirs(model: Path, texts: Dataset, bf16: bool, output: str, steps: int) -> StepClock:
    clock = StepClock()
    transformers.set_seed(0)
    encoder = SentenceTransformer(str(model))
    encoder.max_seq_length = LENGTH
    pairs = Dataset.from_dict({"anchor": texts["text"], "positive": texts["text"]})
    args = SentenceTransformerTrainingArguments(
        output, bf16=bf16, use_cpu=not torch.cuda.is_available(), disable_tqdm=True, **_common(steps)
    )
    loss = MultipleNegativesRankingLoss(encoder, scale=20.0)
    trainer = SentenceTransformerTrainer(encoder, args, train_dataset=pairs, loss=loss, callbacks=[clock])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock


def _common(steps: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": 1e-5,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }


def encode_ours(model: Path, texts: list[str], bf16: bool) -> float:
    dtype = torch.bfloat16 if bf16 else torch.float32
    encoder = Encoder.from_pretrained(model, max_length=LENGTH, dtype=dtype)
    return _seconds(lambda: encoder.encode(texts, batch_size=BATCH, show_progress_bar=False))


def encode_theirs(model: Path, texts: list[str], bf16: bool) -> float:
    dtype = torch.bfloat16 if bf16 else torch.float32
    encoder = SentenceTransformer(str(model), model_kwargs={"dtype": dtype})
    encoder.max_seq_length = LENGTH
    return _seconds(
        lambda: encoder.encode(
            texts, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=not bf16, convert_to_tensor=bf16
        )
    )


def _seconds(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--texts", type=int, default=2048, help="sentences to encode a round")
    parser.add_argument("--steps", type=int, default=12, help="training steps a round, the first two not timed")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    texts = load_texts(options.corpus, limit=max(options.texts, BATCH * options.steps))
    sentences = texts["text"][: options.texts]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} on {torch.get_num_threads()} threads"
    )
    print(f"{'':28}{'textcl':>10}{'peer':>10}{'ratio':>8}")
    bar = tqdm(total=options.rounds * 8, disable=None)
    for bf16 in (False, True):
        precision = "bf16" if bf16 else "fp32"
        rates: dict[str, list[float]] = {"ours": [], "theirs": [], "encode ours": [], "encode theirs": []}
        losses = {}
        for _ in range(options.rounds):
            for name, train in (("ours", train_ours), ("theirs", train_theirs)):
                with tempfile.TemporaryDirectory() as output:
                    clock = train(options.model, texts, bf16, output, options.steps)
                rates[name].append(BATCH / statistics.median(clock.seconds[WARM_UP:]))
                losses[name] = clock.losses
                bar.update()
            for name, encode in (("encode ours", encode_ours), ("encode theirs", encode_theirs)):
                rates[name].append(len(sentences) / encode(options.model, sentences, bf16))
                bar.update()
        median = {name: statistics.median(values) for name, values in rates.items()}
        for label, ours, theirs in (("training", "ours", "theirs"), ("encode", "encode ours", "encode theirs")):
            ratio = median[ours] / median[theirs]
            name = f"{label}, {precision}"
            print(f"{name:<18}{'texts/s':<10}{median[ours]:>10.1f}{median[theirs]:>10.1f}{ratio:>8.2f}")
        print("  losses, textcl:", *(f"{loss:.4f}" for loss in losses["ours"][:6]))
        print("  losses, peer:  ", *(f"{loss:.4f}" for loss in losses["theirs"][:6]))


if __name__ == "__main__":
    main()
