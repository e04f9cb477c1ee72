"""Counts the files and functions that run in one optimizer step of `textcl train simcse --head train_only`.

    python tools/trace_step.py          files of textcl, named functions, and how often the corpus is read and hashed

`sys.setprofile` records calls from `on_step_begin` (after the batch is made) until the hooks after the optimizer step.
Comprehensions, lambdas and generator expressions have no name and are not counted.
"""

import hashlib
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import transformers

import textcl

PACKAGE = Path(textcl.__file__).parent
STEP = 3  # the step that is recorded; work that is done only once is finished by then


class Watch(transformers.TrainerCallback):
    """Turns the profiler on for one step."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def profile(self, frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)) and not code.co_name.startswith("<"):
            where = Path(code.co_filename).relative_to(PACKAGE)
            self.seen[f"{where}:{code.co_qualname}"] = str(where)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP - 1:
            sys.setprofile(self.profile)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        sys.setprofile(None)  # textcl's own callback runs before this one, so its hooks are recorded


def main() -> None:
    from textcl.cli.main import main as command

    opened: Counter[str] = Counter()
    hashed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        texts = (PACKAGE / "assets" / "wordnet" / "glosses.txt").read_text(encoding="utf-8").splitlines()[:512]
        corpus.write_text("\n".join(texts) + "\n", encoding="utf-8")
        content = corpus.read_bytes()
        real_open, real_digest, real_sha256 = Path.open, hashlib.file_digest, hashlib.sha256

        def opening(self: Path, *args: Any, **kwargs: Any) -> Any:
            opened[self.name] += 1
            return real_open(self, *args, **kwargs)

        def digesting(handle: Any, *args: Any, **kwargs: Any) -> Any:
            hashed[Path(handle.name).name] += 1
            return real_digest(handle, *args, **kwargs)

        def hashing(data: bytes = b"", **kwargs: Any) -> Any:
            hashed[corpus.name] += data == content
            return real_sha256(data, **kwargs)

        Path.open = opening  # type: ignore[method-assign, assignment]
        hashlib.file_digest = digesting  # type: ignore[assignment]
        hashlib.sha256 = hashing  # type: ignore[assignment]
        watch = Watch()
        real_init = transformers.Trainer.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            real_init(self, *args, **kwargs)
            self.add_callback(watch)

        transformers.Trainer.__init__ = init  # type: ignore[method-assign]
        flags = f"--head train_only --data {corpus} --dev none --max_steps 5 --bf16 false --output {folder}/run"
        command(["train", "simcse", *flags.split()])
        sys.setprofile(None)
        print(
            json.dumps(
                {
                    "files": len(set(watch.seen.values())),
                    "functions": len(watch.seen),
                    "corpus opened": opened[corpus.name],
                    "corpus hashed": hashed[corpus.name],
                    "seen": sorted(watch.seen),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
