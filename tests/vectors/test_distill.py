"""`textcl distill`: the start is Model2Vec's, least squares bounds the error, students get nearer, bad input."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from transformers import AutoConfig, AutoModel

import textcl
from textcl.cli.main import main
from textcl.data.overlap import read_overlap
from textcl.data.sts import read_sts
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.vectors import distill as distill_module
from textcl.vectors import kept_vectors as kept_module
from textcl.vectors.compress import unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.layer_student import kept_layers, with_layers
from textcl.vectors.static_student import (
    Bags,
    fit_table,
    frequent_words,
    held_out,
    principal,
    start_of,
    starting_table,
    student_tokenizer,
    token_vectors,
    unit_targets,
)

SOME = TEXTS[:160]


def cosines(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors.astype(np.float64)) @ unit(vectors.astype(np.float64)).T


def principal_check(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The largest singular values, squared, by another algorithm."""
    return np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)[:dimensions] ** 2


def test_pca_keeps_the_largest_variance() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 12)) * np.arange(1, 13)
    found = principal(vectors, 5)
    assert np.allclose(found.directions.T @ found.directions, np.eye(5))
    kept = np.square((vectors - found.mean) @ found.directions).sum(axis=0)
    assert np.allclose(kept, principal_check(vectors, 5))


def test_each_token_is_given_to_the_teacher_alone(encoder: Encoder) -> None:
    vocabulary = encoder.tokenizer.get_vocab()
    words = ["the", "door", "sailor", "boat"]
    rows = [encoder.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    assert {len(row) for row in rows} > {1}  # of several tokens too
    assert np.abs(token_vectors(encoder, rows) - encoder.encode(words, normalize=False)).max() < 1e-6
    assert len(token_vectors(encoder, [[token] for token in vocabulary.values()])) == len(vocabulary)


ZIPF_A = 1e-4  # the a of Model2Vec


def zipf_shares(count: int) -> np.ndarray:
    """Shares of tokens by their rank in the vocabulary, as Model2Vec guesses them, (count,): 1 / (rank + 1)."""
    inverse = 1 / np.arange(2, count + 2)
    return inverse / inverse.sum()


def test_the_start_is_that_of_model2vec(model: Path, encoder: Encoder) -> None:
    """With the shares of Zipf's law and their a the cosines are equal; the signs of the PCA are free."""
    if find_spec("model2vec") is None or find_spec("skeletoken") is None:
        pytest.skip("the packages model2vec and skeletoken are not installed")
    from model2vec.distill import distill

    theirs = distill(str(model), pca_dims=16, quantize_to="float32", device="cpu")
    ids = [[encoder.tokenizer.convert_tokens_to_ids(token)] for token in theirs.tokens]
    vectors = token_vectors(encoder, ids)
    table = starting_table(vectors, principal(vectors, 16), zipf_shares(len(ids)), ZIPF_A)
    assert np.abs(cosines(table) - cosines(np.asarray(theirs.embedding))).max() < 1e-4
    ours = Bags.of(theirs.tokenize(SOME)).means(torch.from_numpy(table)).numpy()
    assert np.abs(cosines(ours) - cosines(theirs.encode(SOME))).max() < 1e-4
    wrong = starting_table(vectors, principal(vectors, 16), zipf_shares(len(ids)), 10 * ZIPF_A)
    assert np.abs(cosines(wrong) - cosines(np.asarray(theirs.embedding))).max() < 1e-4  # a token's own length is free
    ours = Bags.of(theirs.tokenize(SOME)).means(torch.from_numpy(wrong)).numpy()
    assert np.abs(cosines(ours) - cosines(theirs.encode(SOME))).max() > 1e-3  # and in a text it is not


def test_least_squares_bounds_the_error_from_below(encoder: Encoder) -> None:
    """No table is nearer to the teacher's vectors than the least-squares solution for the shares of tokens."""
    start = start_of(encoder, SOME, 16, words=20)
    targets = unit_targets(encoder.encode(SOME), start.projection)
    bags = Bags.of(start.rows)
    shares = np.zeros((len(SOME), len(start.table)))
    for number, row in enumerate(start.rows):
        for token in row:
            shares[number, token] += 1 / len(row)

    def error(table: torch.Tensor) -> float:
        return float((bags.means(table).double() - targets).square().sum())

    best = np.linalg.lstsq(shares, targets.double().numpy(), rcond=None)[0]
    bound = float(np.square(shares @ best - targets.double().numpy()).sum())
    assert error(torch.from_numpy(best)) == pytest.approx(bound, rel=1e-6)  # the means are those shares
    fitted = fit_table(start.table, bags, targets, epochs=200, learning_rate=1e-2, batch_size=32)

    def scaled(table: torch.Tensor) -> torch.Tensor:
        means = bags.means(table)
        return table * float((means * targets).sum() / means.square().sum())

    assert bound < error(scaled(fitted.table)) < error(scaled(start.table)) / 2


def test_the_best_epoch_is_kept(encoder: Encoder) -> None:
    start = start_of(encoder, SOME, 16, words=0)
    targets = unit_targets(encoder.encode(SOME), start.projection)
    bags = Bags.of(start.rows)
    fitted = fit_table(start.table, bags, targets, epochs=40, learning_rate=1e-2, batch_size=16)
    assert fitted.cosines[fitted.epoch] == max(fitted.cosines) > fitted.cosines[0]
    spoilt = fit_table(fitted.table, bags, targets, epochs=9, learning_rate=100.0)
    assert spoilt.epoch == 0
    assert torch.equal(spoilt.table, fitted.table)
    assert len(spoilt.cosines) == 10
    assert spoilt.cosines[-1] > min(spoilt.cosines)  # it gets better again, but not as good as the start


def test_what_only_held_out_texts_have_is_not_trained() -> None:
    """Each text has a token of its own, and one that a third of the texts have."""
    start = torch.randn(23, 6, generator=torch.Generator().manual_seed(1))
    bags = Bags.of([[text, 20 + text % 3] for text in range(20)])
    targets = torch.eye(6)[[text % 3 for text in range(20)]]
    fitted = fit_table(start, bags, targets, epochs=20, batch_size=4)
    (held,) = torch.randperm(20, generator=torch.Generator().manual_seed(0))[: held_out(20)].tolist()
    assert fitted.epoch > 0
    unchanged = [token for token in range(23) if torch.equal(fitted.table[token], start[token])]
    assert unchanged == [held]


def test_frequent_words_become_tokens(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    found = frequent_words(tokenizer, SOME, 5)
    assert len(found) == 5
    assert all(len(ids) > 1 for ids in found.values())
    count = {word: sum(text.split().count(word) for text in SOME) for word in {w for t in SOME for w in t.split()}}
    several = {word for word in count if len(tokenizer(word, add_special_tokens=False)["input_ids"]) > 1}
    assert (
        sorted((count[word] for word in found), reverse=True) == sorted((count[w] for w in several), reverse=True)[:5]
    )
    student = student_tokenizer(tokenizer, list(found))
    for text in SOME:
        old = tokenizer(text, add_special_tokens=False)["input_ids"]
        new = student.encode(text, add_special_tokens=False).ids
        back = {len(tokenizer) + number: ids for number, ids in enumerate(found.values())}
        assert [token for each in new for token in back.get(each, [each])] == old
    assert any(max(student.encode(text).ids) >= len(tokenizer) for text in SOME)


def test_a_static_student_gets_nearer_and_is_exported(model: Path, tmp_path: Path) -> None:
    def made(name: str, seed: int) -> distill_module.Distilled:
        return textcl.distill(
            model, SOME, tmp_path / name, static=16, words=10, epochs=20, learning_rate=1e-2, batch_size=32, seed=seed
        )

    first, again, other = made("a", 0), made("b", 0), made("c", 1)
    before, after = first.record["cosine"]
    assert after > before + 0.02
    assert first.encoder.fingerprint() == again.encoder.fingerprint() != other.encoder.fingerprint()
    loaded = Encoder.from_pretrained(tmp_path / "a")
    assert np.array_equal(loaded.encode(SOME), first.encoder.encode(SOME))
    assert np.array_equal(SentenceTransformer(str(tmp_path / "a"), device="cpu").encode(SOME), loaded.encode(SOME))
    assert loaded.dimension == 16
    assert "distillation" in (tmp_path / "a" / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}  # the teacher's vectors are gone
    teacher = Encoder.from_pretrained(model).encode(SOME)
    start = start_of(Encoder.from_pretrained(model), SOME, 16, 10)

    targets = unit_targets(teacher, start.projection).numpy()

    def agreement(encoder: Encoder) -> float:
        return float((encoder.encode(SOME) * targets).sum(axis=1).mean())

    assert agreement(first.encoder) > agreement(start.encoder(start.table)) + 0.05


def test_texts_may_end_like_names_of_files(model: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"{text}.csv\n" for text in SOME))
    made = textcl.distill(model, tmp_path / "names.txt", tmp_path / "student", static=8, words=5, epochs=1)
    assert made.encoder.dimension == 8


def test_a_student_keeps_its_teachers_counts_of_evaluation_texts_and_adds_its_own(
    model: Path, few_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCL_DATA", str(few_sets))
    teacher = shutil.copytree(model, tmp_path / "teacher")
    known = read_sts("STS16", few_sets)[0]
    counts = {"STS13": {"FNWN": {"found": 3, "total": 9, "pairs_found": 3, "pairs": 9}}}
    (teacher / "overlap.json").write_text(json.dumps(counts))
    for name, shape in (("static", {"static": 16}), ("layers", {"layers": 1})):
        textcl.distill(teacher, [*SOME, *known.first[:40]], tmp_path / name, epochs=1, **shape)
        found = read_overlap(tmp_path / name)
        assert found["STS13"] == counts["STS13"]
        assert found["STS16"][known.name]["found"] == len(set(known.first[:40]))
        assert found["AgNews"]["all"]["found"] == 0


def test_vectors_that_are_there_give_the_same_student(model: Path, tmp_path: Path) -> None:
    encode_corpus(model, SOME, tmp_path / "v")
    from_vectors = textcl.distill(model, tmp_path / "v", static=16, epochs=2)
    from_texts = textcl.distill(model, SOME, static=16, epochs=2)
    assert from_vectors.encoder.fingerprint() == from_texts.encoder.fingerprint()
    other = tiny_encoder_directory(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="is not the model that wrote"):
        textcl.distill(other, tmp_path / "v", static=16)


def test_a_column_of_vectors_is_refused(model: Path, tmp_path: Path) -> None:
    encode_corpus(model, SOME[:20], tmp_path / "v")
    with pytest.raises(InputError, match=r"column was settled when .* was encoded; leave it out"):
        textcl.distill(model, tmp_path / "v", tmp_path / "student", static=8, column="nonsense")
    assert not (tmp_path / "student").exists()


def test_an_interruption_keeps_what_the_teacher_has_encoded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = textcl.distill(model, SOME, tmp_path / "whole", static=16, epochs=2)

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distill_module, "fit_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            textcl.distill(model, SOME, tmp_path / "out", static=16, epochs=2)
    (shard,) = tmp_path.glob(".out.distill/*/part-00000.parquet")
    written = shard.stat().st_mtime_ns
    seen = []
    monkeypatch.setattr(
        kept_module, "load_vectors", lambda place: (seen.append(shard.stat().st_mtime_ns), load(place))[1]
    )
    load = textcl.load_vectors
    again = textcl.distill(model, SOME, tmp_path / "out", static=16, epochs=2)
    assert seen == [written]
    assert again.encoder.fingerprint() == whole.encoder.fingerprint()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("there", "wanted", "kept"), [(6, 3, [1, 3, 5]), (12, 1, [11]), (3, 2, [0, 2]), (5, 4, [0, 1, 2, 4])]
)
def test_layers_are_evenly_spaced_with_the_last(there: int, wanted: int, kept: list[int]) -> None:
    found = kept_layers(there, wanted)
    assert found[-1] == there - 1
    assert len(set(found)) == wanted
    assert found == kept


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet", "deberta-v2"])
def test_a_student_with_fewer_layers_is_loaded_again(architecture: str, tmp_path: Path) -> None:
    teacher = Encoder.from_pretrained(tiny_encoder_directory(tmp_path / "teacher", architecture))
    before = teacher.fingerprint()
    student = with_layers(teacher, 2)
    assert teacher.fingerprint() == before
    folder = student.save(tmp_path / "student")
    again = Encoder.from_pretrained(folder)
    assert np.abs(again.encode(SOME) - student.encode(SOME)).max() < 1e-6
    assert again.backbone.config.num_hidden_layers == 2
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in teacher.parameters())


