"""The flags of a run: those of its own, of the method and of the trainer, and how text becomes their values."""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

from transformers import HfArgumentParser

from textcl.encoder.load import ModelPath
from textcl.errors import InputError
from textcl.evaluation.label_free import CRITERIA
from textcl.methods.find import find_method
from textcl.ranges import Count, Positive, Range, Share, ranges_of, with_values_attached
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.checks import RANGES

CorpusPaths = Annotated[list[str], ("path", "corpus")]
PairsPath = Annotated[str, ("path", "pairs")]
"""A file of labelled pairs, a folder after "beir:", or a word such as "stsb"."""

BEIR = "beir:"
"""What begins the value of `--dev` where it is a folder in BEIR's layout."""


def beir_folder(dev: str | None) -> Path | None:
    """The folder of `--dev beir:FOLDER`; None if another value is given."""
    return Path(dev.removeprefix(BEIR)) if dev and dev.startswith(BEIR) else None


def without_folders(value: str) -> str:
    """The value of `--dev` or `--data` with the file or folder that it names, but without the folders above."""
    folder = beir_folder(value)
    return Path(value).name if folder is None else f"{BEIR}{folder.name}"


def flag(default: Any, text: str) -> Any:
    """A field that is a flag with this help text."""
    if default == []:
        return field(default_factory=list, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class RunFlags:
    """The flags of a run that belong to neither the method nor the trainer.

    The type of a flag that names something on disk says so: `CorpusPaths`, `ModelPath` or `PairsPath`. `--help` shows
    the first sentences of a help text, as many as fit into a line; `--help-all` shows all of it.
    """

    _argument_group_name = "run"

    data: CorpusPaths | None = flag(
        None,
        "The texts to train on: txt, csv, tsv, jsonl or parquet (also gz, xz, zst), or 'bundled'. "
        "Several files may be named, one behind the other, and patterns in quotation marks, such as "
        "'shards/*.jsonl.zst'.",
    )
    output: str | None = flag(None, "The directory that the run writes to (default: runs/METHOD).")
    model: ModelPath = flag("bundled", "A hub name, a transformers or sentence-transformers directory, or 'bundled'.")
    pooling: str | None = flag(None, "How token vectors become one (default: as the model's directory says, or mean).")
    test_pooling: str | None = flag(None, "The pooling for evaluation and export (default: --pooling).")
    dimensions: str | None = flag(
        None,
        "Sizes such as 256,128,64: train vectors that can be cut to their first 128 or 64 numbers. The "
        "loss is summed over the sizes, with the first numbers only (Matryoshka). The export keeps as many numbers "
        "as the largest size (default: only whole vectors are trained).",
    )
    smooth_inverse_frequency: Positive | None = flag(
        None,
        "Down-weight frequent tokens in poolings that average; try 3e-4. A token has the weight a / (a + "
        "its share of the corpus), and this is a (default: all tokens have the same weight).",
    )
    max_length: Count | None = flag(None, "Cut texts after this many tokens (default: the model's own limit).")
    dropout: Annotated[float, Range(at_least=0, below=1)] | None = flag(
        None, "Set every dropout rate of the model (default: the model's own)."
    )
    column: str | None = flag(
        None, "The column to read; two or three, with commas between them, for pairs or triplets."
    )
    label_column: str | None = flag(None, "The column with the label of each row, for methods that use labels.")
    drop_unlabelled: bool = flag(False, "Leave out rows without a label, and count them (default: an error).")
    train_prompts: list[str] = flag(
        [],
        "COLUMN=PROMPT ..., the prompt of a column in training: a text, or the name of one of the model's "
        "prompts; nothing behind = for no prompt (default: the model's default prompt; in pairs its query and "
        "document prompts).",
    )
    text_view: str | None = flag(None, "Make two views of each text before training: synonyms, crop, contextual, …")
    text_view_rate: Share | None = flag(None, "The share of a text that a text view changes.")
    text_view_model: ModelPath | None = flag(None, "The masked language model of a contextual text view.")
    limit: Count | None = flag(None, "Train on the first LIMIT rows only.")
    dedup: bool = flag(
        False,
        "Leave out rows that repeat an earlier one but for case and spaces. Their number is logged. "
        "Near-duplicates stay; `textcl duplicates` finds them (default: all rows are trained on).",
    )
    dev: PairsPath | None = flag(
        None,
        "What selects the checkpoint: stsb, a file of labelled pairs, beir:FOLDER, a criterion or none. A "
        "file has text, text and score in a row; a folder has corpus.jsonl, queries.jsonl and qrels/dev.tsv, else "
        "qrels/test.tsv, and the score is nDCG@10; a criterion scores held-out texts without labels: "
        f"{', '.join(CRITERIA)} (default: the method's own evaluator if it has one, or else stsb if it is "
        "installed).",
    )
    held_out: Count | None = flag(
        None,
        "Rows held out for a criterion of --dev (default: 1,000, at most a tenth). They are the last rows of the data.",
    )


class TrainingFlags(ContrastiveTrainingArguments):
    _argument_group_name = "training"


class FlagParser(HfArgumentParser):
    """Knows every flag of a method, converts text to their types and checks the ranges of numbers.

    It raises `InputError` where argparse would exit.
    """

    def __init__(self, method: str, **options: Any) -> None:
        groups: list[Any] = [RunFlags, method_flags(method), TrainingFlags]
        options = {"prog": f"textcl train {method}", "add_help": False, "allow_abbrev": False, **options}
        super().__init__(groups, **options)
        self.set_defaults(**find_method(method).argument_defaults)
        self.ranges = {**RANGES, **ranges_of(RunFlags), **ranges_of(find_method(method).__init__)}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        values, unknown = super().parse_known_args([*with_values_attached(args)], namespace)
        for name, value in vars(values).items():
            if name in self.ranges and value is not None:
                self.ranges[name].check(f"--{name.replace('_', '-')}", value)
        if values.data is not None and len(values.data) == 1:
            (values.data,) = values.data  # a run on one file is recorded with its name, not with a list of names
        return values, unknown

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"--\w+/(?=--)", "", message)  # of the two spellings, the one with dashes
        number = re.fullmatch(r"argument --([\w-]+): invalid (?:int|float) value: '(.*)'", message)
        if number and (allowed := self.ranges.get(number[1].replace("-", "_"))):
            raise InputError(f"--{number[1]} must be {allowed}, not {number[2]}.")
        raise InputError(f"{message[0].upper()}{message[1:]}.")

    def known_flags(self) -> list[str]:
        """Every flag, with underscores and without the leading dashes."""
        return [flag.replace("-", "_") for flag in re.findall(r"--([a-z][\w-]*)", self.format_usage())]


