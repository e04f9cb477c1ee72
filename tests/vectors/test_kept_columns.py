"""What is kept beside the texts: ids and columns of every kind, as `Vectors` reads them, and directories without."""

import csv
import hashlib
import json
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from support.tiny import TEXTS, tiny_encoder_directory

import textcl
from textcl.cli.main import main
from textcl.data import repeats
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import cluster_texts, cluster_vectors
from textcl.files import content_hash
from textcl.vectors.corpus import Corpus, survey
from textcl.vectors.encode import encode_corpus
from textcl.vectors.shards import load_vectors, read_shard
from textcl.vectors.vectors import Vectors

ROWS: list[dict[str, Any]] = [
    {"id": f"T-{n}", "text": text if n != 4 else "", "vector": n % 3, "a.b": None if n % 4 else n / 2, "a": "x"}
    for n, text in enumerate(TEXTS[:20])
]
KEPT = [row for row in ROWS if row["text"]]


def csv_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_ids_and_columns_come_back_whatever_their_names(encoder: Encoder, tmp_path: Path) -> None:
    """Also of columns with the names of a shard's own, and of one whose name begins with that of another."""
    kept = ["vector", "a.b", "a", "id", "text"]
    directory = encode_corpus(encoder, ROWS, tmp_path / "v", id_column="id", columns=kept, shard_rows=6)
    vectors = Vectors(directory)
    assert vectors.own_ids() == [row["id"] for row in KEPT]
    assert vectors.ids().tolist() == [n for n in range(20) if n != 4]
    assert vectors.texts() == [row["text"] for row in KEPT]
    for name in kept:
        assert vectors.column(name) == [row[name] for row in KEPT], name
    assert np.array_equal(vectors.vectors(), load_vectors(directory)[1])
    assert (len(vectors), vectors.dimension, vectors.columns, vectors.split) == (19, 32, tuple(kept), False)
    table = vectors.table(vectors=True)
    assert table.column_names == ["id", "column:vector", "a.b", "a", "column:id", "column:text", "text", "vector"]
    assert table["column:vector"].to_pylist() == [row["vector"] for row in KEPT]
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors.vectors())
    assert vectors.table()["id"].to_pylist() == vectors.own_ids()
    shard = read_shard(directory, 1, ["id", "own_id", "column:a", "column:a.b"])
    assert shard["own_id"].tolist() == [row["id"] for row in KEPT[6:12]]
    assert list(shard) == ["id", "own_id", "column:a.b", "column:a"]
    assert shard["column:a.b"].tolist() == [row["a.b"] for row in KEPT[6:12]]
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    encode_corpus(encoder, ROWS, directory, id_column="id", columns=kept, shard_rows=6)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_all_columns_are_those_beside_the_texts_and_the_ids(encoder: Encoder, tmp_path: Path) -> None:
    path = csv_file(tmp_path / "t.csv", ROWS)
    vectors = Vectors(encode_corpus(encoder, path, tmp_path / "v", id_column="id", columns="all"))
    assert vectors.columns == ("vector", "a.b", "a")
    assert vectors.column("vector") == [str(row["vector"]) for row in KEPT], "the cells of a csv are text"
    uneven = [{"text": "one", "b": 1}, {"text": "two", "c": [2, {"d": "é"}], "id": 7}]
    lines = tmp_path / "t.jsonl"
    lines.write_text("\n".join(map(json.dumps, uneven)))
    vectors = Vectors(encode_corpus(encoder, lines, tmp_path / "w", columns="all"))
    assert vectors.columns == ("b", "c", "id")
    assert vectors.table().to_pylist() == [
        {"id": 0, "b": 1, "c": None, "column:id": None, "text": "one"},
        {"id": 1, "b": None, "c": '[2, {"d": "é"}]', "column:id": 7, "text": "two"},
    ]