DECODERS = {
    "gpt2": {},
    "llama": {},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8},
}


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_with_fewer_layers_computes_without_the_others(family: str, tmp_path: Path) -> None:
    size = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
    config = AutoConfig.for_model(family, vocab_size=120, pad_token_id=1, **size, **DECODERS[family])
    AutoModel.from_config(config).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    student = with_layers(Encoder.from_pretrained(tmp_path / "teacher", pooling="last_token"), 2)
    vectors = student.encode(SOME)
    again = Encoder.from_pretrained(student.save(tmp_path / "student"))
    assert np.abs(again.encode(SOME) - vectors).max() < 1e-6
    theirs = SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(SOME)
    assert np.abs(theirs - vectors).max() < 1e-5


def test_a_student_with_fewer_layers_gets_nearer(model: Path, tmp_path: Path) -> None:
    def made(name: str, seed: int) -> distill_module.Distilled:
        return textcl.distill(model, SOME, tmp_path / name, layers=1, epochs=6, learning_rate=3e-3, seed=seed)

    first, again, other = made("a", 0), made("b", 0), made("c", 1)
    before, after = first.record["cosine"]
    assert 1 - after < (1 - before) / 1.5
    assert first.encoder.fingerprint() == again.encoder.fingerprint() != other.encoder.fingerprint()
    theirs = SentenceTransformer(str(tmp_path / "a"), device="cpu").encode(SOME)
    assert np.abs(theirs - first.encoder.encode(SOME)).max() < 1e-6


