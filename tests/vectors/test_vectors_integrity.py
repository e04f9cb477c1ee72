"""Vectors on disk: what was damaged, removed or cannot be written is made again or refused, and never searched."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.command import python
from support.disk import files_limited, small_disk
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.locks import taken
from textcl.vectors.encode import BatchEncoder, encode_corpus
from textcl.vectors.index import CorpusIndex
from textcl.vectors.shards import check_finite, load_vectors

QUERY = "an old sailor hides a clock"


@pytest.fixture(scope="module")
def whole(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = encode_corpus(encoder, TEXTS[:40], tmp_path_factory.mktemp("vectors") / "v", shard_rows=8)
    CorpusIndex(directory, encoder)
    return directory


@pytest.fixture
def vectors(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "v")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", ["index.faiss", "index.json"])
@pytest.mark.parametrize("damage", ["one bit", "cut", "empty"])
def test_a_damaged_index_is_built_again(encoder: Encoder, vectors: Path, name: str, damage: str) -> None:
    expected, before = CorpusIndex(vectors, encoder).search(QUERY, 20), contents(vectors)
    path = vectors / name
    if damage == "one bit":
        flip(path, len(path.read_bytes()) // 2)
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "cut" and name == "index.faiss" else b"")
    assert CorpusIndex(vectors, encoder).search(QUERY, 20) == expected
    assert contents(vectors) == before


@pytest.mark.parametrize("values", [{"texts": 120}, {"texts": 39}, {"shards": 3}, {"files": {}}, {"texts": "40"}])
@pytest.mark.parametrize("sealed", [True, False])
def test_numbers_that_do_not_agree_are_refused(vectors: Path, values: dict, sealed: bool) -> None:
    """Also where the file has no SHA-256 of its content, as if a program had written it anew."""
    content = json.loads((vectors / "complete.json").read_text())
    if not sealed:
        del content["sha256"]
    (vectors / "complete.json").write_text(json.dumps({**content, **values}))
    with pytest.raises(InputError, match="Run the same `textcl encode` again"):
        load_vectors(vectors)


@pytest.mark.parametrize("complete", [True, False])
def test_a_damaged_shard_is_made_again_wherever_the_damage_is(encoder: Encoder, vectors: Path, complete: bool) -> None:
    """In the vectors, the texts, the footer. A directory that is not complete has no hash of the file yet."""
    before, expected = contents(vectors), load_vectors(vectors)
    path = vectors / "part-00002.parquet"
    size = path.stat().st_size
    for place in range(5, size, size // 12):
        flip(path, place)
        with pytest.raises(InputError, match=r"part-00002.parquet is missing or damaged. Run the same"):
            load_vectors(vectors)
        if not complete:
            (vectors / "complete.json").unlink()
        encode_corpus(encoder, TEXTS[:40], vectors, shard_rows=8)
        assert all(map(np.array_equal, load_vectors(vectors), expected)), place
        if complete:
            assert contents(vectors) == before, place
        path.write_bytes(before[path.name])
        encode_corpus(encoder, TEXTS[:40], vectors, shard_rows=8)


def test_a_search_reads_no_damaged_text(encoder: Encoder, vectors: Path) -> None:
    index = CorpusIndex(vectors, encoder)
    hit = index.search(QUERY, 1)[0]
    path = vectors / f"part-{hit.id // 8:05}.parquet"
    flip(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="missing or damaged"):
        CorpusIndex(vectors, encoder).search(QUERY, 1)


def test_a_folder_of_parts_alone_is_continued_and_parts_of_another_model_are_not_taken(
    encoder: Encoder, vectors: Path, tmp_path: Path
) -> None:
    before = contents(vectors)
    for name in ("manifest.json", "complete.json", "part-00001.parquet"):
        (vectors / name).unlink()
    kept = (vectors / "part-00003.parquet").stat().st_mtime_ns
    encode_corpus(encoder, TEXTS[:40], vectors, shard_rows=8)
    assert (vectors / "part-00003.parquet").stat().st_mtime_ns == kept
    assert contents(vectors) == before
    other = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "other", seed=1), device="cpu")
    (vectors / "manifest.json").unlink()
    encode_corpus(other, TEXTS[:40], vectors, shard_rows=8)
    assert np.allclose(load_vectors(vectors)[1], other.encode(TEXTS[:40]), atol=1e-6)


def test_an_output_that_is_removed_meanwhile_is_not_called_complete(model: Path, whole: Path, tmp_path: Path) -> None:
    encoder, output = Encoder.from_pretrained(model, device="cpu"), tmp_path / "v"

    def remove(*args: object) -> None:
        if len(list(output.glob("part-*"))) == 3:
            shutil.rmtree(output)

    handle = encoder.backbone.register_forward_pre_hook(remove)
    with pytest.raises(InputError, match=r"v changed while it was written: manifest.json is missing. Run the same"):
        encode_corpus(encoder, TEXTS[:40], output, shard_rows=8)
    assert not (output / "complete.json").exists()
    handle.remove()
    encode_corpus(encoder, TEXTS[:40], output, shard_rows=8)
    assert np.array_equal(load_vectors(output)[1], load_vectors(whole)[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "my web app", "start_url": "/"}', "is not a manifest of textcl: it lacks schema"),
        (b'{"schema": 1}', "it lacks model"),
        (b"[]", "is damaged. Remove this file"),
        (b'{"schema": 1,', "is damaged. Remove this file"),
    ],
)
def test_a_manifest_of_something_else_is_said_to_be_so(
    encoder: Encoder, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    for call in (lambda: load_vectors(tmp_path), lambda: encode_corpus(encoder, TEXTS, tmp_path)):
        with pytest.raises(InputError, match=message):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_second_process_is_told_that_the_folder_is_in_use_before_the_model_is_loaded(tmp_path: Path) -> None:
    with taken(tmp_path / "v"), pytest.raises(InputError, match="v is in use by process"):
        encode_corpus("no such model", TEXTS, tmp_path / "v")


def test_without_room_for_the_index_the_search_is_done_in_memory(
    encoder: Encoder, vectors: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = CorpusIndex(vectors, encoder).search(QUERY)
    (vectors / "index.faiss").unlink()
    with files_limited(2000):
        index = CorpusIndex(vectors, encoder)
    assert "The index cannot be saved" in caplog.text
    assert index.search(QUERY) == expected
    assert not (vectors / "index.faiss").exists()
    assert not list(vectors.glob(".*"))


def test_without_permission_for_the_index_the_search_is_done_in_memory(vectors: Path, model: Path) -> None:
    (vectors / "index.faiss").unlink()
    copied = shutil.copytree(model, vectors.parent / "m")
    for path in (copied, *copied.iterdir(), *vectors.iterdir()):  # whatever the umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    program = f"""
