"""The model card of an export: the header that the Hugging Face hub reads, what the encoder is, and how to load it.

The header is that of `huggingface_hub.ModelCardData`, which reads it again.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from textcl.encoder.export import Settings, expressible
from textcl.encoder.load import NAMED

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_STATED = re.compile(r"^(?:language|license|license_name|license_link):.*(?:\n[ -].*)*", re.MULTILINE)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LONGEST_CARD = 2**20  # characters that are read of a base model's card
_WIDGET = {
    "source_sentence": "The ferry was late because of the storm.",
    "sentences": [
        "Bad weather delayed the boat.",
        "The train arrived on time.",
        "My sister paints the kitchen yellow.",
    ],
}


def model_card(
    facts: Mapping[str, Any],
    settings: Settings,
    *,
    base_model: str | None = None,
    source: Path | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    scores: Sequence[EvalResult] = (),
    sections: Mapping[str, str] | None = None,
) -> str:
    """The text of README.md. It holds no text of a corpus and no path of a machine.

    The header has the base model and the datasets if they have a name of the hub, the language and the licence if the
    base model's own card states them, the scores, and sentences to try the model with.

    Args:
        facts: The result of `Encoder.describe`.
        settings: The settings of the export; they decide which library loads it.
        base_model: The model that training started from; default: the one in `facts`.
        source: The directory of the base model, whose card may state language and licence.
        tags: Further tags of the header.
        datasets: Names that the training data have on the hub.
        scores: What was measured, see `score`; those that are not a number are left out.
        sections: Titles and Markdown of further sections, after the encoder's facts and before how to load it.
    """
    base_model = base_model or facts["model"]
    library = "sentence-transformers" if expressible(settings) else "textcl"
    known, scores = stated(source), [each for each in scores if math.isfinite(each.metric_value)]
    languages = known.get("language", "en")
    english = not {"en", "multilingual"}.isdisjoint([languages] if isinstance(languages, str) else languages)
    header = ModelCardData(
        **known,
        library_name=library,
        pipeline_tag="sentence-similarity",
        tags=[_in_line(tag) for tag in (library, "sentence-similarity", "textcl", *tags)],
        base_model=base_model if is_hub_name(base_model) else None,
        datasets=list(datasets) or None,
        widget=[_WIDGET] if english else None,
        model_name=_in_line("-".join([Path(base_model).name, *tags[:1]])) if scores else None,
        eval_results=scores or None,
    )
    shown = {**facts, "model": file_name(base_model)}
    parts = {
        "Encoder": "\n".join(f"- {name}: {code(value)}" for name, value in shown.items() if value is not None),
        **(sections or {}),
        "How to load it": _loading(settings),
        "Licence": (
            f"The base model's card states {code(known['license'])}. The licence of the training data can restrict it."
            if "license" in known
            else "None is stated here. The licences of the base model and of the training data decide."
        ),
    }
    text = "\n\n".join(f"## {title}\n\n{content}" for title, content in parts.items())
    front = yaml.safe_dump(header.to_dict(), sort_keys=False, allow_unicode=True)
    card = f"---\n{front}---\n\n# A sentence encoder\n\nMade with textcl.\n\n{text}\n"
    return card.encode("utf-8", "replace").decode("utf-8")  # the name of a file need not be UTF-8


def score(
    task: str, dataset: str, split: str | None, metric: str, value: float, *, name: str, title: str | None = None
) -> EvalResult:
    """A score for the header of a card, see `huggingface_hub.EvalResult`.

    Args:
        task: The kind of task, by the hub's name, such as "sentence-similarity".
        dataset: The dataset's name; no two datasets of a card have the same.
        split: The split of the dataset.
        metric: The metric's name on the hub, such as "spearmanr".
        value: The score.
        name: The metric as people read it, with its scale.
        title: The dataset's name as people read it; default: `dataset`.
    """
    return EvalResult(
        task_type=task,
        dataset_type=_in_line(dataset),
        dataset_name=_in_line(title or dataset),
        dataset_split=_in_line(split) if split else None,
        metric_type=_in_line(metric),
        metric_name=_in_line(name),
        metric_value=round(float(value), 4),
    )


def stated(folder: Path | None) -> dict[str, Any]:
    """The language and the licence that the card in a model's directory states in its header; nothing is guessed.

    Only the lines of these keys are read, so that nothing else in a long or damaged header matters.

    Args:
        folder: The directory; that of the backbone in a directory of sentence-transformers will do.
    """
    if folder is None:
        return {}
    if not (folder / "modules.json").is_file() and (folder.parent / "modules.json").is_file():
        folder = folder.parent
    card = folder / "README.md"
    try:
        if not card.is_file():
            return {}
        with card.open(encoding="utf-8-sig", errors="replace") as handle:
            front = re.match(r"\s*---\n(.*?)\n---[ \t]*(\n|$)", handle.read(_LONGEST_CARD), re.DOTALL)
        found = yaml.safe_load("\n".join(_STATED.findall(front[1])) if front else "") or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    known: dict[str, Any] = {}
    language = found.get("language")
    # YAML reads Norwegian's `no` as false
    codes = ["no" if each is False else each for each in (language if isinstance(language, list) else [language])]
    if codes and all(isinstance(each, str) and _LANGUAGE.fullmatch(each) for each in codes):
        known["language"] = codes if isinstance(language, list) else codes[0]
    licence, name, link = (str(found.get(key)) for key in ("license", "license_name", "license_link"))
    if licence == "other":  # says nothing alone
        if _LICENCE.fullmatch(name) and link.startswith("https:"):
            known |= {"license": licence, "license_name": name, "license_link": link}
    elif isinstance(found.get("license"), str) and licence != "unknown" and _LICENCE.fullmatch(licence):
        known["license"] = licence
    return known


def is_hub_name(name: str) -> bool:
    """Whether a model's name could be a hub name and is not a directory of this machine."""
    return name not in NAMED and bool(_HUB_NAME.fullmatch(name)) and not Path(name).exists()


def file_name(name: str) -> str:
    """A hub name unchanged; of a path only the last part, which says nothing about the machine."""
    return name if is_hub_name(name) else Path(name).name


def _in_line(value: object) -> str:
    """A value in one line, as UTF-8 can write it."""
    return " ".join(str(value).encode("utf-8", "replace").decode("utf-8").split())


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
