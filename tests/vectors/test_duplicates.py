"""Near-duplicates of a corpus: what the result promises, from texts and from vectors; hostile and odd texts."""

import csv
import json
import logging
import lzma
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.texts import bare, spreadsheet_safe
from textcl.vectors.calibration import Calibration
from textcl.vectors.duplicates import COLUMNS, _said_of, near_duplicates
from textcl.vectors.encode import encode_corpus
from textcl.vectors.near_duplicates import overlaps
from textcl.vectors.planted_edits import KINDS, edit
from textcl.vectors.unknown import unknown_texts

FORMULAS = ["=cmd|' /C calc'!A0", "+1", "@sum", "-2", "'=1"]
HOSTILE = [*FORMULAS, "<script>alert(1)</script>", "\x1b[31mred\u202e", "a\rb", '"q"']


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("model"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_row_is_there_and_near_its_kept_row(model: Path, tmp_path: Path) -> None:
    texts = [*TEXTS[:60], *(text.upper() for text in TEXTS[20:40]), *HOSTILE, f"  {TEXTS[0]}  "]
    texts += [f"{TEXTS[1]} indeed", f"{TEXTS[1]} indeed"]
    encoder = Encoder.from_pretrained(model)
    found = near_duplicates(texts, encoder, threshold=0.97, words=0.7)
    assert found.texts == [text.strip() for text in texts]
    plain = [bare(text) for text in found.texts]
    vectors = encoder.encode([found.texts[plain.index(each)] for each in plain], normalize=True)
    unknown = unknown_texts(encoder, plain)  # some signs are not in the tiny vocabulary
    kept = {int(group): row for row, group in reversed(list(enumerate(found.groups)))}  # the first row of each group
    for row, group in enumerate(found.groups.tolist()):
        assert found.kept[row] == (row == kept[group])
        cosine, share = vectors[row] @ vectors[kept[group]], overlaps([plain[row]], [plain[kept[group]]])[0]
        assert cosine >= 0.97 - 1e-5 or share >= 0.7 - 1e-9
        copied = plain[row] == plain[kept[group]]
        counts = copied or not (unknown[row] or unknown[kept[group]])
        assert found.cosines[row] == pytest.approx(cosine if counts else 0, abs=1e-5)
        assert found.words[row] == pytest.approx(1 if copied else share)
        assert (found.why[row] == "copy") == (plain[row] in plain[:row])
    assert found.groups[-3] == found.groups[0]
    assert 0 < found.why.count("near") < len(texts)
    assert found.why.count("copy") == len(plain) - len(set(plain)) >= 1
    assert any(  # equal to each other, and only near the kept row
        why == "copy" and plain[row] != plain[kept[int(found.groups[row])]] for row, why in enumerate(found.why)
    )

    found.save(tmp_path / "groups.csv")
    rows = read(tmp_path / "groups.csv")
    assert [row["id"] for row in rows] == [str(row) for row in range(len(texts))]
    assert tuple(rows[0]) == COLUMNS
    for row, line in enumerate(rows):
        first = kept[int(line["group"])]
        assert line["kept"] == ("yes" if row == first else "no")
        assert line["duplicate_of"] == ("" if row == first else str(first))
        assert int(line["size"]) == (found.groups == found.groups[row]).sum()
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["texts"] == record["kept"] + record["copies"] + record["near"] == len(texts)
    listed = {(each["kept"], other["id"]) for each in record["groups"] for other in each["duplicates"]}
    assert listed == {(kept[int(found.groups[row])], row) for row in range(len(texts)) if not found.kept[row]}
    sizes = [len(each["duplicates"]) for each in record["groups"]]
    assert sizes == sorted(sizes, reverse=True)


def test_no_cell_is_a_formula_unless_asked(model: Path, tmp_path: Path) -> None:
    found = near_duplicates(HOSTILE, model, threshold=1.0)
    found.save(tmp_path / "safe.csv")
    found.save(tmp_path / "raw.csv", raw=True)
    safe, raw = ([row["text"] for row in read(tmp_path / f"{name}.csv")] for name in ("safe", "raw"))
    assert raw == HOSTILE
    assert not any(text[0] in "=+-@\t\r" for text in safe)
    assert [text.removeprefix("'") if text != row else text for text, row in zip(safe, raw, strict=True)] == raw
    assert spreadsheet_safe("'=1") == "''=1"
    assert len(set(map(spreadsheet_safe, [*HOSTILE, "''=1"]))) == len(HOSTILE) + 1


def test_vectors_give_what_their_texts_give(model: Path, tmp_path: Path) -> None:
    """The same groups, errors and thresholds; the user's ids and columns are in the result."""
    texts = [*TEXTS[:150], *(text.upper() for text in TEXTS[:10])]
    rows = [{"text": t, "key": f"=k{n}", "day": f"2026-01-{1 + n % 28:02}", "group": n} for n, t in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"column": "text", "id_column": "key", "columns": ["day", "group"]}
    encode_corpus(model, tmp_path / "rows.jsonl", tmp_path / "v", shard_rows=64, **options)
    of_vectors = near_duplicates(tmp_path / "v")
    of_texts = near_duplicates(tmp_path / "rows.jsonl", model, column="text", id_column="key")
    assert of_vectors.groups.tolist() == of_texts.groups.tolist()
    assert of_vectors.calibration == of_texts.calibration is not None
    assert of_vectors.ids == of_texts.ids == [row["key"] for row in rows]
    of_vectors.save(tmp_path / "groups.csv")
    saved = read(tmp_path / "groups.csv")
    assert [(row["id"], row["day"], row["column:group"]) for row in saved] == [
        (f"'{row['key']}", row["day"], str(row["group"])) for row in rows
    ]

    tiny_encoder_directory(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"is not the model that wrote .* in place of 'auto', which needs the model"):
        near_duplicates(tmp_path / "v", tmp_path / "other")
    found = near_duplicates(tmp_path / "v", tmp_path / "other", threshold=0.9)  # the model is not needed
    assert found.calibration is None
    assert "Texts whose words the model does not know may be taken for near-duplicates" in found.notes[0]
    with pytest.raises(InputError, match=r"column was settled when .* was encoded"):
        near_duplicates(tmp_path / "v", column="text")
    with pytest.raises(InputError, match="id_column was settled when"):
        near_duplicates(tmp_path / "v", id_column="key")
    encode_corpus(model, ["word " * 200, "a"], tmp_path / "parts", split_long=True)
    with pytest.raises(InputError, match="holds parts of long texts, and looking for duplicates needs one vector"):
        near_duplicates(tmp_path / "parts")


def test_planted_copies_of_real_sentences_are_found(shared_data: Path) -> None:
    with lzma.open(shared_data / "wiki100k_like.txt.xz", "rt", encoding="utf-8") as handle:
        texts = list(dict.fromkeys(line.strip() for line in islice(handle, 170) if len(line.split()) > 5))
    copies = [(kind, row, edit(texts[row], texts[row + 1], kind)) for kind in KINDS for row in range(20)]
    found = near_duplicates([*texts, *(copy for _, _, copy in copies)])
    right = dict.fromkeys(KINDS, 0)
    for number, (kind, row, _) in enumerate(copies):
        right[kind] += found.groups[len(texts) + number] == found.groups[row]
    assert right["case"] == 20
    assert min(right.values()) >= 17
    assert found.kept[: len(texts)].mean() >= 0.9  # few sentences were taken for copies of others
    assert found.calibration is not None
    assert found.calibration.found["case"] == 1
    assert found.calibration.false <= 0.1


def test_few_texts_have_the_defaults_and_a_note(model: Path) -> None:
    found = near_duplicates(["one cat", "a dog", "One  cat"], model)
    assert (found.cosine, found.overlap, found.calibration) == (0.95, 0.8, None)
    assert found.why[2] == "copy"
    assert "There are 2 distinct texts, and 100 are needed to choose a threshold" in found.notes[0]
    assert near_duplicates(["the same"] * 5, model).kept.tolist() == [True, *[False] * 4]
    assert near_duplicates(["alone"], model).members() == []


def test_without_a_group_of_different_texts_nothing_has_to_be_read() -> None:
    calibration = Calibration(0.97, 1.0, False, {"case": 1.0}, 0.4, 100)
    copies_alone, different = np.arange(5), np.array([0, 0, 1, 2, 3])
    assert _said_of(calibration, copies_alone) == "No two different texts are in one group."
    assert "up to 2 of the 2 different texts in groups" in _said_of(calibration, different)
    assert "up to 1 of the 2 different texts in groups" in _said_of(replace(calibration, false=0.2), different)
    none = _said_of(replace(calibration, false=0.0), different)
    assert none.startswith("No threshold finds nearly all of the edited copies, but none of the 100 texts that were")
    assert "up to" not in none, "a sample cannot show that no text of all is wrong"
    certain = _said_of(replace(calibration, false=0.0, separates=True), different)
    assert certain.startswith("A threshold separates edited copies from other texts; none of the 100 texts")
    for said in (none, certain):
        assert "Texts of one template, which differ in a number or a name, count as near-duplicates." in said
    without = _said_of(replace(calibration, cosine=None), copies_alone)
    assert without.startswith("No two different texts are in one group. The cosine does not count")


UNREADABLE = ["我想退货", "订单什么时候发货", "ใบเสร็จ", "🙂 🙂", "🚀", "\u200b", "我想退货"]


@pytest.mark.parametrize("known", [10, 140])
def test_texts_that_the_model_reads_as_unknown_words_are_no_near_duplicates(
    known: int, model: Path, tmp_path: Path
) -> None:
    """Copies and shared words still count, and the thresholds are those of the other texts alone."""
    texts = [*TEXTS[:known], *UNREADABLE, "发票 开错 了", "了 开错 发票"]
    alone, found = near_duplicates(TEXTS[:known], model), near_duplicates(texts, model)
    assert (found.calibration, found.cosine) == (alone.calibration, alone.cosine)
    assert found.groups[:known].tolist() == alone.groups.tolist()
    assert found.why[known:] == [*[""] * 6, "copy", "", "near"]
    assert (found.cosines[-1], found.words[-1]) == (0, 1)
    fewer = "There are 10 distinct texts that the model knows, and 100 are needed to choose a threshold"
    assert any(each.startswith(fewer) for each in found.notes) == (known == 10)
    note = found.notes[-1]
    assert note.startswith("In 9 texts the model knows at most half of the words")
    encode_corpus(model, texts, tmp_path / "v")
    for threshold in ("auto", 0.9):
        of_vectors = near_duplicates(tmp_path / "v", threshold=threshold, words=0.8)
        assert of_vectors.why[known:] == found.why[known:]
        assert note in of_vectors.notes


def test_long_texts_are_said_to_be_seen_in_part(model: Path) -> None:
    long = ["word " * 10_000 + end for end in ("one", "two")]
    found = near_duplicates([*long, *TEXTS[:100]], model, threshold=0.999)
    assert found.groups[0] == found.groups[1]
    assert found.notes == [
        "2 texts are longer than the model reads, so their vectors are those of their beginnings: texts that differ "
        "only after that are taken for near-duplicates."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold must be 'auto' or a finite number above 0 and at most 1, not 0.0"),
        ({"threshold": "best"}, "threshold must be 'auto' or a finite number"),
        ({"threshold": float("nan")}, "not nan"),
        ({"words": 1.5}, "words must be a finite number above 0 and at most 1, not 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str, model: Path) -> None:
    with pytest.raises(InputError, match=message):
        near_duplicates(TEXTS[:3], model, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the list holds no text"):
        near_duplicates([" ", ""], model)


def test_blank_rows_keep_their_ids(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "textcl"):
        found = near_duplicates(["", "a cat", " ", "A CAT"], model)
    assert found.ids == [1, 3]
    assert np.flatnonzero(found.kept).tolist() == [0]
    assert "2 rows are blank and were left out; ids still count them" in caplog.text