def method_flags(name: str) -> Any:
    """A dataclass whose fields are the parameters of a method's `__init__`, with help from its docstring.

    Args:
        name: See `find_method`.

    Raises:
        InputError: If there is no such method, or a parameter of it has no type.
    """
    method = find_method(name)
    hints = get_type_hints(method.__init__)
    helps = _argument_docs(f"{inspect.getdoc(method)}\n{inspect.getdoc(method.__init__)}")
    found: list[tuple[str, Any, Any]] = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:  # the first is the encoder
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name not in hints:
            raise InputError(
                f"The parameter {parameter.name} of {name} has no type; write one, such as {parameter.name}: float, so "
                "that a flag can be made of it."
            )
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        text = helps.get(parameter.name, "").replace("%", "%%")
        found.append((parameter.name, hints[parameter.name], field(default=default, metadata={"help": text})))
    return make_dataclass(method.__name__, found, namespace={"_argument_group_name": name})


def path_flags(method: str) -> dict[str, str]:
    """The flags of a method's run that name something on disk, each with its kind: corpus, model or pairs."""
    found = {}
    for source in (RunFlags, find_method(method).__init__):
        for name, hint in get_type_hints(source, include_extras=True).items():
            for each in (hint, *get_args(hint)):  # also where it is one of several types
                for mark in getattr(each, "__metadata__", ()):
                    if isinstance(mark, tuple):  # ("path", its kind)
                        found[name] = str(mark[1])
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
        flag = f"--{key.replace('_', '-')}"
        if value is None or value == []:
            continue
        if isinstance(value, list):
            yield from (flag, *map(str, value))
        elif isinstance(value, dict):
            yield f"{flag}={json.dumps(value)}"
        else:
            yield f"{flag}={value}"


def only(group: Any, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those flags that are fields of a dataclass."""
    return {name: flags[name] for name, f in group.__dataclass_fields__.items() if f.init and name in flags}
