"""Retrieval: metrics beside loops, scikit-learn and sentence-transformers; files as people have them; refusals."""

import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sklearn.metrics import ndcg_score
from support.command import textcl
from support.tiny import TEXTS, HashedWords, tiny_encoder_directory

from textcl.cli.main import main
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.evaluation import Retrieval, TfidfEncoder, evaluate
from textcl.evaluation.retrieval import score_ranking

DOCUMENTS = {f"d{number}": text for number, text in enumerate(TEXTS)}
QUERIES = {f"q{number}": " ".join(text.split()[2:]) for number, text in enumerate(TEXTS[::9])}
RELEVANCE = {
    query: {name: float(sum(word in text.split() for word in set(QUERIES[query].split())) - 2)
            for name, text in DOCUMENTS.items() if QUERIES[query].split()[-1] in text}
    for query in QUERIES
}  # fmt: skip


class Vectors(HashedWords):
    """Random unit rows, the same for the same text, and a record of what was asked for."""

    def __init__(self, dimension: int = 8) -> None:
        self.dimension, self.calls = dimension, []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.array(
            [np.random.default_rng(list(text.encode()) or [0]).normal(size=self.dimension) for text in texts]
        )


def oracle(encoder: object, documents: dict, queries: dict, relevance: dict) -> dict[str, float]:
    """The four metrics, one document and one sum at a time."""

    def vector(text: str) -> list[float]:
        return [float(value) for value in encoder.encode([text])[0]]

    def cosine(a: list[float], b: list[float]) -> float:
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    vectors = {name: vector(text) for name, text in documents.items()}
    totals = {"ndcg@10": [], "mrr@10": [], "recall@10": [], "recall@100": []}
    for query, text in queries.items():
        grades = {name: grade for name, grade in relevance.get(query, {}).items() if grade > 0}
        if not grades:
            continue
        mine = vector(text)
        ranking = sorted(documents, key=lambda name: (-round(cosine(mine, vectors[name]), 9), name))
        gain = 0.0
        for rank in range(1, 11):
            if rank <= len(ranking):
                gain += grades.get(ranking[rank - 1], 0) / math.log2(rank + 1)
        ideal = 0.0
        for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:10], start=1):
            ideal += grade / math.log2(rank + 1)
        totals["ndcg@10"].append(gain / ideal)
        ranks = [ranking.index(name) + 1 for name in grades]
        totals["mrr@10"].append(1 / min(ranks) if min(ranks) <= 10 else 0.0)
        for cut in (10, 100):
            totals[f"recall@{cut}"].append(sum(rank <= cut for rank in ranks) / len(ranks))
    return {metric: 100 * sum(values) / len(values) for metric, values in totals.items()}


@pytest.mark.parametrize("encoder", [HashedWords(), Vectors()], ids=["ties", "none"])
@pytest.mark.parametrize("chunk_size", [7, 8192])
def test_figures_are_those_of_a_slow_loop(encoder: HashedWords, chunk_size: int) -> None:
    result = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, chunk_size=chunk_size)(encoder)
    expected = oracle(encoder, DOCUMENTS, QUERIES, RELEVANCE)
    (entry,) = result.results.values()
    assert entry.pop("kind") == "retrieval"
    assert entry == pytest.approx(expected, abs=1e-9)
    assert result.average == pytest.approx(expected)
    assert result.primary == result.average["ndcg@10"]
    assert 0 < result.primary < 100


def test_ndcg_is_scikit_learns() -> None:
    """Linear gain; with grades up to 3 an exponential one would be another figure."""
    generator = random.Random(0)
    for _ in range(20):
        grades = {f"d{i}": float(generator.choice([0, 0, 1, 2, 3])) for i in range(30)} | {"d0": 3.0}
        scores = {name: generator.random() for name in grades}
        ranking = sorted(grades, key=lambda name: -scores[name])
        expected = ndcg_score([list(grades.values())], [[scores[name] for name in grades]], k=10)
        assert score_ranking(ranking, grades)["ndcg@10"] == pytest.approx(expected)


