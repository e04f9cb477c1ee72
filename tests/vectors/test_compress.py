"""Smaller vectors: cut, rotated, or as bits, against numpy, scikit-learn and sentence-transformers; and the same for
all processes, kills and additions."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings
from support.command import KILLED_AT, Forked
from support.shards import contents, corpus_file, modified, parts
from support.tiny import TEXTS

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation.clusters import assign_vectors, cluster_vectors
from textcl.report.map import write_map
from textcl.seals import read_sealed
from textcl.vectors.compress import Compression, bytes_of, unit
from textcl.vectors.duplicates import near_duplicates
from textcl.vectors.encode import BatchEncoder, encode_corpus
from textcl.vectors.shards import load_vectors, read_shard
from textcl.vectors.vectors import Vectors

SMALL = {"dimensions": 16, "pca": True, "dtype": "ubinary"}


def ones(bits: np.ndarray) -> np.ndarray:
    return np.unpackbits(bits, axis=1)


def test_bits_are_those_of_sentence_transformers_where_the_mean_is_0() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 72)).astype(np.float32)
    vectors[3, 5] = 0  # neither above nor below
    found = Compression(mean=np.zeros(72, np.float32)).bits(vectors)
    assert np.array_equal(found, quantize_embeddings(vectors, "ubinary"))
    both = np.concatenate([vectors, -vectors])
    fitted = Compression.fit(both, None, normalize=False, bits=True)
    assert np.abs(fitted.mean).max() < 1e-7


@pytest.mark.parametrize("normalize", [False, True])
def test_bits_are_signs_beside_the_mean_and_int8_lies_beside_them(
    encoder: Encoder, tmp_path: Path, normalize: bool
) -> None:
    options = {"normalize": normalize, "shard_rows": 50}
    plain = encode_corpus(encoder, TEXTS, tmp_path / "plain", dtype="int8", **options)
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", dtype="ubinary", **options)
    exact = load_vectors(encode_corpus(encoder, TEXTS, tmp_path / "exact", **options))[1]
    vectors = Vectors(directory)
    clear = np.abs(exact - exact.mean(axis=0)) > 1e-6  # nearer to the mean, rounding decides
    assert clear.mean() > 0.99
    assert np.array_equal(ones(vectors.bits())[clear], (exact > exact.mean(axis=0))[clear])
    assert abs(ones(vectors.bits()).mean() - 0.5) < 0.1
    assert np.array_equal(vectors.vectors(), Vectors(plain).vectors())
    assert np.array_equal(load_vectors(directory)[1], vectors.vectors())
    alone = Vectors(encode_corpus(encoder, TEXTS, tmp_path / "alone", dtype="ubinary", rescoring=False, **options))
    assert np.array_equal(alone.bits(), vectors.bits())
    assert set(read_shard(alone.directory, 0, ["vector", "scale", "bits"])) == {"bits"}
    assert alone.texts() == TEXTS


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_what_is_cut_has_its_length_again(encoder: Encoder, tmp_path: Path, normalize: bool, dtype: str) -> None:
    options = {"normalize": normalize, "shard_rows": 50}
    exact = load_vectors(encode_corpus(encoder, TEXTS, tmp_path / "exact", **options))[1]
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", dtype=dtype, dimensions=12, **options)
    expected = exact[:, :12]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    found = Vectors(directory)
    assert found.dimension == found.compression.dimensions == 12
    assert "fitted" not in found.manifest
    bound = {"float32": 1e-7, "float16": 1e-3, "int8": np.abs(expected).max() / 250}[dtype]
    assert np.abs(found.vectors() - expected).max() < bound
    assert load_vectors(directory)[1].shape == (len(TEXTS), 12)


@pytest.mark.parametrize("normalize", [False, True])
def test_pca_is_that_of_scikit_learn(encoder: Encoder, tmp_path: Path, normalize: bool) -> None:
    from sklearn.decomposition import PCA

    options = {"normalize": normalize, "shard_rows": 50}
    exact = load_vectors(encode_corpus(encoder, TEXTS, tmp_path / "exact", **options))[1]
    found = load_vectors(encode_corpus(encoder, TEXTS, tmp_path / "v", dimensions=7, pca=True, **options))[1]
    expected = exact @ PCA(7, svd_solver="full").fit(exact.astype(np.float64)).components_.T
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    signs = np.sign((found * expected).sum(axis=0))
    assert np.abs(found * signs - expected).max() < 1e-4 * np.abs(expected).max()


def test_only_the_first_vectors_are_fitted_on(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever follows them, and wherever the shards end."""
    monkeypatch.setattr("textcl.vectors.fitting.FITTED", 70)
    exact = encoder.encode(TEXTS[:70])
    fits = []
    for number, (texts, rows) in enumerate([(TEXTS, 50), (TEXTS[:70], 1000), (TEXTS[:200], 7)]):
        directory = encode_corpus(encoder, texts, tmp_path / str(number), shard_rows=rows, **SMALL)
        fits.append(Compression.of(read_sealed(directory / "manifest.json")))
        assert fits[-1].fitted_on == 70
    expected = Compression.fit(exact, 16, normalize=False, pca=True, bits=True)
    for fit in fits:
        assert np.allclose(fit.mean, expected.mean, atol=1e-4)
        cosines = np.einsum("ij,ij->j", fit.directions, expected.directions)
        assert (np.abs(cosines) > 0.99).all()
    assert not np.allclose(expected.mean, expected.reduce(encoder.encode(TEXTS)).mean(axis=0), atol=1e-3)


