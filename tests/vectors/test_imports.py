"""`textcl encode` and `textcl search` import no package that they do not need: each would cost a part of a second."""

import subprocess
import sys
from pathlib import Path

from support.command import environment
from support.tiny import TEXTS, tiny_encoder_directory

NEEDLESS = ("datasets", "sklearn", "sentence_transformers", "nltk", "matplotlib", "transformers.trainer")
FOR_VECTORS = ("torch", "transformers", "faiss", "scipy", "tokenizers", "safetensors")
SCRIPT = f"""
import gc
import sys
from textcl.cli.main import main
code = main(sys.argv[1:])
assert gc.isenabled(), "the collector is off only while packages are imported"
print("imported:", *[name for name in {(*NEEDLESS, *FOR_VECTORS, "pandas")} if name in sys.modules])
sys.exit(code)
"""


def imported(folder: Path, *command: str) -> set[str]:
    """The packages, of those that a command may not need, that it imports in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split()[1:])


def imported_by_transformers() -> set[str]:
    """The packages that transformers imports by itself with any model: two in version 5.5, none in later ones."""
    script = "import sys, transformers.generation.utils; sys.exit('sklearn' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], env=environment())
    return {"sklearn", "pandas"} if ended.returncode else set()


def test_encode_and_search_import_no_package_that_they_do_not_need(tmp_path: Path) -> None:
    tiny_encoder_directory(tmp_path / "tiny")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:20]))
    needed = {*FOR_VECTORS} | imported_by_transformers()
    encode = imported(tmp_path, "encode", "tiny", "a.txt", "--output", "vectors/")
    assert {*FOR_VECTORS, "pandas"} - {"faiss", "scipy"} <= encode <= needed | {"pandas"}, "pyarrow writes by it"
    search = imported(tmp_path, "search", "vectors/", TEXTS[3])
    assert {*FOR_VECTORS} <= search <= needed
    by_words = imported(tmp_path, "search", "vectors/", TEXTS[3], "--retrieval", "bm25")
    assert by_words <= {"scipy"}, "bm25s imports it"
