"""Golden files: they show whether a change of the code changes results for users.

    python tools/golden.py --write          write tests/golden.json, the exact part, which a test compares
    python tools/golden.py --base REV       compute the numeric part at REV and here, and print the differences

The exact part is the same on every machine: each resolved recipe, the flags of each command, the state-dict keys and
shapes of each method, and the exit code of one bad input per command. The numeric part is compared on one machine and
never committed: losses of ten steps of each method (float32, one thread), vectors of 50 texts with each pooling,
SHA-256 of the files of one export without README.md, and that README.md (the model card) as text.
"""

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
EXACT = REPOSITORY / "tests" / "golden.json"
COMMANDS = (
    *(
        "train",
        "methods",
        "recipes",
        "compare",
        "adapt",
        "judge",
        "eval",
        "encode",
        "distill",
        "search",
        "explore",
        "cluster",
        "map",
        "duplicates",
        "results",
        "report",
        "data",
    ),
    *("demo", "env"),
)
BAD_INPUT = {
    "train": ["simcs"],
    "methods": ["--no-such-flag"],
    "recipes": ["no-such-argument"],
    "compare": ["no-such-recipe"],
    "adapt": ["bundled", "--data", "no-such-file.txt", "--output", "adapted"],
    "judge": ["--finish", "no-such-file.tsv"],
    "eval": ["bundled", "--tasks", "no-such-task"],
    "encode": ["bundled", "no-such-file.txt", "--output", "vectors.npy"],
    "distill": ["bundled", "--data", "no-such-file.txt", "--static", "16", "--output", "student"],
    "search": ["no-such-folder", "a query"],
    "explore": ["no-such-file.txt", "--output", "explored"],
    "cluster": ["bundled", "no-such-file.txt", "--output", "clusters.csv"],
    "map": ["no-such-folder", "--output", "map.html"],
    "duplicates": ["no-such-file.txt"],
    "results": ["no-such-folder"],
    "report": ["no-such-folder"],
    "data": ["verify", "no-such-set"],
    "demo": ["--no-such-flag"],
    "env": ["--no-such-flag"],
}
# Methods with options that are not the defaults: smaller, or with a further term.
SMALL = {
    "sccl": {"clusters": 4},
    "declutr": {"shortest_span": 3, "longest_span": 6},
    "swav": {"prototypes": 8, "frozen_steps": 2, "queue_size": 32, "short_views": 1},
    "barlow-twins": {"projection_dimension": 64},
    "vicreg": {"projection_dimension": 64},
    "byol": {"hidden_dimension": 64},
    "moco": {"queue_size": 64},
    "moco-v3": {"hidden_dimension": 64},
    "simsiam": {"projection_dimension": 64, "bottleneck_dimension": 16},
}
TEMPLATES = {"template": 'The sentence "{text}" means [MASK].', "second_template": "{text} is [MASK]."}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "simcse, masked words": ("simcse", {"mlm_weight": 0.1}),
    "simcse, views": ("simcse", {"first_view": "shuffle+token_cutoff", "second_view": "feature_cutoff"}),
    "simcse, equal masks": ("simcse", {"equal_dropout_masks": True}),
    "bert-ct, anchored": ("bert-ct", {"negatives": "anchored", "dropout_in_training": True}),
    "bert-ct, consecutive": ("bert-ct", {"negatives": "consecutive"}),
    "clear, spans": ("clear", {"first_view": "span_deletion+reordering", "second_view": "word_deletion"}),
    "simcse-plus, queue and noise": ("simcse-plus", {"queue_size": 32, "noise_negatives": 16}),
    "simcse-plus, off-dropout": ("simcse-plus", {"off_dropout_negatives": True, "dimension_weight": 0.1}),
    "simcse-plus, decorrelation": ("simcse-plus", {"decorrelation_weight": 0.1, "second_view": "repetition"}),
    "simcse-plus, teacher": (
        "simcse-plus",
        {"ranking_weight": 0.1, "teacher": "bundled", "consistency_weight": 0.2, "queue_size": 16},
    ),
    "simcse-plus, templates": ("simcse-plus", {**TEMPLATES, "denoise_templates": True}),
}


# the exact part


def exact() -> dict[str, Any]:
    """The exact part, which is the content of `tests/golden.json`."""
    import transformers

    return {
        "transformers": transformers.__version__,
        "recipes": recipes(),
        "flags": flags(),
        "state": state(),
        "exit_codes": exit_codes(),
    }