NOW = datetime(2024, 5, 6, 7, 8, 9, 10)
VALUES: dict[str, tuple[list[Any], list[Any], str]] = {
    "whole": ([1, None, 3], [1, None, 3], "int64"),
    "number": ([1, 2.5, None], [1.0, 2.5, None], "double"),
    "truth": ([True, False, None], [True, False, None], "bool"),
    "mixed": ([1, "a", True], ["1", "a", "true"], "large_string"),
    "truth and numbers": ([True, 2, 0.5], ["true", "2", "0.5"], "large_string"),
    "date": ([date(2024, 1, 2), None, date(1999, 1, 1)], [date(2024, 1, 2), None, date(1999, 1, 1)], "date32[day]"),
    "time": ([NOW, None, NOW], [NOW, None, NOW], "timestamp[us]"),
    "zoned": ([NOW.replace(tzinfo=UTC)] * 3, [NOW.replace(tzinfo=UTC)] * 3, "timestamp[us, tz=UTC]"),
    "nested": ([{"a": [1]}, [2], None], ['{"a": [1]}', "[2]", None], "large_string"),
    "decimal": ([Decimal("1.50"), None, Decimal(2)], ["1.50", None, "2"], "large_string"),
    "empty": ([None, float("nan"), None], [None, None, None], "large_string"),
    "large": ([2**63, 1, 2], [str(2**63), "1", "2"], "large_string"),
    "numpy": ([np.float32(0.5), np.int8(3), None], [0.5, 3.0, None], "double"),
    "nanoseconds": (
        [np.datetime64("2024-05-06T07:08:09.000010999"), np.datetime64("NaT", "ns"), np.datetime64(NOW)],
        [NOW, None, NOW],
        "timestamp[us]",
    ),
    "day": (
        [np.datetime64("2024-05-06"), np.datetime64("NaT"), np.datetime64("1999-01")],
        [date(2024, 5, 6), None, date(1999, 1, 1)],
        "date32[day]",
    ),
    "far": (
        [np.datetime64("20000-01-01"), np.datetime64("20000-01-01T00:00:00"), None],
        ["20000-01-01", "20000-01-01T00:00:00", None],
        "large_string",
    ),
    "duration": (
        [np.timedelta64(1500, "ms").astype("timedelta64[ns]"), np.timedelta64("NaT", "ns"), np.timedelta64(2, "D")],
        ["0:00:01.500000", None, "2 days, 0:00:00"],
        "large_string",
    ),
    "times": (
        [np.array([NOW, NOW], "datetime64[ns]"), None, []],
        ['["2024-05-06 07:08:09.000010", "2024-05-06 07:08:09.000010"]', None, "[]"],
        "large_string",
    ),
    "when": ([pd.Timestamp(NOW), pd.NaT, pd.NA], [NOW, None, None], "timestamp[us]"),
}


@pytest.mark.parametrize("shard_rows", [1, 3])
def test_values_keep_their_type_or_become_text_whatever_the_shards(
    encoder: Encoder, tmp_path: Path, shard_rows: int
) -> None:
    rows = [{"text": TEXTS[n], **{name: given[n] for name, (given, _, _) in VALUES.items()}} for n in range(3)]
    directory = encode_corpus(encoder, rows, tmp_path / "v", columns="all", shard_rows=shard_rows)
    table = Vectors(directory).table()
    for name, (_, kept, stored) in VALUES.items():
        assert table[name].to_pylist() == kept, name
        assert str(table[name].type) == stored, name
    for made in directory.glob("complete.json"):
        made.unlink()
    times = [path.stat().st_mtime_ns for path in sorted(directory.glob("part*"))]
    encode_corpus(encoder, rows, directory, columns="all", shard_rows=shard_rows)
    assert [path.stat().st_mtime_ns for path in sorted(directory.glob("part*"))] == times, "nothing is made again"


def test_a_column_of_a_data_frame_and_of_parquet(encoder: Encoder, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS[:4], "id": [5, 6, 7, 9], "day": pd.to_datetime(["2024-01-02"] * 4)})
    frame.to_parquet(tmp_path / "f.parquet")
    for source in (frame, tmp_path / "f.parquet"):
        vectors = Vectors(encode_corpus(encoder, source, tmp_path / str(type(source)), id_column="id", columns=["day"]))
        assert vectors.own_ids() == [5, 6, 7, 9]
        assert vectors.column("day") == [datetime(2024, 1, 2)] * 4


