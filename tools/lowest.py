"""Prints the lowest declared versions of the libraries that textcl is built on, as pip takes them: `torch==2.6 …`.

`make test-lowest` installs these and runs the fast tests.
"""

import re
import tomllib
from pathlib import Path

LIBRARIES = ("torch", "transformers", "sentence-transformers", "datasets")


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = dict(re.match(r"([\w-]+)(?:>=([\d.]+))?", each).groups() for each in project["dependencies"])
    print(*(f"{name}=={lowest[name]}" for name in LIBRARIES))


if __name__ == "__main__":
    main()
