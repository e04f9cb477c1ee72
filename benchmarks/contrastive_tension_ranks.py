"""Do two ranks have the same weights after training? Contrastive Tension in textcl and in sentence-transformers.

    python -m benchmarks.contrastive_tension_ranks [--model DIRECTORY] [--steps 4]

Two gloo processes train on different texts. DistributedDataParallel averages their gradients, so that their weights
stay equal, but only if the wrapped module is the one that is called. sentence-transformers 6.2 replaces an attribute
named `model` by the wrapper, but its Contrastive Tension losses have `model1` and `model2`, so the ranks diverge.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses

from textcl import ContrastiveTrainer, ContrastiveTrainingArguments, Encoder
from textcl.methods import BertCT, CTInBatch
from textcl.report.tables import table

ROWS = 16


def texts(count: int) -> list[str]:
    return [f"The {number % 7} boats of row {number} sail {number * number % 11} miles." for number in range(count)]


def ours(kind: type[BertCT] | type[CTInBatch], model: str, output: str, steps: int) -> torch.nn.Module:
    method = kind(Encoder.from_pretrained(model, device="cpu"))
    args = ContrastiveTrainingArguments(output, **_common(steps))
    data = Dataset.from_dict({"text": texts(2 * ROWS * steps)})
    ContrastiveTrainer(method, args, data).train()
    return method


def theirs(loss_class: Any, model: str, output: str, steps: int) -> torch.nn.Module:
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": torch.float32})
    loss = loss_class(encoder)
    rows = texts(2 * ROWS * steps)
    columns = {"text": rows}
    if loss_class is losses.ContrastiveTensionLoss:
        columns = {"first": rows, "second": [row if i % 8 == 0 else rows[i - 1] for i, row in enumerate(rows)]}
    args = SentenceTransformerTrainingArguments(output, **_common(steps))
    SentenceTransformerTrainer(encoder, args, train_dataset=Dataset.from_dict(columns), loss=loss).train()
    return encoder


def _common(steps: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": ROWS,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


RUNS: dict[str, Any] = {
    "textcl, CT in-batch": lambda *args: ours(CTInBatch, *args),
    "textcl, BERT-CT": lambda *args: ours(BertCT, *args),
    "sentence-transformers, CT in-batch": lambda *args: theirs(losses.ContrastiveTensionLossInBatchNegatives, *args),
    "sentence-transformers, CT": lambda *args: theirs(losses.ContrastiveTensionLoss, *args),
}


def worker(model: str, steps: int) -> None:
    """One rank: does all trainings, and prints the largest difference of a weight between the ranks."""
    torch.set_num_threads(1)
    rows = []
    for name, run in RUNS.items():
        transformers.set_seed(0)
        with tempfile.TemporaryDirectory() as output:
            trained = run(model, output, steps)
        # the pooler is not trained, and sentence-transformers initialises it at random
        trained_ones = [p.detach().flatten() for n, p in trained.named_parameters() if "pooler" not in n]
        weights = torch.cat(trained_ones)
        both = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
        dist.all_gather(both, weights)
        rows.append([name, f"{(both[0] - both[1]).abs().max().item():.1e}"])
    if dist.get_rank() == 0:
        print(table(["after training on two ranks", "largest difference"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(Path(__file__).parents[1] / "textcl" / "assets" / "encoder"))
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    if "RANK" in os.environ:
        worker(options.model, options.steps)
        return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    program = ["-m", "benchmarks.contrastive_tension_ranks", "--model", options.model, "--steps", str(options.steps)]
    subprocess.run([*launch, *program], check=True)


if __name__ == "__main__":
    main()
