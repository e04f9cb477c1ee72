"""The demo's corpus and sanity check: made from WordNet alone, by a script that makes the same bytes again."""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from support.command import REPOSITORY

ROOT = REPOSITORY
ASSETS = ROOT / "textcl" / "assets" / "wordnet"
SCRIPT = ROOT / "tools" / "build_demo_data.py"


def glosses() -> list[str]:
    return (ASSETS / "glosses.txt").read_text("utf-8").splitlines()


def pairs() -> list[tuple[str, str, int]]:
    rows = [line.split("\t") for line in (ASSETS / "similarity.tsv").read_text("utf-8").splitlines()]
    return [(first, second, int(score)) for first, second, score in rows]


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_demo_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_rebuilding_from_wordnet_gives_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    wordnet = str(shared_data / "nltk_data.tar.xz")
    subprocess.run([sys.executable, str(SCRIPT), "--wordnet", wordnet, "--output", str(tmp_path)], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in ASSETS.iterdir())
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ASSETS / path.name).read_bytes(), path.name


def test_a_synset_is_trained_on_or_scored_never_both(builder, shared_data: Path) -> None:
    trained, scored = builder.split(builder.read_wordnet(shared_data / "nltk_data.tar.xz")[0])
    assert not trained.keys() & scored.keys()
    trained_texts = {text for synset in trained.values() for text in synset.definitions + synset.examples}
    scored_texts = {text for synset in scored.values() for text in synset.definitions}
    assert set(glosses()) <= trained_texts
    assert {text for pair in pairs() for text in pair[:2]} <= scored_texts


def test_no_text_is_both_trained_on_and_scored() -> None:
    assert not set(glosses()) & {text for pair in pairs() for text in pair[:2]}


def test_every_text_stands_once() -> None:
    assert len(set(glosses())) == len(glosses()) == 24_000
    assert all(line == line.strip() and len(line.split()) >= 4 for line in glosses())


def test_five_grades_of_equal_size() -> None:
    counts = Counter(score for _, _, score in pairs())
    assert set(counts) == {0, 1, 2, 3, 4}
    assert len(set(counts.values())) == 1
    assert counts[0] >= 250


def test_counting_common_words_does_not_solve_it(builder) -> None:
    """No pair shares a content word, so bag of words is near chance: 0.07 measured, 0.027 the standard error."""
    assert not any(builder.content(first) & builder.content(second) for first, second, _ in pairs())
    first, second, score = zip(*pairs(), strict=True)
    vectors = TfidfVectorizer().fit(first + second)
    cosines = vectors.transform(first).multiply(vectors.transform(second)).sum(axis=1)
    assert spearmanr(cosines, score).statistic < 0.15


def test_wordnets_licence_goes_along() -> None:
    licence = (ASSETS / "LICENSE").read_text("utf-8")
    assert licence.startswith("This software and database is being provided to you, the LICENSEE")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence
    assert "Permission to use, copy, modify and distribute this software" in licence


def test_the_readme_names_what_the_folder_is_and_is_not() -> None:
    readme = (ASSETS / "README.md").read_text("utf-8")
    for said in ("sanity check", "bag-of-words", "Transductive", f"{len(glosses()):,}", f"{len(pairs()):,}"):
        assert said in readme
