"""`textcl encode` and `textcl search` import no package that they do not need: each would cost a part of a second."""

import subprocess
import sys
from pathlib import Path

from support.command import environment
from support.tiny import TEXTS, tiny_encoder_directory

NEEDLESS = ("datasets", "sklearn", "sentence_transformers", "nltk", "matplotlib", "transformers.trainer")
SCRIPT = f"""
import sys
from textcl.cli.main import main
code = main(sys.argv[1:])
print("needless:", *[name for name in {(*NEEDLESS, "pandas")} if name in sys.modules])
sys.exit(code)
"""


def test_encode_and_search_import_no_package_that_they_do_not_need(tmp_path: Path) -> None:
    tiny_encoder_directory(tmp_path / "tiny")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:20]))
    for command in (
        ["encode", "tiny", "a.txt", "--output", "vectors/"],
        ["search", "vectors/", TEXTS[3], "--top", "1"],
    ):
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, *command], cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        needless = ended.stdout.splitlines()[-1].split()
        assert needless == (
            ["needless:", "pandas"] if command[0] == "encode" else ["needless:"]
        )  # pyarrow writes by it