def test_the_column_of_the_texts_is_text_where_none_was_named(encoder: Encoder, tmp_path: Path) -> None:
    unnamed = Vectors(encode_corpus(encoder, TEXTS[:3], tmp_path / "unnamed"))
    assert unnamed.column("text") == TEXTS[:3]
    rows = [{"body": text, "text": f"other {text}"} for text in TEXTS[:3]]
    named = Vectors(encode_corpus(encoder, rows, tmp_path / "named", column="body"))
    assert named.column("body") == TEXTS[:3]
    with pytest.raises(InputError, match="does not hold the column 'text'"):
        named.column("text")


def test_a_damaged_value_beside_a_text_is_made_again(encoder: Encoder, tmp_path: Path) -> None:
    """Where nothing but the shard itself says what was written."""
    directory = encode_corpus(encoder, ROWS, tmp_path / "v", id_column="id", columns=["a"], shard_rows=6)
    path = directory / "part-00001.parquet"
    table, good = pyarrow.parquet.read_table(path), path.read_bytes()
    for name in ("column:a", "own_id"):
        place = table.column_names.index(name)
        other = pyarrow.array(["y", *table[name].to_pylist()[1:]], pyarrow.large_string())
        pyarrow.parquet.write_table(table.set_column(place, name, other), path)
        (directory / "complete.json").unlink()
        encode_corpus(encoder, ROWS, directory, id_column="id", columns=["a"], shard_rows=6)
        assert path.read_bytes() == good


def test_what_is_refused(encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = tmp_path / "t.txt"
    plain.write_text("\n".join(TEXTS[:5]))
    gap = [{**row, "id": row["id"] if n != 2 else " "} for n, row in enumerate(ROWS)]
    half = [{**row, "a": "\ud800" if n == 2 else ""} for n, row in enumerate(ROWS)]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (ROWS, {"columns": ["aa"]}, "the list of texts has no column 'aa'; its columns are 'id', 'text'"),
        (csv_file(tmp_path / "t.csv", ROWS), {"columns": ["vectr"]}, "Did you mean 'vector'?"),
        (tmp_path / "t.csv", {"id_column": "no"}, "has no column 'no'"),
        (tmp_path / "t.csv", {"columns": "vector"}, "must be a list of names or 'all', not 'vector'"),
        (plain, {"columns": "all"}, "t.txt has no columns, so none can be kept"),
        (plain, {"id_column": "id"}, "has no columns, so column 'id' cannot be read"),
        (gap, {"id_column": "id"}, "row 3, column 'id': the id is missing"),
        (
            ROWS,
            {"id_column": "a.b"},
            "row 1, column 'a.b': an id must be text or a whole number, not a float\\. pandas makes floats",
        ),
        (half, {"columns": ["a"]}, "row 3: the text holds half of a surrogate pair"),
    ]
    for source, options, message in cases:
        with pytest.raises(InputError, match=message):
            encode_corpus(encoder, source, tmp_path / "v", **options)
    assert not (tmp_path / "v").exists()
    encode_corpus(encoder, ROWS, tmp_path / "v", columns=["a"])
    for options, message in (({"columns": ["vector"]}, r"columns \['a'\], not \['vector'\]"), ({}, "not None")):
        with pytest.raises(InputError, match=message):
            encode_corpus(encoder, ROWS, tmp_path / "v", **options)
    with pytest.raises(InputError, match="does not hold the column 'vector'; it holds 'a'"):
        Vectors(tmp_path / "v").column("vector")
    changed = [{**row, "a": "z"} for row in ROWS]
    with pytest.raises(InputError, match="was written from another corpus"):
        encode_corpus(encoder, changed, tmp_path / "v", columns=["a"])
    twice = [{**row, "id": "T-1" if n in (7, 9) else row["id"]} for n, row in enumerate(ROWS)]
    assert "an id that" not in caplog.text
    encode_corpus(encoder, twice, tmp_path / "w", id_column="id")
    assert "2 rows have an id that an earlier row has too, first the row with number 7" in caplog.text


