"""Every source becomes rows whose columns are looked up by name; what cannot be read is a sentence with its place."""

import gzip
import json
import logging
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from test_corpora import COMPRESS

from textcl.data import formats, hold_out, load_labelled, load_texts, load_triplets
from textcl.data.corpora import read_texts
from textcl.data.corpus_files import CorpusFiles
from textcl.data.retrieval import read_beir, read_collection
from textcl.data.training import find_corpus, training_rows
from textcl.errors import InputError
from textcl.evaluation import LabelledPairs

TEXTS = ["a cat sleeps", "Größe, 東京", 'he said "no"']


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def stream(rows: list[Any]) -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(rows))


def sources(column: str = "text") -> list[Any]:
    rows = [{"n": row, column: text} for row, text in enumerate(TEXTS)]
    columns = {"n": [0, 1, 2], column: TEXTS}
    dataset = Dataset.from_dict(columns)
    return [
        dataset,
        dataset.with_format("numpy"),
        dataset.with_format("pandas"),
        dataset.with_format("torch", columns=[column]),
        dataset.with_transform(lambda batch: batch),
        dataset.select([2, 0, 1]).select([1, 2, 0]),
        DatasetDict({"train": dataset})["train"],
        stream(rows),
        dataset.to_iterable_dataset(),
        pd.DataFrame(columns, index=[5, 5, 5]),
        rows,
        (row for row in rows),
    ]


@pytest.mark.parametrize("number", range(len(sources())))
def test_every_kind_of_rows_is_read(number: int) -> None:
    assert load_texts(sources()[number])["text"][:] == TEXTS
    assert load_texts(sources("body")[number], column="body")["text"][:] == TEXTS
    with pytest.raises(InputError, match=r"no column 'body'; its columns are .*'text'"):
        load_texts(sources()[number], column="body")


@pytest.mark.parametrize(
    "source",
    [TEXTS, tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=[1, 1, 0]), (text for text in TEXTS)],
    ids=lambda source: type(source).__name__,
)
def test_every_kind_of_texts_is_read(source: Any) -> None:
    assert load_texts(source)["text"][:] == TEXTS


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DatasetDict({"train": Dataset.from_dict({"text": TEXTS}), "test": Dataset.from_dict({"text": TEXTS})}),
         r"has the splits 'train', 'test', and one split is needed; pass it, such as data\['train'\]"),
        ({"text": TEXTS}, r"a dict has the columns 'text'.*data\['text'\]"),
        (set(TEXTS), "The set must be a list.*not a set"),
        (None, "not None"),
        (7, "not an int"),
        (b"bytes", "not a single bytes"),
        (np.array([TEXTS]), "several dimensions"),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_with_what_is_taken(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_texts(source)
    with pytest.raises(InputError, match=message):
        list(read_texts(source))


def test_the_row_that_is_bad_is_named() -> None:
    with pytest.raises(InputError, match="the list of texts, row 2: the value must be a text, not an int"):
        load_texts(["a", 3, "b"])
    with pytest.raises(
        InputError, match=r"row 2 has no column 'text'; its columns are 'texts'\. Did you mean 'texts'\?"
    ):
        load_texts([{"text": "a"}, {"texts": "b"}], column="text")
    with pytest.raises(InputError, match="row 2: a row with the columns 'q', 'a' is needed, not a str"):
        load_triplets([{"q": "a", "a": "b"}, "a text"], columns=("q", "a"))
    with pytest.raises(InputError, match="row 3: the text holds half of a surrogate pair"):
        load_texts(pd.Series(["a", "b", "\ud800"], dtype=object))
    with pytest.raises(InputError, match="several columns with the name 'text'"):
        load_texts(pd.DataFrame([["a", "b"]], columns=["text", "text"]))


def test_missing_texts_of_pandas_are_blank(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"text": ["a", None, float("nan"), pd.NA, "b"]})
    with caplog.at_level(logging.WARNING, logger="textcl"):
        assert load_texts(frame)["text"][:] == ["a", "b"]
    assert "3 blank lines were dropped" in caplog.text


def test_pairs_and_labels_are_read_from_every_kind() -> None:
    columns = {"q": ["a", "b"], "a": ["c", "d"], "l": ["x", "y"]}
    for source in (Dataset.from_dict(columns), pd.DataFrame(columns), stream(Dataset.from_dict(columns).to_list())):
        assert load_triplets(source, columns=("q", "a"))["positive"][:] == ["c", "d"]
        assert load_labelled(source, columns=("q",), label_column="l").to_dict() == {
            "text": ["a", "b"],
            "label": [0, 1],
        }


