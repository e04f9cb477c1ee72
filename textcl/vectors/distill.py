"""Distillation: a small student that gives nearly the vectors of an encoder, learnt from unlabelled texts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textcl.data import load_texts
from textcl.data.overlap import read_overlap, write_overlap
from textcl.encoder import Encoder
from textcl.encoder.card import code, file_name, model_card, score
from textcl.encoder.export import MODEL_FILE
from textcl.encoder.static import StaticBackbone
from textcl.errors import InputError
from textcl.files import atomic_directory, check_not_read, check_output, check_replaceable
from textcl.locks import taken
from textcl.ranges import Positive, Seed, checked
from textcl.texts import counted
from textcl.vectors.compress import unit
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.kept_vectors import kept_vectors
from textcl.vectors.layer_student import fit_layers, with_layers
from textcl.vectors.shards import is_vectors
from textcl.vectors.static_student import Bags, fit_table, held_out, start_of, unit_targets
from textcl.vectors.unknown import UNKNOWN
from textcl.vectors.vectors import Vectors

_SHARD_ROWS = 4096  # texts that a kill can cost


@dataclass(frozen=True)
class Distilled:
    """A student and how near it is to its teacher.

    Attributes:
        encoder: The student.
        record: What was done and measured, as `--json` writes it.
    """

    encoder: Encoder
    record: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """The result as people read it."""
        made, (before, after) = self.record, self.record["cosine"]
        kind = f"static, {made['tokens']:,} tokens" if "tokens" in made else counted(made["layers"], "layer")
        where = f"{made['output']}: " if made["output"] else ""
        return [
            f"{where}a student of {made['teacher']} ({kind}, {made['dimension']} dimensions), from {made['texts']:,} "
            "texts",
            f"cosine with the teacher on {made['held_out']:,} texts that were held out: {before:.3f} before training, "
            f"{after:.3f} after",
        ]


@checked
def distill(
    model: Encoder | str | Path,
    data: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    static: int | None = None,
    layers: int | None = None,
    words: int | None = None,
    column: str | None = None,
    limit: int | None = None,
    epochs: int | None = None,
    learning_rate: Positive | None = None,
    batch_size: int | None = None,
    seed: Seed = 0,
    show_progress_bar: bool | None = None,
) -> Distilled:
    """Makes a small, fast student of an encoder, from texts without labels.

    A static student has one vector for each token; a text costs the mean over its tokens. With `layers` the student
    is the encoder with fewer of its layers. Both learn the teacher's vectors of the texts, with the prompt that
    `encode_corpus` takes. A fiftieth of the texts, at most 2,000, is held out to measure how near the student is.

    The teacher encodes the texts first, which takes longest. Until the student is written, these vectors are kept in a
    hidden folder beside the output, so that the same call goes on after an interruption.

    Args:
        model: The teacher, or a name or path that `Encoder.from_pretrained` takes.
        data: Texts that `load_texts` takes, or a directory that `encode_corpus` wrote with the teacher, so that nothing
            has to be encoded.
        output: The directory of the student, new or empty, which sentence-transformers loads too; None: it is not
            written.
        static: The number of dimensions of a static student.
        layers: The number of layers of a student with fewer layers.
        words: How many frequent words of the texts become tokens of a static student with a WordPiece tokenizer;
            default: 10,000.
        column: The column to read, as in `load_texts`; not for a directory.
        limit: Read only the first `limit` texts.
        epochs: How often the student sees each text; default: 10 if it is static, else 1.
        learning_rate: The largest learning rate; default: 3e-3 if it is static, else 2e-4.
        batch_size: Texts in a step; default: 512 if it is static, else 32.
        seed: The seed of the held-out texts and of the order.
        show_progress_bar: Default: only on a terminal, and only if the work takes more than two seconds.

    Returns:
        The student, and what was measured.

    Raises:
        InputError: There are too few texts or tokens, the teacher does not know their language or has too few
            dimensions or layers, the vectors are those of another model, or the output cannot be written or holds
            something already.

    Example:
        >>> distill("my-encoder", "texts.txt", "student", static=256).lines  # doctest: +SKIP
    """
    if (static is None) == (layers is None):
        raise InputError("A student is either static, with a number of dimensions, or has a number of layers.")
    for name, value in {"static": static, "layers": layers, "epochs": epochs, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}.")
    if words is not None and layers is not None:
        raise InputError("words become tokens of a static student only; leave them out.")
    if output is not None:
        check_not_read(output, [model, data])
        check_replaceable(output, MODEL_FILE)
        if Path(output).exists() and any(Path(output).iterdir()):
            shutil.rmtree(_work_folder(output), ignore_errors=True)  # of a call that was killed at its very end
            raise InputError(f"{output} holds a model already; remove it or name another directory.")
        check_output(output, folder=True)
    known = Vectors(data) if is_vectors(data) else None
    if known and column is not None:
        raise InputError(f"column was settled when {data} was encoded; leave it out.")
    teacher = _teacher(model, known)
    _check_teacher(teacher, static)
    prompt = known.prompt if known else corpus_prompt(teacher, silent=False)
    texts, rows = _texts(data, known, column, limit)
    _check_texts(teacher, texts, static, data if isinstance(data, (str, Path)) else "The data")
    student = with_layers(teacher, layers) if layers is not None else None  # says early that it cannot be made
    with _teacher_vectors(teacher, texts, rows, known, output, prompt, show_progress_bar) as vectors:
        options = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        given |= {"seed": seed, "show": show_progress_bar}
        if student is not None:
            student, record = _fewer_layers(student, texts, vectors, prompt, given)
        else:
            assert static is not None
            student, record = _static(teacher, texts, vectors, static, words, given)
        record = {
            "output": None if output is None else str(output),
            "teacher": file_name(teacher.name),
            "texts": len(texts),
            "dimension": student.dimension,
            "seed": seed,
            **record,
        }
        if output is not None:
            with atomic_directory(output, MODEL_FILE) as whole:
                student.save(whole, card=_card(student, teacher, record))
                write_overlap(whole, texts, read_overlap(teacher.source))
    return Distilled(student, record)


def _teacher(model: Encoder | str | Path, known: Vectors | None) -> Encoder:
    """The teacher; with a directory of vectors, the encoder that wrote it."""
    if known is None:
        return model if isinstance(model, Encoder) else Encoder.from_pretrained(model)
    known.check_whole("textcl distill")
    teacher = known.load_encoder(model)
    if why := known.differs_from(teacher):
        raise InputError(f"{why} Name the model that wrote these vectors, or a file of texts.")
    return teacher


def _check_teacher(teacher: Encoder, static: int | None) -> None:
    if isinstance(teacher.backbone, StaticBackbone):
        raise InputError(f"{teacher.name} is a static encoder already, and cannot be the teacher of a smaller one.")
    if static is None:
        return
    if static > teacher.dimension:
        raise InputError(f"{teacher.name} has {teacher.dimension} dimensions; a student cannot have {static}.")
    if not teacher.tokenizer.is_fast:
        raise InputError(f"A static student needs a fast tokenizer, which {teacher.name} does not have; use --layers.")


def _texts(data: Any, known: Vectors | None, column: str | None, limit: int | None) -> tuple[list[str], np.ndarray]:
    """The distinct texts, and the row of each among the vectors of a directory."""
    texts = known.texts() if known else list(load_texts(data, column=column, limit=limit, at_least=1)["text"])
    if known and limit is not None:
        texts = texts[:limit]
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    return list(first), np.fromiter(first.values(), np.int64, len(first))


def _check_texts(teacher: Encoder, texts: Sequence[str], static: int | None, name: object) -> None:
    """Raises an error if there are too few texts, or the teacher does not know their language."""
    least = max(10, static or 0)
    if len(texts) < least:
        why = f"a student of {static} dimensions needs at least as many" if static else "10 are needed"
        raise InputError(f"{name} has {len(texts):,} different texts; {why}.")
    unknown = teacher.tokenizer.unk_token_id
    some = texts[:: max(1, len(texts) // 1000)]
    rows = [teacher.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in some]
    tokens = [token for row in rows for token in row]
    share = sum(token == unknown for token in tokens) / max(1, len(tokens)) if unknown is not None else 0.0
    if not tokens or share > UNKNOWN:
        raise InputError(
            f"{teacher.name} does not know the words of {name}: {100 * share:.0f} % of their tokens are "
            f"{teacher.tokenizer.unk_token}. Name a teacher for the language of these texts."
        )


@contextmanager
def _teacher_vectors(
    teacher: Encoder,
    texts: Sequence[str],
    rows: np.ndarray,
    known: Vectors | None,
    output: str | os.PathLike[str] | None,
    prompt: str,
    show: bool | None,
) -> Iterator[np.ndarray]:
    """The teacher's unit vectors of the texts, (texts, dim). They are stored, so that a repeated call reads them."""
    if known is not None:
        yield unit(known.vectors()[rows])
        return
    if output is None:
        yield unit(teacher.encode(list(texts), prompt=prompt, show_progress_bar=show))
        return
    folder = _work_folder(output)
    with taken(folder):
        yield unit(kept_vectors(teacher, texts, folder, prompt=prompt, shard_rows=_SHARD_ROWS, show_progress_bar=show))
        shutil.rmtree(folder)


