"""Blind judging: pairs of first results of two systems with hidden sides, answers to them, and what these resolve to.

Two files lie side by side. The file of answers has a line for each answer: the set of pairs, the number of the pair and
the chosen side. The sealed file beside it has the texts of the pairs, the names of the systems, and, in a form that is
not readable at a glance, which system is on which side.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textcl.adaptation.corpus import check_known, read_corpus
from textcl.adaptation.sign_test import Preference, sign_test
from textcl.adaptation.systems import NOTHING, load_system
from textcl.adaptation.workplace import Workplace
from textcl.data.rows import cell_text, open_table
from textcl.errors import InputError
from textcl.files import atomic_write, check_output, content_hash
from textcl.locks import taken
from textcl.ranges import Seed, checked
from textcl.seals import read_sealed, write_sealed
from textcl.terminal import printable
from textcl.texts import bare
from textcl.vectors.bm25 import check_language
from textcl.vectors.near_duplicates import near_duplicate_groups

logger = logging.getLogger("textcl")

LENGTHS = (50, 100, 200)
SIDES = ("left", "right", "equal", "neither")
NO_RESULT = "(nothing found)"
SHOWN = 2000  # characters of a text that a person sees
LOOKED = 2000  # queries for which both systems are asked, at most
_HEADER = ("set", "pair", "side")


@dataclass(frozen=True)
class Pair:
    """A query and the first results of two systems. A result is empty if a system finds nothing."""

    query: str
    left: str
    right: str


@dataclass(frozen=True)
class BlindPairs:
    """The pairs of one judging, and the place of its answers.

    Attributes:
        output: The file of answers.
        pairs: The pairs, in the order in which they are judged.
        name: The name of this set of pairs, which each answer repeats.
        content: All that the sealed file holds.
    """

    output: Path
    pairs: list[Pair]
    name: str
    content: dict[str, Any]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def systems(self) -> tuple[str, str]:
        """The names of the two systems, (BEFORE, AFTER)."""
        before, after = self.content["systems"]
        return before, after

    @property
    def what(self) -> str:
        """What the queries are: "Query", or "Text" if they are texts of the data."""
        return "Query" if self.content["from_log"] else "Text"

    def shown(self, number: int) -> tuple[str, str, str]:
        """Query, left and right text of a pair as a person sees them: long ones are cut, and nothing is hidden in them.

        Args:
            number: The pair, from 0.
        """
        pair = self.pairs[number]
        query, left, right = (
            printable(text if len(text) <= SHOWN else f"{text[: SHOWN - 2]} …") or NO_RESULT
            for text in (pair.query, pair.left, pair.right)
        )
        return query, left, right

    def before_is_left(self) -> list[bool]:
        """Whether the left text of each pair is that of BEFORE."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.content["sides"]), np.uint8), count=len(self))
        return [bool(bit) for bit in bits]

    def answers(self) -> list[str]:
        """The answers so far: "left", "right", "equal" or "neither" for the first pair, the second, and so on.

        Raises:
            InputError: The file of answers is not one of these pairs, or it was changed by hand.
        """
        if not self.output.exists():
            return []
        table = open_table(self.output)
        found: dict[str, str] = {}
        known = {str(number) for number in range(1, len(self) + 1)}
        for row, cells in table.cells(_HEADER):
            name, number, side = (cell_text(cell, table.at(row)).strip() for cell in cells)
            if name != self.name:
                raise InputError(
                    f"{table.at(row)}: the answer is to the set of pairs '{name}', and {pairs_path(self.output)} holds "
                    f"the set '{self.name}'; put the two files of one judging side by side."
                )
            if number not in known or side not in SIDES:
                raise InputError(
                    f"{table.at(row)}: an answer has a pair from 1 to {len(self)} and a side ({', '.join(SIDES)}), not "
                    f"'{number}' and '{side}'; correct the line or remove it."
                )
            if number in found:
                raise InputError(f"{table.at(row)}: pair {number} has an answer above already; remove one of the two.")
            found[number] = side
        answered = [str(number) for number in range(1, len(found) + 1)]
        if missing := [number for number in answered if number not in found]:
            raise InputError(f"{self.output} has no answer to pair {missing[0]}, but to later ones; add that line.")
        return [found[number] for number in answered]

    def write(self, answers: Sequence[str]) -> None:
        """Writes the answers so far, atomically."""
        rows = [_HEADER, *((self.name, str(number), side) for number, side in enumerate(answers, start=1))]
        with atomic_write(self.output) as temporary:
            temporary.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())


