"""From a recipe to a trained, exported encoder."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from textcl.collator.reads import Reads
from textcl.data import verify
from textcl.data.arrow_files import texts_in
from textcl.data.corpora import hold_out
from textcl.data.corpus_files import CorpusFiles, files_of
from textcl.data.overlap import Counts, write_overlap
from textcl.data.reading import COLUMNS
from textcl.data.repeats import Repeats
from textcl.data.retrieval import beir_dev_split
from textcl.data.training import READING_OPTIONS, find_corpus, training_rows
from textcl.encoder import Encoder
from textcl.encoder.load import path_of
from textcl.encoder.pooling import POOLINGS, check_pooling
from textcl.errors import InputError
from textcl.evaluation import LabelFree, LabelledPairs, Retrieval, STSBenchmark
from textcl.evaluation.label_free import CRITERIA
from textcl.evaluation.transductive import recorded_overlap
from textcl.files import check_not_read, clear_leftovers, said_if_full
from textcl.locks import taken
from textcl.methods import Method
from textcl.methods.find import find_method
from textcl.progress import Progress
from textcl.runs.card import write_card
from textcl.runs.flags import beir_folder, method_flags, only, path_flags
from textcl.runs.identity import identity_of, identity_of_checkpoint, load_encoder, weights_of
from textcl.runs.idle import warn_of_idle
from textcl.runs.recipe import SCHEME, Recipe
from textcl.runs.record import RECIPE_JSON, DataRecord, RunRecord, check_directory, holds_run, remove_run
from textcl.runs.resume import can_be_loaded, check_checkpoint, finished
from textcl.seals import write_sealed
from textcl.texts import names_in
from textcl.training.arguments import ContrastiveTrainingArguments
from textcl.training.callback import newest_complete_checkpoint
from textcl.training.resume import check_resumable
from textcl.training.trainer import ContrastiveTrainer
from textcl.version import library_versions
from textcl.views.text import augment

logger = logging.getLogger("textcl")


@dataclass
class RunResult:
    """The result of a finished run.

    Attributes:
        output: The run's directory.
        export: The directory of the exported encoder, in the format of sentence-transformers.
        record: The content of `run.json`.
    """

    output: Path
    export: Path
    record: RunRecord


def run_recipe(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Trains as a recipe says, exports the encoder and writes `run.json`, in this order.

    Args:
        recipe: A recipe from `resolve`.
        resume: Continue the run in the output directory; a finished run is not changed.
        overwrite: Remove the run in the output directory first.

    Raises:
        InputError: For bad input of any kind, before anything is written; if the output directory has a run and
            neither `resume` nor `overwrite` is given; if another process uses it; or if the disk is full.
    """
    if not recipe.flags["data"]:
        raise InputError("There is nothing to train on: give a file of texts with --data.")
    output = Path(recipe.flags["output"])
    with taken(output), said_if_full(output, "continue the run with --resume"):
        return _run(recipe, output, resume, overwrite)


