"""Corpora readers: formats, what is refused with a sentence, what is said and gone on with."""

import csv
import gzip
import json
import logging
import lzma
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from support.command import REPOSITORY

from textcl.data import load_texts, load_triplets
from textcl.data.corpora import load_labelled, read_rows, read_with_ids
from textcl.errors import InputError

TEXTS = ["A first sentence.", 'He said "no", and left.', "Größe, naïveté, 東京", "A\ttab inside is for csv only"]
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
}
SAMPLES = REPOSITORY / "senteval_data" / "samples"


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return path


def as_csv(texts: list[str], header: str = "text") -> str:
    return "".join([f"id,{header}\n", *(f'{i},"{t.replace(chr(34), chr(34) * 2)}"\n' for i, t in enumerate(texts))])


@pytest.mark.parametrize("compression", ["", *COMPRESS])
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl", "parquet"])
def test_every_format_reads_back_what_was_written(tmp_path: Path, kind: str, compression: str) -> None:
    texts = TEXTS[:3] if kind == "tsv" else TEXTS
    if kind == "txt":
        content: str | bytes = "\n".join(texts)
    elif kind == "csv":
        content = as_csv(texts)
    elif kind == "tsv":
        content = "id\tsentence\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(texts))
    elif kind == "jsonl":
        content = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts))
    else:
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), sink)
        content = sink.getvalue().to_pybytes()
    read = load_texts(write(tmp_path / f"corpus.{kind}{compression}", content))
    assert read.column_names == ["text"]
    assert read["text"][:] == texts


def test_dataset_and_list_are_taken_as_they_are() -> None:
    assert load_texts(TEXTS)["text"][:] == TEXTS
    dataset = Dataset.from_dict({"label": [1, 2, 3, 4], "sentence": TEXTS})
    assert load_texts(dataset)["text"][:] == TEXTS
    assert load_texts(Dataset.from_dict({"body": TEXTS}))["text"][:] == TEXTS  # the only column


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    odd = ["one\x85still one", "two\u2028still two", "three\x0cstill three", "four\x1estill four"]
    assert load_texts(write(tmp_path / "a.txt", "\n".join(odd) + "\n"))["text"][:] == odd
    assert load_texts(write(tmp_path / "a.tsv", "text\n" + "\n".join(odd) + "\n"))["text"][:] == odd
    assert load_texts(write(tmp_path / "a.csv", as_csv(odd)))["text"][:] == odd


def test_windows_line_ends_and_byte_order_mark_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbffirst\r\nsecond\r\n")
    assert load_texts(path)["text"][:] == ["first", "second"]
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbftext\r\nfirst\r\nsecond\r\n")
    assert load_texts(path)["text"][:] == ["first", "second"]


def test_a_csv_cell_may_hold_line_feeds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\n"one\ntwo"\nthree\n')
    assert load_texts(path)["text"][:] == ["one\ntwo", "three"]


def test_limit_counts_texts_not_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\none\n\ntwo\nthree\n")
    assert load_texts(path, limit=2)["text"][:] == ["one", "two"]


