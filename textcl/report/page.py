"""A report as one self-contained HTML file, which can be opened from disk and needs no network.

Sections contain paragraphs, tables, plots and cards; `page.html` is their template. jinja2 escapes all texts.
"""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textcl.errors import InputError
from textcl.files import atomic_write
from textcl.report.plots import Plot
from textcl.terminal import printable

_NUMBER = r"([+−-]?\d[\d,.]*|–)"
_FIGURE = re.compile(rf"((< )?{_NUMBER}(( ±| →| to) {_NUMBER})?\*?)?")
# Draws each chart from the JSON next to it; if a chart fails, its table is still shown.
_DRAW = """
const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
for (const place of document.querySelectorAll(".chart")) {
  const text = document.getElementById(place.dataset.specification).textContent;
  const options = {renderer: "svg", actions: false, tooltip: {theme: dark}};
  (async () => vegaEmbed(place, JSON.parse(text), options))().catch(console.error);
}
"""


@dataclass(frozen=True)
class Table:
    """A table. Cells are texts, numbers, None or, for several paragraphs, lists of texts.

    With `leading` the first paragraph of a cell stands out from those below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    leading: bool = False

    def is_figure(self, column: int) -> bool:
        """Whether a column has only numbers."""
        cells = [row[column] for row in self.rows]
        return all(
            cell is None or isinstance(cell, (int, float)) or (isinstance(cell, str) and _FIGURE.fullmatch(cell))
            for cell in cells
        )


@dataclass(frozen=True)
class Card:
    """A title with lists below it, each list with its own heading."""

    title: str
    lists: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Link:
    """A paragraph that begins with a link to a file beside the page."""

    file: str
    text: str


@dataclass(frozen=True)
class Section:
    """A section of a page.

    `frame` is a page beside this one, shown in it. `folded` are tables that are closed until the reader opens them.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    cards: Sequence[Card] = ()
    folded: Sequence[Table] = ()
    links: Sequence[Link] = ()
    frame: str | None = None


@dataclass
class Page:
    """A report. `notes` are shown at its top: what the reader must know first, and what is missing and why."""

    title: str
    subtitle: str
    notes: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def save(self, path: str | Path) -> Path:
        """Writes the page, atomically.

        Raises:
            InputError: jinja2 or vl-convert is not installed.
        """
        with atomic_write(path) as temporary:
            temporary.write_text(render(self), encoding="utf-8")
        return Path(path)


def render(page: Page) -> str:
    """The page as HTML."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup

        script = _charts() if any(section.plots for section in page.sections) else ""
    except ImportError as error:
        raise InputError(
            "A report needs altair, vl-convert and jinja2: pip install altair vl-convert-python jinja2"
        ) from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True)
    template = environment.from_string((Path(__file__).with_name("page.html")).read_text(encoding="utf-8"))
    sections = [{**vars(section), "plots": [_embedded(plot) for plot in section.plots]} for section in page.sections]
    content = {**vars(page), "sections": sections, "framed": any(section.frame for section in page.sections)}
    return template.render(page=content, script=Markup(script), digest=script_digest(script))


def script_digest(script: str) -> str:
    """What the security policy of a page names: only this script runs, and no script in a text, escaped or not."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _charts() -> str:
    """The script that draws the charts."""
    import vl_convert

    script: str = vl_convert.javascript_bundle(_DRAW)
    return script


def _embedded(plot: Plot) -> dict[str, Any]:
    rows = plot.rows
    table = Table(list(rows[0]) if rows else [], [list(row.values()) for row in rows])
    return {"title": plot.title, "note": plot.note, "table": table, "specification": plot.specification()}


def _shown(value: Any) -> Any:
    """The form in which jinja2 writes a value."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    if type(value) is str:  # not Markup, which is escaped already
        return printable(value)
    return value
