"""Retrieval: metrics beside loops, scikit-learn and sentence-transformers; files as people have them; refusals."""

import json
import logging
import math
import random
import tarfile
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
from textcl.data.retrieval import Collection
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
    by_query = entry.pop("by_query")
    assert list(by_query) == [query for query, grades in RELEVANCE.items() if max(grades.values(), default=0) > 0]
    assert sum(by_query.values()) / len(by_query) == pytest.approx(expected["ndcg@10"], abs=1e-4)
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


class Table:
    """Embeds each text as the row that it has in a table."""

    def __init__(self, rows: dict[str, Sequence[float]]) -> None:
        self.rows = rows

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.rows[text] for text in texts], dtype=float)


def test_a_collapsed_encoder_scores_zero_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Collapsed:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.full((len(texts), 3), 0.3)

    with caplog.at_level(logging.WARNING, "textcl"):
        result = Retrieval(QUERIES, DOCUMENTS, RELEVANCE, chunk_size=50)(Collapsed())
    assert set(result.average.values()) == {0.0}
    assert "All documents are equally near to 32 of 32 queries" in caplog.text
    assert result.provenance["undefined"] == ["retrieval 32 of 32 queries"]


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_a_query_to_which_all_documents_are_equally_near_counts_as_zero(
    chunk_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two queries, one of them at right angles to all documents. Over all queries there are three cosines."""
    encoder = Table({"east": (1, 0, 0), "up": (0, 0, 1), "a": (1, 0, 0), "b": (3, 4, 0), "c": (0, 1, 0)})
    documents = {name: name for name in "abc"}
    relevance = {"q1": {"b": 1}, "q2": {"a": 1}}
    with caplog.at_level(logging.WARNING, "textcl"):
        result = Retrieval({"q1": "east", "q2": "up"}, documents, relevance, chunk_size=chunk_size)(encoder)
    assert result.average["mrr@10"] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert result.average["ndcg@10"] == pytest.approx(100 * (1 / math.log2(3) + 0) / 2)
    assert result.average["recall@100"] == 50.0
    assert "All documents are equally near to 1 of 2 queries" in caplog.text
    assert result.provenance["undefined"] == ["retrieval 1 of 2 queries"]


def test_documents_that_rounding_alone_tells_apart_are_equally_near() -> None:
    class Collapsed(Vectors):
        """Queries differ; documents are one vector but for the rounding of float32."""

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            rows = super().encode(texts)
            noise = 1e-8 * rows
            return np.where([[text in documents.values()] for text in texts], np.full(rows.shape, 0.3) + noise, rows)

    documents = {f"d{i}": f"document number {i}" for i in range(20)}
    queries = {f"q{i}": "query " + "x" * i for i in range(5)}
    found = Retrieval(queries, documents, {f"q{i}": {f"d{i}": 1} for i in range(5)})(Collapsed())
    assert set(found.average.values()) == {0.0}


def test_a_prompt_that_leaves_no_room_for_a_document_is_refused(model: Path) -> None:
    """All documents would have the vector of the prompt."""
    long = "the old sailor mends a small boat and paints the red door "
    encoder = Encoder.from_pretrained(model, max_length=8, prompts={"document": long})
    with pytest.raises(InputError, match="max_length 8 leaves none for a text"):
        Retrieval({"q": "a"}, {"d": "b", "e": "c"}, {"q": {"d": 1}})(encoder)


def test_a_single_document_needs_no_order() -> None:
    assert Retrieval({"q": "a"}, {"d": "b"}, {"q": {"d": 1}})(Vectors()).average["mrr@10"] == 100


# a document with a query's id

# Cosines with "ask": 1, 0.8, 0.6 and 0.
ARGUANA = Table({"Do  cats sleep?": (1, 0), "on cats do cats sleep?": (1, 0), "a": (4, 3), "b": (3, 4), "c": (0, 1)})


def folder_of(path: Path, queries: list[dict], documents: list[dict], judged: dict[tuple[str, str], int]) -> Path:
    (path / "qrels").mkdir(parents=True)
    for name, rows in (("queries", queries), ("corpus", documents)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{query}\t{document}\t{grade}\n" for (query, document), grade in judged.items()]
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return path


def arguana(path: Path, judged: dict[tuple[str, str], int]) -> Path:
    """The query is among the documents with its id, a title, and other case and spaces."""
    documents = [{"_id": name, "title": "", "text": name} for name in "abc"]
    own = {"_id": "q1", "title": "on cats", "text": "do cats sleep?"}
    return folder_of(path, [{"_id": "q1", "text": "Do  cats sleep?"}], [own, *documents], judged)


def test_a_query_does_not_find_itself_in_a_folder_of_beir(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = arguana(tmp_path, {("q1", "b"): 1})
    left_out, kept = Retrieval.from_folder(folder), Retrieval.from_folder(folder, identical_ids="keep")
    found = left_out(ARGUANA)
    assert found.average["ndcg@10"] == pytest.approx(100 / math.log2(3))  # a, b, c
    assert found.average["mrr@10"] == 50
    assert kept(ARGUANA).average["ndcg@10"] == pytest.approx(100 / math.log2(4))  # q1, a, b, c
    assert kept(ARGUANA).average["mrr@10"] == pytest.approx(100 / 3)
    assert "1 of 1 queries have a document with the same id and text. It is left out" in caplog.text
    assert found.provenance["tasks"]["retrieval"]["identical_ids_left_out"] == 1
    assert found.provenance["retrieval"]["identical_ids"] == "drop if the texts are equal too"


def test_only_its_own_document_is_left_out_of_a_ranking() -> None:
    """Two queries that are documents too: each may find the other."""
    encoder = Table({"one": (1, 0), "two": (4, 3), "three": (3, 4)})
    texts = {"1": "one", "2": "two", "3": "three"}
    options = {"identical_ids": None, "chunk_size": 2}
    found = Retrieval({"1": "one", "2": "two"}, texts, {"1": {"3": 1}, "2": {"3": 1}}, **options)(encoder)
    # of 1: 2 (0.8), 3 (0.6); of 2: 3 (0.96), 1 (0.8)
    assert found.average["mrr@10"] == pytest.approx(100 * (1 / 2 + 1) / 2)


def test_the_hundredth_document_is_still_found_if_one_is_left_out() -> None:
    angles = {f"d{i:03}": (math.cos(i / 100), math.sin(i / 100)) for i in range(1, 131)}
    encoder = Table({"q": (1, 0), **angles})
    documents = {"q": "q", **{name: name for name in angles}}
    for chunk_size in (7, 500):
        for options, hit in (({"identical_ids": "drop"}, 100.0), ({"identical_ids": "keep"}, 0.0)):
            retrieval = Retrieval({"q": "q"}, documents, {"q": {"d100": 1}}, chunk_size=chunk_size, **options)
            assert retrieval(encoder).average["recall@100"] == hit


def test_what_is_left_is_checked_for_collapse() -> None:
    """Without the document with the query's id, be it the nearest or the furthest, all documents are equally near."""
    encoder = Table({"q": (1, 0), "x": (3, 4), "y": (3, 4), "far": (-1, 0)})
    documents, relevance = {"q": "q", "a": "x", "b": "y"}, {"q": {"a": 1}}
    for own in ("q", "far"):
        retrieval = Retrieval({"q": "q"}, {**documents, "q": own}, relevance, identical_ids="drop")
        assert retrieval(encoder).primary == 0
    assert Retrieval({"q": "q"}, documents, relevance)(encoder).average["mrr@10"] == 50


def test_numbers_that_agree_by_chance_leave_nothing_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in Cranfield and NPL, which number queries and documents from 1."""
    encoder = Table({"east": (1, 0), "title a": (1, 0), "b": (4, 3), "c": (0, 1)})
    texts = {"1": ("title", "a"), "2": ("", "b"), "3": ("", "c")}
    documents = [{"_id": name, "title": title, "text": text} for name, (title, text) in texts.items()]
    folder = folder_of(tmp_path, [{"_id": "1", "text": "east"}], documents, {("1", "1"): 1, ("1", "2"): 2})
    found = Retrieval.from_folder(folder)(encoder)
    assert caplog.messages == [
        "1 of 1 queries have the id of a document with another text. Nothing is left out for them; textcl eval "
        "--identical-ids drop leaves these documents out."
    ]
    best = 2 + 1 / math.log2(3)
    assert found.average["ndcg@10"] == pytest.approx(100 * (1 + 2 / math.log2(3)) / best)
    assert found.average["recall@10"] == 100
    caplog.clear()
    dropped = Retrieval.from_folder(folder, identical_ids="drop")(encoder)
    assert dropped.average["ndcg@10"] == pytest.approx(100 * 2 / best)
    assert dropped.average["recall@10"] == 50
    assert caplog.messages == [
        "1 of 1 queries have a document with the same id. It is left out of this query's ranking, as BEIR does (in 1 "
        "cases although it is judged relevant); textcl eval --identical-ids keep ranks it."
    ]


@pytest.mark.parametrize(
    ("query", "title", "text", "same"),
    [
        ("Cats  SLEEP", "", "cats sleep", True),
        ("cats sleep", "A title", "cats\nsleep", True),
        ("a title cats sleep", "A title", "cats sleep", True),
        ("cats", "", "cats sleep", False),
        ("sleep", "cats", "all cats sleep", False),
        ("A title", "A title", "", True),
        ("", "", "", False),
    ],
)
def test_texts_are_compared_without_case_spaces_and_title(query: str, title: str, text: str, same: bool) -> None:
    documents = {"1": f"{title} {text}".strip(), "2": "x"}
    titles = {"1": title} if title else {}
    assert Collection({"1": query}, documents, {"1": {"2": 1}}, titles).own_documents() == {"1": same}


def test_own_files_are_ranked_whole_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, rows in (("queries", "q,cats"), ("documents", "q,cats\nd,dogs"), ("relevance", "q,d")):
        head = "query_id,document_id" if name == "relevance" else "id,text"
        (tmp_path / f"{name}.csv").write_text(f"{head}\n{rows}\n")
    files = [tmp_path / f"{name}.csv" for name in ("queries", "documents", "relevance")]
    assert Retrieval.from_files(*files)(Vectors()).average["mrr@10"] == 50
    assert "1 of 1 queries have a document with the same id and text, so that each can find itself" in caplog.text
    assert Retrieval.from_files(*files, identical_ids="drop")(Vectors()).average["mrr@10"] == 100
    with pytest.raises(InputError, match="must be 'drop', 'keep' or None, not 'dorp'"):
        Retrieval.from_files(*files, identical_ids="dorp")


def test_a_relevant_document_that_is_missing_is_counted_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in ArguAna, and as trec_eval counts it: the best order has the missing document too."""
    folder = arguana(tmp_path, {("q1", "a"): 1, ("q1", "gone"): 1, ("q1", "unrelated"): 0})
    found = Retrieval.from_folder(folder)(ARGUANA)
    assert found.average["ndcg@10"] == pytest.approx(100 / (1 + 1 / math.log2(3)))
    assert (found.average["mrr@10"], found.average["recall@10"], found.average["recall@100"]) == (100, 50, 50)
    assert "not among the documents: 1 (the first is 'gone'). They count as relevant" in caplog.text
    assert found.provenance["tasks"]["retrieval"]["relevant_documents_missing"] == 1


@pytest.mark.parametrize(("name", "queries"), [("cranfield", 225), ("npl", 93)])
def test_real_collections_that_number_from_one(
    name: str, queries: int, shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(shared_data / "retrieval.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    retrieval = Retrieval.from_folder(tmp_path / name)
    said = [message for message in caplog.messages if "with another text" in message]
    assert said == [
        f"{queries} of {queries} queries have the id of a document with another text. Nothing is left out for them; "
        "textcl eval --identical-ids drop leaves these documents out."
    ]
    assert not retrieval.left_out
    if name == "cranfield":
        found = retrieval(HashedWords()).average
        assert found == Retrieval.from_folder(tmp_path / name, identical_ids="keep")(HashedWords()).average
        assert found != Retrieval.from_folder(tmp_path / name, identical_ids="drop")(HashedWords()).average


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
    parts = QUERIES, DOCUMENTS, RELEVANCE
    query, grades = next(iter(RELEVANCE.items()))
    document = next(iter(grades))
    changed: list[dict] = [{query: "other"}, {document: "other"}, {query: {**grades, document: 7}}]
    for number, change in enumerate(changed):  # the hash feels each text and each grade
        other = [{**part, **change} if place == number else part for place, part in enumerate(parts)]
        assert Retrieval(*other).collection.hash() != expected.hash() == Retrieval(*parts).collection.hash()
    (tmp_path / "relevance.csv").write_text("query_id,document_id\nq0,d0\n")
    ungraded = Retrieval.from_files(*write_csv(tmp_path)[:2], tmp_path / "relevance.csv")
    assert ungraded.collection.hash() == Retrieval.from_files(*write_csv(tmp_path)).collection.hash()
    (tmp_path / "one.csv").write_text("query_id,document_id\nq0,d0\n")
    ungraded = Retrieval.from_files(*write_csv(tmp_path)[:2], tmp_path / "one.csv")
    assert ungraded.collection.relevance == {"q0": {"d0": 1.0}}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("relevance", "query_id,document_id\nq0,d998\nq0,d999\n", "None of the judged documents, such as 'd998', is"),
        ("relevance", "query_id,document_id\nq0,d0\nq999,d0\n", "names the query 'q999', which is not among"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,0\n", "No document is relevant to any query"),
        (
            "relevance",
            "query_id,document_id,relevance\nq0,d0,much\n",
            "line 2: the relevance 'much' is not",
        ),
        ("relevance", "query_id,document_id,relevance\nq0,d0,inf\n", "is not a finite number"),
        ("relevance", "query_id,document_id,relevance\nq0,d0,1\nq0,d0,2\n", "line 3: document 'd0' has another grade"),
        ("relevance", "query,document_id\nq0,d0\n", r"no column 'query_id' or 'query-id'; its columns are 'query'"),
        ("relevance", "query_id,document_id\n", "There is no judgement"),
        ("relevance", "", "relevance.csv is empty"),
        ("documents", "id,text\nd0,one\nd1,two\nd0,three\n", "line 4: the id 'd0' occurs for the second time"),
        ("documents", "id,text\n ,one\n", "line 2: the id is empty"),
        ("documents", "id,text\n", "There is no document; retrieval needs"),
        ("documents", "name,text\nd0,one\n", r"no column 'id' or '_id'; its columns are 'name', 'text'"),
        ("queries", "id,question\nq0,one\n", r"no column 'text'; its columns are 'id', 'question'"),
        ("queries", "id,text\nq0,one\nq0,one\n", "line 3: the id 'q0' occurs for the second time"),
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
    folder = arguana(tmp_path / "arguana", {("q1", "b"): 1})
    documents = {}
    for choice in ([], ["--identical-ids", "drop"], ["--identical-ids", "keep"]):
        assert main(["eval", str(model), "--beir", str(folder), *choice, "--json", "-"]) == 0
        facts = json.loads(capsys.readouterr().out)["provenance"]["tasks"]["retrieval"]
        documents[tuple(choice)] = facts["identical_ids_left_out"]
    assert list(documents.values()) == [1, 1, 0]
    assert main(["eval", str(model), "--tasks", "stsb", "--identical-ids", "drop"]) == 2
    assert "--identical-ids is for retrieval" in capsys.readouterr().err
    for wrong in (flags[:4], [*flags, "--beir", str(tmp_path / "beir")]):
        assert main(["eval", str(model), *wrong]) == 2
        assert capsys.readouterr().err == (
            "textcl: Retrieval needs --queries, --documents and --relevance together, or only --beir.\n"
        )
