"""A student with fewer layers than its teacher, trained on the teacher's vectors of unlabelled texts."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from textcl.encoder import Encoder
from textcl.encoder.pooling import POOLINGS
from textcl.errors import InputError
from textcl.progress import Progress

EPOCHS = 1
BATCH = 32
LEARNING_RATE = 2e-4
WARMUP = 0.1


def kept_layers(there: int, wanted: int) -> list[int]:
    """The numbers of the layers that a student keeps: evenly spaced, the last one included.

    Example:
        >>> kept_layers(12, 4)
        [2, 5, 8, 11]
    """
    return [(number + 1) * there // wanted - 1 for number in range(wanted)]


def with_layers(teacher: Encoder, wanted: int) -> Encoder:
    """A copy of an encoder with fewer layers.

    Args:
        teacher: The encoder; it is not changed.
        wanted: The number of layers.

    Raises:
        InputError: It has no more layers, they cannot be left out, or its pooling reads several of them.
    """
    there = int(teacher.backbone.config.num_hidden_layers)
    if wanted >= there:
        raise InputError(f"{teacher.name} has {there} layers; the student must have fewer, not {wanted}.")
    if teacher.layer_weights is not None or POOLINGS[teacher.pooling].layers != "last":
        raise InputError(f"{teacher.name} pools several layers, so none can be left out; name another --pooling.")
    student = copy.deepcopy(teacher)
    stacks = [
        (module, name, child)
        for module in student.backbone.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == there
    ]
    if len(stacks) != 1 or len({tuple(layer.state_dict()) for layer in stacks[0][2]}) > 1:
        raise InputError(
            f"The layers of {teacher.name} ({teacher.backbone.config.model_type}) cannot be left out: they are shared, "
            "or not alike. Use --static."
        )
    module, name, layers = stacks[0]
    kept = kept_layers(there, wanted)
    setattr(module, name, nn.ModuleList(layers[number] for number in kept))
    for number, old in enumerate(kept):  # decoders find the cache of a layer by its number
        for part in layers[old].modules():
            if "layer_idx" in vars(part):
                vars(part)["layer_idx"] = number
    config = student.backbone.config
    config.num_hidden_layers = wanted
    if isinstance(kinds := getattr(config, "layer_types", None), list) and len(kinds) == there:
        config.layer_types = [kinds[number] for number in kept]
    return student


def fit_layers(
    student: Encoder,
    texts: Sequence[str],
    targets: np.ndarray,
    *,
    prompt: str = "",
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH,
    seed: int = 0,
    show: bool | None = None,
) -> Encoder:
    """Trains a student in place, without dropout, and returns it.

    Minimises the squared distance between the unit vectors of student and teacher, by AdamW (Loshchilov and
    Hutter 2019); the learning rate rises over the first tenth of the steps and falls linearly to 0.

    Args:
        student: The encoder to train.
        texts: The texts.
        targets: The teacher's unit vectors, (texts, dim).
        prompt: The prompt with which both embed the texts.
        epochs: How often each text is seen.
        learning_rate: The largest learning rate.
        batch_size: Texts in a step.
        seed: The seed of the order.
        show: Whether to show a bar, see `Progress`.

    Raises:
        InputError: The loss is not finite, so that the student would be of no use.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = [each for each in student.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(texts) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1, WARMUP * steps), (steps - step) / max(1, (1 - WARMUP) * steps))
    )
    student.train()
    with Progress("Training the student", steps, "steps", show=show) as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(texts), generator=generator).split(batch_size):
                loss = distance(student, [texts[row] for row in rows.tolist()], targets[rows.numpy()], prompt)
                if not loss.isfinite():
                    raise InputError(f"The student's loss is {loss.item()}; lower the learning rate, {learning_rate}.")
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                bar.update()
    return student.eval()


def distance(student: Encoder, texts: Sequence[str], targets: np.ndarray, prompt: str) -> Tensor:
    """The mean squared distance of the student's unit vectors from the targets."""
    tokens = student.tokenize(texts, prompt)
    tokens = {name: each.to(student.device) if isinstance(each, Tensor) else each for name, each in tokens.items()}  # type: ignore[assignment]
    found = normalize(student.embed(tokens, dropout=False), dim=-1)
    return (found - torch.from_numpy(targets).to(found)).square().sum(dim=-1).mean()
