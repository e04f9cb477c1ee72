"""Whether a training can continue from a checkpoint."""

from pathlib import Path

from safetensors import safe_open

from textcl.errors import InputError
from textcl.methods import Method
from textcl.seals import read_sealed
from textcl.training.callback import COMPLETE, fault_of


def check_resumable(checkpoint: Path, method: Method, processes: int) -> None:
    """Raises an error unless a training can continue from a checkpoint.

    Args:
        checkpoint: The checkpoint.
        method: The method that is trained.
        processes: The number of processes that train together.

    Raises:
        InputError: It is not a checkpoint, it is damaged, or it is of another method or another number of processes.
    """
    weights = checkpoint / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{checkpoint} is not a checkpoint of textcl: it has no model.safetensors.")
    if (checkpoint / COMPLETE).is_file():
        if (fault := fault_of(checkpoint)) is not None:
            raise InputError(f"Training cannot continue from {checkpoint}: {fault}.")
        before = read_sealed(checkpoint / COMPLETE).get("processes", processes)  # earlier versions did not write it
        if before != processes:
            raise InputError(
                f"{checkpoint} was written with {before} process{'es' * (before > 1)} and cannot be continued with "
                f"{processes}, because the batch of a step would be another one; use torchrun --nproc_per_node "
                f"{before}, or start a new run."
            )
    with safe_open(weights, "pt") as file:  # transformers would ignore missing parameters
        stored, wanted = set(file.keys()), set(method.state_dict())
    if stored != wanted:
        raise InputError(
            f"{checkpoint} belongs to another method or other options: {len(stored ^ wanted)} parameters are only in "
            f"the checkpoint or only in the method, such as {min(stored ^ wanted)}."
        )
