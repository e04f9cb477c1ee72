"""Scores by the size of vectors: those of the encoder whose vectors are stored so, and each text is encoded once."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import LabelledPairs, Result, Retrieval, cluster_texts
from textcl.evaluation.baselines import TfidfEncoder
from textcl.evaluation.retrieval import score_ranking
from textcl.evaluation.sizes import Size, evaluate_sizes
from textcl.report.sizes import sizes_plot, sizes_table
from textcl.vectors.compress import Compression, unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.index import CorpusIndex
from textcl.vectors.shards import restored, stored_columns

DOCUMENTS = {f"d{n:03}": text for n, text in enumerate(TEXTS)}
QUERIES = {f"q{n}": " ".join(TEXTS[n].split()[1:6]) for n in range(0, 288, 9)}
RELEVANCE = {f"q{n}": {f"d{n:03}": 1.0, f"d{(n + 1) % 288:03}": 1.0} for n in range(0, 288, 9)}


class Fixed:
    """An encoder that looks vectors up."""

    def __init__(self, texts: list[str], vectors: np.ndarray) -> None:
        self.rows = dict(zip(texts, vectors, strict=True))

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.rows[text] for text in texts])


class Drawn:
    """An encoder that draws the vector of a text; its directions vary by different amounts."""

    def encode(self, texts: list[str]) -> np.ndarray:
        seeds = [int.from_bytes(text.encode(), "big") for text in texts]
        rows = np.stack([np.random.default_rng(seed).normal(size=64) for seed in seeds])
        return (rows * np.linspace(3, 1, 64) + 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> LabelledPairs:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    generator = np.random.default_rng(0)
    lines = [f"{TEXTS[a]}\t{TEXTS[b]}\t{s}" for a, b, s in generator.integers(0, 288, (90, 3))]
    path.write_text("\n".join(lines) + "\n")
    return LabelledPairs(path)


def test_scores_are_those_of_the_stored_vectors(pairs: LabelledPairs) -> None:
    encoder = Drawn()
    sizes = evaluate_sizes(
        encoder, "", dimensions=[16, 32], dtypes=["float32", "int8", "ubinary"], pca=True, evaluators=[pairs]
    )
    names = [(size.dimensions, size.name) for size in sizes]
    kinds = ["float32", "int8", "ubinary"]
    cut = [(size, name + end) for size in (32, 16) for end in ("", ", PCA") for name in kinds]
    assert names == [(64, name) for name in kinds] + cut
    texts = list(dict.fromkeys(text for subset in pairs.tasks["pairs"] for text in (*subset.first, *subset.second)))
    whole = encoder.encode(texts)
    for size in sizes:
        cut_to = size.dimensions if size.dimensions < 64 else None
        fit = Compression.fit(whole, cut_to, normalize=False, pca=size.pca, bits=size.dtype == "ubinary")
        reduced = fit.reduce(whole)
        if size.dtype == "ubinary":
            stored = np.where(reduced > reduced.mean(axis=0), 1.0, -1.0)
        else:
            stored = restored(stored_columns(reduced, size.dtype))
        expected = pairs(Fixed(texts, stored)).primary  # the order of the texts changes the last bits of a PCA
        assert size.result.primary == pytest.approx(expected, abs=0.3 if size.dtype == "ubinary" else 0.01), size.name
    assert sizes[0].result.primary == pairs(encoder).primary
    assert len({round(size.result.primary, 6) for size in sizes}) == len(sizes)
    assert [size.bytes for size in sizes[:3]] == [256, 68, 8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("models") / "bert")


def test_retrieval_is_that_of_a_search(model: Path, tmp_path: Path) -> None:
    """Bits alone, and rescored: the scores of the texts that `CorpusIndex` finds."""
    rows, encoder = [], Encoder.from_pretrained(model, device="cpu")
    encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    retrieval = Retrieval(QUERIES, DOCUMENTS, RELEVANCE)
    options = {"dimensions": [16], "dtypes": ["ubinary"], "evaluators": [retrieval]}
    sizes = evaluate_sizes(encoder, "", **options)
    assert sum(rows) == 1 + len({*QUERIES.values(), *TEXTS})
    assert [size.name for size in sizes] == ["float32", *["ubinary", "ubinary, then int8"] * 2]
    for size, flags in zip(sizes[1:], [{}, {}, {"dimensions": 16}, {"dimensions": 16}], strict=True):
        where = tmp_path / f"{size.dimensions}-{size.rescored}"
        directory = encode_corpus(encoder, TEXTS, where, dtype="ubinary", rescoring=size.rescored, **flags)
        index = CorpusIndex(directory, encoder)
        found = [
            score_ranking([f"d{hit.id:03}" for hit in index.search(text, 10)], RELEVANCE[name])["ndcg@10"]
            for name, text in QUERIES.items()
        ]
        # rounding may decide a bit, and of equal distances the id
        assert size.result.average["ndcg@10"] == pytest.approx(100 * np.mean(found), abs=0.5)
    assert len({size.result.primary for size in sizes}) == 5


def test_a_pca_of_all_directions_changes_no_cosine() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 24)).astype(np.float32)
    fit = Compression.fit(vectors, 24, normalize=True, pca=True)
    found = fit.reduce(vectors)
    assert np.allclose(found @ found.T, unit(vectors) @ unit(vectors).T, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows.bfloat16(),
        lambda rows: list(rows.bfloat16()),
        lambda rows: rows.requires_grad_(),
        lambda rows: rows.tolist(),
    ],
    ids=["bfloat16", "list of tensors", "with gradient", "lists"],
)
def test_what_evaluate_takes_is_taken(form: Callable[[torch.Tensor], Any], pairs: LabelledPairs) -> None:
    class Formed:
        def encode(self, texts: list[str]) -> Any:
            return form(torch.from_numpy(Drawn().encode(texts)))

    sizes = evaluate_sizes(Formed(), "", evaluators=[pairs], dimensions=np.array([32, 16]))
    assert sizes[0].result.primary == pytest.approx(pairs(Formed()).primary, abs=1e-4)
    assert [size["dimensions"] for size in json.loads(json.dumps([size.to_dict() for size in sizes]))] == [64, 32, 16]


@pytest.mark.parametrize(
    ("rows", "message"),
    [(lambda texts: np.ones((len(texts), 2, 2)), "shape must be"), (TfidfEncoder(TEXTS).encode, "Use dense rows")],
)
def test_other_rows_are_refused_in_a_sentence(rows: Any, message: str, pairs: LabelledPairs) -> None:
    encoder = SimpleNamespace(encode=rows)
    for call in (
        lambda: evaluate_sizes(encoder, "", evaluators=[pairs], dimensions=[2]),
        lambda: cluster_texts(encoder, TEXTS[:20], 3),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_what_makes_no_sense_is_refused(pairs: LabelledPairs) -> None:
    words = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, retrieval="bm25")
    for options, message in [
        ({"dimensions": [65]}, "1 to 64, not 65"),
        ({"dimensions": [32, 0]}, "1 to 64, not 0"),
        ({"dimensions": [20], "dtypes": ["ubinary"]}, "multiple of 8 dimensions, not 20"),
        ({"dtypes": ["int4"]}, "not int4"),
        ({"pca": True}, "--pca needs --dimensions"),
        ({"dimensions": [8], "evaluators": [words]}, "leave out fine-tuning, bm25 and hybrid"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate_sizes(HashedWords(), "", **{"evaluators": [pairs], **options})


def test_the_table_and_the_picture(pairs: LabelledPairs, tmp_path: Path) -> None:
    sizes = evaluate_sizes(HashedWords(), "", dimensions=[16], dtypes=["float32", "ubinary"], evaluators=[pairs])
    lines = sizes_table(sizes).splitlines()
    assert lines[0].split("|")[1:-1] == [" dimensions ", " stored as ", " bytes ", " Spearman all "]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["64", "64", "16", "16"]
    plot = sizes_plot(sizes)
    assert {(row["stored as"], row["dimensions"], row["bytes"]) for row in plot.rows} == {
        *(("float32", 64, 256), ("float32", 16, 64)),
        *(("ubinary", 64, 8), ("ubinary", 16, 2)),
    }
    assert plot.save(tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_the_main_score_of_each_kind_of_task() -> None:
    result = Result({}, {"all": 61.25, "mean": 1.0, "accuracy": 70.5, "nmi": 2.0, "ndcg@10": 40.75})
    lines = sizes_table([Size(64, "int8", False, False, 68, result)]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[4:-1]] for line in (lines[0], lines[2])]
    scores = [("Spearman all", "61.25"), ("Clustering accuracy", "70.50"), ("Retrieval ndcg@10", "40.75")]
    assert list(zip(*cells, strict=True)) == scores


def test_the_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("queries", QUERIES), ("documents", DOCUMENTS)):
        lines = "".join(f"{key},{text}\n" for key, text in content.items())
        Path(f"{name}.csv").write_text("id,text\n" + lines)
    judged = "".join(f"{query},{document}\n" for query, found in RELEVANCE.items() for document in found)
    Path("relevance.csv").write_text("query_id,document_id\n" + judged)
    command = ["eval", str(model), "--queries", "queries.csv", "--documents", "documents.csv"]
    command += ["--relevance", "relevance.csv"]
    sizes = ["--dimensions", "8,16", "--dtype", "float32, ubinary", "--pca"]
    assert main([*command, *sizes, "--json", "s.json", "--plot", "s.svg"]) == 0
    printed = capsys.readouterr().out
    assert "| dimensions | stored as" in printed
    found = json.loads(Path("s.json").read_text())
    assert [each["dimensions"] for each in found] == [32] * 3 + [16] * 6 + [8] * 6
    assert [each["pca"] for each in found[3:9]] == [False] * 3 + [True] * 3
    assert all(f"{each['average']['ndcg@10']:.2f}" in printed for each in found)
    assert Path("s.svg").read_text().startswith("<svg")
    assert main([*command, "--json", "plain.json"]) == 0
    capsys.readouterr()
    assert json.loads(Path("plain.json").read_text())["average"] == found[0]["average"]
    for flags, message in [
        (["--dimensions", "16,x"], "--dimensions: each number must be a whole number of at least 1, not x"),
        (["--dimensions", "0"], "must be a whole number of at least 1, not 0"),
        (["--dimensions", "64"], "1 to 32, not 64"),
        (["--dtype", "int4"], "not int4"),
        (["--pca"], "--pca needs --dimensions"),
        (["--plot", "a.png"], "--plot draws scores by size"),
        (["--dtype", "int8", "--plot", "a.txt"], "neither a .png nor an .svg"),
        (["--dtype", "int8", "--retrieval", "hybrid"], "leave out --finetune and --retrieval"),
        (["--dtype", "int8", "--cache", "c"], "--cache"),
    ]:
        assert main([*command, *flags]) == 2
        assert message in capsys.readouterr().err
    assert not Path("a.png").exists()
