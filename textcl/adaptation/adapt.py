"""`adapt`: a better encoder for a user's own texts if there is one, and a verdict on it."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textcl.adaptation.between import try_encoders
from textcl.adaptation.candidates import try_candidates
from textcl.adaptation.corpus import Corpus, check_known, read_corpus
from textcl.adaptation.known_items import read_pairs
from textcl.adaptation.ledger import check_ledger, count_look
from textcl.adaptation.linear_map import with_linear_map
from textcl.adaptation.trial import Purpose, Retrieval, Settings, Trial, Work
from textcl.adaptation.verdict import Verdict, judge
from textcl.adaptation.workplace import Workplace
from textcl.data.overlap import read_overlap, write_overlap
from textcl.encoder import Encoder
from textcl.encoder.card import model_card, score
from textcl.encoder.export import MODEL_FILE
from textcl.encoder.load import directory_of
from textcl.environment import launched
from textcl.errors import InputError
from textcl.files import atomic_directory, check_not_read, check_output, check_replaceable, content_hash, file_hash
from textcl.locks import taken
from textcl.ranges import Positive, Seed, Share, checked
from textcl.seals import read_sealed, write_sealed
from textcl.texts import described, names_in
from textcl.vectors.unknown import warn_of_unknown
from textcl.vectors.vectors import Vectors
from textcl.version import library_versions

logger = logging.getLogger("textcl")

RECORD = "adapt.json"
PAGE = "report.html"
MINIMUM = 1.0  # points; a smaller gain does not count


@dataclass(frozen=True)
class Adapted:
    """The result of `adapt`.

    Attributes:
        encoder: The encoder to use: the adapted one if it is better, else the untouched one.
        verdict: Whether it is better.
        lines: What the command prints; the verdict and what was exported come last.
        record: All of it, as adapt.json holds it.
    """

    encoder: Encoder
    verdict: Verdict
    lines: list[str]
    record: dict[str, Any]


@checked
def adapt(
    model: str | Path,
    data: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    columns: Sequence[str] = (),
    purpose: Purpose = "search",
    dev: str | None = None,
    retrieval: Retrieval = "dense",
    bm25_weight: Share = 0.35,
    language: str = "english",
    minutes: Positive = 20.0,
    ledger: str | os.PathLike[str] | None = None,
    seed: Seed = 0,
    train: bool = False,
) -> Adapted:
    """Looks for an encoder that is better for the user's own texts, and says honestly whether there is one.

    Candidates are linear maps behind the frozen vectors, trained to bring the parts of a text together (its title and
    its body; a sentence and the rest; its halves) and held close to the identity (see `fit_linear_map`). They are
    judged by known-item queries: such a part has to find its document among all documents. Five folds of texts are
    judged in turn by candidates that were trained and selected without them (`cross_fit`). One test decides, and the
    encoder is changed only if it is better by at least a point, not worse at another kind of query, and has not
    forgotten what sentences mean in general.

    Args:
        model: A name or path that `Encoder.from_pretrained` takes. Several with commas between them: nothing is
            trained, and the verdict is on the best of the others beside the first.
        data: Texts, as `textcl.load_texts` takes them, or a directory that `textcl encode` wrote, whose vectors are
            used where they are those of this model.
        output: The directory of the encoder to use: the adapted one if it is better, else the untouched one; with
            adapt.json, from which `textcl.report.adapted.write_page` makes a page for readers. The same call goes on
            with an interrupted work, and replaces its own result, but not that of another call. None: nothing is kept.
        columns: The column of the texts, or the columns of titles and texts.
        purpose: What the encoder is for.
        dev: Evidence of the user's own in place of known items: "beir:FOLDER", judged queries in BEIR's layout;
            "pairs:FILE", rows of two texts that belong together, which are trained on as well; "judgements:FILE",
            the answers of `textcl judge`; "labels:FILE", texts with labels, for clusters.
        retrieval: "dense": vectors alone are searched. "hybrid": words count as well, for both sides.
        bm25_weight: The weight of words, see `textcl.vectors.fusion.fuse`.
        language: The language of the texts, for the stems of words.
        minutes: About how long this may take. Fewer texts are looked at if there is no time for all.
        ledger: The file that counts the looks at the same texts; default: one in the user's cache folder.
        seed: The seed of batches, folds and tests.
        train: Also try candidates that train the encoder's layers, as many as the minutes allow, and blend each with
            the untouched encoder. Half of the texts then train, a quarter selects and a quarter judges, in place of
            folds (see `textcl.adaptation.by_training.try_trained`).

    Raises:
        InputError: For bad input of any kind, before anything is written.

    Example:
        >>> adapted = textcl.adapt("bundled", "tickets.csv", "better", columns=("subject", "body"))  # doctest: +SKIP
        >>> adapted.verdict.outcome  # doctest: +SKIP
        'better'
    """
    if not isinstance(model, (str, Path)):
        raise InputError(
            f"model must be a name or a path, not {described(model)}; save an encoder, and name its directory."
        )
    if launched().ranks > 1:
        raise InputError("adapt works in one process; start it without torchrun.")
    started, begin = datetime.now(UTC), time.monotonic()
    settings = Settings(purpose, dev, retrieval, bm25_weight, language, minutes, seed, train)
    settings.check()
    corpus = read_corpus(data, columns)
    names = [str(model)] if Path(model).is_dir() else names_in(str(model))
    if output is not None:
        _check_place(output, [*names, data], ledger)
    check_ledger(ledger)
    if train and len(names) > 1:
        raise InputError("Where several models are compared nothing is trained: leave out --train, or name one model.")
    encoders = [Encoder.from_pretrained(name) for name in names]
    for encoder in encoders:
        check_known(encoder, corpus)
        warn_of_unknown(encoder, corpus.texts)
    models = [encoder.fingerprint() for encoder in encoders]
    if len({*models}) < len(models):
        raise InputError(f"Two of {model} are the same encoder; name different ones.")
    evidence = {"dev": dev and dev.partition(":")[0], "files": _dev_hash(dev)}
    identity = content_hash({**asdict(settings), **evidence, "models": models, "corpus": corpus.hash()})
    before = None if output is None else Path(output) / RECORD
    if before is not None and before.is_file() and read_sealed(before).get("identity") != identity:
        raise InputError(f"{output} holds the result of another textcl adapt; remove it or name another directory.")
    with _place(output, corpus.source) as place:
        work = Work(encoders[0], corpus, place, settings)
        trial = try_encoders(work, encoders[1:], identity) if encoders[1:] else try_candidates(work, identity)
        verdict = Verdict("not measured", trial.why)
        if trial.main is not None:
            look = content_hash({"command": identity, "plan": trial.planned()})
            looks = count_look(trial.evidence, look, ledger)
            others = max(1, len(names) - 1)
            verdict = judge(trial.main, MINIMUM, trial.second, trial.guards, looks=looks, models=others)
        if trial.advice is not None:
            trial.advice = replace(trial.advice, adapted=verdict.outcome == "better")
        chosen, name, what = _chosen(trial, encoders, names, verdict.outcome == "better")
        lines = [*trial.lines(), verdict.sentence(), f"EXPORT: {output} holds {what}" if output else f"RESULT: {what}"]
        record = {
            "verdict": verdict.record(),
            "lines": lines,
            "models": names,
            "data": {
                "name": corpus.name,
                "columns": list(columns),
                "texts": len(corpus),
                "sha256": corpus.hash(),
            },
            "settings": asdict(settings),
            "minimum": MINIMUM,
            "command": _command(model, data, output, columns, settings, ledger),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - begin, 1),
            "identity": identity,
            **trial.record(),
            "versions": library_versions(),
        }
        if output is not None:
            _export(chosen, directory_of(name), output, record, _learnt(corpus, dev))
    return Adapted(chosen, verdict, lines, record)


def _check_place(
    output: str | os.PathLike[str], sources: Sequence[object], ledger: str | os.PathLike[str] | None
) -> None:
    """Raises an error unless the output can be written and nothing is lost by that; `sources`: what is read."""
    check_not_read(output, sources)
    check_replaceable(output, MODEL_FILE)
    folder = Path(output)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise InputError(f"{output} holds a model that textcl adapt did not write; name another directory.")
    check_output(output, folder=True)
    if ledger is not None and folder.resolve() in Path(ledger).resolve().parents:
        raise InputError(f"The ledger {ledger} is in {output}, which is replaced; name another file with --ledger.")


def _chosen(trial: Trial, encoders: Sequence[Encoder], names: Sequence[str], better: bool) -> tuple[Encoder, str, str]:
    """The encoder to use, the name that it was loaded from, and what it is, as a line for the user."""
    first, name = encoders[0], names[0]
    if better and trial.best is not None:
        name = names[1 + trial.best]
        return encoders[1 + trial.best], name, f"{name}, untouched"
    if better and trial.weight is not None:
        how = f"a linear map behind the vectors of {Path(name).name}, pull {trial.pull:g}"
        return with_linear_map(first, trial.weight), name, f"the adapted encoder: {how}"
    if better and trial.encoder is not None:
        how = f"{Path(name).name} with trained layers ({trial.chosen})"
        return trial.encoder, name, f"the adapted encoder: {how}"
    return first, name, "the untouched encoder"


def _command(
    model: str | Path,
    data: Any,
    output: str | os.PathLike[str] | None,
    columns: Sequence[str],
    settings: Settings,
    ledger: str | os.PathLike[str] | None,
) -> str | None:
    """The command that repeats this call; None for data that are not in a file."""
    if not isinstance(data, (str, os.PathLike)):
        return None
    words = ["textcl", "adapt", str(model), "--data", str(data), "--output", str(output or "adapted")]
    if columns:
        words += ["--column", ",".join(columns)]
    for each in fields(settings):
        value = getattr(settings, each.name)
        if value != each.default:
            flag = "--for" if each.name == "purpose" else f"--{each.name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    if ledger is not None:
        words += ["--ledger", str(ledger)]
    return shlex.join(words)


def _dev_hash(dev: str | None) -> str | None:
    """A hash of the user's own evidence, the same wherever it lies."""
    if dev is None:
        return None
    path = Path(dev.partition(":")[2])
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return content_hash({str(file.relative_to(path)): file_hash(file) for file in files if file.is_file()})