def recipes() -> dict[str, Any]:
    """Every recipe, with a value for each flag; the values that all recipes share are under `all`."""
    recipe = importlib.import_module("textcl.runs.recipe")
    names = sorted(path.stem for path in recipe.RECIPES.glob("*.yaml"))
    resolved = {name: recipe.resolve(recipe.load_recipe(name))[0].to_dict() for name in names}
    first = resolved[names[0]]
    shared = {key: value for key, value in first.items() if all(r.get(key, ...) == value for r in resolved.values())}
    return {"all": shared} | {
        name: {key: value for key, value in entry.items() if key not in shared} for name, entry in resolved.items()
    }


def flags() -> dict[str, Any]:
    """Every flag of every command: spellings, default, number of values, choices. `train` has an entry per method."""
    from textcl import METHODS

    found = {name: _flags_of(name, []) for name in COMMANDS if name != "train"}
    trained = {name: _flags_of("train", [name]) for name in METHODS}
    shared = {
        flag: entry
        for flag, entry in trained["simcse"].items()
        if all(entry == other.get(flag) for other in trained.values())
    }
    found["train"] = shared
    for name, entries in trained.items():
        found[f"train {name}"] = {flag: entry for flag, entry in entries.items() if flag not in shared}
    return found


class _Stop(Exception):
    """Stops a command as soon as its parser is known."""


def _flags_of(command: str, arguments: list[str]) -> dict[str, Any]:
    parsers = []

    def stop(self: argparse.ArgumentParser, *unused: Any, **named: Any) -> None:
        parsers.append(self)
        raise _Stop

    originals = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = stop  # type: ignore[assignment]
    try:
        with contextlib.suppress(_Stop):
            importlib.import_module(f"textcl.cli.{command}").main(arguments)
    finally:
        argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args = originals  # type: ignore[method-assign]
    return _described(parsers[0])


def _described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            described |= {name: _described(sub) for name, sub in action.choices.items()}
        elif action.dest != "help":
            described[action.dest] = {
                "flags": sorted(action.option_strings),
                "default": json.loads(json.dumps(action.default, default=str)),
                "nargs": action.nargs,
                "choices": None if action.choices is None else [str(choice) for choice in action.choices],
                "required": action.required,
            }
    return described


def state() -> dict[str, Any]:
    """State-dict keys and shapes of every method; a queue's extra state has no shape."""
    from textcl import METHODS, Encoder

    known = {name: (name, SMALL.get(name, {})) for name in METHODS} | VARIANTS
    own = set(Encoder.from_pretrained("bundled").state_dict())
    found: dict[str, Any] = {}
    for name, (method, options) in known.items():
        kept = METHODS[method](Encoder.from_pretrained("bundled"), **options).state_dict()
        # keys of backbones (of the encoder, a second tower or a target) are only counted; all other keys are listed
        backbones = [key for key in kept if any(key.endswith(suffix) for suffix in own)]
        found[name] = {
            "in backbones": len(backbones),
            "all keys": hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:16],
            **{key: list(getattr(value, "shape", [])) for key, value in kept.items() if key not in backbones},
        }
    return found


def exit_codes() -> dict[str, int]:
    """The exit code of each command for one bad input."""
    from textcl.cli.main import main

    codes = {}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for command, arguments in BAD_INPUT.items():
            codes[command] = main([command, *arguments])
    return codes


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yields a line for each value that differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key, "(absent)"), after.get(key, "(absent)"), f"{place}/{key}")
    elif before != after:
        shown = (json.dumps(value, ensure_ascii=False)[:200] for value in (before, after))
        yield f"{place}: {' -> '.join(shown)}"


# the numeric part


def numbers() -> dict[str, Any]:
    """The numeric part of the imported textcl, computed on this machine."""
    import torch

    torch.set_num_threads(1)
    return {"losses": losses(), "vectors": vectors(), "export": export()}


def texts(count: int) -> list[str]:
    path = next((REPOSITORY / "textcl" / "assets" / "wordnet").glob("glosses.txt"))
    return path.read_text(encoding="utf-8").splitlines()[:count]


def losses() -> dict[str, list[str]]:
    """The losses of ten steps of every method and variant, with all bits; for some also with the gradient cache."""
    from textcl import METHODS

    cases = {name: (name, SMALL.get(name, {})) for name in METHODS} | VARIANTS
    found = {name: _ten_losses(*case) for name, case in cases.items()}
    for name in ("simcse", "clear", "moco", "simcse, masked words"):
        found[f"{name}, gradient cache"] = _ten_losses(*cases[name], gradient_cache=True)
    labelled = {"objective": "joint", "first_view": "token_cutoff", "second_view": "adversarial"}
    found["consert, joint"] = _ten_losses("consert", labelled, columns=("text", "positive", "label"))
    found["simcse, triplets"] = _ten_losses("simcse", {}, columns=("text", "positive", "negative"))
    found["sccl, explicit"] = _ten_losses("sccl", {"clusters": 4}, augmented="deletion")
    return found


