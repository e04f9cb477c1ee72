"""The share of the machine's peak speed that a step reaches; the peak is the speed of a large matrix product."""

from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.measure import FASTER, Row, seconds
from textcl.device import has_bf16, product_by_onednn


def precisions() -> dict[str, torch.dtype]:
    """The data types that the machine supports, by their short names."""
    return {"fp32": torch.float32, **({"bf16": torch.bfloat16} if has_bf16() else {})}


def peak_rate(dtype: torch.dtype, size: int, clock: Callable[[Callable[[], object]], float] = seconds) -> float:
    """Floating-point operations per second of a product of two (size, size) matrices, the best of five.

    On a CPU the better of torch's two libraries counts, MKL and oneDNN. `clock` gives the seconds of an action.
    """
    square = torch.ones(size, size, dtype=dtype, device="cuda" if torch.cuda.is_available() else "cpu")
    products = [lambda: square @ square]
    if square.device.type == "cpu" and torch.backends.mkldnn.is_available():
        products.append(lambda: product_by_onednn(square, square))
    return 2 * size**3 / min(clock(product) for product in products for _ in range(5))


def share(name: str, rates: Mapping[str, list[float]], seconds_at_peak: float, notes: str = "") -> Row:
    """A row of shares of the peak, from rates (items per second) and the seconds that one item takes at the peak."""
    shares = {side: [rate * seconds_at_peak for rate in runs] for side, runs in rates.items()}
    return Row.of(f"{name}: share", shares, "of the peak", FASTER, notes)


def operations(model: str, lengths: Sequence[int]) -> int:
    """The floating-point operations of a forward pass over texts with these numbers of tokens.

    They are two for each weight and token, and the matrix products of attention.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    width, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * width**2 + 2 * width * config.intermediate_size)
    return sum(2 * weights * length + 4 * layers * width * length**2 for length in lengths)


def token_lengths(model: str, texts: list[str], length: int) -> list[int]:
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(model)(texts, truncation=True, max_length=length)["input_ids"]
    return list(map(len, rows))