@contextmanager
def _place(output: str | os.PathLike[str] | None, known: Vectors | None) -> Iterator[Workplace]:
    """A folder for the work, beside the output; it stays if the work is interrupted."""
    if output is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Workplace(Path(temporary), known)
        return
    target = Path(output).resolve()
    folder = target.with_name(f".{target.name}.adapt")
    with taken(folder):
        yield Workplace(folder, known)
        shutil.rmtree(folder)


def _learnt(corpus: Corpus, dev: str | None) -> Iterator[str]:
    """All texts that candidates learn from."""
    yield from corpus.bodies
    yield from corpus.titles or ()
    if dev is not None and dev.startswith("pairs:"):
        pairs = read_pairs(dev.removeprefix("pairs:"))
        yield from pairs.queries
        yield from pairs.documents


def _export(
    encoder: Encoder, source: Path, output: str | os.PathLike[str], record: dict[str, Any], learnt: Iterable[str]
) -> None:
    """Writes the encoder and adapt.json; an untouched encoder as it is, file by file, where that is possible.

    Args:
        encoder: The encoder.
        source: The directory that it was loaded from.
        output: The directory to write.
        record: The content of adapt.json.
        learnt: The texts that an adapted encoder learnt from.
    """
    adapted = record["verdict"]["outcome"] == "better" and record["best"] is None
    with atomic_directory(output, MODEL_FILE) as folder:
        if adapted or not _copied(encoder, source, folder):
            encoder.save(folder, card=_card(encoder, source, record) if adapted else None)
            Encoder.from_pretrained(folder)  # what does not load is not put into place
        if adapted:
            write_overlap(folder, learnt, read_overlap(source))
        write_sealed(folder / RECORD, record)


