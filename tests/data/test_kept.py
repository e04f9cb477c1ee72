"""A corpus is read once and kept in a file: later the same rows, also of several files, and never those of another."""

import gzip
import hashlib
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from support.tiny import TEXTS

from textcl import InputError, load_texts
from textcl.data import corpora
from textcl.data.corpora import read_texts, repeats_earlier
from textcl.data.corpus_files import CorpusFiles, files_of
from textcl.data.repeats import TOGETHER, Repeats
from textcl.data.training import find_corpus, training_rows
from textcl.files import file_hash
from textcl.vectors.encode import encode_corpus
from textcl.vectors.vectors import Vectors


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "textcl" / "corpora"


def unread(*args: Any, **options: Any) -> Any:
    raise AssertionError("the corpus was read again")


def shards(folder: Path) -> list[str]:
    """Three files of a corpus, compressed in three ways; the texts in the order of the files' names."""
    folder.mkdir()
    parts = [TEXTS[:5], ["", *TEXTS[5:9]], TEXTS[9:12]]
    lines = ["".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(part)) for part in parts]
    with pyarrow.CompressedOutputStream(str(folder / "a.jsonl.zst"), "zstd") as file:
        file.write(lines[0].encode())
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines[1].encode()))
    (folder / "c.jsonl").write_text(lines[2])
    (folder / ".d.jsonl").write_text("not one of them")
    return TEXTS[:12]


def test_a_pattern_is_the_rows_of_its_files_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = shards(tmp_path / "shards")
    pattern = tmp_path / "shards" / "*.jsonl*"
    assert [file.name for file in files_of(pattern)] == ["a.jsonl.zst", "b.jsonl.gz", "c.jsonl"]
    assert load_texts(pattern)["text"][:] == texts
    assert [text for text in read_texts(str(pattern)) if text] == texts
    corpus = CorpusFiles(find_corpus(str(pattern)))
    assert training_rows(corpus)["text"][:] == texts
    assert corpus.rows_read == 13
    monkeypatch.chdir(tmp_path)
    assert training_rows(Path("shards/*"))["text"][:] == texts
    assert training_rows(Path("**/*.gz"))["text"][:] == texts[5:9]
    (tmp_path / "odd[1].txt").write_text("a text\nanother text\n")  # a file whose name looks like a pattern
    assert load_texts("odd[1].txt")["text"][:] == ["a text", "another text"]


def test_files_named_one_by_one_are_read_in_that_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.txt").write_text("one\ntwo\n")
    Path("a.txt").write_text("three\n\nfour\n")
    Path("c.txt").write_text("five\n")
    texts = ["one", "two", "three", "four", "five"]
    names = ("b.txt", "a.txt", "c.txt")
    for source in ([*map(Path, names)], [Path("b.txt"), Path("[ac].txt")], (*map(Path, names),)):
        assert load_texts(source)["text"][:] == texts
        assert [text for text in read_texts(source) if text] == texts
    for names in (["b.txt", "a.txt", "c.txt"], ["b.txt", "[ac].txt"]):
        corpus = CorpusFiles(find_corpus(names))
        assert training_rows(corpus)["text"][:] == texts
        assert corpus.rows_read == 6
        assert str(corpus) == f"b.txt and {len(names) - 1} more"
    alone = [file_hash(Path(name)) for name in ("b.txt", "a.txt", "c.txt")]
    assert corpus.sha256 == hashlib.sha256(json.dumps(alone).encode()).hexdigest()
    assert CorpusFiles([Path("a.txt"), Path("b.txt"), Path("c.txt")]).sha256 != corpus.sha256
    assert CorpusFiles([Path("b.txt")]).sha256 == CorpusFiles(Path("b.txt")).sha256 == alone[0]
    monkeypatch.setattr(corpora, "LARGE", 1)  # the rows of large files are kept in a file, and read from there
    assert load_texts([Path("b.txt"), Path("c.txt")])["text"][:] == ["one", "two", "five"]
    monkeypatch.setattr(corpora, "batches_of", unread)
    assert load_texts([Path("b.txt"), Path("c.txt")])["text"][:] == ["one", "two", "five"]


def test_a_list_of_names_is_told_from_a_list_of_texts(tmp_path: Path) -> None:
    for names in (["b.txt", "c.txt"], ("shards/*.jsonl.zst",), ["missing.csv"]):
        for read in (load_texts, lambda names: encode_corpus("small", names, "v")):
            with pytest.raises(InputError, match=rf"names files.*Path\('{re.escape(names[0])}'\).*{{'text': "):
                read(names)
    for texts in (["b.txt", "a text"], ["See a.txt.", "b"], [{"text": "b.txt"}, {"text": "c.txt"}]):
        expected = [each["text"] if isinstance(each, dict) else each for each in texts]
        assert load_texts(texts)["text"][:] == expected
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for read in (load_texts, lambda names: training_rows(find_corpus([str(name) for name in names]))):
        with pytest.raises(InputError, match=r"There is no file .*b\.txt[,.]"):
            read(paths)