def _run(recipe: Recipe, output: Path, resume: bool, overwrite: bool) -> RunResult:
    clear_leftovers(output)
    check_directory(output, replace=resume or overwrite)
    asked, checkpoint = recipe.flags["resume_from_checkpoint"], None
    if resume and asked and Path(asked).resolve().parent == output.resolve():
        checkpoint, asked = Path(asked), None  # of this run, so that the recipe does not have it
        recipe = Recipe(recipe.method, {**recipe.flags, "resume_from_checkpoint": None})
    if overwrite:  # what the run reads must not be in what is removed
        named = [asked] + [recipe.flags.get(name) for name in path_flags(recipe.method)]
        named += files_of(find_corpus(recipe.flags["data"]))
        check_not_read(output, [*named, beir_folder(str(recipe.flags["dev"]))])
    with Progress("Reading the data", at_once=True):
        corpus = CorpusFiles(find_corpus(recipe.flags["data"]))
    encoder = load_encoder(recipe.flags)
    earlier, weights = recorded_overlap(encoder), weights_of(encoder)
    known = {"data": corpus.sha256, "model": identity_of(encoder, weights)}
    if asked:
        known["resume_from_checkpoint"] = identity_of_checkpoint(asked)
    fingerprint = recipe.fingerprint(known)

    if resume and (record := finished(output, recipe, fingerprint)):
        if can_be_loaded(output / "export"):
            logger.warning("The run in %s is finished already; there is nothing to do.", output)
            return RunResult(output, output / "export", record)
        logger.warning("The run in %s is finished, but its export is missing or damaged; it is made again.", output)
    if checkpoint is None and resume:
        checkpoint = newest_complete_checkpoint(output)
    if checkpoint is None and asked:
        checkpoint = Path(asked)
        check_checkpoint(checkpoint, recipe, known)

    started = datetime.now(UTC)
    with Progress("Reading the data and the model", at_once=True, gives_way=True):
        trainer, held_out = make_trainer(recipe, corpus, encoder)
    args, method = trainer.args, trainer.method
    if checkpoint is not None:
        check_resumable(checkpoint, method, args.world_size)  # again in the trainer, but here nothing is written yet
    begun: dict[str, Any] = {"fingerprint": fingerprint, "scheme": SCHEME, "recipe": recipe.to_dict()}
    if asked:
        begun["checkpoint"] = known["resume_from_checkpoint"]
    args.distributed_state.wait_for_everyone()  # all processes must have checked the directory before one writes to it
    if trainer.is_world_process_zero():
        if overwrite:
            remove_run(output)
        write_sealed(output / RECIPE_JSON, begun)
    args.distributed_state.wait_for_everyone()

    begin = time.perf_counter()
    outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - begin

    if trainer.is_world_process_zero():
        export = method.export(output / "export")
        data = _data_record(trainer, corpus, len(held_out), export, earlier)
        record = RunRecord(
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            fingerprint=fingerprint,
            recipe=recipe.to_dict(),
            command=Recipe(recipe.method, {**recipe.flags, "bf16": bool(args.bf16)}).command(),
            seed=args.seed,
            encoder=method.describe(),
            data=data,
            dev=trainer.selection,
            steps=trainer.state.global_step,
            train_loss=outcome.metrics.get("train_loss"),
            seconds=round(seconds, 1),
            sentences_per_second=outcome.metrics.get("train_samples_per_second"),
            resumed=bool(checkpoint),
            processes=args.world_size,
            device=str(args.device),
            precision="bf16 autocast" if args.bf16 else "fp16 autocast" if args.fp16 else "fp32",
            versions=library_versions(),
            model_weights=weights,
        )
        write_card(export, method.exported, record)
        if not holds_run(output):  # somebody removed the directory meanwhile
            write_sealed(output / RECIPE_JSON, begun)
        record.write(output)
    args.distributed_state.wait_for_everyone()
    written = RunRecord.read(output)
    assert written is not None
    return RunResult(output, output / "export", written)


def _data_record(
    trainer: ContrastiveTrainer, corpus: CorpusFiles, held_out: int, export: Path, earlier: Counts | None
) -> DataRecord:
    """The data of a finished training; their overlap with evaluation sets, added to the `earlier` one, is kept too."""
    dataset = cast(Any, trainer.train_dataset)  # the corpus after the method's own selection of rows
    learnt = texts_in(dataset, *(column for column in COLUMNS if column in dataset.column_names))
    in_batches = (entry[_IN_BATCHES] for entry in reversed(trainer.state.log_history) if _IN_BATCHES in entry)
    return DataRecord(
        file=str(corpus),
        sha256=corpus.sha256,
        rows=len(dataset),
        held_out=held_out,
        duplicates=_repeated(texts_in(dataset, "text")),
        duplicates_in_batches=next(in_batches, None),
        overlap=write_overlap(export, learnt, earlier),
        rows_read=corpus.rows_read,
    )