@checked
def draw_pairs(
    before: str,
    after: str,
    data: Any,
    output: str | os.PathLike[str],
    *,
    columns: Sequence[str] = (),
    query_log: str | os.PathLike[str] | None = None,
    answers: int = 50,
    language: str = "english",
    seed: Seed = 0,
) -> BlindPairs:
    """Draws queries for which two systems have different first results, and hides which result is whose.

    Up to 2,000 queries, drawn at random, are given to both systems; of near-duplicates in a query log only one. The
    pairs are the first of them, in random order, for which the first results differ. Sides are drawn at random. The
    same call goes on with a judging that was begun.

    Args:
        before: A system: a name or path that `Encoder.from_pretrained` takes, "bm25", "tfidf", or "hybrid:" and a
            model: vectors and BM25, see `textcl.vectors.fusion.fuse`.
        after: The other system.
        data: The texts that are found: as `textcl.load_texts` takes them, or a directory that `textcl encode` wrote.
        output: The file of answers, which ends in .tsv; the sealed file lies beside it.
        columns: The column of the texts, or the columns of titles and texts.
        query_log: A file of queries, one for each line or row (column "query", else "text" or "sentence"); repeated
            ones count once. None: texts of `data` are the queries, and each is left out of its own results.
        answers: The number of pairs: 50, 100 or 200.
        language: The language of the words of BM25.
        seed: The seed of queries and sides.

    Raises:
        InputError: For bad input of any kind; or the systems differ for too few queries.

    Example:
        >>> pairs = textcl.draw_pairs("bundled", "bm25", "notes.txt", "judgements.tsv")  # doctest: +SKIP
        >>> pairs.write(["left"])  # doctest: +SKIP
    """
    if answers not in LENGTHS:
        raise InputError(f"The number of answers must be {', '.join(map(str, LENGTHS[:-1]))} or {LENGTHS[-1]}.")
    check_language(language)
    target = Path(output)
    if target.suffix.lower() != ".tsv":  # a file is read by its suffix
        raise InputError(f"Answers are written as a table with tabs, so name a file that ends in .tsv, not {output}.")
    check_output(target)
    check_output(pairs_path(target))
    corpus = read_corpus(data, columns, command="textcl judge")
    texts = corpus.texts
    queries = texts if query_log is None else read_queries(query_log)
    advice = f"Give more texts or queries{', or fewer --answers' if answers > min(LENGTHS) else ''}."
    if len(queries) < answers:
        raise InputError(f"{answers} queries are needed, and there are {len(queries):,}. {advice}")
    systems = [load_system(before), load_system(after)]
    for system in systems:
        if system.encoder is not None:
            check_known(system.encoder, corpus)
    names = [system.identity() for system in systems]
    if names[0] == names[1]:
        raise InputError(f"{before} and {after} are the same system; name two different ones.")
    settings = {"systems": names, "texts": corpus.hash(), "language": language, "answers": answers, "seed": seed}
    identity = content_hash({**settings, "queries": None if query_log is None else queries})
    folder = target.resolve().with_name(f".{target.name}.judge")
    with taken(folder):
        if pairs_path(target).exists():
            pairs = _begun(target, identity)
        elif target.exists():
            raise InputError(f"{target} exists already, and is not of textcl judge; name another file.")
        else:
            generator = np.random.default_rng(seed)
            asked = generator.permutation(len(queries))[:LOOKED]
            if query_log is not None:  # the test takes answers as independent; those to nearly equal queries are not
                groups = near_duplicate_groups(None, [queries[row] for row in asked])
                asked = asked[np.unique(groups, return_index=True)[1]]
            drawn = [queries[row] for row in asked]
            own, place = asked if query_log is None else None, Workplace(folder, corpus.source)
            first, second = (system.first(texts, drawn, own, place, language) for system in systems)
            differ = np.flatnonzero(first != second)
            if len(differ) < answers:
                shutil.rmtree(folder)
                raise InputError(
                    f"The systems have different first results for {len(differ):,} of {len(drawn):,} queries, and "
                    f"{answers} such queries are needed. {advice}"
                )
            before_is_left = generator.integers(2, size=answers).astype(bool)
            judged = []
            for row, in_order in zip(differ[:answers], before_is_left, strict=True):
                results = ["" if number == NOTHING else texts[number] for number in (first[row], second[row])]
                left, right = results if in_order else reversed(results)
                judged.append({"query": drawn[row], "left": left, "right": right})
            content = {
                "identity": identity,
                "systems": [before, after],
                "from_log": query_log is not None,
                "looked": len(drawn),
                "differ": len(differ),
                "pairs": judged,
                "sides": np.packbits(before_is_left).tobytes().hex(),
            }
            write_sealed(pairs_path(target), content)
            pairs = read_blind_pairs(target)
        shutil.rmtree(folder)
    return pairs


