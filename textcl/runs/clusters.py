"""Training an encoder, by SCCL, on the texts that are to be clustered."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback, set_seed

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import SCCL
from textcl.runs.record import holds_run
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer


def train_for_clusters(
    encoder: Encoder,
    texts: Sequence[str],
    clusters: int | None = None,
    *,
    run: str | Path,
    steps: int = 300,
    first_view: str = "token_cutoff:0.2",
    second_view: str = "token_cutoff:0.2",
    batch_size: int = 400,
    learning_rate: float = 5e-5,
    seed: int = 0,
) -> SCCL:
    """Trains an encoder by SCCL on the texts themselves, in virtual mode; no label is needed.

    Every 50 steps it looks how many texts changed their cluster, and stops once they are no more than one in twenty.
    All settings are those of the `standard-sccl-*` recipes, see there.

    Args:
        encoder: What is trained, in place.
        texts: The texts; duplicates are fine.
        clusters: How many; None: estimated before training, and said.
        run: A directory for the log; it must not hold a run.
        steps: The most that are made.
        first_view: See `textcl.views`; dropout comes on top.
        second_view: Likewise.
        batch_size: Texts a step, at most all there are.
        learning_rate: Of the encoder, constant; that of head and centres is twenty times as large.
        seed: Of training and of k-means.

    Returns:
        The method: `encode` and `export` it, or take `len(centres)`, the number of clusters.

    Raises:
        InputError: If the directory holds a run, there are more clusters than distinct texts, or the views do not
            differ because the model has no dropout.

    Example:
        >>> train_for_clusters(encoder, texts, 20, run="runs/adapted").export("my-encoder")  # doctest: +SKIP
    """
    if steps < 1:
        raise InputError(f"Training takes one step at least, not {steps}.")
    if holds_run(Path(run)):
        raise InputError(f"{run} holds a run already; name another directory.")
    args = ContrastiveTrainingArguments(
        str(run),
        max_steps=steps,
        per_device_train_batch_size=min(batch_size, len(texts)),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        eval_steps=50,
        target_score=95.0,
        select_best=False,
        save_strategy="no",
        seed=seed,
    )
    set_seed(seed)  # the head is drawn before the trainer sets the seed
    method = SCCL(
        encoder, clusters, first_view, second_view, alpha=10.0, head_learning_rate_factor=20.0, kmeans_seed=seed
    )
    trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": list(texts)}))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return method