def make_trainer(
    recipe: Recipe, corpus: CorpusFiles | None = None, encoder: Encoder | None = None
) -> tuple[ContrastiveTrainer, list[str]]:
    """The trainer of a recipe, and the held-out texts. Nothing is written.

    Args:
        recipe: A recipe from `resolve`.
        corpus: The files of the recipe's corpus, if they were hashed already; their number of rows is set.
        encoder: The encoder from `load_encoder`, if it was loaded already and no random number was drawn since.

    Raises:
        InputError: For bad input of any kind.
    """
    arguments = only(ContrastiveTrainingArguments, recipe.flags)
    args = ContrastiveTrainingArguments(output_dir=str(recipe.flags["output"]), **arguments)
    corpus = corpus or CorpusFiles(find_corpus(recipe.flags["data"]))
    with args.main_process_first(desc="reading the corpus"):  # the others then find the rows in the cache
        dataset = training_rows(corpus, **{key: recipe.flags[key] for key in READING_OPTIONS})
    dev = recipe.flags["dev"]
    held_out: list[str] = []
    if dev in CRITERIA:
        dataset, held_out = hold_out(dataset, recipe.flags["held_out"])
        logger.info("%s texts are held out; %s on them chooses the checkpoint.", f"{len(held_out):,}", dev)
    elif recipe.flags["held_out"] is not None:
        raise InputError(f"--held-out can be used only if --dev is one of {', '.join(CRITERIA)}.")
    encoder = encoder or load_encoder(recipe.flags)  # sets the seed, also of the heads that the method makes
    test_pooling = recipe.flags["test_pooling"]
    if test_pooling:
        check_pooling(test_pooling)
    if (a := recipe.flags["smooth_inverse_frequency"]) is not None:
        averages = [name for name, each in POOLINGS.items() if each.averages]
        if not {encoder.pooling, test_pooling} & set(averages):
            raise InputError(
                f"--smooth-inverse-frequency sets the weights of tokens in an average, but pooling {encoder.pooling} "
                f"is not an average; set --pooling or --test-pooling to one of {', '.join(averages)}."
            )
        encoder.weigh_tokens(texts_in(dataset, "text"), a)
    method = find_method(recipe.method)(encoder, **only(method_flags(recipe.method), recipe.flags))
    warn_of_idle(type(method), recipe.flags)
    method.test_pooling = test_pooling
    if (sizes := recipe.flags["dimensions"]) is not None:
        method.set_dimensions([int(size) if size.strip().isdecimal() else size for size in sizes.split(",")])
    method.train_prompts = train_prompts(recipe.flags["train_prompts"], recipe.flags["column"], dataset.column_names)
    Reads.of(method).check(dataset.column_names)
    for flag in ("text_view_rate", "text_view_model"):
        if recipe.flags[flag] is not None and not recipe.flags["text_view"]:
            raise InputError(f"--{flag.replace('_', '-')} works only with --text-view; add it, or leave that flag out.")
    if view := recipe.flags["text_view"]:
        if not method.takes_views:
            raise InputError(
                f"{recipe.method} with these options does not read text views, so --text-view would change nothing; "
                "leave it out."
            )
        rate, model = recipe.flags["text_view_rate"], recipe.flags["text_view_model"]
        dataset = augment(dataset, view, rate=rate, model=model and str(path_of(model)), seed=args.seed)
    own = type(method).evaluators is not Method.evaluators
    evaluators = dev_evaluators("none" if own and dev is None else dev, held_out)
    trainer = ContrastiveTrainer(model=method, args=args, train_dataset=dataset, evaluators=evaluators)
    return trainer, held_out


def train_prompts(given: Sequence[str], column: str | None, there: Sequence[str]) -> dict[str, str]:
    """The prompts of --train-prompts by the column of the training rows.

    Args:
        given: Columns and prompts, each as COLUMN=PROMPT. A column is named as in the file or as in the training rows.
        column: The columns of the file that were read, with commas between them; None: not named.
        there: The columns of the training rows.

    Raises:
        InputError: An entry has no =, or names no column of the rows.
    """
    names = dict(zip(names_in(column or ""), COLUMNS, strict=False))
    there = [name for name in COLUMNS if name in there]
    found = {}
    for entry in given:
        name, equals, prompt = entry.partition("=")
        name = name if name in there else names.get(name, name)
        if not equals or name not in there:
            raise InputError(
                f'--train-prompts takes COLUMN=PROMPT, such as "text=query: ", not {entry!r}; the columns of these '
                f"rows are {', '.join(there)}."
            )
        found[name] = prompt
    return found


def dev_evaluators(dev: str | None, held_out: Sequence[str] = ()) -> list[Any]:
    """The evaluator that chooses the checkpoint, as a list of one; an empty list if there is none.

    Args:
        dev: "stsb", a file of labelled pairs, "beir:FOLDER", a criterion of `LabelFree`, "none", or None: STS-B if it
            is installed.
        held_out: The held-out texts for a criterion of `LabelFree`.
    """
    if dev == "none":
        return []
    if dev in CRITERIA:
        return [LabelFree(held_out, dev)]
    if dev is None and not verify(names=["STSBenchmark"])[0].usable:
        logger.warning(
            "STS-B is not installed, so no dev set chooses the checkpoint and the last one is exported. Install STS-B "
            "with `textcl data fetch STSBenchmark`, or give your own pairs with --dev pairs.tsv."
        )
        return []
    if dev in (None, "stsb"):
        return [STSBenchmark(split="dev")]
    if (folder := beir_folder(dev)) is not None:
        if (split := beir_dev_split(folder)) == "test":
            logger.warning("%s has no qrels/dev.tsv, so the checkpoint is chosen by its test queries.", folder)
        return [Retrieval.from_folder(folder, split)]
    return [LabelledPairs(dev)]


def _repeated(texts: Iterable[str]) -> int:
    repeats = Repeats()
    for text in texts:
        repeats.add(text)
    return repeats.count()


_IN_BATCHES = "duplicates_in_batches"
