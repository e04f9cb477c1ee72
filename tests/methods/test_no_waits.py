"""A training step asks its device for nothing, so that a GPU is never waited for. On torch's meta device, which holds
no values, whatever would read one raises."""

import pytest
import torch
from support.tiny import TEXTS
from torch.utils._python_dispatch import TorchDispatchMode

from textcl.encoder import Encoder
from textcl.encoder.batching import on_device
from textcl.methods import METHODS

OPTIONS = {
    "sccl": {"clusters": 4},
    "declutr": {"shortest_span": 3, "longest_span": 6},
    "clear": {"first_view": "word_deletion", "second_view": "span_deletion+reordering"},
    "consert": {"first_view": "shuffle", "second_view": "feature_cutoff"},
    "simcse-plus": {"queue_size": 32, "off_dropout_negatives": True, "decorrelation_weight": 0.1},
}
LABELLED = {
    "simcse": {"mlm_weight": 0.1},
    "consert": {"objective": "joint", "first_view": "token_cutoff", "second_view": "adversarial"},
    "simcse-plus": {"denoise_templates": True, "template": "{text} is meant."},
}


class NoBlockingCopies(TorchDispatchMode):
    """Raises where something is copied to the meta device in the way that waits."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        options = kwargs or {}
        if operation is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            there = options.get("device")
            if there is not None and there.type == "meta" and not options.get("non_blocking"):
                raise AssertionError(f"{tuple(args[0].shape)} {args[0].dtype} is copied while the device is waited for")
        return operation(*args, **options)


@pytest.fixture(autouse=True)
def autocast(monkeypatch):
    """torch knows no autocast for this device; that of the processor does nothing here either."""
    for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda device, *args, real=real, **options: real("cpu", *args, **options))


def step(name: str, rows: list[dict], gradient_cache: bool = False, chunk_size: int | None = None, **options) -> None:
    method = METHODS[name](Encoder.from_pretrained("bundled", max_length=32, dropout=0.1), **options).train()
    method.hooked = True
    if chunk_size:
        method.info_nce.chunk_size = chunk_size
    if gradient_cache:
        method.gradient_cache_enable()
    for queue in (module for module in method.modules() if hasattr(module, "push")):
        queue.push(torch.ones(4, queue.rows.shape[1]))
    made = method.collator(seed=1)(rows)
    method = method.to("meta")
    batch = on_device(made, torch.device("meta"))
    for encoder in (module for module in method.modules() if isinstance(module, Encoder)):
        encoder.slicing.token_budget = 8 * 32  # several slices
        encoder.slicing.packs = True  # else the backbone would be probed, on the CPU
    with NoBlockingCopies():
        outputs = method(**batch)
        outputs["loss"].backward()
    method.before_optimizer_step(0)
    method.after_optimizer_step(1, 2, [outputs["keys"]] if "keys" in outputs else [])


def texts(count: int = 16) -> list[dict]:
    return [{"text": " ".join(TEXTS[row : row + 1 + row % 4])} for row in range(count)]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_each_method_reads_nothing(name):
    rows = [{"text": " ".join(TEXTS[row : row + 12])} for row in range(8)] if name == "declutr" else texts()
    step(name, rows, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", LABELLED)
def test_other_options_and_labelled_rows_read_nothing(name):
    rows = texts()
    if name != "simcse-plus":
        rows = [{**row, "positive": row["text"]} for row in rows]
    if name == "consert":
        rows = [{**row, "label": number % 3} for number, row in enumerate(rows)]
    step(name, rows, chunk_size=3 if name == "simcse" else None, **LABELLED[name])


@pytest.mark.parametrize("gradient_cache", [False, True])
def test_rows_that_lie_end_to_end_read_nothing(monkeypatch, gradient_cache):
    monkeypatch.setattr("textcl.encoder.forward.PACK_FROM", {"meta": 1})
    step("simcse", texts(), gradient_cache)


def test_what_waits_is_found():
    """The negative control: lengths that only the device knows."""
    encoder = Encoder.from_pretrained("bundled").to("meta")
    tokens = on_device(encoder.tokenize(TEXTS[:4]), torch.device("meta"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        encoder.embed(tokens)
    with NoBlockingCopies(), pytest.raises(AssertionError, match="waited for"):
        torch.ones(3).to("meta")