def test_metrics_by_hand() -> None:
    found = score_ranking(["x", "a", "y", "b"], {"a": 2, "b": 1, "c": 1, "x": 0, "y": -1})
    best = 2 + 1 / math.log2(3) + 1 / 2
    assert found["ndcg@10"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(5)) / best)
    assert (found["mrr@10"], found["recall@10"]) == (0.5, pytest.approx(2 / 3))
    eleventh = score_ranking([*map(str, range(10)), "a"], {"a": 1})
    assert eleventh == {"ndcg@10": 0, "mrr@10": 0, "recall@10": 0, "recall@100": 1}
    assert score_ranking(list("abcdefghijklm"), dict.fromkeys("abcdefghijklm", 1))["ndcg@10"] == 1


def test_the_evaluator_of_sentence_transformers_agrees(model: Path) -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    binary = {query: {name: 1.0 for name, grade in grades.items() if grade > 0} for query, grades in RELEVANCE.items()}
    theirs: BaseEvaluator = InformationRetrievalEvaluator(
        QUERIES, DOCUMENTS, {query: set(grades) for query, grades in binary.items()}, mrr_at_k=[10], ndcg_at_k=[10],
        precision_recall_at_k=[10, 100], write_csv=False,
    )  # fmt: skip
    # in float64, since documents at ranks 100 and 101 can be as close as rounding in float32
    expected = theirs(SentenceTransformer(str(model), device="cpu", model_kwargs={"dtype": torch.float64}))
    found = Retrieval(QUERIES, DOCUMENTS, binary)(Encoder.from_pretrained(model, dtype=torch.float64)).average
    assert {f"cosine_{metric}": value / 100 for metric, value in found.items()} == pytest.approx(
        {name: expected[name] for name in expected if name in {f"cosine_{metric}" for metric in found}}
    )


def test_the_order_of_files_decides_nothing() -> None:
    shuffled = list(DOCUMENTS.items())
    random.Random(1).shuffle(shuffled)
    backwards = {query: dict(reversed(grades.items())) for query, grades in reversed(RELEVANCE.items())}
    first = Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(HashedWords())
    second = Retrieval(dict(reversed(QUERIES.items())), dict(shuffled), backwards, chunk_size=50)(HashedWords())
    assert second.average == pytest.approx(first.average)
    assert second.provenance["tasks"] == first.provenance["tasks"]
    changed = Retrieval(QUERIES, {**DOCUMENTS, "d0": "another"}, RELEVANCE).collection.hash()
    regraded = Retrieval(QUERIES, DOCUMENTS, {**RELEVANCE, "q0": {"d0": 7.0}}).collection.hash()
    assert len({changed, regraded, first.provenance["tasks"]["retrieval"]["data_sha256"]}) == 3


def test_documents_are_encoded_by_length_a_chunk_at_a_time() -> None:
    encoder = Vectors()
    Retrieval(QUERIES, DOCUMENTS, RELEVANCE, chunk_size=100)(encoder)
    assert [len(texts) for texts in encoder.calls[1:]] == [100, 100, 88]
    lengths = [len(text) for texts in encoder.calls[1:] for text in texts]
    assert lengths == sorted(lengths, reverse=True)


def test_equal_texts_stand_in_the_order_of_ids() -> None:
    documents = dict.fromkeys(("c", "a", "b"), "the same") | {"z": "another text"}
    for answer, reciprocal in (("a", 100.0), ("b", 50.0), ("c", 100 / 3)):
        for chunk_size in (1, 9):
            found = Retrieval({"q": "the same"}, documents, {"q": {answer: 1}}, chunk_size=chunk_size)(Vectors())
            assert found.average["mrr@10"] == pytest.approx(reciprocal)


def test_sparse_rows_and_a_scale_change_nothing() -> None:
    class Sparse(HashedWords):
        def encode(self, texts: Sequence[str]) -> csr_matrix:
            return csr_matrix(1000 * super().encode(texts))

    retrieval = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, chunk_size=30)
    assert retrieval(Sparse()).average == pytest.approx(retrieval(HashedWords()).average)
    assert retrieval(TfidfEncoder(TEXTS)).primary > 50


