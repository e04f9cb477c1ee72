"""Appending to a directory of vectors: it grows, nothing is encoded again, and a kill at any moment loses nothing."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from support.command import KILLED_AT, Forked
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.seals import read_sealed
from textcl.vectors.encode import encode_corpus
from textcl.vectors.manifest import shard_starts
from textcl.vectors.shards import load_vectors, read_shard
from textcl.vectors.vectors import Vectors


def rows(first: int, last: int) -> list[dict[str, object]]:
    return [{"id": n, "text": TEXTS[n], "day": f"{n % 30}"} for n in range(first, last)]


def modified(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.glob("part-*.parquet")}


@pytest.fixture
def grown(encoder: Encoder, tmp_path: Path) -> Path:
    """Ten rows, to which seven and three are added, in shards of four."""
    options = {"id_column": "id", "columns": ["day"], "shard_rows": 4, "dtype": "float16", "prompt": "a "}
    directory = encode_corpus(encoder, rows(0, 10), tmp_path / "v", **options)
    times = modified(directory)
    for first, last in ((10, 17), (17, 20)):
        encode_corpus(encoder, rows(first, last), directory, append=True)
        assert times.items() <= (times := modified(directory)).items(), "what was there was not made again"
    return directory


def test_a_directory_grows(encoder: Encoder, grown: Path) -> None:
    vectors = Vectors(grown)
    assert len(vectors) == 20
    assert vectors.texts() == TEXTS[:20]
    assert vectors.ids().tolist() == vectors.own_ids() == list(range(20))
    assert vectors.column("day") == [f"{n % 30}" for n in range(20)]
    expected = encoder.encode(TEXTS[:20], prompt="a ")
    assert np.allclose(vectors.vectors(), expected, atol=2e-3)
    assert np.array_equal(load_vectors(grown)[1], vectors.vectors())
    starts = shard_starts(vectors.manifest)
    assert starts == [0, 4, 8, 10, 14, 17]
    assert [int(read_shard(grown, number, ["id"])["id"][0]) for number in range(6)] == starts


def test_ids_behind_blank_rows_and_a_limit(encoder: Encoder, tmp_path: Path) -> None:
    directory = encode_corpus(encoder, ["", TEXTS[0], "", TEXTS[1], TEXTS[2]], tmp_path / "v", limit=2)
    encode_corpus(encoder, ["", TEXTS[3], TEXTS[4], TEXTS[5]], directory, append=True, limit=2)
    encode_corpus(encoder, [TEXTS[6]], directory, append=True)
    vectors = Vectors(directory)
    assert vectors.ids().tolist() == [1, 3, 5, 6, 7]
    assert vectors.texts() == [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[4], TEXTS[6]]


def test_the_same_call_twice_adds_once(model: Path, encoder: Encoder, grown: Path, caplog) -> None:
    before = {path.name: path.read_bytes() for path in grown.iterdir()}
    unread = Encoder.from_pretrained(model, device="cpu")
    unread.backbone.register_forward_pre_hook(lambda *args: pytest.fail("nothing is left to encode"))
    caplog.set_level("INFO", "textcl")
    for first, last in ((17, 20), (10, 17), (0, 10)):
        encode_corpus(unread, rows(first, last), grown, append=True)
        assert "is in " in caplog.messages[-1]
    whole = {"id_column": "id", "columns": ["day"], "shard_rows": 4, "dtype": "float16", "prompt": "a "}
    encode_corpus(unread, rows(0, 10), grown, **whole)
    assert {path.name: path.read_bytes() for path in grown.iterdir()} == before


@pytest.mark.parametrize("lost", [False, True])
def test_each_corpus_mends_its_own_shards(encoder: Encoder, grown: Path, lost: bool) -> None:
    """Also where `complete.json` is lost, and where a shard of another corpus is damaged too."""
    before = {path.name: path.read_bytes() for path in grown.iterdir()}
    for name in ("part-00001.parquet", "part-00003.parquet"):
        content = bytearray((grown / name).read_bytes())
        content[len(content) // 2] ^= 4
        (grown / name).write_bytes(content)
    if lost:
        (grown / "complete.json").unlink()
        with pytest.raises(InputError, match=r"Shards of the list in .* run the `textcl encode` again that wrote them"):
            encode_corpus(encoder, rows(10, 17), grown, append=True)
    whole = {"id_column": "id", "columns": ["day"], "shard_rows": 4, "dtype": "float16", "prompt": "a "}
    encode_corpus(encoder, rows(0, 10), grown, **whole)
    encode_corpus(encoder, rows(10, 17), grown, append=True)
    encode_corpus(encoder, rows(17, 20), grown, append=True)
    assert {path.name: path.read_bytes() for path in grown.iterdir()} == before


def test_what_is_refused_changes_nothing(model: Path, encoder: Encoder, grown: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in grown.iterdir()}
    other = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", seed=1), device="cpu")
    numbers = [{"id": f"x{n}", "text": TEXTS[n], "day": 3} for n in range(30, 33)]
    for of, corpus, options, message in [
        (other, rows(20, 25), {}, "was written by another model"),
        (encoder.with_(pooling="cls"), rows(20, 25), {}, "with pooling 'mean', not 'cls'"),
        (encoder, rows(20, 25), {"dtype": "int8"}, "with dtype 'float16', not 'int8'"),
        (encoder, rows(20, 25), {"shard_rows": 9}, "with shard_rows 4, not 9"),
        (encoder, rows(20, 25), {"prompt": ""}, "with prompt 'a ', not ''"),
        (encoder, rows(20, 25), {"split_long": True}, "with split None, not True"),
        (encoder, rows(20, 25), {"columns": "all", "id_column": "day"}, "with id_column 'id', not 'day'"),
        (encoder, TEXTS[20:25], {}, "has no column"),
        (encoder, numbers, {}, "Ids of the list cannot be added: there are whole numbers in the directory"),
    ]:
        with pytest.raises(InputError, match=message):
            encode_corpus(of, corpus, grown, append=True, **options)
        assert {path.name: path.read_bytes() for path in grown.iterdir()} == before
    with pytest.raises(InputError, match="has no vectors to which something can be added"):
        encode_corpus(encoder, rows(0, 5), tmp_path / "nothing", append=True)
    assert not (tmp_path / "nothing").exists()
    (grown / "complete.json").unlink()
    with pytest.raises(InputError, match="is not complete yet"):
        encode_corpus(encoder, rows(20, 25), grown, append=True)


def test_an_interrupted_addition_goes_on_or_is_given_up(model: Path, encoder: Encoder, grown: Path, caplog) -> None:
    """Until it is complete, the directory is read as it was."""
    stopping, before = Encoder.from_pretrained(model, device="cpu"), modified(grown)

    def stop(*args: object) -> None:
        if len(modified(grown)) == 8:
            raise KeyboardInterrupt

    handle = stopping.backbone.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(stopping, rows(20, 33), grown, append=True)
    assert Vectors(grown).texts() == TEXTS[:20]
    whole = {"id_column": "id", "columns": ["day"], "shard_rows": 4, "dtype": "float16", "prompt": "a "}
    encode_corpus(encoder, rows(0, 10), grown, **whole)
    assert "Not all of the list is in " in caplog.text
    assert Vectors(grown).texts() == TEXTS[:20]
    given_up = Path(shutil.copytree(grown, grown.parent / "given-up"))
    handle.remove()
    times = modified(grown)
    encode_corpus(encoder, rows(20, 33), grown, append=True)
    assert Vectors(grown).texts() == TEXTS[:33]
    assert before.items() <= times.items() <= modified(grown).items()
    encode_corpus(encoder, rows(40, 43), given_up, append=True)
    assert "the list was not added completely to" in caplog.text
    assert Vectors(given_up).texts() == [*TEXTS[:20], *TEXTS[40:43]]
    assert Vectors(given_up).ids().tolist() == list(range(23))
    assert len(modified(given_up)) == 7, "what was given up is gone"


def test_ranks_share_what_is_added(encoder: Encoder, grown: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    alone = Path(shutil.copytree(grown, grown.parent / "alone"))
    encode_corpus(encoder, rows(20, 33), alone, append=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        assert len(Vectors(grown)) == 20
        monkeypatch.setenv("RANK", rank)
        encode_corpus(encoder, rows(20, 33), grown, append=True)
    contents = [{path.name: path.read_bytes() for path in each.iterdir()} for each in (grown, alone)]
    assert contents[0] == contents[1]


def test_the_command(model: Path, tmp_path: Path, capsys) -> None:
    for name, first, last in (("a", 0, 30), ("b", 30, 40)):
        lines = "".join(f"{n},{TEXTS[n]}\n" for n in range(first, last))
        (tmp_path / f"{name}.csv").write_text("ticket,body\n" + lines)
    command = ["encode", str(model), "--output", str(tmp_path / "v")]
    own = ["--column", "body", "--id-column", "ticket", "--max-length", "20", "--normalize"]
    assert main([*command, str(tmp_path / "a.csv"), *own]) == 0
    capsys.readouterr()
    for _ in range(2):
        assert main([*command, str(tmp_path / "b.csv"), "--append"]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'v'}: 40 vectors of 32 numbers in 2 shards, 128 bytes each\n"
    assert Vectors(tmp_path / "v").own_ids() == [f"{n}" for n in range(40)]
    assert np.allclose(np.linalg.norm(Vectors(tmp_path / "v").vectors(), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("own", [["--id-column", "id"], []])
def test_texts_that_are_there_already_are_said(own: list[str], model: Path, tmp_path: Path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def said(name: str, numbers: range, *more: str) -> list[str]:
        caplog.clear()
        rows = "".join(f"{n},{TEXTS[n]}\n" for n in numbers)
        Path(name).write_text(f"id,text\n{rows}")
        assert main(["encode", str(model), name, "--column", "text", "--output", "v", *own, *more]) == 0
        return caplog.messages

    assert said("a.csv", range(20)) == []
    assert said("b.csv", range(20, 25), "--append") == []
    assert said("b.csv", range(20, 25), "--append") == ["b.csv is in v already, so it is not added again."]
    (line,) = said("a.csv", range(18, 30), "--append")
    assert len(Vectors("v")) == 37
    if own:
        assert line == "7 of the 12 ids of a.csv are in v already, first 18; rows of these ids are there twice."
    else:
        assert line == "a.csv is in v already, with other texts than now; texts of both are there twice."
    assert said("c.csv", range(30, 31), "--append") == []


APPENDS = f"""
{KILLED_AT}
import json
import textcl.vectors.encode
from textcl.encoder import Encoder