def _work_folder(output: str | os.PathLike[str]) -> Path:
    target = Path(output).resolve()
    return target.with_name(f".{target.name}.distill")


def _fewer_layers(
    student: Encoder, texts: Sequence[str], vectors: np.ndarray, prompt: str, options: dict[str, Any]
) -> tuple[Encoder, dict[str, Any]]:
    generator = torch.Generator().manual_seed(options["seed"])
    order = torch.randperm(len(texts), generator=generator).numpy()
    held = order[: held_out(len(texts))]
    learnt = order[len(held) :]
    unseen = [texts[row] for row in held]

    def cosine() -> float:
        found = unit(student.encode(unseen, prompt=prompt, show_progress_bar=False))
        return float((found * vectors[held]).sum(axis=1).mean())

    before = cosine()
    fit_layers(student, [texts[row] for row in learnt], vectors[learnt], prompt=prompt, **options)
    count = int(student.backbone.config.num_hidden_layers)
    return student, {"layers": count, "held_out": len(held), "cosine": [before, cosine()]}


def _static(
    teacher: Encoder,
    texts: Sequence[str],
    vectors: np.ndarray,
    dimensions: int,
    words: int | None,
    options: dict[str, Any],
) -> tuple[Encoder, dict[str, Any]]:
    start = start_of(teacher, texts, dimensions, words, options["show"])
    there = [number for number, row in enumerate(start.rows) if row]  # a text without tokens says nothing
    bags = Bags.of([start.rows[number] for number in there])
    fitted = fit_table(start.table, bags, unit_targets(vectors[there], start.projection), **options)
    return start.encoder(fitted.table), {
        "tokens": len(start.table),
        "words": start.words,
        "held_out": held_out(len(there)),
        "epoch": fitted.epoch,
        "cosine": [fitted.cosines[0], max(fitted.cosines)],
    }


def _card(student: Encoder, teacher: Encoder, record: dict[str, Any]) -> str:
    before, after = record["cosine"]
    made = "a vector for each token" if "tokens" in record else f"{record['layers']} of its layers"
    section = (
        f"A student of {code(record['teacher'])} with {made}, learnt from {record['texts']:,} texts without labels. "
        f"Its mean cosine with the teacher's vectors on {record['held_out']:,} held-out texts is {after:.3f} "
        f"({before:.3f} before training)."
    )
    kept = score(
        "feature-extraction", "own-texts", "held-out", "cosine", after, name="Cosine with the teacher's vectors"
    )
    return model_card(
        student.describe(),
        student.settings(),
        base_model=teacher.name,
        source=teacher.source,
        tags=["distillation"],
        scores=[kept],
        sections={"Student": section},
    )
