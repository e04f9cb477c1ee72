"""The cost of a view relative to a training step without it, and the speed of text views.

    python -m benchmarks.views TEXTS [--model DIRECTORY] [--steps 8] [--rounds 3] [--texts 20000]

A step has a batch of 64 texts of at most 32 tokens: collate, forward, backward, AdamW. The views run in turns, and
medians are compared. The time of collating is included, although dataloader workers hide it in a real run.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from tqdm import tqdm

from textcl import Encoder, load_texts
from textcl.device import has_bf16
from textcl.encoder.batching import on_device
from textcl.errors import InputError
from textcl.methods import ConSERT
from textcl.report.tables import table
from textcl.views.text import TEXT_VIEWS
from textcl.views.view import OPERATORS

BATCH, LENGTH = 64, 32


class Steps:
    """A method with the same view on both sides, and the seconds of its steps."""

    def __init__(self, model: str, view: str) -> None:
        torch.manual_seed(0)
        self.method = ConSERT(Encoder.from_pretrained(model, max_length=LENGTH), view, view).train()
        self.method.hooked = True  # one epoch only, so no hook must tell the collator the epoch
        self.collator = self.method.collator()
        self.optimizer = torch.optim.AdamW(self.method.parameters(), lr=1e-5)
        self.seconds: list[float] = []

    def run(self, rows: list[dict[str, str]], steps: int) -> None:
        device = self.method.encoder.device
        for step in range(steps):
            start = time.perf_counter()
            batch = self.collator(rows[step * BATCH : (step + 1) * BATCH])
            batch = on_device(batch, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16()):
                loss = self.method(**batch)["loss"]
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.seconds.append(time.perf_counter() - start)


def training_steps(model: str, rows: list[dict[str, str]], steps: int, rounds: int) -> str:
    views: dict[str, Steps] = {}
    for view in ["plain", *OPERATORS]:
        try:
            views[view] = Steps(model, view)
        except InputError as error:  # WordNet is not installed, or the backbone does not support the view
            print(f"{view}: {error}")
    for number in tqdm(range(rounds + 1), desc="Rounds", disable=None):
        for each in views.values():
            each.run(rows, steps)
            if number == 0:
                each.seconds.clear()  # warm-up
    plain = statistics.median(views["plain"].seconds)
    medians = {view: statistics.median(each.seconds) for view, each in views.items()}
    cells = [[view, f"{1000 * median:.0f}", f"{100 * (median / plain - 1):+.1f} %"] for view, median in medians.items()]
    return table(["view on both sides", "ms a step", "beside plain"], cells)


def text_views(texts: list[str]) -> str:
    cells = []
    for view in ("synonyms", "deletion", "swap", "crop", "character_noise"):
        function: Any = TEXT_VIEWS[view]
        function(texts[:100])  # WordNet is loaded
        start = time.process_time()
        function(texts)
        cells.append([view, f"{len(texts) / (time.process_time() - start):,.0f}"])
    return table(["text view", "sentences a second, one core"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a file of texts")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=20_000)
    options = parser.parse_args()
    texts = list(load_texts(options.corpus, limit=max(options.texts, options.steps * BATCH))["text"])
    rows = [{"text": text} for text in texts]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, bf16: {has_bf16()}\n")
    print(text_views(texts[: options.texts]), end="\n\n")
    print(training_steps(options.model, rows, options.steps, options.rounds))


if __name__ == "__main__":
    main()