def test_a_transform_is_applied() -> None:
    dataset = Dataset.from_dict({"text": ["one", "two"]})
    shouted = dataset.with_transform(lambda batch: {"text": [text.upper() for text in batch["text"]]})
    assert load_texts(shouted)["text"][:] == ["ONE", "TWO"]
    uneven = dataset.with_transform(lambda batch: {**batch, "more": [1]})
    with pytest.raises(InputError, match="columns of different lengths: 2 of 'text', 1 of 'more'"):
        load_texts(uneven)


def test_rows_are_held_out_of_a_dataset_alone() -> None:
    with pytest.raises(InputError, match="hold_out takes a dataset, as load_texts returns it, not a list"):
        hold_out(TEXTS)  # type: ignore[arg-type]


def test_a_table_of_arrow_names_its_columns() -> None:
    with pytest.raises(InputError, match="a Table has the columns 'text', 'n', and one column is needed"):
        load_texts(pyarrow.table({"text": TEXTS, "n": [1, 2, 3]}))


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_below_one_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(InputError, match=f"limit must be at least 1, not {limit}"):
        load_texts(TEXTS, limit=limit)
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,2\n")
    for column, label in ((None, "label"), ("text,label", None), (None, None)):
        with pytest.raises(InputError, match=f"limit must be at least 1, not {limit}"):
            training_rows(path, column, label, limit=limit)


# columns


def test_the_text_column_of_a_jsonl_is_the_same_in_all_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"sentence": "a"}\n{"sentence": "b", "id": 3}\n')
    assert load_texts(path)["text"][:] == ["a", "b"]
    write(path, '{"sentence": "a"}\n{"id": 1}\n')
    with pytest.raises(InputError, match="line 2 has no column 'sentence'; its columns are 'id'"):
        load_texts(path)
    for second in ('{"sentence": "b", "text": "c"}', '{"body": "b", "text": "c"}'):
        write(path, f'{{"{second[2:].partition(chr(34))[0]}": "a"}}\n{second}\n')
        with pytest.raises(InputError, match=r"line 2: there is a column 'text', but the rows before have"):
            load_texts(path)


def test_labels_that_may_be_missing_need_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,1\nb,\nc,2\n")
    with pytest.raises(InputError, match=r"line 3: the label is missing.*--drop-unlabelled"):
        training_rows(path, None, "label")
    assert training_rows(path, None, "label", drop_unlabelled=True)["label"][:] == [0, 1]
    with pytest.raises(InputError, match="--drop-unlabelled leaves out rows without a label; name the labels with"):
        training_rows(path, drop_unlabelled=True)


def test_pairs_come_from_two_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "q,a\nb,c\nd,e\n")
    assert training_rows(path, "q, a")["positive"][:] == ["c", "e"]
    assert training_rows(path, " a")["text"][:] == ["c", "e"]
    with pytest.raises(InputError, match="come from two columns, not from one twice: q, q"):
        training_rows(path, "q,q")
    with pytest.raises(InputError, match="has no column ''; its columns are 'q', 'a'"):
        training_rows(path, "q,")


def beir(folder: Path, corpus: str, qrels: str = "query-id\tcorpus-id\tscore\nq\tz1\t1\n") -> Path:
    (folder / "qrels").mkdir(parents=True)
    write(folder / "corpus.jsonl", corpus)
    write(folder / "queries.jsonl", '{"_id":"q","text":"weather in autumn"}\n')
    write(folder / "qrels" / "test.tsv", qrels)
    return folder


def test_the_title_of_a_document_is_looked_up_row_by_row(tmp_path: Path) -> None:
    rows = ['{"_id":"m0","text":"a cat"}', '{"_id":"z1","title":"autumn weather","text":"rain"}',
            '{"_id":"a1","title":null,"text":"rain"}']  # fmt: skip
    expected = {"m0": "a cat", "z1": "autumn weather rain", "a1": "rain"}
    for number, order in enumerate(([0, 1, 2], [1, 0, 2], [2, 1, 0])):
        found = read_beir(beir(tmp_path / str(number), "\n".join(rows[row] for row in order)))
        assert found.documents == expected


def collection(folder: Path, relevance: str, suffix: str = "jsonl", query: str = '{"id": "q", "text": "a"}') -> Any:
    queries = write(folder / "queries.jsonl", query)
    documents = write(folder / "documents.jsonl", '{"id": "d", "text": "b"}\n{"_id": 7, "text": "c"}\n')
    return read_collection(queries, documents, write(folder / f"relevance.{suffix}", relevance))


