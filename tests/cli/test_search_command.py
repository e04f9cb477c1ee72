"""The commands that search: queries from standard input, kinds of retrieval, comparisons over queries, refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.command import environment
from support.tiny import TEXTS, tiny_encoder_directory

from textcl.cli.main import main
from textcl.evaluation.significance import over_queries
from textcl.vectors.encode import encode_corpus
from textcl.vectors.fusion import DEPTH
from textcl.vectors.index import CorpusIndex


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors with ids and a column, a collection in BEIR's layout, and a tiny model."""
    folder = tmp_path_factory.mktemp("search")
    tiny_encoder_directory(folder / "model")
    rows = [{"text": text, "key": f"k{n}", "day": f"2026-01-{1 + n % 28:02}"} for n, text in enumerate(TEXTS[:60])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"column": "text", "id_column": "key", "columns": ["day"]}
    encode_corpus(folder / "model", folder / "rows.jsonl", folder / "v", **options)
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS[:60])]
    (beir / "corpus.jsonl").write_text("\n".join(documents) + "\n")
    queries = [json.dumps({"_id": f"q{n}", "text": " ".join(TEXTS[n].split()[:4])}) for n in range(0, 60, 4)]
    (beir / "queries.jsonl").write_text("\n".join(queries) + "\n")
    judged = [f"q{n}\td{n}\t1" for n in range(0, 60, 4)]
    (beir / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return folder


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def test_queries_are_read_from_standard_input_and_answered_at_once(work: Path) -> None:
    """The second query is written only when the first is answered."""
    command = [sys.executable, "-m", "textcl", "search", "v", "--top", "3", "--json", "-"]
    process = subprocess.Popen(
        command, cwd=work, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    index = CorpusIndex(work / "v")
    for query in (TEXTS[3], "the chess player \N{SNOWMAN}"):
        process.stdin.write(f"\n{query}\n".encode())
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["query"] == query
        hits = index.search(query, 3)
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in hits]
        assert answer["hits"][0]["columns"] == hits[0].columns
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err) == (0, b"", b"")


def run(work: Path, given: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "textcl", "search", "v", "--retrieval", "bm25", *arguments]
    return subprocess.run(command, cwd=work, env=environment(), input=given, capture_output=True, timeout=600)


def test_answers_for_people_and_in_a_file(work: Path, tmp_path: Path) -> None:
    done = run(work, f"{TEXTS[5]}\nzebra\n".encode(), "--top", "2", "--json", str(tmp_path / "answers.json"))
    first, second = done.stdout.decode().split("\n\n")[:2]
    assert first.splitlines()[0] == TEXTS[5]
    assert "  k5  " in first.splitlines()[1]
    assert "(day: 2026-01-06)" in first.splitlines()[1]
    assert second.splitlines() == ["zebra", "no text has a word of the query"]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert [answer["query"] for answer in answers] == [TEXTS[5], "zebra"]
    assert answers[0]["hits"][0]["id"] == "k5"
    assert answers[1]["hits"] == []


@pytest.mark.slow
def test_no_query_and_a_line_that_is_not_text(work: Path) -> None:
    no_query, no_text = b"There is no query", b"Line 2 of standard input is not UTF-8"
    for given, message in ((b"", no_query), (b"\n  \r\n", no_query), (b"a boat\n\xff\n", no_text)):
        done = run(work, given)
        assert done.returncode == 2
        assert message in done.stderr


def test_help_says_what_a_score_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(1 - WEIGHT) z(cosine) + WEIGHT z(BM25)" in said
    assert f"the best {DEPTH:,} of each side" in said
    assert "can be compared within one query only" in said


