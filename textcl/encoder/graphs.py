"""Training steps on short texts as CUDA graphs: a GPU repeats a recorded slice after one launch in place of a thousand.

For 64 texts of at most 32 tokens a GPU computes faster than a CPU can launch its operations. A graph repeats the same
operations on the same memory, so each shape (rows, length) has its own graph, and `few_lengths` keeps shapes few.

    forward   tokens of this step → memory of the graph → embeddings, copied out
    backward  gradient of the embeddings → memory of the graph → gradients of the parameters, copied out

All copies out are new tensors: autograd may keep a gradient as `.grad`, and the next micro-batch would overwrite it.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from textcl.errors import InputError

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

MOST = 12  # graphs of an encoder; further shapes are computed without one
WARM_UP = 3  # torch asks for so many runs before a recording
ROUNDING = 0.03  # of bfloat16, which a compiled layer keeps less often than a launched one
LAYER_DROP = ("layerdrop", "encoder_layerdrop", "layer_dropout")  # layers that the CPU chooses at random in each step

_LEAVE = "Leave --cuda-graphs out."

Embed = Callable[[Mapping[str, Tensor]], Tensor]


class Graphs:
    """The graphs of one encoder. They share memory, so only one of them is between its forward and its backward.

    On a CPU, where there are no graphs, the same operations are computed again on the same memory: for tests.
    """

    def __init__(self) -> None:
        self.recorded: dict[Any, _Graph] = {}
        self._pool: Any = None
        self._waiting: Callable[[], Any] = lambda: None  # a weak reference: the forward whose backward is to come

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)()  # a graph holds the addresses of the weights of its own encoder

    def embed(self, encoder: "Encoder", tokens: Mapping[str, Tensor], key: Any, embed: Embed) -> Tensor | None:
        """The embeddings (rows, dim) of a slice, with gradient; None if it has to be computed without a graph.

        Args:
            encoder: The encoder.
            tokens: The tensors of the slice; their shapes and names are part of what is recorded.
            key: Everything else that `embed` depends on.
            embed: Computes the embeddings of a slice, without waiting for the GPU. Called only to record.

        Raises:
            InputError: If the operations of this encoder cannot be recorded, or give other embeddings when repeated.
        """
        if self._waiting() is not None:
            return None
        device, shapes = encoder.device.type, tuple((name, each.shape) for name, each in tokens.items())
        precision = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        weights = tuple((each.data_ptr(), each.requires_grad) for each in encoder.parameters())
        found = (shapes, key, encoder.training, precision, weights)
        if found not in self.recorded:
            if len(self.recorded) == MOST:
                return None
            self.recorded[found] = self._record(encoder, tokens, embed)
        graph = self.recorded[found]
        forward = _Forward()
        self._waiting = weakref.ref(forward)
        return cast(Tensor, _Replayed.apply(graph, tokens, forward, *graph.parameters))

    def _record(self, encoder: "Encoder", tokens: Mapping[str, Tensor], embed: Embed) -> "_Graph":
        random = next((name for name in LAYER_DROP if getattr(encoder.backbone.config, name, 0)), None)
        if random is not None:
            raise InputError(
                f"{encoder.name} drops layers at random ({random}); a CUDA graph cannot repeat that. {_LEAVE}"
            )
        on_gpu = encoder.device.type == "cuda"
        if on_gpu and self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # what is drawn while recording must not change what later steps draw: a resumed run records again
        with torch.random.fork_rng([encoder.device] if on_gpu else []):
            try:
                graph = _Graph(encoder, tokens, embed, self._pool)
            except (RuntimeError, NotImplementedError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{encoder.name} cannot be recorded as a CUDA graph ({reason}). {_LEAVE}") from error
            if (difference := _difference(graph, tokens, embed)) > ROUNDING:
                raise InputError(
                    f"A CUDA graph of {encoder.name} gives other embeddings than its operations ({difference:.2g} of "
                    f"their length). {_LEAVE}"
                )
        return graph


def _difference(graph: "_Graph", tokens: Mapping[str, Tensor], embed: Embed) -> float:
    """How far the embeddings of a graph are from those without it, for the same random numbers, relative to these."""
    devices = [graph.vectors.device] if graph.vectors.is_cuda else []
    with torch.random.fork_rng(devices):
        expected = embed(tokens).detach()
    with torch.random.fork_rng(devices):
        found = graph.embeddings(tokens)
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


class _Forward:
    """Exists as long as the backward pass of a forward pass may still come."""


class _Graph:
    """A recorded slice: forward and backward, with the memory that both read and write.

    Attributes:
        parameters: The parameters that have a gradient.
        vectors: Where forward writes the embeddings, (rows, dim).
        gradient: Where backward reads the gradient of the embeddings, (rows, dim).
        gradients: Where backward writes the gradients of all parameters, one after the other, (numbers,).
    """

    def __init__(self, encoder: "Encoder", tokens: Mapping[str, Tensor], embed: Embed, pool: Any) -> None:
        device = encoder.device.type
        precision, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        self._tokens = {name: each.clone() for name, each in tokens.items()}
        self.parameters = [each for each in encoder.parameters() if each.requires_grad]
        self._output: Tensor | None = None

        def forward() -> Tensor:
            # no cache: a weight that was cast before the recording would be an old one in later steps
            with torch.enable_grad(), torch.autocast(device, precision, enabled, cache_enabled=False):
                self._output = embed(self._tokens)
            return self._output.detach()

        def backward() -> tuple[Tensor | None, ...]:
            output, self._output = self._output, None
            with torch.autocast(device, enabled=False):
                return torch.autograd.grad(output, self.parameters, self.gradient, allow_unused=True)  # type: ignore[arg-type]

        with _side_stream(device):
            for _ in range(WARM_UP):
                self.vectors = forward().clone()
                self.gradient = torch.zeros_like(self.vectors)
                used = [gradient is not None for gradient in backward()]
        self.parameters = [each for each, is_used in zip(self.parameters, used, strict=True) if is_used]
        self.gradients = torch.cat([each.detach().flatten() for each in self.parameters])
        self._forward = _recorded(lambda: self.vectors.copy_(forward()), device, pool)
        self._backward = _recorded(
            lambda: torch.cat([cast(Tensor, each).flatten() for each in backward()], out=self.gradients), device, pool
        )

    def embeddings(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """The embeddings (rows, dim) of these tokens, in memory of their own."""
        for name, tensor in tokens.items():
            self._tokens[name].copy_(tensor)
        self._forward()
        return self.vectors.clone()

    def gradients_of(self, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of the parameters, in memory of their own, for the gradient of the embeddings (rows, dim)."""
        self.gradient.copy_(gradient)
        self._backward()
        parts = self.gradients.clone().split([each.numel() for each in self.parameters])
        return tuple(part.view_as(each) for part, each in zip(parts, self.parameters, strict=True))


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, graph: _Graph, tokens: Mapping[str, Tensor], forward: _Forward, *parameters: nn.Parameter
    ) -> Tensor:
        ctx.graph, ctx.waiting = graph, forward
        return graph.embeddings(tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.waiting is None:
            raise RuntimeError("A CUDA graph has one backward pass for each forward pass; leave --cuda-graphs out.")
        ctx.waiting = None
        return (None, None, None, *ctx.graph.gradients_of(gradient))


def _recorded(run: Callable[[], Any], device: str, pool: Any) -> Callable[[], Any]:
    """What repeats the operations of `run` on the same memory."""
    if device != "cuda":
        return run
    graph = torch.cuda.CUDAGraph()
    # thread_local: meanwhile the thread of a DataLoader may allocate memory that the GPU reads
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        run()
    return graph.replay


@contextmanager
def _side_stream(device: str) -> Iterator[None]:
    """On a GPU, another stream than the current one: torch can only record there, and asks to warm up there."""
    if device != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
