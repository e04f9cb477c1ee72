"""Every evaluator: what it refuses with a sentence, what it says, and the odd texts that it survives."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Clustering, Geometry, LabelledPairs, Retrieval, Transfer

ODD = [
    "<script>alert(1)</script>",
    "👩‍🚀🚀",
    "שלום עולם",
    "nul \0 here",
    "\u202eright to left",
    " ",
    "&lt;b&gt;",
    "e\u0301",
]
MANY = [f"{odd} {text}" for odd in ODD for text in TEXTS[:6]]
LABELS = [number % 2 for number in range(len(MANY))]


def evaluators(folder: Path, sets: Path) -> dict[str, Callable[[Any], Any]]:
    """One of each kind, over odd texts of its own where it takes them."""
    pairs = folder / "pairs.tsv"
    lines = [f"{text}\t{MANY[-i]}\t{i % 5}\n" for i, text in enumerate(MANY)]
    pairs.write_text("".join(lines).replace("\0", ""), encoding="utf-8")  # a file with a NUL byte is refused
    return {
        "sts": LabelledPairs(pairs),
        "transfer": Transfer({"odd": (MANY, LABELS)}, mode="fast", setting="dev"),
        "clustering": Clustering({"odd": (MANY, LABELS)}, seeds=[0]),
        "geometry": Geometry(sets),
        "retrieval": Retrieval(dict(enumerate_("q", ODD)), dict(enumerate_("d", MANY)), {"q1": {"d7": 2, "d8": 1}}),
    }


def enumerate_(letter: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{letter}{number}", text) for number, text in enumerate(texts)]


KINDS = ("sts", "transfer", "clustering", "geometry", "retrieval")


class Fixed(HashedWords):
    """Word counts, but for one text."""

    def __init__(self, value: float) -> None:
        self.value = value

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = super().encode(texts)
        rows[len(texts) // 2, 3] = self.value
        return rows


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 4), self.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_embeddings_are_refused(
    kind: str, value: float, tmp_path: Path, evaluation_sets: Path
) -> None:
    with pytest.raises(InputError, match=r"NaN or infinite values for 1 of [\d,]+ texts, first for '"):
        evaluators(tmp_path, evaluation_sets)[kind](Fixed(value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_embeddings_are_refused_or_said(
    kind: str, value: float, tmp_path: Path, evaluation_sets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = evaluators(tmp_path, evaluation_sets)[kind]
    refused = {"transfer": "the same embedding for all .*it has collapsed"} | (
        {"geometry": "zero vector"} if not value else {}
    )
    if kind in refused:
        with pytest.raises(InputError, match=refused[kind]):
            evaluator(Constant(value))
        return
    with caplog.at_level(logging.WARNING, "textcl"):
        result = evaluator(Constant(value))
    json.dumps(result.to_dict(), allow_nan=False)  # what is undefined is no NaN in an average
    said = {
        "sts": "are equal on pairs pairs.tsv: the correlation is undefined and counts as 0",
        "clustering": "Only 1 of 2 clusters hold a text",
        "retrieval": "All documents are equally near to 1 of 1 queries",
        "geometry": "",
    }
    assert said[kind] in caplog.text
    if kind == "geometry":  # this is what it measures
        assert (result.average["anisotropy"], result.average["effective_rank"]) == pytest.approx((1, 1), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_rows_is_refused(kind: str, tmp_path: Path, evaluation_sets: Path) -> None:
    class Short(HashedWords):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode(texts)[1:]

    with pytest.raises(InputError, match=r"was given [\d,]+ texts and returned an array of shape"):
        evaluators(tmp_path, evaluation_sets)[kind](Short())


def test_labels_that_do_not_fit_the_texts_are_refused(tmp_path: Path) -> None:
    for evaluator in (Transfer, Clustering):
        with pytest.raises(InputError, match="mine has 8 texts and 7 labels; each text needs one"):
            evaluator({"mine": (ODD, LABELS[:7])})
        with pytest.raises(InputError, match="mine has 1 classes"):
            evaluator({"mine": (ODD, [0] * 8)})
    (tmp_path / "pairs.tsv").write_text("a\tb\t1\nc\td\n")
    with pytest.raises(InputError, match="line 2: the line must have three cells"):
        LabelledPairs(tmp_path / "pairs.tsv")
    with pytest.raises(
        InputError, match="class 1 has 4 of 24 texts, so one of 5 folds would have no text of this class"
    ):
        Transfer({"mine": (MANY[:24], [0] * 20 + [1] * 4)}, setting="dev")(HashedWords())


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_are_survived(kind: str, tmp_path: Path, evaluation_sets: Path) -> None:
    if kind == "geometry":  # its texts are those of STS-B
        return
    encoder = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "model"))
    result = evaluators(tmp_path, evaluation_sets)[kind](encoder)
    json.dumps(result.to_dict(), allow_nan=False)
    assert result.table()
    result.save(tmp_path / "result.json")