def test_the_relevance_is_looked_up_row_by_row(tmp_path: Path) -> None:
    found = collection(
        tmp_path,
        '{"query_id": "q", "document_id": "d"}\n{"query-id": "q", "corpus-id": "7", "relevance": 0}\n',
    )
    assert found.relevance == {"q": {"d": 1.0, "7": 0.0}}
    assert found.documents == {"d": "b", "7": "c"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"query_id": "q", "document_id": "d", "relevance": "nan"}', "line 1: the relevance 'nan' is not a finite"),
        ('{"query_id": "q", "document_id": "d", "relevance": NaN}', "line 1: the relevance 'nan' is not a finite"),
        ('{"query_id": "q", "document_id": "d", "relevance": 1e999}', "the relevance 'inf' is not a finite"),
        ('{"query_id": "q", "document_id": "d", "relevance": null}', "the relevance 'None' is not a finite"),
        ('{"query_id": ["q"], "document_id": "d"}', "line 1: an id must be a word or a whole number, not a list"),
        ('{"query_id": "q", "document_id": true}', "line 1: an id must be a word or a whole number, not a bool"),
        ('{"query_id": "q", "document_id": 1.0}', "line 1: an id must be a word or a whole number, not a float"),
        ('{"query_id": "q", "document_id": null}', "line 1: an id must be a word or a whole number, not None"),
        ('{"query_id": "q", "document_id": " "}', "line 1: the id is empty"),
        ('{"query_id": "q"}', r"line 1 has no column 'document_id' or 'corpus-id'; its columns are 'query_id'"),
    ],
)
def test_judgements_that_cannot_be_meant_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collection(tmp_path, row)


def test_pairs_that_a_csv_separates_in_another_way_are_refused(tmp_path: Path) -> None:
    for name, content, message in (
        ("a.csv", "id;text\n1;hello\n2;world\n", r"header 'id;text' holds ';', but .* \.csv are separated by commas"),
        ("a.csv", "id|text\n1|hello\n2|world\n", r"holds '\|'"),
        ("a.csv", "id\ttext\n1\thello\n2\tworld\n", r"holds a tab.*or as \.tsv"),
        ("a.csv", '"id,text"\n"1,hello"\n"2,world"\n', "holds ','"),
        ("a.tsv", "id,text\n1,hello\n2,world\n", r"holds ',', but .* \.tsv are separated by tabs"),
        ("a.tsv", "id;text\n1;hello\n2;world\n", r"holds ';'"),
    ):
        path = write(tmp_path / name, content)
        for read in (
            load_texts,
            lambda path: load_texts(path, column="text"),
            lambda path: load_triplets(path, columns=("id", "text")),
            lambda path: load_labelled(path, label_column="id"),
        ):
            with pytest.raises(InputError, match=message):
                read(path)


def test_a_first_line_that_is_a_text_is_not_taken_for_a_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", "a.tsv"):
        for first in ("first text", "Yes!", "Größe ist alles"):
            path = write(tmp_path / name, f"{first}\nsecond text\nthird text\n")
            with pytest.raises(InputError, match=f"first line, '{first}', is the header, but it does not look like"):
                load_texts(path)
            assert load_texts(path, column=first)["text"][:] == ["second text", "third text"]
        path = write(tmp_path / name, "body_text\na\nb\n")
        with caplog.at_level(logging.WARNING, logger="textcl"):
            assert load_texts(path)["text"][:] == ["a", "b"]
            list(read_texts(path))
        assert caplog.messages == [f"{path}: the only column, 'body_text', is read."]  # once
        caplog.clear()


def test_quotation_marks_in_a_tsv_are_kept_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.tsv", 'id\ttext\n1\tplain\n2\t"quoted"\n3\t"again"\n')
    with caplog.at_level(logging.WARNING, logger="textcl"):
        assert load_texts(path)["text"][:] == ["plain", '"quoted"', '"again"']
    assert len(caplog.messages) == 1
    assert "a.tsv, line 3: a cell stands in quotation marks. In a .tsv they are a part of the text" in caplog.text


@pytest.mark.parametrize("rows", ['1\t"one\ntwo"\n', '1\t"one\n\ntwo ""x"" three"\n', '"one\ntwo"\t1\n'])
def test_a_text_of_several_lines_in_a_tsv_is_refused_with_advice(tmp_path: Path, rows: str) -> None:
    path = write(tmp_path / "a.tsv", f"id\ttext\n0\tzero\n{rows}")  # as pandas writes it
    with pytest.raises(InputError, match=r"but the header has 2\. .* has a line break, .* save the file as \.csv"):
        load_texts(path)
    with pytest.raises(InputError, match=r"has 3 cells, but the header has 2\.$"):
        load_texts(write(tmp_path / "b.tsv", 'id\ttext\n0\tzero\n1\ta "quoted" one\tmore\n'))


