"""A recipe: one flat mapping of flags that fixes method, model, data, arguments and seed of a run.

The keys of a recipe file are the flags of `textcl train`. They come from three places: the fields of `RunFlags`, the
parameters of the method's `__init__`, and the fields of `ContrastiveTrainingArguments`.
"""

import hashlib
import inspect
import json
import logging
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, cast, get_type_hints

import yaml
from transformers import HfArgumentParser, PrinterCallback, set_seed

from textcl.card import file_name
from textcl.collator import COLUMNS
from textcl.data import data_directory, load_labelled, load_texts, load_triplets, verify
from textcl.data.corpora import csv_records, hold_out
from textcl.encoder import BUNDLED, Encoder
from textcl.errors import InputError, nearest
from textcl.evaluation import LabelFree, LabelledPairs, STSBenchmark, overlap
from textcl.evaluation.label_free import CRITERIA
from textcl.evaluation.results import library_versions
from textcl.files import write_json
from textcl.methods import METHODS, Method
from textcl.pooling import AVERAGES, check_pooling
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import newest_complete_checkpoint
from textcl.training.card import write_card
from textcl.training.trainer import ContrastiveTrainer
from textcl.views.text import augment

logger = logging.getLogger("textcl")

RECIPES = Path(__file__).parents[1] / "recipes"
BUNDLED_TEXTS = Path(__file__).parents[1] / "assets" / "wordnet" / "glosses.txt"

# Where a run's output goes and how it is reported: two runs that differ in these alone have the same weights.
COSMETIC = frozenset(
    {"output", "output_dir", "disable_tqdm", "report_to", "run_name", "project", "log_level", "log_level_replica"}
    | {"logging_first_step", "log_on_each_node", "resume_from_checkpoint", "hub_token", "save_total_limit"}
)


