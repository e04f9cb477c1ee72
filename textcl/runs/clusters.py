"""Training an encoder with SCCL on the texts that will be clustered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import set_seed

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.clusters import ClusteredTexts
from textcl.locks import taken
from textcl.methods import SCCL
from textcl.metrics.clustering import check_number, cluster, clustering_accuracy
from textcl.metrics.stability import found_again
from textcl.runs.record import run_files
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.trainer import ContrastiveTrainer

LOOK_STEPS = 50  # between two looks at the clusters of all texts
UNCHANGED = 95.0  # percentage of texts in the same cluster as at the previous check, at which training stops


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
    """Trains an encoder with SCCL on the texts themselves, in virtual mode (see `SCCL`). No labels are needed.

    Every 50 steps the share of texts that changed their cluster is computed; training stops once it is at most 5 %. The
    settings are those of the `standard-sccl-*` recipes, but gradients are clipped to norm 1, and the incomplete last
    batch of an epoch is left out.

    Args:
        encoder: The encoder; it is trained in place.
        texts: The texts; duplicates are allowed.
        clusters: The number of clusters; None: it is estimated before training, and logged.
        run: A directory for the log; it must not contain a run.
        steps: The maximal number of training steps.
        first_view: The first view, see `textcl.views`. Dropout is applied as well.
        second_view: The second view, in the same form.
        batch_size: The number of texts per step; at most all texts.
        learning_rate: The learning rate of the encoder, constant; head and centres have twenty times this rate.
        seed: The seed of training and of k-means.

    Returns:
        The trained method. Use its `encode` and `export`; `len(centres)` is the number of clusters.

    Raises:
        InputError: The directory contains a run, there are more clusters than distinct texts, or the views do not
            differ because the model has no dropout.

    Example:
        >>> train_for_clusters(encoder, texts, 20, run="runs/adapted").export("my-encoder")  # doctest: +SKIP
    """
    if steps < 1:
        raise InputError(f"Training needs at least one step, not {steps}.")
    if clusters is not None:
        check_number(clusters, len(set(texts)), "distinct texts")
    if run_files(Path(run)):
        raise InputError(f"{run} has a run already; name another directory.")
    args = ContrastiveTrainingArguments(
        str(run),
        max_steps=steps,
        per_device_train_batch_size=min(batch_size, len(texts)),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        eval_steps=LOOK_STEPS,
        target_score=UNCHANGED,
        gradient_cache=True,  # the activations of 400 texts with two views each would need 4 to 10 GB
        select_best=False,
        save_strategy="no",
        seed=seed,
    )
    set_seed(seed)  # the head is initialised before the trainer sets the seed
    method = SCCL(
        encoder, clusters, first_view, second_view, alpha=10.0, head_learning_rate_factor=20.0, kmeans_seed=seed
    )
    trainer = ContrastiveTrainer(method, args, Dataset.from_dict({"text": list(texts)}))
    with taken(run):
        trainer.train()
    return method


@dataclass(frozen=True)
class Difference:
    """How clusters differ from those of the untouched encoder. It is no verdict: nothing here says which are better.

    Attributes:
        changed: The number of texts in another cluster, if the clusters of both are matched in the best way.
        before: The agreement of k-means on halves of the texts with the untouched encoder, see `found_again`; None if
            there are too few texts.
        after: The same with the trained encoder.
    """

    changed: int
    before: float | None
    after: float | None


def compare_with_untouched(untouched: np.ndarray, found: ClusteredTexts, seed: int = 0) -> Difference:
    """Compares clusters of k-means with as many clusters of the same texts by the untouched encoder.

    Args:
        untouched: The vectors of the untouched encoder, see `textcl.evaluation.clusters.embed`, (texts, dim).
        found: The clusters of the trained encoder.
        seed: The seed of k-means and of the halves.

    Example:
        >>> compare_with_untouched(vectors, cluster_texts(trained, texts, 20)).changed  # doctest: +SKIP
        412
    """
    before = cluster(untouched, len(found.names), seed).assignments
    same = clustering_accuracy(before, found.clusters)
    again = found_again(untouched, before, seed=seed)
    return Difference(round((1 - same) * len(found.texts)), None if again is None else again.agreement, found.agreement)