def test_the_columns_of_a_file_are_sought_in_the_format_of_its_last_suffix(tmp_path: Path) -> None:
    texts = ['"Quoted" at the beginning', "another, with a comma"]
    (tmp_path / "a.csv.txt").write_text("\n".join(texts) + "\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.csv.parquet")
    for name in ("a.csv.txt", "a.csv.parquet"):
        assert training_rows(tmp_path / name)["text"][:] == texts
    (tmp_path / "a.tsv.csv").write_text("sent0,sent1\na,b\nc,d\n")
    with gzip.open(tmp_path / "a.csv.tsv.gz", "wt") as file:
        file.write("sent0\tsent1\na\tb\nc\td\n")
    for name in ("a.tsv.csv", "a.csv.tsv.gz"):
        assert training_rows(tmp_path / name).to_dict() == {"text": ["a", "c"], "positive": ["b", "d"]}


def test_the_hash_covers_every_file_and_their_order(tmp_path: Path) -> None:
    shards(tmp_path / "shards")
    pattern, plain = tmp_path / "shards" / "*", tmp_path / "shards" / "c.jsonl"
    before = CorpusFiles(pattern).sha256
    content = plain.read_text()
    plain.write_text(content.replace(TEXTS[10], "another text"))
    assert CorpusFiles(pattern).sha256 != before
    plain.write_text(content)
    assert CorpusFiles(pattern).sha256 == before
    plain.rename(tmp_path / "shards" / "aa.jsonl")
    assert CorpusFiles(pattern).sha256 != before


def test_files_of_several_formats_with_the_same_columns_are_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,two\n")
    (tmp_path / "b.tsv").write_text("text\tid\nthree\t3\n")
    Dataset.from_dict({"text": ["four", None, "five"], "id": [4, 5, 6]}).to_parquet(tmp_path / "c.parquet")
    paths = [tmp_path / name for name in ("a.csv", "b.tsv", "c.parquet")]
    assert load_texts(paths)["text"][:] == ["one", "two", "three", "four", "five"]
    encode_corpus("small", paths, tmp_path / "v", id_column="id")
    vectors = Vectors(tmp_path / "v")
    assert (vectors.own_ids(), vectors.texts()) == (["1", "2", "3", "4", "6"], ["one", "two", "three", "four", "five"])
    assert vectors.ids().tolist() == [0, 1, 2, 3, 5]
    Dataset.from_dict({"text": ["x", "y"], "id": [1, None]}).to_parquet(tmp_path / "c.parquet")
    for wrong, message in ((paths, r"2 more, row 2 of .*c\.parquet"), (paths[:2], r"1 more, line 2 of .*b\.tsv")):
        (tmp_path / "b.tsv").write_text(f"text\tid\nthree\t{3 if wrong is paths else ' '}\n")
        with pytest.raises(InputError, match=f"{message}, column 'id': the id is missing"):
            encode_corpus("small", wrong, tmp_path / "w", id_column="id")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"No file matches the pattern .*\*"),
        (
            {"a.csv": "text\nx\ny\n", "b.csv": "text,n\nz,1\n"},
            r"different columns, 'text' in .*a\.csv and 'text', 'n' in",
        ),
        (
            {"a.txt": "x\ny\n", "b.jsonl": '{"text": "z"}\n'},
            r"different columns, none in .*a\.txt and those of each line",
        ),
        ({"a.jsonl": '{"text": "x"}\n', "b.jsonl": '{"texts": "y"}\n'}, r"line 1 of .*b\.jsonl has no column 'text'"),
        ({"a.txt": "x\ny\n", "b.bin": "z\n"}, r"b\.bin has the suffix '\.bin'"),
    ],
)
def test_files_that_do_not_belong_together_are_a_sentence(
    tmp_path: Path, cache: Path, files: dict[str, str], message: str
) -> None:
    (tmp_path / "shards").mkdir()
    for name, content in files.items():
        (tmp_path / "shards" / name).write_text(content)
    for read in (load_texts, training_rows):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "shards" / "*")
    with pytest.raises(InputError, match="No file matches the pattern"):
        find_corpus(str(tmp_path / "no" / "*.txt"))
    assert not [file for file in cache.glob("*") if file.is_file()]


