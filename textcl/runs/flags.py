"""The flags of a run: those of its own, of the method and of the trainer, and how text becomes their values."""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, make_dataclass
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

from transformers import HfArgumentParser

from textcl.encoder.load import ModelPath
from textcl.errors import InputError, nearest
from textcl.evaluation.label_free import CRITERIA
from textcl.methods import METHODS
from textcl.training.arguments import ContrastiveTrainingArguments

CorpusPath = Annotated[str, ("path", "corpus")]
PairsPath = Annotated[str, ("path", "pairs")]
"""A file of labelled pairs, or a word such as "stsb"."""


@dataclass
class RunFlags:
    """The flags of a run that belong to neither the method nor the trainer.

    The type of a flag that names something on disk says so: `CorpusPath`, `ModelPath` or `PairsPath`.
    """

    _argument_group_name = "run"

    data: CorpusPath | None = field(
        default=None,
        metadata={
            "help": "the texts to train on: txt, csv, tsv, jsonl or parquet, also gz or xz; or 'bundled'",
        },
    )
    output: str | None = field(default=None, metadata={"help": "the run's directory (default: runs/METHOD)"})
    model: ModelPath = field(
        default="bundled",
        metadata={
            "help": "'bundled', a hub name, a transformers or a sentence-transformers directory",
        },
    )
    pooling: str | None = field(default=None, metadata={"help": "default: what the model's directory says, else mean"})
    test_pooling: str | None = field(
        default=None, metadata={"help": "the pooling that is scored and exported, where it is not the one trained with"}
    )
    smooth_inverse_frequency: float | None = field(
        default=None,
        metadata={
            "help": "tokens count a / (a + share of the corpus) where a pooling averages over them; this is a, such as "
            "3e-4 (default: all count the same)"
        },
    )
    max_length: int | None = field(default=None, metadata={"help": "tokens after which a text is cut"})
    dropout: float | None = field(default=None, metadata={"help": "sets every dropout rate of the model"})
    column: str | None = field(
        default=None,
        metadata={"help": "the column to read; two or three with commas between them for pairs or triplets"},
    )
    label_column: str | None = field(
        default=None, metadata={"help": "the column with the label of each row, for methods and figures that want one"}
    )
    text_view: str | None = field(
        default=None,
        metadata={"help": "make two views of each text before training, such as synonyms, crop or contextual"},
    )
    text_view_rate: float | None = field(default=None, metadata={"help": "how much a text view changes"})
    text_view_model: ModelPath | None = field(
        default=None, metadata={"help": "the masked language model of a contextual text view"}
    )
    limit: int | None = field(default=None, metadata={"help": "train on the first LIMIT rows only"})
    dev: PairsPath | None = field(
        default=None,
        metadata={
            "help": "what chooses the checkpoint: 'stsb', a file of labelled pairs (text, text, score), a criterion on "
            f"held-out texts ({', '.join(CRITERIA)}) or 'none' (default: the method's own figures where it has some, "
            "else stsb where it is installed)"
        },
    )
    held_out: int | None = field(
        default=None,
        metadata={
            "help": "rows at the end that such a criterion sees and training does not (default: 1,000, at most a tenth)"
        },
    )


class TrainingFlags(ContrastiveTrainingArguments):
    _argument_group_name = "training"


class FlagParser(HfArgumentParser):
    """Knows every flag of a method, and turns text into their types; raises `InputError` where argparse would exit."""

    def __init__(self, method: str, **kwargs: Any) -> None:
        groups: list[Any] = [RunFlags, method_flags(method), TrainingFlags]
        super().__init__(groups, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(message[0].upper() + message[1:] + ".")

    def known_flags(self) -> list[str]:
        """The long options, with underscores."""
        return [o.removeprefix("--") for o in self._option_string_actions if o.startswith("--") and "-" not in o[2:]]


def method_flags(name: str) -> Any:
    """A dataclass whose fields are the parameters of a method's `__init__`, helped by its docstring."""
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}.{nearest(name, METHODS)} There are: {', '.join(METHODS)}.")
    method = METHODS[name]
    hints = get_type_hints(method.__init__)
    helps = _argument_docs(f"{inspect.getdoc(method)}\n{inspect.getdoc(method.__init__)}")
    fields: list[tuple[str, Any, Any]] = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:  # the first is the encoder
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        text = helps.get(parameter.name, "").replace("%", "%%")
        fields.append((parameter.name, hints[parameter.name], field(default=default, metadata={"help": text})))
    return make_dataclass(method.__name__, fields, namespace={"_argument_group_name": name})


def path_flags(method: str) -> dict[str, str]:
    """The flags of a method's run that name something on disk, each with its kind: corpus, model or pairs."""
    found = {}
    for source in (RunFlags, METHODS[method].__init__):
        for name, hint in get_type_hints(source, include_extras=True).items():
            for each in (hint, *get_args(hint)):  # also where it is one of several types
                if marks := dict(getattr(each, "__metadata__", ())):
                    found[name] = str(marks["path"])
    return found


def _argument_docs(docstring: str) -> dict[str, str]:
    """What a Google docstring says of each argument."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n\S", section, maxsplit=1)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def as_arguments(flags: Mapping[str, Any]) -> Iterable[str]:
    """A recipe's items as command-line arguments, so that both are converted by the same rules."""
    for key, value in flags.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            yield from (f"--{key}", *map(str, value))
        elif isinstance(value, dict):
            yield f"--{key}={json.dumps(value)}"
        else:
            yield f"--{key}={value}"


def only(group: Any, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those flags that are fields of a dataclass."""
    return {name: flags[name] for name, f in group.__dataclass_fields__.items() if f.init and name in flags}
