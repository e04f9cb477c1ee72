"""Adapting an encoder to the very texts that are to be clustered."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PrinterCallback, set_seed

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.methods import SCCL
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.recipe import holds_run
from textcl.training.trainer import ContrastiveTrainer


def adapt(
    encoder: Encoder,
    texts: Sequence[str],
    clusters: int | None = None,
    *,
    run: str | Path,
    steps: int = 300,
    first_view: str = "plain",
    second_view: str = "plain",
    batch_size: int = 400,
    learning_rate: float = 1e-5,
    seed: int = 0,
) -> SCCL:
    """Trains an encoder by SCCL on the texts themselves, in virtual mode; no label is needed.

    Every 25 steps it looks how many texts changed their cluster, and stops once they are no more than one in 1,000.
    Batch size and learning rate are those of SCCL's authors.

    Args:
        encoder: What is trained, in place.
        texts: The texts; duplicates are fine.
        clusters: How many; None: estimated before training, and said.
        run: A directory for the log; it must not hold a run.
        steps: The most that are made.
        first_view: See `textcl.views`; two "plain" views differ by dropout.
        second_view: Likewise.
        batch_size: Texts a step, at most all there are.
        learning_rate: Of the encoder, constant; that of head and centres is a hundred times as large.
        seed: Of training and of k-means.

    Returns:
        The method: `encode` and `export` it, or take `len(centres)`, the number of clusters.

    Raises:
        InputError: If the directory holds a run, there are more clusters than distinct texts, or the views do not
            differ because the model has no dropout.

    Example:
        >>> adapt(encoder, texts, 20, run="runs/adapted").export("my-encoder")  # doctest: +SKIP
    """
    if steps < 1:
        raise InputError(f"Adapting takes one step at least, not {steps}.")
    if holds_run(Path(run)):
        raise InputError(f"{run} holds a run already; name another directory.")
    args = ContrastiveTrainingArguments(
        str(run),
        max_steps=steps,
        per_device_train_batch_size=min(batch_size, len(texts)),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        eval_steps=25,
        target_score=99.9,
        select_best=False,
        save_strategy="no",
        seed=seed,
    )
    set_seed(seed)  # the head is drawn before the trainer sets the seed
    method = SCCL(encoder, clusters, first_view, second_view, kmeans_seed=seed)
    trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": list(texts)}))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return method
