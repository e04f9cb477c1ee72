"""Near-duplicates of a corpus: which texts to keep, which ones repeat them, and how sure that is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from textcl.data.corpora import read_with_ids
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.ranges import Range, Seed, checked
from textcl.texts import bare, counted
from textcl.vectors.calibration import LEAST, Calibration, Encode, calibrate
from textcl.vectors.columns import plain, result_name, write_csv
from textcl.vectors.compress import unit
from textcl.vectors.encode import corpus_prompt
from textcl.vectors.lengths import are_longer
from textcl.vectors.near_duplicates import COSINE, WORDS, near_duplicate_groups, overlaps
from textcl.vectors.shards import is_vectors, read_complete, texts_cut
from textcl.vectors.unknown import unknown_texts
from textcl.vectors.vectors import Vectors

logger = logging.getLogger("textcl")

COLUMNS = ("text", "group", "size", "kept", "duplicate_of", "why", "cosine", "words", "id")  # that are not the user's
_THRESHOLD = Range(above=0, at_most=1)


@dataclass(frozen=True)
class Duplicates:
    """The rows of a corpus in groups of near-duplicates. Each row is in one group; most groups have one row.

    Attributes:
        texts: The texts.
        ids: The id of each row: the user's, else its number in the corpus, counted from 0.
        groups: The number of the group of each row, from 0 in the order of the corpus, (rows,).
        kept: Whether each row is the one to keep of its group, which is the first one, (rows,).
        why: For each row "copy" if it differs from an earlier row in case and spaces at most, "near" if it is only
            near-equal to the kept row, and "" if it is kept.
        cosines: The cosine of each row with the kept row, (rows,); 0 if the model does not know the words of one.
        words: The overlap of the words of each row with those of the kept row, (rows,).
        cosine: The threshold of the cosine; None: it did not count.
        overlap: The threshold of the overlap of words; None: it did not count.
        calibration: How the thresholds were chosen, and their errors; None if they were given, or could not be chosen.
        notes: Sentences on what to know about the result.
        columns: The user's other columns: for each name, a value for each row.
    """

    texts: list[str]
    ids: Sequence[Any]
    groups: np.ndarray
    kept: np.ndarray
    why: list[str]
    cosines: np.ndarray
    words: np.ndarray
    cosine: float | None
    overlap: float | None
    calibration: Calibration | None
    notes: list[str] = field(default_factory=list)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def sizes(self) -> np.ndarray:
        """The number of rows of each group, (groups,)."""
        return np.bincount(self.groups)

    def members(self) -> list[np.ndarray]:
        """The rows of each group that has several, the largest group first; the first row of a group is kept."""
        order = np.argsort(self.groups, kind="stable")
        sizes = self.sizes
        ends = np.cumsum(sizes)
        several = np.flatnonzero(sizes > 1)
        several = several[np.argsort(-sizes[several], kind="stable")]
        return [order[ends[group] - sizes[group] : ends[group]] for group in several]

    def record(self) -> dict[str, Any]:
        """The result as JSON holds it: counts, thresholds, errors and groups, but no texts."""
        return {
            "texts": len(self.texts),
            "kept": int(self.kept.sum()),
            "copies": self.why.count("copy"),
            "near": self.why.count("near"),
            "cosine": self.cosine,
            "words": self.overlap,
            "calibration": None if self.calibration is None else self.calibration.record(),
            "notes": self.notes,
            "groups": [
                {
                    "group": int(self.groups[rows[0]]),
                    "kept": plain(self.ids[rows[0]]),
                    "duplicates": [
                        {
                            "id": plain(self.ids[row]),
                            "why": self.why[row],
                            "cosine": round(float(self.cosines[row]), 4),
                            "words": round(float(self.words[row]), 4),
                        }
                        for row in rows[1:]
                    ],
                }
                for rows in self.members()
            ],
        }

    def save(self, path: str | os.PathLike[str], *, raw: bool = False, kept_only: bool = False) -> None:
        """Writes a csv file with the rows of the corpus, in their order. The file is written atomically.

        Its columns are text, group, size, kept (yes or no), duplicate_of (the id of the kept row; empty if the row is
        kept), why, cosine, words, id and `columns`.

        Args:
            path: The file.
            raw: Leave texts as they are that a spreadsheet would run as formulas; else an apostrophe is put before
                them, see `textcl.texts.spreadsheet_safe`.
            kept_only: Leave out the rows that are not kept, so that the file has no near-duplicates.
        """

        keeper, sizes = np.flatnonzero(self.kept), self.sizes.tolist()  # in the order of the groups

        def line(row: int, group: int) -> list[Any]:
            kept = bool(self.kept[row])
            cells = [self.texts[row], group, sizes[group], "yes" if kept else "no"]
            cells += ["" if kept else self.ids[keeper[group]], self.why[row]]
            cells += [round(float(self.cosines[row]), 4), round(float(self.words[row]), 4), self.ids[row]]
            return [*cells, *(values[row] for values in self.columns.values())]

        rows = ((row, group) for row, group in enumerate(self.groups.tolist()) if self.kept[row] or not kept_only)
        write_csv(path, (*COLUMNS, *self.columns), (line(*each) for each in rows), safe=not raw)


@checked
def near_duplicates(
    source: Any,
    model: Encoder | str | Path | None = None,
    *,
    threshold: float | Literal["auto"] = "auto",
    words: float | None = None,
    column: str | None = None,
    id_column: str | None = None,
    seed: Seed = 0,
) -> Duplicates:
    """Finds the near-duplicates of a corpus, and says how often it is wrong.

    Two texts are near-equal if the cosine of their vectors is at least the threshold, or if they share at least `words`
    of their words; texts that differ only in case and spaces always are. Groups do not chain, see
    `near_duplicate_groups`: each member is near-equal to the kept row, which is the first row of its group in the
    corpus. All rows are compared, without an index that could overlook some. The cosine does not count for texts
    half of whose tokens the model does not know, such as those in another script: their vectors are alike.

    With "auto", small edits (typo, case, order of words, words added) are planted in a sample of these texts, and the
    thresholds are those that tell the edited copies from other texts, see `calibrate`. Fewer than 100 distinct texts
    are not enough for that; then 0.95 and 0.8 are used, and a note says so.

    Args:
        source: A directory that `encode_corpus` wrote, or a corpus that `load_texts` takes, which is encoded.
        model: The encoder, or a name or path that `Encoder.from_pretrained` takes; default: "small". For a directory
            it is the model that wrote it, whose name the directory holds. Without it "auto" is refused, and with a
            threshold it is not known whose words the model does not know.
        threshold: The threshold of the cosine, or "auto".
        words: The threshold of the overlap of words (the words of both texts, divided by those of either); default:
            with "auto" it is calibrated too, else words do not count.
        column: The column of the texts, as in `load_texts`; not for a directory.
        id_column: A column of ids of your own; not for a directory, which holds them already.
        seed: The seed of the sample with "auto".

    Raises:
        InputError: The corpus has no text or cannot be read, the directory is damaged or has parts of long texts, the
            model is not the one that wrote it, or a threshold is outside its range.

    Example:
        >>> found = near_duplicates("tickets.csv", "my-encoder", column="body")  # doctest: +SKIP
        >>> unique = [text for text, kept in zip(found.texts, found.kept) if kept]  # doctest: +SKIP
    """
    if threshold != "auto" and threshold not in _THRESHOLD:
        raise InputError(f"threshold must be 'auto' or {_THRESHOLD}, not {threshold!r}.")
    if words is not None:
        _THRESHOLD.check("words", words)
    columns = {"column": column, "id_column": id_column}
    corpus = _directory(source, model, columns) if is_vectors(source) else _texts(source, model, columns)
    firsts: dict[str, int] = {}  # from each distinct text to its first row
    first = np.array([firsts.setdefault(bare(text), row) for row, text in enumerate(corpus.texts)])
    rows = np.array(list(firsts.values()))
    distinct = [corpus.texts[row] for row in rows]
    vectors = corpus.vectors(rows)
    notes: list[str] = []
    calibration: Calibration | None = None
    cosine: float | None = COSINE
    unknown = corpus.unknown(distinct, notes, threshold == "auto")
    vectors[unknown] = 0  # the cosine with everything is 0
    if isinstance(threshold, str):
        known = [text for text, each in zip(distinct, unknown, strict=True) if not each]
        calibration = calibrate(vectors[~unknown], known, corpus.encode, words=words, seed=seed)
        if calibration is not None:
            cosine, words = calibration.cosine, calibration.words
        else:
            words = WORDS if words is None else words
            which = " that the model knows" if unknown.any() else ""
            notes.append(
                f"There are {len(known):,} distinct texts{which}, and {LEAST} are needed to choose a threshold: these "
                "are the defaults, and it is not known how often they are wrong."
            )
    else:
        cosine = threshold
    groups = near_duplicate_groups(vectors, distinct, cosine, words)
    if calibration is not None:
        notes.append(_said_of(calibration, groups))
    directions, place = unit(vectors), np.searchsorted(rows, first)
    groups = groups[place]  # of every row
    keeper = np.unique(groups, return_index=True)[1][groups]
    kept = keeper == np.arange(len(groups))
    copies = first != np.arange(len(groups))
    why = ["" if keep else "copy" if copy else "near" for keep, copy in zip(kept, copies, strict=True)]
    cosines, overlap = np.ones(len(groups)), np.ones(len(groups))
    near = np.flatnonzero(first != keeper)
    cosines[near] = np.einsum("ij,ij->i", directions[place[near]], directions[place[keeper[near]]])
    overlap[near] = overlaps([corpus.texts[row] for row in near], [corpus.texts[row] for row in keeper[near]])
    if (count := int(unknown[place].sum())) and cosine is not None:
        their = "its vector says" if count == 1 else "their vectors say"
        notes.append(
            f"In {counted(count, 'text')} the model knows at most half of the words, so {their} little and the "
            "cosine does not count: of these only copies and texts that share words are found. Name a model for their "
            "language."
        )
    if (cut := corpus.cut()) and cosine is not None:
        notes.append(
            f"{cut:,} texts are longer than the model reads, so their vectors are those of their beginnings: texts "
            "that differ only after that are taken for near-duplicates."
        )
    return Duplicates(
        corpus.texts, corpus.ids, groups, kept, why, cosines, overlap, cosine, words, calibration, notes, corpus.columns
    )


def rule(cosine: float | None, words: float | None) -> str:
    """When two texts count as near-equal, as the end of a sentence; empty if no threshold counts.

    Example:
        >>> rule(0.912, None)
        'the cosine of their vectors is at least 0.912'
    """
    ways = [] if cosine is None else [f"the cosine of their vectors is at least {cosine:.3f}"]
    ways += [] if words is None else [f"they share at least {words:.2f} of their words"]
    return ", or ".join(ways)


@dataclass(frozen=True)
class _Corpus:
    """The texts of a source, and how to get their vectors.

    Attributes:
        texts: The texts.
        ids: Their ids.
        columns: The user's other columns.
        vectors: Gives the vectors of some rows.
        encode: Gives the vectors of other texts.
        unknown: Says of some texts whether the model does not know half of their words; if that cannot be known, it
            adds a note, or raises an error if the model is needed.
        cut: Gives the number of texts that are longer than the model reads; None if it is not known.
    """

    texts: list[str]
    ids: Sequence[Any]
    columns: Mapping[str, Sequence[Any]]
    vectors: Callable[[np.ndarray], np.ndarray]
    encode: Encode
    unknown: Callable[[Sequence[str], list[str], bool], np.ndarray]
    cut: Callable[[], int | None]


def _texts(source: Any, model: Encoder | str | Path | None, columns: Mapping[str, str | None]) -> _Corpus:
    """A corpus that has to be encoded."""
    texts, ids = read_with_ids(source, column=columns["column"], id_column=columns["id_column"])
    encoder = model if isinstance(model, Encoder) else Encoder.from_pretrained(model or "small")
    prompt = corpus_prompt(encoder)

    def encode(several: Sequence[str]) -> np.ndarray:
        found: np.ndarray = encoder.encode(several, prompt=prompt, normalize=True)
        return found

    return _Corpus(
        texts,
        ids,
        {},
        lambda rows: encode([texts[row] for row in rows]),
        encode,
        lambda several, *_: unknown_texts(encoder, several),
        lambda: int(are_longer(encoder, texts, prompt).sum()),
    )


def _directory(source: str | Path, model: Encoder | str | Path | None, columns: Mapping[str, str | None]) -> _Corpus:
    """A corpus that is encoded already; its model is loaded if it is needed."""
    for name, value in columns.items():
        if value is not None:
            raise InputError(f"{name} was settled when {source} was encoded; leave it out.")
    vectors = Vectors(source)
    vectors.check_whole("looking for duplicates")

    @cache
    def encoder() -> Encoder:
        name = model or vectors.name
        if not name:
            raise InputError(f"{source} does not say where its model is. Name the model that wrote it.")
        found = vectors.load_encoder(name)
        if why := vectors.other_model(found):
            raise InputError(f"{why} Name the model that wrote it.")
        return found

    def encode(several: Sequence[str]) -> np.ndarray:
        settings = vectors.manifest["settings"]
        options = {"prompt": vectors.prompt, "normalize": vectors.normalized, "bf16": settings["bf16"]}
        return unit(vectors.compression.reduce(encoder().encode(several, **options)))

    def unknown(several: Sequence[str], notes: list[str], needed: bool) -> np.ndarray:
        try:
            return unknown_texts(encoder(), several)
        except InputError as error:
            if needed:
                raise InputError(f"{error} Or give a threshold in place of 'auto', which needs the model.") from None
            notes.append(f"Texts whose words the model does not know may be taken for near-duplicates. {error}")
            return np.zeros(len(several), bool)

    return _Corpus(
        vectors.texts(),
        vectors.own_ids() or vectors.ids().tolist(),
        {result_name(name, COLUMNS): vectors.column(name) for name in vectors.columns},
        lambda rows: vectors.vectors()[rows],
        encode,
        unknown,
        lambda: texts_cut(vectors.directory, read_complete(vectors.directory)),
    )


def _said_of(calibration: Calibration, groups: np.ndarray) -> str:
    """What a user has to know about a calibration; `groups`: the group of each distinct text."""
    grouped = int((np.bincount(groups)[groups] > 1).sum())
    wrong = min(round(calibration.false * len(groups)), grouped)
    missed = "No threshold separates edited copies from other texts:"
    few = f"up to {wrong:,} of the {counted(grouped, 'different text')} in groups may only be about the same thing"
    if not wrong:  # a sample cannot show that there is none
        missed = "No threshold finds nearly all of the edited copies, but"
        few = (
            f"none of the {calibration.texts:,} texts that were measured was taken for a copy of a text in other "
            "words. Texts of one template, which differ in a number or a name, count as near-duplicates"
        )
    if calibration.separates and grouped:
        return f"A threshold separates edited copies from other texts; {few}."
    said = "No two different texts are in one group."
    if grouped:
        said = (
            f"{missed} {few}. Read some groups, those with the least cosines first, before you remove anything; "
            "`textcl duplicates --threshold` with a higher number finds fewer."
        )
    if calibration.cosine is None:
        said += " The cosine does not count, because too many other texts are as near as copies."
    return said
