"""What the site needs beside MkDocs: equations as MathML, which every browser shows without a script or a network.

An equation is a fence of the language `math`, as GitHub reads it too. Docstrings have reStructuredText's `.. math::`
and `:math:`.
"""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

BLOCK = re.compile(r"^( *)\.\. math::(.*\n(?:\1 +.*\n|\n)*)", flags=re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")


def on_config(config: Any) -> Any:
    """Gives the fences of superfences the language `math`."""
    fences = [{"name": "math", "class": "math", "format": equation}]
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": fences}
    return config


def equation(source: str, *_: Any, **__: Any) -> str:
    """LaTeX as MathML, on a line of its own that scrolls where it is too wide."""
    return f'<div class="equation">{convert(" ".join(source.split()), display="block")}</div>'


class Docstrings(griffe.Extension):
    """Writes our docstrings as griffe reads them: equations as fences, and one example as a section of examples."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring and not obj.is_alias:
            text = BLOCK.sub(_fenced, obj.docstring.value + "\n").rstrip()
            text = INLINE.sub(lambda found: convert(found[1]), text)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _fenced(found: re.Match[str]) -> str:
    return textwrap.indent(f"```math\n{' '.join(found[2].split())}\n```\n\n", found[1])