def test_prompts_of_the_encoder_are_put_before_the_texts(model: Path) -> None:
    class Prompted(Vectors):
        prompts: dict[str, str] = {"query": "ask: ", "document": "say: "}  # noqa: RUF012
        asked: list[str | None] = []  # noqa: RUF012

        def encode(self, texts: Sequence[str], prompt_name: str | None = None) -> np.ndarray:
            self.asked.append(prompt_name)
            return super().encode(texts)

    result = Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(Prompted())
    assert Prompted.asked == ["query", "document"]
    assert result.provenance["retrieval"]["prompts"] == {"query": "query", "document": "document"}
    prompted = Encoder.from_pretrained(model, prompts={"query": "the old sailor paints "})
    assert Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(prompted).average != pytest.approx(
        Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(Encoder.from_pretrained(model)).average
    )


def test_queries_without_a_relevant_document_are_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    more = {**QUERIES, "lost": "nothing answers this", "judged": "this neither"}
    judged = {**RELEVANCE, "judged": {"d0": 0.0, "d1": -1.0}}
    with caplog.at_level(logging.WARNING, "textcl"):
        result = Retrieval(more, DOCUMENTS, judged)(HashedWords())
    assert "2 of 34 queries have no relevant document and are left out" in caplog.text
    assert result.average == Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(HashedWords()).average
    counts = result.provenance["tasks"]["retrieval"]
    assert (counts["queries"], counts["queries_without_relevant"], counts["documents"]) == (32, 2, 288)


def test_a_collapsed_encoder_scores_zero_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Collapsed:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.full((len(texts), 3), 0.3)

    with caplog.at_level(logging.WARNING, "textcl"):
        result = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, chunk_size=50)(Collapsed())
    assert set(result.average.values()) == {0.0}
    assert "All cosines of queries and documents are equal" in caplog.text
    assert result.provenance["undefined"] == ["retrieval"]


# files


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("retrieval") / "model")


def write_csv(folder: Path) -> tuple[Path, Path, Path]:
    paths = (folder / "queries.csv", folder / "documents.csv", folder / "relevance.csv")
    paths[0].write_text("id,text\n" + "".join(f"{name},{text}\n" for name, text in QUERIES.items()))
    paths[1].write_text("id,text\n" + "".join(f"{name},{text}\n" for name, text in DOCUMENTS.items()))
    judged = [f"{q},{d},{grade:g}\n" for q, grades in RELEVANCE.items() for d, grade in grades.items()]
    paths[2].write_text("query_id,document_id,relevance\n" + "".join(judged))
    return paths


def write_beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as handle:
        for name, text in DOCUMENTS.items():
            title, _, rest = text.partition(" ")
            handle.write(json.dumps({"_id": name, "title": title, "text": rest, "metadata": {}}) + "\n")
    with (folder / "queries.jsonl").open("w") as handle:
        handle.writelines(json.dumps({"_id": name, "text": text}) + "\n" for name, text in QUERIES.items())
    judged = [f"{q}\t{d}\t{grade:g}\n" for q, grades in RELEVANCE.items() for d, grade in grades.items()]
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    return folder