@pytest.mark.parametrize("retrieval", ["dense", "bm25", "hybrid"])
def test_kinds_of_retrieval(here: Path, capsys: pytest.CaptureFixture[str], retrieval: str) -> None:
    flags = ["--bm25-weight", "0.2"] if retrieval == "hybrid" else []
    assert main(["search", "v", "--retrieval", retrieval, TEXTS[7], "--top", "4", "--json", "-", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    hits = CorpusIndex("v").search(TEXTS[7], 4, retrieval=retrieval, bm25_weight=0.2)
    assert [(hit["id"], hit["text"]) for hit in found] == [(hit.id, hit.text) for hit in hits]
    assert found[0]["columns"] == {"day": "2026-01-08"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bm25-weight", "0.2"], "--bm25-weight is for --retrieval hybrid, not for dense"),
        (["--bm25-weight", "0.2", "--retrieval", "bm25"], "--bm25-weight is for --retrieval hybrid, not for bm25"),
        (["--language", "german"], "--language is for --retrieval bm25 or hybrid, not for dense"),
        (["--expand", "3", "--retrieval", "bm25"], "--expand is for --retrieval dense or hybrid, not for bm25"),
        (["--prompt", "x", "--retrieval", "bm25"], "--prompt is for --retrieval dense or hybrid"),
        (["--language", "germn", "--retrieval", "bm25"], "Did you mean 'german'"),
        (["--bm25-weight", "2", "--retrieval", "hybrid"], "must be a finite number of at least 0 and at most 1"),
        (["--retrieval", "words"], "invalid choice: 'words'"),
    ],
)
def test_search_refuses_what_it_would_not_use(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["search", "v", "a boat", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode", "nonsense"], "--mode is for transfer tasks"),
        (["--mode", "fast", "--tasks", "sts"], "--mode is for transfer tasks"),
        (["--setting", "dev", "--beir", "beir"], "--setting is for transfer tasks"),
        (["--cache", "c", "--tasks", "stsb"], "--cache is for transfer tasks"),
        (["--mode", "nonsense", "--tasks", "mr"], "nonsense"),
        (["--split", "dev"], "--split is for --beir"),
        (["--retrieval", "bm25"], "--retrieval is for retrieval; give --beir"),
        (["--bm25-weight", "0"], "--bm25-weight is for retrieval; give --beir"),
        (["--language", "german", "--tasks", "sts"], "--language is for retrieval; give --beir"),
        (["--identical-ids", "drop"], "--identical-ids is for retrieval"),
        (["--beir", "beir", "--bm25-weight", "0.2"], "--bm25-weight is for --retrieval hybrid, not for dense"),
        (["--beir", "beir", "--data-dir", "x"], "--data-dir is for tasks with installed sets"),
        (["--beir", "beir", "--retrieval", "bm25", "--max-length", "9"], "--max-length has no effect on BM25"),
        (["--beir", "beir", "--retrieval", "bm25", "--language", "klingon"], "no stemmer for 'klingon'"),
    ],
)
def test_eval_refuses_flags_that_no_task_uses(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["eval", "model", *flags]) == 2
    assert message in capsys.readouterr().err


def test_two_results_are_compared_over_queries(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("dense", "bm25"):
        command = ["eval", "model", "--beir", "beir", "--retrieval", kind, "--json", str(tmp_path / f"{kind}.json")]
        assert main(command) == 0
    files = [str(tmp_path / f"{kind}.json") for kind in ("dense", "bm25")]
    results = [json.loads(Path(file).read_text()) for file in files]
    assert [each["provenance"]["tasks"]["retrieval"]["retrieval"] for each in results] == ["dense", "bm25"]
    values = [each["results"]["retrieval"]["by_query"] for each in results]
    assert np.mean(list(values[0].values())) == pytest.approx(results[0]["average"]["ndcg@10"], abs=1e-4)
    found = over_queries(list(values[0].values()), list(values[1].values()))
    capsys.readouterr()
    assert main(["results", "--compare", *files]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == found.sentence(*files)
    assert f"15 queries: {np.mean(list(values[0].values())):.2f} and " in said
    assert f"bootstrap: {found.low:+.2f} to {found.high:+.2f}; sign-flip test: p = {found.p_value:.4f}." in said

    other = {**results[1], "provenance": {"tasks": {"retrieval": {"data_sha256": "x"}}}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    facts = results[1]["provenance"]["tasks"]["retrieval"]
    kept = {**results[1], "provenance": {"tasks": {"retrieval": {**facts, "identical_ids_left_out": 3}}}}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    (tmp_path / "none.json").write_text("{}")
    for file, message in (
        ("other", "different queries, documents or judgements"),
        ("kept", "or another rule for documents with a query's id"),
        ("none", "has no values of retrieval queries"),
    ):
        assert main(["results", "--compare", files[0], str(tmp_path / f"{file}.json")]) == 2
        assert message in capsys.readouterr().err
    assert main(["results", "--compare", files[0], str(tmp_path / "typo.json")]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert main(["results", "--compare", *files, "--task", "stsb"]) == 2
    assert "leave out --task" in capsys.readouterr().err
    assert main(["results", "--compare", files[0], "bundled"]) == 2
    assert "can be compared only with another file of `textcl eval --json`" in capsys.readouterr().err


def test_a_folder_with_the_name_of_an_encoder_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bundled").mkdir()
    Path("t.txt").write_text("\n".join(TEXTS[:120]) + "\n")
    assert main(["encode", "small", "t.txt", "--output", "small"]) == 0
    assert json.loads(Path("small/manifest.json").read_text())["model"]["name"] == "small"
    assert main(["search", "small", TEXTS[7], "--top", "1", "--json", "-"]) == 0
    assert main(["duplicates", "small", "--json", "duplicates.json"]) == 0
    assert main(["cluster", "small", "--clusters", "3", "--output", "c.csv"]) == 0
    assert main(["cluster", "small", "t.txt", "--assign", "c.csv", "--output", "again.csv"]) == 0
    assert Path("again.csv").read_text() == Path("c.csv").read_text()
    monkeypatch.chdir(tmp_path.parent)
    capsys.readouterr()
    assert main(["search", str(tmp_path / "small"), TEXTS[7], "--top", "1", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == 7