def test_the_first_texts_are_encoded_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textcl.vectors.fitting.FITTED", 70)
    encoder, rows = Encoder.from_pretrained(model, device="cpu"), []
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", shard_rows=50, **SMALL)
    assert sum(rows) == len(TEXTS)
    before = contents(directory)
    parts(directory)[1].unlink()
    encode_corpus(encoder, TEXTS, directory, shard_rows=50, **SMALL)
    assert sum(rows) == len(TEXTS) + 50
    assert contents(directory) == before


def test_ranks_additions_and_damage_give_the_files_of_one_run(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textcl.vectors.fitting.FITTED", 70)
    options = {"shard_rows": 40, "normalize": True, **SMALL}
    alone = encode_corpus(encoder, TEXTS[:200], tmp_path / "alone", **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        encode_corpus(encoder, TEXTS[:200], tmp_path / "shared", **options)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert contents(tmp_path / "shared") == contents(alone)
    whole = contents(alone)
    for lost in ("manifest.json", "complete.json", "part-00001.parquet"):  # the second has rows of both kinds
        (alone / lost).unlink()
    encode_corpus(encoder, TEXTS[:200], alone, **options)
    assert contents(alone) == whole
    # what is added is compared with the mean and has the directions of what was there
    encode_corpus(encoder, TEXTS[200:], alone, append=True)
    manifest = read_sealed(alone / "manifest.json")
    assert manifest["fitted"] == json.loads(whole["manifest.json"])["fitted"]
    fit, added = Compression.of(manifest), encoder.encode(TEXTS[200:], normalize=True)
    found = Vectors(alone)
    assert len(found) == len(TEXTS)
    assert np.abs(found.vectors()[200:] - fit.reduce(added)).max() < 1 / 250
    assert (ones(found.bits()[200:]) == ones(fit.bits(fit.reduce(added)))).mean() > 0.999
    own = Compression.fit(added, 16, normalize=True, pca=True, bits=True)
    assert (ones(found.bits()[200:]) == ones(own.bits(own.reduce(added)))).mean() < 0.9
    grown = contents(alone)
    encode_corpus(encoder, TEXTS[200:], alone, append=True)
    assert contents(alone) == grown


COMPRESSES = f"""
{KILLED_AT}
import textcl.vectors.encode, textcl.vectors.fitting
from textcl.encoder import Encoder

textcl.vectors.fitting.FITTED = 70
encoder = Encoder.from_pretrained(sys.argv[2], device="cpu")
options = dict(shard_rows=4, dimensions=16, pca=True, dtype="ubinary")
textcl.vectors.encode.encode_corpus(encoder, sys.argv[3], sys.argv[4], **options)
"""


def test_killed_and_continued(model: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and behind what is fitted, and behind some of the shards that it was fitted on."""
    monkeypatch.setattr("textcl.vectors.fitting.FITTED", 70)
    corpus = corpus_file(tmp_path, TEXTS)
    expected = contents(encode_corpus(encoder, corpus, tmp_path / "whole", shard_rows=4, **SMALL))
    output, times = tmp_path / "v", {}
    for place, wanted in (("/.manifest.json.", 0), ("/.part-00000.parquet.", 0), ("/.part-00009.parquet.", 9)):
        with Forked(COMPRESSES, place, model, corpus, output) as process:
            killed = process.wait()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert times.items() <= (times := modified(output)).items(), "a shard was made again"
        assert len(times) == wanted
    encode_corpus(encoder, corpus, output, shard_rows=4, **SMALL)
    assert times.items() <= modified(output).items()
    assert contents(output) == expected


def test_a_damaged_manifest_or_other_sizes_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    directory = encode_corpus(encoder, TEXTS, tmp_path / "v", **SMALL)
    before = contents(directory)
    for change, message in [
        ({"dimensions": 8}, "with dimensions 16, not 8"),
        ({"pca": False}, "with pca True, not None"),
        ({"dtype": "int8"}, "was written with dtype 'ubinary', not 'int8'"),
        ({"rescoring": False}, "with rescoring True, not False"),
    ]:
        with pytest.raises(InputError, match=message):
            encode_corpus(encoder, TEXTS, directory, **{**SMALL, **change})
    with pytest.raises(InputError, match="with dimensions 16, not 24"):
        encode_corpus(encoder, TEXTS[:50], directory, append=True, dimensions=24)
    assert contents(directory) == before
    text = (directory / "manifest.json").read_text()
    mean = json.loads(text)["fitted"]["mean"]
    (directory / "manifest.json").write_text(text.replace(mean, mean[4:8] + mean[4:]))
    with pytest.raises(InputError, match="is damaged"):
        Vectors(directory)


def test_what_makes_no_sense_is_refused_and_leaves_nothing(encoder: Encoder, tmp_path: Path) -> None:
    same = ["a small boat", "a small  boat ", "a small boat"] * 20
    for corpus, options, message in [
        (TEXTS, {"dimensions": 33}, "have 32 dimensions, so smaller ones can have 1 to 32, not 33"),
        (TEXTS, {"dimensions": 0}, "1 to 32, not 0"),
        (TEXTS, {"dimensions": -1}, "1 to 32, not -1"),
        (TEXTS, {"pca": True}, "--pca needs --dimensions"),
        (TEXTS[:16], {"dimensions": 16, "pca": True}, "the list has 16 texts for 16 dimensions"),
        (same, {"dimensions": 16, "pca": True}, "60 texts vary in . directions, so --pca cannot keep 16"),
        (TEXTS, {"dimensions": 12, "dtype": "ubinary"}, "needs a multiple of 8 dimensions, not 12"),
        (TEXTS, {"rescoring": False}, "Rescoring is for --dtype ubinary; float32 vectors need none"),
        (TEXTS, {"dtype": "binary"}, "float16, int8 or ubinary, not binary"),
    ]:
        with pytest.raises(InputError, match=message):
            encode_corpus(encoder, corpus, tmp_path / "v", **options)
        assert not (tmp_path / "v").exists()
    with pytest.raises(InputError, match="stores no bits"):
        BatchEncoder(dtype="ubinary")


def test_commands_take_int8_in_place_of_bits_and_refuse_bits_alone(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "textcl")
    bits = encode_corpus(encoder, TEXTS, tmp_path / "bits", dtype="ubinary")
    whole = encode_corpus(encoder, TEXTS, tmp_path / "int8", dtype="int8")
    alone = encode_corpus(encoder, TEXTS, tmp_path / "alone", dtype="ubinary", rescoring=False)
    calls = {
        "clustering": lambda where: cluster_vectors(where, 3).clusters.tolist(),
        "looking for duplicates": lambda where: near_duplicates(where, threshold=0.9).groups.tolist(),
        "textcl map": lambda where: write_map(where, tmp_path / "m.html", layout="pca").texts,
    }
    for name, call in calls.items():
        caplog.clear()
        assert call(bits) == call(whole)
        assert f"bits holds bits; {name} takes the int8 vectors that are stored beside them." in caplog.text
        with pytest.raises(InputError, match=f"alone holds only bits .* and {name} needs numbers: encode the texts"):
            call(alone)
    for call in (
        load_vectors,
        lambda where: Vectors(where).vectors(),
        lambda where: Vectors(where).table(vectors=True),
    ):
        with pytest.raises(InputError, match="Only the bits of these vectors were stored"):
            call(alone)
    with pytest.raises(InputError, match="int8 holds int8 vectors and no bits"):
        Vectors(whole).bits()


def test_vectors_of_other_dimensions_are_not_mixed(encoder: Encoder, model: Path, tmp_path: Path) -> None:
    whole = encode_corpus(encoder, TEXTS, tmp_path / "whole")
    cut = encode_corpus(encoder, TEXTS, tmp_path / "cut", dimensions=16)
    rotated = encode_corpus(encoder, TEXTS, tmp_path / "pca", dimensions=16, pca=True)
    spaces = {Vectors(each).space for each in (whole, cut, rotated)}
    assert len(spaces) == 3
    assert Vectors(whole).space == encoder.fingerprint(settings=False)
    assert Vectors(whole).differs_from(encoder) is None
    assert "cut holds vectors that were cut to 16 dimensions." in Vectors(cut).differs_from(encoder)
    assert "pca holds vectors that were cut to 16 dimensions by PCA." in Vectors(rotated).differs_from(encoder)
    bits = encode_corpus(encoder, TEXTS, tmp_path / "bits", dimensions=16, dtype="ubinary")
    others = encode_corpus(encoder, TEXTS[:100], tmp_path / "others", dimensions=16, dtype="ubinary")
    assert Vectors(bits).space == Vectors(others).space == Vectors(cut).space  # the int8 vectors beside bits are cut so
    turned = encode_corpus(encoder, TEXTS[:100], tmp_path / "turned", dimensions=16, pca=True)
    assert Vectors(turned).space not in spaces
    cluster_vectors(cut, 3).save(tmp_path / "c.csv")
    assert (assign_vectors(bits, tmp_path / "c.csv").clusters == assign_vectors(cut, tmp_path / "c.csv").clusters).all()
    for other in (whole, rotated):
        with pytest.raises(InputError, match="The clusters are of vectors of"):
            assign_vectors(other, tmp_path / "c.csv")
    write_map(cut, tmp_path / "m.html", layout="pca")
    with pytest.raises(InputError, match="was made with another model"):
        write_map(rotated, tmp_path / "n.html", update=tmp_path / "m.html")


def test_thresholds_are_calibrated_in_the_dimensions_of_the_directory(
    encoder: Encoder, model: Path, tmp_path: Path
) -> None:
    rotated = encode_corpus(encoder, TEXTS, tmp_path / "pca", dimensions=16, pca=True)
    assert near_duplicates(rotated, model, threshold="auto").calibration is not None


def test_bytes_are_those_of_the_arrays() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    fit = Compression.fit(vectors, None, normalize=False, bits=True)
    from textcl.vectors.shards import stored_columns

    for dtype in ("float32", "float16", "int8", "ubinary"):
        for rescoring in (True, False):
            stored = stored_columns(vectors, dtype, fit, rescoring=rescoring)
            assert sum(each.nbytes for each in stored.values()) == 5 * bytes_of(48, dtype, rescoring=rescoring)


def test_the_command(model: Path, encoder: Encoder, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    corpus_file(tmp_path, TEXTS[:60])
    command = ["encode", str(model), "corpus.txt", "--output"]
    for flags, said in [
        (["--dimensions", "8"], "8 numbers in 1 shard, 32 bytes each\n"),
        (["--dtype", "int8"], "32 numbers in 1 shard, 36 bytes each\n"),
        (["--dtype", "ubinary"], "32 numbers in 1 shard, 40 bytes each: 4 of bits and 36 of int8\n"),
        (["--dtype", "ubinary", "--no-rescoring"], "32 numbers in 1 shard, 4 bytes each\n"),
        (["--dimensions", "16", "--pca", "--dtype", "float16"], "16 numbers in 1 shard, 32 bytes each\n"),
    ]:
        shutil.rmtree("v", ignore_errors=True)
        for _ in range(2):
            assert main([*command, "v", *flags]) == 0
            assert capsys.readouterr().out == f"v: 60 vectors of {said}"
    assert main([*command, "x.npy", "--dimensions", "8", "--normalize", "--json", "x.json"]) == 0
    capsys.readouterr()
    assert json.loads(Path("x.json").read_text())["bytes_per_vector"] == 32
    expected = unit(encoder.encode(TEXTS[:60])[:, :8])
    assert np.allclose(np.load("x.npy"), expected, atol=1e-6)
    for flags, message in [
        (["--dimensions", "0"], "must be a whole number of at least 1"),
        (["--dimensions", "40"], "1 to 32, not 40"),
        (["--pca"], "--pca needs --dimensions"),
    ]:
        assert main([*command, "w", *flags]) == 2
        assert message in capsys.readouterr().err
    for flag in ("--pca", "--no-rescoring"):
        assert main([*command, "y.npy", flag]) == 2
        assert f"{flag} works only with a directory" in capsys.readouterr().err
    assert main([*command, "y.npy", "--dimensions", "33"]) == 2
    assert "1 to 32, not 33" in capsys.readouterr().err
