"""What is judged does not depend on how many texts the minutes allow: the views are chosen once."""

from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_encoder_directory

from textcl.adaptation.corpus import Corpus
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


def test_a_second_kind_of_query_of_one_template_is_not_asked(encoder: Encoder, tmp_path: Path):
    short = [" ".join(gloss.split()[:3]) for gloss in dict.fromkeys(GLOSSES)][:250]
    alike = [f"the backup of server {i} finished without an error and all files were copied" for i in range(205)]
    titles = [" ".join(GLOSSES[-1 - i].split()[:4]) for i in range(250)] + [""] * 205
    trial, _, names, _ = prepared(encoder, Corpus("texts", short + alike, titles, 455, 0, 0), 60, tmp_path)
    assert names == ["title"]
    assert "there is no second view" in " ".join(trial.looked)


def test_the_smallest_part_has_as_many_of_some_documents_as_are_wanted():
    corpus = Corpus("texts", [str(i) for i in range(300)], None, 300, 0, 0)
    wanted = np.arange(0, 300, 3)
    for seed in range(5):
        size = corpus.smallest_part(wanted, 40, seed)
        counts = [sum(int(text) % 3 == 0 for text in corpus.part(each, seed).bodies) for each in (size - 1, size)]
        assert counts == [39, 40]
    assert corpus.smallest_part(wanted, 100) <= 300