@pytest.mark.parametrize("suffix", ["txt", "txt.xz", "tsv", "csv", "csv.gz", "jsonl"])
def test_invalid_utf8_names_file_and_line(tmp_path: Path, suffix: str) -> None:
    lines = (
        ['{"text": "one"}', '{"text": "two"}', '{"text": "caf\xe9"}'] if suffix == "jsonl" else ["text", "x", "caf\xe9"]
    )
    path = write(tmp_path / f"latin.{suffix}", "\n".join(lines).encode("latin-1"))
    with pytest.raises(InputError, match=r"line 3: byte 0xe9") as error:
        load_texts(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "holds no text"),
        ("blank.txt", "\n \n\t\n", "holds no text"),
        ("one.txt", "only this\n", "only one text"),
        ("empty.csv", "", "is empty"),
        ("header.csv", "text\n", "holds no text"),
        ("a.csv", "id,body\n1,x\n2,y\n", "has the columns 'id', 'body'"),
        ("a.csv", "id,text\n1,x\n2\n", "line 3: this row has 1 cells, but the header has 2"),
        ("a.csv", 'text\n"x"y\nz\n', "line 2: this is not valid csv"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "line 2: this is not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "line 2 has no column 'text'; its columns are 'body'"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', "line 2: the value must be a text, not an int"),
        ("a.jsonl", '{"text": "x"}\n{"text": "\\ud800"}\n', "line 2: the text holds half of a surrogate pair"),
        ("a.jsonl", '["x"]\n', "line 1: the line must be a JSON object"),
        ("a.parquet", "no parquet at all", "is not a valid parquet file"),
        ("a.docx", "x\ny\n", "has the suffix '.docx'"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_texts(write(tmp_path / name, content))


def test_missing_column_names_those_there_are_and_the_nearest(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "a.csv", "id,sentences\n1,x\n2,y\n"),
        write(tmp_path / "a.jsonl", '{"id": 1, "sentences": "x"}\n'),
    ):
        with pytest.raises(InputError, match=r"no column 'sentence'; its columns are 'id', 'sentences'.*'sentences'\?"):
            load_texts(path, column="sentence")
    pyarrow.parquet.write_table(pyarrow.table({"id": [1], "sentences": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="its columns are 'id', 'sentences'"):
        load_texts(tmp_path / "a.parquet", column="text")
    with pytest.raises(InputError, match="is a text file and has no columns"):
        load_texts(write(tmp_path / "a.txt", "x\ny\n"), column="text")


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "wiki.txt", "x\ny\n")
    (tmp_path / "wikki").mkdir()  # such as the output of the same command, which is no file to read
    with pytest.raises(InputError, match=r"There is no file .*wikki\.txt\. Did you mean .*wiki\.txt\?"):
        load_texts(tmp_path / "wikki.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        load_texts(tmp_path / "folder.txt")


def test_a_cut_archive_is_named_as_such(tmp_path: Path) -> None:
    for suffix, compress in COMPRESS.items():
        whole = compress("\n".join(f"sentence number {i}" for i in range(5000)).encode())
        path = tmp_path / f"cut.txt{suffix}"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="cannot be decompressed"):
            load_texts(path)


def test_blank_lines_duplicates_and_long_texts_are_said_and_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = "word " * 20_001
    path = write(tmp_path / "a.csv", as_csv(["same", long, " ", "same", "same", "other"]))
    with caplog.at_level(logging.WARNING, logger="textcl"):
        read = load_texts(path)
    assert read["text"][:] == ["same", long.strip(), "same", "same", "other"]
    said = " ".join(caplog.messages)
    assert "1 blank line was dropped" in said
    assert "2 texts are equal to an earlier one" in said
    assert "1 text has more than 100,000 characters" in said


def test_a_long_csv_cell_leaves_the_csv_module_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    load_texts(write(tmp_path / "a.csv", as_csv(["x" * 200_000, "y"])))
    assert csv.field_size_limit() == before


def test_clean_input_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="textcl"):
        load_texts(write(tmp_path / "a.txt", "x\ny\n"))
    assert not caplog.messages


def test_triplets_and_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "nli.csv", 'sent0,sent1,hard_neg\n"a, b",c,d\ne,f,\n,,\n')
    with caplog.at_level(logging.WARNING, logger="textcl"):
        triplets = load_triplets(path)
    assert triplets.to_list() == [
        {"text": "a, b", "positive": "c", "negative": "d"},
        {"text": "e", "positive": "f", "negative": " "},  # SimCSE's training script puts a space there
    ]
    assert "1 blank row was dropped" in " ".join(caplog.messages)
    pairs = load_triplets(path, columns=("sent0", "hard_neg"))
    assert pairs.to_list() == [{"text": "a, b", "positive": "d"}, {"text": "e", "positive": " "}]
    assert load_triplets(Dataset.from_dict({"q": ["x", None], "a": ["y", "z"]}), columns=("q", "a")).to_list() == [
        {"text": "x", "positive": "y"},
        {"text": " ", "positive": "z"},
    ]


def test_triplets_refuse_what_has_no_such_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'hard_neg'; its columns are 'sent0', 'sent1'"):
        load_triplets(write(tmp_path / "a.csv", "sent0,sent1\na,b\nc,d\n"))
    with pytest.raises(InputError, match="text file and has no columns"):
        load_triplets(write(tmp_path / "a.txt", "a\nb\n"))
    with pytest.raises(InputError, match="two or three column names"):
        load_triplets(tmp_path / "a.csv", columns=("sent0",))


@pytest.mark.parametrize("columns", [("text", "negative"), ("text", "negative", "positive")])
def test_negatives_are_not_read_as_positives(tmp_path: Path, columns: tuple[str, ...]) -> None:
    write(tmp_path / "a.csv", "text,positive,negative\na,b,c\ne,f,g\n")
    with pytest.raises(InputError, match="in the order text, positive, hard negative, not " + ", ".join(columns)):
        load_triplets(tmp_path / "a.csv", columns=columns)
    assert load_triplets(tmp_path / "a.csv", columns=("text", "positive", "negative"))["negative"] == ["c", "g"]