import os
from textcl.vectors.index import CorpusIndex
for folder in {[str(each) for each in [*vectors.parents][:-2]]}:
    os.chmod(folder, 0o755)
os.chmod({str(vectors)!r}, 0o555)
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
print(CorpusIndex({str(vectors)!r}, {str(vectors.parent / "m")!r}).search({QUERY!r})[0].text)
"""
    run = python(program)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in TEXTS
    assert "The index cannot be saved" in run.stderr


def test_a_full_disk_is_one_sentence_and_the_shards_stay(model: Path, tmp_path: Path, capsys) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(text + "\n" for text in TEXTS))
    with small_disk(tmp_path / "disk", "36k") as disk:
        assert main(["encode", str(model), str(corpus), "--output", str(disk / "v"), "--shard-rows", "48"]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "could not be written, because the disk is full" in shown
        assert list((disk / "v").glob("part-*"))
        assert not list((disk / "v").glob(".*"))
        assert main(["encode", str(model), str(corpus), "--output", str(disk / "x.npy")]) == 2
        shown = capsys.readouterr().err
        assert "x.npy could not be written, because the disk is full" in shown
        assert not (disk / "x.npy").exists()
        os.system(f"mount -o remount,size=10m {disk}")
        assert main(["encode", str(model), str(corpus), "--output", str(disk / "v"), "--shard-rows", "48"]) == 0
        assert len(load_vectors(disk / "v")[0]) == len(TEXTS)


def test_a_model_that_gives_nan_is_refused_by_every_output(model: Path, tmp_path: Path, capsys) -> None:
    damaged = shutil.copytree(model, tmp_path / "nan")
    weights = load_file(damaged / "model.safetensors")
    next(weights[name] for name in weights if name.endswith("word_embeddings.weight"))[20:] = float("nan")
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    for output in ("x.npy", "x"):
        assert main(["encode", str(damaged), str(tmp_path / "t.txt"), "--output", str(tmp_path / output)]) == 2
        assert "that are not finite" in capsys.readouterr().err
        assert not (tmp_path / "x.npy").exists()


def test_the_texts_of_a_corpus_get_the_models_prompt_for_documents(
    model: Path, tmp_path: Path, capsys, caplog: pytest.LogCaptureFixture
) -> None:
    """Expected: sentence-transformers' `encode_document` and `encode_query` on the same directory."""
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "the garden wall ", "document": "a small boat "}
    Encoder.from_pretrained(model, prompts=prompts, device="cpu").save(tmp_path / "m")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS[:9]))
    peer = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    expected, bare = peer.encode_document(TEXTS[:9]), peer.encode(TEXTS[:9])
    assert np.abs(expected - bare).max() > 1e-3
    command = ["encode", str(tmp_path / "m"), str(tmp_path / "t.txt"), "--output"]
    assert main([*command, str(tmp_path / "v")]) == 0
    assert "prompt for documents is used: 'a small boat '" in caplog.text
    caplog.clear()
    assert main([*command, str(tmp_path / "x.npy")]) == 0
    assert "prompt for documents is used" in caplog.text
    assert np.abs(load_vectors(tmp_path / "v")[1] - expected).max() < 1e-6
    assert np.abs(np.load(tmp_path / "x.npy") - expected).max() < 1e-6
    assert main([*command, str(tmp_path / "bare"), "--prompt", ""]) == 0
    assert np.abs(load_vectors(tmp_path / "bare")[1] - bare).max() < 1e-6
    batch = BatchEncoder(str(tmp_path / "m"))({"text": np.array(TEXTS[:9], dtype=object)})
    assert np.abs(batch["vector"] - expected).max() < 1e-6
    query = peer.encode_query(QUERY)
    best = (expected @ query / np.linalg.norm(expected, axis=1)).max() / np.linalg.norm(query)
    assert abs(CorpusIndex(tmp_path / "v").search(QUERY)[0].score - best) < 1e-5
    Encoder.from_pretrained(model, prompts={"document": "a small boat "}, device="cpu").save(tmp_path / "d")
    assert main(["encode", str(tmp_path / "d"), str(tmp_path / "t.txt"), "--output", str(tmp_path / "w")]) == 0
    plain = peer.encode(QUERY)
    best = (expected @ plain / np.linalg.norm(expected, axis=1)).max() / np.linalg.norm(plain)
    assert abs(CorpusIndex(tmp_path / "w").search(QUERY)[0].score - best) < 1e-5, "a query is not a document"


def test_vectors_that_are_not_finite_are_counted() -> None:
    vectors = np.ones((3, 2), np.float32)
    check_finite(vectors)
    vectors[1, 0] = np.inf
    with pytest.raises(InputError, match="The model gives NaN or infinite numbers for 1 of 3 texts"):
        check_finite(vectors)


def test_one_text_is_enough_to_encode(model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "one.txt").write_text("only one\n")
    for output in ("one.npy", "one"):
        assert main(["encode", str(model), str(tmp_path / "one.txt"), "--output", str(tmp_path / output)]) == 0
    assert np.array_equal(np.load(tmp_path / "one.npy"), load_vectors(tmp_path / "one")[1])
    assert main(["cluster", str(model), str(tmp_path / "one.txt"), "--output", str(tmp_path / "c.csv")]) == 2
    error = capsys.readouterr().err
    assert "contrastive" not in error
