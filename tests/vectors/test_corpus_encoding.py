"""Encoding a corpus: the vectors of `Encoder.encode`, whatever the shards, the processes and the kills."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset
from support.command import KILLED_AT, Forked, environment, textcl
from support.shards import contents, corpus_file, modified, parts
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.data.corpora import read_rows, read_texts
from textcl.device import has_bf16
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.files import machine
from textcl.vectors import shards
from textcl.vectors.encode import BatchEncoder, encode_corpus
from textcl.vectors.shards import iterate_vectors, load_vectors, read_manifest

ODD = [
    "👩‍🚀 a small boat 🚤",
    "הספן הזקן",
    "the old\x01sailor",
    "\u202eright to left\u202c mixed",
    "a\x85b\u2028c",
    "word " * 30_000,
    "ﬁne — naïve",
]


@pytest.mark.parametrize("shard_rows", [1, 7, 48, 1000])
def test_vectors_are_those_of_encode_whatever_the_shards(encoder: Encoder, tmp_path: Path, shard_rows: int) -> None:
    texts = TEXTS[:41] + ODD
    directory = encode_corpus(encoder, corpus_file(tmp_path, texts), tmp_path / "v", shard_rows=shard_rows)
    ids, vectors = load_vectors(directory)
    assert ids.tolist() == list(range(48))
    assert (ids.dtype, vectors.dtype) == (np.int64, np.float32)
    windows = [texts[start : start + shard_rows] for start in range(0, 48, shard_rows)]
    assert np.array_equal(vectors, np.concatenate([encoder.encode(window) for window in windows]))
    # in another company a text is padded otherwise, which changes the last bits
    assert np.abs(vectors - encoder.encode(texts)).max() < 1e-6
    stored = [text for part in parts(directory) for text in pyarrow.parquet.read_table(part)["text"].to_pylist()]
    assert stored == [text.strip() for text in texts]
    assert len(list(iterate_vectors(directory))) == len(parts(directory)) == len(windows)


def test_numbers_of_other_types_are_within_their_bounds(encoder: Encoder, tmp_path: Path) -> None:
    corpus, exact = corpus_file(tmp_path, TEXTS), encoder.encode(TEXTS)
    size = {}
    for dtype in ("float32", "float16", "int8"):
        directory = encode_corpus(encoder, corpus, tmp_path / dtype, dtype=dtype)
        error = np.abs(load_vectors(directory)[1] - exact)
        largest = np.abs(exact).max(axis=1, keepdims=True)
        bound = {"float32": 0, "float16": np.maximum(np.abs(exact) / 2048, 2.0**-25), "int8": largest / 254 * 1.00001}
        assert (error <= bound[dtype]).all()
        assert error.max() > 0 or dtype == "float32"
        table = pyarrow.parquet.read_table(parts(directory)[0])
        stored = {"float32": "float", "float16": "halffloat", "int8": "int8"}[dtype]
        assert str(table.schema.field("vector").type) == f"fixed_size_list<element: {stored}>[32]"
        metadata = pyarrow.parquet.read_metadata(parts(directory)[0]).row_group(0)
        size[dtype] = next(
            metadata.column(i).total_compressed_size
            for i in range(metadata.num_columns)
            if metadata.column(i).path_in_schema.startswith("vector")
        )
    assert size["float16"] < 0.7 * size["float32"]
    assert size["int8"] < 0.4 * size["float32"]


def test_scales_of_int8(tmp_path: Path) -> None:
    vectors = np.array([[0, 0, 0], [1, -127, 63.5], [1e-44, 0, 0], [3e38, -3e38, 1]], np.float32)
    stored = shards.stored_columns(vectors, "int8")
    assert stored["vector"][:2].tolist() == [[0, 0, 0], [1, -127, 64]]
    assert stored["scale"][:2].tolist() == [0, 1]
    assert np.abs(shards.restored(stored) - vectors).max(axis=1).tolist()[:2] == [0, 0.5]
    assert np.isfinite(shards.restored(stored)).all()


def test_what_does_not_fit_a_half_is_refused(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Encoder(encoder.backbone, encoder.tokenizer, name="large")
    handle = large.backbone.register_forward_hook(lambda module, args, output: (output[0] * 1e6,))
    try:
        with pytest.raises(InputError, match="too large for float16; normalize the vectors, or store float32"):
            encode_corpus(large, corpus_file(tmp_path, TEXTS), tmp_path / "v", dtype="float16")
        encode_corpus(large, corpus_file(tmp_path, TEXTS), tmp_path / "n", dtype="float16", normalize=True)
    finally:
        handle.remove()


def test_ids_are_rows_of_the_corpus_and_blank_ones_are_left_out(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["", TEXTS[0], "  ", "", TEXTS[1], TEXTS[2], ""]
    ids, _ = load_vectors(encode_corpus(encoder, corpus_file(tmp_path, texts), tmp_path / "v", shard_rows=2))
    assert ids.tolist() == [1, 4, 5]
    assert "4 rows are blank" in caplog.text
    ids, _ = load_vectors(encode_corpus(encoder, texts, tmp_path / "limited", limit=2))
    assert ids.tolist() == [1, 4]


@pytest.mark.parametrize(("limit", "texts", "rows"), [(None, 4, 8), (3, 3, 5), (4, 4, 6)])
def test_the_manifest_counts_the_rows_that_were_read(
    encoder: Encoder, tmp_path: Path, limit: int | None, texts: int, rows: int
) -> None:
    corpus = corpus_file(tmp_path, ["", TEXTS[0], " ", TEXTS[1], TEXTS[0], TEXTS[2], "", ""])
    encode_corpus(encoder, corpus, tmp_path / "v", limit=limit, shard_rows=2)
    found = read_manifest(tmp_path / "v")["corpus"]
    assert (found["texts"], found["rows_read"]) == (texts, rows)
    encode_corpus(encoder, ["", *TEXTS[5:8], ""], tmp_path / "v", append=True)
    assert [each["rows_read"] for each in read_manifest(tmp_path / "v")["added"]] == [5]


def test_every_kind_of_corpus(encoder: Encoder, tmp_path: Path) -> None:
    texts = [text.strip() for text in TEXTS[:9]]
    Dataset.from_dict({"number": range(9), "body": texts}).to_parquet(tmp_path / "c.parquet")
    Dataset.from_dict({"body": texts}).to_json(tmp_path / "c.jsonl")
    Dataset.from_dict({"body": texts}).to_csv(tmp_path / "c.csv")
    sources = [tmp_path / "c.parquet", tmp_path / "c.jsonl", tmp_path / "c.csv", Dataset.from_dict({"body": texts})]
    for number, source in enumerate(sources):
        assert list(read_texts(source, column="body")) == texts
        directory = encode_corpus(encoder, source, tmp_path / str(number), column="body")
        assert np.array_equal(load_vectors(directory)[1], encoder.encode(texts))
        assert encode_corpus(encoder, sources[0], directory, column="body"), "the same texts, wherever they come from"


def test_prompts_and_lengths_are_those_of_encode(model: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(model, prompts={"document": "the garden wall "}, device="cpu")
    options = {"prompt": "a {text} today", "normalize": True}
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", **options)
    assert np.array_equal(load_vectors(directory)[1], encoder.encode(TEXTS, **options))
    directory = encode_corpus(encoder, TEXTS, tmp_path / "w", prompt_name="document")
    assert np.array_equal(load_vectors(directory)[1], encoder.encode(TEXTS, prompt_name="document"))
    assert json.loads((directory / "manifest.json").read_text())["settings"]["prompt"] == "the garden wall "


def test_a_text_is_encoded_once_a_shard(model: Path, tmp_path: Path) -> None:
    encoder, rows = Encoder.from_pretrained(model, device="cpu"), []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    texts = ["a small boat", TEXTS[1], "a small boat", "a small boat", TEXTS[1], "a small boat"]
    _, vectors = load_vectors(encode_corpus(encoder, texts, tmp_path / "v", shard_rows=4))
    assert sum(rows) == 4
    assert np.array_equal(vectors[0], vectors[3])
    assert np.allclose(vectors, encoder.encode(texts), atol=1e-6)


class Counted(str):
    """A text that is counted while anything holds it."""

    alive = most = 0

    def __new__(cls, text: str) -> "Counted":
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        return super().__new__(cls, text)

    def __del__(self) -> None:
        Counted.alive -= 1


def test_memory_holds_two_shards_of_texts_however_long_the_corpus(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = lambda corpus, **options: ((Counted(text), own) for text, own in read_rows(corpus))  # noqa: E731
    monkeypatch.setattr("textcl.vectors.corpus.read_rows", counted)
    corpus = corpus_file(tmp_path, TEXTS * 4)
    for rows in (16, 64):
        gc.collect()
        Counted.alive = Counted.most = 0
        encode_corpus(encoder, corpus, tmp_path / f"{rows}", shard_rows=rows)
        assert rows < Counted.most <= 2 * rows + 2


def test_a_rerun_makes_what_is_missing_or_damaged_and_nothing_else(
    model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    corpus = corpus_file(tmp_path, TEXTS[:40])
    directory = encode_corpus(encoder, corpus, tmp_path / "v", shard_rows=8)
    whole = contents(directory)

    def damage(name: str, kind: str) -> None:
        path = directory / name
        if kind == "cut short":
            path.write_bytes(path.read_bytes()[:-100])
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "removed":
            path.unlink()
        elif kind == "of another place":
            shutil.copy(directory / "part-00000.parquet", path)
        elif kind == "fewer rows":
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 5), path)
        elif kind == "other columns":
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).select(["id"]), path)

    kinds = ["cut short", "empty", "removed", "of another place", "fewer rows", "other columns"]
    for number, kind in enumerate(kinds):
        name = f"part-0000{number % 4 + 1}.parquet"
        times = modified(directory)
        damage(name, kind)
        encode_corpus(encoder, corpus, directory, shard_rows=8)
        assert contents(directory) == whole, kind
        assert {name for name, _ in modified(directory).items() - times.items()} == {name}, kind
    unread = Encoder.from_pretrained(model, device="cpu")
    unread.backbone.register_forward_pre_hook(lambda *args: pytest.fail("nothing is left to encode"))
    encode_corpus(unread, corpus, directory, shard_rows=8)
    damage("part-00003.parquet", "cut short")
    with pytest.raises(pytest.fail.Exception):
        encode_corpus(unread, corpus, directory, shard_rows=8)
    assert not (directory / "complete.json").exists(), "what was complete is so no longer"


def test_what_is_incomplete_or_damaged_does_not_load(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no vectors"):
        load_vectors(tmp_path)
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", shard_rows=100)
    path = parts(directory)[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255  # one byte, amid the vectors
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"part-00001.parquet is missing or damaged. Run the same"):
        load_vectors(directory)
    encode_corpus(encoder, TEXTS, directory, shard_rows=100)
    assert len(load_vectors(directory)[0]) == len(TEXTS)
    (directory / "complete.json").unlink()
    with pytest.raises(InputError, match="not complete yet"):
        load_vectors(directory)


def test_another_model_other_settings_and_another_corpus_are_refused(
    model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    corpus = corpus_file(tmp_path, TEXTS[:20])
    directory = encode_corpus(encoder, corpus, tmp_path / "v")
    before = contents(directory)
    settings = {
        "dtype": "int8",
        "shard_rows": 5,
        "normalize": True,
        "prompt": "a ",
        "limit": 3,
        **({"bf16": True} if has_bf16() else {}),
    }
    for name, value in settings.items():
        with pytest.raises(InputError, match=rf"was written with {name} .*, not {value!r}"):
            encode_corpus(encoder, corpus, directory, **{name: value})
    with pytest.raises(InputError, match="was written with pooling 'mean', not 'cls'"):
        encode_corpus(Encoder.from_pretrained(model, pooling="cls"), corpus, directory)
    with pytest.raises(InputError, match="was written with max_length 64, not 9"):
        encode_corpus(Encoder.from_pretrained(model, max_length=9), corpus, directory)
    other = tiny_encoder_directory(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=f"by another model, {model}"):
        encode_corpus(str(other), corpus, directory)
    corpus.write_text(corpus.read_text().replace(TEXTS[19].split()[1], "ships"))
    with pytest.raises(InputError, match=r"from another corpus, or .*corpus.txt has changed since"):
        encode_corpus(encoder, corpus, directory)
    assert contents(directory) == before


def test_a_model_is_known_by_its_weights_configuration_and_tokenizer(
    model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    mark = encoder.fingerprint(settings=False)
    assert Encoder.from_pretrained(encoder.save(tmp_path / "export")).fingerprint(settings=False) == mark
    changed = Encoder.from_pretrained(model)
    with torch.no_grad():
        changed.backbone.encoder.layer[1].output.dense.bias[3] += 1e-6
    assert changed.fingerprint(settings=False) != mark
    changed = Encoder.from_pretrained(model)
    changed.backbone.config.hidden_act = "relu"
    assert changed.fingerprint(settings=False) != mark
    changed = shutil.copytree(model, tmp_path / "cased")
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert Encoder.from_pretrained(changed).fingerprint(settings=False) != mark


def test_what_cannot_be_encoded_is_refused_and_leaves_nothing(encoder: Encoder, tmp_path: Path) -> None:
    good = corpus_file(tmp_path, TEXTS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "bad.txt").write_bytes(b"fine\n" * 100 + b"f\xe9in\n")
    (tmp_path / "empty.txt").write_bytes(b"\n \n")
    before = sorted(tmp_path.rglob("*"))
    for corpus, output, options, message in [
        (tmp_path / "empty.txt", "v", {}, "empty.txt holds no text"),
        (tmp_path / "bad.txt", "v", {"shard_rows": 10}, "line 101"),
        (tmp_path / "none.txt", "v", {}, "no file"),
        ([], "v", {}, "holds no text"),
        (good, "full", {}, "does not hold vectors of textcl"),
        (good, "corpus.txt", {}, "corpus.txt is a file; name a directory"),
        (good, "v", {"dtype": "int4"}, "not int4"),
        (good, "v", {"shard_rows": 0}, "must be at least 1"),
        (good, "v", {"limit": 0}, "must be at least 1"),
        (good, "v", {"prompt_name": "query"}, "no prompt 'query'"),
        (good, "v", {"column": "body"}, "no columns"),
    ]:
        with pytest.raises(InputError, match=message):
            encode_corpus(encoder, corpus, tmp_path / output, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_corpus_that_changes_while_it_is_encoded_is_refused(model: Path, tmp_path: Path) -> None:
    texts, encoder = TEXTS[:20], Encoder.from_pretrained(model, device="cpu")
    encoder.backbone.register_forward_pre_hook(lambda *args: texts.__setitem__(12, "another"))
    with pytest.raises(InputError, match="the list changed while it was read"):
        encode_corpus(encoder, texts, tmp_path / "v", shard_rows=5)
    assert len(parts(tmp_path / "v")) == 2
    encoder.backbone.register_forward_pre_hook(lambda *args: texts.__delitem__(slice(8, None)))
    with pytest.raises(InputError, match="the list changed while it was read"):
        encode_corpus(encoder, texts, tmp_path / "w", shard_rows=5)
    assert not (tmp_path / "w" / "complete.json").exists()


def test_without_bf16_the_manifest_says_float32(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("textcl.device.has_bf16", lambda: False)
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", bf16=True, shard_rows=10)
    assert caplog.text.count("no bfloat16") == 1
    assert np.array_equal(load_vectors(encode_corpus(encoder, TEXTS, directory, shard_rows=10))[0], range(len(TEXTS)))


ENCODES = f"""
{KILLED_AT}
import textcl.vectors.encode
from textcl.encoder import Encoder

