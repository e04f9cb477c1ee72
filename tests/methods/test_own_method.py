"""The method that the how-to writes: forty lines, and two processes give the gradient of one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.command import REPOSITORY
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder


def own_method(directory: Path) -> Any:
    page = (REPOSITORY / "docs" / "how-to" / "write-your-own-method.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 40
    names: dict[str, Any] = {}
    exec(code.split("\n\n\nmethod = ")[0], names)
    encoder = Encoder.from_pretrained(directory, device="cpu", dropout=0.0)
    method = names["AlignUniform"](encoder, "word_deletion:0.2", "repetition").double().train()
    method.hooked = True
    return method


def loss_and_gradients(rank: int | None, directory: Path, batches: list[Any]) -> tuple[float, dict[str, Any]]:
    method = own_method(directory)
    model = method if rank is None else torch.nn.parallel.DistributedDataParallel(method)
    loss = model(**batches[rank or 0])["loss"]
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_the_method_of_the_how_to_is_exact_on_two_processes(tmp_path, two_processes):
    directory = tiny_encoder_directory(tmp_path / "bert")
    collator = own_method(directory).collator()
    rows = [{"text": text} for text in TEXTS[:12]]
    value, gradients = loss_and_gradients(None, directory, [collator(rows)])
    for both, of_both in two_processes(loss_and_gradients, directory, [collator(rows[:4]), collator(rows[4:])]):
        assert both == pytest.approx(value, rel=1e-10)
        assert all(torch.allclose(of_both[name], gradient, atol=1e-10) for name, gradient in gradients.items())