def test_a_student_with_fewer_layers_learns_from_all_texts_but_those_that_are_held_out(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[list[str], np.ndarray]] = []
    monkeypatch.setattr(
        "textcl.vectors.distill.fit_layers", lambda _, texts, vectors, **__: given.append((texts, vectors))
    )
    record = textcl.distill(encoder, TEXTS[:120], layers=1).record
    ((texts, vectors),) = given
    assert record["held_out"] == held_out(120) == 2
    assert len(set(texts)) == 118
    assert set(texts) < set(TEXTS[:120])
    assert np.abs(vectors - encoder.encode(texts, normalize=True)).max() < 1e-5


def test_a_student_that_learns_nothing_finite_is_not_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower the learning rate, 1e"):
        textcl.distill(model, SOME, tmp_path / "student", layers=1, epochs=3, learning_rate=1e30)
    assert not (tmp_path / "student").exists()


def test_what_cannot_be_distilled(model: Path, tmp_path: Path) -> None:
    for architecture in ("albert", "modernbert"):  # one layer for all; a first layer without a norm
        folder = tiny_encoder_directory(tmp_path / architecture, architecture)
        with pytest.raises(InputError, match="cannot be left out: they are shared"):
            textcl.distill(folder, SOME, layers=1)
    textcl.distill(model, SOME, tmp_path / "student", static=8, epochs=1)
    with pytest.raises(InputError, match="is a static encoder already"):
        textcl.distill(tmp_path / "student", SOME, static=4)
    with pytest.raises(InputError, match="pools several layers"):
        textcl.distill(Encoder.from_pretrained(model, pooling="first_last"), SOME, layers=1)
    foreign = [f"дом {number} улица" for number in range(30)]
    with pytest.raises(InputError, match="does not know the words"):
        textcl.distill(model, foreign, static=8)