def test_columns_in_another_order_agree(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\nx,1\ny,2\n")
    (tmp_path / "b.csv").write_text("n,text\n3,z\n")
    assert load_texts(tmp_path / "*.csv", column="text")["text"][:] == ["x", "y", "z"]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "texts": ("a.txt", {}),
    "a limit": ("a.txt", {"limit": 3}),
    "no copies": ("a.txt", {"dedup": True}),
    "pairs": ("a.csv", {"column": "q,a"}),
    "labels": ("a.csv", {"column": "q", "label_column": "l"}),
    "labels of some": ("a.csv", {"column": "q,a", "label_column": "m", "drop_unlabelled": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_next_run_maps_the_same_rows(
    case: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, options = CASES[case]
    (tmp_path / "a.txt").write_text("one\n\ntwo\nONE\nthree\none\n")
    (tmp_path / "a.csv").write_text("q,a,l,m\nw,x,10,b\ny,,9,\nw,x,10,a\n,,9,b\nz,z,2,b\n")
    caplog.set_level(logging.INFO, logger="textcl")
    first = training_rows(tmp_path / name, **options)
    said = [record.message for record in caplog.records]
    assert said
    caplog.clear()
    monkeypatch.setattr("textcl.data.reading.Reading._rows", unread)
    monkeypatch.setattr("textcl.data.training.repeats_earlier", unread)
    second = training_rows(tmp_path / name, **options)
    assert second.to_dict() == first.to_dict()
    assert second.features == first.features
    assert second._fingerprint == first._fingerprint
    assert [record.message for record in caplog.records] == said
    assert second.cache_files[0]["filename"].startswith(str(cache))
    with pytest.raises(AssertionError, match="read again"):  # other options are other rows
        training_rows(tmp_path / name, **{**options, "limit": 2})


def test_other_columns_and_labels_of_the_same_file_are_other_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,a,l,m\nw,x,10,b\ny,v,9,\nz,u,2,a\n")

    def rows(**options: Any) -> dict[str, list[Any]]:
        return training_rows(tmp_path / "a.csv", **options).to_dict()

    assert rows(column="q") == {"text": ["w", "y", "z"]}
    assert rows(column="a") == {"text": ["x", "v", "u"]}
    assert rows(column="q,a") == {"text": ["w", "y", "z"], "positive": ["x", "v", "u"]}
    assert rows(column="a,q") == {"text": ["x", "v", "u"], "positive": ["w", "y", "z"]}
    assert rows(column="q", label_column="l") == {"text": ["w", "y", "z"], "label": [2, 1, 0]}
    some = {"text": ["w", "z"], "label": [1, 0]}
    assert rows(column="q", label_column="m", drop_unlabelled=True) == some
    with pytest.raises(InputError, match="the label is missing"):
        rows(column="q", label_column="m")


def test_equal_bytes_in_another_format_are_other_rows(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("text\nx\ny\n")
    assert training_rows(tmp_path / "a.txt")["text"][:] == ["text", "x", "y"]
    assert training_rows(tmp_path / "a.csv")["text"][:] == ["x", "y"]


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "no seal", "gone"])
def test_a_damaged_file_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    expected = training_rows(tmp_path / "a.txt")["text"][:]
    (path,) = cache.glob("*.arrow")
    whole = path.read_bytes()
    place = whole.index(TEXTS[7].encode())
    damaged = {
        "cut": whole[:-20],
        "empty": b"",
        "one bit": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
    }
    path.write_bytes(damaged.get(damage, whole))
    if damage == "no seal":
        path.with_suffix(".json").unlink()
    if damage == "gone":
        path.unlink()
    assert training_rows(tmp_path / "a.txt")["text"][:] == expected
    assert path.read_bytes() == whole


def test_where_nothing_can_be_written_the_rows_are_in_memory(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    for options in ({}, {"dedup": True}):
        assert training_rows(tmp_path / "a.txt", **options)["text"][:] == ["one", "two"]
    assert "its texts are in memory" in caplog.text


def test_a_file_that_changes_while_it_is_read_is_a_sentence(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    corpus = CorpusFiles(path)
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match=r"a\.txt changed while it was read"):
        training_rows(corpus)
    assert not [file for file in cache.glob("*") if file.is_file()]


def test_large_files_are_kept_in_python_too(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    small = load_texts(tmp_path / "a.txt")
    assert not cache.exists()
    assert not small.cache_files
    monkeypatch.setattr(corpora, "LARGE", 8)
    large = load_texts(str(tmp_path / "a.txt"))
    assert large.cache_files
    assert large.to_dict() == small.to_dict()


def test_batches_of_many_rows_and_of_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {n}{'x' * (n % 7)}" for n in range(20_000)]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    assert training_rows(tmp_path / "a.txt")["text"][:] == texts
    monkeypatch.setattr("textcl.data.arrow_files.CHARACTERS", 40)
    assert load_texts(tmp_path / "a.txt", limit=100)["text"][:] == texts[:100]


@pytest.mark.parametrize("rows", [0, 1, 1000, 2 * TOGETHER, 2 * TOGETHER + 5])
def test_repeats_are_those_of_a_set(rows: int) -> None:
    draw = np.random.default_rng(rows)
    values = [f"text {number}" for number in draw.integers(0, max(1, rows), rows)]
    repeats = Repeats()
    for value in values:
        repeats.add(value)
    assert repeats.count() == rows - len(set(values))
    assert repeats.repeated() == {hash(value) for value, count in Counter(values).items() if count > 1}


def test_copies_are_those_of_a_set() -> None:
    draw = np.random.default_rng(0)
    texts = [f"{'Text' if number % 2 else ' text '} {number // 3}" for number in draw.integers(0, 3000, 10_000)]
    seen: set[str] = set()
    expected = []
    for text in texts:
        bare = " ".join(text.split()).casefold()
        expected.append(bare in seen)
        seen.add(bare)
    assert repeats_earlier(load_texts(texts)).tolist() == expected