def test_texts_of_several_lines_in_a_tsv_of_one_column_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.tsv", 'text\nplain\n"one\ntwo"\n"three\nfour"\n')
    with caplog.at_level(logging.WARNING, logger="textcl"):
        assert len(load_texts(path)) == 5
    assert len(caplog.messages) == 1
    assert "a.tsv, line 3: a cell begins with a quotation mark that is not closed in this line" in caplog.text


# files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "one\ntwo\n".encode("utf-32"), r"a\.txt is UTF-32\. Convert it .* -f UTF-32"),
        ("a.txt", "one\ntwo\n".encode("utf-16"), r"a\.txt is UTF-16\. Convert it to UTF-8 with iconv"),
        ("a.txt", "one\ntwo\n".encode("utf-16-le"), "line 1 holds a NUL byte, so the file is UTF-16 or not text"),
        ("a.csv", "text\none\n".encode("utf-16-be"), "line 1 holds a NUL byte"),
        ("a.txt", "one\ntwo\0\n", "line 2 holds a NUL byte"),
        ("a.txt", "one\rtwo\rthree", "ends its lines with carriage returns alone"),
        ("a.txt", "one\rtwo\rthree\n", "ends its lines with carriage returns alone"),
        ("a.csv", "text\rone\rtwo\r", "ends its lines with carriage returns alone"),
        (
            "a.jsonl",
            '[\n{"text": "a"},\n{"text": "b"}\n]',
            "line 1: this is not valid JSON.*one JSON array; a .jsonl has",
        ),
        (
            "a.jsonl",
            '[{"text": "a"}, {"text": "b"}]',
            "line 1: the line must be a JSON object, not a list; a .jsonl has",
        ),
        ("a.jsonl", '{"text": "a"}\n{"text": "a", "x": ' + "[" * 100_000, "line 2: this is not valid JSON"),
        ("a.jsonl", '{"text": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: this is not valid JSON"),
        ("a.jsonl", '{"text": "a", "x": ' + "1" * 5000 + "}", "line 1: this is not valid JSON: Exceeds the limit"),
        ("a.jsonl", '{\n"text": "a"\n}', "line 1: this is not valid JSON.*JSON over several lines; a .jsonl has one"),
        ("a.jsonl", '{"text": "a", "text": "b"}', "line 1: this is not valid JSON: a name occurs twice in an object"),
        ("a", "x\ny\n", "has no suffix; textcl reads"),
    ],
)
def test_what_is_no_text_is_said(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_texts(write(tmp_path / name, content))


def test_links_pipes_and_devices_are_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.txt").symlink_to("gone.txt")
    os.mkfifo(tmp_path / "fifo.txt")
    reader, writer = os.pipe()
    cases = {
        "link.txt": "is a link to gone.txt, which does not exist",
        "fifo.txt": "is a pipe or a device, which can be read only once.*Write them to a file first",
        f"/dev/fd/{reader}": "is a pipe or a device",
        "/dev/null": "is a pipe or a device",
    }
    for name, message in cases.items():
        for read in (load_texts, find_corpus, lambda name: CorpusFiles(Path(name))):
            with pytest.raises(InputError, match=message):
                read(name)
    os.close(reader), os.close(writer)


def test_a_line_that_no_memory_could_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 1000)
    for name in ("a.txt", "a.csv", "a.tsv", "a.jsonl"):
        path = write(tmp_path / name, b"text\n" + b"x" * 5000 + b"\n")
        with pytest.raises(InputError, match=r"line 2 is longer than 1,000 bytes|line 1: this is not valid JSON"):
            load_texts(path)
    lines = b'text\n"' + b"x" * 99 + b"\n"
    path = write(tmp_path / "unclosed.csv", lines + (b"y" * 99 + b"\n") * 100)  # one quotation mark, and never another
    with pytest.raises(InputError, match="not valid csv: field larger than field limit"):
        load_texts(path)
    monkeypatch.setattr(formats, "LARGEST_PARQUET", 10)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), sink)
    path = write(tmp_path / "a.parquet.gz", gzip.compress(sink.getvalue().to_pybytes()))
    with pytest.raises(InputError, match="holds more than 10 bytes; decompress it first"):
        load_texts(path)


@pytest.mark.slow
def test_three_gigabytes_of_one_character_are_a_sentence(tmp_path: Path) -> None:
    for character, message in ((b"\0", "holds a NUL byte"), (b"a", "is longer than 268,435,456 bytes")):
        path = tmp_path / "bomb.txt.gz"
        with gzip.open(path, "wb", compresslevel=1) as handle:
            for _ in range(3 * 1024):
                handle.write(character * (1 << 20))
        with pytest.raises(InputError, match=message):
            load_texts(path)