@pytest.mark.parametrize(
    ("flags", "texts", "message"),
    [
        (["--static", "64"], SOME, "has 32 dimensions; a student cannot have 64"),
        (["--static", "32", "--layers", "1"], SOME, "either static"),
        ([], SOME, "either static"),
        (["--layers", "3"], SOME, "has 3 layers; the student must have fewer, not 3"),
        (["--static", "32"], SOME[:20], "has 20 different texts; a student of 32 dimensions needs at least as many"),
        (["--static", "0"], SOME, "must be a whole number of at least 1"),
        (["--static", "8"], ["дом улица окно"] * 3 + [f"улица {i}" for i in range(40)], "does not know the words"),
        (["--static", "8"], [], "holds no text"),
        (["--layers", "1", "--words", "5"], SOME, "words become tokens of a static student only"),
        (["--static", "8", "--output", "taken"], SOME, "taken"),
    ],
)
def test_bad_input_is_one_sentence(
    flags: list[str], texts: list[str], message: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "novel.txt").write_text("mine")
    output = [] if "--output" in flags else ["--output", "student"]
    assert main(["distill", str(model), "--data", "texts.txt", *output, *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "texts.txt"]
    assert (tmp_path / "taken" / "novel.txt").read_text() == "mine"


@pytest.mark.parametrize("output", ["m", "./m", "again/../m"])
def test_the_teacher_is_not_replaced(
    output: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "again").mkdir()
    teacher = shutil.copytree(model, tmp_path / "m")
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    (tmp_path / "texts.txt").write_text("\n".join(SOME))
    given = ["distill", "m", "--data", "texts.txt", "--static", "8", "--epochs", "1", "--output"]
    assert main([*given, output]) == 2
    assert f"{output} cannot be replaced by what is made from m" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()} == before