def test_the_samples_are_readable() -> None:
    assert len(load_texts(SAMPLES / "sentences.txt")) == 24
    assert load_triplets(SAMPLES / "triplets.csv")[2]["text"] == "The library closes at eight, except on Sundays."


def test_real_corpora(shared_data: Path) -> None:
    assert len(load_texts(shared_data / "wiki100k_like.txt.xz", limit=2000)) == 2000
    assert len(load_triplets(shared_data / "nli_triplets_small.csv.xz")) == 9882


def test_texts_and_ids_are_read_in_one_pass_and_blank_rows_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": text, "key": f"k{n}"} for n, text in enumerate(["one", " ", "two", "", "three", "four"])]
    with caplog.at_level("WARNING", logger="textcl"):
        assert read_with_ids(iter(rows), id_column="key") == (["one", "two", "three", "four"], ["k0", "k2", "k4", "k5"])
        assert caplog.messages[-1].endswith("2 rows are blank and were left out.")
        assert read_with_ids(iter(rows), column="text") == (["one", "two", "three", "four"], [0, 2, 4, 5])
        assert caplog.messages[-1].endswith("left out; ids still count them.")
    left = iter(rows)
    assert read_with_ids(left, id_column="key", limit=2) == (["one", "two"], ["k0", "k2"])
    with pytest.raises(InputError, match="holds no text"):
        read_with_ids([" ", ""])


def test_rows_have_the_same_numbers_in_all_formats(tmp_path: Path) -> None:
    """A row without any cell counts; an empty line does, unless the header has several columns."""
    files = {
        "a.txt": "a cat\n\n  \na dog\n",
        "a.csv": "text,date\na cat,1\n,\n ,\na dog,3\n",
        "a.tsv": "text\tdate\na cat\t1\n\t\n \t\na dog\t3\n",
        "one.csv": "text\na cat\n\n  \na dog\n",
        "one.tsv": "text\na cat\n\n  \na dog\n",
    }
    for name, content in files.items():
        assert read_with_ids(write(tmp_path / name, content), column=None) == (["a cat", "a dog"], [0, 3]), name
    for name, mark in (("b.csv", ","), ("b.tsv", "\t")):
        lines = ["", f"text{mark}date", f"a cat{mark}1", "", "  ", f"a dog{mark}3", ""]
        assert read_with_ids(write(tmp_path / name, "\n".join(lines))) == (["a cat", "a dog"], [0, 1]), name


def test_empty_cells_beside_a_text_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "question,answer\na,b\nc,\n,d\n,\n"
    assert load_triplets(write(tmp_path / "a.csv", rows), columns=("question", "answer"))["positive"][:] == [
        "b",
        " ",
        "d",
    ]
    assert "2 rows have an empty cell, which is read as a single space." in caplog.text
    caplog.clear()
    load_texts(write(tmp_path / "a.txt", "a\n\nb\n"))
    assert "empty cell" not in caplog.text


def test_minus_1_is_no_label_where_labels_have_names() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0]}, features=features)
    with pytest.raises(InputError, match="row 2: the label is missing"):
        load_labelled(rows)
    found = load_labelled(rows, drop_unlabelled=True)
    assert (found["text"][:], found["label"][:]) == (["a", "c"], [1, 0])
    numbers = load_labelled(Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, -1, 0]}))
    assert numbers["label"][:] == [2, 0, 1], "without names, -1 is a class"


def test_labelled_rows_of_a_generator_are_read_although_labels_are_numbered_first() -> None:
    rows = load_labelled({"text": text, "label": label} for text, label in (("a", "x"), ("b", "y"), ("c", "x")))
    assert (rows["text"][:], rows["label"][:]) == (["a", "b", "c"], [0, 1, 0])


def test_windows_line_ends_are_neither_in_a_name_nor_in_a_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tsource\r\na cat\tx\r\na dog\ty\r\n")
    assert list(read_rows(path, columns=["source"])) == [("a cat", ("x",)), ("a dog", ("y",))]


def test_a_carriage_return_inside_the_first_line_is_part_of_it(tmp_path: Path) -> None:
    assert load_texts(write(tmp_path / "a.txt", "a\rcat\na dog\n"))["text"][:] == ["a\rcat", "a dog"]


def test_ids_are_words_or_whole_numbers_of_any_size() -> None:
    assert read_with_ids([{"text": "a", "id": 2**70}, {"text": "b", "id": 7}], id_column="id")[1] == [str(2**70), 7]
    with pytest.raises(InputError, match="an id must be text or a whole number"):
        read_with_ids([{"text": "a", "id": True}], id_column="id")
