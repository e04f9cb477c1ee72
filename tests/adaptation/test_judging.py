"""Blind judging: the pairs are the first results of both systems, sides stay hidden, and answers resolve to systems."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from textcl.adaptation.judging import SIDES, BlindPairs, draw_pairs, finish_judging, pairs_path, read_blind_pairs
from textcl.adaptation.systems import System, load_system
from textcl.adaptation.workplace import Workplace
from textcl.data.training import BUNDLED_TEXTS
from textcl.encoder import Encoder
from textcl.errors import InputError
from textcl.vectors.bm25 import Bm25
from textcl.vectors.compress import unit
from textcl.vectors.encode import encode_corpus
from textcl.vectors.fusion import fuse
from textcl.vectors.near_duplicates import near_duplicate_groups

GLOSSES = [line for line in BUNDLED_TEXTS.read_text(encoding="utf-8").splitlines() if 8 <= len(line.split()) <= 14]
TEXTS = list(dict.fromkeys(GLOSSES))[:200]
TFIDF = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True).fit_transform(TEXTS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


def drawn(data: Path, folder: Path, **options: object) -> BlindPairs:
    return draw_pairs("bm25", "tfidf", data, folder / "judgements.tsv", **options)  # type: ignore[arg-type]


def nearest_by_tfidf(query: str) -> str:
    """The other text with the largest cosine of TF-IDF vectors."""
    cosines = (TFIDF @ TFIDF[TEXTS.index(query)].T).toarray().ravel()
    cosines[TEXTS.index(query)] = -1
    return TEXTS[int(cosines.argmax())]


@pytest.mark.parametrize("own", [True, False])
def test_the_first_result_of_each_kind_of_system(own: bool, tmp_path: Path):
    encoder, texts = Encoder.from_pretrained("bundled"), TEXTS[:50]
    queries = texts[7:12] if own else ["a bird that sings", "a king of old", "something made of wood"]
    numbers = np.arange(7, 12) if own else None
    place = Workplace(tmp_path)
    cosines = unit(encoder.encode(queries)) @ unit(encoder.encode(texts)).T
    words = np.stack([Bm25(texts).scores(query) for query in queries])
    for name in ("bundled", "bm25", "hybrid:bundled"):
        found = load_system(name).first(texts, queries, numbers, place)
        for row in range(len(queries)):
            rest = [i for i in range(50) if not own or i != 7 + row]
            scores = {"bundled": cosines[row, rest], "bm25": words[row, rest]}.get(name)
            if scores is None:
                scores = fuse(cosines[row, rest], words[row, rest])
            best = rest[int(np.argmax(scores))] if name != "bm25" or max(scores) > 0 else -1
            assert found[row] == best, (name, row)
            assert not own or best == -1 or texts[best] != queries[row]


def test_words_find_nothing_where_no_text_has_one(tmp_path: Path):
    for name in ("bm25", "tfidf"):
        assert load_system(name).first(TEXTS, ["zzyzx qwrtp"], None, Workplace(tmp_path)).tolist() == [-1]


def test_an_encoder_has_a_first_result_also_if_all_cosines_are_negative(tmp_path: Path):
    class Negative(System):
        def _cosines(self, texts: Sequence[str], queries: Sequence[str], place: Workplace) -> Iterator[np.ndarray]:
            return iter(np.array([[-0.3, -0.1, -0.2]]))

    system = Negative("a model", Encoder.from_pretrained("bundled"), words=False)
    assert system.first(TEXTS[:3], ["a query"], None, Workplace(tmp_path)).tolist() == [1]


def test_the_pairs_are_what_the_two_systems_find_and_the_sides_are_random(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    assert len(pairs) == 50
    assert len({pair.query for pair in pairs.pairs}) == 50
    for pair, before_is_left in zip(pairs.pairs, pairs.before_is_left(), strict=True):
        of_tfidf = nearest_by_tfidf(pair.query)
        assert pair.left != pair.right
        assert of_tfidf == (pair.right if before_is_left else pair.left)
    assert 10 < sum(pairs.before_is_left()) < 40
    assert pairs.content["looked"] == 200
    assert 50 <= pairs.content["differ"] < 200


def test_the_same_seed_draws_the_same_pairs_and_another_one_others(data: Path, tmp_path: Path):
    one, again, other = (drawn(data, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.content == again.content
    assert one.pairs != other.pairs
    assert one.before_is_left() != other.before_is_left()


def test_a_person_who_always_prefers_one_system_is_resolved_to_it_whatever_the_side(data: Path, tmp_path: Path):
    """And one who always answers left prefers neither."""
    pairs = drawn(data, tmp_path)
    answers = []
    for pair in pairs.pairs:
        answers.append("left" if pair.left == nearest_by_tfidf(pair.query) else "right")
    pairs.write([*answers[:45], "equal", "equal", "neither", "neither", "neither"])
    found = finish_judging(pairs.output)
    assert (found.before, found.after, found.equal, found.neither, found.better) == (0, 45, 2, 3, "tfidf")
    pairs.write(["left"] * 50)
    found = finish_judging(pairs.output)
    assert found.before == sum(pairs.before_is_left())
    assert found.better is None


def test_the_file_of_answers_names_no_system_and_the_sealed_one_has_no_readable_side(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    pairs.write(["left", "neither"])
    assert pairs.output.read_text() == f"set\tpair\tside\n{pairs.name}\t1\tleft\n{pairs.name}\t2\tneither\n"
    sealed = json.loads(pairs_path(pairs.output).read_text())
    assert set(sealed["pairs"][0]) == {"query", "left", "right"}
    assert len(sealed["sides"]) == 14  # 50 bits as 7 bytes
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["judgements.tsv", "judgements.tsv.pairs.json"]


def test_a_refused_judging_leaves_nothing_behind(tmp_path: Path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS[:60]), encoding="utf-8")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="have different first results for "):
        draw_pairs("bundled", "hybrid:bundled", texts, tmp_path / "out" / "judgements.tsv")
    assert not list((tmp_path / "out").iterdir())


def test_a_seed_or_columns_of_another_kind_are_refused(data: Path, tmp_path: Path):
    with pytest.raises(InputError, match="seed must be a whole number of at least 0"):
        drawn(data, tmp_path, seed=-1)
    with pytest.raises(InputError, match=r"columns must be a list of one or two names, such as \['text'\]"):
        drawn(data, tmp_path, columns="text")


@pytest.mark.parametrize("name", ["answers.csv", "answers", "answers.txt", "answers.jsonl", "answers.tsv.gz"])
def test_a_file_that_would_be_read_as_another_format_is_refused_before_any_work(name: str, data: Path, tmp_path: Path):
    with pytest.raises(InputError, match=rf"name a file that ends in \.tsv, not .*{name}"):
        draw_pairs("bm25", "tfidf", data, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_counted_before_the_end(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    pairs.write(["left"] * 49)
    with pytest.raises(InputError, match=r"has 49 of 50 answers.*nothing is counted before the end"):
        finish_judging(pairs.output)


def test_the_same_call_goes_on_and_another_one_is_refused(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    pairs.write(["right", "equal"])
    assert drawn(data, tmp_path).answers() == ["right", "equal"]
    assert drawn(data, tmp_path).content == pairs.content
    for options in ({"seed": 1}, {"answers": 100}, {"language": "german"}):
        with pytest.raises(InputError, match="belongs to another judging"):
            drawn(data, tmp_path, **options)
    (tmp_path / "mine.tsv").write_text("mine\n")
    with pytest.raises(InputError, match="exists already, and is not of textcl judge"):
        draw_pairs("bm25", "tfidf", data, tmp_path / "mine.tsv")
    assert (tmp_path / "mine.tsv").read_text() == "mine\n"


WRONG = {
    "another set": ("0123456789ab\t1\tleft\n", "line 2: the answer is to the set of pairs '0123456789ab'"),
    "no such pair": ("NAME\t51\tleft\n", "a pair from 1 to 50 and a side"),
    "no such side": ("NAME\t1\tup\n", "not '1' and 'up'"),
    "an answer twice": ("NAME\t1\tleft\nNAME\t1\tright\n", "line 3: pair 1 has an answer above already"),
    "a gap": ("NAME\t2\tleft\n", "has no answer to pair 1"),
}


@pytest.mark.parametrize(("rows", "said"), WRONG.values(), ids=WRONG)
def test_a_file_of_answers_that_was_changed_is_refused(rows: str, said: str, data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    pairs.output.write_text("set\tpair\tside\n" + rows.replace("NAME", pairs.name))
    with pytest.raises(InputError, match=said):
        finish_judging(pairs.output)


def test_answers_from_a_spreadsheet_are_read(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    rows = [f"{pairs.name}\t{number}\t{SIDES[number % 4]}" for number in range(50, 0, -1)]
    pairs.output.write_bytes(("\ufeffset\tpair\tside\r\n" + "\r\n".join(rows) + "\r\n").encode())
    assert pairs.answers() == [SIDES[number % 4] for number in range(1, 51)]


def test_a_sealed_file_that_is_missing_or_changed_is_refused(data: Path, tmp_path: Path):
    pairs = drawn(data, tmp_path)
    pairs.write(["left"] * 50)
    sealed = pairs_path(pairs.output)
    content = sealed.read_text()
    sealed.write_text(content.replace('"differ": ', '"differ": 1'))
    with pytest.raises(InputError, match="is damaged"):
        finish_judging(pairs.output)
    sealed.write_text('{"a": 1}')
    with pytest.raises(InputError, match="does not hold the pairs of textcl judge"):
        finish_judging(pairs.output)
    sealed.unlink()
    with pytest.raises(InputError, match=r"There is no .*pairs\.json"):
        finish_judging(pairs.output)
    with pytest.raises(InputError, match="There is no file"):
        finish_judging(tmp_path / "nothing.tsv")


def test_systems_that_are_the_same_or_differ_too_rarely_are_refused(data: Path, tmp_path: Path):
    with pytest.raises(InputError, match="are the same system"):
        draw_pairs("bm25", "bm25", data, tmp_path / "j.tsv")
    (tmp_path / "few.txt").write_text("\n".join(TEXTS[:60]))
    with pytest.raises(InputError, match=r"for \d+ of 60 queries, and 50 such .*Give more texts or queries\.$"):
        draw_pairs("bm25", "tfidf", tmp_path / "few.txt", tmp_path / "j.tsv")
    with pytest.raises(InputError, match=r"100 queries are needed, and there are 60\. .*, or fewer --answers\.$"):
        draw_pairs("bm25", "tfidf", tmp_path / "few.txt", tmp_path / "j.tsv", answers=100)
    with pytest.raises(InputError, match="must be 50, 100 or 200"):
        draw_pairs("bm25", "tfidf", data, tmp_path / "j.tsv", answers=20)
    assert not (tmp_path / "j.tsv.pairs.json").exists()


def test_queries_of_a_log_count_once_and_find_a_text_that_is_the_same(data: Path, tmp_path: Path):
    log = tmp_path / "log.csv"
    words = [text.split()[-2] for text in TEXTS]
    queries = [" ".join(words[(n + 17 * step) % 200] for step in range(4)) for n in range(200)]
    log.write_text(
        "time,query\n"
        + "".join(f'{n % 9},"{query}"\n' for n, query in enumerate([*queries, *queries, " "]))
        + "".join(f'1,"{query} ?"\n' for query in queries)  # nearly the same question
    )
    pairs = drawn(data, tmp_path, query_log=log)
    different = int(near_duplicate_groups(None, queries).max()) + 1
    assert 190 < different < 200  # some have the same words in another order
    assert pairs.content["looked"] == different
    assert {pair.query.removesuffix(" ?") for pair in pairs.pairs} <= set(queries)
    assert pairs.what == "Query"
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"no query in|no text|is empty"):
        drawn(data, tmp_path / "x", query_log=tmp_path / "blank.txt")


def test_a_directory_of_vectors_gives_texts_and_its_vectors_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    few = tmp_path / "few.txt"
    few.write_text("\n".join(TEXTS[:120]), encoding="utf-8")
    encode_corpus(Encoder.from_pretrained("bundled"), TEXTS[:120], tmp_path / "vectors")
    asked: list[int] = []
    encode = Workplace.vectors

    def counted(self: Workplace, *arguments: object) -> np.ndarray:
        found = encode(self, *arguments)  # type: ignore[arg-type]
        asked.append(sum(1 for path in self.folder.iterdir() if path.is_dir()))
        return found

    monkeypatch.setattr(Workplace, "vectors", counted)
    pairs = draw_pairs("bundled", "bm25", tmp_path / "vectors", tmp_path / "v.tsv")
    assert asked == [0]  # no further directory of vectors
    same = draw_pairs("bundled", "bm25", few, tmp_path / "t.tsv")
    assert asked == [0, 1]
    assert same.pairs == pairs.pairs


def test_long_and_hostile_texts_are_shown_harmless_and_kept_whole(tmp_path: Path):
    texts = [f"{text} \x1b[31m red {'and on ' * 290}" for text in TEXTS[:120]]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pairs = draw_pairs("bm25", "tfidf", tmp_path / "t.jsonl", tmp_path / "j.tsv")
    assert {pair.left for pair in pairs.pairs} <= {text.strip() for text in texts}
    for shown in pairs.shown(0):
        assert "\x1b" not in shown
        assert len(shown) == 2000
        assert shown.endswith(" …")


def test_a_result_that_is_missing_is_shown_as_such(data: Path, tmp_path: Path):
    log = tmp_path / "log.txt"
    log.write_text("\n".join(f"zzyzx{n} the" for n in range(60)))  # BM25 leaves out "the", TF-IDF does not
    pairs = drawn(data, tmp_path, query_log=log)
    assert all("" in (pair.left, pair.right) for pair in pairs.pairs)
    assert "(nothing found)" in pairs.shown(0)
    assert read_blind_pairs(pairs.output).pairs == pairs.pairs