def test_killed_between_student_and_its_counts_the_same_call_writes_both(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distill_module, "write_overlap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            textcl.distill(model, SOME, tmp_path / "out", static=16, epochs=1)
    assert not (tmp_path / "out").exists()
    textcl.distill(model, SOME, tmp_path / "out", static=16, epochs=1)
    assert (tmp_path / "out" / "overlap.json").is_file()
    (tmp_path / ".out.distill").mkdir()  # what a kill before the end leaves
    with pytest.raises(InputError, match="holds a model already"):
        textcl.distill(model, SOME, tmp_path / "out", static=16, epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_model_is_not_replaced(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(SOME))
    shutil.copytree(model, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    given = ["distill", str(model), "--data", "texts.txt", "--static", "8", "--epochs", "1", "--output"]
    assert main([*given, "empty"]) == 0
    for name in ("mine", "empty"):  # the second one has a student now
        before = {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        capsys.readouterr()
        assert main([*given, name]) == 2
        assert (
            capsys.readouterr().err == f"textcl: {name} holds a model already; remove it or name another directory.\n"
        )
        assert {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()} == before


def test_the_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(SOME))
    given = ["distill", str(model), "--data", "texts.txt", "--epochs", "3", "--output"]
    assert main([*given, "student", "--static", "16", "--words", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0]
        == f"student: a student of bert (static, {len(tiny_tokenizer()) + 7} tokens, 16 dimensions), from 160 texts"
    )
    assert "held out" in lines[1]
    assert main([*given, "short", "--layers", "2", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["layers"] == 2
    assert result["teacher"] == "bert"
    assert Encoder.from_pretrained("short").backbone.config.num_hidden_layers == 2
