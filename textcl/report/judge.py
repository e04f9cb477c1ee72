"""The page of blind judging: one self-contained HTML file, which asks as the terminal does and saves the same file."""

import os
import shlex
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from textcl.adaptation.judging import BlindPairs, pairs_path
from textcl.adaptation.sign_test import power_sentence
from textcl.files import atomic_write
from textcl.report.page import script_digest


def judging_page(pairs: BlindPairs) -> str:
    """The page as HTML, with the answers so far. It holds neither the names of the systems nor their sides.

    Args:
        pairs: What is judged.
    """
    folder = Path(__file__).parent
    script = (folder / "judge.js").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((folder / "judge.html").read_text(encoding="utf-8"))
    shown = [dict(zip(("query", "left", "right"), pairs.shown(number), strict=True)) for number in range(len(pairs))]
    return template.render(
        judged={"name": pairs.name, "file": pairs.output.name, "pairs": shown, "answers": pairs.answers()},
        file=pairs.output.name,
        quoted=shlex.quote(pairs.output.name),
        sealed=pairs_path(pairs.output).name,
        what=pairs.what,
        power=power_sentence(len(pairs)),
        script=Markup(script),
        digest=script_digest(script),
    )


def save_judging_page(pairs: BlindPairs, path: str | os.PathLike[str]) -> Path:
    """Writes the page, atomically.

    Args:
        pairs: What is judged, see `textcl.draw_pairs`.
        path: The page.

    Example:
        >>> save_judging_page(textcl.draw_pairs("bundled", "bm25", "notes.txt", "j.tsv"), "j.html")  # doctest: +SKIP
    """
    with atomic_write(path) as temporary:
        temporary.write_text(judging_page(pairs), encoding="utf-8")
    return Path(path)