def test_parquet_that_breaks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"text number {n} {random.Random(n).random()}" for n in range(5000)]})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = b"\xff" * 400
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read behind row \d.*It is damaged"):
        load_texts(path)
    two = pyarrow.Table.from_arrays([pyarrow.array(["a", "b"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(two, path)
    with pytest.raises(InputError, match="several columns with the name 'text'"):
        load_texts(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "cafez": [1, 2]}), path)
    path.write_bytes(path.read_bytes().replace(b"cafez", b"caf\xe9z"))
    with pytest.raises(InputError, match=r"a\.parquet is not a valid parquet file: .*can't decode byte 0xe9"):
        load_texts(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": [b"\xff", b"ok"]}), path)
    with pytest.raises(InputError, match="row 1: the value must be a text, not a bytes"):
        load_texts(path)


def test_two_csv_files_that_are_read_at_the_same_time_take_long_cells(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.csv", "text\n" + f"{'x' * 200_000}\n" * 20) for n in range(2)]
    first, second = (read_texts(path) for path in paths)
    next(first)
    next(second)
    assert len(list(first)) == 19
    assert len(list(second)) == 19
    found: list[int] = []
    threads = [threading.Thread(target=lambda p=path: found.append(len(list(read_texts(p))))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [20, 20]


# damaged files


def valid_files(folder: Path) -> list[Path]:
    """A small valid file of every format, plain and compressed."""
    texts = ["a cat sleeps", "Größe, naïveté, 東京", 'he said "no", and left', "x" * 300, "5", ""] * 3
    rows = [{"id": n, "text": text, "positive": text[::-1], "label": n % 3} for n, text in enumerate(texts)]
    plain = {
        "a.txt": "\n".join(texts),
        "a.tsv": "id\ttext\tpositive\tlabel\n" + "".join("\t".join(map(str, row.values())) + "\n" for row in rows),
        "a.csv": pd.DataFrame(rows).to_csv(index=False),
        "a.jsonl": "".join(json.dumps(row, ensure_ascii=row["id"] % 2 == 0) + "\n" for row in rows),
    }
    found = [write(folder / name, content) for name, content in plain.items()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet")
    found.append(folder / "a.parquet")
    found += [
        write(folder / f"{path.name}{suffix}", COMPRESS[suffix](path.read_bytes()))
        for suffix, paths in ((".gz", found), (".zst", found[:1]))
        for path in paths
    ]
    return found


PIECES = [b"\0", b"\xff", b"\r", b"\n", b'"', b"\\ud800", b",", b"\t", b"{", b"[", b"}", b"\xef\xbb\xbf"]
PIECES += [b"null", b"NaN", b"1e999", b"9" * 5000]


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        place = draw.randrange(len(changed) + 1)
        length = draw.choice([1, 1, 2, 8, 100])
        piece = draw.choice([*PIECES, draw.randbytes(4)])
        match draw.randrange(4):
            case 0:
                changed[place : place + length] = b""
            case 1:
                changed[place:place] = piece
            case 2:
                changed[place : place + len(piece)] = piece
            case _ if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed[: draw.randrange(len(changed) + 1)] if draw.random() < 0.1 else changed)


READERS = [
    lambda path: list(read_texts(path)),
    lambda path: load_labelled(path)["text"],
    lambda path: load_labelled(path, columns=("text", "positive"), drop_unlabelled=True)["positive"],
    lambda path: load_triplets(path, columns=("text", "positive"))["positive"],
    lambda path: training_rows(path, limit=5)["text"],
    lambda path: LabelledPairs(path).tasks["pairs"][0].first,
    lambda path: read_collection(path, path, path.with_name("relevance.csv")).documents.values(),
]


def test_two_thousand_damaged_files_are_rows_or_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    draw = random.Random(0)
    write(tmp_path / "relevance.csv", "query_id,document_id\n0,1\n")
    valid = valid_files(tmp_path)
    outcomes = {"rows": 0, "sentence": 0}
    for number in range(2000):
        source = valid[number % len(valid)]
        path = write(tmp_path / f"damaged-{source.name}", mutated(source.read_bytes(), draw))
        try:
            texts = READERS[number // len(valid) % len(READERS)](path)
        except InputError:
            outcomes["sentence"] += 1
        else:
            assert all(isinstance(text, str) for text in texts), (number, path)
            outcomes["rows"] += 1
    assert min(outcomes.values()) > 200, outcomes
