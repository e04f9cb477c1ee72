"""A bug in textcl's own code shows its traceback: no broad `except` turns it into the user's error."""

import ast
from pathlib import Path
from typing import Any

import pytest
from support.command import REPOSITORY
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.methods import SimCSE

BROAD = {"Exception", "BaseException"}


def test_no_except_is_broad() -> None:
    for path in sorted((REPOSITORY / "textcl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}"
                caught = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
                reraises = any(isinstance(each, ast.Raise) and each.exc is None for each in ast.walk(node))
                assert reraises or not caught & BROAD, f"{path}:{node.lineno}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_encoder_directory("model")
    Path("texts.txt").write_text("\n".join(TEXTS[:40]))
    return tmp_path


def bug(*args: Any, **options: Any) -> Any:
    return None + 1  # type: ignore[operator]


@pytest.mark.parametrize("where", ["__init__", "objective", "collator", "evaluators", "on_fit_start", "export"])
def test_a_bug_in_a_method_shows_its_traceback(where: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimCSE, where, bug)
    command = ["train", "simcse", "--model", "model", "--data", "texts.txt", "--output", "run", "--dev", "none"]
    with pytest.raises(TypeError, match="unsupported operand"):
        main([*command, "--max-steps", "1", "--per-device-train-batch-size", "8"])


@pytest.mark.parametrize("where", ["encode", "from_pretrained", "fingerprint", "describe"])
def test_a_bug_in_the_encoder_shows_its_traceback(where: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, where, bug)
    commands = {
        "encode": ["encode", "model", "texts.txt", "--output", "v"],
        "from_pretrained": ["cluster", "model", "texts.txt", "--output", "c.csv"],
        "fingerprint": ["encode", "model", "texts.txt", "--output", "v"],
        "describe": ["train", "simcse", "--model", "model", "--data", "texts.txt", "--dev", "none", "--max-steps", "1"],
    }
    with pytest.raises(TypeError, match="unsupported operand"):
        main([*commands[where], *(["--per-device-train-batch-size", "8"] if where == "describe" else [])])
