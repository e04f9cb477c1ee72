"""What the site needs beside MkDocs: equations and drawings inside the pages, without a script or a network.

Equations are MathML, which every browser shows. An equation is a fence of the language `math`, as GitHub reads it too.
Docstrings have reStructuredText's `.. math::` and `:math:`. The drawings of tools/draw_methods.py and
tools/draw_families.py are put into the page itself, so that they take the colours of its theme.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

BLOCK = re.compile(r"^( *)\.\. math::(.*\n(?:\1 +.*\n|\n)*)", flags=re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
DRAWING = re.compile(r'<p><img [^>]*src="drawings/([\w-]+\.svg)"[^>]*></p>')


def on_config(config: Any) -> Any:
    """Gives the fences of superfences the language `math`."""
    fences = [{"name": "math", "class": "math", "format": equation}]
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": fences}
    return config


def equation(source: str, *_: Any, **__: Any) -> str:
    """LaTeX as MathML, on a line of its own that scrolls where it is too wide."""
    return f'<div class="equation">{convert(" ".join(source.split()), display="block")}</div>'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lists the methods in their page of the API, in the order of `textcl/methods/__init__.py`."""
    place = "<!-- an entry for each method -->"
    return markdown.replace(place, "\n".join(f"::: {name}" for name in methods())) if place in markdown else markdown


def methods() -> list[str]:
    """The full names of the classes of all methods, read from the file, because importing it would load torch."""
    text = (Path(__file__).parents[1] / "textcl" / "methods" / "__init__.py").read_text(encoding="utf-8")
    modules = {name: module for module, name in re.findall(r"^from (textcl\.methods\.\w+) import (\w+)$", text, re.M)}
    classes = text.split("_CLASSES", 1)[1].split("= (", 1)[1].split(")", 1)[0]
    return [f"{modules[name]}.{name}" for name in re.findall(r"\w+", classes)]


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Puts the SVG of a drawing in the place of its image; search leaves it out."""
    source = page.file.src_uri
    folder = (Path(__file__).parent / source).parent / "drawings"

    def inside(found: re.Match[str]) -> str:
        return f'<div class="drawing" data-search-exclude>{(folder / found[1]).read_text(encoding="utf-8")}</div>'

    html, count = DRAWING.subn(inside, html)
    if count != (source == "families.md" or source.startswith("methods/")):
        raise PluginError(f"{source} shows {count} drawings; each page of a method, and families.md, must show one.")
    return html


class Docstrings(griffe.Extension):
    """Writes our docstrings as griffe reads them: equations as fences, and one example as a section of examples."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring and not obj.is_alias:
            text = BLOCK.sub(_fenced, obj.docstring.value + "\n").rstrip()
            text = INLINE.sub(lambda found: convert(found[1]), text)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _fenced(found: re.Match[str]) -> str:
    return textwrap.indent(f"```math\n{' '.join(found[2].split())}\n```\n\n", found[1])