def _copied(encoder: Encoder, source: Path, folder: Path) -> bool:
    """Copies the files of an encoder that a later export may replace; whether these files are the whole encoder.

    A directory may keep a part of the encoder under a name that textcl does not write, so the copy is loaded.
    """
    if not (source / "modules.json").is_file() or list(source.rglob("*.bin")):
        return False
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_dir() and not any(path.iterdir()):  # Normalize has no file
            (folder / name).mkdir(parents=True)
        elif path.is_file() and MODEL_FILE.fullmatch(name.as_posix()) and name.as_posix() not in (RECORD, PAGE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    try:
        return Encoder.from_pretrained(folder).fingerprint() == encoder.fingerprint()
    except (InputError, OSError):  # a file of the encoder is missing
        return False


def _card(encoder: Encoder, source: Path, record: dict[str, Any]) -> str:
    of_purpose = {"search": "text-retrieval", "clusters": "clustering", "duplicates": "sentence-similarity"}
    task = of_purpose[record["settings"]["purpose"]]
    measured = [(task, each) for each in (record["main"], record["second"]) if each]
    measured += [("sentence-similarity", each) for each in record["guards"]]
    scores = [
        score(
            task,
            each["task"],
            "held-out",
            each["measure"].lower(),
            each["after"],
            name=f"{each['measure']} × 100, {each['before']:.2f} before",
        )
        for task, each in measured
    ]
    return model_card(
        encoder.describe(),
        encoder.settings(),
        base_model=record["models"][0],
        source=source,
        tags=["adapted"],
        scores=scores,
        sections={"Verdict": f"- {record['lines'][-2]}"},
    )