def test_files_and_folders_hold_the_same_collection(tmp_path: Path) -> None:
    expected = Retrieval(QUERIES, DOCUMENTS, RELEVANCE).collection
    assert Retrieval.from_files(*write_csv(tmp_path)).collection == expected
    folder = Retrieval.from_folder(write_beir(tmp_path / "beir"), "dev")
    assert folder.collection == expected
    assert folder(HashedWords()).provenance["tasks"]["retrieval"]["split"] == "dev"
    (tmp_path / "relevance.csv").write_text("query_id,document_id\nq0,d0\n")
    ungraded = Retrieval.from_files(*write_csv(tmp_path)[:2], tmp_path / "relevance.csv")
    assert ungraded.collection.hash() == Retrieval.from_files(*write_csv(tmp_path)).collection.hash()
    (tmp_path / "one.csv").write_text("query_id,document_id\nq0,d0\n")
    ungraded = Retrieval.from_files(*write_csv(tmp_path)[:2], tmp_path / "one.csv")
    assert ungraded.collection.relevance == {"q0": {"d0": 1.0}}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("relevance", "query_id,document_id\nq0,d0\nq0,d999\n", "names the document 'd999', which is not among"),
        ("relevance", "query_id,document_id\nq0,d0\nq999,d0\n", "names the query 'q999', which is not among"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,0\n", "No document is relevant to any query"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,much\n", "row 1: the relevance 'much' is not a number"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,inf\n", "is not a finite number"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,1\nq0,d0,2\n", "row 2: document 'd0' has another grade"),
        ("relevance", "query,document_id\nq0,d0\n", r"no column 'query_id' or 'query-id'; its columns are 'query'"),
        ("relevance", "query_id,document_id\n", "There is no judgement"),
        ("relevance", "", "relevance.csv is empty"),
        ("documents", "id,text\nd0,one\nd1,two\nd0,three\n", "row 3: the id 'd0' occurs for the second time"),
        ("documents", "id,text\n ,one\n", "row 1: the id is empty"),
        ("documents", "id,text\n", "There is no document; retrieval needs"),
        ("documents", "name,text\nd0,one\n", r"no column 'id' or '_id'; its columns are 'name', 'text'"),
        ("queries", "id,question\nq0,one\n", r"no column 'text'; its columns are 'id', 'question'"),
        ("queries", "id,text\nq0,one\nq0,one\n", "row 2: the id 'q0' occurs for the second time"),
        ("queries", "id,text\n", "There is no query"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, file: str, content: str, message: str) -> None:
    paths = write_csv(tmp_path)
    (tmp_path / f"{file}.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        Retrieval.from_files(*paths)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: Retrieval.from_folder(path / "none"), "There is no folder"),
        (lambda path: Retrieval.from_folder(write_beir(path)), r"There is no file .*qrels/test\.tsv"),
        (lambda path: Retrieval.from_files(*write_csv(path)[:2], path / "no.csv"), r"There is no file .*no\.csv"),
        (lambda path: evaluate(HashedWords(), ""), "There is no task"),
    ],
)
def test_what_is_not_there(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(tmp_path)


def test_own_evaluators_stand_beside_tasks(evaluation_sets: Path) -> None:
    retrieval = Retrieval(QUERIES, DOCUMENTS, RELEVANCE)
    alone = evaluate(HashedWords(), "", evaluators=[retrieval])
    assert list(alone.results) == ["retrieval"]
    both = evaluate(HashedWords(), "stsb-dev", evaluators=[retrieval], data_dir=evaluation_sets)
    assert list(both.results) == ["STSBenchmark-dev", "retrieval"]
    assert both.primary == both.average["all"]
    assert both.average["ndcg@10"] == alone.primary
    rows = [line.split()[0] for line in both.table().splitlines() if line]
    assert rows[-5:] == ["Retrieval", "ndcg@10", "mrr@10", "recall@10", "recall@100"]


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_csv(tmp_path)
    flags = [
        str(item)
        for name, path in zip(("queries", "documents", "relevance"), files, strict=True)
        for item in (f"--{name}", path)
    ]
    run = textcl("eval", model, *flags, "--json", "result.json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    expected = Retrieval(QUERIES, DOCUMENTS, RELEVANCE)(Encoder.from_pretrained(model))
    assert json.loads((tmp_path / "result.json").read_text())["average"] == pytest.approx(expected.average)
    assert run.stdout.strip() == expected.table()
    assert main(["eval", str(model), "--beir", str(write_beir(tmp_path / "beir")), "--split", "dev"]) == 0
    assert capsys.readouterr().out == run.stdout
    for wrong in (flags[:4], [*flags, "--beir", str(tmp_path / "beir")]):
        assert main(["eval", str(model), *wrong]) == 2
        assert capsys.readouterr().err == (
            "textcl: Retrieval needs --queries, --documents and --relevance together, or only --beir.\n"
        )