encoder = Encoder.from_pretrained(sys.argv[2], device="cpu")
textcl.vectors.encode.encode_corpus(encoder, json.loads(sys.argv[3]), sys.argv[4], append=True)
"""


@pytest.mark.slow
def test_killed_while_it_appends(model: Path, encoder: Encoder, grown: Path, tmp_path: Path) -> None:
    """SIGKILL behind several shards: what was there is read, no shard is made again, and the end is that of no kill."""
    more = rows(20, 120)
    whole = Path(shutil.copytree(grown, tmp_path / "whole"))
    encode_corpus(encoder, more, whole, append=True)
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    times = modified(grown)
    for wanted in (7, 12, 25):
        place = f"/.part-{wanted:05}.parquet."
        with Forked(APPENDS, place, model, json.dumps(more), grown) as process:
            killed = process.wait()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert Vectors(grown).texts() == TEXTS[:20]
        assert times.items() <= (times := modified(grown)).items(), "a shard was made again"
        assert len(times) == wanted < 31
    encode_corpus(encoder, more, grown, append=True)
    assert times.items() <= modified(grown).items()
    assert {path.name: path.read_bytes() for path in grown.iterdir()} == expected
    assert [each["texts"] for each in read_sealed(grown / "manifest.json")["added"]] == [7, 3, 100]


def test_blank_rows_are_said_to_count_only_where_ids_are_rows(encoder: Encoder, tmp_path: Path, caplog) -> None:
    texts = [{"id": 7, "text": ""}, {"id": 8, "text": TEXTS[0]}, {"id": 9, "text": TEXTS[1]}]
    for id_column, counts in (("id", ""), (None, "; ids still count them")):
        caplog.clear()
        encode_corpus(encoder, texts, tmp_path / f"{id_column}", id_column=id_column)
        assert caplog.messages == [f"the list: 1 row is blank and was left out{counts}."]
