"""The model card of an export: the header that the Hugging Face hub reads, what the encoder is, and how to load it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from textcl.encoder.export import Settings, expressible

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(
    facts: Mapping[str, Any],
    settings: Settings,
    *,
    base_model: str | None = None,
    tags: Sequence[str] = (),
    sections: Mapping[str, str] | None = None,
) -> str:
    """The text of README.md. It holds no text of a corpus and no path of a machine.

    Args:
        facts: The result of `Encoder.describe`.
        settings: The settings of the export; they decide which library loads it.
        base_model: The model that training started from; default: the one in `facts`.
        tags: Further tags of the header.
        sections: Titles and Markdown of further sections, after the encoder's facts and before how to load it.
    """
    base_model = base_model or facts["model"]
    library = "sentence-transformers" if expressible(settings) else "textcl"
    header = {
        "library_name": library,
        "pipeline_tag": "sentence-similarity",
        "tags": list(dict.fromkeys([library, "sentence-similarity", "textcl", *tags])),
        **({"base_model": base_model} if is_hub_name(base_model) else {}),
    }
    shown = {**facts, "model": file_name(base_model)}
    parts = {
        "Encoder": "\n".join(f"- {name}: {code(value)}" for name, value in shown.items() if value is not None),
        **(sections or {}),
        "How to load it": _loading(settings),
        "Licence": "None is stated here. The licences of the base model and of the training data decide.",
    }
    text = "\n\n".join(f"## {title}\n\n{content}" for title, content in parts.items())
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n# A sentence encoder\n\nMade with textcl.\n\n{text}\n"


def is_hub_name(name: str) -> bool:
    """Whether a model's name could be a hub name and is not a directory of this machine."""
    return name != "bundled" and bool(_HUB_NAME.fullmatch(name)) and not Path(name).exists()


def file_name(name: str) -> str:
    """A hub name unchanged; of a path only the last part, which says nothing about the machine."""
    return name if is_hub_name(name) else Path(name).name


def code(value: object) -> str:
    """A value as Markdown code, in one line."""
    return f"`{' '.join(str(value).replace('`', chr(39)).split())}`"


def cell(value: object) -> str:
    """A value as a cell of a Markdown table: in one line, and without signs that would end the cell or begin HTML."""
    return " ".join(str(value).split()).replace("|", "&#124;").replace("<", "&lt;").replace("`", "'")


def fenced(text: str) -> str:
    """A text as a block of Markdown code; its fence is longer than any in the text, so that the text cannot end it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _loading(settings: Settings) -> str:
    ours = (
        'import textcl\n\nencoder = textcl.Encoder.from_pretrained("path/to/this")\n'
        'embeddings = encoder.encode(["A sentence.", "Another one."])\n'
    )
    theirs = (
        'from sentence_transformers import SentenceTransformer\n\nencoder = SentenceTransformer("path/to/this")\n'
        'embeddings = encoder.encode(["A sentence.", "Another one."])\n'
    )
    if not expressible(settings):
        return f"sentence-transformers cannot express its pooling and prompt.\n\n```python\n{ours}```"
    return f"```python\n{theirs}```\n\nor, with the same embeddings,\n\n```python\n{ours}```"