encoder = Encoder.from_pretrained(sys.argv[2], device="cpu")
textcl.vectors.encode.encode_corpus(encoder, sys.argv[3], sys.argv[4], shard_rows=4)
"""


def test_killed_and_continued_no_shard_is_lost_or_made_again(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    corpus = corpus_file(tmp_path, TEXTS)
    expected = contents(encode_corpus(encoder, corpus, tmp_path / "uninterrupted", shard_rows=4))
    output, times = tmp_path / "v", {}
    for wanted in (10, 30):
        with Forked(ENCODES, f"/.part-{wanted:05}.parquet.", model, corpus, output) as process:
            killed = process.wait()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (output / "complete.json").exists()
        assert times.items() <= (times := modified(output)).items(), "a shard was made again"
        assert len(times) == wanted
    encode_corpus(encoder, corpus, output, shard_rows=4)
    assert times.items() <= modified(output).items()
    assert contents(output) == expected


def test_killed_while_a_shard_is_written(encoder: Encoder, tmp_path: Path) -> None:
    """What a killed process of this machine leaves is cleared away; what others are writing is not."""
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / f".manifest.json.{machine()}.{process.pid}.0.tmp").write_text("{")
    expected = contents(encode_corpus(encoder, TEXTS, tmp_path / "v", shard_rows=100))
    assert len(expected) == len(parts(tmp_path / "v")) + 2
    part = parts(tmp_path / "v")[1]
    for owner in (f"{machine()}.{process.pid}", f"{machine()}.{os.getppid()}", "elsewhere-1.17"):
        part.with_name(f".{part.name}.{owner}.0.tmp").write_bytes(part.read_bytes()[:500])
    part.unlink()
    (tmp_path / "v" / "complete.json").unlink()
    found = contents(encode_corpus(encoder, TEXTS, tmp_path / "v", shard_rows=100))
    kept = {f".{part.name}.{owner}.0.tmp" for owner in (f"{machine()}.{os.getppid()}", "elsewhere-1.17")}
    assert {name: content for name, content in found.items() if name not in kept} == expected
    assert kept <= found.keys(), "a process that is running, or may be, is still writing it"


def test_ranks_share_the_shards_and_make_the_files_of_one(
    model: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_file(tmp_path, TEXTS)
    alone = contents(encode_corpus(encoder, corpus, tmp_path / "alone", shard_rows=50))
    output = tmp_path / "shared"
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0):
        monkeypatch.setenv("RANK", str(rank))
        encode_corpus(encoder, corpus, output, shard_rows=50)
        assert not (output / "complete.json").exists()
    assert [int(path.stem[-5:]) for path in parts(output)] == [0, 2, 3, 5]
    parts(output)[0].write_bytes(b"")  # of rank 0, so that rank 1 is not the last
    monkeypatch.setenv("RANK", "1")
    encode_corpus(encoder, corpus, output, shard_rows=50)
    assert not (output / "complete.json").exists()
    monkeypatch.setenv("RANK", "0")
    encode_corpus(encoder, corpus, output, shard_rows=50)
    assert contents(output) == alone


@pytest.mark.slow  # each imports everything; what they do is tested above
def test_two_processes_of_torchrun_make_the_files_of_one(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    corpus = corpus_file(tmp_path, TEXTS)
    alone = contents(encode_corpus(encoder, corpus, tmp_path / "alone", shard_rows=30, batch_size=64))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "textcl"]
    flags = ["encode", str(model), "corpus.txt", "--output", "v", "--shard-rows", "30"]
    run = subprocess.run(
        [*launch, *flags], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert "v: 288 vectors of 32 numbers in 10 shards" in run.stdout
    shared = contents(tmp_path / "v")
    for files in (alone, shared):
        manifest = json.loads(files["manifest.json"])
        assert manifest["corpus"].pop("name").endswith("corpus.txt")
        del manifest["sha256"]  # the names of the corpora differ
        files["manifest.json"] = manifest
    assert shared == alone


def test_the_callable_for_other_schedulers(model: Path, encoder: Encoder) -> None:
    batch = {"text": np.array(TEXTS[:9], dtype=object), "number": np.arange(9)}
    done = BatchEncoder(str(model))(batch)
    assert np.array_equal(done["vector"], encoder.encode(TEXTS[:9]))
    assert np.array_equal(done["number"], batch["number"])
    assert set(batch) == {"text", "number"}
    small = BatchEncoder(str(model), dtype="int8", normalize=True)(batch)
    restored = small["vector"] * small["scale"][:, None]
    assert np.abs(restored - encoder.encode(TEXTS[:9], normalize=True)).max() < 1 / 254
    other = BatchEncoder(str(model), column="body")({"body": batch["text"]})
    assert np.array_equal(other["vector"], done["vector"])


@pytest.mark.slow
def test_an_actor_pool_of_ray(model: Path, encoder: Encoder) -> None:
    import ray

    variables = {name: environment()[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    try:
        rows = ray.data.from_items([{"number": number, "text": text} for number, text in enumerate(TEXTS)])
        done = rows.map_batches(
            BatchEncoder,
            fn_constructor_kwargs={"model": str(model), "normalize": True},
            concurrency=2,
            batch_size=50,
        ).take_all()
    finally:
        ray.shutdown()
    done.sort(key=lambda row: row["number"])
    assert [row["text"] for row in done] == TEXTS
    vectors = np.stack([row["vector"] for row in done])
    assert np.abs(vectors - encoder.encode(TEXTS, normalize=True)).max() < 1e-6


def test_the_command_encodes_goes_on_and_refuses(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, said = corpus_file(tmp_path, TEXTS[:40]), "v: 40 vectors of 32 numbers in 3 shards, 64 bytes each\n"
    command = ["encode", str(model), str(corpus), "--output", "v", "--shard-rows", "16", "--dtype", "float16"]
    run = textcl(*command, "--normalize", cwd=tmp_path)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", said)
    assert np.allclose(np.linalg.norm(load_vectors(tmp_path / "v")[1], axis=1), 1, atol=1e-3)
    monkeypatch.chdir(tmp_path)
    times = modified(tmp_path / "v")
    assert main([*command, "--normalize"]) == 0
    assert capsys.readouterr().out == said
    assert modified(tmp_path / "v") == times
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("textcl: v was written with normalize True, not False.")


def test_the_command_takes_several_files_as_one_corpus(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\n".join(["", *TEXTS[:10]]) + "\n")
    Path("b.txt").write_text("\n".join(TEXTS[10:16]) + "\n")
    assert main(["encode", str(model), "a.txt", "--output", "v", "b.txt"]) == 0
    assert capsys.readouterr().out.startswith("v: 16 vectors of 32 numbers")
    ids, vectors = load_vectors("v")
    assert ids.tolist() == [*range(1, 17)]
    assert np.abs(vectors - Encoder.from_pretrained(model).encode(TEXTS[:16])).max() < 1e-6
    assert main(["encode", "a.txt", "b.txt", "--output", "v.npy"]) == 0, "files alone are encoded with `small`"
    assert np.load("v.npy").shape == (16, 240)
    assert read_manifest("v")["corpus"]["name"] == "a.txt and 1 more"
    assert main(["encode", str(model), "a.txt", "c.txt", "--output", "w"]) == 2
    assert capsys.readouterr().err == "textcl: There is no file c.txt. Did you mean b.txt?\n"
    for alone in (str(model), "small", "some/model"):
        assert main(["encode", alone, "--output", "w"]) == 2
        assert capsys.readouterr().err.startswith(f"textcl: Name a file of texts behind {alone}")
    assert main(["encode", str(model), "b.txt", "a.txt", "--output", "v"]) == 2
    assert capsys.readouterr().err.startswith("textcl: v was written from another corpus")


def test_the_command_tells_a_rank_that_others_are_not_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    corpus, output = corpus_file(tmp_path, TEXTS[:40]), str(tmp_path / "v")
    assert main(["encode", str(model), str(corpus), "--output", output, "--shard-rows", "10"]) == 0
    assert capsys.readouterr().out.endswith("those of other processes are still missing\n")
    assert [path.name for path in parts(tmp_path / "v")] == ["part-00001.parquet", "part-00003.parquet"]