@dataclass
class RunFlags:
    """The flags of a run that belong to neither the method nor the trainer."""

    _argument_group_name = "run"

    data: str | None = field(
        default=None,
        metadata={"help": "the texts to train on: txt, csv, tsv, jsonl or parquet, also gz or xz; or 'bundled'"},
    )
    output: str | None = field(default=None, metadata={"help": "the run's directory (default: runs/METHOD)"})
    model: str = field(
        default="bundled",
        metadata={"help": "'bundled', a hub name, a transformers or a sentence-transformers directory"},
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
    text_view_model: str | None = field(
        default=None, metadata={"help": "the masked language model of a contextual text view"}
    )
    limit: int | None = field(default=None, metadata={"help": "train on the first LIMIT rows only"})
    dev: str | None = field(
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


class _TrainingFlags(ContrastiveTrainingArguments):
    _argument_group_name = "training"


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: the method's name and a value for every flag, defaults included.

    Attributes:
        method: A name in `METHODS`.
        flags: Every flag and its value, flat.
    """

    method: str
    flags: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it is written to `run.json`: nothing but what JSON holds."""
        return json.loads(json.dumps({"method": self.method, **self.flags}, default=str))

    def command(self) -> str:
        """The line of `textcl train` that makes this run again: all that is not at its default, files without folders.

        The seed is always named.
        """
        defaults = resolve({"method": self.method})[0].flags
        kept = {k: v for k, v in self.flags.items() if k not in COSMETIC and (v != defaults[k] or k == "seed")}
        kept |= {key: Path(kept[key]).name for key in ("data", "dev") if kept.get(key)}
        kept |= {key: file_name(str(kept[key])) for key in ("model", "teacher", "text_view_model") if kept.get(key)}
        return shlex.join(["textcl", "train", self.method, *_as_arguments(kept)])

    def fingerprint(self) -> str:
        """A hash of all that decides the run's weights: its flags, its data and the weights it starts from."""
        # what is not set decides nothing, so that a flag added later leaves the fingerprints of old runs as they are
        decisive = {k: v for k, v in self.to_dict().items() if k not in COSMETIC and v not in (None, [], {})}
        for key in ("data", "dev"):
            value = decisive.get(key)
            if value and (key == "data" or value not in ("stsb", "none", *CRITERIA)):
                decisive[key] = file_hash(find_corpus(value))
        for key in ("model", "text_view_model"):
            folder = BUNDLED if self.flags[key] == "bundled" else Path(self.flags[key] or "")
            if self.flags[key] and folder.is_dir():
                decisive[key] = [file_hash(path) for path in sorted(folder.rglob("*.safetensors"))]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class RunResult:
    """What a finished run leaves.

    Attributes:
        output: The run's directory.
        export: The exported encoder, a sentence-transformers directory.
        record: What stands in `run.json`.
    """

    output: Path
    export: Path
    record: dict[str, Any]


class FlagParser(HfArgumentParser):
    """Knows every flag of a method, and turns text into their types; raises `InputError` where argparse would exit."""

    def __init__(self, method: str, **kwargs: Any) -> None:
        groups: list[Any] = [RunFlags, _method_flags(method), _TrainingFlags]
        super().__init__(groups, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(message[0].upper() + message[1:] + ".")

    def known_flags(self) -> list[str]:
        """The long options, with underscores."""
        return [o.removeprefix("--") for o in self._option_string_actions if o.startswith("--") and "-" not in o[2:]]


def recipe_file(name: str | Path) -> Path | None:
    """The file of a recipe that is named by its path or, if textcl ships it, by its stem."""
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    return None


def load_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe file: a flat YAML mapping whose keys are flags. `method` is one of them.

    Raises:
        InputError: If there is no such file, or it holds anything but such a mapping.
    """
    file = recipe_file(path)
    if file is None:
        shipped = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
        raise InputError(f"There is no recipe {str(path)!r}.{nearest(str(path), shipped)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{file} is no recipe: it has to be a mapping of flags to values, such as 'method: simcse'.")
    if nested := [key for key, value in content.items() if isinstance(value, dict) and not key.endswith("_kwargs")]:
        raise InputError(f"{file}: a recipe is flat, but {nested[0]!r} holds a mapping.")
    return {key.replace("-", "_"): value for key, value in content.items()}


def resolve(
    recipe: Mapping[str, Any], arguments: Sequence[str] = (), parser: FlagParser | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Fills in every default of a recipe and converts its values to the flags' types.

    Args:
        recipe: Flags and values; `method` names the method (default: simcse).
        arguments: Command-line flags, which win over the recipe's.
        parser: A parser of that method with further flags of its own.

    Returns:
        The recipe, and the values of those further flags.

    Raises:
        InputError: For an unknown method or flag (the nearest is suggested), or a value of the wrong kind.
    """
    flags = dict(recipe)
    method = str(flags.pop("method", "simcse"))
    parser = parser or FlagParser(method)
    known = parser.known_flags()
    for key in flags:
        if key not in known:
            raise InputError(f"A recipe for {method} has no key {key!r}.{nearest(key, known)}")
    values, unknown = parser.parse_known_args([*_as_arguments(flags), *arguments])
    if unknown:
        flag = unknown[0].split("=")[0]
        if not flag.startswith("-"):
            raise InputError(f"{flag!r} belongs to no flag.")
        raise InputError(f"There is no flag {flag}.{nearest(flag.lstrip('-').replace('-', '_'), known)}")
    resolved = vars(values)
    own = {f.name for group in parser.dataclass_types for f in group.__dataclass_fields__.values() if f.init}
    further = {key: resolved.pop(key) for key in list(resolved) if key not in own}
    output = resolved.pop("output_dir", None)
    resolved["output"] = resolved["output"] or output or f"runs/{method}"
    return Recipe(method, resolved), further


def run_recipe(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Trains by a recipe, exports the encoder and writes `run.json`, in that order.

    Args:
        recipe: From `resolve`.
        resume: Go on where a run in that directory stopped; a finished run is left as it is.
        overwrite: Remove the run that the directory holds.

    Raises:
        InputError: For bad input of any kind; nothing is written then. Also if the output directory holds a run and
            neither `resume` nor `overwrite` is given.
    """
    if not recipe.flags["data"]:
        raise InputError("There is nothing to train on: give a file of texts with --data.")
    output = Path(recipe.flags["output"])
    fingerprint = recipe.fingerprint()
    if resume:
        if finished := _finished(output, recipe, fingerprint):
            logger.warning("The run in %s is finished; nothing is left to do.", output)
            return RunResult(output, output / "export", finished)
    elif holds_run(output) and not overwrite:
        raise InputError(f"{output} holds a run already; go on with it by --resume, or replace it by --overwrite.")

    started = datetime.now(UTC)
    trainer, held_out = make_trainer(recipe)
    args, method, corpus = trainer.args, trainer.method, find_corpus(recipe.flags["data"])
    dataset = cast(Any, trainer.train_dataset)  # what the method takes of it

    args.distributed_state.wait_for_everyone()  # no process may find what another has begun to write
    if trainer.is_world_process_zero():
        if overwrite:
            remove_run(output)
        write_json(output / "recipe.json", {"fingerprint": fingerprint, "recipe": recipe.to_dict()})
    checkpoint = recipe.flags["resume_from_checkpoint"]
    if checkpoint is None and resume:
        checkpoint = newest_complete_checkpoint(output)
    args.distributed_state.wait_for_everyone()
    begin = time.perf_counter()
    outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - begin

    if trainer.is_world_process_zero():
        export = method.export(output / "export")
        seen = overlap(chain.from_iterable(dataset[column] for column in COLUMNS if column in dataset.column_names))
        write_json(export / "overlap.json", seen)
        history = trainer.state.log_history
        chosen = f"eval_{trainer.evaluators[0].name}" if trainer.evaluators else ""
        scores = [entry[chosen] for entry in history if chosen in entry]
        record = {
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "fingerprint": fingerprint,
            "recipe": recipe.to_dict(),
            "command": Recipe(recipe.method, {**recipe.flags, "bf16": bool(args.bf16)}).command(),
            "seed": args.seed,
            "encoder": method.describe(),
            "data": {
                "file": str(corpus),
                "sha256": file_hash(corpus),
                "rows": len(dataset),
                "held_out": len(held_out),
                "duplicates": len(dataset) - len(set(dataset["text"])),
                "duplicates_in_batches": next((e[_IN_BATCHES] for e in reversed(history) if _IN_BATCHES in e), None),
                "overlap": seen,
            },
            "dev": {"set": chosen.removeprefix("eval_"), "score": max(scores) if args.select_best else scores[-1]}
            if scores
            else None,
            "steps": trainer.state.global_step,
            "train_loss": outcome.metrics.get("train_loss"),
            "seconds": round(seconds, 1),
            "sentences_per_second": outcome.metrics.get("train_samples_per_second"),
            "resumed": bool(checkpoint),
            "processes": args.world_size,
            "device": str(args.device),
            "precision": "bf16 autocast" if args.bf16 else "fp16 autocast" if args.fp16 else "fp32",
            "versions": library_versions(),
        }
        write_card(export, method.exported, record)
        write_json(output / "run.json", record)
    args.distributed_state.wait_for_everyone()
    return RunResult(output, output / "export", json.loads((output / "run.json").read_text(encoding="utf-8")))


def make_trainer(recipe: Recipe) -> tuple[ContrastiveTrainer, list[str]]:
    """The trainer of a recipe, and the texts that it holds out; nothing is written yet.

    Raises:
        InputError: For bad input of any kind.
    """
    arguments = _only(ContrastiveTrainingArguments, recipe.flags)
    try:
        args = ContrastiveTrainingArguments(output_dir=str(recipe.flags["output"]), **arguments)
    except ValueError as error:  # flags that exclude one another
        raise InputError(str(error)) from error
    corpus = find_corpus(recipe.flags["data"])
    dataset = training_rows(corpus, **{key: recipe.flags[key] for key in ("column", "label_column", "limit")})
    dev = recipe.flags["dev"]
    held_out: list[str] = []
    if dev in CRITERIA:
        dataset, held_out = hold_out(dataset, recipe.flags["held_out"])
        logger.info("%s texts are held out, by which %s chooses the checkpoint.", f"{len(held_out):,}", dev)
    elif recipe.flags["held_out"] is not None:
        raise InputError(f"--held_out has a place only where --dev is one of {', '.join(CRITERIA)}.")
    set_seed(args.seed)  # a new head is drawn before the trainer sets the seed
    encoder = Encoder.from_pretrained(
        recipe.flags["model"], **{key: recipe.flags[key] for key in ("pooling", "max_length", "dropout")}
    )
    test_pooling = recipe.flags["test_pooling"]
    if test_pooling:
        check_pooling(test_pooling)
    if (a := recipe.flags["smooth_inverse_frequency"]) is not None:
        if not {encoder.pooling, test_pooling} & set(AVERAGES):
            raise InputError(
                f"--smooth_inverse_frequency says how much tokens count in an average, and pooling {encoder.pooling} "
                f"takes none; give --pooling or --test_pooling one of {', '.join(AVERAGES)}."
            )
        encoder.weigh_tokens(dataset["text"], a)
    method = METHODS[recipe.method](encoder, **_only(_method_flags(recipe.method), recipe.flags))
    method.test_pooling = test_pooling
    if view := recipe.flags["text_view"]:
        if not method.takes_views:
            raise InputError(f"{recipe.method} makes no views of a text, so that --text_view has no place in it.")
        rate, model = recipe.flags["text_view_rate"], recipe.flags["text_view_model"]
        dataset = augment(dataset, view, rate=rate, model=model, seed=args.seed)
    own = type(method).evaluators is not Method.evaluators
    evaluators = dev_evaluators("none" if own and dev is None else dev, held_out)
    trainer = ContrastiveTrainer(model=method, args=args, train_dataset=dataset, evaluators=evaluators)
    trainer.remove_callback(PrinterCallback)  # without bars it would print dictionaries; they stand in log.jsonl
    return trainer, held_out


def training_rows(
    path: Path, column: str | None = None, label_column: str | None = None, limit: int | None = None
) -> Any:
    """Reads texts; or pairs or triplets where `column` names two or three columns, or a csv or tsv has SimCSE's.

    Args:
        path: Any file that `load_texts` reads.
        column: One column, or two or three with commas between them (text, positive, hard negative).
        label_column: Read labels as well, with one column of texts ("text" by default) or two.
        limit: Read this many rows and no more.
    """
    columns = tuple(column.split(",")) if column else _triplet_columns(path)
    if label_column is not None:
        return load_labelled(path, columns=columns or ("text",), label_column=label_column, limit=limit)
    if len(columns) > 1:
        return load_triplets(path, columns=columns, limit=limit)
    return load_texts(path, column=column, limit=limit)


def _triplet_columns(path: Path) -> tuple[str, ...]:
    """The columns of a file with SimCSE's layout, sent0, sent1 and perhaps hard_neg; none for any other file."""
    suffixes = path.name.lower().split(".")[1:]
    if "csv" not in suffixes and "tsv" not in suffixes:
        return ()
    _, header = next(csv_records(path, tabs="tsv" in suffixes), (0, []))
    return tuple(name for name in ("sent0", "sent1", "hard_neg") if name in header) if "sent1" in header else ()


def dev_evaluators(dev: str | None, held_out: Sequence[str] = ()) -> list[Any]:
    """The evaluator that chooses the checkpoint, as a list of at most one.

    Args:
        dev: "stsb", a file of labelled pairs, a criterion of `LabelFree`, "none", or None for STS-B where it is
            installed.
        held_out: The texts that the criterion sees.
    """
    if dev == "none":
        return []
    if dev in CRITERIA:
        return [LabelFree(held_out, dev)]
    if dev is None and not verify(names=["STSBenchmark"])[0].usable:
        logger.warning(
            "STS-B is not installed, so that no dev set chooses the checkpoint and the last one is exported; "
            "`textcl data fetch STSBenchmark` installs it, --dev pairs.tsv takes your own pairs."
        )
        return []
    if dev in (None, "stsb"):
        return [STSBenchmark(split="dev")]
    return [LabelledPairs(dev)]


def find_corpus(name: str) -> Path:
    """A corpus by its path, or by its name in the data folder; "bundled" is the one that comes with textcl."""
    if name == "bundled":
        return BUNDLED_TEXTS
    for path in (Path(name), data_directory() / name):
        if path.is_file():
            return path
    raise InputError(f"There is no file {name}, neither here nor in {data_directory()}.")


def holds_run(output: Path) -> bool:
    """Whether a run was begun in this directory."""
    return any(output.glob("checkpoint-*")) or any((output / name).exists() for name in _RUN_FILES)


def remove_run(output: Path) -> None:
    """Removes what a run writes, and nothing else that may lie there."""
    for path in [*output.glob("checkpoint-*"), *(output / name for name in _RUN_FILES)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


_IN_BATCHES = "duplicates_in_batches"
_RUN_FILES = ("run.json", "recipe.json", "log.jsonl", "export", "best")


def _finished(output: Path, recipe: Recipe, fingerprint: str) -> dict[str, Any] | None:
    """The record of a finished run in that directory.

    Raises:
        InputError: If the directory's run has another recipe, which must not be gone on with.
    """
    try:
        begun = json.loads((output / "recipe.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if begun["fingerprint"] != fingerprint:
        now = recipe.to_dict()
        differ = sorted(k for k in now if now[k] != begun["recipe"].get(k) and k not in COSMETIC)
        what = f"in {', '.join(differ)}" if differ else "in the content of its data or its model"
        raise InputError(f"The run in {output} was begun with another recipe (it differs {what}); use --overwrite.")
    record = output / "run.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None


def _method_flags(name: str) -> Any:
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


def _argument_docs(docstring: str) -> dict[str, str]:
    """What a Google docstring says of each argument."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n\S", section, maxsplit=1)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _as_arguments(flags: Mapping[str, Any]) -> Iterable[str]:
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


def _only(group: Any, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those flags that are fields of a dataclass."""
    return {name: flags[name] for name, f in group.__dataclass_fields__.items() if f.init and name in flags}
