"""Time and memory of InfoNCE and its gradient at growing batch sizes, versus other ways to compute the same number."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import (
    EQUAL,
    MEBIBYTE,
    SMALLER,
    Options,
    Row,
    available_memory,
    in_child,
    peak_above,
    seconds,
    take_turns,
)
from textcl.losses.info_nce import info_nce, nt_xent

DIMENSION, TEMPERATURE = 256, 0.05
MATRIX_BYTES = 16  # per pair: scores, their softmax and the gradients of both, in float32
PAIRS_BYTES = 32  # per triple (row, positive, negative) in pytorch-metric-learning's NT-Xent; there are 8 N³ triples
Loss = Callable[[Tensor, Tensor], Tensor]


def run(options: Options) -> list[Row]:
    """Seconds and mebibytes of forward and backward; and the loss and the gradient's norm, if both sides fit."""
    rows = []
    chunk = options.size(1024, 32)
    for batch in (64, 100) if options.quick else (1024, 4096, 16_384, 65_536):
        rows += one_way(batch, chunk, options.turns())
    if find_spec("pytorch_metric_learning"):
        for batch in (16,) if options.quick else (64, 128, 256):
            if PAIRS_BYTES * 8 * batch**3 < available_memory():
                rows += two_way(batch, options.turns())
    return rows


def one_way(batch: int, chunk: int, rounds: int) -> list[Row]:
    """Queries against keys in tiles, versus the whole matrix if it fits, and versus only the products of the tiles."""
    tiled, whole = partial(one_way_tiled, chunk=chunk), one_way_matrix
    name = f"InfoNCE, N = {batch:,}"
    fits = 2 * MATRIX_BYTES * batch**2 < available_memory()
    sides = {"textcl": timed(tiled, batch), "products": lambda: products(batch, chunk)}
    if fits:
        sides["matrix"] = timed(whole, batch)
    found = take_turns(sides, rounds)
    memory = in_child(memory_above_inputs, tiled, batch) / MEBIBYTE
    rows = [
        Row.of(
            f"{name}: beside its products",
            {"textcl": found["textcl"], "products": found["products"]},
            "s",
            "near 1",
            f"the peer is four matrix products, tile by tile (scores in forward and again in backward, two gradients): "
            f"{100 * sum(found['products']) / sum(found['textcl']):.0f} % of the time",
        )
    ]
    if not fits:
        note = "the peer is one such matrix of float32, computed: it does not fit here twice"
        return [*rows, Row(f"{name}: memory", memory, 4 * batch**2 / MEBIBYTE, "MiB", 1, SMALLER, note)]
    taken = in_child(memory_above_inputs, whole, batch) / MEBIBYTE
    return [
        Row.of(f"{name}: beside the matrix", {s: found[s] for s in ("textcl", "matrix")}, "s", "near 1"),
        *rows,
        Row(f"{name}: memory", memory, taken, "MiB", 1, SMALLER, "above the inputs; the peer is the whole matrix"),
        *agreement(name, tiled, whole, batch),
    ]


def two_way(batch: int, rounds: int) -> list[Row]:
    """NT-Xent of both views, versus that of pytorch-metric-learning, which uses lists of pairs."""
    name, notes = f"NT-Xent, N = {batch:,}", "pytorch-metric-learning, SelfSupervisedLoss(NTXentLoss)"
    found = take_turns({"textcl": timed(two_way_textcl, batch), "peer": timed(two_way_by_pairs, batch)}, rounds)
    memory = [in_child(memory_above_inputs, loss, batch) / MEBIBYTE for loss in (two_way_textcl, two_way_by_pairs)]
    return [
        Row.of(name, found, "s", SMALLER, notes),
        Row(f"{name}: memory", *memory, "MiB", 1, SMALLER, "above the inputs"),
        *agreement(name, two_way_textcl, two_way_by_pairs, batch),
    ]


def one_way_tiled(queries: Tensor, keys: Tensor, chunk: int) -> Tensor:
    return info_nce(queries, keys, temperature=TEMPERATURE, chunk_size=chunk) / len(queries)


def one_way_matrix(queries: Tensor, keys: Tensor) -> Tensor:
    """The equation in its usual form, with the whole matrix."""
    scores = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / TEMPERATURE
    return F.cross_entropy(scores, torch.arange(len(queries), device=queries.device))


def two_way_textcl(first: Tensor, second: Tensor) -> Tensor:
    return nt_xent(first, second, first, second, temperature=TEMPERATURE) / (2 * len(first))


def two_way_by_pairs(first: Tensor, second: Tensor) -> Tensor:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))(first, second)


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """Queries, and keys that are far enough from them for a loss clearly above zero."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    queries = torch.randn(batch, DIMENSION, generator=generator, device=device)
    keys = queries + 4 * torch.randn(batch, DIMENSION, generator=generator, device=device)
    return queries.requires_grad_(), keys.requires_grad_()


def timed(loss: Loss, batch: int) -> Callable[[], float]:
    """A function that returns the seconds of forward and backward."""
    pair = inputs(batch)
    return lambda: seconds(lambda: torch.autograd.grad(loss(*pair), pair))


def memory_above_inputs(loss: Loss, batch: int) -> int:
    """Peak bytes above the inputs. The loss runs once before, so that imports are not counted."""
    small, pair = inputs(4), inputs(batch)
    torch.autograd.grad(loss(*small), small)
    return peak_above(lambda: torch.autograd.grad(loss(*pair), pair))


def products(batch: int, chunk: int) -> float:
    """Seconds of only the four matrix products of each tile."""
    rows, columns = (each.detach() for each in inputs(batch))
    of_rows, of_columns = torch.zeros_like(rows), torch.zeros_like(columns)

    def multiply() -> None:
        for start in range(0, batch, chunk):
            row = slice(start, start + chunk)
            for begin in range(0, batch, chunk):
                column = slice(begin, begin + chunk)
                rows[row] @ columns[column].T
                scores = rows[row] @ columns[column].T
                of_rows[row].addmm_(scores, columns[column])
                of_columns[column].addmm_(scores.T, rows[row])

    return seconds(multiply)


def agreement(name: str, textcl: Loss, peer: Loss, batch: int) -> list[Row]:
    """Rows of the loss and of the norm of its gradient, of both sides."""
    losses, lengths = [], []
    for loss in (textcl, peer):
        pair = inputs(batch)
        value = loss(*pair)
        losses.append(value.item())
        lengths.append(torch.cat(torch.autograd.grad(value, pair)).norm().item())
    return [Row(f"{name}: loss", *losses, "loss", 1, EQUAL), Row(f"{name}: gradient", *lengths, "length", 1, EQUAL)]
