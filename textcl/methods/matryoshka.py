"""Matryoshka training: the first dimensions of a vector become vectors of their own, for several sizes at once.

Kusupati et al. (2022), eq. 1, with all weights 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from torch import Tensor

from textcl.collator.batch import Batch
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.modules.info_nce import InfoNCE
from textcl.modules.masked_language_model import MaskedLanguageModelHead
from textcl.ranges import Range

if TYPE_CHECKING:
    from textcl.methods.method import Method, Outputs

PAPER = "Kusupati et al. (2022). Matryoshka Representation Learning. NeurIPS. arXiv 2205.13147"
_SIZE = Range(at_least=2, whole=True)


def over_sizes(
    objective: "Callable[[Tensor, Batch], Outputs]", embeddings: Tensor, batch: Batch, sizes: Sequence[int]
) -> "Outputs":
    """The sum over sizes of an objective on the first dimensions. The objective normalises, after the cut.

    Args:
        objective: See `Method.objective`.
        embeddings: The embeddings, (rows, dim).
        batch: The batch that the collator made.
        sizes: How many dimensions are kept, the largest number first.

    Returns:
        The loss and its terms, each summed over the sizes; outputs that are no scalars are those of the largest size.
    """
    summed, *others = (dict(objective(embeddings[:, :size], batch)) for size in sizes)
    for outputs in others:
        for name, value in outputs.items():
            if cast(Tensor, value).ndim == 0:
                summed[name] = cast(Tensor, summed[name]) + cast(Tensor, value)
    return cast("Outputs", summed)


def checked_sizes(method: "Method", sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes, if the method can train them.

    Raises:
        InputError: The sizes are not whole numbers, do not fall, or are above the encoder's dimension; or what is
            exported would not begin with the dimensions that were trained: something with weights of its own stands
            between embeddings and loss, or the pooling for the test is another.
    """
    sizes = list(sizes)
    named, dimension = ", ".join(map(str, sizes)), method.encoder.dimension
    if not sizes or not all(size in _SIZE for size in sizes):
        raise InputError(
            "dimensions must be whole numbers of at least 2, such as 256,128,64 (in Python, a list of them), not "
            f"{named or 'nothing'}."
        )
    if any(after >= before for before, after in pairwise(sizes)):
        raise InputError(f"dimensions must fall, as in 256,128,64, but they are {named}; name the largest first.")
    if sizes[0] > dimension:
        raise InputError(
            f"dimensions has {sizes[0]}, but the vectors of this encoder have {dimension}: name sizes of at most "
            f"{dimension}."
        )
    if parts := _learned_parts(method):
        raise InputError(
            f"{method.name or type(method).__name__} cannot train dimensions: its {parts[0]} mixes them before the "
            f"loss, so that the first ones alone would learn nothing. {method.without_parts}"
        )
    check_test_pooling(method)
    return tuple(map(int, sizes))


def check_test_pooling(method: "Method") -> None:
    """Raises an InputError if the test has another pooling, whose first dimensions were not trained."""
    if method.test_pooling not in (None, method.encoder.pooling):
        raise InputError(
            f"With dimensions, the test needs the pooling of training, {method.encoder.pooling}, because only the "
            f"first dimensions of its vectors are trained; leave out --test-pooling {method.test_pooling}."
        )


def _learned_parts(method: "Method") -> list[str]:
    """The names of a method's own parts with weights or a state: heads, projectors, prototypes, centres, queues."""
    passing = (Encoder, InfoNCE, MaskedLanguageModelHead)  # they do not stand between embeddings and loss
    parts = [name for name, part in method.named_children() if part.state_dict() and not isinstance(part, passing)]
    return parts + [name for name, _ in method.named_parameters(recurse=False)]