def test_looking_for_repeated_ids_takes_no_memory_for_each_row(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(repeats, "TOGETHER", 1000)
    rows = [{"text": "a text", "id": n % 9_999} for n in range(10_000)]
    tracemalloc.start()
    survey(Corpus(rows, "text", None, "id"), 100, show=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * len(rows), "with the ids in memory it is 83 bytes for each row, without them 41"
    assert "1 rows have an id that an earlier row has too, first the row with number 9,999" in caplog.text


def test_a_damaged_shard_is_not_read(encoder: Encoder, tmp_path: Path) -> None:
    directory = encode_corpus(encoder, ROWS, tmp_path / "v", id_column="id", shard_rows=6)
    vectors = Vectors(directory)
    path = directory / "part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    for read in (vectors.texts, vectors.ids, vectors.own_ids, vectors.vectors, vectors.table):
        with pytest.raises(InputError, match=r"part-00002.parquet is missing or damaged"):
            read()


def test_whether_an_encoder_gives_these_vectors(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    vectors = Vectors(encode_corpus(encoder, TEXTS[:5], tmp_path / "v", prompt="a "))
    assert vectors.differs_from(encoder, "a ") is vectors.differs_from(encoder) is None
    assert (vectors.prompt, vectors.pooling, vectors.max_length, vectors.normalized) == ("a ", "mean", 64, False)
    assert vectors.fingerprint == encoder.fingerprint(settings=False)
    other = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", seed=1), device="cpu")
    for changed, prompt, said in [
        (encoder, "", "with prompt 'a ', not ''"),
        (encoder.with_(pooling="cls"), "a ", "with pooling 'mean', not 'cls'"),
        (encoder.with_(max_length=9), "a ", "with max_length 64, not 9"),
        (other, "a ", "is not the model that wrote"),
    ]:
        assert said in str(vectors.differs_from(changed, prompt))


def old_directory(directory: Path, encoder: Encoder, texts: list[str], sealed: bool = True) -> Path:
    """A directory as textcl wrote it before ids and columns were kept: each file as its bytes were made then."""
    directory.mkdir()
    settings = {"pooling": "mean", "max_length": 64, "weights": "float32", "normalize": False, "prompt": ""}
    settings |= {"bf16": False, "dtype": "float32", "shard_rows": 4, "column": None, "limit": None}
    whole = hashlib.sha256(b"".join(f"{n} {text}".encode() + b"\xff" for n, text in enumerate(texts))).hexdigest()
    model = {"name": "", "sha256": encoder.fingerprint(settings=False)}
    corpus = {"name": "the list", "texts": len(texts), "sha256": whole}
    manifest = {"schema": 1, "model": model, "settings": settings, "corpus": corpus, "dimension": 32}
    (directory / "manifest.json").write_text(json.dumps({**manifest, "sha256": content_hash(manifest)}))
    made_of = hashlib.sha256(json.dumps([model["sha256"], settings, whole, 32], sort_keys=True).encode()).hexdigest()
    files = {}
    for number, start in enumerate(range(0, len(texts), 4)):
        window = texts[start : start + 4]
        vectors = encoder.encode(window)
        marked = hashlib.sha256(f"vector float32 {vectors.shape}\n".encode() + vectors.tobytes()).hexdigest()
        columns = {
            "id": pyarrow.array(range(start, start + len(window)), pyarrow.int64()),
            "text": pyarrow.array(window, pyarrow.large_string()),
            "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), 32),
        }
        table = pyarrow.table(columns, metadata={"textcl.made_of": made_of, "textcl.vectors": marked})
        path = directory / f"part-{number:05}.parquet"
        pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False, write_page_checksum=True)
        content = path.read_bytes()
        files[path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    complete = {"texts": len(texts), "shards": len(files), "files": files}
    if sealed:
        (directory / "complete.json").write_text(json.dumps({**complete, "sha256": content_hash(complete)}))
    return directory


@pytest.mark.parametrize("sealed", [True, False])
def test_a_directory_of_before_is_read_continued_and_appended_to(
    encoder: Encoder, tmp_path: Path, sealed: bool
) -> None:
    directory = old_directory(tmp_path / "v", encoder, TEXTS[:10], sealed)
    times = {path.name: path.stat().st_mtime_ns for path in directory.glob("part*")}
    encode_corpus(encoder, TEXTS[:10], directory, shard_rows=4)
    vectors = Vectors(directory)
    assert (vectors.texts(), vectors.own_ids(), vectors.parts(), vectors.columns) == (TEXTS[:10], None, None, ())
    assert vectors.table().column_names == ["id", "text"]
    encode_corpus(encoder, TEXTS[10:15], directory, append=True)
    assert Vectors(directory).texts() == TEXTS[:15]
    assert Vectors(directory).ids().tolist() == list(range(15))
    manifest = Vectors(directory).manifest
    assert "rows_read" not in manifest["corpus"], "the rows were not counted then"
    assert [each["rows_read"] for each in manifest["added"]] == [5]
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in directory.glob("part*")}.items()
    (directory / "part-00001.parquet").unlink()
    encode_corpus(encoder, TEXTS[:10], directory, shard_rows=4)
    assert Vectors(directory).texts() == TEXTS[:15]


def test_clusters_of_a_directory_are_those_of_its_file(model: Path, encoder: Encoder, tmp_path: Path, capsys) -> None:
    rows = [{"ticket": n + 100, "body": text, "rank": f"={n}"} for n, text in enumerate(TEXTS[:90])]
    path = csv_file(tmp_path / "t.csv", rows)
    flags = ["--column", "body", "--id-column", "ticket", "--columns", "rank"]
    assert main(["encode", str(model), str(path), "--output", str(tmp_path / "v"), *flags]) == 0
    direct = cluster_texts(encoder, TEXTS[:90], 4)
    found = cluster_vectors(tmp_path / "v", 4)
    assert found.clusters.tolist() == direct.clusters.tolist()
    assert found.rank.tolist() == direct.rank.tolist()
    assert np.allclose(found.confidence, direct.confidence, atol=1e-4)
    capsys.readouterr()
    command = ["cluster", str(tmp_path / "v"), "--clusters", "4", "--output", str(tmp_path / "c.csv"), "--safe-csv"]
    assert main([*command, "--nearest", "2", "--json", "-"]) == 0
    shown = json.loads(capsys.readouterr().out)
    with (tmp_path / "c.csv").open(newline="") as handle:
        written = list(csv.DictReader(handle))
    assert list(written[0]) == [
        *("text", "cluster", "confidence", "typical", "rank", "name", "second_cluster", "id", "column:rank")
    ]
    assert [row["id"] for row in written] == [str(row["ticket"]) for row in rows]
    assert [row["column:rank"] for row in written] == [f"'{row['rank']}" for row in rows]
    assert [int(row["cluster"]) for row in written] == direct.clusters.tolist()
    for cluster in shown["clusters"]:
        for text, row in zip(cluster["nearest"], cluster["rows"], strict=True):
            assert rows[int(row["id"]) - 100]["body"] == text
            assert row["column:rank"] == rows[int(row["id"]) - 100]["rank"]


def test_what_cluster_refuses_beside_a_directory(model: Path, encoder: Encoder, tmp_path: Path, capsys) -> None:
    vectors = str(encode_corpus(encoder, TEXTS[:30], tmp_path / "v"))
    texts = csv_file(tmp_path / "t.csv", ROWS)
    out = ["--output", str(tmp_path / "c.csv")]
    for arguments, message in [
        ([vectors, "--adapt"], "--adapt trains a model, which vectors are not"),
        ([vectors, "--limit", "3"], "--limit was settled when they were encoded"),
        ([vectors, "--column", "text"], "--column was settled"),
        ([vectors, "--pooling", "cls"], "--pooling was settled"),
        ([vectors, "--max-length", "9"], "--max-length was settled"),
        ([vectors, "--batch-size", "9"], "--batch-size was settled"),
        ([vectors, str(texts)], f"{vectors} holds vectors of textcl encode; give it alone"),
        ([str(model), vectors], f"{vectors} holds vectors of textcl encode; give it alone"),
        ([str(model)], "is not a directory that textcl encode wrote. Name a model and a file"),
        ([vectors, "--clusters", "31"], "only 30 distinct texts"),
    ]:
        assert main(["cluster", *arguments, *out]) == 2, arguments
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c.csv").exists()


def test_an_array_takes_none_of_the_flags(model: Path, tmp_path: Path, capsys) -> None:
    texts = csv_file(tmp_path / "t.csv", ROWS)
    for flag in (["--id-column", "id"], ["--columns", "all"], ["--append"], ["--split-long"]):
        assert main(["encode", str(model), str(texts), "--output", str(tmp_path / "x.npy"), *flag]) == 2
        assert f"{flag[0]} works only with a directory, not with a .npy file" in capsys.readouterr().err
    assert not (tmp_path / "x.npy").exists()


def test_it_is_public() -> None:
    assert textcl.Vectors is Vectors