def _ten_losses(
    name: str,
    options: dict[str, Any],
    *,
    gradient_cache: bool = False,
    columns: tuple[str, ...] = ("text",),
    augmented: str | None = None,
) -> list[str]:
    import transformers
    from datasets import Dataset

    import textcl

    lines = texts(320)
    if name == "declutr":
        lines = [" ".join(lines[start : start + 8]) for start in range(0, 320, 2)]
    rows = {"text": lines, "positive": lines[1:] + lines[:1], "negative": lines[2:] + lines[:2]}
    rows["label"] = [number % 3 for number in range(len(lines))]  # type: ignore[assignment]
    dataset = Dataset.from_dict({column: rows[column] for column in columns})
    with tempfile.TemporaryDirectory() as folder:
        if augmented:
            dataset = textcl.augment(dataset, augmented, cache_dir=folder)
        transformers.set_seed(42)
        pooling = "mask_token" if "template" in options else "cls" if name == "simcse" else None
        encoder = textcl.Encoder.from_pretrained("bundled", pooling=pooling, max_length=24, device="cpu")
        arguments = textcl.ContrastiveTrainingArguments(
            f"{folder}/run",
            max_steps=10,
            per_device_train_batch_size=16,
            learning_rate=1e-4,
            logging_steps=1,
            bf16=False,
            save_strategy="no",
            report_to="none",
            gradient_cache=gradient_cache,
            disable_tqdm=True,
        )
        trainer = textcl.ContrastiveTrainer(textcl.METHODS[name](encoder, **options), arguments, dataset)
        trainer.remove_callback(transformers.PrinterCallback)
        seen: list[str] = []
        step = trainer.training_step

        def watched(*given: Any, **named: Any) -> Any:
            loss = step(*given, **named)
            seen.append(float(loss).hex())
            return loss

        trainer.training_step = watched  # type: ignore[method-assign]
        trainer.train()
    return seen


def vectors() -> dict[str, str]:
    """SHA-256 of the vectors of 50 texts with every pooling."""
    from textcl import Encoder

    names = ("cls", "pooler", "mean", "max", "last_token", "first_last", "last2", "mask_token")
    found = {}
    for name in names:
        import torch

        torch.manual_seed(0)
        encoder = Encoder.from_pretrained("bundled", pooling=name, device="cpu")
        prompt = "{text} is [MASK]." if name == "mask_token" else None
        found[name] = hashlib.sha256(encoder.encode(texts(50), prompt=prompt).tobytes()).hexdigest()
    return found


def export() -> dict[str, Any]:
    """SHA-256 of each file of an export that `textcl train` made, and its model card."""
    from textcl.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        flags = "--data bundled --limit 640 --max_steps 10 --dev none --bf16 false --smooth_inverse_frequency 3e-4"
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(["train", "simcse", *flags.split(), "--pooling", "mean", "--output", run])
        assert code == 0
        place = Path(run) / "export"
        files = {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file() and path.name != "README.md"
        }
        card = (place / "README.md").read_text(encoding="utf-8").splitlines()
        return {"files": files, "card": card}


def _numbers_of(folder: Path) -> dict[str, Any]:
    """The result of `numbers` for the textcl in a folder, computed in a new process."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "numbers.json"
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"XDG_CACHE_HOME": temporary, "TEXTCL_DATA": "/nonexistent", "HF_DATASETS_CACHE": temporary}
        command = [sys.executable, str(Path(__file__).resolve()), "--numbers", str(output)]
        subprocess.run(command, cwd=temporary, env=environment, check=True)
        return json.loads(output.read_text(encoding="utf-8"))


def compare_with(revision: str) -> list[str]:
    """The numeric differences between a revision and the working tree, computed on this machine."""
    commit = subprocess.run(
        ["git", "rev-parse", revision], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.strip()
    kept = Path(tempfile.gettempdir()) / f"textcl-golden-{commit}.json"  # the numbers of a commit are computed once
    if not kept.is_file():
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
            kept.write_text(json.dumps(_numbers_of(Path(folder))), encoding="utf-8")
    before = json.loads(kept.read_text(encoding="utf-8"))
    return list(differences(before, _numbers_of(REPOSITORY)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the exact part")
    parser.add_argument("--base", metavar="REV", help="compare the numeric part with this revision")
    parser.add_argument("--numbers", metavar="FILE", help="write the numeric part of the imported textcl")
    given = parser.parse_args()
    if given.numbers:
        Path(given.numbers).write_text(json.dumps(numbers()), encoding="utf-8")
        return 0
    if given.write:
        EXACT.write_text(json.dumps(exact(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    found = compare_with(given.base) if given.base else []
    found += differences(json.loads(EXACT.read_text(encoding="utf-8")), json.loads(json.dumps(exact())), "exact")
    print("\n".join(found) or "Nothing differs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
