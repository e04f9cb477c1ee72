"""BM25: the formula in plain Python, words of several languages, and the index that is kept."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.command import environment
from support.tiny import TEXTS

from textcl.errors import InputError
from textcl.vectors.bm25 import FILE, STOP_WORDS, Bm25, languages

MADE_OF = {"shards": {"part-00000.parquet": {"size": 1, "sha256": "x"}}}


def oracle(texts: list[list[str]], query: list[str]) -> list[float]:
    """The formula of the docstring, word by word."""
    mean = sum(map(len, texts)) / len(texts)
    found = []
    for text in texts:
        score = 0.0
        for word in query:
            having = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            count = text.count(word)
            score += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        found.append(score)
    return found


def test_scores_are_those_of_the_formula() -> None:
    texts = ["red fox red dog", "fox", "blue bird", "", "dog dog dog bird bird fox"]
    words = [text.split() for text in texts]
    for query in ("red fox", "dog", "dog dog bird", "green", "green dog", ""):
        found = Bm25(texts).scores(query)
        assert found.dtype == np.float32
        assert found.tolist() == pytest.approx(oracle(words, query.split()), abs=1e-6)


def test_words_are_stemmed_and_stop_words_do_not_count() -> None:
    index = Bm25(["The farmers were walking", "a house", "of the with"])
    assert index.scores("a farmer walks").tolist() == index.scores("FARMERS, walking!").tolist()
    assert index.scores("a farmer walks")[0] > 0
    assert not index.scores("the with of").any()


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("german", "Die Häuser der Nachbarn", "ein Haus"),
        ("german", "Die Ha\u0308user", "Haus"),  # the umlaut as letter and mark
        ("russian", "красивые книги", "книга"),
        ("hindi", "लड़कियाँ पढ़ती हैं", "लड़की"),
        ("tamil", "புத்தகங்கள்", "புத்தகம்"),
        ("polish", "koty śpią", "kot"),
    ],
)
def test_words_of_other_languages(language: str, text: str, query: str) -> None:
    scores = Bm25([text, "abc", "def"], language).scores(query)
    assert scores[0] > 0
    assert not scores[1:].any()


def test_a_mark_is_a_part_of_its_word() -> None:
    """Two words of Hindi that begin with the same letter, whose vowel signs are marks, share nothing."""
    assert not Bm25(["किताब"], "hindi").scores("कितने")[0] > 0


def test_every_language_works_and_others_are_named() -> None:
    assert set(STOP_WORDS) < set(languages())
    for language in languages():
        assert Bm25(["abcd efgh", "ijkl"], language).scores("efgh")[0] > 0
    with pytest.raises(InputError, match=r"no stemmer for 'englsh'.*Did you mean 'english'"):
        Bm25(["a"], "englsh")


def test_texts_without_words_and_no_text() -> None:
    assert Bm25(["!", "of the"]).scores("cats").tolist() == [0, 0]
    with pytest.raises(InputError, match="no text"):
        Bm25([])
    with pytest.raises(InputError, match="row 2"):
        Bm25(["a", 3])  # type: ignore[list-item]


def test_what_is_kept_is_read_back_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    made = Bm25(TEXTS)
    made.save(tmp_path, MADE_OF)
    kept = Bm25.load(tmp_path, MADE_OF)
    assert kept is not None
    for query in (TEXTS[3], "garden chess", "nothing here"):
        assert np.array_equal(kept.scores(query), made.scores(query))
    assert Bm25.load(tmp_path, MADE_OF, "german") is None
    assert Bm25.load(tmp_path, {"shards": {}}) is None
    assert Bm25.load(tmp_path / "other", MADE_OF) is None
    before = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert Bm25.load(tmp_path, MADE_OF) is None


def test_equal_texts_give_equal_files(tmp_path: Path) -> None:
    """The package numbers words in the order of a set, which differs from process to process."""
    code = (
        "import sys; from pathlib import Path; from textcl.vectors.bm25 import Bm25\n"
        "Bm25(['one two three four five', 'six seven eight'] * 9).save(Path(sys.argv[1]), {})"
    )
    for name in "12":
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, env=environment(PYTHONHASHSEED=name))
    assert (tmp_path / "1" / "bm25.json").read_bytes() == (tmp_path / "2" / "bm25.json").read_bytes()