def read_queries(source: str | os.PathLike[str]) -> list[str]:
    """The distinct queries of a file, in its order.

    Raises:
        InputError: The file cannot be read, or has no query.
    """
    table = open_table(source)
    wanted = ("query", "text", "sentence") if "query" in table.names() else None
    found: dict[str, str] = {}
    for number, (cell,) in table.cells([wanted]):
        query = cell_text(cell, table.at(number)).strip()
        found.setdefault(bare(query), query)
    found.pop("", None)
    if not found:
        raise InputError(f"There is no query in {source}; give a file with a query in each line, or a column 'query'.")
    return list(found.values())


def pairs_path(output: str | os.PathLike[str]) -> Path:
    """The sealed file beside a file of answers.

    Example:
        >>> pairs_path("judgements.tsv").name
        'judgements.tsv.pairs.json'
    """
    return Path(output).with_name(f"{Path(output).name}.pairs.json")


def read_blind_pairs(output: str | os.PathLike[str]) -> BlindPairs:
    """The pairs that `draw_pairs` wrote beside a file of answers.

    Raises:
        InputError: There are none, or they are damaged.
    """
    path = pairs_path(output)
    try:
        content = read_sealed(path)
        pairs = [Pair(each["query"], each["left"], each["right"]) for each in content["pairs"]]
        return BlindPairs(Path(output), pairs, content_hash(content)[:12], content)
    except FileNotFoundError:
        raise InputError(
            f"There is no {path}, which says what the answers mean. textcl judge writes it; put it beside the file of "
            "answers, under this name."
        ) from None
    except (KeyError, TypeError):
        raise InputError(
            f"{path} does not hold the pairs of textcl judge; name the file of answers beside it."
        ) from None


def finish_judging(output: str | os.PathLike[str]) -> Preference:
    """Resolves the sides of a complete file of answers, and tests whether one of the two systems is better.

    Args:
        output: The file of answers.

    Raises:
        InputError: The file is damaged or not complete; nothing is counted before the end.

    Example:
        >>> textcl.finish_judging("judgements.tsv").better  # doctest: +SKIP
        'adapted/'
    """
    pairs, answers = read_finished(output)
    counts = {"before": 0, "after": 0, "equal": 0, "neither": 0}
    for answer, before_is_left in zip(answers, pairs.before_is_left(), strict=True):
        if answer in ("left", "right"):
            answer = "before" if (answer == "left") == before_is_left else "after"
        counts[answer] += 1
    return sign_test(pairs.systems, **counts, differ=pairs.content["differ"], looked=pairs.content["looked"])


def read_finished(output: str | os.PathLike[str]) -> tuple[BlindPairs, list[str]]:
    """The pairs and the answers of a judging that is complete.

    Raises:
        InputError: It is not, or a file is missing or damaged.
    """
    if not Path(output).is_file():
        raise InputError(f"There is no file {output}; name the file of answers that textcl judge wrote.")
    pairs = read_blind_pairs(output)
    answers = pairs.answers()
    if len(answers) < len(pairs):
        raise InputError(
            f"{output} has {len(answers)} of {len(pairs)} answers. Give the others first: the length was fixed "
            "beforehand, and nothing is counted before the end."
        )
    return pairs, answers


def _begun(target: Path, identity: str) -> BlindPairs:
    """The pairs of a judging that was begun by the same call."""
    pairs = read_blind_pairs(target)
    if pairs.content["identity"] != identity:
        raise InputError(
            f"{target} belongs to another judging: systems, texts, queries, length or seed differ. Name another "
            "output, or go on with the command that began it."
        )
    if done := len(pairs.answers()):
        logger.info("%s has %d of %d answers already.", target, done, len(pairs))
    return pairs
