"""What is judged does not depend on how many texts the minutes allow: the views are chosen once."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.judged import judged_titles
from support.tiny import tiny_encoder_directory

from textcl.adaptation import trial
from textcl.adaptation.corpus import Corpus
from textcl.adaptation.enough import too_few_groups, too_few_of_user
from textcl.adaptation.known_items import View, known_items
from textcl.adaptation.trial import LEAST_DOCUMENTS, Settings, Trial, Work, prepare
from textcl.adaptation.workplace import Workplace
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder

GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 6 <= len(line.split()) <= 9]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.from_pretrained(tiny_encoder_directory(tmp_path_factory.mktemp("model")))


def prepared(encoder: Encoder, corpus: Corpus, minutes: float, folder: Path) -> tuple[Trial, Corpus, list[str], int]:
    trial, work, views = prepare(Work(encoder, corpus, Workplace(folder), Settings(minutes=minutes)), "an identity")
    assert not trial.why
    return trial, work.corpus, [view.name for view in views], len(views[0].queries)


def test_fewer_minutes_ask_the_same_kind_of_queries_and_never_too_few(encoder: Encoder, tmp_path: Path):
    """112 of the 450 texts have a title, and 250 have three sentences."""
    three = [". ".join(GLOSSES[3 * i : 3 * i + 3]) + "." for i in range(250)]
    bodies = three + GLOSSES[-200:]
    titles = [" ".join(GLOSSES[-300 - i].split()[:5]) if i % 4 == 0 and i < 448 else "" for i in range(450)]
    corpus = Corpus("texts", bodies, titles, 450, 0, 0)
    _, whole, names, queries = prepared(encoder, corpus, 60, tmp_path / "long")
    assert (len(whole), names, queries) == (450, ["sentence", "half"], 250)
    trial, part, names, queries = prepared(encoder, corpus, 1e-6, tmp_path / "short")
    assert (names, queries) == (["sentence", "half"], LEAST_DOCUMENTS)
    assert len(part) == trial.plan["documents"] < 450
    assert f"{len(part)} of them, drawn at random, are looked at" in " ".join(trial.looked)


def test_several_encoders_share_the_minutes_and_no_more_than_the_most_documents_are_looked_at(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bodies = [". ".join(GLOSSES[3 * i : 3 * i + 3]) + "." for i in range(450)]
    asked = sum(len(view.queries) + len(view.documents) for view in known_items(bodies)[:2])

    def documents(minutes: float, encoders: int = 1) -> int:
        clock = iter([0.0, 64.0])  # each of the 64 texts that are timed takes a second
        monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=clock.__next__))
        work = Work(
            encoder,
            Corpus("texts", bodies, None, 450, 0, 0),
            Workplace(tmp_path / f"{minutes} {encoders}"),
            Settings(minutes=minutes),
        )
        return prepare(work, "an identity", encoders)[0].plan["documents"]

    whole = asked / 60 / trial.ENCODING_SHARE
    assert documents(1.01 * whole) == 450
    assert documents(0.901 * whole) == 405
    assert documents(1.201 * whole, encoders=2) == 270
    monkeypatch.setattr(trial, "MOST_DOCUMENTS", 300)
    assert documents(9 * whole) == 300


def test_a_second_kind_of_query_of_one_template_is_not_asked(encoder: Encoder, tmp_path: Path):
    short = [" ".join(gloss.split()[:3]) for gloss in dict.fromkeys(GLOSSES)][:250]
    alike = [f"the backup of server {i} finished without an error and all files were copied" for i in range(205)]
    titles = [" ".join(GLOSSES[-1 - i].split()[:4]) for i in range(250)] + [""] * 205
    trial, _, names, _ = prepared(encoder, Corpus("texts", short + alike, titles, 455, 0, 0), 60, tmp_path)
    assert names == ["title"]
    assert "there is no second view" in " ".join(trial.looked)


def test_groups_are_enough_if_they_have_queries_and_none_holds_most_of_the_texts():
    def why(documents: list[str], queries: int, trains: bool = False) -> str:
        return too_few_groups(View("half", "a test", [""] * queries, documents, np.arange(queries)), trains)

    apart = [f"first{i} second{i} third{i}" for i in range(100)]
    assert why(apart, 19) == "there are 19 groups of texts with a query, and 20 are needed"
    assert why(apart, 20) == ""
    assert why(apart, 39, trains=True) == "there are 39 groups of texts with a query, and 40 are needed"
    alike = [f"the backup of server {i} finished without an error and all files were copied" for i in range(51)]
    assert why([*apart[:49], *alike], 49).startswith("51 of 100 texts are near-duplicates of each other")
    assert why([*apart[:50], *alike[:50]], 50) == ""
    # near-duplicates count once among the queries too
    assert why([*alike[:5], *apart], 23) == "there are 19 groups of texts with a query, and 20 are needed"
    assert why([*alike[:5], *apart], 24) == ""


def test_a_judged_query_counts_if_a_document_that_is_there_is_relevant_to_it(tmp_path: Path):
    rows = [{"name": f"query {i}", "text": f"text {i}"} for i in range(22)]
    judged = judged_titles(rows, tmp_path / "judged") / "qrels" / "test.tsv"
    place, content = Workplace(tmp_path), judged.read_text()
    for number in range(3):  # its text has grade 0, and what is relevant to it is not there
        content = content.replace(f"q{number}\t{number}\t1\n", f"q{number}\t{number}\t0\nq{number}\tgone\t1\n")
        judged.write_text(content)
        why = too_few_of_user("beir", str(tmp_path / "judged"), place)
        assert why == ("there are 19 queries with a relevant document, and 20 are needed" if number == 2 else "")


def test_the_smallest_part_has_as_many_of_some_documents_as_are_wanted():
    corpus = Corpus("texts", [str(i) for i in range(300)], None, 300, 0, 0)
    wanted = np.arange(0, 300, 3)
    for seed in range(5):
        size = corpus.smallest_part(wanted, 40, seed)
        counts = [sum(int(text) % 3 == 0 for text in corpus.part(each, seed).bodies) for each in (size - 1, size)]
        assert counts == [39, 40]
    assert corpus.smallest_part(wanted, 100) <= 300
